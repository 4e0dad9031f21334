//! The report of a run, for people and for programs.

use std::{fmt::Write, fs, path::Path};

use anyhow::{Context, Result};
use serde::Serialize;

use crate::{
    audit::Findings,
    environment::Environment,
    measure::{Measured, Summary},
    threshold::Checked,
    verdict::Verdict,
};

/// From this part of the machine's time on it is said what its host withheld.
const STOLEN_SHOWN: f64 = 0.01;

/// Everything that a run has to say.
#[derive(Debug, Serialize)]
pub(crate) struct Report {
    pub(crate) scenario: &'static str,
    pub(crate) urls: Vec<String>,
    pub(crate) seed: u64,
    pub(crate) run: u64,
    pub(crate) users: u32,
    pub(crate) channels: u32,
    pub(crate) rate_per_s: f64,
    pub(crate) payload_bytes: u32,
    /// How long was published.
    pub(crate) seconds: f64,
    /// Ended by the user before its time.
    pub(crate) interrupted: bool,
    pub(crate) environment: Environment,
    pub(crate) counts: Counts,
    pub(crate) latency: Latencies,
    pub(crate) audit: Findings,
    /// Part of one processor that the generator used.
    pub(crate) generator_cpu: f64,
    /// Part of this machine's processor time that its host gave to others; none where Linux does
    /// not tell it.
    pub(crate) stolen_cpu: Option<f64>,
    /// Why the figures mean nothing, if so.
    pub(crate) limits: Vec<String>,
    pub(crate) thresholds: Vec<Checked>,
    pub(crate) verdict: Verdict,
    pub(crate) exit_code: u8,
}

/// The counts of a run.
#[derive(Debug, Serialize)]
pub(crate) struct Counts {
    pub(crate) planned: u64,
    pub(crate) sent: u64,
    pub(crate) withheld: u64,
    pub(crate) unsent: u64,
    pub(crate) acked: u64,
    pub(crate) deliveries: u64,
    pub(crate) retried: u64,
    pub(crate) reconnects: u64,
}

/// The distributions of a run, all counted from the intended time.
#[derive(Debug, Serialize)]
pub(crate) struct Latencies {
    pub(crate) delivery: Summary,
    pub(crate) last_follower: Summary,
    pub(crate) ack: Summary,
    pub(crate) schedule_lag: Summary,
}

impl Counts {
    pub(crate) fn of(measured: &Measured, planned: u64) -> Self {
        Self {
            planned,
            sent: measured.sent,
            withheld: measured.withheld,
            unsent: measured.unsent,
            acked: measured.acked,
            deliveries: measured.deliveries,
            retried: measured.retried,
            reconnects: measured.reconnects,
        }
    }
}

impl Latencies {
    pub(crate) fn of(measured: &Measured) -> Self {
        Self {
            delivery: measured.delivery.summary(),
            last_follower: measured.last.summary(),
            ack: measured.ack.summary(),
            schedule_lag: measured.lag.summary(),
        }
    }
}

impl Report {
    /// Writes it as JSON.
    pub(crate) fn write_json(&self, path: &Path) -> Result<()> {
        let text = serde_json::to_string_pretty(self)?;
        fs::write(path, text + "\n")
            .with_context(|| format!("cannot write the report {}", path.display()))
    }

    /// The words of it.
    pub(crate) fn text(&self) -> String {
        let mut out = String::new();
        // Writing to a string does not fail.
        let _ = self.write_text(&mut out);
        out
    }

    fn write_text(&self, out: &mut String) -> std::fmt::Result {
        let Counts { planned, sent, acked, deliveries, retried, reconnects, .. } = self.counts;
        writeln!(
            out,
            "{}: {} users, {} channels, {}/s for {:.1} s{}, {}",
            self.scenario,
            self.users,
            self.channels,
            self.rate_per_s,
            self.seconds,
            if self.interrupted { " (interrupted)" } else { "" },
            self.urls.join(" ")
        )?;
        writeln!(
            out,
            "  sent {sent} of {planned}, acked {acked} ({:.0}/s), delivered {deliveries} ({:.0}/s), \
             retried {retried}, reconnects {reconnects}",
            acked as f64 / self.seconds,
            deliveries as f64 / self.seconds
        )?;
        writeln!(
            out,
            "  {:<14} {:>9} {:>9} {:>9} {:>9} {:>9}",
            "ms", "p50", "p90", "p99", "p99.9", "max"
        )?;
        let latency = &self.latency;
        write_row(out, "delivery", &latency.delivery)?;
        write_row(out, "last follower", &latency.last_follower)?;
        write_row(out, "ack", &latency.ack)?;
        write_row(out, "schedule lag", &latency.schedule_lag)?;
        write!(out, "  generator: {:.0} % of a processor", self.generator_cpu * 100.0)?;
        match self.stolen_cpu {
            Some(stolen) if stolen >= STOLEN_SHOWN => writeln!(
                out,
                "; the host of this virtual machine withheld {:.0} % of its processor time",
                stolen * 100.0
            )?,
            _ => writeln!(out)?,
        }
        self.write_audit(out)?;
        for limit in &self.limits {
            writeln!(out, "  invalid: {limit}")?;
        }
        for checked in &self.thresholds {
            writeln!(out, "  {checked}")?;
        }
        let words = match self.verdict {
            Verdict::Passed => "passed",
            Verdict::AuditFailed => "FAILED: a promise was broken",
            Verdict::Invalid => "INVALID: the figures mean nothing",
            Verdict::ThresholdMissed => "FAILED: a threshold was missed",
        };
        writeln!(out, "{words}")
    }

    fn write_audit(&self, out: &mut String) -> std::fmt::Result {
        let audit = &self.audit;
        writeln!(
            out,
            "  audit: {} acked, {} refused, {} unknown ({} of them there), {} of {} deliveries",
            audit.acked,
            audit.refused,
            audit.unknown,
            audit.unknown_but_there,
            audit.deliveries_done,
            audit.deliveries_due
        )?;
        for (breach, count) in &audit.breaches {
            writeln!(out, "  audit: {count} {}", breach.name())?;
        }
        for finding in &audit.findings {
            writeln!(out, "    {finding}")?;
        }
        Ok(())
    }
}

fn write_row(out: &mut String, name: &str, summary: &Summary) -> std::fmt::Result {
    let ms = |micros: f64| micros / 1_000.0;
    writeln!(
        out,
        "  {name:<14} {:>9.3} {:>9.3} {:>9.3} {:>9.3} {:>9.3}",
        ms(summary.p50_us),
        ms(summary.p90_us),
        ms(summary.p99_us),
        ms(summary.p99_9_us),
        ms(summary.max_us)
    )
}
