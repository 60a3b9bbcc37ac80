//! What became of every accepted point: accepted = delivered + queued + rejected + dropped, by database, backend and
//! reason.
//!
//! A point is counted once for each backend of its route. `queued` is calculated from the other counts, so the equation
//! always holds. When a backend has drained its log, `queued` must be zero; what is left then was lost
//! ([`Ledger::settle`]). The text form is saved together with the log's cursors, so that both describe the same moment
//! after a restart.
//!
//! A backend that leaves the configuration keeps its accounts under its name, as retired. What waited for it is routed
//! again and counts for the backends that get it ([`Ledger::hand_over`]).

use std::borrow::Cow;
use std::collections::HashMap;
use std::fmt::Write as _;
use std::sync::Arc;

use crate::handoff::{LedgerBackend, LedgerRow};
use crate::limits::{LEDGER_DATABASES_MAX, LEDGER_REASONS_MAX, RETIRED_BACKENDS_MAX};
use crate::topology::{BackendId, Topology};

/// The name under which databases beyond [`LEDGER_DATABASES_MAX`] and reasons beyond [`LEDGER_REASONS_MAX`] are
/// counted.
const OTHER: &str = "(other)";
/// The name under which retired backends beyond [`RETIRED_BACKENDS_MAX`] are counted. A backend's name has no slash.
const OTHERS: &str = "/other";
/// Reason for points lost in a damaged part of the log.
pub const DAMAGED: &str = "damaged log";
/// Reason for points dropped under `backlog_full = drop_oldest`.
pub const BACKLOG_FULL: &str = "backlog full";
/// Reason for points that waited for a circle that is not configured any more.
pub const NO_CIRCLE: &str = "circle removed";

/// One worker's ledger.
#[derive(Debug)]
pub struct Ledger {
    topology: Arc<Topology>,
    /// Names of retired backends that have accounts.
    retired: Vec<Box<str>>,
    ids: HashMap<Box<str>, usize>,
    databases: Vec<NamedAccounts>,
    /// By holder: points queued over all databases.
    queued: Vec<u64>,
}

/// Who has an account: the index of a configured backend, or behind these of a retired one.
type Holder = usize;

#[derive(Debug)]
struct NamedAccounts {
    name: Box<str>,
    /// By holder, in their order.
    accounts: Vec<(Holder, Counts)>,
}

#[derive(Clone, Debug, Default)]
struct Counts {
    accepted: u64,
    delivered: u64,
    rejected: Vec<(Box<str>, u64)>,
    dropped: Vec<(Box<str>, u64)>,
}

impl NamedAccounts {
    fn counts(&mut self, holder: Holder) -> &mut Counts {
        let at = match self.accounts.binary_search_by_key(&holder, |(of, _)| *of) {
            Ok(at) => at,
            Err(at) => {
                self.accounts.insert(at, (holder, Counts::default()));
                at
            }
        };
        &mut self.accounts[at].1
    }
}

impl Counts {
    fn queued(&self) -> u64 {
        self.accepted.saturating_sub(self.delivered + sum(&self.rejected) + sum(&self.dropped))
    }

    fn add(&mut self, other: &Self) {
        self.accepted += other.accepted;
        self.delivered += other.delivered;
        other.rejected.iter().for_each(|(reason, n)| add(&mut self.rejected, reason, *n));
        other.dropped.iter().for_each(|(reason, n)| add(&mut self.dropped, reason, *n));
    }
}

fn sum(reasons: &[(Box<str>, u64)]) -> u64 {
    reasons.iter().map(|(_, n)| n).sum()
}

fn add(reasons: &mut Vec<(Box<str>, u64)>, reason: &str, points: u64) {
    let known = reasons.iter().position(|(r, _)| &**r == reason);
    let full = reasons.len() >= LEDGER_REASONS_MAX;
    match known.or_else(|| if full { reasons.iter().position(|(r, _)| &**r == OTHER) } else { None }) {
        Some(at) => reasons[at].1 += points,
        None => reasons.push((if full { OTHER } else { reason }.into(), points)),
    }
}

impl Ledger {
    pub fn new(topology: Arc<Topology>) -> Self {
        let queued = vec![0; topology.backends.len()];
        Self { topology, retired: Vec::new(), ids: HashMap::default(), databases: Vec::new(), queued }
    }

