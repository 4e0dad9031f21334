//! The command line: what can be typed, and what its help says.

pub(crate) mod migration;

use std::{net::SocketAddr, path::PathBuf, time::Duration};

use clap::{Args, Parser, Subcommand, ValueEnum};

use crate::config::cluster::Role;

/// A self-hosted, distributed message broker for channel messaging.
#[derive(Debug, Parser)]
#[command(
    name = "chappe",
    version,
    arg_required_else_help = true,
    after_help = "\
Start here:
  chappe serve                          everything in one process, data in ./chappe-data
  export CHAPPE_TOKEN=$(chappe token --user alice)
  chappe channel create general
  chappe tail general                   in one terminal
  chappe send general 'Hello, world'    in another

Exit status: 0 done, 1 refused (the code is printed), 2 wrong usage, 3 server not reached."
)]
pub(crate) struct Cli {
    #[command(subcommand)]
    pub(crate) command: Command,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Run the server
    Serve(Serve),
    /// Print a token to sign in with (development sign-in only)
    Token(Token),
    /// Create, list and manage channels
    Channel(Channel),
    /// Publish messages
    Send(Send),
    /// Print a channel's events as they happen
    Tail(Tail),
    /// Print a channel's messages
    History(History),
    /// Ask which users are connected
    Presence(Presence),
    /// Check the configuration
    Config(ConfigArgs),
    /// Make or check the topic of a cluster's log; take over a log that was restored or cut
    Log(Log),
    /// Make or check the tables of a cluster's store
    #[cfg(feature = "clustered")]
    Schema(Schema),
    /// Make the bucket of a cluster's files
    #[cfg(feature = "clustered")]
    Blobs(BlobsArgs),
    /// Show a cluster: who leads what, lag, gateways and their connections
    Cluster(Cluster),
    /// Write everything into a folder, to be imported elsewhere; changes are refused from then on
    Export(migration::Export),
    /// Read an exported folder into a new log and store
    Import(migration::Import),
    /// Look for what would go wrong: limits of this machine, the data directory, the server
    Doctor(Doctor),
    /// Print the version
    Version,
}

#[derive(Debug, Args)]
pub(crate) struct Serve {
    /// Where everything is kept; made if it is not there
    #[arg(long, value_name = "DIR", env = "CHAPPE_DATA")]
    pub(crate) data: Option<PathBuf>,
    /// HTTP, WebSocket and the page (TCP) [default: 127.0.0.1:7400]
    #[arg(long, value_name = "ADDR")]
    pub(crate) listen: Option<SocketAddr>,
    /// QUIC (UDP) [default: the same as --listen]
    #[arg(long, value_name = "ADDR")]
    pub(crate) quic_listen: Option<SocketAddr>,
    /// Health and metrics [default: 127.0.0.1:7401]
    #[arg(long, value_name = "ADDR")]
    pub(crate) admin_listen: Option<SocketAddr>,
    /// A part to run alone, in a cluster (repeatable) [default: all]
    #[arg(long = "role", value_name = "ROLE", value_enum)]
    pub(crate) roles: Vec<Role>,
    /// Where a broker that runs by itself takes gateways [default: 127.0.0.1:7402]
    #[arg(long, value_name = "ADDR")]
    pub(crate) uplink_listen: Option<SocketAddr>,
    /// A TOML file; environment (CHAPPE_LOG__KEEP=3d) and flags override it
    #[arg(long, value_name = "FILE", env = "CHAPPE_CONFIG")]
    pub(crate) config: Option<PathBuf>,
    /// A public channel that shall exist (repeatable)
    #[arg(long = "channel", value_name = "NAME")]
    pub(crate) channels: Vec<String>,
}

#[derive(Debug, Args)]
pub(crate) struct Token {
    /// The data directory of the server that shall accept it
    #[arg(long, value_name = "DIR", env = "CHAPPE_DATA", default_value = "chappe-data")]
    pub(crate) data: PathBuf,
    /// Who signs in
    #[arg(long, value_name = "NAME")]
    pub(crate) user: String,
    /// How long it is good for
    #[arg(long, value_name = "TIME", default_value = "1h", value_parser = humantime::parse_duration)]
    pub(crate) ttl: Duration,
    /// Make it an administrator's
    #[arg(long)]
    pub(crate) admin: bool,
}

