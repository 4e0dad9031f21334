//! Conditions on a result: `p99<5ms`, `ack.p99.9<=20ms`, `rate>=1000/s`.

use std::{fmt, str::FromStr};

use anyhow::{Context, Result, bail};
use serde::Serialize;

use crate::measure::{Measured, Times};

/// A condition that a run has to meet.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Threshold {
    text: String,
    metric: Metric,
    comparison: Comparison,
    bound: f64,
}

#[derive(Debug, Clone, Copy, PartialEq)]
enum Metric {
    Time(Of, Point),
    /// Acknowledged messages a second.
    Rate,
    /// Deliveries a second.
    Deliveries,
    Reconnects,
}

/// Which distribution.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Of {
    Delivery,
    Last,
    Ack,
    Lag,
}

/// Where in it.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Point {
    Percentile(f64),
    Max,
    Mean,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Comparison {
    Less,
    LessOrEqual,
    Greater,
    GreaterOrEqual,
    Equal,
}

/// A condition and how it was met.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct Checked {
    pub(crate) condition: String,
    /// Milliseconds for times, otherwise as the condition is written.
    pub(crate) value: f64,
    pub(crate) met: bool,
}

impl Threshold {
    /// Compares a run of this length with the condition. A distribution without a single value
    /// meets none.
    pub(crate) fn check(&self, measured: &Measured, seconds: f64) -> Checked {
        let value = match self.metric {
            Metric::Time(of, point) => {
                let times = match of {
                    Of::Delivery => &measured.delivery,
                    Of::Last => &measured.last,
                    Of::Ack => &measured.ack,
                    Of::Lag => &measured.lag,
                };
                point.of(times)
            }
            Metric::Rate => measured.acked as f64 / seconds,
            Metric::Deliveries => measured.deliveries as f64 / seconds,
            Metric::Reconnects => measured.reconnects as f64,
        };
        let met = match self.comparison {
            Comparison::Less => value < self.bound,
            Comparison::LessOrEqual => value <= self.bound,
            Comparison::Greater => value > self.bound,
            Comparison::GreaterOrEqual => value >= self.bound,
            Comparison::Equal => (value - self.bound).abs() < f64::EPSILON,
        };
        Checked { condition: self.text.clone(), value, met }
    }
}

impl Point {
    /// In milliseconds; not a number where there is nothing to measure.
    fn of(self, times: &Times) -> f64 {
        if times.count() == 0 {
            return f64::NAN;
        }
        let time = match self {
            Self::Percentile(percent) => times.percentile(percent),
            Self::Max => times.max(),
            Self::Mean => times.mean(),
        };
        time.as_secs_f64() * 1_000.0
    }
}

impl FromStr for Threshold {
    type Err = anyhow::Error;

    fn from_str(text: &str) -> Result<Self> {
        let compact: String = text.split_whitespace().collect();
        let at = compact.find(['<', '>', '=']).context("a condition is a name, < or >, a value")?;
        let (name, rest) = compact.split_at(at);
        let comparisons = [
            ("<=", Comparison::LessOrEqual),
            (">=", Comparison::GreaterOrEqual),
            ("==", Comparison::Equal),
            ("<", Comparison::Less),
            (">", Comparison::Greater),
        ];
        let Some((comparison, value)) = comparisons
            .iter()
            .find_map(|(sign, comparison)| Some((*comparison, rest.strip_prefix(sign)?)))
        else {
            bail!("a condition compares by <, <=, >, >= or ==");
        };
        let metric = parse_metric(name)?;
        let bound = match metric {
            Metric::Time(..) => {
                let time = humantime::parse_duration(value)
                    .context("a time has a unit: 500us, 5ms, 1s")?;
                time.as_secs_f64() * 1_000.0
            }
            Metric::Rate | Metric::Deliveries => value.parse::<crate::args::Rate>()?.0,
            Metric::Reconnects => value.parse().context("a number")?,
        };
        Ok(Self { text: text.to_owned(), metric, comparison, bound })
    }
}

fn parse_metric(name: &str) -> Result<Metric> {
    let (of, point) = match name.split_once('.') {
        Some(("delivery", point)) => (Of::Delivery, point),
        Some(("last", point)) => (Of::Last, point),
        Some(("ack", point)) => (Of::Ack, point),
        Some(("lag", point)) => (Of::Lag, point),
        _ => (Of::Delivery, name),
    };
    let point = match point {
        "rate" => return Ok(Metric::Rate),
        "deliveries" => return Ok(Metric::Deliveries),
        "reconnects" => return Ok(Metric::Reconnects),
        "max" => Point::Max,
        "mean" => Point::Mean,
        _ => match point.strip_prefix('p').and_then(|percent| percent.parse::<f64>().ok()) {
            Some(percent) if (0.0..=100.0).contains(&percent) => Point::Percentile(percent),
            _ => bail!(
                "no such figure: p50 … p99.99, max, mean (also ack., last., lag. before them), \
                 rate, deliveries, reconnects"
            ),
        },
    };
    Ok(Metric::Time(of, point))
}

impl fmt::Display for Checked {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let met = if self.met { "met" } else { "MISSED" };
        write!(f, "{}: {met} ({:.3})", self.condition, self.value)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn measured() -> Measured {
        let mut measured = Measured::new();
        for milliseconds in 1..=100 {
            measured.delivery.record(milliseconds * 1_000_000);
        }
        measured.acked = 500;
        measured
    }

    #[track_caller]
    fn check(condition: &str, met: bool) {
        let checked = condition.parse::<Threshold>().unwrap().check(&measured(), 10.0);
        assert_eq!(checked.met, met, "{checked}");
    }

    #[test]
    fn conditions_are_compared_with_the_run() {
        check("p99<100ms", true);
        check("p99 < 99ms", false);
        check("delivery.p50<=51ms", true);
        check("max>=99ms", true);
        check("mean<10ms", false);
        check("rate>=50/s", true);
        check("rate>50/s", false);
        check("reconnects==0", true);
    }

    #[test]
    fn what_was_not_measured_meets_no_condition() {
        check("ack.p99<1s", false);
        check("ack.p99>=0s", false);
    }

    #[test]
    fn a_condition_that_says_nothing_is_refused() {
        for text in ["", "p99", "p99<", "p99<5", "p101<5ms", "speed<5ms", "<5ms", "p99=5ms"] {
            assert!(text.parse::<Threshold>().is_err(), "{text}");
        }
    }
}
