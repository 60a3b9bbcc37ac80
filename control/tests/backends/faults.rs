//! Tests of the control thread with backends that hang, give false answers or are another kind of server, and of its
//! end.

use std::time::{Duration, Instant};

use super::support::{Bench, Influxd, StandIn, wait_for};
use fluxgate_dataplane::handoff::{Created, LedgerBackend, LedgerRow, ToControl, ToWorker};
use fluxgate_dataplane::limits::{HANDOFF_TO_WORKER_MAX, HANDOFF_WAIT};
use fluxgate_dataplane::topology::BackendId;

/// An empty 204, for any request.
const NO_CONTENT: &str = "204 No Content\r\nConnection: close\r\n\r\n";
/// Another kind of server's answer to SHOW DATABASES: JSON, but not InfluxDB's.
const OTHER_JSON: &str = "200 OK\r\nContent-Type: application/json\r\nContent-Length: 39\r\nConnection: close\r\n\r\n\
                          {\"results\":[{\"series\":[{\"values\":[]}]}]}";

#[test]
fn a_hung_backend_delays_no_request() {
    let influxd = Influxd::start();
    influxd.run("CREATE DATABASE db1");
    let hung = StandIn::start(None);
    let mut bench = Bench::start(&[vec![hung.url(), influxd.url()]]);
    let begun = Instant::now();
    bench.probed(1, true);
    for _ in 0..10 {
        bench.get("/health");
    }
    // Ten answers that wait for the hung backend would take ten seconds.
    assert!(begun.elapsed() < Duration::from_secs(5), "asked for {:?} beside a hung backend", begun.elapsed());

    bench.probed(0, false);
    // From now on a refresh asks only the other backend.
    bench.refresh();
    let begun = Instant::now();
    assert!(bench.refresh().expect("a catalog").databases.contains_key("db1"));
    assert!(begun.elapsed() < Duration::from_millis(1900), "a refresh took {:?}", begun.elapsed());
    let health = bench.json("/health");
    assert_eq!(health[0]["backends"][0]["active"], false);
    assert_eq!(health[0]["backends"][1]["active"], true);

    // A creation that must ask the hung backend waits in its own thread.
    let ticket = bench.ticket();
    let (db, rp) = ("db2".to_owned(), String::new());
    let backend = BackendId(1);
    bench.send(ToControl::Create { worker: 0, ticket, backend, db, rp });
    let begun = Instant::now();
    bench.get("/health");
    assert!(begun.elapsed() < Duration::from_millis(1900), "an answer took {:?}", begun.elapsed());
    let result = bench.wait("the creation", |message| match message {
        ToWorker::Created { result, .. } => Some(result.clone()),
        _ => None,
    });
    assert!(matches!(&result, Created::Failed(why) if why.contains("influxdb-1-1")), "{result:?}");
    assert!(hung.requests() < 30, "{} connections wait at the hung backend", hung.requests());
}

#[test]
fn another_kind_of_server_has_no_catalog_and_is_up_only_if_it_answers_pings_as_influxdb_does() {
    for (answer, up) in [(NO_CONTENT, true), (OTHER_JSON, false)] {
        let other = StandIn::start(Some(answer));
        let mut bench = Bench::start(&[vec![other.url()]]);
        bench.probed(0, up);
        bench.refresh();
        let catalog = bench.seen.iter().any(|message| matches!(message, ToWorker::Catalog(_)));
        assert!(!catalog, "a catalog came from {answer:?}");
        assert_eq!(bench.json("/health")[0]["backends"][0]["load"], serde_json::json!({}));
    }
}

#[test]
fn another_kind_of_server_does_not_prevent_an_answer() {
    let influxd = Influxd::start();
    let other = StandIn::start(Some(NO_CONTENT));
    let mut bench = Bench::start(&[vec![influxd.url()], vec![other.url()]]);
    assert_eq!(bench.create(0, "nowhere", ""), Created::NowhereElse);
}

#[test]
fn a_backend_that_answers_errors_is_down() {
    let broken = StandIn::start(Some("503 Service Unavailable\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"));
    let mut bench = Bench::start(&[vec![broken.url()]]);
    bench.probed(0, false);
}

#[test]
fn a_worker_that_finds_a_backend_failing_has_it_probed_at_once() {
    let other = StandIn::start(Some(NO_CONTENT));
    let mut bench = Bench::start(&[vec![other.url()]]);
    bench.probed(0, true);
    let backend = BackendId(0);
    for _ in 0..100 {
        bench.send(ToControl::BackendChanged { backend, up: false, reason: "refused".to_owned() });
    }
    std::thread::sleep(Duration::from_secs(1));
    assert!(other.requests() < 15, "{} requests within a second", other.requests());
}

