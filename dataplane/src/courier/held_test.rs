//! Tests what is held: a database that a backend does not take stops only itself, and is not blamed.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::time::Duration;

use super::courier_test::{OK, rig_with};
use super::stand_in::{Act, StandIn, until};
use super::*;
use crate::io::block_on;

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
