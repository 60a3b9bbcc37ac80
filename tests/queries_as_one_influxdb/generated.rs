//! Promise: statements whose rules have many corners are carried out as by one InfluxDB, for combinations that nobody
//! has chosen. The generator has a fixed seed; what differs is printed as a statement.

use serde_json::{Map, Value};

use crate::compare::{Form, difference};
use crate::corpus::{self, Kind, Query};
use crate::data::Batch;
use crate::pair::Findings;
use crate::world::OracleAndCluster;

/// SplitMix64.
struct Choices(u64);

impl Choices {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    fn of<'a>(&mut self, choices: &[&'a str]) -> &'a str {
        choices[self.next() as usize % choices.len()]
    }
}

/// A query in `db`, sent with POST, of whatever kind its answer is.
fn query(category: &str, db: &str, text: &str) -> Query {
    let options = [("db", db), ("as", "post"), ("epoch", "ns")];
    let options: Map<_, _> = options.into_iter().map(|(name, value)| (name.to_owned(), Value::from(value))).collect();
    corpus::made_with(category, options, text, None)
}

/// Measurements on all backends with the tags `host` and `dc`, an integer `v`, a float `w`, and `x`, which is a tag in
/// some and a field in others. No value comes twice.
fn points() -> Vec<Batch> {
    let mut lines = String::new();
    for n in 0..240i64 {
        let (m, host, dc) = (n % 6, n / 6 % 4, n / 24 % 3);
        let tag = if m % 2 == 0 { format!(",x=x{}", n % 3) } else { String::new() };
        let field = if m % 2 == 1 { format!(",x={n}i") } else { String::new() };
        let (v, w) = (n * 7919 % 1009 - 300, (n * 104_729 % 2003) as f64 / 8.0 - 100.0);
        lines += &format!("m{m},dc=d{dc},host=h{host}{tag} v={v}i,w={w}{field} {}\n", 1_700_000_000 + n / 12);
    }
    vec![Batch { db: "g", rp: "", precision: "s", lines }]
}

#[test]
fn top_and_bottom_with_a_target_keep_tags_as_tags() {
    const CASES: usize = 250;
    let mut world = OracleAndCluster::start(false);
    world.pair.give(&["CREATE DATABASE g"], &points());
    world.drain();
    let mut choices = Choices(7);
    let mut findings = Findings::new("top() and bottom() with INTO");
    for case in 0..CASES {
        let function = choices.of(&["top", "bottom", "TOP"]);
        let field = choices.of(&["v", "w"]);
        let tags =
            choices.of(&["", "host, ", "host, ", "dc, host, ", "x, ", "w, ", "none, ", "host::tag, ", "host, x, v, "]);
        let call = format!("{function}({field}, {tags}{})", choices.of(&["1", "2", "3", "5"]));
        let call =
            choices.of(&["#", "#", "# AS t", "# AS host", "# + 1", "-#", "# * 2.5 AS t", "(#)"]).replace('#', &call);
        let fields = choices.of(&["#", "#", "#", "#, w", "host, #", "#, host::tag, dc", "#, *", "/w|host/, #"]);
        let fields = fields.replace('#', &call);
        let source = choices.of(&[
            "m0",
            "m1",
            "m0, m1, m2",
            "/m[0-3]/",
            "(SELECT v, w, host FROM m0)",
            "(SELECT v, w, host, x FROM m2, m3 GROUP BY dc)",
            "(SELECT max(v) AS v, w FROM m0, m1, m4 GROUP BY host, dc)",
            "(SELECT * FROM /m./)",
        ]);
        // docs/reliability.md says so: a column shows no tag that a subquery hides.
        let is_hidden = source.contains("SELECT") && (fields.contains(['*', '/']) || tags.contains('x'));
        let source = if is_hidden { "m0" } else { source };
        let time = "WHERE time >= 1700000000s AND time < 1700000020s";
        let group =
            choices.of(&["", "", "GROUP BY dc", "GROUP BY *", "GROUP BY host", "GROUP BY /d.|x/", "T", "T, dc"]);
        let group = group.replace('T', &format!("{time} GROUP BY time(4s)"));
        let end =
            choices.of(&["", "", "", "ORDER BY time DESC", "LIMIT 5", "LIMIT 5 OFFSET 1", "OFFSET 2", "SLIMIT 2"]);
        let (db, target) = if choices.next().is_multiple_of(8) {
            let db = format!("g{case}");
            findings.note(
                &query("create", "g", "CREATE DATABASE"),
                world.pair.compare(&query("create", "g", &format!("CREATE DATABASE {db}"))),
            );
            let target = format!("{db}.autogen.:MEASUREMENT");
            (db, target)
        } else {
            ("g".to_owned(), format!("o{case}"))
        };
        let into = query("into", "g", &format!("SELECT {fields} INTO {target} FROM {source} {group} {end}"));
        let what = if db == "g" { target } else { "/.*/".to_owned() };
        findings.note(&into, world.pair.compare(&into));
        for read in [
            format!("SELECT * FROM {what} GROUP BY *"),
            format!("SHOW FIELD KEYS FROM {what}"),
            format!("SHOW SERIES FROM {what}"),
        ] {
            let read = query("read", &db, &read);
            let found = world.pair.compare(&read).map(|found| format!("{}\n    after {}", found.trim_end(), into.text));
            findings.note(&read, found);
        }
    }
    assert!(findings.end() >= 4 * CASES);
}

