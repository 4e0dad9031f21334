//! What a run comes to: its exit status and why.

use std::time::Duration;

use serde::Serialize;

use crate::{audit::Findings, measure::Measured, threshold::Checked};

/// Behind the schedule by more than this part of the latency, the figures show the generator and
/// not the server.
const LAG_OF_LATENCY_MAX: f64 = 0.1;
/// Above this part of a processor the generator has no time to be on time.
const CPU_MAX: f64 = 0.9;
/// The part of the schedule that has to be sent.
const SENT_MIN: f64 = 0.99;

/// How a run ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Verdict {
    Passed,
    /// A promise was broken.
    AuditFailed,
    /// The figures mean nothing.
    Invalid,
    ThresholdMissed,
}

impl Verdict {
    /// What counts most comes first: a loss is a loss, at whatever rate.
    pub(crate) fn of(findings: &Findings, limits: &[String], thresholds: &[Checked]) -> Self {
        if !findings.is_clean() {
            Self::AuditFailed
        } else if !limits.is_empty() {
            Self::Invalid
        } else if thresholds.iter().any(|checked| !checked.met) {
            Self::ThresholdMissed
        } else {
            Self::Passed
        }
    }

    pub(crate) const fn exit_code(self) -> u8 {
        match self {
            Self::Passed => 0,
            Self::AuditFailed => 97,
            Self::Invalid => 98,
            Self::ThresholdMissed => 99,
        }
    }
}

/// Why the figures of a run mean nothing, if so.
pub(crate) fn limits(
    measured: &Measured,
    planned: u64,
    cpu: f64,
    lag_max: Duration,
) -> Vec<String> {
    let mut limits = Vec::new();
    let sent = measured.sent as f64 / (planned as f64).max(1.0);
    if sent < SENT_MIN {
        let (withheld, unsent) = (measured.withheld, measured.unsent);
        limits.push(format!(
            "{:.1} % of the schedule was sent: {withheld} messages were withheld because too many \
             of their publishers' were unanswered, {unsent} because the generator was too late",
            sent * 100.0
        ));
    }
    if cpu > CPU_MAX {
        limits.push(format!("the generator used {:.0} % of its processor", cpu * 100.0));
    }
    let milliseconds = |time: Duration| time.as_secs_f64() * 1_000.0;
    let lag_ms = milliseconds(measured.lag.percentile(99.0));
    let latency_ms = milliseconds(measured.delivery.percentile(99.0));
    if lag_ms > milliseconds(lag_max) && lag_ms > latency_ms * LAG_OF_LATENCY_MAX {
        limits.push(format!(
            "the generator was {lag_ms:.1} ms behind its schedule (p99), latency is {latency_ms:.1} ms"
        ));
    }
    limits
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::audit::{Audit, Breach};

    const LAG_MAX: Duration = Duration::from_millis(2);

    fn clean() -> Findings {
        Audit::new(0, 0).close()
    }

    #[test]
    fn the_gravest_finding_decides() {
        let mut lossy = clean();
        lossy.breaches.push((Breach::Lost, 1));
        let missed = [Checked { condition: "p99<1ms".to_owned(), value: 2.0, met: false }];
        let limits = ["slow".to_owned()];
        assert_eq!(Verdict::of(&lossy, &limits, &missed).exit_code(), 97);
        assert_eq!(Verdict::of(&clean(), &limits, &missed).exit_code(), 98);
        assert_eq!(Verdict::of(&clean(), &[], &missed).exit_code(), 99);
        assert_eq!(Verdict::of(&clean(), &[], &[]).exit_code(), 0);
    }

    #[test]
    fn a_run_is_valid_only_if_the_generator_kept_up() {
        let mut measured = Measured::new();
        measured.sent = 1_000;
        for _ in 0..1_000 {
            measured.delivery.record(20_000_000);
            measured.lag.record(1_500_000);
        }
        assert!(limits(&measured, 1_000, 0.5, LAG_MAX).is_empty());
        assert_eq!(limits(&measured, 1_000, 0.95, LAG_MAX).len(), 1, "no time");
        assert_eq!(limits(&measured, 2_000, 0.5, LAG_MAX).len(), 1, "not sent");
        for _ in 0..1_000 {
            measured.lag.record(3_000_000);
        }
        assert_eq!(limits(&measured, 1_000, 0.5, LAG_MAX).len(), 1, "behind");
    }
}