    /// The index of a database. Opens its accounts on first use.
    fn database(&mut self, name: &[u8]) -> usize {
        let name = String::from_utf8_lossy(name);
        if let Some(&id) = self.ids.get(&*name) {
            return id;
        }
        let name = if self.databases.len() >= LEDGER_DATABASES_MAX { OTHER } else { &*name };
        if let Some(&id) = self.ids.get(name) {
            return id;
        }
        let id = self.databases.len();
        self.ids.insert(name.into(), id);
        self.databases.push(NamedAccounts { name: name.into(), accounts: Vec::new() });
        id
    }

    fn change(&mut self, db: usize, holder: Holder, change: impl FnOnce(&mut Counts)) {
        let counts = self.databases[db].counts(holder);
        let before = counts.queued();
        change(counts);
        self.queued[holder] += counts.queued();
        self.queued[holder] -= before;
    }

    /// Counts points appended to the log for these backends.
    pub fn accepted(&mut self, db: &[u8], backends: impl IntoIterator<Item = BackendId>, points: u64) {
        let db = self.database(db);
        for backend in backends {
            self.change(db, backend.index(), |counts| counts.accepted += points);
        }
    }

    /// Counts points that the backend has confirmed.
    pub fn delivered(&mut self, db: &[u8], backend: BackendId, points: u64) {
        let db = self.database(db);
        self.change(db, backend.index(), |counts| counts.delivered += points);
    }

    /// Counts points that the backend has refused and that are now dead letters.
    pub fn rejected(&mut self, db: &[u8], backend: BackendId, reason: &str, points: u64) {
        let db = self.database(db);
        self.change(db, backend.index(), |counts| add(&mut counts.rejected, reason, points));
    }

    /// Counts points that are gone: `drop_oldest`, or a damaged log.
    pub fn dropped(&mut self, db: &[u8], backend: BackendId, reason: &str, points: u64) {
        let db = self.database(db);
        self.change(db, backend.index(), |counts| add(&mut counts.dropped, reason, points));
    }

    /// Counts points of a retired backend that nobody else gets, since its circle is not configured any more. Those
    /// that had been counted before are handed over.
    pub fn lost_with_circle(&mut self, db: &[u8], name: &str, points: u64) {
        let (db, holder) = (self.database(db), self.retire(name));
        self.change(db, holder, |counts| {
            counts.accepted += points;
            add(&mut counts.dropped, NO_CIRCLE, points);
        });
    }

    /// Closes the accounts of a backend that has been served to the end of the log, where nothing can be queued. Points
    /// still counted as queued were lost and become `dropped`, for `reason`. Returns their number.
    pub fn settle(&mut self, backend: BackendId, reason: &str) -> u64 {
        self.settle_holder(backend.index(), reason)
    }

    fn settle_holder(&mut self, holder: Holder, reason: &str) -> u64 {
        self.settle_with(holder, |counts, left| add(&mut counts.dropped, reason, left))
    }

    /// Has `settle` change all accounts of a holder with queued points, whose number it is given, so that none are
    /// left.
    fn settle_with(&mut self, holder: Holder, settle: impl Fn(&mut Counts, u64)) -> u64 {
        let queued = std::mem::take(&mut self.queued[holder]);
        if queued > 0 {
            let accounts = self.databases.iter_mut().flat_map(|database| &mut database.accounts);
            for (_, counts) in accounts.filter(|(of, counts)| *of == holder && counts.queued() > 0) {
                let left = counts.queued();
                settle(counts, left);
            }
        }
        queued
    }

    /// Closes the accounts of retired backends, but for those that still have records in the log: these are routed
    /// again first. What else is queued was lost, as in [`Ledger::settle`].
    pub fn settle_retired(&mut self, have_records: &[String], reason: &str) -> u64 {
        let mut lost = 0;
        for at in 0..self.retired.len() {
            if !have_records.iter().any(|name| **name == *self.retired[at]) {
                lost += self.settle_holder(self.topology.backends.len() + at, reason);
            }
        }
        if have_records.is_empty() {
            self.fold_retired();
        }
        lost
    }

    /// What was queued for retired backends has been routed again. It counts for the backends that have got it, and not
    /// for those that have left.
    pub fn hand_over(&mut self) {
        for holder in self.topology.backends.len()..self.queued.len() {
            self.settle_with(holder, |counts, left| counts.accepted -= left);
        }
        self.fold_retired();
    }

    /// The holder of a retired backend's accounts.
    fn retire(&mut self, name: &str) -> Holder {
        let at = self.retired.iter().position(|retired| **retired == *name).unwrap_or_else(|| {
            self.retired.push(name.into());
            self.queued.push(0);
            self.retired.len() - 1
        });
        self.topology.backends.len() + at
    }

