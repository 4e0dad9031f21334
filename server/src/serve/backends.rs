//! What a broker stands on: files of this process alone, or servers that several share.

use std::{path::Path, sync::Arc};

use anyhow::Context;
use chappe_broker::{Leadership, Parts, migration::Import};
use chappe_storage::{
    log::{
        Log,
        segment::{SegmentConfig, SegmentLog},
    },
    store::{Store, lsm::LsmStore},
};

use crate::{
    config::{Config, cluster::LogKind},
    data_dir::DataDir,
};

/// Opens what the configuration names, and says how leadership is proved on it.
pub(super) async fn open(config: &Config, data: &DataDir) -> anyhow::Result<(Parts, Leadership)> {
    match config.log.kind {
        LogKind::Segment => Ok((embedded(config, data).await?, Leadership::Lock)),
        #[cfg(feature = "clustered")]
        LogKind::Kafka => Ok((clustered::open(config).await?, Leadership::LEASE)),
        #[cfg(not(feature = "clustered"))]
        LogKind::Kafka => anyhow::bail!(NOT_CLUSTERED),
    }
}

#[cfg(not(feature = "clustered"))]
const NOT_CLUSTERED: &str = "this build has no Kafka: it was made without `clustered`";

/// Opens the store alone, for a tool.
pub(crate) async fn store(config: &Config, data: &DataDir) -> anyhow::Result<Arc<dyn Store>> {
    match config.log.kind {
        LogKind::Segment => {
            let dir = data.join("store");
            let open = move || LsmStore::open(&dir).with_context(|| cannot_open("store", &dir));
            Ok(Arc::new(tokio::task::spawn_blocking(open).await??))
        }
        #[cfg(feature = "clustered")]
        LogKind::Kafka => clustered::checked_store(config).await,
        #[cfg(not(feature = "clustered"))]
        LogKind::Kafka => anyhow::bail!(NOT_CLUSTERED),
    }
}

/// Makes or opens the log that an import begins. `layout` is for a topic that is made.
pub(crate) async fn new_log(
    config: &Config,
    data: &DataDir,
    import: &Import,
    #[cfg_attr(not(feature = "clustered"), allow(unused_variables))] layout: (u32, u32),
) -> anyhow::Result<Arc<dyn Log>> {
    match config.log.kind {
        LogKind::Segment => {
            let (dir, partitions) = (data.join("log"), import.partitions());
            let segments = segments(config)?;
            let open = move || {
                SegmentLog::open(&dir, partitions, segments)
                    .with_context(|| cannot_open("log", &dir))
            };
            Ok(Arc::new(tokio::task::spawn_blocking(open).await??))
        }
        #[cfg(feature = "clustered")]
        LogKind::Kafka => clustered::new_log(config, import, layout).await,
        #[cfg(not(feature = "clustered"))]
        LogKind::Kafka => anyhow::bail!(NOT_CLUSTERED),
    }
}

/// Opens log and store for a tool that takes the log over: whether they belong together is for it
/// to say.
pub(crate) async fn unjudged(
    config: &Config,
    data: &DataDir,
) -> anyhow::Result<(Arc<dyn Log>, Arc<dyn Store>)> {
    match config.log.kind {
        LogKind::Segment => {
            let Parts { log, store, .. } = embedded(config, data).await?;
            Ok((log, store))
        }
        #[cfg(feature = "clustered")]
        LogKind::Kafka => clustered::unjudged(config).await,
        #[cfg(not(feature = "clustered"))]
        LogKind::Kafka => anyhow::bail!(NOT_CLUSTERED),
    }
}

/// Says so if other processes lead the log. (Of an embedded one the lock says that.)
pub(crate) async fn alone(config: &Config) -> anyhow::Result<()> {
    match config.log.kind {
        LogKind::Segment => Ok(()),
        #[cfg(feature = "clustered")]
        LogKind::Kafka => clustered::alone(config).await,
        #[cfg(not(feature = "clustered"))]
        LogKind::Kafka => anyhow::bail!(NOT_CLUSTERED),
    }
}

