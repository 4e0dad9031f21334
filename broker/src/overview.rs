//! How this process's partitions stand, for people: asked of its threads when somebody wants to
//! know, and never in the way of what they do.

use chappe_partition::{Now, Partition, Standing};
use chappe_uplink::{
    Overview,
    status::{BrokerStatus, PartitionState, PartitionStatus},
};
use tokio::sync::oneshot;

use crate::local::{LocalBroker, Mail};

/// What a thread tells.
pub(crate) struct Told {
    pub(crate) partitions: Vec<PartitionStatus>,
    /// Every thread has them all.
    pub(crate) pipes: usize,
}

impl Overview for LocalBroker {
    async fn status(&self) -> BrokerStatus {
        let shared = &self.shared;
        let (mut holds, mut pipes) = (Vec::new(), 0);
        for mailbox in &shared.mailboxes {
            let (sender, told) = oneshot::channel();
            // A thread that is gone has nothing to do with any partition.
            if mailbox.send(Mail::Tell(sender)).await.is_ok()
                && let Ok(told) = told.await
            {
                holds.extend(told.partitions);
                pipes = told.pipes as u64;
            }
        }
        holds.sort_unstable_by_key(|of| of.partition);
        BrokerStatus {
            name: shared.address.clone(),
            up_ms: shared.started.elapsed().as_millis() as u64,
            partitions: shared.partitions,
            holds,
            unprojected_bytes_max: shared.unprojected_bytes_max as u64,
            unprojected_age_ms_max: shared.unprojected_age_ms_max,
            pipes,
            gateways: Vec::new(),
        }
    }
}

/// How a partition stands; none that this process has nothing to do with.
pub(crate) fn of(partition: &Partition, now: Now) -> Option<PartitionStatus> {
    let state = match partition.standing() {
        Standing::Idle => return None,
        Standing::TakingOver => PartitionState::TakingOver,
        Standing::Leading => PartitionState::Leading,
        Standing::Deposed => PartitionState::Deposed,
        Standing::Halted => PartitionState::Halted,
    };
    let (bytes, since_ms) = partition.unprojected();
    Some(PartitionStatus {
        partition: partition.id(),
        state,
        generation: partition.generation(),
        end: partition.end().0,
        checkpoint: partition.checkpoint().map(|offset| offset.0),
        unprojected_records: partition.unprojected_records() as u64,
        unprojected_bytes: bytes as u64,
        oldest_ms: since_ms.map(|since_ms| now.boot_ms.saturating_sub(since_ms)),
        halt: partition.halt().map(ToString::to_string),
    })
}
