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
//!
//! The text is bounded, however many names of databases clients invent. A database without room for an account of its
//! own is counted as one of [`OTHERS`]. What becomes of a point must be counted where it was accepted: so an account is
//! opened only when the others have nothing queued for this backend. [`Ledger::make_room`] gives up accounts that are
//! settled: what waits can be seen by its name.

use std::borrow::Cow;
use std::cell::Cell;
use std::collections::HashMap;
use std::sync::Arc;

use crate::handoff::{LedgerBackend, LedgerRow};
use crate::limits::{LEDGER_BYTES_MAX, LEDGER_REASONS_MAX, RETIRED_BACKENDS_MAX};
use crate::topology::{BackendId, Topology};

/// The name under which databases beyond [`LEDGER_BYTES_MAX`] and retired backends beyond [`RETIRED_BACKENDS_MAX`] are
/// counted. No database of InfluxDB and no backend has a slash in its name.
pub const OTHERS: &str = "/other";
/// The name under which reasons beyond [`LEDGER_REASONS_MAX`] are counted.
const OTHER_REASONS: &str = "(other)";
/// Reason for points lost in a damaged part of the log.
pub const DAMAGED: &str = "damaged log";
/// Reason for points dropped under `backlog_full = drop_oldest`.
pub const BACKLOG_FULL: &str = "backlog full";
/// Reason for points that waited for a circle that is not configured any more.
pub const NO_CIRCLE: &str = "circle removed";

/// Bytes of a line of the saved form, at most, beside its names and its reason: kind, number, separators.
const LINE_BYTES: usize = "delivered".len() + 20 + 5;

/// One worker's ledger.
#[derive(Debug)]
pub struct Ledger {
    topology: Arc<Topology>,
    /// Names of retired backends that have accounts.
    retired: Vec<Box<str>>,
    ids: HashMap<Box<str>, usize>,
    /// The database that was looked up last: most often it is the next one, too.
    last: Cell<usize>,
    databases: Vec<NamedAccounts>,
    /// Of databases that have no account for a backend.
    others: NamedAccounts,
    /// By holder: points queued over all databases.
    queued: Vec<u64>,
    /// What `databases` take in the saved form, at most.
    bytes: usize,
    /// At most this: [`LEDGER_BYTES_MAX`], less in tests.
    bytes_max: usize,
}

/// Who has an account: the index of a configured backend, or behind these of a retired one.
type Holder = usize;

/// The index of a database; None: the others.
type Database = Option<usize>;

#[derive(Debug)]
struct NamedAccounts {
    name: Box<str>,
    /// Of the escaped name.
    name_bytes: usize,
    /// By holder, in their order.
    accounts: Vec<(Holder, Counts)>,
}

#[derive(Clone, Debug, Default)]
struct Counts {
    accepted: u64,
    delivered: u64,
    rejected: Reasons,
    dropped: Reasons,
}

/// Points by reason.
type Reasons = Vec<(Box<str>, u64)>;

impl NamedAccounts {
    fn new(name: &str) -> Self {
        Self { name: name.into(), name_bytes: escape(name).len(), accounts: Vec::new() }
    }

    fn get(&self, holder: Holder) -> Option<&Counts> {
        let at = self.accounts.binary_search_by_key(&holder, |(of, _)| *of).ok()?;
        Some(&self.accounts[at].1)
    }

    /// Opens the account on first use.
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

    /// Nothing is queued, and nothing has become of more points than were accepted.
    fn is_settled(&self) -> bool {
        self.accepted == self.delivered + sum(&self.rejected) + sum(&self.dropped)
    }

    fn add(&mut self, other: &Self) {
        self.accepted += other.accepted;
        self.delivered += other.delivered;
        other.rejected.iter().for_each(|(reason, n)| add(&mut self.rejected, reason, *n));
        other.dropped.iter().for_each(|(reason, n)| add(&mut self.dropped, reason, *n));
    }

