//! `chappe-bench`: what Chappe costs above the least that the same work can cost.
//!
//! It runs `chappe serve` as anyone would, on one processor, loads it over real sockets from
//! another, and does the same with bare programs. It never reaches inside the server.

mod args;
mod certificate;
mod cpu;
mod floor;
mod host;
mod load;
mod measure;
mod metrics;
mod process;
mod report;
mod sample;
mod wire;

use std::{fs, path::PathBuf, process::ExitCode, time::Duration};

use anyhow::{Context, Result, ensure};
use clap::{Parser, ValueEnum};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use args::{Cli, Command, FloorArgs};
use cpu::Cores;
use host::Host;
use measure::{Effort, Measure, Setting};
use report::Report;

const ROUNDS: u8 = 3;
/// Files that a process needs beside its connections.
const OTHER_FILES: u64 = 500;

fn main() -> ExitCode {
    // One provider for everything that speaks TLS; only a second call could fail.
    drop(rustls::crypto::aws_lc_rs::default_provider().install_default());
    let cli = Cli::parse();
    let passed = match cli.command {
        Some(Command::Floor { floor }) => run_floor(floor).map(|()| true),
        None => run(&cli.run),
    };
    match passed {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("chappe-bench: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run_floor(floor: FloorArgs) -> Result<()> {
    match floor {
        FloorArgs::Websocket => floor::websocket::run(),
        FloorArgs::Append { dir, record_bytes, batch, ms } => {
            floor::append::run(&dir, record_bytes, batch, Duration::from_millis(ms))
        }
        FloorArgs::Quic { cert, key } => floor::quic::run(&cert, &key),
    }
}

/// Measures, prints, and says whether all goals are at least near.
fn run(args: &args::Run) -> Result<bool> {
    let setting = setting(args)?;
    cpu::pin(setting.cores.load)?;
    let host = Host::describe(&setting.dir)?;
    let chosen = match &*args.only {
        [] => Measure::value_variants(),
        only => only,
    };
    let mut rows = Vec::new();
    for measure in chosen {
        let name = measure.to_possible_value().map(|value| value.get_name().to_owned());
        let name = name.unwrap_or_default();
        eprintln!("{name} …");
        rows.extend(measure.run(&setting).with_context(|| name)?);
    }
    let report = Report { host, rows };
    println!("{}", report.table());
    if let Some(path) = &args.json {
        let text = serde_json::to_string_pretty(&report)?;
        fs::write(path, text + "\n").with_context(|| path.display().to_string())?;
    }
    Ok(report.passed())
}

fn setting(args: &args::Run) -> Result<Setting> {
    allow_files(u64::from(args.idle))?;
    let beside = std::env::current_exe()?.parent().map(PathBuf::from).unwrap_or_default();
    let chappe = args.chappe.clone().unwrap_or_else(|| beside.join("chappe"));
    ensure!(chappe.is_file(), "{}: build it first, or name it by --chappe", chappe.display());
    let effort = if args.quick { Effort::Quick } else { Effort::Full };
    let rounds = args.rounds.unwrap_or(if args.quick { 1 } else { ROUNDS });
    Ok(Setting {
        cores: Cores::choose()?,
        chappe,
        dir: args.dir.clone().unwrap_or(beside),
        rounds: rounds.into(),
        effort,
        idle: args.idle as usize,
    })
}

/// Lets this process, and the servers that it starts, open a file for each connection.
fn allow_files(connections: u64) -> Result<()> {
    let wanted = connections + OTHER_FILES;
    let limit = getrlimit(Resource::Nofile);
    ensure!(
        limit.maximum.is_none_or(|most| most >= wanted),
        "{wanted} open files are needed, see `ulimit -Hn`; or ask for fewer by --idle"
    );
    Ok(setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, ..limit })?)
}
