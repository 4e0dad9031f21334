//! The command line of `chappe export`, `chappe import` and `chappe log adopt`: of what moves or
//! changes a log as a whole.

use std::path::PathBuf;

use bytesize::ByteSize;
use clap::Args;

/// Which log and store are meant.
#[derive(Debug, Args)]
pub(crate) struct Place {
    /// The TOML file of a server, which names log and store; environment and flags override it
    #[arg(long, value_name = "FILE", env = "CHAPPE_CONFIG")]
    pub(crate) config: Option<PathBuf>,
    /// The data directory, of an embedded server [default: ./chappe-data]
    #[arg(long, value_name = "DIR", env = "CHAPPE_DATA")]
    pub(crate) data: Option<PathBuf>,
}

#[derive(Debug, Args)]
#[command(after_help = "\
Stop the server first, or all brokers of a cluster. Whatever ends it, run it again: it goes on.
Afterwards the source answers reads and refuses changes, so that nothing is written that would
not be moved; --abort opens it again.")]
pub(crate) struct Export {
    #[command(flatten)]
    pub(crate) place: Place,
    /// The folder to write, empty or of the same export
    #[arg(long, value_name = "FOLDER", required_unless_present = "abort")]
    pub(crate) to: Option<PathBuf>,
    /// Give the export up: the source takes changes again
    #[arg(long, conflicts_with = "to")]
    pub(crate) abort: bool,
    /// How large a file of rows may grow
    #[arg(long, value_name = "SIZE", default_value = "64MiB")]
    pub(crate) file_size: ByteSize,
}

#[derive(Debug, Args)]
#[command(after_help = "\
The target must be new. In a cluster make the tables first (`chappe schema apply`); the topic is
made here. Whatever ends it, run it again: it goes on. A server refuses to start on a target that
is not finished.")]
pub(crate) struct Import {
    #[command(flatten)]
    pub(crate) place: Place,
    /// The folder that was exported
    #[arg(long, value_name = "FOLDER")]
    pub(crate) from: PathBuf,
    /// Change nothing: compare what is there with the folder, channel by channel
    #[arg(long)]
    pub(crate) verify: bool,
    /// How many nodes of Kafka have each record
    #[arg(long, value_name = "N", default_value = "3")]
    pub(crate) replicas: u32,
    /// How many of them have it before it is acknowledged
    #[arg(long, value_name = "N", default_value = "2")]
    pub(crate) min_insync: u32,
}

#[derive(Debug, Args)]
#[command(after_help = "\
Stop the server first, or all brokers of a cluster. What the store has stays as it is; what the log
still has behind it is brought into the store. Clients get `reset` and go on. Whatever ends it, run
it again: it goes on. A server refuses to start until it is done.")]
pub(crate) struct Adopt {
    #[command(flatten)]
    pub(crate) place: Place,
    /// Do it without asking
    #[arg(long)]
    pub(crate) yes: bool,
}
