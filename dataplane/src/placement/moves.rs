//! A circle in transition: its backends or its hash settings have changed, and its data is being moved to the new
//! owners.
//!
//! ```text
//!                    writes go to          reads go to
//!   being moved      owner + former owner  former owner
//!   marked as moved  owner + former owner  owner
//!   settled          owner + former owner  owner (whatever was not marked was only written since, to both)
//!   ended            owner                 owner
//! ```
//!
//! Why a read never misses data: the former owner has all older points and, by the double writes, all new ones. The
//! owner has all new points, and all older ones once they have been copied. Writes are doubled until the end, so that a
//! backend that is read from has got every write, whichever of two versions of a [`Placement`] the writing thread uses.
//!
//! After influx-proxy the former ring may be the same one, with measurements looked up as it did on writes
//! ([`Former::as_written`]): then only names with a backslash are being moved. Those that its migrations had moved
//! already are looked up as everywhere else, so that they are found by any later ring, too.
//!
//! A former backend that is no longer in the configuration cannot be read. What it held is read from the owner at once,
//! and other circles are asked before this one ([`Placement::lacks`]).

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::sync::Arc;

use super::written::as_written;
use super::{Lookup, Place, Placement, PlacementSettings, Ring};
use crate::topology::{BackendId, Topology};

/// A ring before the change.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Former {
    pub settings: PlacementSettings,
    /// In the order of their ring; at least one.
    pub members: Vec<FormerMember>,
    /// Measurements lie where influx-proxy has written them, which is another place for names with a backslash; but
    /// these, by database, lie where its migrations move them.
    pub as_written: Option<BTreeMap<String, BTreeSet<String>>>,
}

/// A backend of a former ring.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FormerMember {
    pub name: String,
    pub url: String,
    /// It has been missing in the configuration since then, so it has not got all writes and is not read any more.
    pub gone: bool,
}

/// Measurements, by database.
type Places = HashMap<Box<[u8]>, HashSet<Box<[u8]>>>;

fn has(places: &Places, place: Place<&[u8]>) -> bool {
    places.get(place.db).is_some_and(|names| names.contains(place.measurement))
}

/// The former ring of a circle in transition, and what has been moved.
#[derive(Clone, Debug)]
pub(super) struct Move {
    former: Arc<FormerRing>,
    /// The measurements that have been copied to the owner in full.
    moved: Arc<Places>,
    settled: bool,
}

#[derive(Debug)]
struct FormerRing {
    lookup: Lookup,
    /// Positions in `members` serve as its ids.
    ring: Ring,
    members: Vec<Option<BackendId>>,
    /// Measurements are looked up as influx-proxy does on writes, but for these.
    as_written: Option<Places>,
    /// Only names with a backslash may have another owner now.
    backslashes_only: bool,
}

impl FormerRing {
    fn owner(&self, place: Place<&[u8]>) -> Option<BackendId> {
        let measurement = match &self.as_written {
            Some(in_place) if !has(in_place, place) => as_written(place.measurement),
            _ => place.measurement.into(),
        };
        self.members[self.ring.owner(self.lookup.hash(Place::new(place.db, &measurement))).index()]
    }
}

impl Placement {
    /// This placement with a former ring of `circle`. No effect when both rings place alike.
    ///
    /// # Panics
    /// When there is no such circle, or `former` has no member or no point.
    #[must_use]
    pub fn with_former(mut self, topology: &Topology, circle: usize, former: &Former) -> Self {
        let present = |member: &FormerMember| {
            let backend = topology.by_name(&member.name).filter(|b| b.circle == circle && !member.gone)?;
            Some(backend.id)
        };
        let PlacementSettings { hash_key, vnode_size, hash, .. } = &former.settings;
        let ring_members = former.members.iter().enumerate().map(|(index, member)| {
            let id = u16::try_from(index).expect("a circle has no more members than there are ids");
            (BackendId(id), hash_key.member(index, &member.name, &member.url))
        });
        let ring = Ring::new(ring_members, *vnode_size, *hash);
        let members: Vec<_> = former.members.iter().map(present).collect();
        let lookup = Lookup::new(&former.settings);
        let places_alike = {
            let former = ring.points().map(|(point, id)| (point, members[id.index()]));
            former.eq(self.circles[circle].points().map(|(point, id)| (point, Some(id))))
        };
        let places_alike = places_alike && lookup == self.lookup;
        if places_alike && former.as_written.is_none() {
            return self;
        }
        for &member in members.iter().flatten() {
            if !self.members[circle].contains(&member) {
                self.members[circle].push(member);
            }
        }
        let in_bytes = |name: &String| Box::from(name.as_bytes());
        let of_db = |(db, names): (&String, &BTreeSet<String>)| (in_bytes(db), names.iter().map(in_bytes).collect());
        let as_written = former.as_written.as_ref().map(|in_place| in_place.iter().map(of_db).collect());
        let former = Arc::new(FormerRing { lookup, ring, members, as_written, backslashes_only: places_alike });
        self.moves[circle] = Some(Move { former, moved: Arc::default(), settled: false });
        self
    }

