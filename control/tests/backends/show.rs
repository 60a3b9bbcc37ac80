//! Compares SHOW over three real servers, each with a part of the data, with one real server that has all of it.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Instant;

use fluxgate_control::influx::answer::Answer;
use fluxgate_control::query::context::{Context, QueryShared, Stop, Times};
use fluxgate_control::query::{server, show};
use fluxgate_dataplane::handoff::Catalog;
use fluxgate_dataplane::influxql::{Params, parse};
use fluxgate_dataplane::placement::Place;
use fluxgate_dataplane::routing::reach::{Class, class};
use fluxgate_dataplane::topology::BackendId;

use super::support::{self, Influxd, topology};

const SHARDS: usize = 3;

/// Database, policy, measurement, then the rest of a line. Names and values that sort or are escaped unusually; times
/// over several weeks, so several shard groups.
#[rustfmt::skip]
const LINES: &[(&str, &str, &str, &str)] = &[
    ("p", "", "cpu", "host=a,region=eu usage=1,idle=2i 1700000000000000000"),
    ("p", "", "cpu", "host=b,region=us usage=2 1700000010000000000"),
    ("p", "", "cpu", r"host=a\,x usage=1 1700000000000000000"),
    ("p", "", "cpu", r"host=a\ b usage=1 1700000000000000000"),
    ("p", "", "cpu", r"host=a\=b usage=1 1700000000000000000"),
    ("p", "", "cpu", "host=a! usage=1 1700000000000000000"),
    ("p", "", "cpu", "az=1 usage=3 1600000000000000000"),
    ("p", "", "cpu", "host=a,region=eu usage=5 1600000000000000000"),
    ("p", "rp", "cpu", "host=z,onlyrp=1 usage=1,q=2 1700000000000000000"),
    ("p", "", "cpu!", "host=a v=1 1700000000000000000"),
    ("p", "", r"cpu\ load", "host=a,region=eu v=1 1700000000000000000"),
    ("p", "", "cpu-total", "host=a v=1 1700000000000000000"),
    ("p", "", "été", "host=é v=\"x\" 1700000000000000000"),
    ("p", "", "_x", "host=a v=1 1700000000000000000"),
    ("p", "", "Disk", "host=c,path=/ used=1i,free=2i 1700000000000000000"),
    ("p", "", r"a\,b", r"host=a,k\ 1=v v=1 1700000000000000000"),
    ("p", "", "q\"uo'te", "host=a\"b v=1 1700000000000000000"),
    ("p", "", "b<>&", "host=<&> v=true 1700000000000000000"),
    ("p", "", "mem", "host=a,region=eu used=5 1600000000000000000"),
    ("p", "", "mem", "host=c used=5i 1700000000000000000"),
    ("p", "rp", "mem", "host=c used=5 1700000000000000000"),
    ("p", "", "a=b", "host=a v=1 1700000000000000000"),
    ("p", "", "net", "if=eth0,host=a rx=1i,tx=2i 1700000000000000000"),
    ("e", "", "cpu", "host=e usage=1 1700000000000000000"),
    ("e", "", "mem", "host=e used=1 1700000000000000000"),
    ("e", "", "zzz", "host=e used=1 1700000000000000000"),
];

