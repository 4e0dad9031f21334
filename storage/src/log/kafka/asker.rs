//! Asks a cluster: what a topic has, where its partitions start and end, what was when.
//!
//! One client for all questions, each with a time limit. They block, so they are asked on threads
//! that may.

use std::thread::sleep;
use std::time::{Duration, Instant};

use chappe_protocol::PartitionId;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::KafkaError;
use rdkafka::metadata::Metadata;
use rdkafka::types::RDKafkaErrorCode;
use rdkafka::{Offset as Place, TopicPartitionList};

use super::config::{KafkaConfig, OpenError};
use super::connection::Voice;
use crate::log::{Bounds, Offset};

/// A client that asks.
pub(super) struct Asker {
    client: BaseConsumer<Voice>,
    topic: String,
    timeout: Duration,
}

impl Asker {
    pub(super) fn new(config: &KafkaConfig) -> Result<Self, OpenError> {
        let client = config.asker().create_with_context(Voice::default());
        let client = client.map_err(|error| OpenError::Config(error.to_string()))?;
        Ok(Self { client, topic: config.topic.clone(), timeout: config.call_timeout })
    }

    /// How many partitions the topic has; none if there is no such topic.
    pub(super) fn partitions(&self) -> Result<Option<u32>, String> {
        let metadata = self.metadata()?;
        let Some(topic) = metadata.topics().first() else { return Ok(None) };
        match topic.error().map(RDKafkaErrorCode::from) {
            None => Ok(Some(topic.partitions().len() as u32)),
            Some(RDKafkaErrorCode::UnknownTopicOrPartition | RDKafkaErrorCode::UnknownTopic) => {
                Ok(None)
            }
            Some(error) => Err(error.to_string()),
        }
    }

    /// What is known of the topic and of the nodes.
    pub(super) fn metadata(&self) -> Result<Metadata, String> {
        self.ask(|timeout| self.client.fetch_metadata(Some(&self.topic), timeout))
    }

    pub(super) fn bounds(&self, partition: PartitionId) -> Result<Bounds, String> {
        let (start, end) = self.ask(|timeout| {
            self.client.fetch_watermarks(&self.topic, partition.0 as i32, timeout)
        })?;
        let (Ok(start), Ok(end)) = (u64::try_from(start), u64::try_from(end)) else {
            return Err(format!("partition {partition} is said to go from {start} to {end}"));
        };
        Ok(Bounds { start: Offset(start), end: Offset(end) })
    }

    /// For each partition the first record that is not older than `since_ms` (Unix time); none if
    /// all are.
    pub(super) fn since(
        &self,
        partitions: &[PartitionId],
        since_ms: i64,
    ) -> Result<Vec<Option<Offset>>, String> {
        let mut list = TopicPartitionList::with_capacity(partitions.len());
        for partition in partitions {
            let place = Place::Offset(since_ms);
            let added = list.add_partition_offset(&self.topic, partition.0 as i32, place);
            added.map_err(|error| error.to_string())?;
        }
        let found = self.ask(|timeout| self.client.offsets_for_times(list.clone(), timeout))?;
        let of = |partition: &PartitionId| {
            let found = found.find_partition(&self.topic, partition.0 as i32);
            let found = found.ok_or_else(|| format!("no answer for partition {partition}"))?;
            found.error().map_err(|error| error.to_string())?;
            match found.offset() {
                Place::Offset(offset) => Ok(Some(Offset(offset.max(0) as u64))),
                Place::End => Ok(None),
                other => Err(format!("partition {partition} has its times at {other:?}")),
            }
        };
        partitions.iter().map(of).collect()
    }

    /// Asks until there is an answer, or the time is over. While the nodes change, the library
    /// gives questions up that another node would answer.
    fn ask<T>(&self, question: impl Fn(Duration) -> Result<T, KafkaError>) -> Result<T, String> {
        let deadline = Instant::now() + self.timeout;
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            let answer = question(left.min(ONE_TRY));
            // Its queue grows with every line that nobody takes. Messages never come: it reads
            // nothing. (That there is no message does not mean that there was no event.)
            for _ in 0..EVENTS_MAX {
                drop(self.client.poll(Duration::ZERO));
            }
            match answer {
                Ok(answer) => return Ok(answer),
                Err(error) if passes(&error) && left > AGAIN_AFTER => {
                    // Asks any node who leads now; by itself the library asks much later.
                    let look = left.min(ONE_LOOK);
                    drop(self.client.fetch_metadata(Some(&self.topic), look));
                    sleep(AGAIN_AFTER);
                }
                Err(error) => return Err(self.client.context().explain(&error)),
            }
        }
    }
}

/// Whether another try may bring an answer.
fn passes(error: &KafkaError) -> bool {
    matches!(
        error.rdkafka_error_code(),
        Some(
            RDKafkaErrorCode::OperationTimedOut
                | RDKafkaErrorCode::RequestTimedOut
                | RDKafkaErrorCode::DestroyBroker
                | RDKafkaErrorCode::BrokerDestroy
                | RDKafkaErrorCode::BrokerTransportFailure
                | RDKafkaErrorCode::AllBrokersDown
                | RDKafkaErrorCode::WaitingForCoordinator
                | RDKafkaErrorCode::LeaderNotAvailable
                | RDKafkaErrorCode::NotLeaderForPartition
                | RDKafkaErrorCode::FencedLeaderEpoch
                | RDKafkaErrorCode::UnknownLeaderEpoch
                | RDKafkaErrorCode::OffsetNotAvailable
                | RDKafkaErrorCode::NetworkException
        )
    )
}

/// A frozen node is waited for so long, and then perhaps another one is asked.
const ONE_TRY: Duration = Duration::from_secs(2);
/// Who leads is asked for so long.
const ONE_LOOK: Duration = Duration::from_secs(1);
/// A question is asked again after this.
const AGAIN_AFTER: Duration = Duration::from_millis(50);
/// Events that are served after a question.
const EVENTS_MAX: usize = 64;
