//! The benchmarks that live in the crates that they measure: they need no server, and each brings
//! its floor. `cargo bench` runs them too; here they join the table.

use std::process::{Command, Stdio};

use anyhow::{Context, Result, ensure};
use serde::Deserialize;

use super::{Setting, progress};
use crate::{
    cpu,
    report::{Goal, Round, Row},
};

/// What `protocol/benches/codec.rs` prints.
#[derive(Debug, Deserialize)]
struct CodecFigure {
    name: String,
    floor_ns: f64,
    ours_ns: f64,
}

/// Encode and decode, against plain serde without our checks.
pub(crate) fn codec(setting: &Setting) -> Result<Vec<Row>> {
    let figures: Vec<CodecFigure> = run(setting, "chappe-protocol", "codec")?;
    let row = |figure: CodecFigure| {
        let name = figure.name.replace('_', " ");
        let round = Round { floor: Some(figure.floor_ns), ours: figure.ours_ns };
        Row::time(&name, "ns", Goal::None, vec![round])
    };
    Ok(figures.into_iter().map(row).collect())
}

/// Runs one with `--json` on the server's processor.
fn run<T: for<'de> Deserialize<'de>>(
    setting: &Setting,
    package: &str,
    bench: &str,
) -> Result<Vec<T>> {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let mut command = Command::new(&cargo);
    command.args(["bench", "--quiet", "--package", package, "--bench", bench, "--no-run"]);
    ensure!(command.status()?.success(), "cargo bench --bench {bench} does not build");
    progress(&format!("running {package}'s {bench}"));
    let mut command = Command::new(&cargo);
    command.args(["bench", "--quiet", "--package", package, "--bench", bench, "--", "--json"]);
    cpu::pin(setting.cores.server)?;
    let out = command.stderr(Stdio::inherit()).output();
    cpu::pin(setting.cores.load)?;
    let out = out.context("cargo")?;
    ensure!(out.status.success(), "cargo bench --bench {bench} failed");
    serde_json::from_slice(&out.stdout).with_context(|| format!("what {bench} printed"))
}
