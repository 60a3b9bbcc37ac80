//! Parks points of a backend in all logs, and connects their side courier: the logs of this worker are read directly,
//! those of others through feeds that are made for it and end with it.

use std::rc::Rc;
use std::sync::Arc;

use super::delivery::{DeliveryReports, LogEnd, LogPlace, OneLog, unsaved};
use crate::courier::{Merge, Parking, UnsettledPart};
use crate::order::SettledBefore;
use crate::parked::ParkedKey;
use crate::worker::Worker;
use crate::worker::feed::{Feed, ParkOrder, Report, Settled};

impl Parking<DeliveryReports> for Merge<OneLog> {
    fn parked_before(&self) -> Vec<ParkedKey> {
        let (worker, backend) = self.place();
        worker.feeds.order.settled_state(backend).parked.into_iter().map(|(key, _)| key).collect()
    }

    fn floors(&self, key: &ParkedKey) -> (u64, u64) {
        let (worker, backend) = self.place();
        let SettledBefore { below, parked, .. } = worker.feeds.order.settled_state(backend);
        (below, parked.iter().find(|(other, _)| other == key).map_or(below, |(_, stamp)| *stamp))
    }

    fn park(&self, key: &ParkedKey, part: Option<&UnsettledPart>) -> Option<(Self, DeliveryReports)> {
        let (worker, backend) = self.place();
        let ends = self.logs()[0].ends();
        // What was refused is told before what settles it.
        let is_told = ends.iter().all(|end| end.report_refused(backend));
        if !is_told || ends.iter().any(|end| end.feed().is_some_and(Feed::reports_are_full)) {
            return None;
        }
        if let Some(part) = part {
            let rejected = part.rejected.iter().map(|rejected| unsaved(&worker.feeds, &key.db, rejected)).collect();
            worker.feeds.order.refused(backend, rejected, part.stamp);
            // Before a cursor moves past them.
            worker.feeds.order.park(backend, key, part.stamp);
        }
        let from = |log: usize| {
            let part = part?;
            let delivered = part.delivered.iter().filter(|(of, _)| *of == log);
            let delivered = delivered.map(|(_, lines)| (key.db.clone(), *lines)).collect();
            let mut settled = Settled { next: part.first[log], delivered, ..Settled::default() };
            let rejected = part.rejected.iter().filter(|rejected| rejected.log == log);
            rejected.for_each(|rejected| settled.reject(&key.db, rejected.reason.into(), rejected.points));
            Some(settled)
        };
        let side_end = |(log, end): (usize, &LogEnd)| {
            let to = match &end.to {
                LogPlace::Here(journal) => {
                    if let Some(settled) = from(log) {
                        journal.park(backend, key, &settled);
                    }
                    LogPlace::Here(journal.clone())
                }
                LogPlace::Elsewhere(main) => {
                    let feed = worker.feeds.side_feed(log, backend);
                    let order = ParkOrder { key: key.clone(), from: from(log), feed: feed.clone() };
                    main.report(Report::Park(Box::new(order))).expect("there is room, and nobody else reports");
                    LogPlace::Elsewhere(feed)
                }
            };
            LogEnd::new(to, Some(key.clone()))
        };
        let side: Rc<[LogEnd]> = ends.iter().enumerate().map(side_end).collect();
        ends.iter().for_each(|end| end.side_started());
        let logs = (0..side.len()).map(|log| OneLog::new(worker, backend, &side, log)).collect();
        let reports = DeliveryReports::new(worker.clone(), backend, side).of_side(key.clone(), ends.clone());
        Some((Self::new(worker.feeds.order.clone(), logs), reports))
    }

    fn unpark(&self, key: &ParkedKey) -> bool {
        let (worker, backend) = self.place();
        let ends = self.logs()[0].ends();
        let topology = &worker.settings.topology;
        let has_reported = |end: &LogEnd| end.report(topology.backend(backend));
        if !ends.iter().all(has_reported) || ends.iter().any(|end| end.feed().is_some_and(Feed::reports_are_full)) {
            return false;
        }
        worker.feeds.order.unpark(backend, key);
        for end in ends.iter() {
            match &end.to {
                LogPlace::Here(journal) => journal.unpark(backend, key),
                LogPlace::Elsewhere(main) => {
                    main.report(Report::Unpark(key.clone())).expect("there is room, and nobody else reports");
                }
            }
            end.side_ended();
        }
        worker.parked_ended();
        true
    }
}

impl Merge<OneLog> {
    fn place(&self) -> (&Rc<Worker>, crate::topology::BackendId) {
        let log = &self.logs()[0];
        (log.worker(), log.backend_id())
    }
}

impl LogEnd {
    fn feed(&self) -> Option<&Feed> {
        match &self.to {
            LogPlace::Here(_) => None,
            LogPlace::Elsewhere(feed) => Some(Arc::as_ref(feed)),
        }
    }
}
