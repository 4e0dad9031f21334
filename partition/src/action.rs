//! What a partition asks of its driver.

use bytes::Bytes;
use chappe_protocol::{ChannelId, Rev};
use chappe_storage::{
    log::Offset,
    store::{Key, Mutation, Row, Scan},
};
use chappe_uplink::{Command, Generation, Response};

use crate::halt::Halt;

/// A gateway's pipe, numbered by the driver and never used twice.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PipeId(pub u64);

/// Something that the driver does. Each is done in the order given, as far as it has an order.
#[derive(Debug)]
pub enum Action {
    /// Append a record. Answered at once by [`crate::Partition::handle_appended`], before any
    /// other action is taken, and, if it was accepted, later by
    /// [`crate::Partition::handle_acked`].
    Append {
        /// Comes back in the acknowledgement.
        token: u64,
        /// The record.
        record: Bytes,
    },
    /// Ask the log where it begins and ends ([`crate::Partition::handle_bounds`]).
    ReadBounds {
        /// Comes back with the outcome.
        token: u64,
    },
    /// Read records from `from` on, as many as are read at once, none at or above `until`
    /// ([`crate::Partition::handle_log`]).
    ReadLog {
        /// Comes back with the outcome.
        token: u64,
        /// The first.
        from: Offset,
        /// Before this one.
        until: Offset,
    },
    /// Allow the log to forget what lies below.
    Trim {
        /// The first record that is still needed.
        below: Offset,
    },
    /// Read the store ([`crate::Partition::handle_found`]).
    ReadStore {
        /// Comes back with the outcome.
        token: u64,
        /// What is read.
        read: StoreRead,
    },
    /// Write rows ([`crate::Partition::handle_written`]).
    WriteStore {
        /// Comes back with the outcome.
        token: u64,
        /// The rows.
        rows: Vec<Mutation>,
    },
    /// Claim a channel's name ([`crate::Partition::handle_name_claimed`]).
    ClaimName {
        /// Comes back with the outcome.
        token: u64,
        /// The name, folded.
        name: String,
        /// What is put under it.
        value: Bytes,
    },
    /// Free a name that holds `value` ([`crate::Partition::handle_written`]).
    ReleaseName {
        /// Comes back with the outcome.
        token: u64,
        /// The name, folded.
        name: String,
        /// What it must hold.
        value: Bytes,
    },
    /// Drop a channel's events up to a revision ([`crate::Partition::handle_written`]).
    ExpireEvents {
        /// Comes back with the outcome.
        token: u64,
        /// The channel.
        channel: ChannelId,
        /// The last event of a bucket.
        up_to: Rev,
    },
    /// Send a command to the leader of an inbox ([`crate::Partition::handle_relayed`]). Its token
    /// is the driver's to set.
    Relay {
        /// Comes back with the outcome.
        token: u64,
        /// The command.
        command: Box<Command>,
    },
    /// Send a response on a pipe.
    Respond {
        /// The pipe.
        pipe: PipeId,
        /// The response.
        response: Response,
    },
    /// The partition is led from here, or no longer.
    Leads(Option<Generation>),
    /// What was handed over is released, or could not be in time.
    HandedOver,
    /// The partition stopped for good.
    Halted(Halt),
}

/// A read of the store.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum StoreRead {
    /// These rows.
    Rows(Vec<Key>),
    /// A range, at most so many rows of it.
    Scan(Scan, usize),
    /// What a folded channel name holds.
    Name(String),
    /// The partition's checkpoint.
    Checkpoint {
        /// If the store does not answer, the copy of it that was noted elsewhere will do.
        or_noted: bool,
    },
}

/// What a read of the store found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum StoreFound {
    /// To [`StoreRead::Rows`], in the order asked.
    Rows(Vec<Option<Row>>),
    /// To [`StoreRead::Scan`].
    Scanned(Vec<(Key, Row)>),
    /// To [`StoreRead::Name`].
    Name(Option<Bytes>),
    /// To [`StoreRead::Checkpoint`], by the store.
    Checkpoint(Option<Row>),
    /// To [`StoreRead::Checkpoint`]: [`crate::Partition::checkpoint_noted`] of some leader, now or
    /// earlier.
    Noted(Bytes),
}

/// How a relayed command ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// The inbox has it.
    Taken,
    /// It is to be sent again.
    Again,
}
