//! Tests the courier against a scripted backend: what each fault causes, and that nothing is lost, repeated for ever or
//! reordered.

use std::cell::Cell;
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::time::{Duration, Instant};

use super::bisect_test::split;
use super::stand_in::{Act, Asked, Log, RecordedReports, StandIn, until};
use super::*;
use crate::handoff::Created;
use crate::io::block_on;
use crate::precision::Precision;

pub(super) const OK: Act = Act::Answer(204, "");

/// A running courier with its backend, log and reports.
pub(super) struct Rig {
    pub log: Log,
    pub reports: RecordedReports,
    pub handle: Rc<Handle>,
    pub dir: tempfile::TempDir,
    address: Address,
}

pub(super) fn rig_with(address: SocketAddr, change: impl FnOnce(&mut Setup), user: (&str, &str), gzip: bool) -> Rig {
    let dir = tempfile::tempdir().unwrap();
    let to: Address = Rc::new(Cell::new(Some(address)));
    let timeout = Duration::from_millis(300);
    let url = format!("http://{address}");
    let tls = crate::tls::Trust::default().client_config(crate::topology::BackendId(0));
    let mut setup = Setup {
        worker: 0,
        backend: "b1".into(),
        backends: 2,
        endpoint: Endpoint::new(&url, user.0, user.1, to.clone(), gzip, timeout, tls).unwrap(),
        data_dir: dir.path().to_owned(),
        flush_size: 1000,
        rewrite_interval: Duration::from_millis(200),
        missing_db: MissingDb::Create,
        split,
    };
    change(&mut setup);
    let (log, reports) = (Log::default(), RecordedReports::default());
    let (courier, handle) = Courier::new(setup, log.clone(), reports.clone()).unwrap();
    io::spawn(courier.run());
    Rig { log, reports, handle, dir, address: to }
}

pub(super) fn rig(server: &StandIn) -> Rig {
    rig_with(server.address, |_| {}, ("", ""), false)
}

impl Rig {
    pub async fn served(&self) {
        until("all records are confirmed", || self.log.is_served()).await;
    }

    pub fn dead_letters(&self) -> String {
        let mut text = String::new();
        let folder = self.dir.path().join("rejected").join("b1");
        for entry in std::fs::read_dir(&folder).into_iter().flatten() {
            text += &std::fs::read_to_string(entry.unwrap().path()).unwrap();
        }
        text
    }

    /// The dead letters without their comments.
    pub fn dead_lines(&self) -> Vec<String> {
        self.dead_letters().lines().filter(|l| !l.starts_with('#')).map(str::to_owned).collect()
    }
}

/// Answers the first requests with `acts`, all later ones with 204.
pub(super) fn first(acts: Vec<Act>) -> impl FnMut(&Asked) -> Act + Send {
    let mut acts = acts.into_iter();
    move |_| acts.next().unwrap_or(OK)
}

#[test]
fn lines_arrive_once_in_order_over_one_kept_connection() {
    block_on(|| async {
        let server = StandIn::start(|_| OK);
        let rig = rig(&server);
        for i in 0..20 {
            rig.log.append("db", &[&format!("m v={i} 1"), &format!("n v={i} 1")]);
            io::sleep(Duration::from_millis(1)).await;
        }
        rig.served().await;
        let lines: Vec<String> = server.lines().concat();
        let want: Vec<String> = (0..20).flat_map(|i| [format!("m v={i} 1"), format!("n v={i} 1")]).collect();
        assert_eq!(lines, want);
        assert_eq!(rig.reports.delivered("db"), 40);
        assert!(server.asked().iter().all(|a| a.connection == 0 && a.query == "db=db&precision=n"));
        assert!(server.asked().len() < 20, "records that come together share a request");
        rig.log.close();
    });
}

