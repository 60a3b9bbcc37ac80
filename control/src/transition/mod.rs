//! The circles in transition. Their backends or hash settings differ from the last start, and data on former owners is
//! still to be moved.
//!
//! ```text
//!   circles.json (last start)  ─┐
//!   configuration (this start) ─┴─> former rings + marks ─> Placement ─> workers, queries
//! ```
//!
//! [`Transitions`] is the only writer of that file and of [`Placement`]s. Each change is on disk before any thread uses
//! it, so that a restart never goes back to an older state. Not here: what a placement with a former ring means for
//! reads and writes (`placement::moves` in the data plane), the format of the file (`transition/file.rs`), copying and
//! verifying (`migration`).
//!
//! A second change during a transition keeps the first former ring: its owners have received every write since, so they
//! still have all data. The marks are dropped. A former backend that is missing in the configuration once is not read
//! again.

mod file;
mod survey;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::atomic::Ordering::Acquire;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::thread;
use std::time::{Duration, Instant};

use crossbeam::channel::Sender;
use fluxgate_dataplane::placement::{Former, FormerMember, Place, Placement, PlacementSettings};
use fluxgate_dataplane::stats::Stats;
use fluxgate_dataplane::topology::{Circle, Topology};

use crate::limits;

use survey::Reads;
pub use survey::Survey;

/// Measurements by database.
type Places = BTreeMap<String, BTreeSet<String>>;

/// One circle as saved in the file.
#[derive(Clone, Debug, PartialEq, Eq)]
struct SavedCircle {
    name: String,
    now: Former,
    /// The former ring, during a transition.
    former: Option<Former>,
    /// Places verified to be complete at their owners.
    moved: Places,
}

/// A circle whose ring has changed, for the operator.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RingChange {
    pub circle: String,
    /// Names of its former backends; empty for a new circle.
    pub before: Vec<String>,
    pub now: Vec<String>,
    /// Former backends that can no longer be read.
    pub gone: Vec<String>,
    /// The ring changed again before the first transition had ended.
    pub again: bool,
    /// Only names with a backslash are moved, from where influx-proxy wrote them, or may have written some.
    pub backslashes: bool,
}

impl fmt::Display for RingChange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { circle, before, now, gone, again, backslashes } = self;
        if before.is_empty() {
            return write!(
                f,
                "{circle} is new and has no older data; it takes all writes; run a recovery into it, \
                 and keep its backends `write_only` until then"
            );
        }
        if *backslashes {
            return write!(
                f,
                "{circle} reads measurements with a backslash in their names where influx-proxy wrote them, which is \
                 not where its migrations and fluxgate look; writes of such names go to both places until they have \
                 been moved: run a rebalance"
            );
        }
        write!(
            f,
            "{circle} is in transition: its backends were {}, and are {} (or the hash settings have changed); writes \
             go to old and new places, reads to the old one until its data has been moved: run a rebalance",
            before.join(", "),
            now.join(", ")
        )?;
        if *again {
            f.write_str("; it changed again before the first transition had ended, so moved data must be moved again")?;
        }
        if !gone.is_empty() {
            write!(
                f,
                "; {} can no longer be read, and data that only it had is missing: to remove a backend without a gap, \
                 mark it `leaving` until the rebalance has ended",
                gone.join(", ")
            )?;
        }
        Ok(())
    }
}

/// The transitions of all circles: a handle that threads share.
#[derive(Clone, Debug)]
pub struct Transitions(Arc<TransitionsShared>);

#[derive(Debug)]
struct TransitionsShared {
    file: PathBuf,
    changes: Vec<RingChange>,
    state: Mutex<TransitionState>,
}

#[derive(Debug)]
struct TransitionState {
    /// By circle of the topology.
    circles: Vec<SavedCircle>,
    placement: Arc<Placement>,
    /// Former placements that queries may still go by.
    past: Vec<Weak<Placement>>,
    /// By circle: the end of its transition, if it ended since the start.
    ended: Vec<Option<TransitionEnd>>,
    /// None before the control thread runs.
    told: Option<PlacementSubscriber>,
}

#[derive(Debug, Clone)]
struct TransitionEnd {
    at: Instant,
    /// From this version of the placement on, nothing is read from former owners.
    version: u64,
    /// Other proxies took part; their queries are not known here.
    has_others: bool,
}

