//! Who is in a group, for a tool that must be alone.

use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::KafkaError;
use tokio::task::spawn_blocking;

use super::config::GroupConfig;

/// Kafka does not say who is in a group.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("who is in the group is not known: {0}")]
pub struct MembersError(String);

/// The hosts of a group's members, as Kafka has them. One that was killed is among them until its
/// session ends.
pub async fn members(config: &GroupConfig) -> Result<Vec<String>, MembersError> {
    let config = config.clone();
    config.check().map_err(|error| MembersError(error.to_string()))?;
    let asked =
        spawn_blocking(move || ask(&config).map_err(|error| MembersError(error.to_string())));
    asked.await.map_err(|error| MembersError(error.to_string()))?
}

/// Asks with a client that joins no group.
fn ask(config: &GroupConfig) -> Result<Vec<String>, KafkaError> {
    let consumer: BaseConsumer = config.member().create()?;
    let found = consumer.fetch_group_list(Some(&config.group), config.call_timeout)?;
    let ours = found.groups().iter().filter(|group| group.name() == config.group);
    let hosts = ours.flat_map(|group| group.members()).map(|member| member.client_host());
    Ok(hosts.map(|host| host.trim_start_matches('/').to_owned()).collect())
}