#[test]
fn a_courier_that_cannot_write_dead_letters_says_so_until_it_can() {
    block_on(|| async {
        let server = StandIn::start(first(vec![Act::Answer(
            400,
            r#"{"error":"partial write: field type conflict dropped=1"}"#,
        )]));
        let rig = rig(&server);
        let in_the_way = rig.dir.path().join("rejected");
        std::fs::write(&in_the_way, "").unwrap();
        rig.log.append("db", &["m v=1 1"]);
        until("the courier is stuck", || rig.reports.stuck() == (false, true)).await;
        assert!(!rig.log.is_served(), "the cursor waits for the dead letter");
        std::fs::remove_file(&in_the_way).unwrap();
        rig.served().await;
        assert_eq!(rig.dead_lines(), ["m v=1 1"]);
        until("the courier goes on", || rig.reports.stuck() == (false, false)).await;
        rig.log.close();
    });
}

#[test]
fn precision_splits_a_database_and_keeps_its_order() {
    block_on(|| async {
        let server = StandIn::start(|_| OK);
        let rig = rig(&server);
        rig.log.append_with("db", "rp", Precision::Second, &["m v=1 1"]);
        rig.log.append_with("db", "rp", Precision::Second, &["m v=2 1"]);
        rig.log.append_with("db", "rp", Precision::Hour, &["m v=3 1"]);
        rig.log.append_with("db", "rp", Precision::Second, &["m v=4 1"]);
        rig.served().await;
        let asked: Vec<(String, String)> = server.asked().into_iter().map(|a| (a.query, a.body)).collect();
        let want = [("s", "m v=1 1\nm v=2 1\n"), ("h", "m v=3 1\n"), ("s", "m v=4 1\n")];
        assert_eq!(asked, want.map(|(p, b)| (format!("db=db&rp=rp&precision={p}"), b.to_owned())));
        rig.log.close();
    });
}

#[test]
fn a_hanging_backend_gets_the_batch_again_after_its_time_is_up() {
    block_on(|| async {
        let server = StandIn::start(first(vec![Act::Hang]));
        let rig = rig(&server);
        rig.log.append("db", &["m v=1 1"]);
        until("it is down", || rig.reports.states() == [DeliveryState::Down]).await;
        assert_eq!(rig.log.confirmed(), 0);
        rig.served().await;
        assert_eq!(server.lines(), [["m v=1 1"], ["m v=1 1"]]);
        assert_eq!(rig.reports.states(), [DeliveryState::Down, DeliveryState::Up]);
        assert_eq!(rig.reports.rewriting(), [true, false]);
        rig.log.close();
    });
}

#[test]
fn cut_answers_and_server_errors_are_repeated_until_they_end() {
    for acts in [
        vec![Act::CutInAnswer],
        vec![Act::Cut],
        vec![Act::Answer(500, "engine: x"), Act::Answer(502, ""), Act::Answer(500, "timeout")],
        vec![Act::Answer(503, ""), Act::Answer(429, ""), Act::Answer(503, "")],
    ] {
        block_on(move || {
            let acts = acts.clone();
            async move {
                let failures = acts.len();
                let server = StandIn::start(first(acts));
                let rig = rig(&server);
                rig.log.append("db", &["m v=1 1", "m v=2 1", "m v=3 1"]);
                rig.served().await;
                let lines = server.lines();
                assert!(lines.len() > failures);
                assert_eq!(lines.last().unwrap().last().unwrap(), "m v=3 1");
                assert_eq!(rig.reports.delivered("db"), 3);
                assert_eq!(rig.dead_letters(), "");
                rig.log.close();
            }
        });
    }
}

#[test]
fn failures_are_paced_however_long_they_last() {
    block_on(|| async {
        let server = StandIn::start(|_| Act::Answer(503, ""));
        let rig = rig(&server);
        rig.log.append("db", &["m v=1 1"]);
        io::sleep(Duration::from_millis(1000)).await;
        // Pauses of 100 ms, then 200 ms, each up to a quarter shorter.
        let asked = server.asked().len();
        assert!((4..=9).contains(&asked), "{asked}");
        rig.log.close();
    });
}

