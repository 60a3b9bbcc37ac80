//! Promise: running out of file descriptors is an error of the moment. Clients that open too many connections take none
//! from the log and the backends, and when the log itself finds none, writes are refused only as long as that lasts.

use std::net::TcpStream;
use std::time::Duration;

use crate::circles::{Circles, DB, DRAIN};
use crate::support::start;
use fluxgate::lab::client::Client;
use fluxgate::lab::proxy::{Proxy, eventually};
use rustix::process::{Pid, Resource, Rlimit, getrlimit, prlimit};

const LIMIT: u64 = 220;

/// 500 KB: a few of them fill a segment.
fn lines() -> String {
    let text = "x".repeat(240);
    (0..2_000).map(|n| format!("m n={n}i,text=\"{text}\" {n}\n")).collect()
}

fn allow(proxy: &Proxy, files: u64) {
    let pid = Pid::from_raw(proxy.pid().unwrap() as i32);
    prlimit(pid, Resource::Nofile, Rlimit { current: Some(files), ..getrlimit(Resource::Nofile) }).unwrap();
}

fn open_files(proxy: &Proxy) -> u64 {
    std::fs::read_dir(format!("/proc/{}/fd", proxy.pid().unwrap())).unwrap().count() as u64
}

#[test]
fn a_crowd_of_clients_takes_no_descriptor_from_the_log_and_the_backends() {
    let circles = Circles::new(1, 1);
    let config = circles.config().set("workers", 2).set("backlog_max_bytes", 128 << 20).set("idle_timeout", 60);
    let shell = format!("ulimit -n {LIMIT}; exec \"$0\" \"$@\"");
    let proxy = start(&config.launched_by(["sh", "-c", &shell]));
    let mut writers: Vec<_> = (0..4).map(|_| Client::connect(proxy.addr()).unwrap()).collect();
    for writer in &mut writers {
        assert_eq!(writer.write(DB, "m n=1i 1\n").unwrap().status, 204);
    }
    let crowd: Vec<_> = (0..LIMIT + 60).map(|_| TcpStream::connect(proxy.addr()).unwrap()).collect();
    assert!(eventually(Duration::from_secs(5), || open_files(&proxy) > LIMIT / 3));
    let lines = lines();
    for _ in 0..20 {
        for writer in &mut writers {
            assert_eq!(writer.write(DB, &lines).unwrap().status, 204, "{}", proxy.stderr());
        }
    }
    drop(crowd);
    proxy.drained(DRAIN).unwrap();
    assert!(!proxy.stderr().contains("Too many open files"), "{}", proxy.stderr());
}

#[test]
fn a_log_without_a_descriptor_for_its_next_file_goes_on_when_there_is_one() {
    let circles = Circles::new(1, 1);
    let proxy = start(&circles.config().set("workers", 1).set("backlog_max_bytes", 128 << 20));
    let lines = lines();
    for round in 1..=2 {
        let mut client = Client::connect(proxy.addr()).unwrap();
        assert_eq!(client.write(DB, "m n=1i 1\n").unwrap().status, 204);
        // Some fewer than are open: those of a probe or a delivery that end just now must not be free for the log.
        allow(&proxy, open_files(&proxy) - 4);
        let refused = (0..200).map(|_| client.write(DB, &lines).unwrap()).find(|reply| reply.status != 204).unwrap();
        assert_eq!((refused.status, refused.header("Retry-After")), (503, Some("1")), "{}", refused.text());
        assert_eq!(proxy.stderr().matches("writes are answered 503").count(), round, "{}", proxy.stderr());
        allow(&proxy, 10_000);
        let again = || Client::connect(proxy.addr()).unwrap().write(DB, &lines).unwrap().status;
        assert!(eventually(Duration::from_secs(10), || again() == 204));
    }
    proxy.drained(DRAIN).unwrap();
}
