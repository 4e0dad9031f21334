//! The configuration: defaults, then a TOML file, then the environment, then flags.
//!
//! `CHAPPE_LOG__KEEP=3d` in the environment is `keep` in the file's `[log]`. Unknown keys are
//! refused, so that a misspelt limit is not silently the default.

pub(crate) mod cluster;
mod rates;

use std::{
    net::{IpAddr, Ipv4Addr, SocketAddr},
    path::{Path, PathBuf},
    time::Duration,
};

use bytesize::ByteSize;
use serde::{Deserialize, Serialize};

use self::{
    cluster::{Blobs, LogKind, Mechanism, Presence, Role, Secret, StoreKind, Uplink, WAIT_DEFAULT},
    rates::Rates,
};
use crate::args;

/// Everything that can be set.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct Config {
    /// Where everything is kept.
    pub(crate) data: PathBuf,
    /// The parts that this process runs; all when empty.
    pub(crate) roles: Vec<Role>,
    pub(crate) listen: Listen,
    pub(crate) http: Http,
    pub(crate) tls: Tls,
    pub(crate) auth: Auth,
    pub(crate) log: Log,
    pub(crate) store: Store,
    pub(crate) uplink: Uplink,
    pub(crate) presence: Presence,
    pub(crate) blobs: Blobs,
    pub(crate) broker: Broker,
    pub(crate) gateway: Gateway,
    pub(crate) limits: Limits,
    pub(crate) telemetry: Telemetry,
}

/// Where the server listens; port 0 takes a free one, which `run.json` names.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct Listen {
    /// HTTP, WebSocket at `/v1/ws` and the page.
    pub(crate) tcp: SocketAddr,
    /// QUIC; the same address as `tcp` when absent.
    pub(crate) quic: Option<SocketAddr>,
    /// Health and metrics. Keep it off the internet.
    pub(crate) admin: SocketAddr,
    /// Where a broker that runs by itself takes gateways. Keep it off the internet.
    pub(crate) uplink: SocketAddr,
}

/// The HTTP frontend.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct Http {
    /// Web pages of these origins (`https://app.example.com`) may connect, beside the server's
    /// own page.
    pub(crate) origins: Vec<String>,
    /// `X-Forwarded-For` is believed from these networks (`10.0.0.0/8`).
    pub(crate) trusted_proxies: Vec<String>,
}

/// The certificate for WSS, HTTPS and QUIC. Without one, QUIC gets one made for localhost and
/// TCP stays plain.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct Tls {
    /// The chain, PEM.
    pub(crate) cert: Option<PathBuf>,
    /// The private key, PEM.
    pub(crate) key: Option<PathBuf>,
}

/// Who may sign in.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct Auth {
    /// Accept tokens of the generated secret (`chappe token`). Without a value: yes when no key
    /// set is configured and all listeners are on loopback.
    pub(crate) development: Option<bool>,
    /// The secret of development tokens: a file of 32 bytes, mode 0600, that several processes
    /// share. The data directory's own when absent.
    pub(crate) secret_file: Option<PathBuf>,
    /// The key set of your issuer: an https URL.
    pub(crate) jwks_url: Option<String>,
    /// The key set of your issuer: a file.
    pub(crate) jwks_file: Option<PathBuf>,
    /// The `iss` that tokens must carry.
    pub(crate) issuer: Option<String>,
    /// One of these `aud` must be in a token; none are asked for when empty.
    pub(crate) audiences: Vec<String>,
    /// `azp`, where a token has it, must be one of these; any when empty.
    pub(crate) authorized_parties: Vec<String>,
    /// The algorithms that keys of the set may be used with.
    pub(crate) algorithms: Vec<String>,
    /// The role in a token's `roles` (or `role`) that makes its bearer an administrator.
    pub(crate) admin_role: String,
    /// Keys for back ends.
    pub(crate) api_keys: Vec<ApiKey>,
}

/// A key for a back end: it publishes and reads everywhere without membership.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct ApiKey {
    /// Who uses it, for events and logs.
    pub(crate) name: String,
    /// The SHA-256 of the key in hexadecimal: the key itself is nowhere on the server.
    pub(crate) sha256: String,
}

