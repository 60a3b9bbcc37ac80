//! Promise: an executor runs its tasks however busy the machine is. A program of its own, because it keeps all CPUs
//! busy.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use fluxgate_dataplane::io::{block_on, yield_if_needed};

const STARTS: usize = 300;

/// glommio 0.9 alone loses about one start in a thousand here (see `io/uring/rings.rs`), and more on a machine that
/// steals time.
#[test]
fn no_executor_sleeps_over_its_first_task_on_a_busy_machine() {
    let busy = Arc::new(AtomicBool::new(true));
    let spin = |busy: Arc<AtomicBool>| thread::spawn(move || while busy.load(Relaxed) {});
    let cpus = thread::available_parallelism().unwrap().get();
    let spinning: Vec<_> = (0..8 * cpus).map(|_| spin(busy.clone())).collect();
    let (done, ended) = mpsc::channel();
    thread::spawn(move || {
        for _ in 0..STARTS {
            block_on(|| async { yield_if_needed().await });
            done.send(()).unwrap();
        }
    });
    let all = (0..STARTS).all(|_| ended.recv_timeout(Duration::from_secs(30)).is_ok());
    busy.store(false, Relaxed);
    spinning.into_iter().for_each(|thread| thread.join().unwrap());
    assert!(all, "an executor hangs");
}
