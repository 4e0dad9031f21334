//! The keys of the store: one variant for each table, and the bytes that sort as they do.

use std::ops::Bound;

use chappe_protocol::id::POSITION_MAX;
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

impl Table {
    /// All of them, in the order of their numbers.
    pub const ALL: [Self; 11] = [
        Self::Messages,
        Self::Events,
        Self::Heads,
        Self::Channels,
        Self::Members,
        Self::ChannelsByUser,
        Self::ReadMarkers,
        Self::Mentions,
        Self::Relayed,
        Self::Outbox,
        Self::Checkpoints,
    ];
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

    /// The key as bytes, for files: they are part of the format and never change.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        self.to_bytes().as_ref().to_vec()
    }

    /// The key that these bytes are, or none if they are none.
    #[must_use]
    pub fn decode(bytes: &[u8]) -> Option<Self> {
        Self::from_bytes(bytes)
    }
}

/// The keys of the conditional tables, which have no stamps.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum UniqueKey {
    /// A channel's name in its folded form.
    ChannelName(String),
    /// The log's lineage, one row for the whole instance.
    Lineage,
    /// The export or import that is under way, one row for the whole instance.
    Migration,
}

/// A key as bytes, for a backend whose rows are one ordered sequence: the table's number, then the
/// fields, big-endian. Keys of one table sort as their fields do.
#[derive(Clone, Copy)]
pub(super) struct KeyBytes {
    bytes: [u8; KEY_BYTES_MAX],
    len: usize,
}

impl KeyBytes {
    const fn of(table: u8) -> Self {
        let mut bytes = [0; KEY_BYTES_MAX];
        bytes[0] = table;
        Self { bytes, len: 1 }
    }

    fn u32(self, field: u32) -> Self {
        self.field(&field.to_be_bytes())
    }

    fn u64(self, field: u64) -> Self {
        self.field(&field.to_be_bytes())
    }

    fn field(mut self, field: &[u8]) -> Self {
        self.bytes[self.len..][..field.len()].copy_from_slice(field);
        self.len += field.len();
        self
    }
}

impl AsRef<[u8]> for KeyBytes {
    fn as_ref(&self) -> &[u8] {
        &self.bytes[..self.len]
    }
}

impl Table {
    /// The first byte of its keys. Numbers are part of the format: never changed, never reused.
    const fn number(self) -> u8 {
        match self {
            Self::Messages => 1,
            Self::Events => 2,
            Self::Heads => 3,
            Self::Channels => 4,
            Self::Members => 5,
            Self::ChannelsByUser => 6,
            Self::ReadMarkers => 7,
            Self::Mentions => 8,
            Self::Relayed => 9,
            Self::Outbox => 10,
            Self::Checkpoints => 11,
        }
    }

    /// The keys of this table, those above `after` if it is given.
    pub(super) fn keys(self, after: Option<Key>) -> (Bound<KeyBytes>, Bound<KeyBytes>) {
        let first = match after {
            Some(key) => {
                assert!(key.table() == self, "a row is followed by rows of its own table");
                Bound::Excluded(key.to_bytes())
            }
            None => Bound::Included(KeyBytes::of(self.number())),
        };
        (first, Bound::Excluded(KeyBytes::of(self.number() + 1)))
    }

    /// The keys of this table's bundles, those that end at or above `after` if it is given; none
    /// for a table without.
    pub(super) fn bundles(self, after: Option<Key>) -> Option<std::ops::Range<KeyBytes>> {
        if !SEQUENCE_TABLES.contains(&self.number()) {
            return None;
        }
        let first = match after {
            Some(key) => {
                let (sequence, position) = Sequence::of(key.to_bytes().as_ref())?;
                sequence.bundle_bytes(position)
            }
            None => KeyBytes::of(BUNDLES + self.number()),
        };
        Some(first..KeyBytes::of(BUNDLES + self.number() + 1))
    }
}

impl Key {
    /// The key as bytes.
    pub(super) fn to_bytes(self) -> KeyBytes {
        let table = KeyBytes::of(self.table().number());
        match self {
            Self::Message(channel, seq) => table.u64(channel.get()).u64(seq.get()),
            Self::Event(channel, rev) => table.u64(channel.get()).u64(rev.get()),
            Self::Head(channel) | Self::Channel(channel) => table.u64(channel.get()),
            Self::Member(channel, user) => table.u64(channel.get()).u64(user.get()),
            Self::ChannelOfUser(user, channel) | Self::ReadMarker(user, channel) => {
                table.u64(user.get()).u64(channel.get())
            }
            Self::Mention(user, channel, seq) => {
                table.u64(user.get()).u64(channel.get()).u64(seq.get())
            }
            Self::Relayed { inbox, source } => table.u64(inbox.get()).u64(source.get()),
            Self::Outbox { partition, source, target, rev } => {
                table.u32(partition.0).u64(source.get()).u64(target.get()).u64(rev.get())
            }
            Self::Checkpoint(partition) => table.u32(partition.0),
        }
    }

