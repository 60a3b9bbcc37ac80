//! Merges several logs into one order: (stamp, number of the log). See [`RecordOrder`] for when the order is known.

use std::future::{Future, poll_fn};
use std::pin::Pin;
use std::sync::Arc;
use std::task::Poll;
use std::time::Instant;

use futures_lite::future;

use super::source::{Fetched, RecordSource, SourceError};
use crate::disklog::{RecordView, Seq};
use crate::io;
use crate::limits::{ORDER_LOOK_INTERVAL, ORDER_LOOK_INTERVAL_MAX};
use crate::order::RecordOrder;

/// What one [`LogSource::fetch`] passed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Passed {
    pub lines: u64,
    pub lost: u64,
}

/// The records for one backend in one log, in order.
pub trait LogSource {
    /// Whether everything that is written was within reach of a fetch at the time of this call.
    fn offered(&self) -> bool;

    /// As [`RecordSource::fetch`], for this log.
    ///
    /// # Errors
    /// [`SourceError`].
    fn fetch(
        &mut self,
        sink: &mut dyn FnMut(RecordView<'_>) -> bool,
    ) -> impl Future<Output = Result<Passed, SourceError>>;

    /// Waits until a fetch may pass something. May be dropped at any time.
    fn arrived(&mut self) -> impl Future<Output = ()>;

    /// Whether there may be more records than have been fetched.
    fn behind(&self) -> bool;

    /// The record after the last one that was passed or skipped.
    fn position(&self) -> Seq;

    /// Everything passed is settled.
    fn confirm(&mut self);

    /// Sends what could not be sent earlier. False: it still cannot.
    fn flush(&mut self) -> bool;

    /// Gives memory back.
    fn rest(&mut self);
}

/// The log with the next record, that record's stamp, and where that log must stop: before the next record of another
/// log.
type NextRecord = (usize, u64, Option<(u64, usize)>);

/// All logs of one backend.
pub struct Merge<L> {
    order: Arc<RecordOrder>,
    logs: Vec<L>,
    /// By log: the stamp of the next record, if it has been looked at.
    heads: Vec<Option<u64>>,
    /// Since when the next record waits, without one that was passed in between.
    waits_since: Option<Instant>,
}

impl<L: LogSource> Merge<L> {
    /// `logs`: by their number.
    pub fn new(order: Arc<RecordOrder>, logs: Vec<L>) -> Self {
        let heads = vec![None; logs.len()];
        Self { order, logs, heads, waits_since: None }
    }

    /// The logs, by their number.
    pub fn logs(&self) -> &[L] {
        &self.logs
    }

    /// Looks at the next record of each log that was not looked at. False: a log has more that it cannot show yet.
    async fn look(&mut self, got: &mut Fetched) -> Result<bool, SourceError> {
        let mut all = true;
        for (log, head) in self.logs.iter_mut().zip(&mut self.heads) {
            while head.is_none() {
                let offered = log.offered();
                let passed = log
                    .fetch(&mut |record| {
                        *head = Some(record.stamp);
                        false
                    })
                    .await?;
                got.lost += passed.lost;
                if passed.lost == 0 {
                    all &= offered || head.is_some();
                    break;
                }
            }
        }
        Ok(all)
    }

    fn next(&self) -> Option<NextRecord> {
        let heads = || self.heads.iter().enumerate().filter_map(|(log, head)| Some((((*head)?), log)));
        let (stamp, log) = heads().min()?;
        Some((log, stamp, heads().filter(|(_, other)| *other != log).min()))
    }
}

impl<L: LogSource> RecordSource for Merge<L> {
    async fn fetch(&mut self, sink: &mut dyn FnMut(usize, RecordView<'_>) -> bool) -> Result<Fetched, SourceError> {
        let mut got = Fetched::default();
        // Before the logs are looked into.
        let complete = self.order.complete_below();
        let alone = self.logs.len() == 1;
        loop {
            if !self.look(&mut got).await? {
                return Ok(got);
            }
            let Some((log, stamp, stop)) = self.next() else { break };
            // A single log is in order by itself.
            if !alone && stamp >= complete {
                break;
            }
            let (mut head, mut full) = (None, false);
            let mut pass = |record: RecordView<'_>| {
                let is_next = alone || record.stamp < complete && stop.is_none_or(|stop| (record.stamp, log) < stop);
                full = is_next && !sink(log, record);
                let taken = is_next && !full;
                if !taken {
                    head = Some(record.stamp);
                }
                taken
            };
            let passed = self.logs[log].fetch(&mut pass).await?;
            self.heads[log] = head;
            got.lines += passed.lines;
            got.lost += passed.lost;
            self.waits_since = None;
            if full {
                break;
            }
        }
        got.below = self.heads.iter().flatten().copied().min().unwrap_or(u64::MAX).min(complete);
        Ok(got)
    }

