//! Where the measurements with a backslash in their names lie at the first start, which may follow influx-proxy.
//!
//! influx-proxy writes such a measurement to another backend than its migrations move it to (`placement::written` in
//! the data plane). Where it lies as written, the circle begins in transition from there, so that nothing is missing.
//! Not here: how the backends are asked (`migration/survey.rs`).

use std::collections::BTreeSet;

use fluxgate_dataplane::placement::{Place, Placement};
use fluxgate_dataplane::topology::BackendId;

use super::Places;

/// By backend: its measurements with a backslash. None: it has not answered.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Survey(pub Vec<Option<BTreeSet<Place>>>);

impl Survey {
    /// The measurements that lie only at their owners, if there are others that lie, or may lie, only or also where
    /// influx-proxy writes them. `placement` has the ring of the circle as influx-proxy writes as its former one.
    pub(super) fn in_place(&self, circle: usize, placement: &Placement) -> Option<Places> {
        let (mut in_place, mut as_written, mut at_both) = (Places::new(), false, 0);
        let all: BTreeSet<&Place> = self.0.iter().flatten().flatten().collect();
        for place in all {
            let Some(was) = placement.former(circle, place.bytes()) else { continue };
            let has = |backend: BackendId| self.0[backend.index()].as_ref().is_none_or(|names| names.contains(place));
            if has(was) {
                as_written = true;
                at_both += u32::from(has(placement.owner(circle, place.bytes())));
            } else {
                in_place.entry(place.db.clone()).or_default().insert(place.measurement.clone());
            }
        }
        if at_both > 0 {
            log::warn!(
                "circle {circle}: {at_both} measurements lie at both places, or a backend does not answer: queries may \
                 lack what migrations of influx-proxy have moved, until a rebalance"
            );
        }
        as_written.then_some(in_place)
    }
}