    /// The key that these bytes are, or none if they are none.
    pub(super) fn from_bytes(bytes: &[u8]) -> Option<Self> {
        let mut fields = Fields(bytes);
        let key = match fields.take::<1>()?[0] {
            1 => Self::Message(fields.channel()?, fields.seq()?),
            2 => Self::Event(fields.channel()?, fields.rev()?),
            3 => Self::Head(fields.channel()?),
            4 => Self::Channel(fields.channel()?),
            5 => Self::Member(fields.channel()?, fields.user()?),
            6 => Self::ChannelOfUser(fields.user()?, fields.channel()?),
            7 => Self::ReadMarker(fields.user()?, fields.channel()?),
            8 => Self::Mention(fields.user()?, fields.channel()?, fields.seq()?),
            9 => Self::Relayed { inbox: fields.channel()?, source: fields.channel()? },
            10 => Self::Outbox {
                partition: fields.partition()?,
                source: fields.channel()?,
                target: fields.channel()?,
                rev: fields.rev()?,
            },
            11 => Self::Checkpoint(fields.partition()?),
            _ => return None,
        };
        fields.0.is_empty().then_some(key)
    }
}

/// The messages or the events of a channel: rows whose keys differ in a number alone, which is the
/// end of the key.
///
/// Neighbouring rows may be kept as one *bundle*, under a key of its own: the sequence, in another
/// table's number, and the position that it ends at or below.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct Sequence([u8; SEQUENCE_BYTES]);

impl Sequence {
    /// The sequence that a key belongs to, and its position there.
    pub(super) fn of(key: &[u8]) -> Option<(Self, u64)> {
        let (sequence, position) = Self::split(key)?;
        SEQUENCE_TABLES.contains(&sequence.0[0]).then_some((sequence, position))
    }

    /// The sequence of a bundle's key, and the position that the bundle ends at or below.
    pub(super) fn of_bundle(key: &[u8]) -> Option<(Self, u64)> {
        let (mut sequence, position) = Self::split(key)?;
        sequence.0[0] = sequence.0[0].checked_sub(BUNDLES)?;
        SEQUENCE_TABLES.contains(&sequence.0[0]).then_some((sequence, position))
    }

    fn split(key: &[u8]) -> Option<(Self, u64)> {
        let (sequence, position) = key.split_first_chunk::<SEQUENCE_BYTES>()?;
        Some((Self(*sequence), u64::from_be_bytes(position.try_into().ok()?)))
    }

    /// The key of the row at a position, as bytes.
    pub(super) fn row_bytes(self, position: u64) -> KeyBytes {
        KeyBytes { len: 0, ..KeyBytes::of(0) }.field(&self.0).u64(position)
    }

    /// The key of a bundle that ends at a position.
    pub(super) fn bundle_bytes(self, position: u64) -> KeyBytes {
        let mut key = self.row_bytes(position);
        key.bytes[0] += BUNDLES;
        key
    }

    /// The key of the row at a position, if a row can be there.
    pub(super) fn key(self, position: u64) -> Option<Key> {
        Key::from_bytes(self.row_bytes(position).as_ref())
    }
}

impl UniqueKey {
    /// The key as bytes. Its tables' numbers begin at 128: the stamped ones stay below.
    pub(super) fn to_bytes(&self) -> Vec<u8> {
        match self {
            Self::ChannelName(name) => [&[NAMES], name.as_bytes()].concat(),
            Self::Lineage => vec![129],
            Self::Migration => vec![130],
        }
    }

    /// The keys of channels' names, those above `after` if it is given.
    pub(super) fn names(after: Option<String>) -> (Bound<Vec<u8>>, Bound<Vec<u8>>) {
        let first = match after {
            Some(name) => Bound::Excluded(Self::ChannelName(name).to_bytes()),
            None => Bound::Included(vec![NAMES]),
        };
        (first, Bound::Excluded(vec![NAMES + 1]))
    }

    /// The name in the bytes of such a key, or none if they are none.
    pub(super) fn name(bytes: &[u8]) -> Option<String> {
        let name = bytes.strip_prefix(&[NAMES])?;
        String::from_utf8(name.to_vec()).ok()
    }
}

/// The number of the table of names.
const NAMES: u8 = 128;

/// The fields of a key that are still to be read.
struct Fields<'a>(&'a [u8]);

impl Fields<'_> {
    fn take<const N: usize>(&mut self) -> Option<[u8; N]> {
        let (field, rest) = self.0.split_first_chunk::<N>()?;
        self.0 = rest;
        Some(*field)
    }

    fn channel(&mut self) -> Option<ChannelId> {
        self.take().map(u64::from_be_bytes).map(ChannelId::new)
    }

    fn user(&mut self) -> Option<UserId> {
        self.take().map(u64::from_be_bytes).map(UserId::new)
    }

    fn partition(&mut self) -> Option<PartitionId> {
        self.take().map(u32::from_be_bytes).map(PartitionId)
    }

    fn position(&mut self) -> Option<u64> {
        self.take().map(u64::from_be_bytes).filter(|position| *position < POSITION_MAX)
    }

    fn seq(&mut self) -> Option<Seq> {
        self.position().map(Seq::new)
    }

    fn rev(&mut self) -> Option<Rev> {
        self.position().map(Rev::new)
    }
}

/// Table and channel.
const SEQUENCE_BYTES: usize = 1 + 8;

/// The tables whose rows are sequences.
const SEQUENCE_TABLES: [u8; 2] = [Table::Messages.number(), Table::Events.number()];

/// Added to a sequence's table for the keys of its bundles. It stays below the conditional tables.
const BUNDLES: u8 = 64;

/// The longest, an outbox row's: table, partition and three fields of eight bytes.
const KEY_BYTES_MAX: usize = 1 + 4 + 3 * 8;