/// The receivers of a new placement.
#[derive(Debug)]
struct PlacementSubscriber {
    placements: Sender<Arc<Placement>>,
    stats: Arc<Stats>,
}

impl Transitions {
    /// Compares the configuration with `file`, which may be missing, and saves the present rings.
    ///
    /// # Errors
    /// One sentence: the file cannot be read or written, or is invalid.
    pub fn open(file: &Path, topology: &Topology, settings: &PlacementSettings) -> Result<Self, String> {
        Self::open_after(file, topology, settings, false, Survey::default)
    }

    /// As [`Transitions::open`]. `survey` is asked for at the very first start, when `file` is missing, and when
    /// influx-proxy has run since the last one.
    ///
    /// # Errors
    /// As for [`Transitions::open`].
    pub fn open_after(
        file: &Path,
        topology: &Topology,
        settings: &PlacementSettings,
        influx_proxy_ran: bool,
        survey: impl FnOnce() -> Survey,
    ) -> Result<Self, String> {
        let saved = file::load(file)?;
        let survey = if saved.is_none() || influx_proxy_ran { survey() } else { Survey::default() };
        let (circles, placement, changes) = compare(saved.as_deref(), topology, settings, &survey);
        // An unchanged start writes nothing: with a full disk it must still deliver what is on it.
        if saved.as_ref() != Some(&circles) {
            file::save(file, &circles)?;
        }
        let ended = vec![None; circles.len()];
        let state = TransitionState { circles, placement: Arc::new(placement), past: Vec::new(), ended, told: None };
        Ok(Self(Arc::new(TransitionsShared { file: file.to_owned(), changes, state: Mutex::new(state) })))
    }

    /// What [`Transitions::open`] would find; saves nothing.
    ///
    /// # Errors
    /// As for [`Transitions::open`].
    pub fn preview(file: &Path, topology: &Topology, settings: &PlacementSettings) -> Result<Vec<RingChange>, String> {
        Ok(compare(file::load(file)?.as_deref(), topology, settings, &Survey::default()).2)
    }

    /// The path of the file.
    pub fn file_in(data_dir: &Path) -> PathBuf {
        data_dir.join("circles.json")
    }

    /// The circles that were in transition, or new, at the start.
    pub fn changes(&self) -> &[RingChange] {
        &self.0.changes
    }

    /// The newest placement.
    pub fn placement(&self) -> Arc<Placement> {
        Arc::clone(&self.state().placement)
    }

    /// The former ring of a circle in transition.
    pub fn of(&self, circle: usize) -> Option<Former> {
        self.state().circles[circle].former.clone()
    }

    /// The backends of former rings, among them those that have left.
    pub fn former_backends(&self) -> Vec<FormerMember> {
        let state = self.state();
        let rings = state.circles.iter().filter_map(|circle| circle.former.as_ref());
        rings.flat_map(|ring| ring.members.iter().cloned()).collect()
    }

    /// Whether a measurement has a former owner that also gets its writes, whether marked as moved or not.
    pub fn is_moving(&self, circle: usize, place: Place<&str>) -> bool {
        self.placement().former(circle, place.bytes()).is_some()
    }

    /// Marks places as complete at their owners: reads go there from now on; writes still go to both.
    ///
    /// The caller must have verified them after two events: the former owner had received all points accepted before
    /// the process started (double writes begin with the process), and the owner had received all points accepted
    /// before the copy ended. Each call writes all marks of the circle: pass many places at once.
    ///
    /// # Errors
    /// One sentence; nothing has changed.
    pub fn mark_moved(&self, circle: usize, places: &[Place]) -> Result<(), String> {
        let mut state = self.state();
        let mut circles = state.circles.clone();
        let kept = &mut circles[circle];
        if kept.former.is_none() {
            return Err(format!("{} is not in transition", kept.name));
        }
        for Place { db, measurement } in places {
            kept.moved.entry(db.clone()).or_default().insert(measurement.clone());
        }
        if kept.moved.values().map(BTreeSet::len).sum::<usize>() > limits::MOVED_MARKS_MAX {
            let max = limits::MOVED_MARKS_MAX;
            return Err(format!(
                "{} has more than {max} moving measurements: their reads switch over at the end",
                kept.name
            ));
        }
        file::save(&self.0.file, &circles)?;
        state.circles = circles;
        let next = state.placement.with_moved(circle, places.iter().map(Place::bytes));
        let told = state.publish(next);
        drop(state);
        tell(told);
        Ok(())
    }