const STATEMENTS: &[&str] = &[
    "SHOW DATABASES",
    "SHOW CONTINUOUS QUERIES",
    "SHOW SUBSCRIPTIONS",
    "SHOW RETENTION POLICIES ON p",
    "SHOW RETENTION POLICIES ON nodb",
    "SHOW MEASUREMENTS",
    "SHOW MEASUREMENTS ON e",
    "SHOW MEASUREMENTS ON nodb",
    "SHOW MEASUREMENTS LIMIT 3",
    "SHOW MEASUREMENTS LIMIT 3 OFFSET 2",
    "SHOW MEASUREMENTS OFFSET 7",
    "SHOW MEASUREMENTS OFFSET 70",
    "SHOW MEASUREMENTS ORDER BY time DESC LIMIT 4",
    "SHOW MEASUREMENTS WITH MEASUREMENT = cpu",
    "SHOW MEASUREMENTS WITH MEASUREMENT =~ /c/ LIMIT 2 OFFSET 1",
    "SHOW MEASUREMENTS WITH MEASUREMENT =~ /[ !,]/",
    "SHOW MEASUREMENTS WHERE region = 'eu' OR host =~ /^(c|é)$/",
    "SHOW MEASUREMENTS WITH MEASUREMENT =~ /m/ WHERE region = 'eu'",
    "SHOW MEASUREMENTS WHERE usage > 1",
    "SHOW MEASUREMENTS WHERE time > 0",
    "SHOW SERIES",
    "SHOW SERIES ON e",
    "SHOW SERIES ON nodb",
    "SHOW SERIES LIMIT 5 OFFSET 6",
    "SHOW SERIES OFFSET 100",
    "SHOW SERIES ORDER BY time DESC LIMIT 5",
    "SHOW SERIES FROM cpu, mem, Disk, net",
    "SHOW SERIES FROM net, cpu LIMIT 3 OFFSET 1",
    "SHOW SERIES FROM cpu, cpu, \"cpu load\", \"cpu!\"",
    "SHOW SERIES FROM rp.cpu, rp.mem",
    "SHOW SERIES FROM /c.*/, mem WHERE host = 'a'",
    "SHOW SERIES FROM cpu, e..cpu, e..zzz",
    "SHOW SERIES FROM p..cpu, nodb..cpu, mem",
    "SHOW SERIES FROM cpu, norp.mem, net, norp.Disk",
    "SHOW SERIES WHERE host = 'a' OR region = 'us'",
    "SHOW SERIES WHERE usage > 1",
    "SHOW SERIES WHERE time > 0",
    "SHOW SERIES WHERE TIME > 1650000000000000000 LIMIT 7 OFFSET 3",
    "SHOW SERIES WHERE host =~ /a/ AND (\"time\" < '2021-01-01T00:00:00Z')",
    "SHOW SERIES FROM cpu, mem, /d/ WHERE time > now() - 1000w LIMIT 6",
    "SHOW SERIES WHERE time > now() + 1h",
    "SHOW TAG KEYS",
    "SHOW TAG KEYS ON e",
    "SHOW TAG KEYS ON nodb",
    "SHOW TAG KEYS LIMIT 1 OFFSET 1",
    "SHOW TAG KEYS OFFSET 2",
    "SHOW TAG KEYS LIMIT 1 SLIMIT 1 SOFFSET 1",
    "SHOW TAG KEYS FROM cpu, mem, net, Disk",
    "SHOW TAG KEYS FROM e..cpu, norp.mem, net",
    "SHOW TAG KEYS FROM /c/, mem WHERE region = 'eu' ORDER BY time DESC",
    "SHOW TAG KEYS WHERE time > '2023-01-01'",
    "SHOW TAG VALUES WITH KEY = host",
    "SHOW TAG VALUES ON e WITH KEY = host",
    "SHOW TAG VALUES ON nodb WITH KEY = host",
    "SHOW TAG VALUES WITH KEY != host",
    "SHOW TAG VALUES WITH KEY =~ /^[hr]/ LIMIT 2 OFFSET 1",
    "SHOW TAG VALUES WITH KEY !~ /h/",
    "SHOW TAG VALUES WITH KEY IN (region, \"k 1\", path)",
    "SHOW TAG VALUES WITH KEY = nosuch",
    "SHOW TAG VALUES FROM cpu, mem, \"été\", \"b<>&\" WITH KEY = host WHERE region = 'eu' OR region = ''",
    "SHOW TAG VALUES FROM /.*/ WITH KEY = host WHERE host != 'a' OFFSET 1",
    "SHOW TAG VALUES WITH KEY IN (host, region) WHERE time > now() - 1000w ORDER BY time DESC LIMIT 3",
    EARLY,
    "SHOW FIELD KEYS",
    "SHOW FIELD KEYS ON e",
    "SHOW FIELD KEYS ON nodb",
    "SHOW FIELD KEYS ORDER BY time",
    "SHOW FIELD KEYS LIMIT 1",
    "SHOW FIELD KEYS LIMIT 1 OFFSET 1",
    "SHOW FIELD KEYS OFFSET 5",
    "SHOW FIELD KEYS FROM mem, cpu, Disk, net",
    "SHOW FIELD KEYS FROM rp.cpu, rp.mem, net",
    "SHOW FIELD KEYS FROM /e/, e..zzz",
    "SHOW FIELD KEYS FROM cpu, rp.cpu, mem",
    "SHOW SERIES EXACT CARDINALITY",
    "SHOW SERIES EXACT CARDINALITY ON e",
    "SHOW SERIES EXACT CARDINALITY ON nodb",
    "SHOW SERIES CARDINALITY LIMIT 1",
    "SHOW SERIES CARDINALITY OFFSET 1",
    "SHOW SERIES CARDINALITY FROM cpu, mem, net, nodb..x",
    "SHOW SERIES EXACT CARDINALITY WHERE host = 'a' GROUP BY host, region",
    "SHOW SERIES EXACT CARDINALITY FROM cpu, mem, Disk, net GROUP BY *",
    "SHOW SERIES EXACT CARDINALITY FROM mem, Disk, cpu WHERE region = 'eu' GROUP BY *",
    "SHOW SERIES EXACT CARDINALITY GROUP BY /^[hr]/",
    "SHOW SERIES CARDINALITY GROUP BY *, host",
    "SHOW SERIES EXACT CARDINALITY WHERE host = 'nosuch' GROUP BY *",
    "SHOW SERIES CARDINALITY WHERE time > 0",
    "SHOW TAG KEY CARDINALITY",
    "SHOW TAG KEY EXACT CARDINALITY FROM cpu, mem, net LIMIT 1",
    "SHOW TAG KEY CARDINALITY WHERE host = 'a' GROUP BY region",
    "SHOW TAG KEY CARDINALITY GROUP BY *",
    "SHOW TAG VALUES CARDINALITY WITH KEY = host",
    "SHOW TAG VALUES EXACT CARDINALITY FROM cpu, mem, net WITH KEY IN (host, region) WHERE host = 'a' OR region = 'us'",
    "SHOW TAG VALUES CARDINALITY WITH KEY =~ /./ GROUP BY host",
    "SHOW FIELD KEY CARDINALITY",
    "SHOW FIELD KEY EXACT CARDINALITY FROM cpu, mem, Disk",
    "SHOW FIELD KEY CARDINALITY GROUP BY *",
];

