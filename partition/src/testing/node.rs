//! A broker of a world, and what it has under way.

use std::collections::VecDeque;

use bytes::Bytes;
use chappe_protocol::{ChannelId, PartitionId, Rev};
use chappe_storage::{log::AppendRefused, store::Mutation};

use crate::{action::StoreRead, partition::Partition};

/// One broker process.
pub struct Node {
    /// Its partitions, led or not.
    pub cores: Vec<Partition>,
    /// How far its wall clock is from the others'.
    pub wall_skew_ms: i64,
    /// Appended and not acknowledged, in order.
    pub flying: VecDeque<Flying>,
    /// Its appends stay where they are until the script moves them.
    pub held: bool,
    /// Its log refuses appends with this.
    pub refuses: Option<AppendRefused>,
    /// Calls of the store that wait for the script.
    pub store_calls: VecDeque<(PartitionId, StoreCall)>,
    /// Its calls of the store wait.
    pub store_held: bool,
    /// What it asked for beside: trims, leaderships, halts.
    pub events: Vec<String>,
}

/// A record on its way into the log.
#[derive(Debug, Clone)]
pub struct Flying {
    /// The partition.
    pub partition: PartitionId,
    /// Comes back with the acknowledgement.
    pub token: u64,
    /// Its bytes.
    pub record: Bytes,
}

/// A call of the store.
#[derive(Debug)]
#[allow(missing_docs)]
pub enum StoreCall {
    Read(u64, StoreRead),
    Write(u64, Vec<Mutation>),
    Expire(u64, ChannelId, Rev),
    Claim(u64, String, Bytes),
    Release(u64, String, Bytes),
}
