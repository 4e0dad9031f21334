//! Looks at a topic before it is used, and says what must be mended and how; and makes one.
//!
//! What can be seen from here is the topic's shape, its settings, and whether its partitions begin
//! alike. Whether they begin as the store says is not: that is compared by who knows the store.

mod beginning;
mod create;
mod finding;
mod settings;

use rdkafka::admin::{AdminClient, AdminOptions, ConfigEntry, ResourceSpecifier};
use rdkafka::error::KafkaError;
use tokio::task::spawn_blocking;

pub use self::create::{CreateError, Created, Genesis, Layout, create};
pub use self::finding::{Check, Finding, Severity};
use self::settings::{Described, judge, missing};
use super::asker::Asker;
use super::config::{KafkaConfig, OpenError};
use super::connection::Voice;

/// Judges the topic. Without findings it can be used; with a [`Severity::Refuse`] it must not be.
pub async fn check(config: &KafkaConfig) -> Result<Vec<Finding>, OpenError> {
    config.check()?;
    let Some(described) = describe(config).await? else { return Ok(vec![missing(config)]) };
    let mut findings = judge(config, &described);
    // A log with another number of partitions has no beginning to speak of.
    if described.replicas.len() == config.partitions as usize {
        findings.extend(beginning::check(config).await?);
    }
    Ok(findings)
}

/// What Kafka says of the topic; none if there is none.
async fn describe(config: &KafkaConfig) -> Result<Option<Described>, OpenError> {
    let asking = config.clone();
    let asked = spawn_blocking(move || {
        let asker = Asker::new(&asking)?;
        let unavailable = |what| asking.unavailable(what);
        if asker.partitions().map_err(unavailable)?.is_none() {
            return Ok(None);
        }
        let metadata = asker.metadata().map_err(unavailable)?;
        let topic = metadata.topics().first();
        let partitions = topic.map_or(&[][..], |topic| topic.partitions());
        let replicas = partitions.iter().map(|one| (one.id() as u32, one.replicas().to_vec()));
        let mut nodes: Vec<_> = metadata.brokers().iter().map(|node| node.id()).collect();
        nodes.sort_unstable();
        Ok(Some(Described { replicas: replicas.collect(), nodes, ..Described::default() }))
    });
    let asked = asked.await.map_err(|error| config.unavailable(error.to_string()))?;
    let Some(mut described) = asked? else { return Ok(None) };
    let topic = settings_of(config, ResourceSpecifier::Topic(&config.topic)).await;
    let refused = |error: KafkaError| {
        config.unavailable(format!("the topic's settings cannot be seen: {error}"))
    };
    described.settings = topic.map_err(refused)?.into_iter().filter_map(pair).collect();
    if let Some(node) = described.nodes.first() {
        // Not everybody may see them.
        let node = settings_of(config, ResourceSpecifier::Broker(*node)).await.ok();
        described.node = node.map(|entries| entries.into_iter().filter_map(pair).collect());
    }
    Ok(Some(described))
}

async fn settings_of(
    config: &KafkaConfig,
    of: ResourceSpecifier<'_>,
) -> Result<Vec<ConfigEntry>, KafkaError> {
    let admin = Admin::new(config)?;
    let described = admin.client().describe_configs([&of], &admin.options).await?;
    match described.into_iter().next() {
        Some(Ok(resource)) => Ok(resource.entries),
        Some(Err(code)) => Err(KafkaError::AdminOp(code)),
        None => Err(KafkaError::Canceled),
    }
}

fn pair(entry: ConfigEntry) -> Option<(String, String)> {
    entry.value.map(|value| (entry.name, value))
}

/// A client for a question or two. Nobody serves its events, so it does not stay.
struct Admin {
    /// There until it is dropped.
    client: Option<AdminClient<Voice>>,
    options: AdminOptions,
}

impl Admin {
    fn new(config: &KafkaConfig) -> Result<Self, KafkaError> {
        let client = config.asker().create_with_context(Voice::default())?;
        let options = AdminOptions::new()
            .request_timeout(Some(config.call_timeout))
            .operation_timeout(Some(config.call_timeout));
        Ok(Self { client: Some(client), options })
    }

    fn client(&self) -> &AdminClient<Voice> {
        match &self.client {
            Some(client) => client,
            None => unreachable!("it is there until it is dropped"),
        }
    }
}

impl Drop for Admin {
    /// It waits for its thread, which a runtime's thread must not.
    fn drop(&mut self) {
        let client = self.client.take();
        // Without a thread it ends here after all.
        std::thread::Builder::new().spawn(move || drop(client)).ok();
    }
}