#[test]
fn a_good_probe_cuts_the_wait_for_an_unreachable_backend() {
    block_on(|| async {
        let server = StandIn::start(|_| OK);
        let slow = |s: &mut Setup| s.rewrite_interval = Duration::from_secs(600);
        let rig = rig_with(server.address, slow, ("", ""), false);
        let unused = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        rig.address.set(Some(unused));
        rig.log.append("db", &["m v=1 1"]);
        // Pauses of 100, 200, 400, 800 ms: the courier sleeps for a while then.
        until("it is down", || rig.reports.states() == [DeliveryState::Down]).await;
        io::sleep(Duration::from_millis(1500)).await;
        rig.address.set(Some(server.address));
        let before = Instant::now();
        rig.handle.probed(true);
        rig.served().await;
        assert!(before.elapsed() < Duration::from_millis(500), "{:?}", before.elapsed());
        rig.log.close();
    });
}

/// influxd crashes on lines like `m a="1"="2",k"="`. In these tests such a line is named poison.
#[test]
fn a_poison_line_is_found_set_aside_and_not_sent_again() {
    for act in [Act::Cut, Act::Error(500, "engine: unable to parse".into())] {
        block_on(move || {
            let act = act.clone();
            async move {
                let server = StandIn::start(move |asked| if asked.body.contains("poison") { act.clone() } else { OK });
                let rig = rig(&server);
                let mut lines: Vec<String> = (0..100).map(|i| format!("m v={i} 1")).collect();
                lines[42] = "poison v=1 1".into();
                let lines: Vec<&str> = lines.iter().map(String::as_str).collect();
                rig.log.append("db", &lines);
                rig.log.append("other", &["m v=1 1"]);
                rig.served().await;
                assert_eq!(rig.dead_lines(), ["poison v=1 1"]);
                assert_eq!(rig.reports.delivered("db"), 99);
                assert_eq!(rig.reports.delivered("other"), 1);
                assert_eq!(rig.reports.rejected("db").iter().map(|r| r.1).sum::<u64>(), 1);
                let last = server.asked().into_iter().rfind(|a| a.query.starts_with("db=db&")).unwrap();
                assert_eq!(last.lines().len(), 99, "at the end all good lines, in order");
                let poisoned = server.asked().iter().filter(|a| a.body.contains("poison")).count();
                assert!(poisoned <= 8, "{poisoned}");
                io::sleep(Duration::from_millis(300)).await;
                assert_eq!(server.asked().iter().filter(|a| a.body.contains("poison")).count(), poisoned);
                rig.log.close();
            }
        });
    }
}

/// A full disk makes every line look like poison. No line is blamed as long as nothing is taken.
#[test]
fn a_backend_that_fails_for_everything_loses_nothing() {
    block_on(|| async {
        let full = Arc::new(AtomicUsize::new(0));
        let disk = full.clone();
        let server = StandIn::start(move |_| match disk.load(SeqCst) {
            0 => Act::Error(500, "no space left on device".into()),
            _ => OK,
        });
        let rig = rig_with(server.address, |s| s.rewrite_interval = Duration::from_millis(100), ("", ""), false);
        rig.log.append("a", &["m v=1 1", "m v=2 1"]);
        rig.log.append("b", &["m v=1 1"]);
        until("searches have been tried in vain", || server.asked().len() > 20).await;
        rig.log.append("a", &["m v=3 1"]);
        full.store(1, SeqCst);
        rig.served().await;
        assert_eq!((rig.reports.delivered("a"), rig.reports.delivered("b")), (3, 1));
        assert_eq!(rig.dead_letters(), "");
        rig.log.close();
    });
}

/// A failing line that is alone in its window is not blamed until later lines show that the backend works.
#[test]
fn a_poison_line_alone_in_its_window_does_not_hold_up_later_lines() {
    block_on(|| async {
        let poison = |asked: &Asked| if asked.body.contains("poison") { Act::Error(500, "x".into()) } else { OK };
        let server = StandIn::start(poison);
        let rig = rig(&server);
        rig.log.append("db", &["poison v=1 1"]);
        until("it has failed", || server.asked().len() > 5).await;
        assert_eq!(rig.dead_letters(), "", "nothing shows yet that the backend works");
        rig.log.append("db", &["m v=1 1"]);
        rig.log.append("db", &["m v=2 1"]);
        rig.served().await;
        assert_eq!(rig.dead_lines(), ["poison v=1 1"]);
        assert_eq!(rig.reports.delivered("db"), 2);
        rig.log.close();
    });
}

