//! The command line.

use std::{path::PathBuf, str::FromStr, time::Duration};

use anyhow::{Result, anyhow, bail, ensure};
use chappe_client::{Options, TokenSource, Trust};
use chappe_protocol::{Encoding, limits};
use clap::{Args, Parser, Subcommand, ValueEnum};

use crate::{threshold::Threshold, token::DevelopmentKey};

/// Loads a Chappe server on a fixed schedule and proves in the same run that nothing was lost.
#[derive(Debug, Parser)]
#[command(
    name = "chappe-load",
    version,
    arg_required_else_help = true,
    after_help = "\
Exit status: 0 passed, 1 refused, 2 wrong usage, 3 server not reached,
  97 something was lost, doubled, out of order or delivered although refused,
  98 the rate was not reached or the generator was the limit: the figures mean nothing,
  99 a threshold (--assert) was missed."
)]
pub(crate) struct Cli {
    #[command(subcommand)]
    pub(crate) command: Command,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// All users follow all channels; one user publishes in each
    Fanout(RunArgs),
    /// Users are spread over channels (Zipf) and each publishes in its own
    Chat(RunArgs),
    /// Reads back what the runs of a ledger published and says what became of it
    Audit(AuditArgs),
}

/// How to reach the server and who to be.
#[derive(Debug, Clone, Args)]
pub(crate) struct Reach {
    /// ws://, wss://, quic:// or http(s)://; several are shared out among the users
    #[arg(
        long = "url",
        value_name = "URL",
        env = "CHAPPE_URL",
        value_delimiter = ',',
        default_value = "ws://127.0.0.1:7400"
    )]
    pub(crate) urls: Vec<String>,
    /// One token for all users, who are then the same user
    #[arg(
        long,
        value_name = "TOKEN",
        env = "CHAPPE_TOKEN",
        hide_env_values = true,
        required_unless_present = "secret"
    )]
    pub(crate) token: Option<String>,
    /// The server's development secret (DATA/secret), to sign a token for each user; goes before
    /// the one token
    #[arg(long, value_name = "FILE")]
    pub(crate) secret: Option<PathBuf>,
    /// Trust servers that this certificate authority (PEM) vouches for
    #[arg(long, value_name = "FILE", env = "CHAPPE_CA")]
    pub(crate) ca: Option<PathBuf>,
    /// Trust the one server whose certificate has this digest (sha256:…)
    #[arg(long, value_name = "DIGEST", env = "CHAPPE_FINGERPRINT", conflicts_with = "ca")]
    pub(crate) fingerprint: Option<String>,
    /// How frames are written on WebSocket
    #[arg(long, value_enum, default_value = "msgpack")]
    pub(crate) encoding: EncodingArg,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
pub(crate) enum EncodingArg {
    Json,
    Msgpack,
}

#[derive(Debug, Clone, Args)]
pub(crate) struct RunArgs {
    #[command(flatten)]
    pub(crate) reach: Reach,
    /// How many users, each with a connection of its own
    #[arg(long, value_name = "N", default_value = "100", value_parser = clap::value_parser!(u32).range(1..=100_000))]
    pub(crate) users: u32,
    /// How many channels
    #[arg(long, value_name = "N", default_value = "1", value_parser = clap::value_parser!(u32).range(1..=100_000))]
    pub(crate) channels: u32,
    /// Messages a second over all publishers (20/s, 2k/s)
    #[arg(long, value_name = "RATE", default_value = "20/s")]
    pub(crate) rate: Rate,
    /// How the messages are spread in time
    #[arg(long, value_enum, default_value = "constant")]
    pub(crate) arrivals: Arrivals,
    /// How long to publish
    #[arg(long = "for", value_name = "TIME", default_value = "30s", value_parser = humantime::parse_duration)]
    pub(crate) duration: Duration,
    /// Leave the first part out of the latencies (never out of the audit)
    #[arg(long, value_name = "TIME", default_value = "0s", value_parser = humantime::parse_duration)]
    pub(crate) warm_up: Duration,
    /// Size of each message's data in bytes of MessagePack
    #[arg(long, value_name = "BYTES", default_value = "128", value_parser = clap::value_parser!(u32).range(64..=limits::DATA_BYTES_MAX as i64))]
    pub(crate) payload: u32,
    /// What users, channels and schedule are derived from
    #[arg(long, default_value = "1")]
    pub(crate) seed: u64,
    /// A condition on the result: 'p99<5ms', 'ack.p99.9<=20ms', 'rate>=1000/s' (repeatable)
    #[arg(long = "assert", value_name = "CONDITION")]
    pub(crate) thresholds: Vec<Threshold>,
    /// How long a command is retried, over restarts of the server too
    #[arg(long, value_name = "TIME", default_value = "60s", value_parser = humantime::parse_duration)]
    pub(crate) deadline: Duration,
    /// How long to wait at the end for what is still to be delivered
    #[arg(long, value_name = "TIME", default_value = "15s", value_parser = humantime::parse_duration)]
    pub(crate) settle: Duration,
    /// Behind its schedule by more than this (p99), and by more than a tenth of the latency, the
    /// generator was the limit
    #[arg(long, value_name = "TIME", default_value = "2ms", value_parser = humantime::parse_duration)]
    pub(crate) lag_max: Duration,
    /// Read the history back at the end and compare
    #[arg(long)]
    pub(crate) verify: bool,
    /// Append what is sent and what becomes of it to a file, for `chappe-load audit`
    #[arg(long, value_name = "FILE")]
    pub(crate) ledger: Option<PathBuf>,
    /// Write the report as JSON
    #[arg(long, value_name = "FILE")]
    pub(crate) json: Option<PathBuf>,
}

