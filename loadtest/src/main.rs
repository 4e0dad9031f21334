//! `chappe-load`: loads a server in an open loop and audits every delivery in the same run.
//!
//! It knows the server only by its wire protocol. One thread drives all users; the figures of a
//! run that this thread limited are refused.

mod args;
mod audit;
mod environment;
mod generator;
mod ledger;
mod measure;
mod payload;
mod plan;
mod progress;
mod random;
mod readback;
mod reckoning;
mod report;
mod run;
mod setup;
mod threshold;
mod ticker;
mod token;
mod user;
mod verdict;

use std::process::ExitCode;

use anyhow::Result;
use clap::Parser;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use args::{Cli, Command};
use plan::Scenario;

/// Events between two looks at the sockets: fewer than the runtime's default, so that what has
/// arrived is stamped soon.
const EVENT_INTERVAL: u32 = 31;

fn main() -> ExitCode {
    // One provider for everything that speaks TLS; only a second call could fail.
    drop(rustls::crypto::aws_lc_rs::default_provider().install_default());
    let cli = Cli::parse();
    match run(cli) {
        Ok(code) => code.into(),
        Err(error) => {
            eprintln!("chappe-load: {error:#}");
            exit_code(&error).into()
        }
    }
}

fn run(cli: Cli) -> Result<u8> {
    raise_file_limit();
    let runtime = tokio::runtime::Builder::new_current_thread()
        .event_interval(EVENT_INTERVAL)
        .enable_all()
        .build()?;
    let tasks = tokio::task::LocalSet::new();
    tasks.block_on(&runtime, async {
        match cli.command {
            Command::Fanout(args) => run::run(Scenario::Fanout, args).await,
            Command::Chat(args) => run::run(Scenario::Chat, args).await,
            Command::Audit(args) => reckoning::audit(args).await,
        }
    })
}

/// Every user is a socket: takes as many files as the system allows.
fn raise_file_limit() {
    let limit = getrlimit(Resource::Nofile);
    let most = Rlimit { current: limit.maximum, maximum: limit.maximum };
    // What is refused shows itself when a socket cannot be opened.
    let _ = setrlimit(Resource::Nofile, most);
}

fn exit_code(error: &anyhow::Error) -> u8 {
    if error.is::<run::Usage>() {
        return 2;
    }
    match error.downcast_ref::<chappe_client::Error>() {
        Some(chappe_client::Error::Config(_)) => 2,
        Some(error) if error.is_unreachable() => 3,
        _ => 1,
    }
}