    /// Counts retired backends beyond the bound as one, when all are settled. The first ones in the saved text keep
    /// their names: those that have left last.
    fn fold_retired(&mut self) {
        let named = self.retired.iter().filter(|name| ***name != *OTHERS);
        let kept: Vec<_> = named.take(RETIRED_BACKENDS_MAX + 1).cloned().collect();
        let Some((_, kept)) = kept.split_last().filter(|(_, kept)| kept.len() == RETIRED_BACKENDS_MAX) else { return };
        let backends = self.topology.backends.len();
        let names = std::mem::take(&mut self.retired);
        self.queued.truncate(backends);
        for db in 0..self.databases.len() {
            let accounts = &mut self.databases[db].accounts;
            let of_retired = accounts.split_off(accounts.partition_point(|(holder, _)| *holder < backends));
            for (holder, counts) in of_retired {
                let name = &names[holder - backends];
                let holder = self.retire(if kept.contains(name) { name } else { OTHERS });
                self.change(db, holder, |all| all.add(&counts));
            }
        }
    }

    pub fn queued(&self, backend: BackendId) -> u64 {
        self.queued[backend.index()]
    }

    /// The accounts with at least one accepted point: name of the database, holder, counts.
    fn accounts(&self) -> impl Iterator<Item = (&str, Holder, &Counts)> {
        let all =
            self.databases.iter().flat_map(|d| d.accounts.iter().map(|(holder, counts)| (&*d.name, *holder, counts)));
        all.filter(|(_, _, counts)| counts.accepted > 0)
    }

    /// All accounts with at least one accepted point.
    pub fn rows(&self) -> Vec<LedgerRow> {
        let own = |reasons: &[(Box<str>, u64)]| reasons.iter().map(|(r, n)| (r.to_string(), *n)).collect();
        let row = |(db, holder, counts): (&str, Holder, &Counts)| LedgerRow {
            db: db.to_owned(),
            backend: match self.topology.backends.get(holder) {
                Some(backend) => LedgerBackend::Configured(backend.id),
                None => LedgerBackend::Retired(self.name(holder).to_owned()),
            },
            accepted: counts.accepted,
            delivered: counts.delivered,
            queued: counts.queued(),
            rejected: own(&counts.rejected),
            dropped: own(&counts.dropped),
        };
        self.accounts().map(row).collect()
    }

    fn name(&self, holder: Holder) -> &str {
        match self.topology.backends.get(holder) {
            Some(backend) => &backend.name,
            None => &self.retired[holder - self.topology.backends.len()],
        }
    }

    /// The saved form: one line per account and kind, tab-separated, names and reasons escaped.
    pub fn to_text(&self) -> String {
        let mut text = String::new();
        for (db, holder, counts) in self.accounts() {
            let (db, backend) = (escape(db), escape(self.name(holder)));
            let mut line = |kind: &str, reason: &str, points: u64| {
                let _ = writeln!(text, "{kind}\t{db}\t{backend}\t{points}\t{}", escape(reason));
            };
            line("accepted", "", counts.accepted);
            line("delivered", "", counts.delivered);
            counts.rejected.iter().for_each(|(reason, n)| line("rejected", reason, *n));
            counts.dropped.iter().for_each(|(reason, n)| line("dropped", reason, *n));
        }
        text
    }

    /// The saved form without points that are not on disk yet.
    pub fn text_without(&mut self, unwritten: &[(Vec<u8>, Vec<BackendId>, u64)]) -> String {
        let each = |ledger: &mut Self, change: fn(&mut u64, u64)| {
            for (db, backends, points) in unwritten {
                let db = ledger.database(db);
                backends.iter().for_each(|b| ledger.change(db, b.index(), |c| change(&mut c.accepted, *points)));
            }
        };
        each(self, |accepted, points| *accepted = accepted.saturating_sub(points));
        let text = self.to_text();
        each(self, |accepted, points| *accepted += points);
        text
    }

    /// Reads what [`Ledger::to_text`] wrote. Backends that are not in the configuration any more are retired. Skips
    /// unreadable lines, and returns their number.
    pub fn from_text(topology: Arc<Topology>, text: &str) -> (Self, usize) {
        let mut ledger = Self::new(topology);
        let bad = text.lines().filter(|line| ledger.read_line(line).is_none()).count();
        (ledger, bad)
    }

