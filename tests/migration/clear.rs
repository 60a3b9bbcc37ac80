//! Promise: a clear removes points from servers that do not own them, and only points that the owner has.

use crate::cluster::{Cluster, points, write_to};

#[test]
fn only_what_the_right_place_has_is_removed() {
    let cluster = Cluster::start(&[2]);
    cluster.fill(0..600);
    // Copies on the wrong server; of one measurement with a point that its owner does not have.
    let [a, b] = &cluster.servers[0][..] else { panic!("two servers") };
    let (mut safe, mut more) = (None, None);
    for name in (0..12).map(|n| format!("m{n}")) {
        let (wrong, rows) = match (points(a, &name), points(b, &name)) {
            (rows, none) if none.is_empty() => (b, rows),
            (_, rows) => (a, rows),
        };
        let mut lines: String =
            rows.iter().map(|(time, n)| format!("{name},host=h{} n={n}i {time}\n", n % 3)).collect();
        if more.is_none() {
            lines += &format!("{name},host=h0 n=7i 42\n");
            more = Some((name, wrong));
        } else {
            safe = Some((name, wrong));
        }
        write_to(wrong, &lines);
    }
    let (safe, more) = (safe.unwrap(), more.unwrap());
    let job = cluster.wait(cluster.begin("/clear?circle_id=0", ""));
    assert_eq!(job["state"], "failed", "{job:#}");
    assert!(job["errors"][0].as_str().unwrap().contains(&more.0), "{job:#}");
    assert!(points(safe.1, &safe.0).is_empty());
    assert!(points(more.1, &more.0).contains(&(42, 7)));
    cluster.check(false);
}
