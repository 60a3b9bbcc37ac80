//! What is appended again for backends that are gone is there from the save on that says so.

use super::model_test::{append, line, open, read_all, settings};
use super::sim::Sim;
use super::{Log, Seq};
use crate::io::block_on;
use crate::settings::Durability;

async fn append_all(log: &Log, numbers: std::ops::Range<u64>) {
    let mut last = Seq(0);
    for n in numbers {
        last = append(log, 2, &line(n, 900)).await.unwrap();
    }
    log.committed(last, Durability::Disk).await.unwrap();
}

/// Some segments of it.
const APPENDED: std::ops::Range<u64> = 10..400;

#[test]
fn what_was_not_saved_is_undone_by_the_next_open_and_only_that() {
    for is_saved in [false, true] {
        block_on(move || async move {
            let sim = Sim::new(1);
            let (log, _) = open(&sim, settings(Durability::Disk)).await.unwrap();
            append_all(&log, 0..10).await;
            log.save_state(b"before".to_vec(), false).await.unwrap();
            drop(log);

            let sim = sim.restart();
            let (log, opened) = open(&sim, settings(Durability::Disk)).await.unwrap();
            assert!(!opened.rerouting && opened.rerouted.is_empty());
            log.begin_rerouting(b"before".to_vec()).await.unwrap();
            append_all(&log, APPENDED).await;
            log.note_rerouted(vec![("gone".to_owned(), 5)]);
            if is_saved {
                log.save_state(b"after".to_vec(), false).await.unwrap();
            }
            drop(log);

            let sim = sim.restart();
            let (log, opened) = open(&sim, settings(Durability::Disk)).await.unwrap();
            assert_eq!((opened.rerouting, opened.rerouted.len()), (!is_saved, usize::from(is_saved)));
            assert_eq!(opened.ledger, if is_saved { &b"after"[..] } else { b"before" });
            assert!(opened.damage.is_empty() && opened.torn.is_none() && opened.uncounted.is_empty(), "{opened:?}");
            // From here on all stays.
            log.save_state(b"again".to_vec(), true).await.unwrap();
            append_all(&log, 1000..1010).await;
            drop(log);
            let (lines, lost, opened) = read_all(&sim.restart()).await;
            let appended = if is_saved { APPENDED } else { 0..0 };
            assert_eq!(lines, (0..10).chain(appended).chain(1000..1010).collect::<Vec<_>>());
            assert!(lost == 0 && !opened.rerouting && opened.rerouted.is_empty(), "{opened:?}");
        });
    }
}
