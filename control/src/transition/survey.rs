//! Where the measurements with a backslash in their names lie at a start that may follow influx-proxy: the first one,
//! and each one before which influx-proxy has run again.
//!
//! influx-proxy writes such a measurement to another backend than its migrations move it to (`placement::written` in
//! the data plane). Where it lies as written, the circle begins in transition from there, so that nothing is missing.
//! At the first start so does a circle with a backend that has not answered: later it would be too late, since points
//! that are written meanwhile would lie at one place and older ones at the other.
//! Not here: how the backends are asked (`migration/survey.rs`).

use std::collections::BTreeSet;

use fluxgate_dataplane::placement::{Place, Placement};
use fluxgate_dataplane::topology::{BackendId, Circle};

use super::Places;

/// By backend: its measurements with a backslash. None: it has not answered.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Survey(pub Vec<Option<BTreeSet<Place>>>);

/// Where measurements are read that lie, or may lie, at both places.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Reads {
    /// Before the first start influx-proxy has written all points, and a migration has copied some.
    AsWritten,
    /// Later, the owner has got what fluxgate has brought to its place, and influx-proxy has written the last points.
    AtOwner,
}

impl Survey {
    /// Not for a start that asks nobody.
    pub(super) fn is_asked(&self) -> bool {
        !self.0.is_empty()
    }

    /// Whether measurements are to be read where influx-proxy writes them, and then the others, which lie where its
    /// migrations move them. `placement` has the ring of circle `number` as influx-proxy writes as its former one.
    pub(super) fn as_written(
        &self,
        circle: &Circle,
        number: usize,
        placement: &Placement,
        reads: Reads,
    ) -> Option<Places> {
        let lacks_some = circle.backends.iter().any(|id| self.0.get(id.index()).is_some_and(Option::is_none));
        let (mut in_place, mut at_both) = (Places::new(), 0);
        let mut as_written = lacks_some && reads == Reads::AsWritten;
        let all: BTreeSet<&Place> = self.0.iter().flatten().flatten().collect();
        for place in all {
            let Some(was) = placement.former(number, place.bytes()) else { continue };
            let has = |backend: BackendId| self.0[backend.index()].as_ref().is_none_or(|names| names.contains(place));
            let both = has(was) && has(placement.owner(number, place.bytes()));
            at_both += u32::from(both);
            if has(was) && !(both && reads == Reads::AtOwner) {
                as_written = true;
            } else {
                in_place.entry(place.db.clone()).or_default().insert(place.measurement.clone());
            }
        }
        if at_both > 0 {
            let lacking = match reads {
                Reads::AsWritten => "migrations of influx-proxy have moved",
                Reads::AtOwner => "influx-proxy has written since fluxgate ran",
            };
            log::warn!(
                "circle {number}: {at_both} measurements with a backslash lie at both places, or a backend does not \
                 answer: queries may lack what {lacking}, until a rebalance"
            );
        }
        as_written.then_some(in_place)
    }
}