/// The log.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct Log {
    pub(crate) kind: LogKind,
    /// Shards of channels. Fixed when the log is made.
    pub(crate) partitions: u32,
    /// How long records are kept after they are in the store.
    #[serde(with = "humantime_serde")]
    pub(crate) keep: Duration,
    /// Records that are in the store go earlier than `keep` when the log is larger than this.
    pub(crate) keep_bytes: ByteSize,
    /// The size of a segment file.
    pub(crate) segment_bytes: ByteSize,
    /// Kafka: some of its nodes, each `host:port`.
    pub(crate) brokers: Vec<String>,
    /// Kafka: the topic. `chappe log create` makes it.
    pub(crate) topic: String,
    /// Kafka: the consumer group in which brokers share the partitions.
    pub(crate) group: String,
    /// Kafka: a broker that is silent for so long has lost its partitions.
    #[serde(with = "humantime_serde")]
    pub(crate) session: Duration,
    /// Kafka: speak TLS, and trust the system's authorities unless `tls_ca` names others.
    pub(crate) tls: bool,
    /// Kafka: the authorities to trust, PEM; implies `tls`.
    pub(crate) tls_ca: Option<PathBuf>,
    /// Kafka: who logs in; nobody when absent.
    pub(crate) user: Option<String>,
    pub(crate) password: Option<Secret>,
    pub(crate) mechanism: Mechanism,
}

/// The store.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct Store {
    pub(crate) kind: StoreKind,
    /// How long a channel's events can be resumed from at least; who was away longer is told to
    /// reset. Messages stay. They go in thousands at once, so that small channels keep them longer.
    #[serde(with = "humantime_serde")]
    pub(crate) keep_events: Duration,
    /// CQL: some of the nodes, each `host:port`.
    pub(crate) nodes: Vec<String>,
    /// CQL: the keyspace. `chappe schema apply` makes its tables.
    pub(crate) keyspace: String,
    /// CQL: the data centre whose nodes are used; needed where there are several.
    pub(crate) datacenter: Option<String>,
    /// CQL: speak TLS, and trust the system's authorities unless `tls_ca` names others.
    pub(crate) tls: bool,
    /// CQL: the authorities to trust, PEM; implies `tls`.
    pub(crate) tls_ca: Option<PathBuf>,
    /// CQL: who logs in; nobody when absent.
    pub(crate) user: Option<String>,
    pub(crate) password: Option<Secret>,
}

/// The broker.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct Broker {
    /// Threads that lead partitions.
    pub(crate) threads: usize,
    /// At half of this many bytes that are in the log and not yet in the store, publishes are
    /// refused.
    pub(crate) unprojected_bytes_max: ByteSize,
    /// At half of this age of the oldest record that is not yet in the store, publishes are
    /// refused.
    #[serde(with = "humantime_serde")]
    pub(crate) unprojected_age_max: Duration,
    /// Gateways are told this often how far their channels are, so that a lost last event is
    /// noticed; 100 ms to 2 s.
    #[serde(with = "humantime_serde")]
    pub(crate) beacon: Duration,
    /// How long a start waits for the log and the store when they cannot be reached; then the
    /// process ends. `0s` ends it at once.
    #[serde(with = "humantime_serde")]
    pub(crate) wait: Duration,
}

/// The gateway.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct Gateway {
    /// Threads that hold connections; one for each core when 0.
    pub(crate) shards: usize,
    /// How often the server pings.
    #[serde(with = "humantime_serde")]
    pub(crate) ping: Duration,
    /// How long a connection may be behind without reading anything before it is closed as slow.
    #[serde(with = "humantime_serde")]
    pub(crate) slow: Duration,
    /// How long a stop may take: connections are closed evenly over this time.
    #[serde(with = "humantime_serde")]
    pub(crate) drain: Duration,
}

