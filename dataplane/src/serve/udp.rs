//! Line protocol in UDP packets: each packet is a write, with the same admission, intake and log as one over HTTP.
//! Nobody is answered: what is not taken is counted (`/ledger`) and logged.
//!
//! As InfluxDB does, the database is created when it is missing. InfluxDB drops a packet with one bad line; here its
//! good lines are kept, as those of any write.
//!
//! Not here: who may send. UDP has no user.

use std::panic::AssertUnwindSafe;
use std::rc::Rc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Instant;

use futures_lite::FutureExt as _;

use crate::handoff::{QueryReply, QueryRequest, ToControl, ToWorker};
use crate::influxql::print;
use crate::io::{self, Datagrams};
use crate::limits::{
    ACCEPT_PAUSE, LOUD_INTERVAL, UDP_COUNT_LOST_EACH, UDP_CREATE_INTERVAL, UDP_CREATE_TIMEOUT, UDP_PACKET_BYTES_MAX,
};
use crate::request::reject::Reject;
use crate::settings::UdpSettings;
use crate::stats::UdpStats;
use crate::worker::Worker;
use crate::write::admit::{Admitted, Target, admit};

/// Receives until the worker stops. A panic ends one packet only. `number` is that of the address in the settings.
pub async fn receive(worker: Rc<Worker>, datagrams: Datagrams, number: usize) {
    let mut receiver = Receiver { worker, datagrams, number, lost: 0, told: None, create_tried: None };
    while AssertUnwindSafe(receiver.run()).catch_unwind().await.is_err() {
        receiver.stats().packets_refused.fetch_add(1, Relaxed);
        log::error!("the task that receives UDP packets panicked (see above); it goes on with the next packet");
    }
}

struct Receiver {
    worker: Rc<Worker>,
    datagrams: Datagrams,
    number: usize,
    /// As the kernel told last.
    lost: u32,
    /// When a fault was logged last.
    told: Option<Instant>,
    create_tried: Option<Instant>,
}

impl Receiver {
    fn settings(&self) -> &UdpSettings {
        &self.worker.settings.udp[self.number]
    }

    fn stats(&self) -> &UdpStats {
        &self.worker.all_stats.udp[self.number]
    }

    async fn run(&mut self) {
        let (mut packet, mut since_counted) = (vec![0; UDP_PACKET_BYTES_MAX], 0);
        // Without its socket the kernel gives the packets to other workers.
        while !self.worker.conns.stopping() && !self.gives_up() {
            match self.datagrams.receive(&mut packet).await {
                // The log may be closed already.
                Ok(Some(_)) if self.worker.conns.stopping() => return,
                Ok(Some(len)) => {
                    self.packet(&packet[..len]).await;
                    since_counted += 1;
                }
                Ok(None) => since_counted = UDP_COUNT_LOST_EACH,
                Err(error) => {
                    self.tell(&format!("cannot receive: {error}"));
                    io::sleep(ACCEPT_PAUSE).await;
                }
            }
            if since_counted >= UDP_COUNT_LOST_EACH {
                since_counted = 0;
                self.count_lost();
            }
            io::yield_if_needed().await;
        }
    }

    /// When this worker's log has just failed it still counts as ready itself.
    fn gives_up(&self) -> bool {
        !self.worker.stats().ready.load(Relaxed) && self.worker.leaves_clients()
    }

    async fn packet(&mut self, packet: &[u8]) {
        let mut result = self.take(packet).await;
        if matches!(result, Err(Reject::DatabaseUnknown(_))) && self.create_database().await {
            result = self.take(packet).await;
        }
        if let Err(reject) = result {
            self.stats().packets_refused.fetch_add(1, Relaxed);
            self.tell(&format!("packets are refused: {}", String::from_utf8_lossy(&reject.text())));
        }
        self.stats().packets.fetch_add(1, Relaxed);
    }

    /// # Errors
    /// Why none of its lines is taken, although they may be good.
    async fn take(&mut self, packet: &[u8]) -> Result<(), Reject> {
        let UdpSettings { db, rp, precision, .. } = self.settings();
        let target = Target { db: db.as_bytes(), rp: rp.as_bytes(), precision: Ok(*precision) };
        let Admitted { mut intake, policy_known } = admit(&self.worker, target).await?;
        if !policy_known {
            return Err(Reject::PolicyUnknown(rp.as_bytes().to_vec()));
        }
        intake.take(&self.worker, packet, true).await?;
        intake.trace(&self.worker);
        if intake.refusals.count > 0 {
            self.stats().lines_refused.fetch_add(intake.refusals.count, Relaxed);
            let text = String::from_utf8_lossy(&intake.refusals.text).into_owned();
            self.tell(&format!("bad lines are refused: {text}"));
        }
        Ok(())
    }

    /// Returns whether the database is there now.
    async fn create_database(&mut self) -> bool {
        if self.create_tried.is_some_and(|tried| io::elapsed(tried) < UDP_CREATE_INTERVAL) {
            return false;
        }
        self.create_tried = Some(io::now());
        let q = format!("CREATE DATABASE {}", print::name(&self.settings().db));
        let request = Box::new(QueryRequest { q, ..QueryRequest::default() });
        let ask = |worker, ticket| ToControl::Query { worker, ticket, request };
        let answer = self.worker.link.ask(UDP_CREATE_TIMEOUT, ask).await;
        matches!(answer, Ok(ToWorker::Query { reply: QueryReply::Answer { .. }, .. }))
    }

    fn count_lost(&mut self) {
        let lost = self.datagrams.lost();
        let new = lost.wrapping_sub(self.lost);
        if new > 0 {
            self.lost = lost;
            self.stats().packets_lost.fetch_add(u64::from(new), Relaxed);
            self.tell("packets come faster than they are taken, and are lost; a larger read_buffer helps with bursts");
        }
    }

    /// Logs a fault, but not more often than the log should hear of it.
    fn tell(&mut self, what: &str) {
        if self.told.is_none_or(|told| io::elapsed(told) >= LOUD_INTERVAL) {
            self.told = Some(io::now());
            let what = crate::one_line::one_line(what);
            log::warn!("udp {}: {what} (counted in /ledger)", self.settings().bind);
        }
    }
}
