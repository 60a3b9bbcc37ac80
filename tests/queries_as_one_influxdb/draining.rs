//! Promise: while a backend lacks points that were written when it was down, another backend that has them is asked.

use fluxgate::lab::proxy::{backend_name, eventually};

use crate::corpus::{self, Kind};
use crate::data;
use crate::world::{CIRCLES, DRAIN, OracleAndCluster};

/// Written while one backend is away, for each measurement.
const POINTS: i64 = 400;

#[test]
fn a_backend_that_lags_behind_is_not_asked() {
    let mut world = OracleAndCluster::start(false);
    let queries: Vec<_> = data::NAMES
        .iter()
        .map(|name| format!("SELECT count(*) FROM {name}"))
        .chain([
            "SELECT * FROM cpu, mem ORDER BY time DESC LIMIT 5".into(),
            "SELECT count(*) FROM /.*/ GROUP BY host".into(),
            "SELECT last(v) FROM /.*/".into(),
            "SELECT sum(late) FROM /.*/".into(),
            "SHOW SERIES".into(),
            "SHOW TAG VALUES WITH KEY = host".into(),
            "SHOW FIELD KEYS".into(),
        ])
        .map(|text| corpus::made("behind", "a", &text, Kind::Rows))
        .collect();
    for (round, (circle, backend)) in [(0, 0), (1, 2)].into_iter().enumerate() {
        let name = backend_name(circle, backend);
        world.circles[circle][backend].kill();
        world.pair.give(&[], &[data::written_late(round as i64, POINTS)]);
        // All other backends have delivered everything.
        let others = || {
            let ledger = world.proxy.ledger().unwrap();
            let names = (0..CIRCLES.len()).flat_map(|c| (0..CIRCLES[c]).map(move |b| backend_name(c, b)));
            names.filter(|other| *other != name).all(|other| ledger.backend(&other).queued == 0)
        };
        assert!(eventually(DRAIN, others), "{:?}", world.proxy.ledger());
        assert!(world.proxy.ledger().unwrap().backend(&name).queued > 0, "{name} has something to catch up with");
        world.pair.agree(&format!("{name} is away"), &queries);
        world.circles[circle][backend].restart().unwrap();
        let mut rounds = 0;
        while rounds == 0 || world.proxy.ledger().unwrap().backend(&name).queued > 0 {
            world.pair.agree(&format!("{name} catches up"), &queries);
            rounds += 1;
        }
        world.drain();
        world.wait_until_all_are_seen();
        // Now only this backend has its share, and answers for it.
        for other in &mut world.circles[1 - circle] {
            other.kill();
        }
        world.pair.agree(&format!("{name} has caught up"), &queries);
        for other in &mut world.circles[1 - circle] {
            other.restart().unwrap();
        }
        world.wait_until_all_are_seen();
    }
}
