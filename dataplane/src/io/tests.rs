//! What the house relies on in the runtime.

use std::net::Shutdown;
use std::os::fd::{FromRawFd, OwnedFd};
use std::time::Duration;

use super::*;

#[test]
fn the_main_ring_is_created_with_the_coop_flag() {
    block_on(|| async {});
    assert!(rings::coop_applied());
}

/// glommio 0.9 alone loses about one start in a thousand here (see `rings.rs`), and more on a machine that steals time.
#[test]
fn no_executor_sleeps_over_its_first_task_on_a_busy_machine() {
    let busy = std::sync::Arc::new(std::sync::atomic::AtomicBool::new(true));
    let spin = |busy: std::sync::Arc<std::sync::atomic::AtomicBool>| {
        std::thread::spawn(move || while busy.load(std::sync::atomic::Ordering::Relaxed) {})
    };
    let spinning: Vec<_> =
        (0..8 * std::thread::available_parallelism().unwrap().get()).map(|_| spin(busy.clone())).collect();
    let (done, ended) = std::sync::mpsc::channel();
    std::thread::spawn(move || {
        for _ in 0..300 {
            block_on(|| async { yield_if_needed().await });
            done.send(()).unwrap();
        }
    });
    let all = (0..300).all(|_| ended.recv_timeout(Duration::from_secs(20)).is_ok());
    busy.store(false, std::sync::atomic::Ordering::Relaxed);
    spinning.into_iter().for_each(|thread| thread.join().unwrap());
    assert!(all, "an executor hangs");
}

#[test]
fn bytes_go_both_ways_and_a_closed_listener_ends_its_accept() {
    block_on(|| async {
        let (_guard, mut sockets) = bind("127.0.0.1:0".parse().unwrap(), 1).unwrap();
        let listener = std::rc::Rc::new(Listener::new(sockets.pop().unwrap()).unwrap());
        let addr = listener.local_addr().unwrap();
        let accepting = listener.clone();
        let server = glommio::spawn_local(async move {
            let mut stream = accepting.accept().await.unwrap();
            let mut buf = [0; 16];
            let n = stream.read(&mut buf).await.unwrap();
            stream.write_all(&buf[..n]).await.unwrap();
            accepting.accept().await.map(|_| ())
        });
        let mut client = Stream::connect(addr, Duration::from_secs(5)).await.unwrap();
        client.write_all(b"hello").await.unwrap();
        let mut buf = [0; 16];
        assert_eq!(client.read(&mut buf).await.unwrap(), 5);
        client.shutdown(Shutdown::Both).await.unwrap();
        listener.close();
        assert!(server.await.is_err(), "a pending accept ends with an error");
    });
}

#[test]
fn a_signal_from_another_thread_wakes_the_executor() {
    block_on(|| async {
        // SAFETY: plain system call; the descriptor is checked and owned below.
        let fd = unsafe { libc::eventfd(0, libc::EFD_CLOEXEC) };
        assert!(fd >= 0);
        // SAFETY: `fd` is open and owned by nobody else.
        let owned = unsafe { OwnedFd::from_raw_fd(fd) };
        let writer = owned.try_clone().unwrap();
        let thread = std::thread::spawn(move || {
            std::thread::sleep(Duration::from_millis(30));
            use std::io::Write;
            std::fs::File::from(writer).write_all(&1u64.to_ne_bytes()).unwrap();
        });
        timeout(Duration::from_secs(5), Signal::new(owned).wait()).await.unwrap().unwrap();
        thread.join().unwrap();
    });
}

#[test]
fn a_timeout_drops_what_takes_too_long() {
    block_on(|| async {
        assert_eq!(timeout(Duration::from_millis(20), std::future::pending::<()>()).await, Err(Elapsed));
        assert_eq!(timeout(Duration::from_secs(5), async { 7 }).await, Ok(7));
    });
}