/// What one client, address or server may use.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct Limits {
    /// Connections in all; 0 takes what the file limit allows.
    pub(crate) connections: usize,
    /// Connections from one address.
    pub(crate) connections_per_address: usize,
    /// Connections of one user.
    pub(crate) connections_per_user: usize,
    /// Bytes that may wait for one connection before it counts as slow.
    pub(crate) outbox_bytes: ByteSize,
    pub(crate) rates: Rates,
}

/// Logs.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct Telemetry {
    /// What is logged, in the syntax of `RUST_LOG`.
    pub(crate) filter: String,
    /// Lines of JSON instead of text.
    pub(crate) json: bool,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            data: PathBuf::from("chappe-data"),
            roles: Vec::new(),
            listen: Listen::default(),
            http: Http::default(),
            tls: Tls::default(),
            auth: Auth::default(),
            log: Log::default(),
            store: Store::default(),
            uplink: Uplink::default(),
            presence: Presence::default(),
            blobs: Blobs::default(),
            broker: Broker::default(),
            gateway: Gateway::default(),
            limits: Limits::default(),
            telemetry: Telemetry::default(),
        }
    }
}

impl Default for Listen {
    fn default() -> Self {
        Self { tcp: loopback(7400), quic: None, admin: loopback(7401), uplink: loopback(7402) }
    }
}

impl Default for Auth {
    fn default() -> Self {
        Self {
            development: None,
            secret_file: None,
            jwks_url: None,
            jwks_file: None,
            issuer: None,
            audiences: Vec::new(),
            authorized_parties: Vec::new(),
            algorithms: ["RS256", "ES256", "EdDSA"].map(str::to_owned).to_vec(),
            admin_role: "chappe-admin".to_owned(),
            api_keys: Vec::new(),
        }
    }
}

impl Default for Log {
    fn default() -> Self {
        Self {
            kind: LogKind::Segment,
            partitions: 64,
            keep: Duration::from_secs(7 * 24 * 60 * 60),
            keep_bytes: ByteSize::gib(16),
            segment_bytes: ByteSize::mib(64),
            brokers: Vec::new(),
            topic: "chappe".to_owned(),
            group: "chappe".to_owned(),
            session: Duration::from_secs(6),
            tls: false,
            tls_ca: None,
            user: None,
            password: None,
            mechanism: Mechanism::ScramSha512,
        }
    }
}

impl Default for Store {
    fn default() -> Self {
        Self {
            kind: StoreKind::Lsm,
            keep_events: Duration::from_secs(30 * 24 * 60 * 60),
            nodes: Vec::new(),
            keyspace: "chappe".to_owned(),
            datacenter: None,
            tls: false,
            tls_ca: None,
            user: None,
            password: None,
        }
    }
}

impl Default for Broker {
    fn default() -> Self {
        Self {
            threads: 1,
            unprojected_bytes_max: ByteSize::mib(256),
            unprojected_age_max: Duration::from_secs(600),
            beacon: Duration::from_millis(1_500),
            wait: WAIT_DEFAULT,
        }
    }
}

impl Default for Gateway {
    fn default() -> Self {
        Self {
            shards: 0,
            ping: Duration::from_secs(25),
            slow: Duration::from_secs(30),
            drain: Duration::from_secs(20),
        }
    }
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            connections: 0,
            connections_per_address: 20_000,
            connections_per_user: 100,
            outbox_bytes: ByteSize::kib(256),
            rates: Rates::default(),
        }
    }
}

impl Default for Telemetry {
    fn default() -> Self {
        // What the store's driver sees of a failure is in our own line about it, which says what
        // becomes of it, too.
        Self { filter: "info,fjall=warn,lsm_tree=warn,scylla=off".to_owned(), json: false }
    }
}

/// The configuration cannot be used; the text says which key and why.
#[derive(Debug, thiserror::Error)]
#[error("configuration: {0}")]
pub(crate) struct ConfigError(String);

impl Config {
    /// Reads file and environment over the defaults, and checks what they say.
    pub(crate) fn load(file: Option<&Path>) -> Result<Self, ConfigError> {
        let config = Self::read(file, std::env::vars().collect())?;
        config.check()?;
        Ok(config)
    }

