//! `GET /ledger`: how many points were accepted, and what became of them. influx-proxy has no such endpoint.
//!
//! ```json
//! {"totals": {"accepted": 8, "delivered": 5, "queued": 1, "rejected": 2, "dropped": 0},
//!  "balanced": true,
//!  "databases": [{"db": "db1", "backends": [
//!     {"backend": "influxdb-1-1", "accepted": 8, "delivered": 5, "queued": 1,
//!      "rejected": {"field type conflict": 2}, "dropped": {}}]}],
//!  "workers_missing": [],
//!  "workers": [{"worker": 0, "ready": true, "requests": 3, "connections": 1,
//!               "ack_p50_us": 210, "ack_p99_us": 890, "ack_max_us": 1200}],
//!  "udp": [{"packets": 12, "packets_refused": 0, "packets_lost": 0, "lines_refused": 1}]}
//! ```
//!
//! All numbers are points, summed over all workers. A point counts once for each backend that should get it. Databases
//! are sorted by name; backends are in configuration order. Behind them those that are not configured any more, by
//! name, with `"retired":true`: what waited for them has been routed again and counts for others. `balanced` is true
//! when accepted = delivered + queued + rejected + dropped in every row. `workers_missing` lists the numbers of workers
//! that did not answer in time; their points are not in the sums. `ack_*_us` are the times until acknowledgement in the
//! last 10 seconds. A worker that is not `ready` has not opened its log yet, or can no longer write to it; where there
//! are any, `rp_ignored` counts its writes whose policy was ignored (`ignore_rp`). `udp` has one entry for each
//! configured address, since the start: packets that came, of which no line was taken, for which the kernel had no
//! room; and bad lines. Before all, `"importing":true` while influx-proxy's cache files are not all in the log: their
//! points are not in the sums then.

use std::collections::BTreeMap;
use std::sync::atomic::Ordering::{Relaxed, SeqCst};

use fluxgate_dataplane::handoff::{AdminResponse, LedgerBackend, LedgerRow};
use fluxgate_dataplane::stats::{Stats, UdpStats, WorkerStats};
use fluxgate_dataplane::topology::Topology;
use serde::Serialize;

use super::params::UrlParams;
use super::{Action, AdminState, json};

/// A question for the ledgers.
#[derive(Clone, Copy, Debug, Default)]
pub struct LedgerAsked {
    pub pretty: bool,
    /// As of the question: what workers answer later has all points of the import, when it was over by then.
    pub importing: bool,
}

#[derive(Serialize)]
struct LedgerAnswer<'a> {
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    importing: bool,
    totals: Totals,
    balanced: bool,
    databases: Vec<DatabaseLedger<'a>>,
    workers_missing: &'a [usize],
    workers: Vec<WorkerLedger>,
    /// Shown only where packets are received.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    udp: Vec<UdpLedger>,
}

/// Packets of line protocol to one address, in the order of the configuration.
#[derive(Serialize)]
struct UdpLedger {
    packets: u64,
    packets_refused: u64,
    packets_lost: u64,
    lines_refused: u64,
}

impl UdpLedger {
    fn of(stats: &UdpStats) -> Self {
        Self {
            packets: stats.packets.load(Relaxed),
            packets_refused: stats.packets_refused.load(Relaxed),
            packets_lost: stats.packets_lost.load(Relaxed),
            lines_refused: stats.lines_refused.load(Relaxed),
        }
    }
}

#[derive(Serialize)]
struct WorkerLedger {
    worker: usize,
    ready: bool,
    requests: u64,
    #[serde(skip_serializing_if = "is_zero")]
    rp_ignored: u64,
    connections: u64,
    ack_p50_us: u64,
    ack_p99_us: u64,
    ack_max_us: u64,
}

impl WorkerLedger {
    fn of((worker, stats): (usize, &WorkerStats)) -> Self {
        Self {
            worker,
            ready: stats.ready.load(Relaxed),
            requests: stats.requests.load(Relaxed),
            rp_ignored: stats.rp_ignored.load(Relaxed),
            connections: stats.connections.load(Relaxed),
            ack_p50_us: stats.ack_p50_us.load(Relaxed),
            ack_p99_us: stats.ack_p99_us.load(Relaxed),
            ack_max_us: stats.ack_max_us.load(Relaxed),
        }
    }
}

fn is_zero(number: &u64) -> bool {
    *number == 0
}

#[derive(Default, Serialize)]
struct Totals {
    accepted: u64,
    delivered: u64,
    queued: u64,
    rejected: u64,
    dropped: u64,
}

#[derive(Serialize)]
struct DatabaseLedger<'a> {
    db: &'a str,
    backends: Vec<LedgerLine<'a>>,
}

#[derive(Default, Serialize)]
struct LedgerLine<'a> {
    backend: &'a str,
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    retired: bool,
    accepted: u64,
    delivered: u64,
    queued: u64,
    rejected: BTreeMap<&'a str, u64>,
    dropped: BTreeMap<&'a str, u64>,
}

pub fn decide(state: &AdminState, params: UrlParams<'_>) -> Action {
    Action::AskLedgers(LedgerAsked { pretty: params.pretty(), importing: state.stats.importing.load(SeqCst) })
}

