//! What only a cluster needs: which parts a process runs, how gateways reach brokers, and the
//! servers that stand behind the ports.

use std::{fmt, path::PathBuf, time::Duration};

use chappe_uplink::remote::TlsFiles;
use clap::ValueEnum;
use serde::{Deserialize, Serialize, Serializer};

use super::{Config, ConfigError};

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

    /// As it is written in the configuration.
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Broker => "broker",
            Self::GatewayWs => "gateway-ws",
            Self::GatewayQuic => "gateway-quic",
            Self::GatewayHttp => "gateway-http",
        }
    }
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

impl UplinkTls {
    /// The files, if there are any.
    pub(crate) fn files(&self) -> Option<TlsFiles> {
        let Self { ca, cert, key } = self.clone();
        Some(TlsFiles { ca: ca?, cert: cert?, key: key? })
    }
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

/// Where files are kept.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct Blobs {
    pub(crate) kind: BlobsKind,
    /// The S3 server, `https://host`.
    pub(crate) url: Option<String>,
    /// The bucket. `chappe blobs create` makes it.
    pub(crate) bucket: Option<String>,
    /// The region that requests are signed for; servers other than Amazon's take the default.
    pub(crate) region: String,
    pub(crate) access_key: Option<Secret>,
    pub(crate) secret_key: Option<Secret>,
}

/// What stands behind the files.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum BlobsKind {
    /// Files in the data directory.
    Files,
    /// A bucket.
    S3,
}

impl Default for Blobs {
    fn default() -> Self {
        let (url, bucket, access_key, secret_key) = (None, None, None, None);
        let region = "us-east-1".to_owned();
        Self { kind: BlobsKind::Files, url, bucket, region, access_key, secret_key }
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

impl Config {
    /// What goes together, and what a part cannot do without.
    pub(super) fn check_cluster(&self) -> Result<(), ConfigError> {
        let refuse = |text: &str| Err(ConfigError(text.to_owned()));
        let of_kafka = self.log.kind == LogKind::Kafka;
        if of_kafka != (self.store.kind == StoreKind::Scylla) {
            return refuse(
                "log.kind = 'kafka' and store.kind = 'scylla' go together: brokers in several \
                 processes share both",
            );
        }
        if self.runs(Role::Broker) && of_kafka && self.log.brokers.is_empty() {
            return refuse("log.brokers names no node of Kafka");
        }
        if self.runs(Role::Broker) && of_kafka && self.store.nodes.is_empty() {
            return refuse("store.nodes names no node of the store");
        }
        if (of_kafka || !self.runs(Role::Broker)) && self.uplink.brokers.is_empty() {
            return refuse("uplink.brokers names no broker: where are the partitions led?");
        }
        let tls = &self.uplink.tls;
        let files = [&tls.ca, &tls.cert, &tls.key].into_iter().flatten().count();
        if files != 0 && files != 3 {
            return refuse("uplink.tls.ca, uplink.tls.cert and uplink.tls.key go together");
        }
        if self.presence.kind == PresenceKind::Redis && self.presence.url.is_none() {
            return refuse("presence.url is needed with presence.kind = 'redis'");
        }
        let blobs = &self.blobs;
        let keys = blobs.access_key.is_some() && blobs.secret_key.is_some();
        if blobs.kind == BlobsKind::S3 && !(blobs.url.is_some() && blobs.bucket.is_some() && keys) {
            return refuse(
                "blobs.url, blobs.bucket, blobs.access_key and blobs.secret_key are needed with \
                 blobs.kind = 's3'",
            );
        }
        if self.log.user.is_some() != self.log.password.is_some()
            || self.store.user.is_some() != self.store.password.is_some()
        {
            return refuse("a user and a password go together");
        }
        Ok(())
    }

    /// Whether this process runs a part.
    pub(crate) fn runs(&self, role: Role) -> bool {
        self.roles.is_empty() || self.roles.contains(&role)
    }

    /// Whether this process holds connections of clients.
    pub(crate) fn runs_gateway(&self) -> bool {
        Role::ALL.iter().any(|role| *role != Role::Broker && self.runs(*role))
    }
}

/// How long a process waits for what it needs, and how often it says so.
pub(crate) const WAIT_DEFAULT: Duration = Duration::from_secs(5 * 60);

/// Something that is never shown.
#[derive(Clone, PartialEq, Eq, Deserialize)]
#[serde(transparent)]
pub(crate) struct Secret(String);

impl Secret {
    pub(crate) fn new(text: &str) -> Self {
        Self(text.to_owned())
    }

    #[cfg_attr(not(feature = "clustered"), allow(dead_code))]
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
