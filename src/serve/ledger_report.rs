//! The text of the ledger that is printed at shutdown.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use fluxgate_dataplane::handoff::{LedgerBackend, LedgerRow};
use fluxgate_dataplane::topology::Topology;

/// One line per database and backend over all workers, and the sum. Empty if no point was accepted.
pub fn text(topology: &Topology, rows: &[LedgerRow]) -> String {
    let mut accounts: BTreeMap<(&str, &LedgerBackend), [u64; 5]> = BTreeMap::new();
    for row in rows {
        let sum = |reasons: &[(String, u64)]| reasons.iter().map(|(_, n)| n).sum::<u64>();
        let counts = [row.accepted, row.delivered, row.queued, sum(&row.rejected), sum(&row.dropped)];
        let account = accounts.entry((&row.db, &row.backend)).or_default();
        account.iter_mut().zip(counts).for_each(|(total, count)| *total += count);
    }
    if accounts.is_empty() {
        return String::new();
    }
    let mut out = String::from("ledger, points by database and backend (each point counts once per backend):\n");
    let mut line = |db: &str, backend: &str, [accepted, delivered, queued, rejected, dropped]: [u64; 5]| {
        let _ = writeln!(
            out,
            "  {db} {backend}: accepted {accepted} = delivered {delivered} + queued {queued} + rejected {rejected} \
             + dropped {dropped}"
        );
    };
    let mut total = [0; 5];
    for ((db, backend), counts) in &accounts {
        line(db, backend.name(topology), *counts);
        total.iter_mut().zip(counts).for_each(|(total, count)| *total += count);
    }
    line("total", "all", total);
    out
}

/// What backends have not got, as `3 points for b1, 5 points for b2`; empty when they have all.
pub fn queued(topology: &Topology, rows: &[LedgerRow]) -> String {
    let mut queued: BTreeMap<&LedgerBackend, u64> = BTreeMap::new();
    rows.iter().filter(|row| row.queued > 0).for_each(|row| *queued.entry(&row.backend).or_default() += row.queued);
    let texts = queued.iter().map(|(backend, points)| format!("{points} points for {}", backend.name(topology)));
    texts.collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;
    use fluxgate_dataplane::topology::{Backend, BackendId};

    #[test]
    fn rows_of_all_workers_are_added_up() {
        let mut topology = Topology::default();
        topology.add_circle("c", [Backend::new("b", "http://b")]);
        let row = LedgerRow {
            db: "db".into(),
            backend: LedgerBackend::Configured(BackendId(0)),
            accepted: 10,
            delivered: 5,
            queued: 2,
            rejected: vec![("x".into(), 1), ("y".into(), 1)],
            dropped: vec![("z".into(), 1)],
        };
        let text = text(&topology, &[row.clone(), row]);
        assert!(text.contains("db b: accepted 20 = delivered 10 + queued 4 + rejected 4 + dropped 2\n"), "{text}");
        assert!(text.contains("total all: accepted 20 "), "{text}");
        assert_eq!(super::text(&topology, &[]), "");
    }
}
