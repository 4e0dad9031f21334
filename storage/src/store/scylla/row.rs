//! How a typed row lies in its table: its key as fields, in the order of the table's columns, and
//! back.
//!
//! The value is the only cell, and its write time is the row's stamp: what the servers decide by is
//! what is read. A stamp of our own beside the value could come to disagree with it. A write by
//! anybody who does not stamp would have the present time, and is told from ours by that.

use bytes::Bytes;
use chappe_protocol::id::POSITION_MAX;
use chappe_protocol::{ChannelId, Incarnation, PartitionId, Rev, Seq, UserId};
use scylla::cluster::metadata::ColumnType;
use scylla::response::query_result::QueryRowsResult;
use scylla::serialize::SerializationError;
use scylla::serialize::value::SerializeValue;
use scylla::serialize::writers::{CellWriter, WrittenCellProof};
use scylla::value::{CqlVarint, CqlVarintBorrowed};

use super::super::{Key, Row, Stamp, StoreError, Table};
use super::schema::bucket;

/// A value that is bound to a statement.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Field {
    Id(u64),
    /// What is below every id.
    NoId,
    Number(i64),
    /// How many rows.
    Limit(i32),
    Numbers(Vec<i64>),
    Text(String),
    Bytes(Bytes),
}

/// A partition of the cluster: rows that one node can write with one mutation.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct Partition {
    pub(super) table: Table,
    /// The channel, inbox, user or log partition.
    pub(super) of: u64,
    /// Of messages and events; elsewhere 0.
    pub(super) bucket: i64,
}

impl Partition {
    pub(super) const fn of(key: &Key) -> Self {
        let (of, bucket) = match *key {
            Key::Message(channel, seq) => (channel.get(), bucket(seq.get())),
            Key::Event(channel, rev) => (channel.get(), bucket(rev.get())),
            Key::Head(channel) | Key::Channel(channel) | Key::Member(channel, _) => {
                (channel.get(), 0)
            }
            Key::ChannelOfUser(user, _) | Key::ReadMarker(user, _) | Key::Mention(user, ..) => {
                (user.get(), 0)
            }
            Key::Relayed { inbox, .. } => (inbox.get(), 0),
            Key::Outbox { partition, .. } | Key::Checkpoint(partition) => (partition.0 as u64, 0),
        };
        Self { table: key.table(), of, bucket }
    }

    /// Whether it is one of several buckets.
    pub(super) const fn is_bucket(&self) -> bool {
        matches!(self.table, Table::Messages | Table::Events)
    }
}

/// The fields of a row's key.
pub(super) fn key_fields(key: &Key) -> Vec<Field> {
    let id = |channel: ChannelId| Field::Id(channel.get());
    let user_id = |user: UserId| Field::Id(user.get());
    match *key {
        Key::Message(channel, seq) => numbered(channel, seq.get()),
        Key::Event(channel, rev) => numbered(channel, rev.get()),
        Key::Head(channel) | Key::Channel(channel) => vec![id(channel)],
        Key::Member(channel, user) => vec![id(channel), user_id(user)],
        Key::ChannelOfUser(user, channel) | Key::ReadMarker(user, channel) => {
            vec![user_id(user), id(channel)]
        }
        Key::Mention(user, channel, seq) => vec![user_id(user), id(channel), number(seq.get())],
        Key::Relayed { inbox, source } => vec![id(inbox), id(source)],
        Key::Outbox { partition, source, target, rev } => {
            vec![number(partition.0.into()), id(source), id(target), number(rev.get())]
        }
        Key::Checkpoint(partition) => vec![number(partition.0.into())],
    }
}

fn numbered(channel: ChannelId, position: u64) -> Vec<Field> {
    vec![Field::Id(channel.get()), Field::Number(bucket(position)), number(position)]
}

/// A number below 2^63, as all are that are no ids.
pub(super) const fn number(number: u64) -> Field {
    Field::Number(number as i64)
}

impl SerializeValue for Field {
    fn serialize<'b>(
        &self,
        column: &ColumnType<'_>,
        writer: CellWriter<'b>,
    ) -> Result<WrittenCellProof<'b>, SerializationError> {
        match self {
            Self::Id(id) => {
                let (bytes, from) = varint(*id);
                let id = CqlVarintBorrowed::from_signed_bytes_be_slice(&bytes[from..]);
                id.serialize(column, writer)
            }
            Self::NoId => {
                CqlVarintBorrowed::from_signed_bytes_be_slice(&[0xFF]).serialize(column, writer)
            }
            Self::Number(number) => number.serialize(column, writer),
            Self::Limit(limit) => limit.serialize(column, writer),
            Self::Numbers(numbers) => numbers.serialize(column, writer),
            Self::Text(text) => text.serialize(column, writer),
            Self::Bytes(bytes) => bytes.serialize(column, writer),
        }
    }
}

/// An id in the shortest form of a signed number, big-endian, and where it begins. A longer form
/// would be another partition key.
const fn varint(id: u64) -> ([u8; 9], usize) {
    let mut bytes = [0; 9];
    let digits = id.to_be_bytes();
    let mut n = 0;
    while n < digits.len() {
        bytes[n + 1] = digits[n];
        n += 1;
    }
    let mut from = 0;
    while from < 8 && bytes[from] == 0 && bytes[from + 1] < 0x80 {
        from += 1;
    }
    (bytes, from)
}