/// Three measurements on several backends with the tags `host` and `dc`, but `host` is a field in `odd`.
fn removable(db: &'static str, odd: &str) -> Vec<Batch> {
    let mut lines = String::new();
    for m in ["a", "k", "z"] {
        for n in 0..6 {
            let time = 1_700_000_000 + 1_000_000 * n;
            let host = n % 3;
            lines += &match m == odd {
                true => format!("{m},dc=d{} host=\"h{host}\",v={n}i {time}\n", n % 2),
                false => format!("{m},dc=d{},host=h{host} v={n}i {time}\n", n % 2),
            };
        }
    }
    vec![Batch { db, rp: "", precision: "s", lines }]
}

#[test]
fn a_removal_that_one_backend_refuses_removes_nothing() {
    let mut world = OracleAndCluster::start(false);
    let mut findings = Findings::new("DELETE and DROP SERIES");
    let (mut refused, mut case) = (0, 0);
    let masked =
        |body: &[u8]| -> String { String::from_utf8_lossy(body).chars().filter(|c| !c.is_ascii_digit()).collect() };
    for odd in ["a", "k", "z", "none"] {
        for from in ["", "FROM /a|k|z/", "FROM k", "FROM /[az]/"] {
            for (what, condition) in [
                ("DELETE", "host = 'h1'"),
                ("DELETE", "host = 'h1' AND time >= 1702000000s"),
                ("DELETE", "dc = 'd0' AND host =~ /h[12]/"),
                ("DELETE", "dc = 'nowhere' AND host = 'h1'"),
                ("DROP SERIES", "host = 'h1' OR dc = 'd1'"),
                ("DROP SERIES", "v = 1"),
                ("DELETE", "dc != 'd0' AND time < 1703000000s"),
            ] {
                case += 1;
                let db: &'static str = Box::leak(format!("r{case}").into_boxed_str());
                world.pair.give(&[&format!("CREATE DATABASE {db}")], &removable(db, odd));
                world.drain();
                let reads = ["SELECT * FROM /.*/ GROUP BY *", "SHOW SERIES"].map(|read| query("left", db, read));
                let before = reads.each_ref().map(|read| world.pair.ask_cluster(&read.request).body);
                let removal = query("removal", db, &format!("{what} {from} WHERE {condition}"));
                let oracle = world.pair.ask_oracle(&removal.request);
                let cluster = world.pair.ask_cluster(&removal.request);
                let mut found = (masked(&oracle.body) != masked(&cluster.body))
                    .then(|| format!("{} (odd is {odd}): {} not {}", removal.text, cluster.short(), oracle.short()));
                let is_refused = String::from_utf8_lossy(&oracle.body).contains("error");
                refused += usize::from(is_refused);
                for (read, before) in reads.iter().zip(before) {
                    found = found.or_else(|| match is_refused {
                        true => (world.pair.ask_cluster(&read.request).body != before)
                            .then(|| format!("{} (odd is {odd}) has removed something", removal.text)),
                        false => world.pair.compare(read).map(|found| format!("{found} after {}", removal.text)),
                    });
                }
                findings.note(&removal, found);
            }
        }
    }
    assert!(findings.end() == case && refused >= case / 3, "{refused} of {case} refused");
}