const EARLY: &str = "SHOW TAG VALUES WITH KEY = host WHERE time < 1650000000000000000";

/// Statements that sum counts: a measurement on two backends counts twice.
const SUMS: &[&str] = &[
    "SHOW SERIES CARDINALITY",
    "SHOW SERIES CARDINALITY ON nodb",
    "SHOW MEASUREMENT CARDINALITY",
    "SHOW MEASUREMENT CARDINALITY ON e",
    "SHOW MEASUREMENT CARDINALITY FROM cpu, mem, net",
    "SHOW MEASUREMENT EXACT CARDINALITY",
    "SHOW MEASUREMENT EXACT CARDINALITY LIMIT 1",
    "SHOW MEASUREMENT EXACT CARDINALITY OFFSET 1",
    "SHOW MEASUREMENT EXACT CARDINALITY FROM /c/ WHERE host = 'a'",
    "SHOW MEASUREMENT EXACT CARDINALITY GROUP BY host",
    "SHOW MEASUREMENT EXACT CARDINALITY GROUP BY region, host LIMIT 1",
    "SHOW MEASUREMENT CARDINALITY GROUP BY *",
    "SHOW MEASUREMENT CARDINALITY WHERE region = 'eu' GROUP BY *",
];

fn shared(influxds: &[&Influxd]) -> QueryShared {
    support::shared(topology(&[influxds.iter().map(|influxd| influxd.url()).collect()]))
}

