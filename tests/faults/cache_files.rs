//! Promise: what influx-proxy had not delivered when fluxgate replaced it is imported, once, and before newer points.

use std::io::Write;
use std::path::Path;

use flate2::Compression;
use flate2::write::GzEncoder;

use crate::circles::{Circles, DB, DRAIN, Points, balanced, drained};
use crate::support::start;
use fluxgate::lab::client::Client;
use fluxgate::lab::load::LoadArgs;
use fluxgate::lab::proxy::{Proxy, eventually};

/// A block as influx-proxy writes it: length, names, gzip.
fn block(names: &str, serials: std::ops::Range<u64>) -> Vec<u8> {
    let mut bytes = format!("{names} ").into_bytes();
    let mut gzip = GzEncoder::new(&mut bytes, Compression::fast());
    serials.for_each(|n| writeln!(gzip, "cpu,host=a n={n}i {n}000").unwrap());
    gzip.finish().unwrap();
    [&u32::try_from(bytes.len()).unwrap().to_be_bytes()[..], &bytes].concat()
}

/// A cache file in `tests/golden/cache`.
fn recorded(name: &str) -> Vec<u8> {
    std::fs::read(Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/cache").join(name)).unwrap()
}

/// A proxy that has been stopped, to be started over cache files.
fn stopped(circles: &Circles) -> Proxy {
    let mut proxy = start(&circles.config());
    assert!(proxy.terminate(std::time::Duration::from_secs(5)).unwrap().success());
    proxy
}

#[test]
fn cache_files_are_imported_once() {
    let circles = Circles::new(2, 2);
    let mut proxy = stopped(&circles);
    let delivered = block(DB, 1..100);
    let dat =
        [delivered.clone(), block(DB, 100..400), block(&format!("{DB} autogen"), 400..500), vec![0, 0, 1]].concat();
    let data_dir = proxy.data_dir();
    std::fs::write(data_dir.join("influxdb-1-2.dat"), dat).unwrap();
    std::fs::write(data_dir.join("influxdb-1-2.rec"), (delivered.len() as u64).to_be_bytes()).unwrap();
    std::fs::write(data_dir.join("gone.dat"), block(DB, 500..510)).unwrap();

    proxy.restart().unwrap();
    let put_aside =
        || data_dir.join("influxdb-1-2.dat.imported").is_file() && !data_dir.join("influxdb-1-2.dat").exists();
    assert!(eventually(DRAIN, put_aside), "{}", proxy.stderr());
    let ledger = drained(&proxy);
    assert_eq!((ledger.totals.accepted, ledger.totals.delivered), (400, 400), "{ledger:?}\n{}", proxy.stderr());
    let target = &circles.0[0][1];
    assert_eq!((target.points(DB), target.serials(DB).runs()), (400, vec![(100, 499)]));
    assert_eq!(circles.held(1).len(), 0, "the other circle has had them");
    assert!(data_dir.join("gone.dat").is_file(), "nobody knows where it should go");
    let told = proxy.stderr();
    assert!(told.contains("torn block") && told.contains("rename gone.dat to NAME.dat"), "{told}");

    assert!(proxy.terminate(std::time::Duration::from_secs(5)).unwrap().success());
    proxy.restart().unwrap();
    let mut points = Points::default();
    points.load(&LoadArgs { points: Some(200), first: 10_000, ..points.args(&proxy) }, || {});
    drained(&proxy);
    assert_eq!(balanced(&proxy).totals.accepted, 400 + 2 * 200);
    let (all, distinct): (Vec<_>, Vec<_>) = circles.0[0].iter().map(|b| (b.points(DB), b.serials(DB).len())).unzip();
    assert_eq!((all.iter().sum::<u64>(), distinct.iter().sum::<u64>()), (600, 600), "not delivered again");
}

#[test]
fn recorded_cache_files_lose_no_whole_block() {
    let zeros = [recorded("v2.4.dat"), vec![0; 1 << 20]].concat();
    let beyond = 9_999_999u64.to_be_bytes().to_vec();
    for (name, dat, rec, runs, told) in [
        ("2.4", recorded("v2.4.dat"), Some(recorded("v2.4.rec")), vec![(200, 399)], None),
        ("2.5", recorded("v2.5.dat"), Some(recorded("v2.5.rec")), vec![(200, 399)], None),
        ("torn", recorded("torn-middle.dat"), None, vec![(100, 199), (300, 399)], Some("are a torn block")),
        ("zeros", zeros, None, vec![(100, 399)], Some("are zeros: nothing was ever written there")),
        ("beyond", recorded("v2.5.dat"), Some(beyond), vec![(100, 399)], Some("the whole file is imported")),
    ] {
        let circles = Circles::new(1, 1);
        let mut proxy = stopped(&circles);
        let path = |ending: &str| proxy.data_dir().join(format!("influxdb-1-1.{ending}"));
        std::fs::write(path("dat"), dat).unwrap();
        if let Some(rec) = rec {
            std::fs::write(path("rec"), rec).unwrap();
        }
        // What an earlier import has left stays as it is.
        std::fs::write(path("dat.imported"), "earlier").unwrap();
        let second = path("dat.imported.2");
        proxy.restart().unwrap();
        assert!(eventually(DRAIN, || second.is_file()), "{name}: {}", proxy.stderr());
        drained(&proxy);
        assert_eq!(circles.0[0][0].serials(DB).runs(), runs, "{name}: {}", proxy.stderr());
        assert_eq!(std::fs::read(proxy.data_dir().join("influxdb-1-1.dat.imported")).unwrap(), b"earlier");
        let log = proxy.stderr();
        let lines = log.lines().filter(|line| line.contains("influxdb-1-1.") && told.is_some_and(|t| line.contains(t)));
        assert_eq!(lines.count(), usize::from(told.is_some()), "{name}: {log}");
    }
}

#[test]
fn a_file_that_is_still_written_to_is_left_alone() {
    let circles = Circles::new(1, 1);
    let mut proxy = stopped(&circles);
    let path = proxy.data_dir().join("influxdb-1-1.dat");
    std::fs::write(&path, recorded("v2.4.dat")).unwrap();
    let held = std::fs::OpenOptions::new().append(true).open(&path).unwrap();
    proxy.restart().unwrap();
    let told = || proxy.stderr().contains("may still write to it; end it, and start fluxgate again");
    assert!(eventually(DRAIN, told), "{}", proxy.stderr());
    assert_eq!(std::fs::read(&path).unwrap(), recorded("v2.4.dat"));
    // Everything else goes on.
    let mut client = Client::connect(proxy.addr()).unwrap();
    assert_eq!(client.write(DB, "cpu,host=a n=1i 1000\n").unwrap().status, 204);
    drained(&proxy);
    drop(held);
    assert!(proxy.terminate(std::time::Duration::from_secs(5)).unwrap().success());
    proxy.restart().unwrap();
    assert!(eventually(DRAIN, || !path.exists()), "{}", proxy.stderr());
    drained(&proxy);
    assert_eq!(circles.0[0][0].serials(DB).runs(), [(1, 1), (100, 399)]);
}

#[test]
fn the_port_is_open_while_files_are_imported_and_newer_points_come_behind_them() {
    let mut circles = Circles::new(1, 1);
    circles.0[0][0].stop();
    let mut proxy = start(&circles.config().set("workers", 2).set("backlog_max_bytes", 8 << 20));
    assert!(proxy.terminate(std::time::Duration::from_secs(5)).unwrap().success());
    // More than the log may hold: the import waits until the backend is back.
    let text: Vec<u8> = (0..20).flat_map(|n| block(DB, n * 10_000 + 100..n * 10_000 + 10_100)).collect();
    std::fs::write(proxy.data_dir().join("influxdb-1-1.dat"), text).unwrap();
    proxy.restart().unwrap();
    for _ in 0..8 {
        assert_eq!(proxy.get("/health").unwrap().0, 200, "each of several connections is answered");
    }
    // The value of the first line is another one in the cache file.
    let newer = "cpu,host=a n=7i 100000\n";
    let reply = Client::connect(proxy.addr()).unwrap().write(DB, newer).unwrap();
    assert_eq!((reply.status, reply.header("Retry-After")), (503, Some("1")), "{}", reply.text());
    assert!(reply.text().contains("importing influx-proxy's cache files"), "{}", reply.text());
    assert!(proxy.ledger().unwrap().importing);

    circles.0[0][0].restart().unwrap();
    let written = || Client::connect(proxy.addr()).unwrap().write(DB, newer).is_ok_and(|reply| reply.status == 204);
    assert!(eventually(DRAIN, written), "{}", proxy.stderr());
    assert!(eventually(DRAIN, || !proxy.data_dir().join("influxdb-1-1.dat").exists()), "{}", proxy.stderr());
    let ledger = drained(&proxy);
    assert_eq!(ledger.totals.accepted, 200_001);
}
