//! Where the store is, how it is reached and how long its calls may take; and what the driver
//! makes of that.

use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use rustls::{ClientConfig, RootCertStore};
use scylla::client::execution_profile::{ExecutionProfile, ExecutionProfileHandle};
use scylla::client::session_builder::SessionBuilder;
use scylla::policies::load_balancing::{DefaultPolicy, LoadBalancingPolicy};
use scylla::policies::speculative_execution::SimpleSpeculativeExecutionPolicy;
use scylla::statement::{Consistency, SerialConsistency};

use super::retry::NextNode;

/// A CQL cluster, and how it is used.
#[derive(Clone)]
pub struct ScyllaOptions {
    /// `host:port` of some nodes; the others are learnt from them.
    pub nodes: Vec<String>,
    /// The keyspace of the tables: lower-case letters, digits and `_`, a letter first.
    pub keyspace: String,
    /// The data centre whose nodes are used, and whose quorum counts. Needed where the cluster has
    /// several: quorums of different ones do not meet.
    pub datacenter: Option<String>,
    /// Which replicas agree on a unique key.
    pub unique: UniqueScope,
    /// Who logs in; nobody where the cluster lets everybody in.
    pub login: Option<ScyllaLogin>,
    /// TLS, or none to speak in the clear.
    pub tls: Option<ScyllaTls>,
    /// One request, with the other nodes that are tried.
    pub request: Duration,
    /// One call of the port, with its repeated requests and the wait for its turn.
    pub call: Duration,
}

/// Which replicas agree on a unique key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum UniqueScope {
    /// A quorum of the data centre: right where all brokers are in that one.
    Local,
    /// A quorum of all: right where brokers of several data centres claim names.
    Everywhere,
}

/// Name and password.
#[derive(Clone)]
pub struct ScyllaLogin {
    /// The role.
    pub user: String,
    /// Its password.
    pub password: String,
}

/// How the nodes prove who they are. Their certificates must name their addresses: the driver
/// learns of most nodes by address, and checks that.
#[derive(Debug, Clone, Default)]
pub struct ScyllaTls {
    /// A PEM file of the authorities to trust; none for the machine's own.
    pub ca: Option<PathBuf>,
}

impl ScyllaOptions {
    /// The cluster of some nodes with the default limits, in the clear and without a login.
    pub fn at(nodes: impl IntoIterator<Item = impl Into<String>>) -> Self {
        Self {
            nodes: nodes.into_iter().map(Into::into).collect(),
            keyspace: "chappe".to_owned(),
            datacenter: None,
            unique: UniqueScope::Local,
            login: None,
            tls: None,
            request: Duration::from_secs(4),
            call: Duration::from_secs(12),
        }
    }
}

/// What is wrong with the options.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ScyllaOptionsError {
    /// No node at all.
    #[error("no node of the store is named")]
    Nodes,
    /// A name that would need quoting.
    #[error("a keyspace is named by 1 to 48 of a-z, 0-9 and _, a letter first")]
    Keyspace,
    /// The authorities cannot be read.
    #[error("the authorities for the store's TLS cannot be read: {0}")]
    Authorities(String),
}

impl ScyllaOptions {
    /// Checks the options, and reads the authorities.
    pub(super) fn session(&self) -> Result<SessionBuilder, ScyllaOptionsError> {
        if self.nodes.is_empty() {
            return Err(ScyllaOptionsError::Nodes);
        }
        let name = self.keyspace.as_bytes();
        let is_plain = |c: &u8| c.is_ascii_lowercase() || c.is_ascii_digit() || *c == b'_';
        let is_name = name.first().is_some_and(u8::is_ascii_lowercase) && name.iter().all(is_plain);
        if !is_name || name.len() > KEYSPACE_BYTES_MAX {
            return Err(ScyllaOptionsError::Keyspace);
        }
        let mut session = SessionBuilder::new()
            .known_nodes(&self.nodes)
            .keyspaces_to_fetch([&self.keyspace])
            .connection_timeout(self.request)
            .hostname_resolution_timeout(Some(self.request))
            .metadata_request_clientside_timeout(self.request)
            // Behind a network that swallows everything a connection would look alive for minutes.
            .keepalive_interval(KEEPALIVE)
            .keepalive_timeout(KEEPALIVE)
            .schema_agreement_timeout(AGREEMENT_MAX)
            .default_execution_profile_handle(self.profile().into_handle());
        if let Some(ScyllaLogin { user, password }) = &self.login {
            session = session.user(user, password);
        }
        if let Some(tls) = &self.tls {
            session = session.tls_context(Some(tls.client()?));
        }
        Ok(session)
    }

