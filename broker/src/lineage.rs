//! The identity of a log: made with the log, kept in the store, compared at every start.
//!
//! Log and store belong together. A start that finds one without the other, or two that are not
//! each other's, refuses: going on would renumber what clients hold.

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use chappe_partition::{
    Assignment,
    record::{self, Genesis, Lineage, Record},
};
use chappe_protocol::{Incarnation, PartitionId};
use chappe_storage::{
    log::{AppendError, AppendRefused, Log, Offset, ReadError},
    store::{Claimed, Store, StoreError, UniqueKey},
};
use serde::{Deserialize, Serialize};

use crate::{
    fit,
    migration::{self, Migration},
};

/// Log and store cannot be used together.
#[derive(Debug, thiserror::Error)]
pub enum LineageError {
    /// The store knows a log that is not there.
    #[error(
        "the log is empty, but the store belongs to log {0}: restore the log, go on with a new one \
         by `chappe log adopt`, or move the store away to begin anew"
    )]
    LogMissing(Lineage),
    /// There is neither, and to make them is an operator's act.
    #[error("the log and the store are empty: `chappe log create` makes them one")]
    NotCreated,
    /// The log knows a store that is not there.
    #[error(
        "the store is empty, but log {0} has records: restore the store, or move the log away to \
         begin anew"
    )]
    StoreMissing(Lineage),
    /// They are not each other's.
    #[error(
        "the log is of lineage {log}, the store of {store}: they do not belong together. If the log \
         was made anew, take it over by `chappe log adopt`"
    )]
    Other {
        /// The log's.
        log: Lineage,
        /// The store's.
        store: Lineage,
    },
    /// The same, and nothing in the log says any more what it is.
    #[error(
        "the store is empty, but the log was in use: its first records are trimmed. Name the right \
         store, restore it, or move the log away to begin anew"
    )]
    StoreMissingOfTrimmed,
    /// A partition's first record is not what a log begins with.
    #[error("partition {0} does not begin with a genesis record")]
    NoGenesis(PartitionId),
    /// The number of partitions is fixed when a log is made.
    #[error("the log was made with {made} partitions, configured are {configured}")]
    Partitions {
        /// What the log has.
        made: u32,
        /// What it should have.
        configured: u32,
    },
    /// What is imported is not all there yet.
    #[error(
        "an import into this store has begun and is not finished: run `chappe import` again with \
         the same folder"
    )]
    Importing,
    /// An adoption was begun, and nobody leads before it is done.
    #[error("the adoption of this log has begun and is not finished: run `chappe log adopt` again")]
    Adopting,
    /// It became another incarnation while this process was starting.
    #[error("the log was adopted a moment ago: start again")]
    Adopted,
    /// The log is not, or not wholly, what the store was made of.
    #[error(
        "partition {partition} {what}: restore the log, or take it over as it is by \
         `chappe log adopt`"
    )]
    Unfit {
        /// The first such partition.
        partition: PartitionId,
        /// What is wrong with it.
        what: String,
    },
    /// A checkpoint is not one.
    #[error("the checkpoint of partition {0} cannot be read: restore the store")]
    Checkpoint(PartitionId),
    /// An import goes where nothing is.
    #[error("the log has records already, and an import needs an empty one")]
    InUse,
    /// The row in the store cannot be read.
    #[error("the store's lineage row cannot be read")]
    Row,
    /// The log cannot be read.
    #[error(transparent)]
    Read(#[from] ReadError),
    /// The log takes no records.
    #[error(transparent)]
    Refused(#[from] AppendRefused),
    /// The log failed.
    #[error(transparent)]
    Append(#[from] AppendError),
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// What the store knows of its log.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct LineageRow {
    pub(crate) lineage: [u8; 16],
    pub(crate) incarnation: u32,
    pub(crate) partitions: u32,
    /// The export that the store's rows came from, if they were imported.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) imported: Option<[u8; 16]>,
}

/// The record that every partition of a new log begins with.
pub fn genesis(partitions: u32) -> Bytes {
    genesis_of(Lineage(random()), partitions)
}

/// Whether a partition of `partitions` begins with such a record.
pub fn is_genesis(record: &[u8], partitions: u32) -> bool {
    matches!(record::decode(record), Ok(Record::Genesis(genesis)) if genesis.partitions == partitions)
}

pub(crate) fn genesis_of(lineage: Lineage, partitions: u32) -> Bytes {
    let mut bytes = Vec::new();
    record::encode(&Record::Genesis(Genesis { lineage, partitions }), &mut bytes);
    bytes.into()
}

/// What becomes of a log and a store that are both empty.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum WhenEmpty {
    /// They are made one. Only where no other process may do so at the same time.
    Make,
    /// They are refused.
    Refuse,
}

/// How long the genesis records may take.
const CREATE_TIMEOUT: Duration = Duration::from_secs(30);

/// Reads what log this is, and makes it if it is new. `patience` is for a log that seems short.
pub(crate) async fn open(
    log: &Arc<dyn Log>,
    store: &Arc<dyn Store>,
    when_empty: WhenEmpty,
    patience: Duration,
) -> Result<Assignment, LineageError> {
    match migration::begun(store).await? {
        Some(Migration::Import(_)) => return Err(LineageError::Importing),
        Some(Migration::Adopt(_)) => return Err(LineageError::Adopting),
        Some(Migration::Export(_)) => tracing::warn!(
            "everything here is being exported: reads are answered and changes refused, until \
             `chappe export --abort` opens it again"
        ),
        None => {}
    }
    let genesis = Found::read(log).await?;
    match (row(store).await?, genesis.lineage) {
        // What was trimmed was in use, whatever is left of it.
        (None, None) if genesis.trimmed => Err(LineageError::StoreMissingOfTrimmed),
        (None, Some(lineage)) if genesis.trimmed => Err(LineageError::StoreMissing(lineage)),
        (None, None) if when_empty == WhenEmpty::Refuse => Err(LineageError::NotCreated),
        (None, None) => create(log, store, Lineage(random()), &genesis).await,
        // A crash came between the first genesis record and the row: the creation goes on.
        (None, Some(_)) if !genesis.used && when_empty == WhenEmpty::Refuse => {
            Err(LineageError::NotCreated)
        }
        (None, Some(lineage)) if !genesis.used => create(log, store, lineage, &genesis).await,
        (None, Some(lineage)) => Err(LineageError::StoreMissing(lineage)),
        (Some(row), None) if genesis.empty == log.partitions() && !genesis.trimmed => {
            Err(LineageError::LogMissing(row.lineage()))
        }
        (Some(row), lineage) => {
            let assignment = compare(row, lineage, log.partitions())?;
            fit::check(log, store, assignment, patience).await?;
            Ok(assignment)
        }
    }
}

/// Whether what [`open`] found still holds. For one who has just become visible to those who ask
/// whether the log is led.
pub(crate) async fn confirm(
    store: &Arc<dyn Store>,
    assignment: Assignment,
) -> Result<(), LineageError> {
    match migration::begun(store).await? {
        Some(Migration::Import(_)) => return Err(LineageError::Importing),
        Some(Migration::Adopt(_)) => return Err(LineageError::Adopting),
        Some(Migration::Export(_)) | None => {}
    }
    let now = row(store).await?.map(|row| (row.lineage(), Incarnation(row.incarnation)));
    let is_same = now == Some((assignment.lineage, assignment.incarnation));
    if is_same { Ok(()) } else { Err(LineageError::Adopted) }
}

/// What the store knows of its log.
pub(crate) async fn row(store: &Arc<dyn Store>) -> Result<Option<LineageRow>, LineageError> {
    store.claimed(UniqueKey::Lineage).await?.map(|bytes| decode(&bytes)).transpose()
}

fn compare(
    row: LineageRow,
    log: Option<Lineage>,
    partitions: u32,
) -> Result<Assignment, LineageError> {
    if row.partitions != partitions {
        return Err(LineageError::Partitions { made: row.partitions, configured: partitions });
    }
    let store = row.lineage();
    match log {
        // A trimmed log has no genesis left; its claims are compared when it is replayed.
        Some(log) if log != store => Err(LineageError::Other { log, store }),
        _ => Ok(Assignment { lineage: store, incarnation: Incarnation(row.incarnation) }),
    }
}

/// What the log's first records say.
#[derive(Debug, Default)]
pub(crate) struct Found {
    pub(crate) lineage: Option<Lineage>,
    /// The partitions that have a genesis record, or had one before they were trimmed. Another one
    /// behind it would stop them for good.
    pub(crate) begun: Vec<PartitionId>,
    empty: u32,
    /// Some partition has more than its genesis record.
    pub(crate) used: bool,
    pub(crate) trimmed: bool,
}

impl Found {
    pub(crate) async fn read(log: &Arc<dyn Log>) -> Result<Self, LineageError> {
        let mut found = Self::default();
        for partition in (0..log.partitions()).map(PartitionId) {
            let bounds = log.bounds(partition).await?;
            found.used |= bounds.end > Offset(1);
            if bounds.start > Offset(0) {
                found.trimmed = true;
                found.begun.push(partition);
            } else if bounds.end == Offset(0) {
                found.empty += 1;
            } else {
                found.take(log, partition).await?;
            }
        }
        Ok(found)
    }

    async fn take(
        &mut self,
        log: &Arc<dyn Log>,
        partition: PartitionId,
    ) -> Result<(), LineageError> {
        let entries = log.read(partition, Offset(0), 1).await?;
        let record = entries.first().and_then(|entry| record::decode(&entry.record).ok());
        let Some(Record::Genesis(genesis)) = record else {
            return Err(LineageError::NoGenesis(partition));
        };
        if genesis.partitions != log.partitions() {
            let (made, configured) = (genesis.partitions, log.partitions());
            return Err(LineageError::Partitions { made, configured });
        }
        if let Some(other) = self.lineage.filter(|other| *other != genesis.lineage) {
            return Err(LineageError::Other { log: genesis.lineage, store: other });
        }
        self.lineage = Some(genesis.lineage);
        self.begun.push(partition);
        Ok(())
    }
}

/// Writes the genesis records that are missing, and then the store's row.
async fn create(
    log: &Arc<dyn Log>,
    store: &Arc<dyn Store>,
    lineage: Lineage,
    found: &Found,
) -> Result<Assignment, LineageError> {
    let partitions = log.partitions();
    begin(log, &genesis_of(lineage, partitions), found).await?;
    let (incarnation, imported) = (1, None);
    let row = LineageRow { lineage: lineage.0.to_be_bytes(), incarnation, partitions, imported };
    match store.claim(UniqueKey::Lineage, encode(&row)).await? {
        Claimed::Yes => tracing::info!(%lineage, partitions, "made a new log"),
        Claimed::Taken(other) => {
            return Err(LineageError::Other { log: lineage, store: decode(&other)?.lineage() });
        }
    }
    Ok(Assignment { lineage, incarnation: Incarnation(1) })
}

/// Writes the genesis records that are missing.
pub(crate) async fn begin(
    log: &Arc<dyn Log>,
    record: &Bytes,
    found: &Found,
) -> Result<(), LineageError> {
    let partitions = log.partitions();
    let (mut appender, mut acks) = log.appender();
    let missing: Vec<_> =
        (0..partitions).map(PartitionId).filter(|id| !found.begun.contains(id)).collect();
    for partition in &missing {
        appender.append(*partition, 0, record.clone())?;
    }
    appender.flush();
    let mut left = missing.len();
    let acked = async {
        while left > 0 {
            let Some(batch) = acks.recv().await else {
                return Err(AppendError("the log was closed".to_owned()));
            };
            left -= batch.len();
            for acked in batch {
                acked.result?;
            }
        }
        Ok(())
    };
    let outcome = tokio::time::timeout(CREATE_TIMEOUT, acked).await;
    Ok(outcome.unwrap_or_else(|_| Err(AppendError("no answer in 30 s".to_owned())))?)
}

impl LineageRow {
    pub(crate) const fn lineage(&self) -> Lineage {
        Lineage(u128::from_be_bytes(self.lineage))
    }
}

pub(crate) fn encode(row: &LineageRow) -> Bytes {
    let bytes = rmp_serde::to_vec_named(row);
    assert!(bytes.is_ok(), "a lineage row can be encoded");
    bytes.unwrap_or_default().into()
}

pub(crate) fn decode(bytes: &[u8]) -> Result<LineageRow, LineageError> {
    rmp_serde::from_slice(bytes).map_err(|_| LineageError::Row)
}

pub(crate) fn random() -> u128 {
    let mut bytes = [0; 16];
    // Without randomness nothing may be made: two logs must never share an identity.
    assert!(getrandom::fill(&mut bytes).is_ok(), "the system has a source of randomness");
    u128::from_be_bytes(bytes)
}
