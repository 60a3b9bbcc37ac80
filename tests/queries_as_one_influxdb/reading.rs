//! Promise: whatever is asked is answered as one InfluxDB would answer it, by whichever backends the data lies on.

use std::collections::BTreeSet;

use crate::corpus;
use crate::data;
use crate::world::{CIRCLES, OracleAndCluster};

/// At least so many are asked. Fewer means that queries were lost.
const QUERIES_MIN: usize = 700;

#[test]
fn every_query_is_answered_as_one_influxdb_would() {
    let mut world = OracleAndCluster::start(true);
    // Otherwise no answer would have to be merged.
    let owners: BTreeSet<_> = data::NAMES.iter().flat_map(|name| world.owners("a", &data::plain(name))).collect();
    assert_eq!(owners.len(), CIRCLES.iter().sum::<usize>(), "some backend has no measurement: {owners:?}");
    for pair in [["left", "right"], ["rows", "right"]] {
        let [one, other] = pair.map(|name| world.owners("big", name));
        assert!(one[0] != other[0] && one[1] != other[1], "{pair:?} lie together: {one:?} {other:?}");
    }
    assert!(world.pair.agree("all up", &corpus::read("queries.txt")) >= QUERIES_MIN);
}
