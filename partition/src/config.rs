//! What a partition is told about itself, and the numbers that bound it.

use chappe_protocol::{Incarnation, PartitionId};

use crate::record::Lineage;

/// What a partition is configured with.
#[derive(Debug, Clone)]
pub struct Config {
    /// Which partition it is.
    pub id: PartitionId,
    /// How many there are.
    pub partitions: u32,
    /// The broker process, drawn at random when it starts.
    pub leader: u64,
    /// Where it can be reached, for people.
    pub address: String,
    /// How leadership is proved.
    pub leadership: Leadership,
    /// Hashes and back-offs are spread by it. Drawn at random; the same seed and input give the
    /// same output.
    pub seed: u64,
    /// The bounds.
    pub bounds: Bounds,
}

/// How a leader proves that it leads.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Leadership {
    /// A lock on the data directory: nobody else can append. No lease, no first wait, no beats.
    Lock,
    /// Confirmed appends.
    Lease {
        /// How long a confirmed append proves it, counted from its hand-over.
        lease_ms: u64,
        /// How long a new leader is silent after its claim was acknowledged.
        first_wait_ms: u64,
        /// A beat is appended when nothing else was for this long.
        beat_ms: u64,
    },
}

impl Leadership {
    /// The lease of the design: one second, a first wait of 1.2 leases, a beat every 300 ms.
    pub const LEASE: Self = Self::Lease { lease_ms: 1_000, first_wait_ms: 1_200, beat_ms: 300 };
}

/// The bounds of one partition's memory and time.
#[derive(Debug, Clone)]
pub struct Bounds {
    /// Most requests that wait: for a channel's state, a row, a name, a live lease, or for the
    /// facts in flight that their answers rest on.
    pub waiting_max: usize,
    /// A request that waited this long is answered `retry`.
    pub waiting_ms: u64,
    /// Most reads of the store under way.
    pub reads_max: usize,
    /// Most messages kept in memory.
    pub hot_messages_max: usize,
    /// Most single rows kept in memory.
    pub hot_rows_max: usize,
    /// Most nonces remembered: further commands are refused as `overloaded`.
    pub nonces_max: usize,
    /// Most members of a channel.
    pub members_max: usize,
    /// A channel that nobody used for this long is forgotten.
    pub idle_ms: u64,
    /// Most channels whose state is kept, idle or not attached.
    pub channels_max: usize,
    /// Facts are projected once this many bytes of them wait…
    pub projection_bytes: usize,
    /// …or the oldest has waited this long.
    pub projection_linger_ms: u64,
    /// The checkpoint is written at least this often while there is anything new.
    pub checkpoint_ms: u64,
    /// Attached channels' heads are told this often.
    pub heads_ms: u64,
    /// What may be trimmed is told this often.
    pub trim_ms: u64,
    /// An idle partition appends a beat this often, so that its last record does not keep a shared
    /// log from being trimmed.
    pub refresh_ms: u64,
    /// A channel's event references are kept at least this long, by the wall clock.
    pub events_keep_ms: u64,
    /// Most outbox rows held in memory; further ones are read from the store later.
    pub outbox_rows_max: usize,
    /// Most relayed facts under way.
    pub relays_max: usize,
    /// A page of events or messages ends when it has this many bytes.
    pub page_bytes_max: usize,
}

impl Default for Bounds {
    fn default() -> Self {
        Self {
            waiting_max: 4_096,
            waiting_ms: 5_000,
            reads_max: 256,
            hot_messages_max: 4_096,
            hot_rows_max: 1_024,
            nonces_max: 2_000_000,
            members_max: 100_000,
            idle_ms: 60_000,
            channels_max: 4_096,
            projection_bytes: 256 * 1024,
            projection_linger_ms: 50,
            checkpoint_ms: 500,
            heads_ms: 1_500,
            trim_ms: 10_000,
            refresh_ms: 60 * 60 * 1_000,
            events_keep_ms: 30 * 24 * 60 * 60 * 1_000,
            outbox_rows_max: 10_000,
            relays_max: 64,
            page_bytes_max: 512 * 1024,
        }
    }
}

/// The log that a partition is to lead, as the store's lineage row tells it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Assignment {
    /// The log's identity.
    pub lineage: Lineage,
    /// The incarnation in force.
    pub incarnation: Incarnation,
}

/// A moment, as the driver's clocks tell it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Now {
    /// Milliseconds on a clock that counts suspension and never goes back (CLOCK_BOOTTIME).
    pub boot_ms: u64,
    /// Milliseconds since 1970 UTC, for display alone.
    pub wall_ms: u64,
}