#[test]
fn a_ledger_waits_for_workers_until_its_deadline() {
    let mut bench = Bench::start(&[vec!["http://127.0.0.1:1".to_owned()]]);
    let begun = Instant::now();
    let answer = bench.json("/ledger");
    assert_eq!(answer["workers_missing"], serde_json::json!([0]));
    assert!(begun.elapsed() >= Duration::from_secs(2));
    let late = bench.seen.iter().find_map(|message| match message {
        ToWorker::LedgerWanted { ticket } => Some(*ticket),
        _ => None,
    });
    // A late answer changes nothing.
    bench.send(ToControl::Ledger { worker: 0, ticket: late.expect("a question"), rows: Vec::new() });
    assert_eq!(bench.get("/nope").status, 404);
}

#[test]
fn a_panic_in_a_request_is_a_500_and_the_next_one_is_served() {
    let mut bench = Bench::start(&[vec!["http://127.0.0.1:1".to_owned()]]);
    let ticket = bench.ask("/ledger");
    let wanted = bench.wait("the question", |message| match message {
        ToWorker::LedgerWanted { ticket } => Some(*ticket),
        _ => None,
    });
    let (rejected, dropped) = (Vec::new(), Vec::new());
    // No worker can have this row: the backend does not exist.
    let backend = LedgerBackend::Configured(BackendId(99));
    let row = LedgerRow { db: "db".into(), backend, accepted: 1, delivered: 1, queued: 0, rejected, dropped };
    bench.send(ToControl::Ledger { worker: 0, ticket: wanted, rows: vec![row] });
    assert_eq!(bench.answer(ticket).status, 500);
    assert_eq!(bench.get("/health").status, 200);
}

#[test]
fn a_worker_with_a_full_queue_gets_the_whole_state_again() {
    let influxd = Influxd::start();
    influxd.run("CREATE DATABASE db1");
    let mut bench = Bench::start(&[vec![influxd.url()]]);
    // Answers fill the queue while the worker reads nothing; the control thread then drops a message.
    let filled = HANDOFF_TO_WORKER_MAX + 100;
    for _ in 0..filled {
        let ticket = bench.ticket();
        let (db, rp) = ("db1".to_owned(), String::new());
        let backend = BackendId(0);
        wait_for("room for a question", || {
            let (db, rp) = (db.clone(), rp.clone());
            bench.worker.send(ToControl::Create { worker: 0, ticket, backend, db, rp }).ok()
        });
    }
    std::thread::sleep(HANDOFF_WAIT + Duration::from_secs(2));
    let mut news = (false, false, false);
    let mut answers = 0;
    bench.wait("the whole state", |message| {
        match message {
            ToWorker::Created { .. } => answers += 1,
            _ if answers < HANDOFF_TO_WORKER_MAX - 10 => {}
            ToWorker::Catalog(catalog) => news.0 |= catalog.databases.contains_key("db1"),
            ToWorker::Address { .. } => news.1 = true,
            ToWorker::Probed { up, .. } => news.2 |= up,
            _ => {}
        }
        (news == (true, true, true)).then_some(())
    });
    assert!(answers < filled, "no message was lost, so nothing was tested");
    assert_eq!(bench.get("/nope").status, 404);
}

#[test]
fn workers_notice_the_end_of_the_control_thread() {
    let hung = StandIn::start(None);
    let mut bench = Bench::start(&[vec![hung.url(); 8]]);
    assert_eq!(bench.get("/nope").status, 404);
    assert!(!bench.control.as_ref().unwrap().has_ended());
    assert!(bench.control.as_ref().unwrap().shutdown_workers());
    bench.wait("the order to end", |message| matches!(message, ToWorker::Shutdown).then_some(()));
    // A thread that it has just started to look up a name still has its name.
    assert!(own_threads("probe-7") >= 1);
    let begun = Instant::now();
    assert!(bench.control.take().unwrap().stop());
    assert!(begun.elapsed() < Duration::from_secs(1), "stopping took {:?}", begun.elapsed());
    assert!(bench.worker.control_gone());
    let ticket = bench.ticket();
    assert!(bench.worker.send(ToControl::RefreshCatalog { worker: 0, ticket }).is_err());
    wait_for("the end of its threads", || (own_threads("probe-7") == 0).then_some(()));
}

/// Threads of this process with that name. No other test has as many backends.
fn own_threads(name: &str) -> usize {
    let tasks = std::fs::read_dir("/proc/self/task").unwrap();
    tasks
        .filter(|task| {
            let comm = task.as_ref().unwrap().path().join("comm");
            std::fs::read_to_string(comm).is_ok_and(|comm| comm.trim() == name)
        })
        .count()
}