    /// The same for a tool of a cluster, which signs nobody in and leads nothing: nothing but the
    /// keys themselves is checked.
    pub(crate) fn load_for_tools(file: Option<&Path>) -> Result<Self, ConfigError> {
        Self::read(file, std::env::vars().collect())
    }

    /// The same for a tool that leads everything, or is to write everything, as a server would.
    pub(crate) fn for_migration(flags: &args::migration::Place) -> Result<Self, ConfigError> {
        let mut config = Self::read(flags.config.as_deref(), std::env::vars().collect())?;
        if let Some(data) = &flags.data {
            config.data.clone_from(data);
        }
        config.roles.clear();
        config.check()?;
        Ok(config)
    }

    /// The same with the flags of `serve` on top.
    pub(crate) fn for_serve(flags: &args::Serve) -> Result<Self, ConfigError> {
        let mut config = Self::read(flags.config.as_deref(), std::env::vars().collect())?;
        if let Some(data) = &flags.data {
            config.data.clone_from(data);
        }
        if let Some(tcp) = flags.listen {
            config.listen.tcp = tcp;
        }
        if let Some(admin) = flags.admin_listen {
            config.listen.admin = admin;
        }
        config.listen.quic = flags.quic_listen.or(config.listen.quic);
        if let Some(uplink) = flags.uplink_listen {
            config.listen.uplink = uplink;
        }
        if !flags.roles.is_empty() {
            config.roles.clone_from(&flags.roles);
        }
        config.check()?;
        Ok(config)
    }

    fn read(
        file: Option<&Path>,
        environment: std::collections::HashMap<String, String>,
    ) -> Result<Self, ConfigError> {
        let mut builder = config::Config::builder();
        if let Some(file) = file {
            builder = builder.add_source(config::File::from(file).format(config::FileFormat::Toml));
        }
        let verbatim = environment.clone();
        // Only names with the separator are settings: CHAPPE_URL and the like belong to tools.
        let settings = environment.into_iter().filter(|(name, _)| name.contains("__")).collect();
        let environment = config::Environment::with_prefix("CHAPPE")
            .prefix_separator("_")
            .separator("__")
            .try_parsing(true)
            .list_separator(",")
            .with_list_parse_key("auth.audiences")
            .with_list_parse_key("auth.authorized_parties")
            .with_list_parse_key("auth.algorithms")
            .with_list_parse_key("http.origins")
            .with_list_parse_key("http.trusted_proxies")
            .with_list_parse_key("roles")
            .with_list_parse_key("uplink.brokers")
            .with_list_parse_key("log.brokers")
            .with_list_parse_key("store.nodes")
            .source(Some(settings));
        let read: Result<Self, _> =
            builder.add_source(environment).build().and_then(config::Config::try_deserialize);
        let mut read = read.map_err(|error| ConfigError(error.to_string()))?;
        // What looks like a number would come back written in another way.
        let given = |name: &str| verbatim.get(name).map(String::as_str);
        for (name, user) in
            [("CHAPPE_LOG__USER", &mut read.log.user), ("CHAPPE_STORE__USER", &mut read.store.user)]
        {
            *user = given(name).map(str::to_owned).or_else(|| user.take());
        }
        for (name, secret) in [
            ("CHAPPE_LOG__PASSWORD", &mut read.log.password),
            ("CHAPPE_STORE__PASSWORD", &mut read.store.password),
            ("CHAPPE_BLOBS__ACCESS_KEY", &mut read.blobs.access_key),
            ("CHAPPE_BLOBS__SECRET_KEY", &mut read.blobs.secret_key),
        ] {
            *secret = given(name).map(Secret::new).or_else(|| secret.take());
        }
        Ok(read)
    }