/// Runs `text` as the engine does when several backends have a part of it.
fn merged(shared: &QueryShared, text: &str) -> Result<Answer, Stop> {
    let request = support::query("p");
    let context = Context::new(shared, &request, Arc::new(Catalog::default()), Instant::now());
    context.begin_statement();
    let statement = parse(text, &Params::default()).unwrap().pop().unwrap();
    match class(&statement, &request.db) {
        Class::Read(reach) => show::run(&context, &statement, &reach),
        Class::EveryServer => server::run(&context, &statement),
        other => panic!("{text}: {other:?}"),
    }
}

fn write(influxd: &Influxd, line: &(&str, &str, &str, &str)) {
    let (db, rp, measurement, rest) = line;
    let url = format!("{}/write?db={db}&rp={rp}", influxd.url());
    ureq::post(url).send(format!("{measurement},{rest}")).unwrap();
}

/// One server with all data, and several that share it.
struct ShowServers {
    oracle: Influxd,
    shards: Vec<Influxd>,
    all: QueryShared,
    parts: QueryShared,
}

impl ShowServers {
    fn start(index: &'static str) -> Self {
        let oracle = Influxd::with_index(index);
        let shards: Vec<_> = (0..SHARDS).map(|_| Influxd::with_index(index)).collect();
        for influxd in shards.iter().chain([&oracle]) {
            influxd.run(
                "CREATE DATABASE p; CREATE RETENTION POLICY rp ON p DURATION INF REPLICATION 1; CREATE DATABASE e",
            );
            influxd.run("CREATE SUBSCRIPTION s ON p.rp DESTINATIONS ALL 'udp://127.0.0.1:9'");
        }
        let (all, parts) = (shared(&[&oracle]), shared(&shards.iter().collect::<Vec<_>>()));
        let world = Self { oracle, shards, all, parts };
        let mut used = BTreeSet::new();
        for line in LINES {
            write(&world.oracle, line);
            let owner = world.owner(line);
            write(&world.shards[owner], line);
            used.insert(owner);
        }
        assert_eq!(used.len(), SHARDS, "every shard has a part");
        world
    }

    fn owner(&self, line: &(&str, &str, &str, &str)) -> usize {
        let measurement = line.2.replace('\\', "");
        self.parts.placement().owner(0, Place::new(line.0.as_bytes(), measurement.as_bytes())).index()
    }

    /// Whether the merged answer of the shards equals that of the server with all data. The error shows both.
    fn compare(&self, text: &str) -> Result<(), String> {
        let request = support::query("p");
        let context = Context::new(&self.all, &request, Arc::new(Catalog::default()), Instant::now());
        let whole = context.ask(BackendId(0), text, Times::AsAsked).unwrap().unwrap();
        let merged = merged(&self.parts, text).unwrap();
        if whole == merged { Ok(()) } else { Err(format!("{text}\n  one server: {whole:?}\n  shards:     {merged:?}")) }
    }

    fn compare_all<'a>(&self, statements: impl IntoIterator<Item = &'a &'a str>) {
        let wrong: Vec<_> = statements.into_iter().filter_map(|text| self.compare(text).err()).collect();
        assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    }
}

#[test]
fn shards_show_what_one_server_with_all_data_shows() {
    compare_with_index("inmem");
}

#[test]
fn shards_with_an_index_on_disk_show_what_one_server_shows() {
    compare_with_index("tsi1");
}

fn compare_with_index(index: &'static str) {
    let world = ShowServers::start(index);
    // The index in memory shows all measurements, also those without data in that time.
    let mergeable = |text: &&&str| index != "inmem" || **text != EARLY;
    world.compare_all(STATEMENTS.iter().chain(SUMS).filter(mergeable));

    // Two measurements are being moved: one is copied completely, one in part.
    for line in
        LINES.iter().filter(|line| line.2 == "cpu" || (line.2 == "mem" && line.3.ends_with("1700000000000000000")))
    {
        write(&world.shards[(world.owner(line) + 1) % SHARDS], line);
    }
    world.compare_all(STATEMENTS.iter().filter(mergeable));
}