    /// Bytes in the saved form, at most, when both names have so many. The last line of each kind is always there to be
    /// had.
    fn bytes(&self, names: usize) -> usize {
        let reasons = self.rejected.iter().chain(&self.dropped).filter(|(reason, _)| **reason != *OTHER_REASONS);
        let lines = reasons.map(|(reason, _)| line_bytes(names, reason)).sum::<usize>();
        lines + 4 * line_bytes(names, OTHER_REASONS)
    }
}

fn line_bytes(names: usize, reason: &str) -> usize {
    LINE_BYTES + names + escape(reason).len()
}

fn sum(reasons: &Reasons) -> u64 {
    reasons.iter().map(|(_, n)| n).sum()
}

fn add(reasons: &mut Reasons, reason: &str, points: u64) {
    let place = |reasons: &Reasons, reason: &str| reasons.iter().position(|(r, _)| &**r == reason);
    let full = reasons.len() >= LEDGER_REASONS_MAX;
    let known = place(reasons, reason).or_else(|| full.then(|| place(reasons, OTHER_REASONS)).flatten());
    match known {
        Some(at) => reasons[at].1 += points,
        None => reasons.push((if full { OTHER_REASONS } else { reason }.into(), points)),
    }
}

impl Ledger {
    pub fn new(topology: Arc<Topology>) -> Self {
        Self::with_room(topology, LEDGER_BYTES_MAX)
    }

    fn with_room(topology: Arc<Topology>, bytes_max: usize) -> Self {
        Self {
            queued: vec![0; topology.backends.len()],
            topology,
            retired: Vec::new(),
            ids: HashMap::default(),
            last: Cell::default(),
            databases: Vec::new(),
            others: NamedAccounts::new(OTHERS),
            bytes: 0,
            bytes_max,
        }
    }

    fn name(&self, holder: Holder) -> &str {
        match self.topology.backends.get(holder) {
            Some(backend) => &backend.name,
            None => &self.retired[holder - self.topology.backends.len()],
        }
    }

    /// Bytes of both escaped names.
    fn names_bytes(&self, name_bytes: usize, holder: Holder) -> usize {
        name_bytes + escape(self.name(holder)).len()
    }

    fn named(&self, db: Database) -> &NamedAccounts {
        db.map_or(&self.others, |db| &self.databases[db])
    }

    fn named_mut(&mut self, db: Database) -> &mut NamedAccounts {
        match db {
            Some(db) => &mut self.databases[db],
            None => &mut self.others,
        }
    }

    /// All places where points are counted.
    fn all(&self) -> impl Iterator<Item = Database> + use<> {
        (0..self.databases.len()).map(Some).chain([None])
    }

    fn id(&self, name: &[u8]) -> Database {
        let last = self.last.get();
        if self.databases.get(last).is_some_and(|database| database.name.as_bytes() == name) {
            return Some(last);
        }
        let id = *self.ids.get(&*String::from_utf8_lossy(name))?;
        self.last.set(id);
        Some(id)
    }

    /// Where the points of this database and holder are counted.
    fn find(&self, name: &[u8], holder: Holder) -> Database {
        self.id(name).filter(|db| self.databases[*db].get(holder).is_some())
    }

    /// Opens an account if there is room. Returns where to count.
    fn open(&mut self, name: &[u8], holder: Holder) -> Database {
        let name = String::from_utf8_lossy(name);
        let bytes = Counts::default().bytes(self.names_bytes(escape(&name).len(), holder));
        if name == OTHERS || self.bytes + bytes > self.bytes_max {
            return None;
        }
        let db = self.ids.get(&*name).copied().unwrap_or_else(|| {
            self.ids.insert((*name).into(), self.databases.len());
            self.databases.push(NamedAccounts::new(&name));
            self.databases.len() - 1
        });
        self.databases[db].counts(holder);
        self.bytes += bytes;
        Some(db)
    }

    fn change(&mut self, db: Database, holder: Holder, change: impl FnOnce(&mut Counts)) {
        let counts = self.named_mut(db).counts(holder);
        let before = counts.queued();
        change(counts);
        self.queued[holder] += counts.queued();
        self.queued[holder] -= before;
    }