/// What leads all of a log that is open already.
pub(super) fn parts(
    config: &Config,
    log: Arc<dyn Log>,
    store: Arc<dyn Store>,
) -> anyhow::Result<(Parts, Leadership)> {
    match config.log.kind {
        LogKind::Segment => Ok((Parts::alone(log, store), Leadership::Lock)),
        #[cfg(feature = "clustered")]
        LogKind::Kafka => Ok((clustered::parts(config, log, store)?, Leadership::LEASE)),
        #[cfg(not(feature = "clustered"))]
        LogKind::Kafka => anyhow::bail!(NOT_CLUSTERED),
    }
}

fn segments(config: &Config) -> anyhow::Result<SegmentConfig> {
    Ok(SegmentConfig {
        segment_bytes: u32::try_from(config.log.segment_bytes.as_u64())
            .context("log.segment_bytes is at most 1 GiB")?,
        keep: config.log.keep,
        keep_bytes: Some(config.log.keep_bytes.as_u64()),
        ..SegmentConfig::default()
    })
}

/// Log and store in the data directory.
async fn embedded(config: &Config, data: &DataDir) -> anyhow::Result<Parts> {
    let segments = segments(config)?;
    let (log_dir, store_dir) = (data.join("log"), data.join("store"));
    let partitions = config.log.partitions;
    // Opening reads and checks the newest part of the log.
    let opened = tokio::task::spawn_blocking(move || -> anyhow::Result<_> {
        let log = SegmentLog::open(&log_dir, partitions, segments)
            .with_context(|| cannot_open("log", &log_dir))?;
        let store = LsmStore::open(&store_dir).with_context(|| cannot_open("store", &store_dir))?;
        Ok((log, store))
    });
    let (log, store) = opened.await??;
    Ok(Parts::alone(Arc::new(log), Arc::new(store)))
}

fn cannot_open(what: &str, path: &Path) -> String {
    format!("cannot open the {what} in {}", path.display())
}

/// Tries until it succeeds, says why it does not, and gives up `wait` after the start began. An
/// error that waiting does not mend ends it at once.
#[cfg(feature = "clustered")]
async fn persist<T>(
    began: std::time::Instant,
    wait: std::time::Duration,
    mut attempt: impl AsyncFnMut() -> Result<T, Trouble>,
) -> anyhow::Result<T> {
    use std::time::Duration;

    let mut pause = Duration::from_millis(250);
    loop {
        match attempt().await {
            Ok(done) => return Ok(done),
            Err(Trouble::Final(error)) => return Err(error),
            Err(Trouble::Passing(error)) if began.elapsed() + pause > wait => return Err(error),
            Err(Trouble::Passing(error)) => {
                tracing::warn!("{error:#}; trying again in {pause:?}");
                tokio::time::sleep(pause).await;
                pause = (2 * pause).min(Duration::from_secs(10));
            }
        }
    }
}

/// Why something could not be opened.
#[cfg(feature = "clustered")]
enum Trouble {
    /// It may come.
    Passing(anyhow::Error),
    /// Somebody has to mend it.
    Final(anyhow::Error),
}

/// Kafka and a CQL store, as the configuration names them.
#[cfg(feature = "clustered")]
pub(crate) mod clustered {
    use std::time::{Duration, Instant};

    use anyhow::{anyhow, bail};
    use chappe_storage::{
        log::kafka::{
            self, Check, Connection, Genesis, KafkaConfig, KafkaLog, Layout, Login,
            Mechanism as KafkaMechanism, OpenError, Severity, Tls,
        },
        ownership::{
            self,
            kafka::{Group, GroupConfig},
        },
        store::scylla::{self, SchemaError, ScyllaLogin, ScyllaOptions, ScyllaStore, ScyllaTls},
    };

    use chappe_broker::{JoinError, Joined, WhenEmpty};

    use super::*;
    use crate::config::cluster::Mechanism;