#[test]
fn a_missing_database_is_created_and_the_batch_repeated() {
    block_on(|| async {
        let created = Arc::new(AtomicUsize::new(0));
        let exists = created.clone();
        let server = StandIn::start(move |_| match exists.fetch_add(1, SeqCst) {
            0 => Act::Error(404, "database not found: \"db\"".into()),
            _ => OK,
        });
        let rig = rig(&server);
        rig.reports.will_create(Created::Done);
        rig.log.append_with("db", "rp", Precision::Nanosecond, &["m v=1 1"]);
        rig.served().await;
        assert_eq!(rig.reports.asked_to_create(), ["db/rp"]);
        assert_eq!(rig.reports.delivered("db"), 1);
        assert_eq!(server.asked().len(), 2);
        assert_eq!(rig.reports.states(), [], "the backend is not down");
        rig.log.close();
    });
}

#[test]
fn a_database_that_cannot_be_created_now_holds_up_only_itself() {
    block_on(|| async {
        let missing = |asked: &Asked| match asked.query.starts_with("db=gone&") {
            true => Act::Error(500, "retention policy not found: x".into()),
            false => OK,
        };
        let server = StandIn::start(missing);
        let rig = rig(&server);
        for _ in 0..1000 {
            rig.reports.will_create(Created::Failed("b2 cannot be asked".into()));
        }
        rig.log.append("gone", &["m v=1 1"]);
        rig.log.append("db", &["m v=1 1"]);
        until("the other one is served", || server.asked().iter().any(|a| a.query.starts_with("db=db&"))).await;
        // Later lines are served, too.
        rig.log.append("db", &["m v=2 1"]);
        until("the later line is served", || server.asked().iter().any(|a| a.body == "m v=2 1\n")).await;
        assert_eq!(rig.log.confirmed(), 0, "the cursor waits for the held line");
        assert_eq!(rig.dead_letters(), "");
        rig.log.close();
    });
}

#[test]
fn a_missing_database_is_rejected_when_the_settings_say_so() {
    block_on(|| async {
        let missing = |asked: &Asked| match asked.query.starts_with("db=gone&") {
            true => Act::Error(404, "database not found: \"gone\"".into()),
            false => OK,
        };
        let server = StandIn::start(missing);
        let rig = rig_with(server.address, |s| s.missing_db = MissingDb::Reject, ("", ""), false);
        rig.log.append("gone", &["m v=1 1", "m v=2 1"]);
        rig.log.append("db", &["m v=1 1"]);
        rig.served().await;
        assert_eq!(rig.dead_lines(), ["m v=1 1", "m v=2 1"]);
        assert!(rig.dead_letters().contains(" db=gone rp= precision=n reason=database not found: \"gone\"\n"));
        assert_eq!(rig.reports.rejected("gone"), [("database not found", 2)]);
        assert_eq!(rig.reports.delivered("db"), 1);
        rig.log.close();
    });
}

#[test]
fn unauthorized_keeps_everything_until_an_operator_acts() {
    for status in [401, 403, 302, 404, 200, 202] {
        block_on(move || async move {
            let fixed = Arc::new(AtomicUsize::new(0));
            let ok = fixed.clone();
            let server = StandIn::start(move |_| match ok.load(SeqCst) {
                0 => Act::Answer(status, "no"),
                _ => OK,
            });
            let rig = rig_with(server.address, |_| {}, ("user", "pass"), false);
            rig.log.append("db", &["m v=1 1"]);
            until("it has been tried again", || server.asked().len() >= 4).await;
            assert_eq!(rig.reports.states(), [DeliveryState::Refusing]);
            assert_eq!(rig.log.confirmed(), 0);
            fixed.store(1, SeqCst);
            rig.served().await;
            assert_eq!(rig.reports.states(), [DeliveryState::Refusing, DeliveryState::Up]);
            assert!(server.asked()[0].head.contains("Authorization: Basic dXNlcjpwYXNz\r\n"));
            assert_eq!(rig.dead_letters(), "");
            rig.log.close();
        });
    }
}

