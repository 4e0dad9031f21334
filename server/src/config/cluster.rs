//! What only a cluster needs: which parts a process runs, how gateways reach brokers, and the
//! servers that stand behind the ports.

use std::{fmt, path::PathBuf, time::Duration};

use clap::ValueEnum;
use serde::{Deserialize, Serialize, Serializer};

/// A part of the server that a process may run alone.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ValueEnum)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Role {
    /// Leads partitions; gateways connect to it
    Broker,
    /// Holds WebSocket connections
    GatewayWs,
    /// Holds QUIC connections
    GatewayQuic,
    /// Serves REST, server-sent events and the page
    GatewayHttp,
}

impl Role {
    /// All of them: what a process runs that is told nothing.
    pub(crate) const ALL: [Self; 4] =
        [Self::Broker, Self::GatewayWs, Self::GatewayQuic, Self::GatewayHttp];
}

/// How gateways reach brokers in other processes.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct Uplink {
    /// The brokers, each `host:port`; a name with several addresses, as a headless service has,
    /// stands for all of them and is looked up again and again.
    pub(crate) brokers: Vec<String>,
    pub(crate) tls: UplinkTls,
}

/// Certificates that gateways and brokers show each other. Without them whoever reaches a
/// broker's uplink speaks for every user.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct UplinkTls {
    /// The authority, PEM.
    pub(crate) ca: Option<PathBuf>,
    /// This process's chain, PEM.
    pub(crate) cert: Option<PathBuf>,
    /// Its private key, PEM.
    pub(crate) key: Option<PathBuf>,
}

/// What stands behind the log.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum LogKind {
    /// Files in the data directory, of this process alone.
    Segment,
    /// A topic of Kafka.
    Kafka,
}

/// What stands behind the store.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum StoreKind {
    /// Files in the data directory, of this process alone.
    Lsm,
    /// `ScyllaDB`, or another server that speaks CQL.
    Scylla,
}

/// Who knows which users are connected.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct Presence {
    pub(crate) kind: PresenceKind,
    /// `redis://[user:password@]host:port`, or `rediss://` over TLS.
    pub(crate) url: Option<Secret>,
}

/// What stands behind presence.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum PresenceKind {
    /// This process alone.
    Memory,
    /// Redis.
    Redis,
}

impl Default for Presence {
    fn default() -> Self {
        Self { kind: PresenceKind::Memory, url: None }
    }
}

/// How a password is shown to Kafka.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Mechanism {
    /// A proof that does not give it away.
    ScramSha256,
    /// A proof that does not give it away.
    ScramSha512,
    /// As it is; over TLS only.
    Plain,
}

/// How long a process waits for what it needs, and how often it says so.
pub(crate) const WAIT_DEFAULT: Duration = Duration::from_secs(5 * 60);

/// Something that is never shown.
#[derive(Clone, PartialEq, Eq, Deserialize)]
#[serde(transparent)]
pub(crate) struct Secret(String);

impl Secret {
    pub(crate) fn reveal(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("***")
    }
}

impl Serialize for Secret {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str("***")
    }
}