    /// Opens both.
    pub(super) async fn open(config: &Config) -> anyhow::Result<Parts> {
        let (began, wait) = (Instant::now(), config.broker.wait);
        let (kafka, scylla) = (kafka(config)?, scylla(config));
        persist(began, wait, async || check_topic(&kafka).await).await?;
        let log = persist(began, wait, async || open_log(&kafka).await).await?;
        persist(began, wait, async || check_schema(&scylla).await).await?;
        let store = ScyllaStore::new(scylla).context("store")?;
        parts(config, log, Arc::new(store))
    }

    /// The group of brokers is joined when log and store were compared.
    pub(super) fn parts(
        config: &Config,
        log: Arc<dyn Log>,
        store: Arc<dyn Store>,
    ) -> anyhow::Result<Parts> {
        let group = group(config)?;
        let join = move || -> Result<Joined, JoinError> {
            let (group, changes) = Group::join(group)?;
            Ok((Arc::new(group), changes))
        };
        let (join, when_empty) = (Box::new(join), WhenEmpty::Refuse);
        Ok(Parts { log, store, join, inboxes: None, when_empty })
    }

    fn group(config: &Config) -> anyhow::Result<GroupConfig> {
        let kafka = kafka(config)?;
        let mut member =
            GroupConfig::new(kafka.connection, &kafka.group, &kafka.topic, kafka.partitions);
        member.session = config.log.session;
        member.heartbeat = member.heartbeat.min(config.log.session / 12);
        Ok(member)
    }

    /// Waits for the session of a broker that was killed, and refuses what runs.
    pub(super) async fn alone(config: &Config) -> anyhow::Result<()> {
        let (group, began) = (group(config)?, Instant::now());
        loop {
            let members = ownership::kafka::members(&group).await?;
            if members.is_empty() {
                return Ok(());
            }
            if began.elapsed() > 2 * group.session {
                let (name, hosts) = (&group.group, members.join(", "));
                bail!("brokers are in group {name}, on {hosts}: stop all of them first");
            }
            // Kafka tells nobody that a group became empty: it is asked again.
            tokio::time::sleep(Duration::from_millis(500)).await;
        }
    }

    /// A topic whose settings are as they must be, whatever is in it, and the store.
    pub(super) async fn unjudged(
        config: &Config,
    ) -> anyhow::Result<(Arc<dyn Log>, Arc<dyn Store>)> {
        let kafka = kafka(config)?;
        let mut findings = kafka::check(&kafka).await?;
        findings.retain(|of| of.severity == Severity::Refuse && of.check != Check::Beginning);
        if !findings.is_empty() {
            let what: Vec<_> = findings.iter().map(ToString::to_string).collect();
            bail!("topic {} cannot be used: {}", kafka.topic, what.join(" "));
        }
        Ok((log(&kafka).await?, checked_store(config).await?))
    }

    /// The store, whose tables are as they must be.
    pub(super) async fn checked_store(config: &Config) -> anyhow::Result<Arc<dyn Store>> {
        let scylla = scylla(config);
        let (began, wait) = (Instant::now(), config.broker.wait);
        persist(began, wait, async || check_schema(&scylla).await).await?;
        store(scylla)
    }

    /// The log of an import, whose topic is made if it is not there.
    pub(super) async fn new_log(
        config: &Config,
        import: &Import,
        (replicas, min_insync): (u32, u32),
    ) -> anyhow::Result<Arc<dyn Log>> {
        let kafka = kafka(config)?;
        let record = import.genesis();
        let is_genesis = |first: &[u8]| first == record;
        let genesis = Genesis { record: record.clone(), is_genesis: &is_genesis };
        let made = kafka::create(&kafka, Layout { replicas, min_insync }, &genesis).await;
        made.with_context(|| format!("topic {} must be a new one", kafka.topic))?;
        check_topic(&kafka)
            .await
            .map_err(|(Trouble::Passing(error) | Trouble::Final(error))| error)?;
        log(&kafka).await
    }