    /// Counts points that are gone for this reason, or for another one when there is no room for it.
    fn give_up(
        &mut self,
        db: Database,
        holder: Holder,
        of: fn(&mut Counts) -> &mut Reasons,
        reason: &str,
        points: u64,
    ) {
        let mut reason = reason;
        if let Some(at) = db {
            let names = self.names_bytes(self.databases[at].name_bytes, holder);
            let reasons = of(self.databases[at].counts(holder));
            let is_known = reason == OTHER_REASONS || reasons.iter().any(|(known, _)| **known == *reason);
            let is_new = !is_known && reasons.len() < LEDGER_REASONS_MAX;
            let bytes = line_bytes(names, reason);
            if is_new && self.bytes + bytes > self.bytes_max {
                reason = OTHER_REASONS;
            } else if is_new {
                self.bytes += bytes;
            }
        }
        self.change(db, holder, |counts| add(of(counts), reason, points));
    }

    /// Counts points appended to the log for these backends.
    pub fn accepted(&mut self, db: &[u8], backends: impl IntoIterator<Item = BackendId>, points: u64) {
        let mut id = self.id(db);
        for backend in backends {
            let holder = backend.index();
            let at =
                id.filter(|id| self.databases[*id].get(holder).is_some()).or_else(|| self.open_if_idle(db, holder));
            id = id.or(at);
            self.change(at, holder, |counts| counts.accepted += points);
        }
    }

    /// Opens an account unless points of this database may be queued among the others.
    fn open_if_idle(&mut self, name: &[u8], holder: Holder) -> Database {
        let is_idle = self.others.get(holder).is_none_or(|counts| counts.queued() == 0);
        is_idle.then(|| self.open(name, holder)).flatten()
    }

    /// Counts points that the backend has confirmed.
    pub fn delivered(&mut self, db: &[u8], backend: BackendId, points: u64) {
        self.change(self.find(db, backend.index()), backend.index(), |counts| counts.delivered += points);
    }

    /// Counts points that the backend has refused and that are now dead letters.
    pub fn rejected(&mut self, db: &[u8], backend: BackendId, reason: &str, points: u64) {
        self.give_up(self.find(db, backend.index()), backend.index(), |counts| &mut counts.rejected, reason, points);
    }

    /// Counts points that are gone: `drop_oldest`, or a damaged log.
    pub fn dropped(&mut self, db: &[u8], backend: BackendId, reason: &str, points: u64) {
        self.give_up(self.find(db, backend.index()), backend.index(), |counts| &mut counts.dropped, reason, points);
    }

    /// Counts points of a retired backend that nobody else gets, since its circle is not configured any more. Those
    /// that had been counted before are handed over.
    pub fn lost_with_circle(&mut self, db: &[u8], name: &str, points: u64) {
        let holder = self.retire(name);
        let db = self.find(db, holder).or_else(|| self.open_if_idle(db, holder));
        self.change(db, holder, |counts| counts.accepted += points);
        self.give_up(db, holder, |counts| &mut counts.dropped, NO_CIRCLE, points);
    }

    /// Closes the accounts of a backend that has been served to the end of the log, where nothing can be queued. Points
    /// still counted as queued were lost and become `dropped`, for `reason`. Returns their number.
    pub fn settle(&mut self, backend: BackendId, reason: &str) -> u64 {
        self.settle_holder(backend.index(), reason)
    }

    fn settle_holder(&mut self, holder: Holder, reason: &str) -> u64 {
        let lost = self.queued[holder];
        for (db, left) in self.with_queued(holder) {
            self.give_up(db, holder, |counts| &mut counts.dropped, reason, left);
        }
        lost
    }

