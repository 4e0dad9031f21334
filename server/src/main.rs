//! `chappe`: the server and its tools in one binary.
//!
//! The only place that names concrete backends and transports; it holds no message logic.

mod admin;
mod args;
mod certificate;
mod cluster;
mod command;
mod config;
mod data_dir;
mod dependencies;
mod serve;
mod telemetry;

use std::process::ExitCode;

use clap::Parser;
use tikv_jemallocator::Jemalloc;

#[global_allocator]
static ALLOCATOR: Jemalloc = Jemalloc;

fn main() -> ExitCode {
    // One provider for everything that speaks TLS; only a second call could fail.
    drop(rustls::crypto::aws_lc_rs::default_provider().install_default());
    let cli = args::Cli::parse();
    match command::run(cli.command) {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => failure.report(),
    }
}