/// How to reach a server and how to print.
#[derive(Debug, Clone, Args)]
pub(crate) struct Reach {
    /// ws://, wss://, quic:// or http(s)://
    #[arg(long, value_name = "URL", env = "CHAPPE_URL", default_value = "ws://127.0.0.1:7400")]
    pub(crate) url: String,
    /// The token to sign in with
    #[arg(long, value_name = "TOKEN", env = "CHAPPE_TOKEN", hide_env_values = true)]
    pub(crate) token: Option<String>,
    /// Trust servers that this certificate authority (PEM) vouches for
    #[arg(long, value_name = "FILE", env = "CHAPPE_CA")]
    pub(crate) ca: Option<PathBuf>,
    /// Trust the one server whose certificate has this digest (sha256:…)
    #[arg(long, value_name = "DIGEST", env = "CHAPPE_FINGERPRINT", conflicts_with = "ca")]
    pub(crate) fingerprint: Option<String>,
    /// One JSON object a line instead of text for people
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Debug, Args)]
pub(crate) struct Channel {
    #[command(flatten)]
    pub(crate) reach: Reach,
    #[command(subcommand)]
    pub(crate) action: ChannelAction,
}

/// The kinds of channel that can be made from the command line.
#[derive(Debug, Clone, Copy, ValueEnum)]
pub(crate) enum Kind {
    Public,
    Private,
    Announcement,
    Direct,
    Group,
}

/// A member's role.
#[derive(Debug, Clone, Copy, ValueEnum)]
pub(crate) enum RoleArg {
    Owner,
    Admin,
    Moderator,
    Member,
}

#[derive(Debug, Subcommand)]
pub(crate) enum ChannelAction {
    /// Make a channel and become its owner
    Create {
        /// Its name (none for direct and group)
        name: Option<String>,
        /// Who may find and join it
        #[arg(long, value_enum, default_value = "public")]
        kind: Kind,
        /// Its subject line
        #[arg(long)]
        topic: Option<String>,
        /// Members beside you, by user id (repeatable)
        #[arg(long = "with", value_name = "USER")]
        members: Vec<String>,
    },
    /// List the channels that you are a member of
    List,
    /// Show a channel
    Show {
        /// Id or name
        channel: String,
    },
    /// Become a member
    Join {
        /// Id or name
        channel: String,
    },
    /// Stop being a member
    Leave {
        /// Id or name
        channel: String,
    },
    /// List a channel's members
    Members {
        /// Id or name
        channel: String,
    },
    /// Add a user
    Add {
        /// Id or name
        channel: String,
        /// The user's id
        user: String,
        /// What he may do
        #[arg(long, value_enum)]
        role: Option<RoleArg>,
    },
    /// Remove a member
    Remove {
        /// Id or name
        channel: String,
        /// The user's id
        user: String,
    },
    /// Change a member's role
    Role {
        /// Id or name
        channel: String,
        /// The user's id
        user: String,
        /// What he may do
        #[arg(value_enum)]
        role: RoleArg,
    },
    /// Change a channel's settings
    Update {
        /// Id or name
        channel: String,
        /// The new name
        #[arg(long)]
        name: Option<String>,
        /// The new subject line, empty to clear it
        #[arg(long)]
        topic: Option<String>,
        /// The least time between two messages of a member, 0s for none
        #[arg(long, value_name = "TIME", value_parser = humantime::parse_duration)]
        slow_mode: Option<Duration>,
    },
    /// Archive a channel
    Archive {
        /// Id or name
        channel: String,
    },
    /// Take a channel out of the archive
    Unarchive {
        /// Id or name
        channel: String,
    },
    /// Delete a channel for good
    Delete {
        /// Id or name
        channel: String,
    },
}

#[derive(Debug, Args)]
pub(crate) struct Send {
    #[command(flatten)]
    pub(crate) reach: Reach,
    /// Id or name
    pub(crate) channel: String,
    /// The text; without it, one message a line from standard input
    pub(crate) text: Option<String>,
    /// How many messages may wait for their acknowledgement at once
    #[arg(long, value_name = "N", default_value = "64", value_parser = clap::value_parser!(u16).range(1..=1024))]
    pub(crate) in_flight: u16,
}

#[derive(Debug, Args)]
pub(crate) struct Tail {
    #[command(flatten)]
    pub(crate) reach: Reach,
    /// Id or name
    pub(crate) channel: String,
    /// Start with the events after this revision, 0 for all; without it, with what happens now
    #[arg(long, value_name = "REV")]
    pub(crate) from: Option<u64>,
    /// Stop after this many events
    #[arg(long, value_name = "N")]
    pub(crate) count: Option<u64>,
}

#[derive(Debug, Args)]
pub(crate) struct History {
    #[command(flatten)]
    pub(crate) reach: Reach,
    /// Id or name
    pub(crate) channel: String,
    /// Messages below this number
    #[arg(long, value_name = "SEQ")]
    pub(crate) before: Option<u64>,
    /// Messages above this number
    #[arg(long, value_name = "SEQ", conflicts_with = "before")]
    pub(crate) after: Option<u64>,
    /// Messages around this number
    #[arg(long, value_name = "SEQ", conflicts_with_all = ["before", "after"])]
    pub(crate) around: Option<u64>,
    /// At most this many
    #[arg(long, value_name = "N", default_value = "50", value_parser = clap::value_parser!(u32).range(1..=200))]
    pub(crate) limit: u32,
}