#[test]
fn too_large_is_halved_in_order_and_later_requests_stay_smaller() {
    block_on(|| async {
        let limit = |asked: &Asked| match asked.body.len() {
            0..=100_000 => OK,
            _ => Act::Answer(413, "Request Entity Too Large"),
        };
        let server = StandIn::start(limit);
        let rig = rig_with(server.address, |s| s.flush_size = 100_000, ("", ""), false);
        let lines: Vec<String> = (0..10_000).map(|i| format!("m,host=somewhere v={i} 1")).collect();
        for chunk in lines.chunks(100) {
            rig.log.append("db", &chunk.iter().map(String::as_str).collect::<Vec<_>>());
        }
        rig.served().await;
        let taken: Vec<String> = server
            .asked()
            .iter()
            .filter(|a| a.body.len() <= 100_000)
            .flat_map(|a| a.lines().iter().map(ToString::to_string).collect::<Vec<_>>())
            .collect();
        assert_eq!(taken, lines);
        assert_eq!(rig.reports.delivered("db"), 10_000);
        let refused = |asked: &[Asked]| asked.iter().filter(|a| a.body.len() > 100_000).count();
        let before = refused(&server.asked());
        for chunk in lines.chunks(100) {
            rig.log.append("db", &chunk.iter().map(String::as_str).collect::<Vec<_>>());
        }
        rig.served().await;
        assert_eq!(refused(&server.asked()), before);
        let huge = format!("m v=\"{}\" 1", "x".repeat(200_000));
        rig.log.append("db", &["m v=1 1", &huge, "m v=2 1"]);
        rig.served().await;
        assert_eq!(rig.dead_lines(), [huge]);
        assert_eq!(rig.reports.rejected("db"), [("too large", 1)]);
        rig.log.close();
    });
}

#[test]
fn a_partial_write_leaves_exactly_the_refused_lines_behind() {
    block_on(|| async {
        let conflict = |asked: &Asked| match asked.lines().iter().filter(|l| l.contains("=1i")).count() {
            0 => OK,
            n => Act::Error(
                400,
                format!(
                    "partial write: field type conflict: input field \"f\" on measurement \"m\" is type integer, \
                     already exists as type float dropped={n}"
                ),
            ),
        };
        let server = StandIn::start(conflict);
        let rig = rig(&server);
        rig.log.append("db", &["m f=1 1", "m f=1i 2", "n f=1 1", "m f=2 1", "m,t=x f=1i 3"]);
        rig.served().await;
        assert_eq!(rig.dead_lines(), ["m f=1i 2", "m,t=x f=1i 3"]);
        assert_eq!(rig.reports.rejected("db"), [("field type conflict", 2)]);
        assert!(
            rig.reports.refused()[0].text.starts_with("partial write: field type conflict"),
            "{:?}",
            rig.reports.refused()
        );
        assert_eq!(rig.reports.delivered("db"), 3);
        assert_eq!(server.asked().last().unwrap().body, "m f=1 1\nn f=1 1\nm f=2 1\n");
        assert_eq!(server.asked().len(), 3);
        assert_eq!(rig.reports.states(), []);
        rig.log.close();
    });
}

#[test]
fn a_kept_connection_that_was_closed_is_replaced_without_a_failure() {
    block_on(|| async {
        let server = StandIn::start(|_| Act::AnswerAndClose);
        let rig = rig(&server);
        for i in 0..5 {
            rig.log.append("db", &[&format!("m v={i} 1")]);
            rig.served().await;
            io::sleep(Duration::from_millis(20)).await;
        }
        assert_eq!(server.lines().concat().len(), 5);
        assert_eq!(rig.reports.states(), []);
        rig.log.close();
    });
}