    async fn ready(&mut self) {
        let mut flushed = true;
        for log in &mut self.logs {
            flushed &= log.flush();
        }
        if !flushed || self.heads.iter().any(Option::is_some) {
            // What is next waits until another log has written what it has stamped: some hundred microseconds, unless
            // its disk is slow.
            let waited = io::elapsed(*self.waits_since.get_or_insert_with(io::now));
            return io::sleep((waited / 4).clamp(ORDER_LOOK_INTERVAL, ORDER_LOOK_INTERVAL_MAX)).await;
        }
        self.waits_since = None;
        // Most have one or two logs.
        match &mut self.logs[..] {
            [log] => return log.arrived().await,
            [one, other] => return future::or(one.arrived(), other.arrived()).await,
            _ => {}
        }
        let mut waits: Vec<Pin<Box<dyn Future<Output = ()> + '_>>> = Vec::with_capacity(self.logs.len());
        waits.extend(self.logs.iter_mut().map(|log| Box::pin(log.arrived()) as _));
        poll_fn(|context| match waits.iter_mut().any(|wait| wait.as_mut().poll(context).is_ready()) {
            true => Poll::Ready(()),
            false => Poll::Pending,
        })
        .await;
    }

    fn behind(&self) -> bool {
        self.heads.iter().any(Option::is_some) || self.logs.iter().any(LogSource::behind)
    }

    fn began(&self) -> u64 {
        self.order.began()
    }

    fn positions(&self) -> Vec<Seq> {
        self.logs.iter().map(LogSource::position).collect()
    }

    fn confirm(&mut self) {
        self.logs.iter_mut().for_each(LogSource::confirm);
    }

    fn has_reported(&mut self) -> bool {
        self.logs.iter_mut().fold(true, |all, log| all & log.flush())
    }

    fn rest(&mut self) {
        self.logs.iter_mut().for_each(LogSource::rest);
    }
}

#[cfg(test)]
mod tests {
    use std::cell::{Cell, RefCell};
    use std::collections::VecDeque;
    use std::rc::Rc;
    use std::time::Duration;

    use futures_lite::future::{block_on, pending};

    use super::*;
    use crate::precision::Precision;

    /// A log of stamps.
    #[derive(Clone, Default)]
    struct FakeLog {
        stamps: Rc<RefCell<VecDeque<u64>>>,
        passed: Rc<Cell<u64>>,
        /// It has more than it shows.
        hides: Rc<Cell<bool>>,
        lost: Rc<Cell<u64>>,
    }

    impl LogSource for FakeLog {
        fn offered(&self) -> bool {
            !self.hides.get()
        }

        async fn fetch(&mut self, sink: &mut dyn FnMut(RecordView<'_>) -> bool) -> Result<Passed, SourceError> {
            let mut passed = Passed { lines: 0, lost: self.lost.take() };
            loop {
                let next = self.stamps.borrow().front().copied();
                let Some(stamp) = next.filter(|_| passed.lost == 0) else { break };
                let seq = Seq(self.passed.get() + 1);
                let precision = Precision::Second;
                if !sink(RecordView { seq, db: b"", rp: b"", precision, stamp, lines: 1, bytes: b"" }) {
                    break;
                }
                passed.lines += 1;
                self.passed.set(seq.0);
                self.stamps.borrow_mut().pop_front();
            }
            Ok(passed)
        }

        async fn arrived(&mut self) {
            if self.stamps.borrow().is_empty() {
                pending().await
            }
        }

        fn behind(&self) -> bool {
            !self.stamps.borrow().is_empty()
        }

        fn position(&self) -> Seq {
            Seq(self.passed.get() + 1)
        }

        fn confirm(&mut self) {}

        fn flush(&mut self) -> bool {
            true
        }

        fn rest(&mut self) {}
    }