    /// How the log is reached.
    pub(crate) fn kafka(config: &Config) -> anyhow::Result<KafkaConfig> {
        let log = &config.log;
        if log.kind != LogKind::Kafka {
            bail!("log.kind is not 'kafka'");
        }
        let tls = (log.tls || log.tls_ca.is_some())
            .then(|| Tls { ca: log.tls_ca.clone(), identity: None });
        let mechanism = match log.mechanism {
            Mechanism::ScramSha256 => KafkaMechanism::ScramSha256,
            Mechanism::ScramSha512 => KafkaMechanism::ScramSha512,
            Mechanism::Plain => KafkaMechanism::Plain,
        };
        let login = log.user.clone().zip(log.password.as_ref()).map(|(user, password)| Login {
            mechanism,
            user,
            password: password.reveal().to_owned(),
        });
        let connection = Connection { tls, login, ..Connection::to(&log.brokers.join(",")) };
        let mut kafka = KafkaConfig::new(connection, &log.topic, log.partitions);
        kafka.group.clone_from(&log.group);
        kafka.keep = log.keep;
        Ok(kafka)
    }

    /// How the store is reached.
    pub(crate) fn scylla(config: &Config) -> ScyllaOptions {
        let store = &config.store;
        let mut options = ScyllaOptions::at(&store.nodes);
        options.keyspace.clone_from(&store.keyspace);
        options.datacenter.clone_from(&store.datacenter);
        options.login = store
            .user
            .clone()
            .zip(store.password.as_ref())
            .map(|(user, password)| ScyllaLogin { user, password: password.reveal().to_owned() });
        options.tls =
            (store.tls || store.tls_ca.is_some()).then(|| ScyllaTls { ca: store.tls_ca.clone() });
        options
    }

    /// Opens the log once more, for a tool.
    pub(crate) async fn log(config: &KafkaConfig) -> anyhow::Result<Arc<dyn Log>> {
        Ok(Arc::new(KafkaLog::open(config.clone()).await?))
    }

    /// Opens the store once more, for a tool.
    pub(crate) fn store(options: ScyllaOptions) -> anyhow::Result<Arc<dyn Store>> {
        Ok(Arc::new(ScyllaStore::new(options)?))
    }

    /// Refuses a topic on which something would be lost.
    async fn check_topic(config: &KafkaConfig) -> Result<(), Trouble> {
        let findings = kafka::check(config).await.map_err(trouble)?;
        let mut refused = Vec::new();
        for finding in findings {
            match finding.severity {
                Severity::Refuse => refused.push(finding.to_string()),
                Severity::Warn => tracing::warn!("{finding}"),
            }
        }
        if refused.is_empty() {
            return Ok(());
        }
        let topic = &config.topic;
        Err(Trouble::Final(anyhow!("topic {topic} cannot be used: {}", refused.join(" "))))
    }

    async fn open_log(config: &KafkaConfig) -> Result<Arc<dyn Log>, Trouble> {
        match KafkaLog::open(config.clone()).await {
            Ok(log) => Ok(Arc::new(log)),
            Err(error) => Err(trouble(error)),
        }
    }

    async fn check_schema(options: &ScyllaOptions) -> Result<(), Trouble> {
        let nodes = options.nodes.join(",");
        let differences = scylla::check(options).await.map_err(|error| match error {
            SchemaError::Unreachable(_) => {
                Trouble::Passing(anyhow!("the store at {nodes} cannot be used: {error}"))
            }
            error => Trouble::Final(anyhow!("the store at {nodes}: {error}")),
        })?;
        let (required, advised): (Vec<_>, Vec<_>) =
            differences.iter().partition(|difference| difference.is_required());
        advised.iter().for_each(|difference| tracing::warn!("the store: {difference}"));
        if required.is_empty() {
            return Ok(());
        }
        let what: Vec<_> = required.iter().map(ToString::to_string).collect();
        let (keyspace, what) = (&options.keyspace, what.join("; "));
        Err(Trouble::Final(anyhow!("keyspace {keyspace}: {what}: run `chappe schema apply`")))
    }

    fn trouble(error: OpenError) -> Trouble {
        match error {
            OpenError::Unavailable { .. } => Trouble::Passing(error.into()),
            error => Trouble::Final(error.into()),
        }
    }
}
