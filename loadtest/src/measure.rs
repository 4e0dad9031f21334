//! What a run measures: histograms of latencies and counts.

use std::time::Duration;

use hdrhistogram::Histogram;
use serde::Serialize;

/// Longest latency that is told apart from longer ones.
const LONGEST_NS: u64 = 600_000_000_000;
/// Shortest latency that is told apart from shorter ones.
const SHORTEST_NS: u64 = 1_000;
const DIGITS: u8 = 3;

/// A distribution of times.
#[derive(Debug, Clone)]
pub(crate) struct Times(Histogram<u64>);

impl Times {
    pub(crate) fn new() -> Self {
        #[allow(clippy::expect_used)] // constants: the bounds fit each other
        let histogram = Histogram::new_with_bounds(SHORTEST_NS, LONGEST_NS, DIGITS)
            .expect("the bounds fit each other");
        Self(histogram)
    }

    pub(crate) fn record(&mut self, time_ns: u64) {
        self.0.saturating_record(time_ns);
    }

    pub(crate) fn count(&self) -> u64 {
        self.0.len()
    }

    pub(crate) fn percentile(&self, percent: f64) -> Duration {
        Duration::from_nanos(self.0.value_at_quantile(percent / 100.0))
    }

    pub(crate) fn max(&self) -> Duration {
        Duration::from_nanos(self.0.max())
    }

    pub(crate) fn mean(&self) -> Duration {
        Duration::from_nanos(self.0.mean() as u64)
    }

    /// The figures of a report, in microseconds.
    pub(crate) fn summary(&self) -> Summary {
        let micros = |time: Duration| time.as_nanos() as f64 / 1_000.0;
        Summary {
            count: self.count(),
            mean_us: micros(self.mean()),
            p50_us: micros(self.percentile(50.0)),
            p90_us: micros(self.percentile(90.0)),
            p99_us: micros(self.percentile(99.0)),
            p99_9_us: micros(self.percentile(99.9)),
            p99_99_us: micros(self.percentile(99.99)),
            max_us: micros(self.max()),
        }
    }
}

/// A distribution in a report.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct Summary {
    pub(crate) count: u64,
    pub(crate) mean_us: f64,
    pub(crate) p50_us: f64,
    pub(crate) p90_us: f64,
    pub(crate) p99_us: f64,
    pub(crate) p99_9_us: f64,
    pub(crate) p99_99_us: f64,
    pub(crate) max_us: f64,
}

/// The measurements of a run. All latencies count from the intended time, so that a stall is
/// charged to every message that it held up.
#[derive(Debug, Clone)]
pub(crate) struct Measured {
    /// Intended time to receipt, for each delivery.
    pub(crate) delivery: Times,
    /// Intended time to the receipt of the last follower, for each message.
    pub(crate) last: Times,
    /// Intended time to acknowledgement.
    pub(crate) ack: Times,
    /// Intended time to the moment it was handed to the connection.
    pub(crate) lag: Times,
    pub(crate) sent: u64,
    /// Due, and not sent: too many of the publisher's commands were unanswered.
    pub(crate) withheld: u64,
    /// Due, and not sent: the generator was too far behind.
    pub(crate) unsent: u64,
    pub(crate) acked: u64,
    pub(crate) deliveries: u64,
    /// Commands that were sent more than once.
    pub(crate) retried: u64,
    pub(crate) reconnects: u64,
}

impl Measured {
    pub(crate) fn new() -> Self {
        Self {
            delivery: Times::new(),
            last: Times::new(),
            ack: Times::new(),
            lag: Times::new(),
            sent: 0,
            withheld: 0,
            unsent: 0,
            acked: 0,
            deliveries: 0,
            retried: 0,
            reconnects: 0,
        }
    }
}