    /// Whether `circle` is in transition.
    pub fn in_transition(&self, circle: usize) -> bool {
        self.moves[circle].is_some()
    }

    /// Whether a former backend of `circle` is gone, so that the circle may lack the data it held.
    ///
    /// # Panics
    /// When there is no such circle.
    pub fn lacks(&self, circle: usize) -> bool {
        let gone = |moving: &Move| !moving.settled && moving.former.members.contains(&None);
        self.moves[circle].as_ref().is_some_and(gone)
    }

    /// The former owner of a place that is being moved, until the transition has ended; it gets all writes. None: the
    /// owner has not changed, or the former owner is gone.
    ///
    /// # Panics
    /// When there is no such circle.
    pub fn former(&self, circle: usize, place: Place<&[u8]>) -> Option<BackendId> {
        let ring = &self.moves[circle].as_ref()?.former;
        if ring.backslashes_only && memchr::memchr(b'\\', place.measurement).is_none() {
            return None;
        }
        let former = ring.owner(place)?;
        (former != self.owner(circle, place)).then_some(former)
    }

    /// The backend of `circle` that has all points of a place: reads go there.
    ///
    /// # Panics
    /// When there is no such circle.
    pub fn reader(&self, circle: usize, place: Place<&[u8]>) -> BackendId {
        let former = match &self.moves[circle] {
            Some(moving) if !moving.settled => self.former(circle, place).filter(|_| !self.has_moved(circle, place)),
            _ => None,
        };
        former.unwrap_or_else(|| self.owner(circle, place))
    }

    /// Whether a place has been marked as moved.
    pub fn has_moved(&self, circle: usize, place: Place<&[u8]>) -> bool {
        self.moves[circle].as_ref().is_some_and(|moving| has(&moving.moved, place))
    }

    /// The next version, with these places of `circle` marked as moved. Without a transition only the version changes.
    #[must_use]
    pub fn with_moved<'a>(&self, circle: usize, places: impl IntoIterator<Item = Place<&'a [u8]>>) -> Self {
        self.changed(circle, |moving| {
            let moved = Arc::make_mut(&mut moving.moved);
            for place in places {
                moved.entry(place.db.into()).or_default().insert(place.measurement.into());
            }
        })
    }

    /// The next version, in which all reads of `circle` go to the owners.
    #[must_use]
    pub fn with_settled(&self, circle: usize) -> Self {
        self.changed(circle, |moving| moving.settled = true)
    }

    /// The next version, in which the transition of `circle` is over. Use it only after every thread uses a settled
    /// version: otherwise a thread with an older version would read a new point from the former owner, which no longer
    /// gets writes.
    #[must_use]
    pub fn with_ended(&self, circle: usize) -> Self {
        let mut next = self.changed(circle, |_| {});
        next.moves[circle] = None;
        next.members[circle] = next.circles[circle].members().to_vec();
        next
    }

    /// This placement as version 0, before any thread uses it.
    #[must_use]
    pub fn at_start(self) -> Self {
        Self { version: 0, ..self }
    }

    fn changed(&self, circle: usize, change: impl FnOnce(&mut Move)) -> Self {
        let mut next = Self { version: self.version + 1, ..self.clone() };
        if let Some(moving) = &mut next.moves[circle] {
            change(moving);
        }
        next
    }
}