/// A value and its write time, as a row of an answer has them.
pub(super) type Cell<'a> = (Option<&'a [u8]>, Option<i64>);

pub(super) fn row((value, written): Cell<'_>) -> Result<Row, StoreError> {
    let value = value.ok_or_else(|| damaged("a row has no value"))?;
    // A copy: a part of the answer would keep the whole answer in memory.
    Ok(Row { stamp: stamp(written)?, value: Bytes::copy_from_slice(value) })
}

/// The stamp in a write time.
pub(super) fn stamp(written: Option<i64>) -> Result<Stamp, StoreError> {
    let written = written.and_then(|written| u64::try_from(written).ok()).map(Stamp);
    let is_ours = |stamp: &Stamp| stamp.incarnation() <= INCARNATION_MAX;
    written.filter(is_ours).ok_or_else(|| damaged("a row was written without a stamp"))
}

/// A stamp as the servers take it.
pub(super) const fn written(stamp: Stamp) -> Field {
    number(stamp.0)
}

pub(super) fn id(varint: &CqlVarint) -> Result<u64, StoreError> {
    let too_large = || damaged("an id is none of ours");
    let bytes = varint.as_signed_bytes_be_slice();
    let significant = bytes.iter().position(|byte| *byte != 0).unwrap_or(bytes.len());
    let digits = &bytes[significant..];
    if bytes.first().is_some_and(|first| *first >= 0x80) || digits.len() > 8 {
        return Err(too_large());
    }
    Ok(digits.iter().fold(0, |id, digit| id << 8 | u64::from(*digit)))
}

pub(super) fn position(number: i64) -> Result<u64, StoreError> {
    let position = u64::try_from(number).ok().filter(|position| *position < POSITION_MAX);
    position.ok_or_else(|| damaged("a number is out of its range"))
}

/// What the rows of a scan have beside their partition's key.
#[derive(Debug, Clone, Copy)]
pub(super) enum Listed {
    Messages(ChannelId),
    Events(ChannelId),
    Members(ChannelId),
    ChannelsOf(UserId),
    Mentions(UserId, ChannelId),
    Outbox(PartitionId),
}

impl Listed {
    /// The rows of an answer.
    pub(super) fn rows(self, answer: &QueryRowsResult) -> Result<Vec<(Key, Row)>, StoreError> {
        match self {
            Self::Messages(channel) => {
                by_number(answer, |seq| Key::Message(channel, Seq::new(seq)))
            }
            Self::Events(channel) => by_number(answer, |rev| Key::Event(channel, Rev::new(rev))),
            Self::Mentions(user, channel) => {
                by_number(answer, |seq| Key::Mention(user, channel, Seq::new(seq)))
            }
            Self::Members(channel) => by_id(answer, |user| Key::Member(channel, UserId::new(user))),
            Self::ChannelsOf(user) => {
                by_id(answer, |channel| Key::ChannelOfUser(user, ChannelId::new(channel)))
            }
            Self::Outbox(partition) => outbox(answer, partition),
        }
    }
}

type Rows = Result<Vec<(Key, Row)>, StoreError>;

fn by_number(answer: &QueryRowsResult, key: impl Fn(u64) -> Key) -> Rows {
    let rows = answer.rows::<(i64, Option<&[u8]>, Option<i64>)>().map_err(strange)?;
    rows.map(|found| {
        let (number, value, written) = found.map_err(strange)?;
        Ok((key(position(number)?), row((value, written))?))
    })
    .collect()
}

fn by_id(answer: &QueryRowsResult, key: impl Fn(u64) -> Key) -> Rows {
    let rows = answer.rows::<(CqlVarint, Option<&[u8]>, Option<i64>)>().map_err(strange)?;
    rows.map(|found| {
        let (of, value, written) = found.map_err(strange)?;
        Ok((key(id(&of)?), row((value, written))?))
    })
    .collect()
}

fn outbox(answer: &QueryRowsResult, partition: PartitionId) -> Rows {
    type Columns<'a> = (CqlVarint, CqlVarint, i64, Option<&'a [u8]>, Option<i64>);
    let rows = answer.rows::<Columns<'_>>().map_err(strange)?;
    rows.map(|found| {
        let (source, target, rev, value, written) = found.map_err(strange)?;
        let (source, target) = (ChannelId::new(id(&source)?), ChannelId::new(id(&target)?));
        let key = Key::Outbox { partition, source, target, rev: Rev::new(position(rev)?) };
        Ok((key, row((value, written))?))
    })
    .collect()
}

/// What an answer that cannot be read means.
pub(super) fn strange(error: impl std::fmt::Display) -> StoreError {
    StoreError::Damaged(format!("an answer is of another form: {error}"))
}

fn damaged(what: &str) -> StoreError {
    StoreError::Damaged(what.to_owned())
}

/// As in a stamp.
const INCARNATION_MAX: Incarnation = Incarnation(1_000);