    fn read_line(&mut self, line: &str) -> Option<()> {
        let mut fields = line.split('\t');
        let (kind, db, backend) = (fields.next()?, unescape(fields.next()?)?, unescape(fields.next()?)?);
        let points: u64 = fields.next()?.parse().ok()?;
        let reason = unescape(fields.next()?)?;
        if !["accepted", "delivered", "rejected", "dropped"].contains(&kind) {
            return None;
        }
        let configured = self.topology.by_name(&backend).map(|backend| backend.id.index());
        let holder = configured.unwrap_or_else(|| self.retire(&backend));
        let db = self.database(db.as_bytes());
        self.change(db, holder, |counts| match kind {
            "accepted" => counts.accepted += points,
            "delivered" => counts.delivered += points,
            "rejected" => add(&mut counts.rejected, &reason, points),
            _ => add(&mut counts.dropped, &reason, points),
        });
        Some(())
    }
}

fn escape(text: &str) -> Cow<'_, str> {
    if !text.contains(['%', '\t', '\n', '\r']) {
        return Cow::Borrowed(text);
    }
    Cow::Owned(text.replace('%', "%25").replace('\t', "%09").replace('\n', "%0A").replace('\r', "%0D"))
}

fn unescape(text: &str) -> Option<String> {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find('%') {
        out.push_str(&rest[..at]);
        out.push(char::from(u8::from_str_radix(rest.get(at + 1..at + 3)?, 16).ok()?));
        rest = &rest[at + 3..];
    }
    out.push_str(rest);
    Some(out)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::topology::Backend;

    const A: BackendId = BackendId(0);
    const B: BackendId = BackendId(1);

    fn topology(names: &[&str]) -> Arc<Topology> {
        let mut topology = Topology::default();
        topology.add_circle("c", names.iter().map(|name| Backend::new(*name, "")));
        Arc::new(topology)
    }

    /// The ledger that a start with these backends finds.
    fn again(ledger: &Ledger, names: &[&str]) -> Ledger {
        let (ledger, bad) = Ledger::from_text(topology(names), &ledger.to_text());
        assert_eq!(bad, 0);
        ledger
    }

    /// Database, backend, accepted and delivered of each row, which adds up.
    fn shown(ledger: &Ledger) -> Vec<(String, String, u64, u64)> {
        let shown = |row: LedgerRow| {
            let sum = |reasons: &[(String, u64)]| reasons.iter().map(|(_, n)| n).sum::<u64>();
            assert_eq!(row.accepted, row.delivered + row.queued + sum(&row.rejected) + sum(&row.dropped), "{row:?}");
            let backend = match row.backend {
                LedgerBackend::Configured(backend) => ledger.topology.backend(backend).name.clone(),
                LedgerBackend::Retired(name) => format!("{name} retired"),
            };
            (row.db, backend, row.accepted, row.delivered)
        };
        ledger.rows().into_iter().map(shown).collect()
    }

    fn row(db: &str, backend: &str, accepted: u64, delivered: u64) -> (String, String, u64, u64) {
        (db.into(), backend.into(), accepted, delivered)
    }

    #[test]
    fn the_sum_holds_after_every_event_and_a_round_trip() {
        let topology = topology(&["a", "b\tc"]);
        let mut ledger = Ledger::new(topology.clone());
        let db = "d%b\n监".as_bytes();
        ledger.accepted(db, [B], 100);
        ledger.delivered(db, B, 60);
        ledger.rejected(db, B, "field type\tconflict", 3);
        ledger.dropped(db, B, "backlog full", 7);
        assert_eq!((ledger.queued(A), ledger.queued(B)), (0, 30));
        let (again, bad) = Ledger::from_text(topology, &ledger.to_text());
        assert_eq!((again.rows(), again.queued(B), bad), (ledger.rows(), 30, 0));
    }

    #[test]
    fn what_is_left_when_the_log_is_drained_counts_as_damaged() {
        let mut ledger = Ledger::new(topology(&["a"]));
        ledger.accepted(b"db", [A], 10);
        ledger.delivered(b"db", A, 8);
        assert_eq!(ledger.settle(A, DAMAGED), 2);
        assert_eq!(ledger.settle(A, DAMAGED), 0);
        assert_eq!(ledger.rows()[0].dropped, vec![(DAMAGED.to_string(), 2)]);
    }

    #[test]
    fn reasons_and_databases_are_bounded() {
        let mut ledger = Ledger::new(topology(&["a"]));
        ledger.accepted(b"db", [A], 1000);
        for i in 0..LEDGER_REASONS_MAX + 5 {
            ledger.rejected(b"db", A, &format!("reason {i}"), 1);
        }
        let row = &ledger.rows()[0];
        assert_eq!(row.rejected.len(), LEDGER_REASONS_MAX + 1);
        assert_eq!(row.rejected.last().unwrap(), &(OTHER.to_string(), 5));
        for i in 0..LEDGER_DATABASES_MAX + 2 {
            ledger.accepted(format!("db{i}").as_bytes(), [A], 1);
        }
        assert_eq!(ledger.databases.len(), LEDGER_DATABASES_MAX + 1);
    }

    #[test]
    fn a_backend_that_leaves_keeps_its_account_and_goes_on_with_it_when_it_comes_back() {
        let mut ledger = Ledger::new(topology(&["a", "b"]));
        ledger.accepted(b"db", [A, B], 10);
        ledger.delivered(b"db", A, 10);
        ledger.delivered(b"db", B, 4);
        ledger.rejected(b"db", B, "type", 1);
        let mut ledger = again(&ledger, &["a", "c"]);
        assert_eq!(ledger.settle_retired(&["b".into()], DAMAGED), 0);
        assert_eq!(shown(&ledger), [row("db", "a", 10, 10), row("db", "b retired", 10, 4)]);
        // Five are routed again.
        ledger.accepted(b"db", [B], 5);
        ledger.hand_over();
        let now = [row("db", "a", 10, 10), row("db", "c", 5, 0), row("db", "b retired", 5, 4)];
        assert_eq!(shown(&ledger), now);
        ledger.hand_over();
        let mut ledger = again(&again(&ledger, &["a", "c"]), &["a", "c"]);
        assert_eq!(ledger.settle_retired(&[], DAMAGED), 0);
        assert_eq!(shown(&ledger), now);
        let mut ledger = again(&ledger, &["b"]);
        ledger.accepted(b"db", [A], 2);
        assert_eq!((ledger.queued(A), ledger.settle_retired(&["c".into()], DAMAGED)), (2, 0));
        assert_eq!(
            shown(&ledger),
            [row("db", "b", 7, 4), row("db", "a retired", 10, 10), row("db", "c retired", 5, 0)]
        );
    }

    #[test]
    fn what_a_retired_backend_can_get_no_more_is_dropped() {
        let mut ledger = Ledger::new(topology(&["a", "b", "c"]));
        ledger.accepted(b"db", [A, B, BackendId(2)], 10);
        let mut ledger = again(&ledger, &["d"]);
        // `a` has no records in the log: they are lost. Those of `b` go elsewhere, those of `c` nowhere.
        assert_eq!(ledger.settle_retired(&["b".into(), "c".into()], DAMAGED), 10);
        ledger.lost_with_circle(b"db", "c", 10);
        ledger.hand_over();
        let rows: Vec<_> = ledger.rows().into_iter().map(|row| (row.backend, row.accepted, row.dropped)).collect();
        let lost = |name: &str, reason: &str| (LedgerBackend::Retired(name.into()), 10, vec![(reason.to_owned(), 10)]);
        assert_eq!(rows, [lost("a", DAMAGED), lost("c", NO_CIRCLE)]);
    }

    #[test]
    fn retired_backends_are_bounded() {
        let mut ledger = Ledger::new(topology(&[]));
        for round in 0..3 * RETIRED_BACKENDS_MAX {
            let name = format!("b{round}");
            ledger = again(&ledger, &[&name]);
            assert_eq!(ledger.settle_retired(&[], DAMAGED), 0);
            for db in [&b"x"[..], b"y"] {
                ledger.accepted(db, [A], 1);
                ledger.delivered(db, A, 1);
            }
        }
        let shown = shown(&ledger);
        assert_eq!(shown.len(), 2 * (RETIRED_BACKENDS_MAX + 2));
        assert_eq!(shown.iter().map(|row| row.2).sum::<u64>(), 6 * RETIRED_BACKENDS_MAX as u64);
        let others = RETIRED_BACKENDS_MAX as u64 * 2 - 1;
        assert_eq!(shown.iter().filter(|r| **r == row(&r.0, "/other retired", others, others)).count(), 2);
        // Those that have left last keep their names.
        let last = format!("b{} retired", 3 * RETIRED_BACKENDS_MAX - 2);
        assert_eq!(shown.iter().filter(|row| row.1 == last).count(), 2);
    }
}