    /// How stamped rows are written: nothing is sent twice at the same time.
    fn profile(&self) -> ExecutionProfile {
        let serial = match self.unique {
            UniqueScope::Local => SerialConsistency::LocalSerial,
            UniqueScope::Everywhere => SerialConsistency::Serial,
        };
        ExecutionProfile::builder()
            .consistency(Consistency::LocalQuorum)
            .serial_consistency(Some(serial))
            .request_timeout(Some(self.request))
            .load_balancing_policy(self.nodes_policy())
            .retry_policy(Arc::new(NextNode))
            .speculative_execution_policy(None)
            .build()
    }

    /// How rows are read: a node that is slow to answer is not waited for if there is another.
    pub(super) fn reads(&self) -> ExecutionProfileHandle {
        let second = SimpleSpeculativeExecutionPolicy {
            max_retry_count: 1,
            retry_interval: SECOND_READ_AFTER,
        };
        let profile = self.profile().to_builder();
        profile.speculative_execution_policy(Some(Arc::new(second))).build().into_handle()
    }

    /// The replicas of a row first, of the one data centre only.
    fn nodes_policy(&self) -> Arc<dyn LoadBalancingPolicy> {
        let policy = DefaultPolicy::builder().token_aware(true).permit_dc_failover(false);
        match &self.datacenter {
            Some(datacenter) => policy.prefer_datacenter(datacenter.clone()).build(),
            None => policy.build(),
        }
    }

    /// The consistency that reads a unique key after all that was decided about it.
    pub(super) fn serial_read(&self) -> Consistency {
        match self.unique {
            UniqueScope::Local => Consistency::LocalSerial,
            UniqueScope::Everywhere => Consistency::Serial,
        }
    }
}

impl ScyllaTls {
    fn client(&self) -> Result<Arc<ClientConfig>, ScyllaOptionsError> {
        let failed = |error: String| ScyllaOptionsError::Authorities(error);
        let mut roots = RootCertStore::empty();
        match &self.ca {
            Some(file) => {
                let named = |error| failed(format!("{}: {error}", file.display()));
                for certificate in
                    CertificateDer::pem_file_iter(file).map_err(|error| named(error.to_string()))?
                {
                    let certificate = certificate.map_err(|error| named(error.to_string()))?;
                    roots.add(certificate).map_err(|error| named(error.to_string()))?;
                }
                if roots.is_empty() {
                    return Err(named("there is no certificate in it".to_owned()));
                }
            }
            None => {
                let found = rustls_native_certs::load_native_certs();
                roots.add_parsable_certificates(found.certs);
                if roots.is_empty() {
                    return Err(failed("the machine has none".to_owned()));
                }
            }
        }
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let client = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .map_err(|error| failed(error.to_string()))?;
        Ok(Arc::new(client.with_root_certificates(roots).with_no_client_auth()))
    }
}

impl fmt::Debug for ScyllaOptions {
    /// Without the password.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ScyllaOptions")
            .field("nodes", &self.nodes)
            .field("keyspace", &self.keyspace)
            .field("datacenter", &self.datacenter)
            .field("tls", &self.tls)
            .finish_non_exhaustive()
    }
}

/// The servers take no longer names.
const KEYSPACE_BYTES_MAX: usize = 48;
/// A connection that was silent for so long is asked whether it lives, and given up after so long.
const KEEPALIVE: Duration = Duration::from_secs(5);
/// How long the nodes may take to agree on a change of the schema.
const AGREEMENT_MAX: Duration = Duration::from_secs(60);
/// A read is sent to a second node when the first has not answered by then. Healthy ones answer in
/// a few milliseconds, so this costs nothing until one stalls.
const SECOND_READ_AFTER: Duration = Duration::from_millis(100);