    /// Ends a transition: places without a mark are read from their owners too, and former owners get no more writes.
    /// Waits until no worker reads from or writes to former owners, so it must not be called on the control thread. A
    /// running query may still read there: remove nothing before [`Transitions::former_read_until`].
    ///
    /// `has_others`: other proxies take part in the transition.
    ///
    /// # Errors
    /// One sentence: the file cannot be written, or a worker does not answer. Writes then still go to both.
    pub fn end(&self, circle: usize, has_others: bool) -> Result<(), String> {
        let mut state = self.state();
        if state.circles[circle].former.is_none() {
            return Ok(());
        }
        let next = state.placement.with_settled(circle);
        let settled = next.version();
        let stats = state.told.as_ref().map(|told| Arc::clone(&told.stats));
        let told = state.publish(next);
        drop(state);
        tell(told);
        if let Some(stats) = &stats {
            wait_for_workers(stats, settled)?;
        }
        let mut state = self.state();
        let mut circles = state.circles.clone();
        circles[circle].former = None;
        circles[circle].moved.clear();
        file::save(&self.0.file, &circles)?;
        state.circles = circles;
        state.ended[circle] = Some(TransitionEnd { at: Instant::now(), version: settled, has_others });
        let next = state.placement.with_ended(circle);
        let version = next.version();
        let told = state.publish(next);
        drop(state);
        tell(told);
        // The caller may remove data after this; former owners must get no more writes then.
        if let Some(Err(why)) = stats.map(|stats| wait_for_workers(&stats, version)) {
            log::warn!("{why}; until then it writes to former owners");
        }
        Ok(())
    }

    /// Until when queries may still read former owners of the circle, since they began before its transition ended.
    /// None: there are none. Each query keeps the placement with which it began until it ends; those of other proxies
    /// end within `query_timeout`.
    pub fn former_read_until(&self, circle: usize, query_timeout: Duration) -> Option<Instant> {
        let state = self.state();
        let end = state.ended[circle].as_ref()?;
        let is_before = |placement: Arc<Placement>| placement.version() < end.version;
        let is_read = end.has_others || state.past.iter().filter_map(Weak::upgrade).any(is_before);
        is_read.then(|| end.at + query_timeout)
    }

    /// Connects the control thread, which receives new placements from now on and passes them to the workers.
    pub(crate) fn attach(&self, placements: Sender<Arc<Placement>>, stats: Arc<Stats>) {
        self.state().told = Some(PlacementSubscriber { placements, stats });
    }

