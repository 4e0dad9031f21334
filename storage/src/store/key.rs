//! The keys of the store: one variant for each table.

use chappe_protocol::{ChannelId, PartitionId, Rev, Seq, UserId};

/// Messages and events are bucketed by this many numbers, so that a CQL partition is bounded and,
/// as numbers are dense, never empty.
pub(super) const BUCKET: u64 = 4096;

/// The stamped tables.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Table {
    /// `messages ((channel, bucket), seq)`
    Messages,
    /// `events ((channel, bucket), rev)`
    Events,
    /// `heads (channel)`
    Heads,
    /// `channels (channel)`
    Channels,
    /// `members ((channel), user)`
    Members,
    /// `channels_by_user ((user), channel)`
    ChannelsByUser,
    /// `read_markers ((user), channel)`
    ReadMarkers,
    /// `mentions ((user), channel, seq)`
    Mentions,
    /// `relayed ((inbox), source)`: the last relayed revision that an inbox took from a channel.
    Relayed,
    /// `outbox ((partition), source, target, rev)`
    Outbox,
    /// `checkpoints (partition)`
    Checkpoints,
}

/// A row's key.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Key {
    /// A message.
    Message(ChannelId, Seq),
    /// An event's reference: kind, message number, actor, nonce, result.
    Event(ChannelId, Rev),
    /// A channel's last revision and message number.
    Head(ChannelId),
    /// A channel's settings.
    Channel(ChannelId),
    /// A member.
    Member(ChannelId, UserId),
    /// A channel in a user's list.
    ChannelOfUser(UserId, ChannelId),
    /// How far a user read a channel.
    ReadMarker(UserId, ChannelId),
    /// A message that mentioned a user.
    Mention(UserId, ChannelId, Seq),
    /// The last revision of `source` that was relayed into `inbox`.
    Relayed {
        /// The inbox.
        inbox: ChannelId,
        /// The channel whose facts are relayed.
        source: ChannelId,
    },
    /// A fact of `source` on its way to `target`, an inbox.
    Outbox {
        /// The partition of `source`.
        partition: PartitionId,
        /// The channel.
        source: ChannelId,
        /// The inbox.
        target: ChannelId,
        /// The fact.
        rev: Rev,
    },
    /// How far a partition is projected.
    Checkpoint(PartitionId),
}

impl Key {
    /// The table of this key.
    pub const fn table(&self) -> Table {
        match self {
            Self::Message(..) => Table::Messages,
            Self::Event(..) => Table::Events,
            Self::Head(_) => Table::Heads,
            Self::Channel(_) => Table::Channels,
            Self::Member(..) => Table::Members,
            Self::ChannelOfUser(..) => Table::ChannelsByUser,
            Self::ReadMarker(..) => Table::ReadMarkers,
            Self::Mention(..) => Table::Mentions,
            Self::Relayed { .. } => Table::Relayed,
            Self::Outbox { .. } => Table::Outbox,
            Self::Checkpoint(_) => Table::Checkpoints,
        }
    }
}

/// The keys of the conditional tables, which have no stamps.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum UniqueKey {
    /// A channel's name in its folded form.
    ChannelName(String),
    /// The log's lineage, one row for the whole instance.
    Lineage,
}