#[test]
fn order_within_a_database_survives_failures_while_others_go_on() {
    block_on(|| async {
        let count = Arc::new(AtomicUsize::new(0));
        // Failures come in bursts, so that no request fails repeatedly while others succeed: that would make it
        // suspect.
        let server = StandIn::start(move |_| match count.fetch_add(1, SeqCst) % 12 {
            0 | 2 => Act::Answer(500, ""),
            1 | 3 => Act::Cut,
            _ => OK,
        });
        let rig = rig_with(server.address, |s| s.flush_size = 7, ("", ""), false);
        let dbs = ["a", "b", "c", "d", "e", "f"];
        for i in 0..30 {
            rig.log.append(dbs[i % 6], &[&format!("m v={i} 1")]);
        }
        rig.served().await;
        assert_eq!(rig.dead_letters(), "");
        for db in dbs {
            assert_eq!(rig.reports.delivered(db), 5);
            let sent: Vec<usize> = server
                .asked()
                .iter()
                .filter(|a| a.query.starts_with(&format!("db={db}&")))
                .flat_map(|a| a.lines().iter().map(|l| l[4..l.len() - 2].parse().unwrap()).collect::<Vec<usize>>())
                .collect();
            // Repetitions are allowed, but an older value must not come last: the last writes are ascending.
            let mut last = sent.clone();
            last.reverse();
            let mut seen = std::collections::BTreeSet::new();
            last.retain(|v| seen.insert(*v));
            assert!(last.is_sorted_by(|a, b| a > b), "{db}: {sent:?}");
        }
        rig.log.close();
    });
}

#[test]
fn databases_are_served_side_by_side() {
    block_on(|| async {
        let connections = Arc::new(AtomicUsize::new(0));
        let seen = connections.clone();
        // A second connection is opened only while the first one waits for its answer.
        let server = StandIn::start(move |asked| {
            seen.fetch_max(asked.connection + 1, SeqCst);
            std::thread::sleep(Duration::from_millis(20));
            OK
        });
        let rig = rig(&server);
        for db in ["a", "b", "c", "d", "e", "f"] {
            rig.log.append(db, &["m v=1 1"]);
        }
        rig.served().await;
        assert_eq!(connections.load(SeqCst), COURIER_CONNECTIONS);
        rig.log.close();
    });
}

#[test]
fn bodies_are_compressed_when_the_settings_say_so() {
    block_on(|| async {
        let server = StandIn::start(|_| OK);
        let rig = rig_with(server.address, |_| {}, ("", ""), true);
        for i in 0..3 {
            let line = format!("m,tag={} v={i} 1", "x".repeat(300_000));
            rig.log.append("db", &[&line]);
            rig.served().await;
            let asked = server.asked();
            assert_eq!(asked.last().unwrap().body, format!("{line}\n"));
            assert!(asked.last().unwrap().head.contains("Content-Encoding: gzip\r\n"));
        }
        rig.log.close();
    });
}

#[test]
fn dead_letters_that_cannot_be_written_hold_the_cursor() {
    block_on(|| async {
        let server = StandIn::start(|asked| match asked.body.contains("bad") {
            true => Act::Error(400, "unable to parse 'bad'".into()),
            false => OK,
        });
        let rig = rig(&server);
        // A file occupies the path of the folder.
        let in_the_way = rig.dir.path().join("rejected");
        std::fs::write(&in_the_way, b"").unwrap();
        rig.log.append("db", &["m v=1 1", "bad"]);
        until("the lines are sorted out", || server.asked().len() >= 3).await;
        io::sleep(Duration::from_millis(100)).await;
        assert_eq!(rig.log.confirmed(), 0);
        std::fs::remove_file(&in_the_way).unwrap();
        rig.served().await;
        assert_eq!(rig.dead_lines(), ["bad"]);
        rig.log.close();
    });
}

