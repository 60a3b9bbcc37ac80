//! Promise: what influx-proxy had not delivered when fluxgate replaced it is imported, once.

use std::io::Write;

use flate2::Compression;
use flate2::write::GzEncoder;

use crate::circles::{Circles, DB, DRAIN, Points, balanced, drained};
use crate::support::start;
use fluxgate::lab::load::LoadArgs;
use fluxgate::lab::proxy::eventually;

/// A block as influx-proxy writes it: length, names, gzip.
fn block(names: &str, serials: std::ops::Range<u64>) -> Vec<u8> {
    let mut bytes = format!("{names} ").into_bytes();
    let mut gzip = GzEncoder::new(&mut bytes, Compression::fast());
    serials.for_each(|n| writeln!(gzip, "cpu,host=a n={n}i {n}000").unwrap());
    gzip.finish().unwrap();
    [&u32::try_from(bytes.len()).unwrap().to_be_bytes()[..], &bytes].concat()
}

#[test]
fn cache_files_are_imported_once() {
    let circles = Circles::new(2, 2);
    let mut proxy = start(&circles.config());
    assert!(proxy.terminate(std::time::Duration::from_secs(5)).unwrap().success());
    let delivered = block(DB, 1..100);
    let dat =
        [delivered.clone(), block(DB, 100..400), block(&format!("{DB} autogen"), 400..500), vec![0, 0, 1]].concat();
    let data_dir = proxy.data_dir();
    std::fs::write(data_dir.join("influxdb-1-2.dat"), dat).unwrap();
    std::fs::write(data_dir.join("influxdb-1-2.rec"), (delivered.len() as u64).to_be_bytes()).unwrap();
    std::fs::write(data_dir.join("gone.dat"), block(DB, 500..510)).unwrap();

    proxy.restart().unwrap();
    let ledger = drained(&proxy);
    assert_eq!((ledger.totals.accepted, ledger.totals.delivered), (400, 400), "{ledger:?}\n{}", proxy.stderr());
    let target = &circles.0[0][1];
    assert_eq!((target.points(DB), target.serials(DB).runs()), (400, vec![(100, 499)]));
    assert_eq!(circles.held(1).len(), 0, "the other circle has had them");
    // It is put aside once its points are in the log, which may be after they have been delivered.
    let put_aside =
        || data_dir.join("influxdb-1-2.dat.imported").is_file() && !data_dir.join("influxdb-1-2.dat").exists();
    assert!(eventually(DRAIN, put_aside), "{}", proxy.stderr());
    assert!(data_dir.join("gone.dat").is_file(), "nobody knows where it should go");
    let told = proxy.stderr();
    assert!(told.contains("torn block") && told.contains("gone.dat"), "{told}");

    assert!(proxy.terminate(std::time::Duration::from_secs(5)).unwrap().success());
    proxy.restart().unwrap();
    let mut points = Points::default();
    points.load(&LoadArgs { points: Some(200), first: 10_000, ..points.args(&proxy) }, || {});
    drained(&proxy);
    assert_eq!(balanced(&proxy).totals.accepted, 400 + 2 * 200);
    let (all, distinct): (Vec<_>, Vec<_>) = circles.0[0].iter().map(|b| (b.points(DB), b.serials(DB).len())).unzip();
    assert_eq!((all.iter().sum::<u64>(), distinct.iter().sum::<u64>()), (600, 600), "not delivered again");
}