/// Zeros, so that some logarithms are infinite, and values that Go writes with an exponent.
fn beyond() -> Vec<Batch> {
    let mut lines = String::new();
    for n in 0..60i64 {
        let float = [0.0, 1e-7, 0.5, 3.0, 1e20, 1e21, -2.5, 1e300][n as usize % 8];
        let time = 1_700_000_000_000_000_000 + n / 6 * 1_234_567_890_100;
        lines += &format!("m{},host=h{} v={}i,f={float:e} {time}\n", n % 6, n % 4, n % 5 - 1);
    }
    vec![Batch { db: "beyond", rp: "", precision: "ns", lines }]
}

#[test]
fn values_that_json_cannot_hold_are_answered_as_by_influxdb() {
    const CASES: usize = 300;
    let mut world = OracleAndCluster::start(false);
    world.pair.give(&["CREATE DATABASE beyond"], &beyond());
    world.drain();
    let mut choices = Choices(11);
    let mut findings = Findings::new("values beyond JSON");
    let mut unwritable = 0;
    for _ in 0..CASES {
        let mut select = || {
            let field = choices.of(&["ln(v)", "ln(f)", "-ln(v)", "exp(f)", "sqrt(f)", "log10(v), f", "f", "ln(v), *"]);
            let source = choices.of(&["m0, m1, m2", "/m[0-5]/", "m3", "(SELECT ln(v) AS x, f, v FROM m4, m5)"]);
            let group = choices.of(&["", "GROUP BY host", "GROUP BY *"]);
            let end = choices.of(&["", "", "LIMIT 3", "ORDER BY time DESC"]);
            format!("SELECT {field} FROM {source} {group} {end}")
        };
        let mut text = select();
        for _ in 0..select().len() % 3 {
            text = format!("{text}; {}", select());
        }
        let mut options = Map::new();
        let mut option = |name: &str, value: &str| _ = options.insert(name.to_owned(), Value::from(value));
        option("db", "beyond");
        option("epoch", choices.of(&["", "", "ns", "ms", "h"]));
        option("accept", choices.of(&["", "", "", "application/csv", "application/x-msgpack"]));
        option("pretty", choices.of(&["", "", "true"]));
        option("gzip", choices.of(&["", "true"]));
        if choices.next().is_multiple_of(2) {
            option("chunked", "true");
            option("chunk_size", choices.of(&["1", "2", "10000"]));
        }
        let query = corpus::made_with("beyond", options, &text, None);
        let (oracle, cluster) = (world.pair.ask_oracle(&query.request), world.pair.ask_cluster(&query.request));
        unwritable += usize::from(String::from_utf8_lossy(&oracle.body).contains("json: unsupported value: "));
        let alike = match &query.form {
            Form::Msgpack => difference(query.form, &oracle, &cluster).is_none(),
            _ => (oracle.status, &oracle.body) == (cluster.status, &cluster.body),
        };
        let found = (!alike).then(|| format!("{text} {:?}: {} not {}", query.request, cluster.short(), oracle.short()));
        findings.note(&query, found);
    }
    assert!(findings.end() == CASES && unwritable >= CASES / 4, "{unwritable} of {CASES}");
}

#[test]
fn columns_of_subqueries_have_the_types_of_influxdb() {
    const CASES: usize = 300;
    let mut world = OracleAndCluster::start(false);
    world.pair.give(&["CREATE DATABASE g"], &points());
    world.drain();
    let mut choices = Choices(23);
    let mut findings = Findings::new("types in subqueries");
    let mut rows = 0;
    for _ in 0..CASES {
        let mut call = || {
            let arg = choices.of(&["v", "w", "v + 1", "w * v", "v / 7", "ln(v)", "-v", "abs(w)", "x"]);
            let call = choices.of(&[
                "sqrt(#)",
                "ln(#)",
                "log(#, 2)",
                "log2(#)",
                "log10(#)",
                "exp(#)",
                "sin(#)",
                "cos(#)",
                "tan(#)",
                "asin(#)",
                "acos(#)",
                "atan(#)",
                "atan2(#, v)",
                "atan2(w, #)",
                "pow(#, 2)",
                "pow(v, #)",
                "abs(#)",
                "ceil(#)",
                "floor(#)",
                "round(#)",
                "sqrt(#) + 1",
                "2 * exp(#) / 3",
                "SQRT(#)",
                "log(#, 2.5)",
                "(ln(#))",
            ]);
            call.replace('#', arg)
        };
        let (one, other) = (call(), call());
        let one = choices.of(&["#", "#", "mean(v), max(w)", "sqrt(mean(v))"]).replace('#', &one);
        let is_aggregate = one.contains('m') && (one.contains("mean") || one.contains("max"));
        let other = if is_aggregate { "floor(max(v))" } else { &other };
        let outer =
            choices.of(&["*", "x", "x + y", "/x|y/", "mean(x), last(y)", "sum(*)", "x / 2, y * 1.5", "sqrt(x)"]);
        let source = choices.of(&["m0, m1, m4", "/m[0-3]/", "m1, m3, m5"]);
        let group = choices.of(&["", "", "GROUP BY host"]);
        let one = one.replace("mean(v), max(w)", "mean(v) AS x, max(w)");
        let inner = format!("SELECT {one} AS {} , {other} AS y FROM {source} {group}", choices.of(&["x", "x", "z"]));
        let inner = match choices.of(&["", "", "nested"]) {
            "" => inner,
            _ => format!("SELECT ln(x) AS x, y FROM ({inner})"),
        };
        let query = query("types", "g", &format!("SELECT {outer} FROM ({inner})"));
        rows += usize::from(Kind::of(&world.pair.ask_oracle(&query.request)) == Some(Kind::Rows));
        findings.note(&query, world.pair.compare(&query));
    }
    assert!(findings.end() == CASES && rows >= CASES / 2, "{rows} of {CASES} have rows");
}

