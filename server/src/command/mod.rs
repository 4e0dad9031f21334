//! The tools: each a file named after its command.

mod adopt;
mod channel;
mod check;
#[cfg(feature = "clustered")]
mod cluster;
mod doctor;
mod export;
mod history;
mod import;
mod output;
mod overview;
mod presence;
mod send;
mod session;
mod tail;
pub(crate) mod token;

use std::process::ExitCode;

use crate::{
    args::{self, Command, ConfigAction, LogAction},
    serve,
};

/// Why a command failed, by what its caller can do about it.
pub(crate) enum Failure {
    /// The server refused it.
    Refused(chappe_client::Error),
    /// The command line or the configuration is wrong.
    Usage(anyhow::Error),
    /// The server was not reached.
    Unreachable(String),
    /// Anything else.
    Failed(anyhow::Error),
}

impl Failure {
    /// Says it on standard error and turns it into an exit status.
    pub(crate) fn report(self) -> ExitCode {
        let (text, status) = match self {
            Self::Refused(error) => (error.to_string(), 1),
            Self::Usage(error) => (format!("{error:#}"), 2),
            Self::Unreachable(what) => (what, 3),
            Self::Failed(error) => (format!("{error:#}"), 1),
        };
        eprintln!("chappe: {text}");
        ExitCode::from(status)
    }
}

impl From<anyhow::Error> for Failure {
    fn from(error: anyhow::Error) -> Self {
        Self::Failed(error)
    }
}

impl From<std::io::Error> for Failure {
    fn from(error: std::io::Error) -> Self {
        Self::Failed(error.into())
    }
}

/// Runs a command to its end.
pub(crate) fn run(command: Command) -> Result<(), Failure> {
    match command {
        Command::Serve(args) => serve::run(&args),
        Command::Token(args) => Ok(token::run(&args)?),
        Command::Config(args::ConfigArgs { action: ConfigAction::Check { config } }) => {
            check::run(config.as_deref())
        }
        Command::Version => {
            println!("chappe {}", env!("CARGO_PKG_VERSION"));
            Ok(())
        }
        Command::Channel(args) => session::block_on(channel::run(args)),
        Command::Send(args) => session::block_on(send::run(args)),
        Command::Tail(args) => session::block_on(tail::run(args)),
        Command::History(args) => session::block_on(history::run(args)),
        Command::Presence(args) => session::block_on(presence::run(args)),
        Command::Log(args) => match args.action {
            LogAction::Adopt(args) => adopt::run(&args),
            #[cfg(feature = "clustered")]
            action => session::block_on(cluster::log(action)),
        },
        #[cfg(feature = "clustered")]
        Command::Blobs(args) => session::block_on(cluster::blobs(args.action)),
        #[cfg(feature = "clustered")]
        Command::Schema(args) => session::block_on(cluster::schema(args.action)),
        Command::Cluster(args) => session::block_on(overview::run(args)),
        Command::Export(args) => export::run(&args),
        Command::Import(args) => import::run(&args),
        Command::Doctor(args) => session::block_on(doctor::run(args)),
    }
}
