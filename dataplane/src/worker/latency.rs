//! How long clients wait for their acks: one histogram for each worker over a fixed span, published as counters.

use std::sync::atomic::Ordering::Relaxed;
use std::time::{Duration, Instant};

use hdrhistogram::Histogram;

use crate::limits::{ACK_LATENCY_MAX, ACK_LATENCY_SPAN};
use crate::stats::WorkerStats;

/// Time from reading a request's head to writing its answer, in the current span.
#[derive(Debug)]
pub struct AckLatency {
    micros: Histogram<u32>,
    since: Instant,
    /// What is in `micros` has been published.
    published: bool,
}

impl AckLatency {
    /// # Panics
    /// Never: the bounds are valid constants.
    pub fn new(now: Instant) -> Self {
        let max = ACK_LATENCY_MAX.as_micros() as u64;
        // Two significant digits: a bucket is at most 1 % wide.
        Self { micros: Histogram::new_with_bounds(1, max, 2).expect("sound bounds"), since: now, published: true }
    }

    #[inline]
    pub fn record(&mut self, waited: Duration) {
        self.micros.saturating_record(waited.as_micros() as u64);
        self.published = false;
    }

    /// Publishes median, 99th percentile and maximum, and starts a new span when this one is over. A span without acks
    /// publishes 0.
    pub fn publish(&mut self, stats: &WorkerStats, now: Instant) {
        if !std::mem::replace(&mut self.published, true) {
            stats.ack_p50_us.store(self.micros.value_at_quantile(0.5), Relaxed);
            stats.ack_p99_us.store(self.micros.value_at_quantile(0.99), Relaxed);
            stats.ack_max_us.store(self.micros.max(), Relaxed);
        }
        if now.saturating_duration_since(self.since) >= ACK_LATENCY_SPAN {
            self.published = self.micros.is_empty();
            self.micros.reset();
            self.since = now;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_are_published_and_a_span_is_forgotten_when_it_is_over() {
        let (start, stats) = (Instant::now(), WorkerStats::default());
        let mut latency = AckLatency::new(start);
        (0..98).for_each(|_| latency.record(Duration::from_micros(200)));
        (0..2).for_each(|_| latency.record(Duration::from_millis(50)));
        let near = |counter: u64, want: u64| assert!(counter.abs_diff(want) * 100 <= want, "{counter} is not {want}");
        latency.publish(&stats, start + ACK_LATENCY_SPAN);
        near(stats.ack_p50_us.load(Relaxed), 200);
        near(stats.ack_p99_us.load(Relaxed), 50_000);
        near(stats.ack_max_us.load(Relaxed), 50_000);
        latency.publish(&stats, start + ACK_LATENCY_SPAN);
        assert_eq!(stats.ack_p99_us.load(Relaxed), 0);
        latency.record(Duration::from_secs(3600));
        latency.publish(&stats, start + ACK_LATENCY_SPAN);
        near(stats.ack_max_us.load(Relaxed), ACK_LATENCY_MAX.as_micros() as u64);
    }
}
