//! Reads of typed rows: one key, a range, the expired events of a channel.

use bytes::Bytes;
use chappe_protocol::id::POSITION_MAX;
use chappe_protocol::{ChannelId, Rev, Seq, UserId};

use super::super::key::BUCKET;
use super::super::{Key, Row, Scan, Stamp, StoreError, Table, UniqueKey};
use super::group::Rows;
use super::tree::{Tree, tree_error};

impl Tree {
    /// Reads one row.
    pub(super) fn row(&self, key: &Key) -> Result<Option<Row>, StoreError> {
        self.get(key.to_bytes().as_ref())?.map(|value| decode_row(&value)).transpose()
    }

    /// Reads at most `limit` rows of a range, in its order.
    pub(super) fn scan(&self, scan: Scan, limit: usize) -> Result<Vec<(Key, Row)>, StoreError> {
        let Some(Span { first, last, order }) = Span::of(scan) else { return Ok(Vec::new()) };
        let range = self.range(first.to_bytes()..=last.to_bytes());
        match order {
            Order::LowestFirst => range.take(limit).map(decode_entry).collect(),
            Order::HighestFirst => range.rev().take(limit).map(decode_entry).collect(),
        }
    }

    /// Reads at most `limit` rows of a table, lowest first.
    pub(super) fn dump(
        &self,
        table: Table,
        after: Option<Key>,
        limit: usize,
    ) -> Result<Vec<(Key, Row)>, StoreError> {
        self.range(table.keys(after)).take(limit).map(decode_entry).collect()
    }

    /// Reads at most `limit` names, lowest first.
    pub(super) fn dump_names(
        &self,
        after: Option<String>,
        limit: usize,
    ) -> Result<Vec<(String, Bytes)>, StoreError> {
        let name = |entry: fjall::Guard| {
            let (key, value) = entry.into_inner().map_err(tree_error)?;
            let name = UniqueKey::name(&key).ok_or_else(unknown_key)?;
            Ok((name, Bytes::copy_from_slice(&value)))
        };
        self.range(UniqueKey::names(after)).take(limit).map(name).collect()
    }

    /// The keys of at most `limit` events of a channel from `from` on whose buckets end at or
    /// below `up_to`.
    pub(super) fn expired(
        &self,
        channel: ChannelId,
        from: Rev,
        up_to: Rev,
        limit: usize,
    ) -> Result<Vec<Key>, StoreError> {
        let kept_from = (up_to.get() + 1) / BUCKET * BUCKET;
        if from.get() >= kept_from {
            return Ok(Vec::new());
        }
        let (first, last) =
            (Key::Event(channel, from), Key::Event(channel, Rev::new(kept_from - 1)));
        let range = self.range(first.to_bytes()..=last.to_bytes());
        range.take(limit).map(|entry| decode_key(&entry.key().map_err(tree_error)?)).collect()
    }
}

/// A row's value as it is stored: its stamp in eight bytes, big-endian, then its own bytes.
pub(super) fn stored_stamp(value: &[u8]) -> Result<Stamp, StoreError> {
    let (stamp, _) = value.split_first_chunk().ok_or_else(bad_value)?;
    Ok(Stamp(u64::from_be_bytes(*stamp)))
}

fn decode_row(value: &[u8]) -> Result<Row, StoreError> {
    let (stamp, value) = value.split_first_chunk().ok_or_else(bad_value)?;
    // A copy: a part of the block would keep the whole block in memory.
    Ok(Row { stamp: Stamp(u64::from_be_bytes(*stamp)), value: Bytes::copy_from_slice(value) })
}

fn decode_entry(entry: fjall::Guard) -> Result<(Key, Row), StoreError> {
    let (key, value) = entry.into_inner().map_err(tree_error)?;
    Ok((decode_key(&key)?, decode_row(&value)?))
}

fn decode_key(bytes: &[u8]) -> Result<Key, StoreError> {
    Key::from_bytes(bytes).ok_or_else(unknown_key)
}

fn unknown_key() -> StoreError {
    StoreError::Damaged("a key is none of this format".to_owned())
}

fn bad_value() -> StoreError {
    StoreError::Damaged("a row is too short for its stamp".to_owned())
}

/// The keys of a scan, both ends included, and its direction.
struct Span {
    first: Key,
    last: Key,
    order: Order,
}

enum Order {
    LowestFirst,
    HighestFirst,
}

impl Span {
    /// None for a scan that no row can be in.
    fn of(scan: Scan) -> Option<Self> {
        let span = match scan {
            Scan::MessagesBefore(channel, seq) => {
                let last = Seq::new(seq.get().checked_sub(1)?);
                Self::falling(Key::Message(channel, Seq::ZERO), Key::Message(channel, last))
            }
            Scan::MessagesAfter(channel, seq) => {
                let first = Seq::new(above(seq.get())?);
                Self::rising(Key::Message(channel, first), Key::Message(channel, SEQ_LAST))
            }
            Scan::EventsAfter(channel, rev) => {
                let first = Rev::new(above(rev.get())?);
                Self::rising(Key::Event(channel, first), Key::Event(channel, REV_LAST))
            }
            Scan::EventsUpTo(channel, rev) => {
                Self::falling(Key::Event(channel, Rev::ZERO), Key::Event(channel, rev))
            }
            Scan::Members(channel, after) => {
                let first = after.map_or(Some(0), |user| user.get().checked_add(1))?;
                let member = |user| Key::Member(channel, UserId::new(user));
                Self::rising(member(first), member(u64::MAX))
            }
            Scan::ChannelsByUser(user, after) => {
                let first = after.map_or(Some(0), |channel| channel.get().checked_add(1))?;
                let channel = |channel| Key::ChannelOfUser(user, ChannelId::new(channel));
                Self::rising(channel(first), channel(u64::MAX))
            }
            Scan::Mentions(user, channel, seq) => {
                let mention = |seq| Key::Mention(user, channel, seq);
                Self::rising(mention(Seq::new(above(seq.get())?)), mention(SEQ_LAST))
            }
            Scan::Outbox(partition) => {
                let row = |id, rev| {
                    let (source, target) = (ChannelId::new(id), ChannelId::new(id));
                    Key::Outbox { partition, source, target, rev }
                };
                Self::rising(row(0, Rev::ZERO), row(u64::MAX, REV_LAST))
            }
        };
        Some(span)
    }

    const fn rising(first: Key, last: Key) -> Self {
        Self { first, last, order: Order::LowestFirst }
    }

    const fn falling(first: Key, last: Key) -> Self {
        Self { first, last, order: Order::HighestFirst }
    }
}

/// The position after one, if there is one.
fn above(position: u64) -> Option<u64> {
    Some(position + 1).filter(|next| *next < POSITION_MAX)
}

const SEQ_LAST: Seq = Seq::new(POSITION_MAX - 1);
const REV_LAST: Rev = Rev::new(POSITION_MAX - 1);
