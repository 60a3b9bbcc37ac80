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
