//! How to reach a Kafka cluster, and what its client library has to say on the way.
//!
//! Everything that talks to Kafka starts from a [`Connection`]. The library's own log lines and
//! errors arrive at a [`Voice`], which keeps the newest one: it is the reason that a call without
//! an answer gives.

use std::path::PathBuf;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use rdkafka::ClientContext;
use rdkafka::config::{ClientConfig, RDKafkaLogLevel};
use rdkafka::consumer::ConsumerContext;
use rdkafka::error::KafkaError;
use rdkafka::types::RDKafkaErrorCode;

/// How to reach a Kafka cluster.
#[derive(Debug, Clone)]
pub struct Connection {
    /// Addresses of some of its nodes, `HOST:PORT,…`.
    pub brokers: String,
    /// The name under which Kafka's logs and tools show this process.
    pub client_id: String,
    /// TLS, if the nodes speak it.
    pub tls: Option<Tls>,
    /// Who logs in, if the nodes ask.
    pub login: Option<Login>,
}

/// TLS towards the nodes. Their certificates and host names are always verified.
#[derive(Debug, Clone, Default)]
pub struct Tls {
    /// PEM file of the authorities to trust instead of the system's.
    pub ca: Option<PathBuf>,
    /// The client's own certificate, if the nodes ask for one.
    pub identity: Option<Identity>,
}

/// A client's certificate.
#[derive(Debug, Clone)]
pub struct Identity {
    /// PEM file of the certificate and what it was signed with.
    pub certificate: PathBuf,
    /// PEM file of its private key.
    pub key: PathBuf,
}

/// A user and his password.
#[derive(Clone)]
pub struct Login {
    /// How the password is shown to the nodes.
    pub mechanism: Mechanism,
    /// The user.
    pub user: String,
    /// The password.
    pub password: String,
}

/// How a password is shown to the nodes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mechanism {
    /// A proof that does not give it away, by SHA-256.
    ScramSha256,
    /// A proof that does not give it away, by SHA-512.
    ScramSha512,
    /// As it is. Over TLS only.
    Plain,
}

impl Connection {
    /// A plain connection.
    #[must_use]
    pub fn to(brokers: &str) -> Self {
        let (brokers, client_id) = (brokers.to_owned(), "chappe".to_owned());
        Self { brokers, client_id, tls: None, login: None }
    }

    /// What every client of the library is given. A connection that broke is tried again soon: a
    /// node that is back is waited for by somebody.
    pub(crate) fn client(&self) -> ClientConfig {
        let mut client = ClientConfig::new();
        client
            .set("bootstrap.servers", &self.brokers)
            .set("client.id", &self.client_id)
            .set("security.protocol", self.protocol())
            .set("socket.keepalive.enable", "true")
            .set("socket.nagle.disable", "true")
            // A frozen node answers nothing and breaks nothing; its partitions have moved by then.
            .set("socket.timeout.ms", "5000")
            .set("socket.connection.setup.timeout.ms", "5000")
            .set("reconnect.backoff.ms", "100")
            .set("reconnect.backoff.max.ms", "1000")
            .set("retry.backoff.ms", "50")
            .set("log.connection.close", "false")
            .set_log_level(RDKafkaLogLevel::Info);
        if let Some(tls) = &self.tls {
            tls.add_to(&mut client);
        }
        if let Some(login) = &self.login {
            client
                .set("sasl.mechanism", login.mechanism.name())
                .set("sasl.username", &login.user)
                .set("sasl.password", &login.password);
        }
        client
    }

    /// Says what cannot be, before anything is tried.
    pub(crate) fn check(&self) -> Result<(), String> {
        if self.brokers.trim().is_empty() {
            return Err("no address of a Kafka node is given".to_owned());
        }
        let is_plain = |login: &Login| login.mechanism == Mechanism::Plain;
        if self.tls.is_none() && self.login.as_ref().is_some_and(is_plain) {
            return Err("a plain password is sent over TLS only: use SCRAM, or TLS".to_owned());
        }
        Ok(())
    }

