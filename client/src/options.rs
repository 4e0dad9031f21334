//! How a client connects and behaves.

use std::time::Duration;

use chappe_protocol::Encoding;

use crate::{
    dial::Dialer,
    error::Error,
    session::{Backoff, Settings},
    target::Target,
    token::TokenSource,
    trust::Trust,
};

/// The settings of a client. Made with [`Options::new`] and changed by its methods.
#[derive(Debug, Clone)]
pub struct Options {
    targets: Vec<Target>,
    encoding: Encoding,
    trust: Trust,
    pub(crate) token: TokenSource,
    pub(crate) client: String,
    pub(crate) version: String,
    pub(crate) command_deadline: Duration,
    pub(crate) updates_max: usize,
    backoff: Backoff,
    in_flight_max: usize,
    queue_max: usize,
    keep_trying: bool,
}

impl Options {
    /// A client of the server at `url` that signs in with `token`.
    pub fn new(url: &str, token: impl Into<TokenSource>) -> Result<Self, Error> {
        Ok(Self {
            targets: vec![url.parse()?],
            encoding: Encoding::MessagePack,
            trust: Trust::System,
            token: token.into(),
            client: "chappe-client".to_owned(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            command_deadline: Duration::from_secs(30),
            updates_max: 1024,
            backoff: Backoff::default(),
            in_flight_max: 256,
            queue_max: 1024,
            keep_trying: false,
        })
    }

    /// Adds another gateway of the same service, tried when the present one is lost: a client
    /// resumes on any of them.
    pub fn or(mut self, url: &str) -> Result<Self, Error> {
        self.targets.push(url.parse()?);
        Ok(self)
    }

    /// Whom to trust on encrypted links; the system's authorities if not said.
    #[must_use]
    pub fn trust(mut self, trust: Trust) -> Self {
        self.trust = trust;
        self
    }

    /// The encoding on WebSocket links; MessagePack if not said.
    #[must_use]
    pub fn encoding(mut self, encoding: Encoding) -> Self {
        self.encoding = encoding;
        self
    }

    /// The program's name and version, for the server's operator.
    #[must_use]
    pub fn client(mut self, name: &str, version: &str) -> Self {
        self.client = name.chars().take(64).collect();
        self.version = version.chars().take(32).collect();
        self
    }

    /// How long a command is retried before it fails; 30 s if not said. Beyond nine minutes a
    /// server refuses retries.
    #[must_use]
    pub fn command_deadline(mut self, deadline: Duration) -> Self {
        self.command_deadline = deadline;
        self
    }

    /// How many updates may wait for the application; 1,024 if not said. When they do, nothing is
    /// read from the connection until it takes some.
    #[must_use]
    pub fn updates_max(mut self, updates: usize) -> Self {
        self.updates_max = updates.max(1);
        self
    }

    /// How many commands may be under way, and how many unanswered in all; 256 and 1,024 if not
    /// said.
    #[must_use]
    pub fn commands_max(mut self, in_flight: usize, unanswered: usize) -> Self {
        self.in_flight_max = in_flight.max(1);
        self.queue_max = unanswered.max(self.in_flight_max);
        self
    }

    /// The waits between attempts to connect.
    #[must_use]
    pub fn backoff(mut self, backoff: Backoff) -> Self {
        self.backoff = backoff;
        self
    }

    /// Goes on when the very first connection fails, as after a later one. If not said, it fails
    /// at once: most often the address or the token is wrong.
    #[must_use]
    pub fn keep_trying(mut self) -> Self {
        self.keep_trying = true;
        self
    }

    /// What makes connections with these settings, to be shared by many sessions.
    pub fn dialers(&self) -> Result<Vec<Dialer>, Error> {
        let dialer = |target: &Target| Dialer::new(target.clone(), self.encoding, &self.trust);
        self.targets.iter().map(dialer).collect()
    }

    pub(crate) fn settings(&self, seed: u64) -> Settings {
        Settings {
            backoff: self.backoff,
            in_flight_max: self.in_flight_max,
            queue_max: self.queue_max,
            keep_trying: self.keep_trying,
            token_renews: self.token.renews(),
            seed,
        }
    }
}