#[test]
fn control_bytes_in_names_and_values_pass_as_with_one_influxdb() {
    let mut world = OracleAndCluster::start(false);
    let mut lines = String::new();
    for (n, byte) in ['\r', '\0', '\t', '\u{1}', '\u{1b}', '\u{7f}', '\u{85}', '\u{2028}'].into_iter().enumerate() {
        for m in ["m0", "m1", "m2", "m3"] {
            for point in ["M,t=aBb v=N", "M,tBk=a v=N", "M,t=xB v=N", "M,u=q fBg=N", "MBz,u=q v=N"] {
                let value = lines.len().to_string();
                let point = point.replace('M', m).replace('B', &byte.to_string()).replace('N', &value);
                lines += &format!("{point} {}\n", 1_700_000_000 + n);
            }
        }
    }
    world.pair.give(&["CREATE DATABASE g"], &[Batch { db: "g", rp: "", precision: "s", lines }]);
    world.drain();
    let mut findings = Findings::new("control bytes");
    for text in [
        "SELECT * FROM m0, m1, m2, m3",
        "SELECT * FROM /m./ GROUP BY *",
        "SELECT last(v), v / 2 FROM /.*/ GROUP BY *",
        "SELECT mean(*) FROM /m/ GROUP BY /t/",
        "SELECT max(v) FROM (SELECT * FROM m0, m1, m2, m3 GROUP BY *) GROUP BY *",
        "SELECT count(/f/) FROM m0, m1, m2, m3 WHERE t !~ /\"/ AND u = 'q' GROUP BY u",
        "SELECT * INTO o FROM m0, m1, m2 GROUP BY *",
        "SELECT * FROM o",
        "SELECT * INTO :MEASUREMENT FROM /m.*/ GROUP BY *",
        "SHOW FIELD KEYS",
        "SHOW TAG KEYS FROM /m/",
        "SHOW SERIES",
        "SHOW TAG VALUES WITH KEY =~ /t|u/",
        "SHOW MEASUREMENTS; SELECT * FROM m0, m1, m2; SELECT * FROM m2, m3, m1",
    ] {
        let query = query("control", "g", text);
        findings.note(&query, world.pair.compare(&query));
    }
    let params = r#"{"value": "a\rb", "name": {"identifier": "m0\rz"}, "some": {"regex": "^a.b$"}}"#;
    for text in [
        "SELECT v FROM m0, m1, m2, m3 WHERE t = $value",
        "SELECT * FROM $name, m0, m1 GROUP BY *",
        "SELECT v FROM m0, m1, m2 WHERE t =~ $some",
        "SHOW TAG VALUES FROM m0, m1, m2 WITH KEY = t WHERE t = $value",
    ] {
        let options = [("db", "g"), ("as", "form"), ("params", params)];
        let options = options.map(|(name, value)| (name.to_owned(), Value::from(value)));
        let query = corpus::made_with("control", options.into_iter().collect(), text, None);
        findings.note(&query, world.pair.compare(&query));
    }
    findings.end();
}

