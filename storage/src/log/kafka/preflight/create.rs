//! Makes a topic: with the settings that a log needs, and one first record in each partition.
//!
//! Interrupted, it is run again and goes on: what is there stays, and what is missing gets the
//! record that the others have.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use chappe_protocol::PartitionId;
use rdkafka::admin::{NewTopic, TopicReplication};
use rdkafka::error::KafkaError;
use rdkafka::types::RDKafkaErrorCode;

use super::beginning::{self, Beginning};
use super::finding::{Finding, Severity};
use super::settings::{Described, judge, wanted};
use super::{Admin, describe};
use crate::log::kafka::{KafkaConfig, KafkaLog, OpenError};
use crate::log::{AppendError, AppendRefused, Log, Offset, ReadError};

/// How safely a new topic keeps its records.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Layout {
    /// How many nodes have each record.
    pub replicas: u32,
    /// How many have it before it is acknowledged.
    pub min_insync: u32,
}

impl Default for Layout {
    /// One node may fail, and nothing stops.
    fn default() -> Self {
        Self { replicas: 3, min_insync: 2 }
    }
}

/// The record that every partition begins with.
pub struct Genesis<'a> {
    /// What a new log gets.
    pub record: Bytes,
    /// Whether the first record of a partition is such a one. What is found decides: a creation
    /// that goes on uses the record of the one that began it.
    pub is_genesis: &'a (dyn Fn(&[u8]) -> bool + Sync),
}

/// What came of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Created {
    /// The record that every partition begins with now. None if all of them were trimmed.
    pub genesis: Option<Bytes>,
    /// How many partitions got it now.
    pub begun: u32,
}

