//! What became of every accepted point: accepted = delivered + queued + rejected + dropped, by database, backend and
//! reason.
//!
//! A point is counted once for each backend of its route. `queued` is calculated from the other counts, so the equation
//! always holds. When a backend has drained its log, `queued` must be zero; what is left then was lost
//! ([`Ledger::settle`]). The text form is saved together with the log's cursors, so that both describe the same moment
//! after a restart.

use std::borrow::Cow;
use std::collections::HashMap;
use std::fmt::Write as _;
use std::sync::Arc;

use crate::handoff::LedgerRow;
use crate::limits::{LEDGER_DATABASES_MAX, LEDGER_REASONS_MAX};
use crate::topology::{BackendId, Topology};

/// The name under which databases beyond [`LEDGER_DATABASES_MAX`] and reasons beyond [`LEDGER_REASONS_MAX`] are
/// counted.
const OTHER: &str = "(other)";
/// Reason for points lost in a damaged part of the log.
pub const DAMAGED: &str = "damaged log";
/// Reason for points dropped under `backlog_full = drop_oldest`.
pub const BACKLOG_FULL: &str = "backlog full";

/// Index of a database in its worker's ledger.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct DbId(u32);

/// One worker's ledger.
#[derive(Debug)]
pub struct Ledger {
    topology: Arc<Topology>,
    ids: HashMap<Box<str>, DbId>,
    databases: Vec<NamedAccounts>,
}

#[derive(Debug)]
struct NamedAccounts {
    name: Box<str>,
    /// Indexed by `BackendId`.
    accounts: Vec<Account>,
}

#[derive(Clone, Debug, Default)]
struct Account {
    accepted: u64,
    delivered: u64,
    rejected: Vec<(Box<str>, u64)>,
    dropped: Vec<(Box<str>, u64)>,
}

impl Account {
    fn queued(&self) -> u64 {
        self.accepted.saturating_sub(self.delivered + sum(&self.rejected) + sum(&self.dropped))
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
        Self { topology, ids: HashMap::default(), databases: Vec::new() }
    }

    /// The database's id. Opens its accounts on first use.
    pub fn database(&mut self, name: &[u8]) -> DbId {
        let name = String::from_utf8_lossy(name);
        if let Some(&id) = self.ids.get(&*name) {
            return id;
        }
        let name = if self.databases.len() >= LEDGER_DATABASES_MAX { OTHER } else { &*name };
        if let Some(&id) = self.ids.get(name) {
            return id;
        }
        let id = DbId(u32::try_from(self.databases.len()).expect("bounded by LEDGER_DATABASES_MAX"));
        self.ids.insert(name.into(), id);
        let accounts = vec![Account::default(); self.topology.backends.len()];
        self.databases.push(NamedAccounts { name: name.into(), accounts });
        id
    }

    fn account(&mut self, db: DbId, backend: BackendId) -> &mut Account {
        &mut self.databases[db.0 as usize].accounts[backend.index()]
    }

    /// Counts points appended to the log for this backend.
    pub fn accepted(&mut self, db: DbId, backend: BackendId, points: u64) {
        self.account(db, backend).accepted += points;
    }

    /// Counts points that the backend has confirmed.
    pub fn delivered(&mut self, db: DbId, backend: BackendId, points: u64) {
        self.account(db, backend).delivered += points;
    }

    /// Counts points that the backend has refused and that are now dead letters.
    pub fn rejected(&mut self, db: DbId, backend: BackendId, reason: &str, points: u64) {
        add(&mut self.account(db, backend).rejected, reason, points);
    }

    /// Counts points that are gone: `drop_oldest`, or a damaged log.
    pub fn dropped(&mut self, db: DbId, backend: BackendId, reason: &str, points: u64) {
        add(&mut self.account(db, backend).dropped, reason, points);
    }

    /// Closes the accounts of a backend that has been served to the end of the log, where nothing can be queued. Points
    /// still counted as queued were lost and become `dropped`, for `reason`. Returns their number.
    pub fn settle(&mut self, backend: BackendId, reason: &str) -> u64 {
        let mut lost = 0;
        for database in &mut self.databases {
            let account = &mut database.accounts[backend.index()];
            let left = account.queued();
            if left > 0 {
                add(&mut account.dropped, reason, left);
                lost += left;
            }
        }
        lost
    }

    pub fn queued(&self, backend: BackendId) -> u64 {
        self.databases.iter().map(|d| d.accounts[backend.index()].queued()).sum()
    }