#[derive(Debug, Args)]
pub(crate) struct Presence {
    #[command(flatten)]
    pub(crate) reach: Reach,
    /// Users by their ids, at most 100
    #[arg(required = true, num_args = 1..=100)]
    pub(crate) users: Vec<String>,
}

#[derive(Debug, Args)]
pub(crate) struct ConfigArgs {
    #[command(subcommand)]
    pub(crate) action: ConfigAction,
}

#[derive(Debug, Subcommand)]
pub(crate) enum ConfigAction {
    /// Read the configuration as `serve` would and print what is in force
    Check {
        /// The TOML file
        #[arg(long, value_name = "FILE", env = "CHAPPE_CONFIG")]
        config: Option<PathBuf>,
    },
}

#[derive(Debug, Args)]
pub(crate) struct Log {
    #[command(subcommand)]
    pub(crate) action: LogAction,
}

#[derive(Debug, Subcommand)]
pub(crate) enum LogAction {
    /// Take over a log that was made anew, cut or restored, as it is
    Adopt(migration::Adopt),
    /// Make the topic and tie it to the store; changes nothing if that is done
    #[cfg(feature = "clustered")]
    Create {
        /// The TOML file
        #[arg(long, value_name = "FILE", env = "CHAPPE_CONFIG")]
        config: Option<PathBuf>,
        /// How many nodes of Kafka have each record
        #[arg(long, value_name = "N", default_value = "3")]
        replicas: u32,
        /// How many of them have it before it is acknowledged
        #[arg(long, value_name = "N", default_value = "2")]
        min_insync: u32,
    },
    /// Say what is wrong with the topic, and which command mends it
    #[cfg(feature = "clustered")]
    Check {
        /// The TOML file
        #[arg(long, value_name = "FILE", env = "CHAPPE_CONFIG")]
        config: Option<PathBuf>,
    },
}

#[cfg(feature = "clustered")]
#[derive(Debug, Args)]
pub(crate) struct Schema {
    #[command(subcommand)]
    pub(crate) action: SchemaAction,
}

#[cfg(feature = "clustered")]
#[derive(Debug, Subcommand)]
pub(crate) enum SchemaAction {
    /// Make what is missing and bring the rest up to date
    Apply {
        /// The TOML file
        #[arg(long, value_name = "FILE", env = "CHAPPE_CONFIG")]
        config: Option<PathBuf>,
        /// Make the keyspace, with so many copies of each row in every data centre
        #[arg(long, value_name = "N")]
        replicas: Option<u32>,
    },
    /// Say what differs
    Check {
        /// The TOML file
        #[arg(long, value_name = "FILE", env = "CHAPPE_CONFIG")]
        config: Option<PathBuf>,
    },
}

#[derive(Debug, Args)]
#[command(after_help = "\
Exit status: 0 every partition is led by one broker, 1 one is not, 2 wrong usage, 3 no broker answers.")]
pub(crate) struct Cluster {
    /// The TOML file of any of its processes: `uplink.brokers` and `uplink.tls` are read
    #[arg(long, value_name = "FILE", env = "CHAPPE_CONFIG")]
    pub(crate) config: Option<PathBuf>,
    /// Ask the admin listener of a process instead, host:port; for a process that is alone
    #[arg(long, value_name = "ADDR", conflicts_with = "config")]
    pub(crate) admin: Option<String>,
    /// One JSON object instead of text for people
    #[arg(long)]
    pub(crate) json: bool,
    /// Show it again each second
    #[arg(long)]
    pub(crate) watch: bool,
}

#[derive(Debug, Args)]
pub(crate) struct Doctor {
    #[command(flatten)]
    pub(crate) reach: Reach,
    /// The data directory
    #[arg(long, value_name = "DIR", env = "CHAPPE_DATA", default_value = "chappe-data")]
    pub(crate) data: PathBuf,
    /// The TOML file: whatever server it or the environment names is tried, a bucket with a small
    /// object
    #[arg(long, value_name = "FILE", env = "CHAPPE_CONFIG")]
    pub(crate) config: Option<PathBuf>,
}

#[cfg(feature = "clustered")]
#[derive(Debug, Args)]
pub(crate) struct BlobsArgs {
    #[command(subcommand)]
    pub(crate) action: BlobsAction,
}

#[cfg(feature = "clustered")]
#[derive(Debug, Subcommand)]
pub(crate) enum BlobsAction {
    /// Make the bucket, unless it is there
    Create {
        /// The TOML file
        #[arg(long, value_name = "FILE", env = "CHAPPE_CONFIG")]
        config: Option<PathBuf>,
    },
}