/// Requests for `/query` that the backends of the cluster have had.
fn requests(world: &mut OracleAndCluster) -> u64 {
    let stats = query("stats", "", "SHOW STATS FOR 'httpd'");
    let body: Value = serde_json::from_slice(&world.pair.ask_cluster(&stats.request).body).unwrap();
    let series = body["results"][0]["series"].as_array().unwrap().iter();
    let of = |series: &Value| {
        let at = series["columns"].as_array().unwrap().iter().position(|name| name == "queryReq").unwrap();
        series["values"][0][at].as_u64().unwrap()
    };
    series.map(of).sum()
}

#[test]
fn statements_of_one_request_are_answered_in_order_by_few_requests() {
    const CASES: usize = 200;
    let mut world = OracleAndCluster::start(false);
    world.pair.give(&["CREATE DATABASE g"], &points());
    world.drain();
    let mut choices = Choices(31);
    let mut findings = Findings::new("several statements");
    for _ in 0..CASES {
        let mut text = Vec::new();
        for _ in 0..2 + choices.next() % 12 {
            text.push(choices.of(&[
                "SELECT last(v) FROM m0",
                "SELECT * FROM m1 LIMIT 3",
                "SELECT v FROM m2, m3 LIMIT 2",
                "SELECT mean(w) FROM m4 GROUP BY host",
                "SELECT max(v) FROM m5 WHERE host = 'h1'",
                "SHOW TAG KEYS FROM m3",
                "SHOW MEASUREMENTS",
                "SHOW FIELD KEYS FROM m2",
                "SELECT v FROM nosuch.m1",
                "SELECT max(v), w FROM m1, m2",
                "SHOW RETENTION POLICIES",
                "SELECT count(w) FROM m0; SELECT count(w) FROM m1; SELECT count(w) FROM m2; SELECT ln(v) FROM m3",
                "SELECT derivative(v) FROM m1 GROUP BY time(1s)",
                "SHOW DATABASES",
                "SHOW SERIES FROM /m[1-4]/ LIMIT 5",
                "SHOW TAG VALUES FROM m1, m2 WITH KEY = host",
                "SHOW SERIES CARDINALITY",
                "SELECT x FROM (SELECT log2(v) AS x FROM m1, m4) LIMIT 2",
                "SELECT v FROM m1, nosuch.autogen.m2",
                "SELECT mean(v) FROM m0, m1 WHERE time < 1700000010s GROUP BY time(5s)",
                "CREATE DATABASE g; SELECT sum(v) FROM /m./",
                "SELECT count(v) FROM m1, m2; SELECT count(v) FROM m1, m2; SELECT sum(w) FROM m1, m2, m3",
            ]));
        }
        let mut options = Map::new();
        let mut option = |name: &str, value: &str| _ = options.insert(name.to_owned(), Value::from(value));
        option("db", choices.of(&["g", "g", "g", ""]));
        option("epoch", choices.of(&["", "ms"]));
        option("chunked", choices.of(&["", "", "true"]));
        // In CSV InfluxDB writes the name of a column in the place of a number here.
        let is_wrong = text.contains(&"SHOW RETENTION POLICIES");
        option("accept", if is_wrong { "" } else { choices.of(&["", "application/csv"]) });
        let query = corpus::made_with("several", options, &text.join("; "), None);
        findings.note(&query, world.pair.compare(&query));
    }
    assert!(findings.end() == CASES);
    let pairs: Vec<_> = (0..400).map(|n| format!("SELECT sum(v) FROM m{}, m{}, m{}", n % 6, n % 5, n % 3)).collect();
    let each: Vec<_> = (0..400).map(|n| format!("SELECT last(v) FROM m{}", n % 6)).collect();
    let windows = |n| format!("SELECT mean(v) FROM m0, m1, m2, m3 WHERE time > {}s", 1_700_000_000 - n);
    let windows: Vec<_> = (0..400).map(windows).collect();
    let shows = ["SHOW TAG KEYS", "SHOW MEASUREMENTS LIMIT 4", "SHOW FIELD KEYS"];
    let shows: Vec<_> = (0..400).map(|n| shows[n % 3].to_owned()).collect();
    for many in [pairs, each, windows, shows] {
        let before = requests(&mut world);
        let options = [("db", "g"), ("as", "form")].map(|(name, value)| (name.to_owned(), Value::from(value)));
        let query = corpus::made_with("several", options.into_iter().collect(), &many.join("; "), None);
        assert_eq!(world.pair.compare(&query), None);
        let asked = requests(&mut world) - before;
        assert!(asked < 100, "{asked} requests for 400 statements like {}", many[0]);
    }
}