    /// All accounts with at least one accepted point.
    pub fn rows(&self) -> Vec<LedgerRow> {
        let own = |reasons: &[(Box<str>, u64)]| reasons.iter().map(|(r, n)| (r.to_string(), *n)).collect();
        let row = |d: &NamedAccounts, i: usize, a: &Account| LedgerRow {
            db: d.name.to_string(),
            backend: self.topology.backends[i].id,
            accepted: a.accepted,
            delivered: a.delivered,
            queued: a.queued(),
            rejected: own(&a.rejected),
            dropped: own(&a.dropped),
        };
        self.databases
            .iter()
            .flat_map(|d| d.accounts.iter().enumerate().filter(|(_, a)| a.accepted > 0).map(move |(i, a)| row(d, i, a)))
            .collect()
    }

    /// The saved form: one line per account and kind, tab-separated, names and reasons escaped.
    pub fn to_text(&self) -> String {
        let mut text = String::new();
        for row in self.rows() {
            let backend = escape(&self.topology.backend(row.backend).name);
            let db = escape(&row.db);
            let mut line = |kind: &str, reason: &str, points: u64| {
                let _ = writeln!(text, "{kind}\t{db}\t{backend}\t{points}\t{}", escape(reason));
            };
            line("accepted", "", row.accepted);
            line("delivered", "", row.delivered);
            row.rejected.iter().for_each(|(reason, n)| line("rejected", reason, *n));
            row.dropped.iter().for_each(|(reason, n)| line("dropped", reason, *n));
        }
        text
    }

    /// The saved form without points that are not on disk yet.
    pub fn text_without(&mut self, unwritten: &[(Vec<u8>, Vec<BackendId>, u64)]) -> String {
        let each = |ledger: &mut Self, change: fn(&mut u64, u64)| {
            for (db, backends, points) in unwritten {
                let db = ledger.database(db);
                backends.iter().for_each(|&b| change(&mut ledger.account(db, b).accepted, *points));
            }
        };
        each(self, |accepted, points| *accepted = accepted.saturating_sub(points));
        let text = self.to_text();
        each(self, |accepted, points| *accepted += points);
        text
    }

    /// Reads what [`Ledger::to_text`] wrote. Skips accounts of backends that are not in the configuration any more:
    /// their points are routed again. Skips unreadable lines too, and returns their number.
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
        let Some(backend) = self.topology.by_name(&backend).map(|b| b.id) else { return Some(()) };
        let db = self.database(db.as_bytes());
        match kind {
            "accepted" => self.accepted(db, backend, points),
            "delivered" => self.delivered(db, backend, points),
            "rejected" => self.rejected(db, backend, &reason, points),
            "dropped" => self.dropped(db, backend, &reason, points),
            _ => return None,
        }
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

    fn topology(names: &[&str]) -> Arc<Topology> {
        let mut topology = Topology::default();
        topology.add_circle("c", names.iter().map(|name| Backend::new(*name, "")));
        Arc::new(topology)
    }

    #[test]
    fn the_sum_holds_after_every_event_and_a_round_trip() {
        let topology = topology(&["a", "b\tc"]);
        let mut ledger = Ledger::new(topology.clone());
        let db = ledger.database("d%b\n监".as_bytes());
        let b = BackendId(1);
        ledger.accepted(db, b, 100);
        ledger.delivered(db, b, 60);
        ledger.rejected(db, b, "field type\tconflict", 3);
        ledger.dropped(db, b, "backlog full", 7);
        assert_eq!(ledger.queued(b), 30);
        let (again, bad) = Ledger::from_text(topology, &ledger.to_text());
        assert_eq!((again.rows(), bad), (ledger.rows(), 0));
    }

    #[test]
    fn what_is_left_when_the_log_is_drained_counts_as_damaged() {
        let mut ledger = Ledger::new(topology(&["a"]));
        let db = ledger.database(b"db");
        ledger.accepted(db, BackendId(0), 10);
        ledger.delivered(db, BackendId(0), 8);
        assert_eq!(ledger.settle(BackendId(0), DAMAGED), 2);
        assert_eq!(ledger.settle(BackendId(0), DAMAGED), 0);
        assert_eq!(ledger.rows()[0].dropped, vec![(DAMAGED.to_string(), 2)]);
    }

    #[test]
    fn reasons_and_databases_are_bounded() {
        let mut ledger = Ledger::new(topology(&["a"]));
        let db = ledger.database(b"db");
        ledger.accepted(db, BackendId(0), 1000);
        for i in 0..LEDGER_REASONS_MAX + 5 {
            ledger.rejected(db, BackendId(0), &format!("reason {i}"), 1);
        }
        let row = &ledger.rows()[0];
        assert_eq!(row.rejected.len(), LEDGER_REASONS_MAX + 1);
        assert_eq!(row.rejected.last().unwrap(), &(OTHER.to_string(), 5));
        for i in 0..LEDGER_DATABASES_MAX + 2 {
            ledger.database(format!("db{i}").as_bytes());
        }
        assert_eq!(ledger.databases.len(), LEDGER_DATABASES_MAX + 1);
    }
}