    /// Locks the state. Each change is complete under the lock, so a panic of another thread leaves nothing half done.
    fn state(&self) -> MutexGuard<'_, TransitionState> {
        self.0.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl TransitionState {
    /// Returns what to send after the lock is released: the control thread may need the lock.
    fn publish(&mut self, placement: Placement) -> Option<(Sender<Arc<Placement>>, Arc<Placement>)> {
        let before = std::mem::replace(&mut self.placement, Arc::new(placement));
        self.past.retain(|placement| placement.strong_count() > 0);
        self.past.push(Arc::downgrade(&before));
        self.told.as_ref().map(|told| (told.placements.clone(), Arc::clone(&self.placement)))
    }
}

/// Two threads may send in either order; receivers keep the newer version.
fn tell(told: Option<(Sender<Arc<Placement>>, Arc<Placement>)>) {
    if let Some((placements, placement)) = told {
        // Closed = the process stops; the file has the change.
        let _ = placements.send(placement);
    }
}

fn wait_for_workers(stats: &Stats, version: u64) -> Result<(), String> {
    let deadline = Instant::now() + limits::PLACEMENT_TAKEN_TIMEOUT;
    for (id, worker) in stats.workers.iter().enumerate() {
        while worker.placement_version.load(Acquire) < version {
            if Instant::now() >= deadline {
                return Err(format!("worker {id} has not taken the new placement"));
            }
            thread::sleep(limits::PLACEMENT_TAKEN_PAUSE);
        }
    }
    Ok(())
}

type Compared = (Vec<SavedCircle>, Placement, Vec<RingChange>);

/// The circles to save, the placement that follows, and the changes for the operator.
fn compare(
    saved: Option<&[SavedCircle]>,
    topology: &Topology,
    settings: &PlacementSettings,
    survey: &Survey,
) -> Compared {
    let mut placement = Placement::new(topology, settings);
    let (mut kept, mut changes) = (Vec::new(), Vec::new());
    for (index, circle) in topology.circles.iter().enumerate() {
        let now = ring(topology, settings, circle, false);
        let before = match saved {
            Some(saved) => find(saved, topology, circle).map(|kept| match &kept.former {
                None if kept.now == now && survey.is_asked() => {
                    as_surveyed(topology, index, now.clone(), &placement, survey, Reads::AtOwner)
                }
                _ => kept.clone(),
            }),
            // Leaving backends were part of the ring.
            None => {
                let ring = ring(topology, settings, circle, true);
                Some(as_surveyed(topology, index, ring, &placement, survey, Reads::AsWritten))
            }
        };
        let Some(before) = before else {
            changes.push(RingChange {
                circle: circle.name.clone(),
                before: Vec::new(),
                now: names(&now),
                gone: Vec::new(),
                again: false,
                backslashes: false,
            });
            kept.push(SavedCircle { name: circle.name.clone(), now, former: None, moved: Places::new() });
            continue;
        };
        let again = before.former.is_some() && before.now != now;
        let moved = if again { Places::new() } else { before.moved };
        let mut former = before.former.unwrap_or(before.now);
        for member in &mut former.members {
            member.gone |= topology.by_name(&member.name).is_none_or(|backend| backend.circle != index);
        }
        placement = placement.with_former(topology, index, &former);
        let former = placement.in_transition(index).then_some(former);
        if let Some(former) = &former {
            let marks = moved
                .iter()
                .flat_map(|(db, names)| names.iter().map(move |name| Place::new(db.as_bytes(), name.as_bytes())));
            placement = placement.with_moved(index, marks);
            changes.push(RingChange {
                circle: circle.name.clone(),
                before: names(former),
                now: names(&now),
                gone: former.members.iter().filter(|m| m.gone).map(|m| m.name.clone()).collect(),
                again,
                backslashes: *former == (Former { as_written: former.as_written.clone(), ..now.clone() }),
            });
        }
        let moved = if former.is_some() { moved } else { Places::new() };
        kept.push(SavedCircle { name: circle.name.clone(), now, former, moved });
    }
    (kept, placement.at_start(), changes)
}

/// A circle as influx-proxy has left it: measurements may lie where it has written them.
fn as_surveyed(
    topology: &Topology,
    circle: usize,
    ring: Former,
    placement: &Placement,
    survey: &Survey,
    reads: Reads,
) -> SavedCircle {
    let written = Former { as_written: Some(Places::new()), ..ring.clone() };
    let placement = placement.clone().with_former(topology, circle, &written);
    let as_written = survey.as_written(&topology.circles[circle], circle, &placement, reads);
    let name = topology.circles[circle].name.clone();
    SavedCircle { name, now: Former { as_written, ..ring }, former: None, moved: Places::new() }
}

/// The ring of a circle, of all its backends or without the leaving ones.
fn ring(topology: &Topology, settings: &PlacementSettings, circle: &Circle, all: bool) -> Former {
    let backends = circle.backends.iter().map(|&id| topology.backend(id)).filter(|backend| all || !backend.leaving);
    let member = |name: &str, url: &str| FormerMember { name: name.to_owned(), url: url.to_owned(), gone: false };
    let members = backends.map(|b| member(&b.name, &b.url)).collect();
    Former { settings: settings.clone(), members, as_written: None }
}

/// The saved circle of that name, otherwise (it was renamed) one that shares a backend with it. Names may appear twice,
/// as in influx-proxy; then the backends identify the circle.
fn find<'a>(saved: &'a [SavedCircle], topology: &Topology, circle: &Circle) -> Option<&'a SavedCircle> {
    let configured = |name: &str| topology.circles.iter().filter(|circle| circle.name == name).count();
    let shares = |kept: &&SavedCircle| {
        kept.now.members.iter().any(|m| circle.backends.iter().any(|&id| topology.backend(id).name == m.name))
    };
    let mut named = saved.iter().filter(|kept| kept.name == circle.name);
    let by_name = named.clone().find(shares).or_else(|| named.next().filter(|_| configured(&circle.name) == 1));
    by_name.or_else(|| saved.iter().filter(|kept| configured(&kept.name) == 0).find(shares))
}

fn names(former: &Former) -> Vec<String> {
    former.members.iter().map(|member| member.name.clone()).collect()
}

#[cfg(test)]
mod transition_test;
