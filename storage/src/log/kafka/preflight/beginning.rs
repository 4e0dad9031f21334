//! How the partitions of a topic begin: all alike, with a record that was written when it was
//! made.

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;
use chappe_protocol::PartitionId;
use tokio::task::JoinSet;

use super::finding::{Check, Finding, Severity};
use crate::log::kafka::{KafkaConfig, KafkaLog, OpenError};
use crate::log::{Bounds, Log, Offset, ReadError};

/// How a partition begins.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Beginning {
    /// It has nothing, and never had.
    Empty,
    /// Its first record is there.
    First {
        record: Bytes,
        /// Whether there is more behind it.
        is_used: bool,
    },
    /// Its first records were trimmed.
    Trimmed,
}

/// How each partition begins.
pub(super) async fn of_all(
    log: &Arc<KafkaLog>,
) -> Result<BTreeMap<PartitionId, Beginning>, ReadError> {
    let mut looks = JoinSet::new();
    for partition in (0..log.partitions()).map(PartitionId) {
        let log = Arc::clone(log);
        looks.spawn(async move { Ok((partition, of(&log, partition).await?)) });
    }
    let mut beginnings = BTreeMap::new();
    while let Some(looked) = looks.join_next().await {
        let (partition, beginning) =
            looked.map_err(|error| ReadError::Unavailable(error.to_string()))??;
        beginnings.insert(partition, beginning);
    }
    Ok(beginnings)
}

async fn of(log: &KafkaLog, partition: PartitionId) -> Result<Beginning, ReadError> {
    let Bounds { start, end } = log.bounds(partition).await?;
    if start > Offset(0) {
        return Ok(Beginning::Trimmed);
    }
    let first = log.read(partition, Offset(0), 1).await?.into_iter().next();
    Ok(first.map_or(Beginning::Empty, |entry| Beginning::First {
        record: entry.record,
        is_used: end > Offset(1),
    }))
}

/// What is wrong with how the topic begins.
pub(super) async fn check(config: &KafkaConfig) -> Result<Option<Finding>, OpenError> {
    let log = Arc::new(KafkaLog::open(config.clone()).await?);
    let beginnings = of_all(&log).await;
    let beginnings = beginnings.map_err(|error| config.unavailable(error.to_string()))?;
    Ok(judge(&config.topic, &beginnings))
}

fn judge(topic: &str, beginnings: &BTreeMap<PartitionId, Beginning>) -> Option<Finding> {
    let finding = |is: String, mend: &str| {
        Some(Finding {
            check: Check::Beginning,
            severity: Severity::Refuse,
            is,
            must_be: "every partition must begin with the record of its making".to_owned(),
            mend: mend.to_owned(),
        })
    };
    let empty: Vec<_> = beginnings
        .iter()
        .filter(|(_, beginning)| **beginning == Beginning::Empty)
        .map(|(partition, _)| partition.to_string())
        .collect();
    let is_used = beginnings.values().any(|beginning| match beginning {
        Beginning::First { is_used, .. } => *is_used,
        Beginning::Trimmed => true,
        Beginning::Empty => false,
    });
    if !empty.is_empty() && !is_used {
        let is = match empty.len() == beginnings.len() {
            true => format!("topic {topic} is empty"),
            false => format!("the making of topic {topic} was not finished"),
        };
        return finding(is, "Run `chappe log create`; if there was a log, see `chappe log adopt`.");
    }
    if !empty.is_empty() {
        let is = format!("topic {topic} is in use, but partitions {} are empty", empty.join(", "));
        return finding(is, "They were lost: restore them, or run `chappe log adopt`.");
    }
    let mut firsts = beginnings.iter().filter_map(|(partition, beginning)| match beginning {
        Beginning::First { record, .. } => Some((partition, record)),
        Beginning::Empty | Beginning::Trimmed => None,
    });
    let (_, record) = firsts.next()?;
    let (partition, _) = firsts.find(|(_, other)| *other != record)?;
    let is = format!("partition {partition} of topic {topic} begins with another record");
    finding(is, "It is of another log: restore it, or run `chappe log adopt`.")
}
