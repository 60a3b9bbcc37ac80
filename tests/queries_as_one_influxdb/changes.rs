//! Promise: what a statement changes is changed on all backends, as it would be on one InfluxDB.

use crate::corpus;
use crate::pair::Findings;
use crate::world::{CIRCLES, OracleAndCluster};

const STATEMENTS_MIN: usize = 130;
/// Points of the one SELECT INTO whose field has another type already.
const POINTS_IN_CONFLICT: u64 = 16;

#[test]
fn what_a_statement_changes_is_changed_as_on_one_influxdb() {
    let mut world = OracleAndCluster::start(false);
    let mut findings = Findings::new("changes");
    for query in &corpus::read("changes.txt") {
        // What INTO has written can be read once it is answered: nothing waits here.
        findings.note(query, world.pair.compare(query));
    }
    assert!(findings.end() >= STATEMENTS_MIN);
    world.refused = POINTS_IN_CONFLICT * CIRCLES.len() as u64;
    world.drain();
}
