//! Whether a log has what the store was made of: compared at every start, before anybody joins.
//!
//! A takeover compares it again and more closely, for its partition alone. Here it is about the
//! whole: a log that was truncated, restored or made anew is an operator's affair, and a process
//! that says so and ends is seen sooner than a partition that stopped.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use chappe_partition::{
    Assignment,
    row::{CheckpointRow, RowValue},
};
use chappe_protocol::PartitionId;
use chappe_storage::{
    log::{Bounds, Log, Offset},
    store::{Key, Store},
};

use tokio::time::sleep;

use crate::lineage::LineageError;

/// Refuses a log that lacks what the store knows to have been there. One whose end is too low may
/// be looked at again for so long: a node of it that is cut off from the others goes on telling an
/// end that has been passed.
pub(crate) async fn check(
    log: &Arc<dyn Log>,
    store: &Arc<dyn Store>,
    assignment: Assignment,
    patience: Duration,
) -> Result<(), LineageError> {
    let began = Instant::now();
    for partition in (0..log.partitions()).map(PartitionId) {
        loop {
            // First the checkpoint: a log that others append to ends behind what it says.
            let checkpoint = checkpoint(store, partition).await?;
            let bounds = log.bounds(partition).await?;
            let Some(what) = misfit(assignment, checkpoint.as_ref(), bounds) else { break };
            let is_short = checkpoint.is_some_and(|row| bounds.end <= Offset(row.highest));
            if !is_short || began.elapsed() >= patience {
                return Err(LineageError::Unfit { partition, what });
            }
            tracing::warn!(%partition, "{what}; looking again");
            sleep(LOOK_AGAIN).await;
        }
    }
    Ok(())
}

/// A cut-off node is found out in this time.
pub(crate) const PATIENCE: Duration = Duration::from_secs(30);
/// The pause between two looks: nothing tells that an end moved.
const LOOK_AGAIN: Duration = Duration::from_secs(1);

/// A partition's checkpoint, as the store has it.
pub(crate) async fn checkpoint(
    store: &Arc<dyn Store>,
    partition: PartitionId,
) -> Result<Option<CheckpointRow>, LineageError> {
    let key = Key::Checkpoint(partition);
    let Some(row) = store.get(key).await? else { return Ok(None) };
    match RowValue::decode(&key, &row.value) {
        Ok(RowValue::Checkpoint(row)) => Ok(Some(row)),
        _ => Err(LineageError::Checkpoint(partition)),
    }
}

fn misfit(
    assignment: Assignment,
    checkpoint: Option<&CheckpointRow>,
    Bounds { start, end }: Bounds,
) -> Option<String> {
    let Some(row) = checkpoint else {
        return (start > Offset(0))
            .then(|| format!("begins at offset {start}, and the store has nothing of it"));
    };
    let (of, highest, needed) = (row.incarnation, row.highest, row.offset.saturating_sub(1));
    if row.lineage != assignment.lineage {
        return Some(format!("was of lineage {}, and is of {}", row.lineage, assignment.lineage));
    }
    if of != assignment.incarnation {
        return Some(format!("was of incarnation {of}, in force is {}", assignment.incarnation));
    }
    if end <= Offset(highest) {
        return Some(format!(
            "ends at offset {end}, but offset {highest} was durable: it was truncated or made anew"
        ));
    }
    (start > Offset(needed))
        .then(|| format!("begins at offset {start}, but the store needs offset {needed}"))
}