    fn protocol(&self) -> &'static str {
        match (&self.tls, &self.login) {
            (None, None) => "plaintext",
            (Some(_), None) => "ssl",
            (None, Some(_)) => "sasl_plaintext",
            (Some(_), Some(_)) => "sasl_ssl",
        }
    }
}

impl Tls {
    fn add_to(&self, client: &mut ClientConfig) {
        if let Some(ca) = &self.ca {
            client.set("ssl.ca.location", ca.to_string_lossy());
        }
        if let Some(identity) = &self.identity {
            client
                .set("ssl.certificate.location", identity.certificate.to_string_lossy())
                .set("ssl.key.location", identity.key.to_string_lossy());
        }
    }
}

impl Mechanism {
    const fn name(self) -> &'static str {
        match self {
            Self::ScramSha256 => "SCRAM-SHA-256",
            Self::ScramSha512 => "SCRAM-SHA-512",
            Self::Plain => "PLAIN",
        }
    }
}

impl std::fmt::Debug for Login {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let mut login = f.debug_struct("Login");
        login.field("mechanism", &self.mechanism).field("user", &self.user).finish_non_exhaustive()
    }
}

/// Hears what the library says, and keeps its newest complaint.
#[derive(Debug, Default)]
pub(crate) struct Voice {
    complaint: Mutex<Option<Complaint>>,
}

#[derive(Debug)]
struct Complaint {
    reason: String,
    /// When it was last logged.
    logged: Instant,
    /// When it was last heard.
    heard: Instant,
}

impl Voice {
    /// Takes note of a complaint. An outage repeats the same one for every attempt: it is logged
    /// once in a while.
    pub(crate) fn heard(&self, error: &KafkaError, reason: &str) {
        // That all nodes are down is said after the reason why each of them is.
        if error.rdkafka_error_code() == Some(RDKafkaErrorCode::AllBrokersDown) {
            return;
        }
        // What comes behind it counts the attempts.
        let reason = reason.split(" (after ").next().unwrap_or(reason).to_owned();
        let now = Instant::now();
        let mut complaint = self.lock();
        let repeats =
            |old: &&mut Complaint| old.reason == reason && now - old.logged < LOGGED_EVERY;
        if let Some(old) = complaint.as_mut().filter(repeats) {
            old.heard = now;
            return;
        }
        tracing::warn!(%reason, "Kafka");
        *complaint = Some(Complaint { reason, logged: now, heard: now });
    }

    /// What a failed call says: its own error, and what was last complained of.
    pub(crate) fn explain(&self, error: &KafkaError) -> String {
        let what = match error.rdkafka_error_code() {
            Some(RDKafkaErrorCode::OperationTimedOut | RDKafkaErrorCode::RequestTimedOut) => {
                "no answer in time".to_owned()
            }
            Some(code) => code.to_string(),
            None => error.to_string(),
        };
        self.with_complaint(what)
    }

    /// Adds what was last complained of, if that was not long ago.
    pub(crate) fn with_complaint(&self, what: String) -> String {
        match &*self.lock() {
            Some(Complaint { reason, heard, .. }) if heard.elapsed() < LOGGED_EVERY => {
                format!("{what}; the last thing Kafka's client said: {reason}")
            }
            _ => what,
        }
    }

    fn lock(&self) -> MutexGuard<'_, Option<Complaint>> {
        self.complaint.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl ClientContext for Voice {
    fn log(&self, _: RDKafkaLogLevel, facility: &str, line: &str) {
        log_line(facility, line);
    }

    fn error(&self, error: KafkaError, reason: &str) {
        self.heard(&error, reason);
    }
}

impl ConsumerContext for Voice {
    fn main_queue_min_poll_interval(&self) -> rdkafka::util::Timeout {
        SERVED_EVERY.into()
    }
}

/// The library's log tells what its errors tell too, and more often: who wants it asks for it.
pub(crate) fn log_line(facility: &str, line: &str) {
    tracing::debug!(target: "librdkafka", facility, "{line}");
}

/// The library's events are served at least so often while one polls.
pub(crate) const SERVED_EVERY: Duration = Duration::from_millis(100);
/// A complaint that goes on is logged so often; an older one explains nothing.
const LOGGED_EVERY: Duration = Duration::from_secs(60);
