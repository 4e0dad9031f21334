//! The measurements that live in the crates that they measure: they need no server, and each
//! brings its floor. `cargo bench` and `cargo test` run them too; here they join the table.

use std::process::{Command, Stdio};

use anyhow::{Context, Result, ensure};
use serde::Deserialize;

use super::{Effort, Setting, progress};
use crate::{
    cpu,
    report::{Goal, Round, Row},
};

/// The test that counts, and what its line begins with.
const ALLOCATIONS_TEST: &str = "a_publish_allocates_the_same_for_ten_subscribers_and_a_thousand";
const ALLOCATIONS_LINE: &str = "allocations of 50 events for 10 and for 1000 subscribers: ";

/// What `protocol/benches/codec.rs` prints.
#[derive(Debug, Deserialize)]
struct CodecFigure {
    name: String,
    floor_ns: f64,
    ours_ns: f64,
}

/// Encode and decode, against plain serde without our checks.
pub(crate) fn codec(setting: &Setting) -> Result<Vec<Row>> {
    let out = bench(setting, "chappe-protocol", "codec", &["--json"])?;
    let figures: Vec<CodecFigure> = serde_json::from_str(&out).context("what codec printed")?;
    let row = |figure: CodecFigure| {
        let name = figure.name.replace('_', " ");
        let round = Round { floor: Some(figure.floor_ns), ours: figure.ours_ns };
        Row::time(&name, "ns", Goal::None, vec![round])
    };
    Ok(figures.into_iter().map(row).collect())
}

/// Appends to the embedded log, against a bare file.
pub(crate) fn log_append(setting: &Setting) -> Result<Vec<Row>> {
    let seconds = match setting.effort {
        Effort::Full => "0.5",
        Effort::Quick => "0.1",
    };
    let dir = setting.dir.to_string_lossy();
    let out = bench(setting, "chappe-storage", "log_append", &[seconds, &dir])?;
    let rows: Vec<_> = out.lines().filter_map(append_row).collect();
    ensure!(rows.len() == 3, "log_append printed another table than expected: {out}");
    Ok(rows)
}

/// Reads a line of its table: in flight, the floor's records a second and µs of CPU, the log's.
fn append_row(line: &str) -> Option<Row> {
    let fields: Option<Vec<f64>> =
        line.split_whitespace().map(|field| field.parse().ok()).collect();
    let [in_flight, floor, _, ours, ..] = fields?[..] else { return None };
    let round = Round { floor: Some(floor), ours };
    let name = format!("log append, {in_flight} in flight");
    Some(Row::rate(&name, "records/s", Goal::RatioAtLeast(0.6), vec![round]))
}

/// Allocations of the gateway for 50 events, at 10 and at 1,000 subscribers: counted, not timed.
pub(crate) fn allocations() -> Result<Vec<Row>> {
    progress("building and running the gateway's test that counts");
    let mut command = cargo();
    command.args(["test", "--quiet", "--package", "chappe-gateway", "--lib", ALLOCATIONS_TEST]);
    let out = output(command.args(["--", "--nocapture"]))?;
    let counts = out.lines().find_map(|line| {
        let (few, many) = line.split_once(ALLOCATIONS_LINE)?.1.split_once(' ')?;
        Some((few.parse().ok()?, many.trim().parse().ok()?))
    });
    let (few, many) = counts.context("the gateway's test does not tell its counts")?;
    let round = Round { floor: Some(few), ours: many };
    let name = "allocations of 50 events, 1,000 subscribers against 10";
    Ok(vec![Row::size(name, "", Goal::RatioAtMost(1.0), vec![round])])
}

/// Runs a benchmark on the server's processor.
fn bench(setting: &Setting, package: &str, bench: &str, args: &[&str]) -> Result<String> {
    let named = ["bench", "--quiet", "--package", package, "--bench", bench];
    progress(&format!("building and running {bench}"));
    output(cargo().args(named).arg("--no-run"))?;
    cpu::pin(setting.cores.server)?;
    let out = output(cargo().args(named).arg("--").args(args));
    cpu::pin(setting.cores.load)?;
    out
}

fn cargo() -> Command {
    Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()))
}

fn output(command: &mut Command) -> Result<String> {
    let out = command.stderr(Stdio::inherit()).output().context("cargo")?;
    ensure!(out.status.success(), "cargo failed: {}", out.status);
    Ok(String::from_utf8(out.stdout)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_of_figures_is_read_and_a_heading_is_not() {
        let row =
            append_row("       32        20000        0.52        15000  1.1  32.0  0.75").unwrap();
        assert_eq!((row.floor, row.ours, row.ratio), (Some(20_000.0), 15_000.0, Some(0.75)));
        assert!(append_row("in flight    records/s  cpu us/rec").is_none());
        assert!(append_row("").is_none());
    }
}
