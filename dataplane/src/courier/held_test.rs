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
            fixed.store(1, SeqCst);
            rig.served().await;
            assert_eq!((rig.reports.delivered("held"), rig.reports.delivered("other")), (300, 300));
            assert_eq!(rig.dead_letters(), "");
            rig.log.close();
        });
    }
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