/// Why a topic was not made, or not to the end. It can be tried again.
#[derive(Debug, thiserror::Error)]
pub enum CreateError {
    /// Nobody answers, or a setting is wrong.
    #[error(transparent)]
    Open(#[from] OpenError),
    /// Kafka does not make it.
    #[error("Kafka does not make topic {topic}: {what}")]
    Refused {
        /// The topic.
        topic: String,
        /// What it says.
        what: String,
    },
    /// There is one, which cannot be used.
    #[error("topic {topic} is there and cannot be used: {}", .findings.iter().map(ToString::to_string).collect::<Vec<_>>().join(" "))]
    Unfit {
        /// The topic.
        topic: String,
        /// What is wrong with it.
        findings: Vec<Finding>,
    },
    /// There is one, which holds something else.
    #[error(
        "partition {0} of the topic begins with something else: name another topic; if the log was \
         made anew, see `chappe log adopt`"
    )]
    Foreign(PartitionId),
    /// The log is in use, and a partition of it is empty. It was lost, and a new beginning would
    /// hide that.
    #[error(
        "the log is in use, but its partition {0} is empty: restore it, or run `chappe log adopt`"
    )]
    Lost(PartitionId),
    /// Somebody else appended at the same time.
    #[error("somebody else appended to partition {0} at the same time: delete the topic")]
    Meddled(PartitionId),
    /// The log cannot be read.
    #[error(transparent)]
    Read(#[from] ReadError),
    /// The log takes no records.
    #[error(transparent)]
    Append(#[from] AppendRefused),
    /// Whether a first record was written is not certain.
    #[error(transparent)]
    Doubt(#[from] AppendError),
}

/// Makes the topic, or goes on making it. Changes nothing if it is made.
pub async fn create(
    config: &KafkaConfig,
    layout: Layout,
    genesis: &Genesis<'_>,
) -> Result<Created, CreateError> {
    config.check()?;
    let described = match describe(config).await? {
        Some(described) => described,
        None => {
            make_topic(config, layout).await?;
            appears(config).await?
        }
    };
    let mut findings = judge(config, &described);
    findings.retain(|finding| finding.severity == Severity::Refuse);
    if !findings.is_empty() {
        return Err(CreateError::Unfit { topic: config.topic.clone(), findings });
    }
    let log = Arc::new(KafkaLog::open(config.clone()).await?);
    let beginnings = beginning::of_all(&log).await?;
    let found = found(&beginnings, genesis)?;
    let missing: Vec<_> = beginnings
        .iter()
        .filter(|(_, beginning)| **beginning == Beginning::Empty)
        .map(|(partition, _)| *partition)
        .collect();
    if missing.is_empty() {
        return Ok(Created { genesis: found, begun: 0 });
    }
    let record = found.unwrap_or_else(|| genesis.record.clone());
    begin(config, &log, &missing, &record).await?;
    // A creation that was killed, or a second one, may have had a record on its way.
    for partition in &missing {
        if log.bounds(*partition).await?.end != Offset(1) {
            return Err(CreateError::Meddled(*partition));
        }
    }
    Ok(Created { genesis: Some(record), begun: missing.len() as u32 })
}

async fn make_topic(config: &KafkaConfig, layout: Layout) -> Result<(), CreateError> {
    let refused = |what: String| CreateError::Refused { topic: config.topic.clone(), what };
    let admin = Admin::new(config).map_err(|error| refused(error.to_string()))?;
    let settings = wanted(config, layout.min_insync);
    let replication = TopicReplication::Fixed(layout.replicas as i32);
    let mut topic = NewTopic::new(&config.topic, config.partitions as i32, replication);
    for (name, value) in &settings {
        topic = topic.set(name, value);
    }
    let made: Result<_, KafkaError> = admin.client().create_topics([&topic], &admin.options).await;
    match made.map_err(|error| refused(error.to_string()))?.into_iter().next() {
        Some(Ok(_)) | Some(Err((_, RDKafkaErrorCode::TopicAlreadyExists))) => Ok(()),
        Some(Err((_, code))) => Err(refused(code.to_string())),
        None => Err(refused("it did not answer".to_owned())),
    }
}

/// Waits until the nodes have heard of a new topic.
async fn appears(config: &KafkaConfig) -> Result<Described, CreateError> {
    let begin = Instant::now();
    loop {
        match describe(config).await {
            Ok(Some(described)) if described.replicas.len() == config.partitions as usize => {
                return Ok(described);
            }
            Err(error) if begin.elapsed() > APPEARS_WITHIN => return Err(error.into()),
            Ok(_) if begin.elapsed() > APPEARS_WITHIN => {
                let what = "it does not appear".to_owned();
                return Err(CreateError::Refused { topic: config.topic.clone(), what });
            }
            _ => tokio::time::sleep(LOOK_EVERY).await,
        }
    }
}

/// The record that partitions begin with already.
fn found(
    beginnings: &BTreeMap<PartitionId, Beginning>,
    genesis: &Genesis<'_>,
) -> Result<Option<Bytes>, CreateError> {
    let mut found: Option<&Bytes> = None;
    let (mut is_used, mut empty) = (false, None);
    for (partition, beginning) in beginnings {
        match beginning {
            Beginning::Empty => empty = empty.or(Some(*partition)),
            Beginning::Trimmed => is_used = true,
            Beginning::First { record, is_used: is_this_used } => {
                is_used |= is_this_used;
                if !(genesis.is_genesis)(record) || found.is_some_and(|other| other != record) {
                    return Err(CreateError::Foreign(*partition));
                }
                found = Some(record);
            }
        }
    }
    match empty {
        Some(partition) if is_used => Err(CreateError::Lost(partition)),
        _ => Ok(found.cloned()),
    }
}

/// Writes the first record of these.
async fn begin(
    config: &KafkaConfig,
    log: &KafkaLog,
    missing: &[PartitionId],
    record: &Bytes,
) -> Result<(), CreateError> {
    let (mut appender, mut acks) = log.appender();
    for partition in missing {
        appender.append(*partition, 0, record.clone())?;
    }
    appender.flush();
    let mut left = missing.len();
    let acked = async {
        while left > 0 {
            let closed = || AppendError("the log was closed".to_owned());
            let acked = acks.recv().await.ok_or_else(closed)?;
            left -= acked.len();
            for acked in acked {
                if acked.result? != Offset(0) {
                    return Err(CreateError::Meddled(acked.partition));
                }
            }
        }
        Ok(())
    };
    let patience = config.message_timeout.min(BEGIN_WITHIN);
    match tokio::time::timeout(patience, acked).await {
        Ok(outcome) => outcome,
        Err(_) => Err(AppendError("Kafka did not acknowledge it in time".to_owned()).into()),
    }
}

/// A new topic is known to all nodes after this.
const APPEARS_WITHIN: Duration = Duration::from_secs(30);
const LOOK_EVERY: Duration = Duration::from_millis(50);
/// All first records are acknowledged after this.
const BEGIN_WITHIN: Duration = Duration::from_secs(30);