#[test]
fn statements_that_cannot_be_merged_are_errors() {
    let shards = [Influxd::start(), Influxd::start()];
    let mut shared = shared(&[&shards[0], &shards[1]]);
    for shard in &shards {
        shard.run("CREATE DATABASE p");
        shard.write("p", "a v=1\nb v=1");
    }
    for (text, expected) in [
        ("SHOW FIELD KEYS ORDER BY time DESC", "leave ORDER BY out"),
        ("SHOW SERIES EXACT CARDINALITY GROUP BY time(1h)", "group by tags only"),
    ] {
        let error = merged(&shared, text).unwrap().error.expect(text);
        assert!(error.contains(expected), "{text}: {error}");
    }
    shared.settings.rows_max = 1;
    let refused = merged(&shared, "SHOW MEASUREMENTS").unwrap();
    assert!(refused.series.is_empty() && refused.error.unwrap().contains("2 rows"));
}

#[test]
fn a_database_that_only_some_backends_have_is_empty_on_the_others() {
    let shards = [Influxd::start(), Influxd::start()];
    let shared = shared(&[&shards[0], &shards[1]]);
    shards[1].run("CREATE DATABASE p");
    shards[1].write("p", "m,host=a v=1");
    let rows = |text: &str| {
        let answer = merged(&shared, text).unwrap();
        assert_eq!(answer.error, None, "{text}");
        answer.series.iter().flat_map(|series| &series.rows).map(|row| row.text().to_owned()).collect::<Vec<_>>()
    };
    assert_eq!(rows("SHOW SERIES"), [r#"["m,host=a"]"#]);
    shards[0].run("CREATE DATABASE e; CREATE DATABASE f");
    for m in ["m", "n", "o"] {
        shards[0].write("e", &format!("{m},host=e v=1"));
    }
    assert_eq!(
        rows("SHOW SERIES FROM /m/, e.././, f..nosuch"),
        [r#"["m,host=a"]"#, r#"["m,host=e"]"#, r#"["n,host=e"]"#, r#"["o,host=e"]"#]
    );
    assert_eq!(rows("SHOW TAG VALUES WITH KEY = host"), [r#"["host","a"]"#]);
    assert_eq!(rows("SHOW RETENTION POLICIES ON p").len(), 1);
    assert_eq!(rows("SHOW DATABASES"), [r#"["e"]"#, r#"["f"]"#, r#"["p"]"#]);
}

#[test]
fn every_server_that_is_up_answers_for_itself() {
    let mut shards = [Influxd::start(), Influxd::start(), Influxd::start()];
    let shared = shared(&[&shards[0], &shards[1], &shards[2]]);
    let told = |text: &str| {
        let answer = merged(&shared, text).unwrap();
        assert_eq!(answer.error, None, "{text}");
        let of =
            |tags: &[(String, String)]| tags.iter().find(|(key, _)| key == "backend").map(|(_, name)| name.clone());
        let backends: BTreeSet<_> = answer.series.iter().map(|series| of(&series.tags).unwrap()).collect();
        (backends.into_iter().collect::<Vec<_>>(), answer.messages)
    };
    let all = ["influxdb-1-1", "influxdb-1-2", "influxdb-1-3"];
    for text in ["SHOW STATS", "SHOW STATS FOR 'runtime'", "SHOW DIAGNOSTICS", "SHOW SHARD GROUPS", "SHOW QUERIES"] {
        assert_eq!(told(text), (all.map(str::to_owned).to_vec(), vec![]), "{text}");
    }
    shared.stats.reads[0].down.store(true, Relaxed);
    shards[1].stop();
    let (backends, messages) = told("SHOW DIAGNOSTICS");
    assert_eq!(backends, all[2..]);
    let named: Vec<_> =
        messages.iter().map(|message| (&message.level[..], message.text.split(' ').next().unwrap())).collect();
    assert_eq!(named, [("warning", all[1]), ("warning", all[0])]);
    shards[2].stop();
    assert!(matches!(merged(&shared, "SHOW DIAGNOSTICS"), Err(Stop::Failed { status: 503, .. })));
}
