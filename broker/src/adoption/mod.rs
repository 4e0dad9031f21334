//! Taking a log over that is not, or not wholly, the one that the store was made of: an operator's
//! act, by which a new incarnation begins.
//!
//! ```text
//!   inspect → say in the store that it is under way → genesis records that are missing
//!           → `Adopt` in every partition → checkpoints → lead everything, project what waits
//!           → lineage row of the new incarnation → it is no longer under way
//! ```
//!
//! Where the record before a checkpoint is still there, what stands behind it is replayed by the
//! ordinary rules up to the `Adopt`. Where it is not, nothing of that partition's log is: the store
//! goes on with what it has. Nothing in the store is undone.
//!
//! Whatever ends it, it is begun again, with an incarnation above all that log and store know of:
//! what was done before is then a log like any other. Meanwhile nobody else leads, as the store says
//! that it is under way, from the first run to the end of the last without a break.

mod inspect;
mod run;

use chappe_partition::{
    Assignment,
    record::{Lineage, RecordError},
};
use chappe_protocol::{Incarnation, PartitionId};
use chappe_storage::{
    log::{AppendError, AppendRefused, Offset, ReadError},
    store::StoreError,
};
use serde::{Deserialize, Serialize};

pub use self::{
    inspect::{Found, Loss, Onward, Plan, inspect},
    run::{Recorded, begin, place, record, settle, start, wait},
};
use crate::lineage::{LineageError, LineageRow};

/// An adoption that is under way: what the log becomes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Adoption {
    pub(crate) lineage: [u8; 16],
    pub(crate) incarnation: u32,
    pub(crate) partitions: u32,
    /// As in the lineage row, whose place this takes for a moment.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) imported: Option<[u8; 16]>,
}

/// The log is not adopted, or not to the end. What was done stays done.
#[derive(Debug, thiserror::Error)]
pub enum AdoptError {
    /// There is no store that a log could belong to.
    #[error(
        "the store belongs to no log: there is nothing to adopt for. Restore the store, or begin \
         anew with `chappe log create` on an empty topic"
    )]
    NoStore,
    /// It is another's.
    #[error(
        "the log is of lineage {found}, which is not the store's, and holds records: it is \
         another's. Name the right log, or an empty one"
    )]
    Foreign {
        /// The log's.
        found: Lineage,
    },
    /// Its partitions do not belong together.
    #[error(
        "partition {partition} is of lineage {found}, others are of {other}: restore one log, or \
         name an empty one"
    )]
    Mixed {
        /// One of them.
        partition: PartitionId,
        /// What it is of.
        found: Lineage,
        /// What others are of.
        other: Lineage,
    },
    /// What is to be replayed cannot be read.
    #[error(
        "the record at offset {offset} of partition {partition} cannot be read ({error}): restore \
         the log, or name an empty one"
    )]
    Unreadable {
        /// Where.
        partition: PartitionId,
        /// Where in it.
        offset: Offset,
        /// Why.
        error: RecordError,
    },
    /// No log could follow.
    #[error("there is no incarnation after {0}: move everything by `chappe export` and `import`")]
    LastIncarnation(u32),
    /// A partition is stopped.
    #[error("partition {partition} stopped: {what}")]
    Halted {
        /// Which.
        partition: PartitionId,
        /// Why.
        what: String,
    },
    /// It took too long.
    #[error("partition {0} is not led or not projected in time: do other brokers run?")]
    Late(PartitionId),
    /// Store and log cannot be used.
    #[error(transparent)]
    Lineage(#[from] LineageError),
    /// The log cannot be read.
    #[error(transparent)]
    Read(#[from] ReadError),
    /// The log takes no records.
    #[error(transparent)]
    Refused(#[from] AppendRefused),
    /// Whether a record was written is not certain.
    #[error(transparent)]
    Append(#[from] AppendError),
    /// The store does not answer.
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl Adoption {
    /// What its leaders claim.
    pub const fn assignment(&self) -> Assignment {
        let lineage = Lineage(u128::from_be_bytes(self.lineage));
        Assignment { lineage, incarnation: Incarnation(self.incarnation) }
    }

    /// What the store says when it is done.
    pub(crate) const fn row(&self) -> LineageRow {
        let Self { lineage, incarnation, partitions, imported } = *self;
        LineageRow { lineage, incarnation, partitions, imported }
    }
}
