//! Checks at the end of the demo that every acknowledged point is stored and that the ledger adds up.

use super::view::{equation, grouped};
use crate::lab::load::Summary;
use crate::lab::proxy::Ledger;
use crate::lab::serials::Serials;

/// The points that the backends of one circle hold.
#[derive(Clone, Debug, Default)]
pub struct Stored {
    pub name: String,
    /// Name and number of different points of each backend. A measurement is on one backend of a circle, so the numbers
    /// can be added.
    pub backends: Vec<(String, u64)>,
    /// The numbers of all points, if the servers can list them.
    pub serials: Option<Serials>,
}

/// The lines to print, and whether the proof succeeded.
pub struct Verdict {
    pub lines: Vec<String>,
    pub good: bool,
}

impl Verdict {
    pub fn of(summary: &Summary, circles: &[Stored], ledger: Option<&Ledger>, drained: bool) -> Self {
        let counts = &summary.counts;
        let (acked, sent) = (counts.acked_points, counts.sent_points);
        let mut verdict = Self { lines: Vec::new(), good: true };
        let not_acked = match sent - acked {
            0 => "all of them acknowledged".into(),
            n => format!("{} acknowledged, {} refused or unanswered", grouped(acked), grouped(n)),
        };
        verdict.add(acked > 0, format!("{} points written, {not_acked}", grouped(sent)));
        for circle in circles {
            verdict.circle(summary, circle);
        }
        if let Some(ledger) = ledger {
            let totals = &ledger.totals;
            verdict.add(ledger.proven_balanced(), format!("the ledger balances: accepted {}", equation(totals)));
            let copies = acked * circles.len() as u64;
            // An unanswered write may have been accepted, so there may be more.
            let all = if acked == sent { totals.accepted == copies } else { totals.accepted >= copies };
            verdict.add(all, format!("{} copies of acknowledged points are in the ledger", grouped(copies)));
            verdict.add(
                drained && totals.delivered == totals.accepted,
                format!("{} of {} copies delivered", grouped(totals.delivered), grouped(totals.accepted)),
            );
        } else {
            verdict.add(false, "there is no ledger".into());
        }
        verdict.lines.push(if verdict.good { "Nothing was lost." } else { "THE DEMO FAILED." }.into());
        verdict
    }

    /// A circle must hold every acknowledged point. It may hold any of the unanswered ones.
    fn circle(&mut self, summary: &Summary, circle: &Stored) {
        let (acked, sent) = (summary.counts.acked_points, summary.counts.sent_points);
        let total: u64 = circle.backends.iter().map(|(_, points)| points).sum();
        let parts: Vec<_> =
            circle.backends.iter().map(|(name, points)| format!("{name} {}", grouped(*points))).collect();
        let text =
            format!("{}: {} = {} of {} acknowledged", circle.name, parts.join(" + "), grouped(total), grouped(acked));
        self.add((acked..=sent).contains(&total), text);
        if let Some(serials) = &circle.serials {
            let missing = missing(summary, serials);
            self.add(
                missing == 0,
                format!("{}: each point checked by its number, {} missing", circle.name, grouped(missing)),
            );
        }
    }

    fn add(&mut self, good: bool, text: String) {
        self.good &= good;
        self.lines.push(format!("{} {text}", if good { "  ok   " } else { "  FAIL " }));
    }
}

/// The number of acknowledged points that are not stored.
fn missing(summary: &Summary, stored: &Serials) -> u64 {
    let Some((first, last)) = summary.serials else { return 0 };
    let mut excused = Serials::default();
    for range in &summary.counts.unacked {
        (range.first..range.first + range.count).for_each(|n| {
            excused.insert(n);
        });
    }
    (first..=last).filter(|n| !stored.contains(*n) && !excused.contains(*n)).count() as u64
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::lab::load::{Counts, Range, RequestFailure};

    /// Points 1 to 100 are sent; if `unknown`, 41 to 50 get no answer.
    fn summary(unknown: bool) -> Summary {
        let mut counts = Counts { requests: 10, sent_points: 100, ..Counts::default() };
        for first in (1..100).step_by(10) {
            let range = Range { first, count: 10 };
            if unknown && first == 41 {
                counts.failed(RequestFailure::Reset, Some(range));
            } else {
                counts.answered(204, range, 1000, Duration::from_millis(1), b"");
            }
        }
        Summary {
            url: "http://a".into(),
            db: "demo".into(),
            threads: 1,
            connections: 1,
            lines: 10,
            rate: 0,
            gzip: false,
            elapsed: Duration::from_secs(1),
            serials: Some((1, 100)),
            counts,
        }
    }

    fn ledger(accepted: u64, delivered: u64, queued: u64) -> Ledger {
        let row = serde_json::json!({"backend": "x", "accepted": accepted, "delivered": delivered, "queued": queued,
            "rejected": {}, "dropped": {}});
        serde_json::from_value(
            serde_json::json!({"totals": {"accepted": accepted, "delivered": delivered, "queued": queued,
            "rejected": 0, "dropped": 0}, "balanced": true, "databases": [{"db": "demo", "backends": [row]}],
            "workers_missing": []}),
        )
        .unwrap()
    }

    /// One circle that holds 1 to 100, except `without`.
    fn circle(without: &[u64]) -> Vec<Stored> {
        let mut serials = Serials::default();
        for n in (1..=100).filter(|n| !without.contains(n)) {
            serials.insert(n);
        }
        let backends = vec![("a".into(), 60), ("b".into(), serials.len() - 60)];
        vec![Stored { name: "circle-1".into(), backends, serials: Some(serials) }]
    }

    fn good(unknown: bool, without: &[u64], ledger: Option<Ledger>, drained: bool) -> bool {
        Verdict::of(&summary(unknown), &circle(without), ledger.as_ref(), drained).good
    }

    #[test]
    fn only_a_complete_proof_passes() {
        assert!(good(false, &[], Some(ledger(100, 100, 0)), true));
        assert!(!good(false, &[7], Some(ledger(100, 100, 0)), true), "a point is missing");
        assert!(!good(false, &[], Some(ledger(100, 90, 10)), false), "the backlog is not drained");
        assert!(!good(false, &[], Some(ledger(90, 90, 0)), true), "points are missing in the ledger");
        assert!(!good(false, &[], Some(ledger(100, 90, 0)), true), "the ledger does not balance");
        assert!(!good(false, &[], None, true), "no ledger");
    }

    #[test]
    fn an_unanswered_point_may_be_there_or_not() {
        let unknown: Vec<u64> = (41..=50).collect();
        assert!(good(true, &[], Some(ledger(100, 100, 0)), true));
        assert!(good(true, &unknown, Some(ledger(90, 90, 0)), true));
        // As many points as were acknowledged, but not the same ones: the count alone would not show it.
        assert!(!good(true, &[1, 42], Some(ledger(98, 98, 0)), true));
    }

    #[test]
    fn counts_are_the_proof_if_servers_cannot_list_points() {
        let real = |points| vec![Stored { name: "c".into(), backends: vec![("a".into(), points)], serials: None }];
        let verdict = |points| Verdict::of(&summary(false), &real(points), Some(&ledger(100, 100, 0)), true).good;
        assert!(verdict(100) && !verdict(99) && !verdict(101));
    }
}