#[test]
fn small_appends_are_paced_and_hurry_overrides() {
    block_on(|| async {
        let server = StandIn::start(|_| OK);
        let rig = rig(&server);
        let start = Instant::now();
        let mut appended = 0;
        while start.elapsed() < Duration::from_millis(300) {
            rig.log.append("db", &["m v=1 1"]);
            appended += 1;
            io::sleep(Duration::from_micros(200)).await;
        }
        rig.served().await;
        let requests = server.asked().len();
        assert!(
            requests as u128 <= start.elapsed().as_millis() / COURIER_PACE.as_millis() + 2,
            "{requests} of {appended}"
        );
        rig.handle.hurry();
        rig.log.append("db", &["m v=2 1"]);
        rig.served().await;
        rig.log.close();
    });
}

#[test]
fn what_is_held_and_what_is_settled_is_told() {
    block_on(|| async {
        let server = StandIn::start(first(vec![Act::Answer(503, ""), Act::Cut]));
        let rig = rig(&server);
        rig.log.append("db", &["m v=1 1"]);
        rig.log.append("db", &["m v=2 1"]);
        until("the oldest is held", || rig.reports.held() == Some(1)).await;
        assert_eq!(rig.reports.below(), 1, "none of them is settled");
        rig.served().await;
        assert!(rig.reports.below() > 2);
        until("a courier without records holds nothing", || rig.reports.held().is_none()).await;
        rig.log.close();
    });
}

#[test]
fn a_hold_lets_the_older_through_and_keeps_the_newer_back() {
    block_on(|| async {
        let server = StandIn::start(|_| OK);
        let rig = rig(&server);
        rig.log.append("db", &["m v=1 1"]);
        rig.log.append("db", &["m v=2 1"]);
        rig.handle.hold(Some(3));
        rig.log.append("db", &["m v=3 1"]);
        rig.log.append("other", &["m v=4 1"]);
        until("the older are confirmed", || rig.log.confirmed() == 2).await;
        rig.log.append("db", &["m v=5 1"]);
        io::sleep(Duration::from_millis(100)).await;
        assert_eq!(server.lines().concat(), ["m v=1 1", "m v=2 1"]);
        assert_eq!(rig.reports.held(), Some(3));
        assert_eq!(rig.reports.below(), 3, "everything before the hold is settled");
        rig.handle.hold(None);
        rig.served().await;
        let mut newer = server.lines().concat().split_off(2);
        newer.sort_unstable();
        assert_eq!(newer, ["m v=3 1", "m v=4 1", "m v=5 1"]);
        rig.log.close();
    });
}

#[test]
fn a_hold_can_come_while_the_courier_waits_for_records_and_move_on_in_steps() {
    block_on(|| async {
        let server = StandIn::start(|_| OK);
        let rig = rig(&server);
        rig.log.append("db", &["m v=1 1"]);
        rig.served().await;
        io::sleep(Duration::from_millis(20)).await;
        rig.handle.hold(Some(2));
        rig.log.append("db", &["m v=2 1"]);
        rig.log.append("db", &["m v=3 1"]);
        io::sleep(Duration::from_millis(50)).await;
        assert_eq!(rig.log.confirmed(), 1);
        rig.handle.hold(Some(3));
        until("the next one is let go", || rig.log.confirmed() == 2).await;
        io::sleep(Duration::from_millis(50)).await;
        assert_eq!(server.lines().concat(), ["m v=1 1", "m v=2 1"]);
        rig.handle.hold(None);
        rig.served().await;
        rig.log.close();
    });
}

/// A batch that must be sent again lies before the hold, so it is still sent.
#[test]
fn a_hold_does_not_stop_repetitions_of_older_records() {
    block_on(|| async {
        let server = StandIn::start(first(vec![Act::Answer(503, ""), Act::Cut]));
        let rig = rig(&server);
        rig.log.append("db", &["m v=1 1"]);
        rig.handle.hold(Some(2));
        rig.log.append("db", &["m v=2 1"]);
        until("the older one is confirmed", || rig.log.confirmed() == 1).await;
        assert!(server.lines().concat().iter().all(|line| line == "m v=1 1"));
        rig.handle.hold(None);
        rig.served().await;
        rig.log.close();
    });
}
