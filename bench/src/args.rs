//! The command line.

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand};

use crate::measure::Measure;

/// What Chappe costs, each figure as a ratio to a bare program that does the same work, measured in
/// the same run. Exits with 1 if a figure is below 0.8 of its goal.
#[derive(Debug, Parser)]
#[command(name = "chappe-bench", version, args_conflicts_with_subcommands = true)]
pub(crate) struct Cli {
    #[command(flatten)]
    pub(crate) run: Run,
    #[command(subcommand)]
    pub(crate) command: Option<Command>,
}

#[derive(Debug, Args)]
pub(crate) struct Run {
    /// Measure this alone (repeatable)
    #[arg(long, value_enum, value_name = "NAME")]
    pub(crate) only: Vec<Measure>,
    /// One round of a fifth of the work: to see that it runs, not to publish
    #[arg(long)]
    pub(crate) quick: bool,
    /// Interleaved rounds, of which the best counts [default: 3]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u8).range(1..=99))]
    pub(crate) rounds: Option<u8>,
    /// Idle connections in the measurement of memory
    #[arg(long, value_name = "N", default_value = "10000", value_parser = clap::value_parser!(u32).range(100..=60_000))]
    pub(crate) idle: u32,
    /// Write the figures here as well
    #[arg(long, value_name = "FILE")]
    pub(crate) json: Option<PathBuf>,
    /// The program to measure [default: the one beside this one]
    #[arg(long, value_name = "PATH")]
    pub(crate) chappe: Option<PathBuf>,
    /// Where servers and floors keep their data for the time being; its disk is the one that is
    /// measured [default: beside this program]
    #[arg(long, value_name = "DIR")]
    pub(crate) dir: Option<PathBuf>,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Run one of the bare programs that figures are compared with
    Floor {
        #[command(subcommand)]
        floor: FloorArgs,
    },
}

#[derive(Debug, Subcommand)]
pub(crate) enum FloorArgs {
    /// An epoll loop that upgrades to WebSocket and sends what one connection sends to all others
    Websocket,
    /// Append batches to a file, each with an fdatasync
    Append {
        /// Where
        #[arg(long, value_name = "DIR")]
        dir: PathBuf,
        /// Size of a record
        #[arg(long, value_name = "N", default_value_t = 256)]
        record_bytes: usize,
        /// Records in a batch
        #[arg(long, value_name = "N", default_value_t = 1)]
        batch: usize,
        /// For how long
        #[arg(long, value_name = "N", default_value_t = 1_000)]
        ms: u64,
    },
    /// A quinn server with small windows that holds idle connections
    Quic {
        /// Its certificate, PEM
        #[arg(long, value_name = "FILE")]
        cert: PathBuf,
        /// The certificate's key, PEM
        #[arg(long, value_name = "FILE")]
        key: PathBuf,
    },
}