#[derive(Debug, Clone, Args)]
pub(crate) struct AuditArgs {
    #[command(flatten)]
    pub(crate) reach: Reach,
    /// The ledger that `--ledger` wrote
    #[arg(long, value_name = "FILE")]
    pub(crate) ledger: PathBuf,
    /// How long a read is retried, over restarts of the server too
    #[arg(long, value_name = "TIME", default_value = "60s", value_parser = humantime::parse_duration)]
    pub(crate) deadline: Duration,
    /// Write the result as JSON
    #[arg(long, value_name = "FILE")]
    pub(crate) json: Option<PathBuf>,
}

/// How the intended times follow each other.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Arrivals {
    /// At equal distances.
    Constant,
    /// At random, independent of each other.
    Poisson,
}

/// Messages a second.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Rate(pub(crate) f64);

impl FromStr for Rate {
    type Err = anyhow::Error;

    fn from_str(text: &str) -> Result<Self> {
        let number = text.strip_suffix("/s").unwrap_or(text);
        let (number, factor) = match number.strip_suffix('k') {
            Some(number) => (number, 1e3),
            None => (
                number.strip_suffix('M').unwrap_or(number),
                if number.ends_with('M') { 1e6 } else { 1.0 },
            ),
        };
        let rate = number
            .parse::<f64>()
            .map_err(|_| anyhow!("a rate is a number a second: 20/s, 2k/s"))?;
        ensure!(rate.is_finite() && rate > 0.0, "a rate is above zero");
        Ok(Self(rate * factor))
    }
}

impl Reach {
    /// The settings of one user's session.
    pub(crate) fn options(&self, url: &str, token: impl Into<TokenSource>) -> Result<Options> {
        let trust = match (&self.ca, &self.fingerprint) {
            (Some(path), _) => Trust::ca_file(path)?,
            (None, Some(text)) => Trust::fingerprint(text)?,
            (None, None) => Trust::System,
        };
        let encoding = match self.encoding {
            EncodingArg::Json => Encoding::Json,
            EncodingArg::Msgpack => Encoding::MessagePack,
        };
        let options = Options::new(url, token)?;
        Ok(options.trust(trust).encoding(encoding).client("chappe-load", env!("CARGO_PKG_VERSION")))
    }

    /// Who signs the tokens.
    pub(crate) fn tokens(&self) -> Result<Tokens> {
        match (&self.token, &self.secret) {
            (_, Some(path)) => Ok(Tokens::Signed(DevelopmentKey::read(path)?)),
            (Some(token), None) => Ok(Tokens::One(token.clone())),
            (None, None) => bail!("a token or a secret is needed"),
        }
    }
}

/// Where the users' tokens come from.
#[derive(Debug, Clone)]
pub(crate) enum Tokens {
    One(String),
    Signed(DevelopmentKey),
}

impl Tokens {
    pub(crate) fn of(&self, user: &str) -> Result<String> {
        match self {
            Self::One(token) => Ok(token.clone()),
            Self::Signed(key) => key.sign(user),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rate_is_read_with_its_units() {
        for (text, rate) in [("20/s", 20.0), ("0.5", 0.5), ("2k/s", 2_000.0), ("1.5M/s", 1.5e6)] {
            assert_eq!(text.parse::<Rate>().unwrap(), Rate(rate), "{text}");
        }
        for text in ["", "0/s", "-1", "fast", "k/s", "inf"] {
            assert!(text.parse::<Rate>().is_err(), "{text}");
        }
    }

    #[test]
    fn a_secret_goes_before_a_token_that_is_in_the_environment_too() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("secret");
        std::fs::write(&path, [7; 32]).unwrap();
        let words = ["chappe-load", "chat", "--token", "t", "--secret"].map(String::from);
        let words = words.into_iter().chain([path.display().to_string()]);
        let Command::Chat(args) = Cli::parse_from(words).command else { panic!("not chat") };
        let tokens = args.reach.tokens().unwrap();
        assert_ne!(tokens.of("a").unwrap(), tokens.of("b").unwrap());
    }

    #[test]
    fn the_command_line_is_consistent() {
        use clap::CommandFactory;
        Cli::command().debug_assert();
    }
}