    fn merge(stamps: &[&[u64]]) -> (Merge<FakeLog>, Vec<FakeLog>, Arc<RecordOrder>) {
        let order = Arc::new(RecordOrder::new(stamps.len(), 1, Duration::ZERO));
        stamps.iter().for_each(|_| order.opened(0, &[]));
        let logs: Vec<_> = stamps.iter().map(|_| FakeLog::default()).collect();
        logs.iter().zip(stamps).for_each(|(log, stamps)| log.stamps.borrow_mut().extend(*stamps));
        (Merge::new(order.clone(), logs.clone()), logs, order)
    }

    /// Fetches at most `max` records: log and stamp of each, and what is known to be complete.
    fn fetch(merge: &mut Merge<FakeLog>, max: usize) -> (Vec<(usize, u64)>, Fetched) {
        let mut got = Vec::new();
        let fetched = block_on(merge.fetch(&mut |log, record| {
            if got.len() == max {
                return false;
            }
            got.push((log, record.stamp));
            true
        }));
        (got, fetched.unwrap())
    }

    #[test]
    fn records_come_by_stamp_and_number_of_the_log() {
        let (mut merge, _, order) = merge(&[&[1, 5, 5, 9], &[], &[2, 5, 6]]);
        let (got, fetched) = fetch(&mut merge, 4);
        assert_eq!(got, [(0, 1), (2, 2), (0, 5), (0, 5)]);
        assert_eq!((fetched.below, fetched.lines), (5, 4), "one of the same stamp is still to come");
        let before = order.now();
        let (got, fetched) = fetch(&mut merge, 100);
        assert_eq!(got, [(2, 5), (2, 6), (0, 9)]);
        assert!(fetched.below >= before && !merge.behind());
        assert_eq!(merge.positions(), [Seq(5), Seq(1), Seq(4)]);
    }

    #[test]
    fn nothing_is_passed_while_a_log_hides_something_and_nothing_beyond_what_is_announced() {
        let (mut merge, logs, order) = merge(&[&[1], &[]]);
        logs[1].hides.set(true);
        assert_eq!(fetch(&mut merge, 9), (vec![], Fetched::default()));
        logs[1].stamps.borrow_mut().push_back(3);
        assert_eq!(fetch(&mut merge, 9).0, [(0, 1), (1, 3)], "what it shows first is enough, until that has passed");
        logs[1].hides.set(false);
        order.announce(1);
        let later = order.now();
        logs[0].stamps.borrow_mut().push_back(later);
        let (got, fetched) = fetch(&mut merge, 9);
        assert!(got.is_empty() && fetched.below <= later);
        order.withdraw(1, None);
        assert_eq!(fetch(&mut merge, 9).0, [(0, later)]);
    }

    #[test]
    fn lost_lines_are_told_and_a_single_log_waits_for_nobody() {
        let (mut merge, logs, order) = merge(&[&[u64::MAX - 1]]);
        order.announce(0);
        logs[0].lost.set(7);
        let (got, fetched) = fetch(&mut merge, 9);
        assert_eq!((got, fetched.lost), (vec![(0, u64::MAX - 1)], 7));
    }
    #[test]
    fn a_record_that_waits_for_a_slow_disk_is_looked_at_ever_less_often() {
        crate::io::block_on(|| async {
            let (mut merge, logs, order) = merge(&[&[], &[]]);
            order.announce(1);
            logs[0].stamps.borrow_mut().push_back(order.now());
            let (began, mut looks) = (io::now(), 0);
            while io::elapsed(began) < Duration::from_millis(500) {
                assert_eq!(merge.fetch(&mut |_, _| true).await.unwrap().lines, 0);
                merge.ready().await;
                looks += 1;
            }
            assert!(looks < 100, "{looks}");
        });
    }
}
