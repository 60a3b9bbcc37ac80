//! `drop_oldest` and a disk that fails.

use super::LogSettings;
use super::model_test::{SIZES, append, line, open, settings as settings_of};
use super::sim::{DiskFault, Sim};
use crate::io::block_on;
use crate::settings::{BacklogFull, Durability};
use crate::topology::BackendId;

/// Whichever call to the disk fails: what a log that takes nothing more has passed as dropped is saved as dropped. Else
/// couriers would leave it out, and the next start would take it for delivered.
#[test]
fn a_log_that_fails_has_dropped_only_what_it_has_saved() {
    block_on(|| async {
        let settings = || LogSettings {
            max_bytes: 4 * SIZES.segment_bytes,
            backlog_full: BacklogFull::DropOldest,
            ..settings_of(Durability::Os)
        };
        let (mut failed, mut dropped) = (0, 0);
        for call in 1.. {
            let sim = Sim::new(3);
            sim.fault_at(call, DiskFault::Fails);
            let Ok((log, _)) = open(&sim, settings()).await else { continue };
            for n in 0..400 {
                let Ok(seq) = append(&log, 2, &line(n, 900)).await else { break };
                if log.committed(seq, Durability::Disk).await.is_err() {
                    break;
                }
            }
            if sim.calls() < call {
                break;
            }
            if log.poison().is_none() {
                continue;
            }
            failed += 1;
            let cursor = log.cursor(BackendId(2));
            dropped += u64::from(cursor.0 > 1);
            drop(log);
            let (log, _) = open(&sim.restart(), settings()).await.unwrap();
            assert!(log.cursor(BackendId(2)) >= cursor, "call {call}: {cursor:?}, {:?}", log.cursor(BackendId(2)));
        }
        assert!(failed > 20 && dropped > 5, "{failed} {dropped}");
    });
}
