//! What was committed for the partitions of a group, as Kafka tells it.
//!
//! Asked for when a partition is taken over and the store does not answer: then for many at the
//! same time, so one request is for all of them.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use chappe_protocol::PartitionId;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::KafkaResult;
use rdkafka::{Offset as Place, TopicPartitionList};
use tokio::sync::Mutex;

use super::config::GroupConfig;
use crate::log::Offset;
use crate::ownership::{CommitError, Progress};

/// An answer serves whoever asks within this time.
const FRESH: Duration = Duration::from_secs(1);

type All = Arc<BTreeMap<PartitionId, Progress>>;

/// The last answer.
#[derive(Default)]
pub(super) struct Committed(Mutex<Option<(Instant, All)>>);

impl Committed {
    /// What was committed for a partition.
    pub(super) async fn of(
        &self,
        partition: PartitionId,
        config: &GroupConfig,
    ) -> Result<Option<Progress>, CommitError> {
        let mut last = self.0.lock().await;
        if let Some((asked, all)) = &*last
            && asked.elapsed() < FRESH
        {
            return Ok(all.get(&partition).cloned());
        }
        let asked = Instant::now();
        let config = config.clone();
        let answer = tokio::task::spawn_blocking(move || ask(&config)).await;
        let unavailable = |why: String| CommitError::Unavailable(why);
        let all = answer.map_err(|error| unavailable(error.to_string()))?;
        let all = Arc::new(all.map_err(|error| unavailable(error.to_string()))?);
        *last = Some((asked, Arc::clone(&all)));
        Ok(all.get(&partition).cloned())
    }
}

/// Asks with a consumer that joins no group.
fn ask(config: &GroupConfig) -> KafkaResult<BTreeMap<PartitionId, Progress>> {
    let consumer: BaseConsumer = config.member().create()?;
    let mut list = TopicPartitionList::new();
    list.add_partition_range(&config.topic, 0, config.partitions as i32 - 1);
    let found = consumer.committed_offsets(list, config.call_timeout)?;
    let progress = found.elements().into_iter().filter_map(|element| {
        let Place::Offset(offset) = element.offset() else { return None };
        let offset = Offset(u64::try_from(offset).ok()?);
        let note = element.metadata().to_owned();
        Some((PartitionId(element.partition() as u32), Progress { offset, note }))
    });
    Ok(progress.collect())
}