/// The answer, from the rows of all workers that have sent theirs.
pub fn response(
    topology: &Topology,
    stats: &Stats,
    rows: &[LedgerRow],
    workers_missing: &[usize],
    LedgerAsked { pretty, importing }: LedgerAsked,
) -> AdminResponse {
    let mut databases: BTreeMap<&str, BTreeMap<&LedgerBackend, LedgerLine<'_>>> = BTreeMap::new();
    for row in rows {
        let merged = databases.entry(&row.db).or_default().entry(&row.backend).or_default();
        merged.backend = row.backend.name(topology);
        merged.retired = matches!(row.backend, LedgerBackend::Retired(_));
        merged.accepted += row.accepted;
        merged.delivered += row.delivered;
        merged.queued += row.queued;
        add(&mut merged.rejected, &row.rejected);
        add(&mut merged.dropped, &row.dropped);
    }
    let mut totals = Totals::default();
    let mut balanced = true;
    for row in databases.values().flat_map(BTreeMap::values) {
        let (rejected, dropped) = (row.rejected.values().sum::<u64>(), row.dropped.values().sum::<u64>());
        balanced &= row.accepted == row.delivered + row.queued + rejected + dropped;
        totals.accepted += row.accepted;
        totals.delivered += row.delivered;
        totals.queued += row.queued;
        totals.rejected += rejected;
        totals.dropped += dropped;
    }
    let databases =
        databases.into_iter().map(|(db, rows)| DatabaseLedger { db, backends: rows.into_values().collect() }).collect();
    let workers = stats.workers.iter().enumerate().map(WorkerLedger::of).collect();
    let udp = stats.udp.iter().map(UdpLedger::of).collect();
    json(&LedgerAnswer { importing, totals, balanced, databases, workers_missing, workers, udp }, pretty)
}

fn add<'a>(sums: &mut BTreeMap<&'a str, u64>, reasons: &'a [(String, u64)]) {
    for (reason, points) in reasons {
        *sums.entry(reason).or_default() += points;
    }
}

#[cfg(test)]
mod tests {
    use fluxgate_dataplane::topology::BackendId;

    use super::*;
    use crate::endpoint::golden_test::state;

    fn row(db: &str, backend: u16, counts: [u64; 3], rejected: &[(&str, u64)]) -> LedgerRow {
        let [accepted, delivered, queued] = counts;
        let rejected = rejected.iter().map(|(reason, n)| ((*reason).to_owned(), *n)).collect();
        let backend = LedgerBackend::Configured(BackendId(backend));
        LedgerRow { db: db.into(), backend, accepted, delivered, queued, rejected, dropped: vec![] }
    }

    #[test]
    fn rows_of_all_workers_are_added_up() {
        let rows = [
            row("db2", 1, [1, 1, 0], &[]),
            row("db1", 1, [5, 3, 1], &[("type", 1)]),
            row("db1", 0, [1, 0, 1], &[]),
            row("db1", 1, [4, 1, 0], &[("type", 2), ("old", 1)]),
            LedgerRow { backend: LedgerBackend::Retired("gone".into()), ..row("db2", 0, [4, 4, 0], &[]) },
        ];
        let stats = Stats::new(1, 4, 2).with_udp(1);
        stats.udp[0].packets.store(3, Relaxed);
        let answer = response(&state("open").topology, &stats, &rows, &[2], LedgerAsked::default());
        let want = concat!(
            r#"{"totals":{"accepted":15,"delivered":9,"queued":2,"rejected":4,"dropped":0},"#,
            r#""balanced":true,"databases":["#,
            r#"{"db":"db1","backends":[{"backend":"influxdb-1-1","accepted":1,"delivered":0,"queued":1,"rejected":{},"#,
            r#""dropped":{}},"#,
            r#"{"backend":"influxdb-1-2","accepted":9,"delivered":4,"queued":1,"#,
            r#""rejected":{"old":1,"type":3},"dropped":{}}]},"#,
            r#"{"db":"db2","backends":[{"backend":"influxdb-1-2","accepted":1,"delivered":1,"queued":0,"#,
            r#""rejected":{},"dropped":{}},"#,
            r#"{"backend":"gone","retired":true,"accepted":4,"delivered":4,"queued":0,"rejected":{},"dropped":{}}]}],"#,
            r#""workers_missing":[2],"workers":[{"worker":0,"ready":false,"requests":0,"connections":0,"#,
            r#""ack_p50_us":0,"ack_p99_us":0,"ack_max_us":0}],"#,
            r#""udp":[{"packets":3,"packets_refused":0,"packets_lost":0,"lines_refused":0}]}"#,
            "\n"
        );
        assert_eq!(std::str::from_utf8(&answer.body).unwrap(), want);
        let asked = LedgerAsked { importing: true, ..LedgerAsked::default() };
        let answer = response(&state("open").topology, &stats, &rows, &[2], asked);
        assert_eq!(std::str::from_utf8(&answer.body).unwrap(), want.replacen('{', r#"{"importing":true,"#, 1));
    }

    #[test]
    fn a_row_that_does_not_add_up_is_told() {
        let body = |rows: &[LedgerRow]| {
            let answer = response(&state("open").topology, &Stats::default(), rows, &[], LedgerAsked::default());
            serde_json::from_slice::<serde_json::Value>(&answer.body).unwrap()
        };
        // The second row has one point more, so that the totals are balanced.
        let (lacks, has) = (row("db1", 0, [3, 1, 1], &[]), row("db1", 1, [3, 3, 1], &[]));
        assert_eq!(body(&[lacks, has])["balanced"], false);
        assert_eq!(body(&[])["balanced"], true);
    }
}
