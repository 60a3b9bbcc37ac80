//! The control thread against real InfluxDB servers.

use std::time::Duration;

use super::support::{Bench, Influxd, placement, topology, wait_for};
use fluxgate_control::influx::catalog;
use fluxgate_control::influx::client::CallFailure;
use fluxgate_control::influx::policy::Policy;
use fluxgate_dataplane::handoff::{Created, ToWorker};
use fluxgate_dataplane::influxql::print;
use fluxgate_dataplane::placement::Place;
use fluxgate_dataplane::topology::BackendId;

#[test]
fn a_backend_that_stops_and_starts_is_reported_once_each_time() {
    let mut influxd = Influxd::start();
    let mut bench = Bench::start(&[vec![influxd.url()]]);
    bench.probed(0, true);
    let addr = bench.seen.iter().find_map(|m| match m {
        ToWorker::Address { backend: BackendId(0), addr } => Some(*addr),
        _ => None,
    });
    assert_eq!(format!("http://{}", addr.expect("the address comes before the probe")), influxd.url());

    influxd.stop();
    bench.probed(0, false);
    wait_for("two more probes", || (bench.json("/health")[0]["backends"][0]["active"] == false).then_some(()));
    std::thread::sleep(Duration::from_millis(800));
    influxd.restart();
    bench.probed(0, true);
    let told = |m: &&ToWorker| matches!(m, ToWorker::Probed { .. });
    assert_eq!(bench.seen.iter().filter(told).count(), 0, "only changes are reported");
    assert_eq!(bench.json("/health")[0]["backends"][0]["active"], true);
}

#[test]
fn good_probes_reach_a_worker_that_has_the_backend_down() {
    use std::sync::atomic::Ordering::Relaxed;
    let influxd = Influxd::start();
    let mut bench = Bench::start(&[vec![influxd.url()]]);
    bench.probed(0, true);
    bench.stats.couriers[0].up.store(false, Relaxed);
    bench.probed(0, true);
    assert_eq!(bench.json("/health")[0]["backends"][0]["active"], false, "writes still fail");
}

#[test]
fn a_refresh_finds_what_was_created_just_before() {
    let (a, b) = (Influxd::start(), Influxd::start());
    a.run("CREATE DATABASE db1");
    let mut bench = Bench::start(&[vec![a.url()], vec![b.url()]]);
    assert_eq!(bench.refresh().expect("a catalog").databases["db1"].policies, ["autogen"]);

    let name = r#"odd " ; name"#;
    b.run(&format!("CREATE DATABASE {}", print::name(name)));
    b.run("CREATE DATABASE db1; CREATE RETENTION POLICY rp1 ON db1 DURATION 2d REPLICATION 1");
    let catalog = bench.refresh().expect("a catalog");
    assert!(catalog.known);
    assert_eq!(catalog.databases["db1"].policies, ["autogen", "rp1"]);
    assert_eq!(catalog.databases[name].policies, ["autogen"]);

    bench.seen.clear();
    assert!(bench.refresh().is_none(), "an unchanged catalog is not sent again");
}

#[test]
fn many_refreshes_become_few_rounds() {
    use fluxgate_dataplane::handoff::ToControl;
    let influxd = Influxd::start();
    let mut bench = Bench::start(&[vec![influxd.url()]]);
    let tickets: Vec<u64> = (0..500).map(|_| bench.ticket()).collect();
    for &ticket in &tickets {
        bench.send(ToControl::RefreshCatalog { worker: 0, ticket });
    }
    let mut answered = Vec::new();
    bench.wait("all answers", |message| {
        if let ToWorker::CatalogRefreshed { ticket } = message {
            answered.push(*ticket);
        }
        (answered.len() == tickets.len()).then_some(())
    });
    answered.sort_unstable();
    assert_eq!(answered, tickets);
    let rows = influxd.run("SHOW STATS FOR 'httpd'");
    let columns = influxd.client().query("SHOW STATS FOR 'httpd'", Duration::from_secs(5)).unwrap();
    let at = columns[0].series[0].columns.iter().position(|c| c == "queryReq").unwrap();
    let queries: u64 = rows[0][at].parse().unwrap();
    assert!(queries < 30, "{queries} queries for {} refreshes", tickets.len());
}

