//! Accepts connections on a worker's listener, up to `CONNECTIONS_PER_WORKER_MAX` at a time.

use std::rc::Rc;
use std::sync::atomic::Ordering::Relaxed;

use crate::io::{self, Listener};
use crate::limits::{ACCEPT_PAUSE, CONNECTIONS_PER_WORKER_MAX};
use crate::serve::conn;
use crate::worker::Worker;

/// Runs until [`Listener::close`] is called.
pub async fn accept(worker: Rc<Worker>, listener: Rc<Listener>) {
    while !worker.conns.stopping() {
        while worker.conns.len() >= CONNECTIONS_PER_WORKER_MAX {
            worker.conns.ended.wait().await;
        }
        match listener.accept().await {
            Ok(stream) => {
                worker.stats().connections.fetch_add(1, Relaxed);
                io::spawn(conn::serve(worker.clone(), stream));
            }
            Err(_) if worker.conns.stopping() => return,
            Err(error) => {
                log::warn!("cannot accept a connection: {error}");
                io::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}
