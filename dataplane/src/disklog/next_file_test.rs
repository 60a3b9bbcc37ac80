//! The file of the next segment cannot be made, or the segment not be begun.

use std::time::Duration;

use super::model_test::{PATIENCE, append, line, open, read_and_confirm, settings as settings_of};
use super::sim::Sim;
use super::{Error, LogSettings};
use crate::io::{block_on, timeout};
use crate::settings::{BacklogFull, Durability};
use crate::topology::BackendId;

/// While the next segment's file cannot be made, appends are refused; then everything goes on, and nothing is lost.
#[test]
fn a_file_that_cannot_be_made_is_tried_again() {
    block_on(|| async {
        for (durability, full) in [
            (Durability::Disk, BacklogFull::Reject),
            (Durability::Os, BacklogFull::Reject),
            (Durability::Disk, BacklogFull::DropOldest),
        ] {
            let sim = Sim::new(7);
            let settings = LogSettings { backlog_full: full, ..settings_of(durability) };
            let (log, _) = open(&sim, settings).await.unwrap();
            let mut taken = 0;
            for _ in 0..3 {
                sim.refuse_files(true);
                let refused = loop {
                    match append(&log, 2, &line(taken, 900)).await {
                        Ok(seq) => {
                            log.committed(seq, Durability::Disk).await.unwrap();
                            taken += 1;
                        }
                        Err(refused) => break refused,
                    }
                };
                assert!(matches!(refused, Error::NoNextFile), "{refused:?}");
                assert!(matches!(log.check_append(), Err(Error::NoNextFile)));
                sim.refuse_files(false);
                timeout(PATIENCE, async {
                    while log.check_append().is_err() {
                        crate::io::sleep(Duration::from_millis(5)).await;
                    }
                })
                .await
                .expect("the next file is made as soon as it can be");
                assert_eq!(log.poison(), None);
            }
            assert!(taken > 50, "{taken}");
            let got = read_and_confirm(&log, &mut log.reader(BackendId(2)), taken).await;
            assert_eq!(got, (0..taken).collect::<Vec<_>>());
            drop(log);
            let (_, opened) = open(&sim.restart(), settings_of(durability)).await.unwrap();
            assert_eq!(opened.damage, []);
        }
    });
}

/// Whichever step of making a segment fails once: with the file there is no frame, so nothing is in doubt.
#[test]
fn a_segment_that_cannot_be_begun_is_begun_with_another_file() {
    block_on(|| async {
        for durability in [Durability::Disk, Durability::Os] {
            for step in 0..2 {
                let sim = Sim::new(7);
                let (log, _) = open(&sim, settings_of(durability)).await.unwrap();
                let mut taken = 0;
                while sim.names().iter().filter(|name| name.ends_with(".free")).count() == 0 {
                    let seq = append(&log, 2, &line(taken, 900)).await.unwrap();
                    log.committed(seq, Durability::Disk).await.unwrap();
                    taken += 1;
                }
                if step == 0 {
                    sim.refuse_headers(1)
                } else {
                    sim.refuse_renames(1)
                }
                for _ in 0..100 {
                    let seq = loop {
                        match append(&log, 2, &line(taken, 900)).await {
                            Ok(seq) => break seq,
                            Err(Error::NoNextFile) => crate::io::sleep(Duration::from_millis(5)).await,
                            Err(error) => panic!("{error}"),
                        }
                    };
                    // Refused, or acknowledged: either way the line is there.
                    let _ = log.committed(seq, Durability::Disk).await;
                    taken += 1;
                }
                assert_eq!(log.poison(), None);
                let got = read_and_confirm(&log, &mut log.reader(BackendId(2)), taken).await;
                assert_eq!(got, (0..taken).collect::<Vec<_>>());
                drop(log);
                let (_, opened) = open(&sim.restart(), settings_of(durability)).await.unwrap();
                assert_eq!(opened.damage, []);
            }
        }
    });
}