#[test]
fn health_counts_measurements_in_place_and_elsewhere() {
    let (a, b) = (Influxd::start(), Influxd::start());
    let circles = [vec![a.url(), b.url()]];
    let placement = placement(&topology(&circles));
    let mut counts = [0, 0];
    for influxd in [&a, &b] {
        influxd.run("CREATE DATABASE db1");
        influxd.run("CREATE DATABASE db2");
    }
    for i in 0..20 {
        let owner = placement.owner(0, Place::new("db1", &*format!("m {i}")).bytes()).index();
        [&a, &b][owner].write("db1", &format!("m\\ {i} v=1"));
        counts[owner] += 1;
    }
    let stray = (0..)
        .map(|i| format!("stray{i}"))
        .find(|m| placement.owner(0, Place::new("db1", &**m).bytes()).0 == 0)
        .unwrap();
    b.write("db1", &format!("{stray} v=1"));
    let mut bench = Bench::start(&circles);
    let want = serde_json::json!([
        {"active": true, "backlog": false, "load": {
            "db1": {"incorrect": 0, "inplace": counts[0], "measurements": counts[0]},
            "db2": {"incorrect": 0, "inplace": 0, "measurements": 0}},
         "name": "influxdb-1-1", "rewrite": false, "url": a.url()},
        {"active": true, "backlog": false, "load": {
            "db1": {"incorrect": 1, "inplace": counts[1], "measurements": counts[1] + 1},
            "db2": {"incorrect": 0, "inplace": 0, "measurements": 0}},
         "name": "influxdb-1-2", "rewrite": false, "url": b.url()},
    ]);
    wait_for("the counts", || (bench.json("/health")[0]["backends"] == want).then_some(()));
}

#[test]
fn a_missing_database_or_policy_is_created_with_the_settings_of_another_backend() {
    let (mut a, b) = (Influxd::start(), Influxd::start());
    a.run("CREATE DATABASE plain");
    a.run(r#"CREATE DATABASE tuned WITH DURATION 30d REPLICATION 1 SHARD DURATION 3h NAME "my rp""#);
    a.run("CREATE RETENTION POLICY year ON tuned DURATION 52w REPLICATION 1 SHARD DURATION 1w");
    a.run("CREATE DATABASE altered");
    a.run("ALTER RETENTION POLICY autogen ON altered DURATION 90d SHARD DURATION 2d");
    let mut bench = Bench::start(&[vec![a.url()], vec![b.url()]]);

    let same = |db: &str| {
        let policies = |influxd: &Influxd| {
            let mut policies: Vec<Policy> = catalog::database(&influxd.client(), db).unwrap().expect("the database");
            policies.sort_by(|x, y| x.name.cmp(&y.name));
            policies
        };
        assert_eq!(policies(&a), policies(&b), "{db}");
    };
    for (db, rp) in [("plain", ""), ("tuned", "year"), ("altered", "autogen")] {
        assert_eq!(bench.create(1, db, rp), Created::Done, "{db}");
        same(db);
        assert_eq!(bench.create(1, db, rp), Created::Done, "{db}: it is there already");
    }
    // The database exists, but lacks a policy, which is the default one.
    a.run("CREATE RETENTION POLICY later ON plain DURATION 10d REPLICATION 1 SHARD DURATION 5h DEFAULT");
    assert_eq!(bench.create(1, "plain", "later"), Created::Done);
    same("plain");
    assert!(bench.refresh().unwrap().databases["plain"].policies.contains(&"later".to_owned()));

    assert_eq!(bench.create(1, "nowhere", ""), Created::NowhereElse);
    assert_eq!(bench.create(1, "plain", "nowhere"), Created::NowhereElse);
    a.stop();
    let Created::Failed(why) = bench.create(1, "nowhere", "") else { panic!("a stopped backend could have it") };
    assert!(why.contains("influxdb-1-1"), "{why}");
    assert_eq!(bench.create(1, "plain", ""), Created::Done, "no other backend is needed for what is there");
}

#[test]
fn a_refused_statement_is_a_failure_with_its_text() {
    let influxd = Influxd::start();
    let failure = influxd.client().query("SHOW NONSENSE", Duration::from_secs(5)).unwrap_err();
    assert!(matches!(&failure, CallFailure::Status(400, text) if text.contains("error parsing query")), "{failure:?}");
    let answers = influxd.client().query(r#"SHOW RETENTION POLICIES ON "x""#, Duration::from_secs(5)).unwrap();
    assert_eq!(answers[0].error.as_deref(), Some("database not found: x"));
}
