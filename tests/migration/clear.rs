//! Promise: a clear removes what lies at a wrong place, and only what its right place has.

use crate::house::{DB, house, points};

#[test]
fn only_what_the_right_place_has_is_removed() {
    let Some(house) = house(&[2]) else { return };
    house.fill(0..600);
    // Copies at the wrong place: of one measurement with a point more than its owner has.
    let [a, b] = &house.servers[0][..] else { panic!("two servers") };
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
        assert_eq!(ureq::post(format!("{}/write?db={DB}", wrong.url())).send(lines).unwrap().status(), 204);
    }
    let (safe, more) = (safe.unwrap(), more.unwrap());
    let job = house.wait(house.begin("/clear?circle_id=0", ""));
    assert_eq!(job["state"], "failed", "{job:#}");
    assert!(job["errors"][0].as_str().unwrap().contains(&more.0), "{job:#}");
    assert!(points(safe.1, &safe.0).is_empty());
    assert!(points(more.1, &more.0).contains(&(42, 7)));
    house.check(false);
}
