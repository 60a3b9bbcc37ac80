//! The end of a log after a crash, where the last frames are not whole.

use super::model_test::{append, line, open, read_all, settings};
use super::sim::Sim;
use super::{Loss, Seq, segment};
use crate::io::block_on;
use crate::settings::Durability;

/// Damage behind the last saved state: all frames but the last had been acknowledged, and perhaps that one as well.
#[test]
fn damage_at_the_end_is_never_told_as_a_write_that_was_cut_short() {
    block_on(|| async {
        let sim = Sim::new(1);
        let (log, _) = open(&sim, settings(Durability::Disk)).await.unwrap();
        for n in 1..=5 {
            let seq = append(&log, 2, &line(n, 30)).await.unwrap();
            log.committed(seq, Durability::Disk).await.unwrap();
        }
        drop(log);
        let name = segment::file_name(Seq(1));
        let frame_at = |n: usize| segment::FRAMES_AT + (n - 1) * 4096;
        for first_damaged in 3..=5 {
            for at in [0, 20, 90] {
                let copy = sim.copy();
                copy.edit(&name, |bytes| (first_damaged..=5).for_each(|n| bytes[frame_at(n) + at] ^= 0x5a));
                let what = format!("frames {first_damaged}.. at {at}");
                let (lines, _, opened) = read_all(&copy).await;
                assert_eq!(lines, (1..first_damaged as u64).collect::<Vec<_>>(), "{what}");
                let reported: u64 = opened.damage.iter().map(|d| d.lines).sum();
                let loss = opened.torn.expect("the last frame is not whole").loss;
                let before_the_last = 5 - first_damaged as u64;
                match loss {
                    Loss::Possible(last) => {
                        assert_eq!(reported, before_the_last, "{what}: {:?}", opened.damage);
                        assert!(last.is_none_or(|points| points == 1), "{what}: {last:?}");
                    }
                    Loss::Certain => assert!(at < 64 && before_the_last > 0, "{what}"),
                    Loss::CutShort => panic!("{what}"),
                }
                // The second open names nothing again.
                let (again, _, opened) = read_all(&copy).await;
                assert!(again.starts_with(&lines) && opened.torn.is_none(), "{what}: {again:?} {opened:?}");
            }
        }
    });
}