    /// Where points are queued for a holder, and how many.
    fn with_queued(&self, holder: Holder) -> Vec<(Database, u64)> {
        if self.queued[holder] == 0 {
            return Vec::new();
        }
        let queued = |db| self.named(db).get(holder).map(Counts::queued).filter(|queued| *queued > 0);
        self.all().filter_map(|db| Some((db, queued(db)?))).collect()
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
            for (db, left) in self.with_queued(holder) {
                self.change(db, holder, |counts| counts.accepted -= left);
            }
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
        for db in self.all() {
            let accounts = &mut self.named_mut(db).accounts;
            let of_retired = accounts.split_off(accounts.partition_point(|(holder, _)| *holder < backends));
            for (holder, counts) in of_retired {
                let name = &names[holder - backends];
                let holder = self.retire(if kept.contains(name) { name } else { OTHERS });
                self.change(db, holder, |all| all.add(&counts));
            }
        }
        self.count_bytes();
    }

    /// When half of the room is used: counts settled accounts of databases that are not known, and of retired backends,
    /// among the others.
    pub fn make_room(&mut self, is_known: impl Fn(&str) -> bool) {
        if self.bytes <= self.bytes_max / 2 {
            return;
        }
        let backends = self.topology.backends.len();
        self.ids.clear();
        for mut database in std::mem::take(&mut self.databases) {
            let is_known = is_known(&database.name);
            let stays = |(holder, counts): &(Holder, Counts)| !counts.is_settled() || is_known && *holder < backends;
            let (kept, folded) = database.accounts.into_iter().partition::<Vec<_>, _>(stays);
            folded.iter().for_each(|(holder, counts)| self.others.counts(*holder).add(counts));
            database.accounts = kept;
            if !database.accounts.is_empty() {
                self.ids.insert(database.name.clone(), self.databases.len());
                self.databases.push(database);
            }
        }
        self.count_bytes();
    }

    fn count_bytes(&mut self) {
        let of = |database: &NamedAccounts| {
            let bytes =
                |(holder, counts): &(Holder, Counts)| counts.bytes(self.names_bytes(database.name_bytes, *holder));
            database.accounts.iter().map(bytes).sum::<usize>()
        };
        self.bytes = self.databases.iter().map(of).sum();
    }

    pub fn queued(&self, backend: BackendId) -> u64 {
        self.queued[backend.index()]
    }

    /// The accounts with at least one accepted point: name of the database, holder, counts.
    fn accounts(&self) -> impl Iterator<Item = (&str, Holder, &Counts)> {
        let all = self.databases.iter().chain([&self.others]);
        let all = all.flat_map(|d| d.accounts.iter().map(|(holder, counts)| (&*d.name, *holder, counts)));
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

    /// The saved form: one line per account and kind, tab-separated, names and reasons escaped.
    pub fn to_text(&self) -> String {
        let (mut text, mut digits) = (String::new(), itoa::Buffer::new());
        for (db, holder, counts) in self.accounts() {
            let (db, backend) = (escape(db), escape(self.name(holder)));
            let mut line = |kind: &str, reason: &str, points: u64| {
                // Not formatted: there may be many thousands of lines, every second.
                let parts = [kind, "\t", &db, "\t", &backend, "\t", digits.format(points), "\t", &escape(reason), "\n"];
                parts.into_iter().for_each(|part| text.push_str(part));
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
                for holder in backends.iter().map(|backend| backend.index()) {
                    let db = ledger.find(db, holder);
                    ledger.change(db, holder, |counts| change(&mut counts.accepted, *points));
                }
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
        let db = self.find(db.as_bytes(), holder).or_else(|| self.open(db.as_bytes(), holder));
        match kind {
            "accepted" => self.change(db, holder, |counts| counts.accepted += points),
            "delivered" => self.change(db, holder, |counts| counts.delivered += points),
            "rejected" => self.give_up(db, holder, |counts| &mut counts.rejected, &reason, points),
            _ => self.give_up(db, holder, |counts| &mut counts.dropped, &reason, points),
        }
        Some(())
    }
}

fn escape(text: &str) -> Cow<'_, str> {
    if !text.bytes().any(|byte| matches!(byte, b'%' | b'\t' | b'\n' | b'\r')) {
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
#[path = "ledger_test.rs"]
mod tests;