    fn check(&self) -> Result<(), ConfigError> {
        let refuse = |text: &str| Err(ConfigError(text.to_owned()));
        if self.tls.cert.is_some() != self.tls.key.is_some() {
            return refuse("tls.cert and tls.key go together");
        }
        self.check_cluster()?;
        if !(1..=4096).contains(&self.log.partitions) {
            return refuse("log.partitions is 1 to 4096");
        }
        if self.broker.threads == 0 || self.broker.threads > 64 {
            return refuse("broker.threads is 1 to 64");
        }
        if !(100..=2_000).contains(&self.broker.beacon.as_millis()) {
            return refuse("broker.beacon is 100ms to 2s");
        }
        if self.auth.jwks_url.is_some() && self.auth.jwks_file.is_some() {
            return refuse("auth.jwks_url and auth.jwks_file exclude each other");
        }
        if self.has_key_set() && self.auth.issuer.is_none() {
            return refuse("auth.issuer is needed with a key set");
        }
        if !self.development() && !self.has_key_set() && self.auth.api_keys.is_empty() {
            return refuse(
                "nobody could sign in: set auth.jwks_url or auth.jwks_file with auth.issuer, \
                 or auth.development = true to accept tokens of `chappe token`",
            );
        }
        Ok(())
    }

    /// Where QUIC listens.
    pub(crate) fn quic(&self) -> SocketAddr {
        self.listen.quic.unwrap_or(self.listen.tcp)
    }

    /// Whether tokens of the generated secret are accepted.
    pub(crate) fn development(&self) -> bool {
        let exposed = [self.listen.tcp, self.quic()].iter().any(|addr| !addr.ip().is_loopback());
        self.auth.development.unwrap_or(!self.has_key_set() && !exposed)
    }

    fn has_key_set(&self) -> bool {
        self.auth.jwks_url.is_some() || self.auth.jwks_file.is_some()
    }
}

const fn loopback(port: u16) -> SocketAddr {
    SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), port)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(file: &str, environment: &[(&str, &str)]) -> Result<Config, ConfigError> {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("chappe.toml");
        std::fs::write(&path, file).unwrap();
        let environment =
            environment.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
        let config = Config::read(Some(&path), environment.collect())?;
        config.check().map(|()| config)
    }

    #[test]
    fn the_environment_overrides_the_file() {
        let config = read(
            "[log]\nkeep = '3d'\npartitions = 8",
            &[("CHAPPE_LOG__PARTITIONS", "16"), ("CHAPPE_URL", "ws://elsewhere")],
        )
        .unwrap();
        assert_eq!(config.log.partitions, 16);
        assert_eq!(config.log.keep, Duration::from_secs(3 * 24 * 60 * 60));
    }

    #[test]
    fn a_misspelt_key_is_refused_by_name() {
        let error = read("[log]\nkeeep = '3d'", &[]).unwrap_err().to_string();
        assert!(error.contains("keeep") && error.contains("keep_bytes"), "{error}");
        assert!(read("", &[("CHAPPE_LOG__KEEEP", "3d")]).is_err());
    }

    #[test]
    fn development_sign_in_is_never_exposed_by_default() {
        assert!(read("", &[]).unwrap().development());
        let error = read("[listen]\ntcp = '0.0.0.0:7400'", &[]).unwrap_err().to_string();
        assert!(error.contains("auth.development"), "{error}");
    }

    #[test]
    fn a_beacon_is_neither_a_flood_nor_late() {
        assert!(read("[broker]\nbeacon = '100ms'", &[]).is_ok());
        assert!(read("[broker]\nbeacon = '99ms'", &[]).is_err());
        assert!(read("[broker]\nbeacon = '3s'", &[]).is_err());
    }

    #[test]
    fn a_password_stays_as_it_was_given() {
        let environment = [("CHAPPE_LOG__USER", "0123"), ("CHAPPE_LOG__PASSWORD", "1e5")];
        let config = read("", &environment).unwrap();
        assert_eq!(config.log.user.as_deref(), Some("0123"));
        assert_eq!(config.log.password.as_ref().map(Secret::reveal), Some("1e5"));
        assert!(!format!("{config:?}").contains("1e5"));
    }

    #[test]
    fn half_a_certificate_is_refused() {
        assert!(read("[tls]\ncert = 'a.pem'", &[]).is_err());
    }
}
