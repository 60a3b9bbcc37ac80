//! Accepts connections on a worker's listener, up to a bound at a time.

use std::rc::Rc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Instant;

use crate::io::{self, Listener};
use crate::limits::{ACCEPT_PAUSE, LOUD_INTERVAL};
use crate::serve::conn;
use crate::worker::Worker;

/// Runs until [`Listener::close`] is called. `connections_max`: more are accepted only when others have ended.
pub async fn accept(worker: Rc<Worker>, listener: Rc<Listener>, connections_max: usize) {
    let mut told: Option<Instant> = None;
    while !worker.conns.stopping() {
        while worker.conns.len() >= connections_max {
            worker.conns.ended.wait().await;
        }
        match listener.accept().await {
            Ok(stream) => {
                worker.stats().connections.fetch_add(1, Relaxed);
                io::spawn(conn::serve(worker.clone(), stream));
            }
            Err(_) if worker.conns.stopping() || worker.own.log.poison().is_some() => return,
            Err(error) => {
                if told.is_none_or(|told| io::elapsed(told) >= LOUD_INTERVAL) {
                    told = Some(io::now());
                    log::warn!("cannot accept a connection: {error}");
                }
                io::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}
