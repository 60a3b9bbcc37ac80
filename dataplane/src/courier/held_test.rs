//! Tests what is held: a database that a backend does not take stops only itself, and is not blamed.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::time::Duration;

use super::courier_test::{OK, rig_with};
use super::stand_in::{Act, Asked, StandIn, until};
use super::*;
use crate::disklog::Seq;
use crate::io::block_on;
use crate::precision::Precision;

/// Forbidden or missing everywhere: that holds the points of its own database only, and the courier tells how far
/// the others are.
#[test]
fn a_database_that_is_held_stops_only_itself() {
    for (status, text) in [
        (401, ""),
        (403, r#"{"error":"user is not authorized to write to database"}"#),
        (404, r#"{"error":"database not found: \"held\""}"#),
    ] {
        block_on(move || async move {
            let fixed = Arc::new(AtomicUsize::new(0));
            let ok = fixed.clone();
            let server = StandIn::start(move |asked| match ok.load(SeqCst) {
                0 if asked.query.starts_with("db=held&") => Act::Answer(status, text),
                _ => OK,
            });
            let rig = rig_with(server.address, |s| s.flush_size = 10, ("", ""), false);
            for i in 0..300 {
                rig.log.append("held", &[&format!("m v={i} 1")]);
                rig.log.append("other", &[&format!("m v={i} 1")]);
                if i % 30 == 0 {
                    io::sleep(Duration::from_millis(1)).await;
                }
            }
            until("the others arrive", || rig.reports.partly_settled("other") == Some((None, Seq(601)))).await;
            assert_eq!(rig.reports.partly_settled("held"), Some((Some(Seq(1)), Seq(601))));
            assert_eq!(rig.log.confirmed(), 0, "the cursor waits");
            until("it is told that some are not taken", || rig.reports.is_failing()).await;
            fixed.store(1, SeqCst);
            rig.served().await;
            assert!(!rig.reports.is_failing());
            assert_eq!((rig.reports.delivered("held"), rig.reports.delivered("other")), (300, 300));
            assert_eq!(rig.dead_letters(), "");
            rig.log.close();
        });
    }
}

/// What is held has its own times; others are sent when they arrive. In between nothing is to be done.
#[test]
fn a_courier_that_holds_points_wakes_for_what_arrives_and_not_by_the_clock() {
    block_on(|| async {
        let server = StandIn::start(|asked| match asked.query.starts_with("db=held&") {
            true => Act::Answer(403, r#"{"error":"user is not authorized to write to database"}"#),
            false => OK,
        });
        let rig = rig_with(server.address, |s| s.rewrite_interval = Duration::from_secs(60), ("", ""), false);
        rig.log.append("held", &["m v=1 1"]);
        until("it is held", || server.asked().len() > 2).await;
        assert_eq!(rig.reports.answered(), "user is not authorized to write to database");
        let before = rig.log.fetches();
        io::sleep(Duration::from_secs(2)).await;
        let fetches = rig.log.fetches() - before;
        assert!(fetches < 12, "{fetches} looks at the log in two seconds");
        let others = || server.asked().iter().filter(|asked| asked.query.starts_with("db=other&")).count();
        for n in 1..=20 {
            rig.log.append("other", &["m v=1 1"]);
            until("others arrive", || others() == n).await;
        }
        rig.log.close();
    });
}

/// Side couriers share what is known of the backend: one of them may have met the end of a failure first.
#[test]
fn a_backend_is_up_again_whoever_has_seen_it_first() {
    block_on(|| async {
        let fixed = Arc::new(AtomicUsize::new(0));
        let ok = fixed.clone();
        let server = StandIn::start(move |_| match ok.load(SeqCst) {
            0 => Act::Answer(403, r#"{"error":"user is not authorized to write to database"}"#),
            _ => OK,
        });
        let rig = rig_with(server.address, |_| {}, ("", ""), false);
        rig.log.append("db", &["m v=1 1"]);
        until("it is refused", || rig.reports.states() == [DeliveryState::Refusing]).await;
        rig.handle.health.borrow_mut().succeeded(io::now(), true);
        fixed.store(1, SeqCst);
        rig.served().await;
        assert_eq!(rig.reports.states(), [DeliveryState::Refusing, DeliveryState::Up]);
        rig.log.close();
    });
}

/// That other databases are served vouches for nothing: a lane that takes nothing is held, with all that follows.
#[test]
fn a_database_that_fails_while_others_are_served_is_held_and_not_blamed() {
    block_on(|| async {
        let fixed = Arc::new(AtomicUsize::new(0));
        let ok = fixed.clone();
        let server = StandIn::start(move |asked| match ok.load(SeqCst) {
            0 if asked.query.starts_with("db=broken&") => Act::Error(500, "no space for this database".into()),
            _ => OK,
        });
        let rig = rig_with(server.address, |s| s.rewrite_interval = Duration::from_millis(100), ("", ""), false);
        for (i, precision) in [Precision::Nanosecond, Precision::Second].into_iter().cycle().take(8).enumerate() {
            rig.log.append_with("broken", "", precision, &[&format!("m v={i} 1")]);
        }
        let tried = || server.asked().iter().filter(|a| a.query.starts_with("db=broken&")).count();
        for n in 0..20 {
            rig.log.append("other", &["m v=1 1"]);
            until("it has been tried again", || tried() > 2 * n).await;
        }
        assert_eq!(rig.reports.partly_settled("other").map(|(first, _)| first), Some(None), "others are served");
        assert_eq!((rig.log.confirmed(), rig.dead_letters().as_str()), (0, ""));
        fixed.store(1, SeqCst);
        rig.served().await;
        assert_eq!((rig.reports.delivered("broken"), rig.dead_letters().as_str()), (8, ""));
        rig.log.close();
    });
}

/// What follows a failing line in its window is sent with it, and so shows which of them is at fault.
#[test]
fn a_poison_line_with_others_behind_it_in_the_window_is_found() {
    block_on(|| async {
        let poison = |asked: &Asked| if asked.body.contains("poison") { Act::Error(500, "x".into()) } else { OK };
        let server = StandIn::start(poison);
        let rig = rig_with(server.address, |s| s.rewrite_interval = Duration::from_millis(100), ("", ""), false);
        rig.log.append_with("db", "", Precision::Second, &["poison v=1 1"]);
        rig.log.append_with("db", "", Precision::Nanosecond, &["m v=1 1"]);
        rig.log.append_with("db", "", Precision::Second, &["m v=2 1"]);
        rig.log.append_with("db", "", Precision::Second, &["m v=3 1"]);
        until("it has failed", || server.asked().len() > 5).await;
        assert_eq!(rig.dead_letters(), "", "another precision is in between");
        rig.log.close();

        let rig = rig_with(server.address, |s| s.rewrite_interval = Duration::from_millis(100), ("", ""), false);
        rig.log.append("db", &["poison v=1 1"]);
        until("it is searched", || server.asked().len() > 12).await;
        rig.log.append("db", &["m v=1 1"]);
        rig.log.append("db", &["m v=2 1"]);
        rig.served().await;
        assert_eq!(rig.dead_lines(), ["poison v=1 1"]);
        rig.log.close();
    });
}

/// A search that needs many requests rests now and then, so that later points of others are fetched and sent; and what
/// it found makes the next one short.
#[test]
fn a_database_at_its_limit_of_series_delays_no_other_and_is_searched_once() {
    block_on(|| async {
        let is_new = |line: &str| {
            let number = line[3..line.find(' ').unwrap()].parse::<u32>().unwrap();
            number.wrapping_mul(2_654_435_761) >> 30 == 0
        };
        let server = StandIn::start(move |asked| match asked.lines().iter().filter(|line| is_new(line)).count() {
            n if n > 0 && asked.query.starts_with("db=full&") => {
                let text = "partial write: max-series-per-database limit exceeded: (1)";
                Act::Error(400, format!("{text} dropped={n}"))
            }
            _ => OK,
        });
        let rig = rig_with(server.address, |_| {}, ("", ""), false);
        let lines: Vec<String> = (0..1000).map(|i| format!("m,n{i} v=1 1")).collect();
        let lines: Vec<&str> = lines.iter().map(String::as_str).collect();
        let refused: Vec<&str> = lines.iter().copied().filter(|line| is_new(line)).collect();
        rig.log.append("full", &lines);
        let asked = |db: &str| server.asked().iter().filter(|a| a.query.starts_with(db)).count();
        until("it is searched", || asked("db=full&") > 20).await;
        rig.log.append("other", &["m,n1 v=1 1"]);
        until("the other one is served", || asked("db=other&") == 1).await;
        let before = asked("db=full&");
        assert_eq!((rig.log.confirmed(), rig.reports.delivered("full")), (0, 0), "the search goes on");
        rig.served().await;
        let whole = asked("db=full&");
        assert!(before < whole && whole < 3 * refused.len(), "{before} of {whole} for {}", refused.len());
        assert_eq!(rig.dead_lines(), refused);
        assert_eq!(rig.reports.rejected("full"), [("max-series-per-database limit exceeded", refused.len() as u64)]);
        assert_eq!(rig.reports.states(), [], "the backend is up");

        rig.log.append("full", &lines);
        rig.served().await;
        let again = server.lines().split_off(whole + 1);
        let lengths: Vec<usize> = again.iter().map(Vec::len).collect();
        assert_eq!(lengths, [1000, refused.len(), 1000 - refused.len()], "whole, what was refused before, all others");
        rig.log.close();
    });
}
