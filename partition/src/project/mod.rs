//! The projection: which rows a fact touches and what it makes of them, as pure functions of the
//! row and the fact.
//!
//! The projector writes their results, reads lay them over what the store gave, and live events
//! show them: all three see the same row because all three call the same function.

mod channel;
mod event;
mod inbox;
mod message;

use chappe_protocol::{ChannelId, PartitionId};
use chappe_storage::{
    log::Offset,
    store::{Key, Stamp},
};

use crate::{
    record::{Fact, FactBody},
    row::{HeadRow, RowValue},
};

pub(crate) use channel::{change_channel, created_channel};
pub use event::{event_body, event_row};
pub use message::{change_message, created_message};

/// A fact that needs a row that is not there: the store lost it, or the log is not this store's.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the store lacks a row of {table:?} that the fact at offset {offset} changes")]
pub struct MissingRow {
    /// The row's table.
    pub table: chappe_storage::store::Table,
    /// The fact.
    pub offset: Offset,
}

/// A row that a fact touches.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Touch {
    /// Which.
    pub key: Key,
    /// Whether what it becomes depends on what it is.
    pub needs_row: bool,
}

/// The stamp of all rows that a fact writes.
pub fn stamp(fact: &Fact) -> Stamp {
    Stamp::of(fact.mark.generation.incarnation, fact.rev)
}

/// Tells `touch` each row that `fact`, of a channel of `partition`, touches.
///
/// The outbox rows of a deleted channel are not among them: one for each member, they are found by
/// reading the members.
pub fn touches(fact: &Fact, partition: PartitionId, touch: &mut impl FnMut(Touch)) {
    let channel = fact.channel;
    let mut write = |key| touch(Touch { key, needs_row: false });
    write(Key::Event(channel, fact.rev));
    let outbox = |user| Key::Outbox {
        partition,
        source: channel,
        target: ChannelId::inbox(user),
        rev: fact.rev,
    };
    match &fact.body {
        FactBody::Created(body) => {
            write(Key::Channel(channel));
            for member in &body.members {
                write(Key::Member(channel, member.user));
                write(outbox(member.user));
            }
        }
        FactBody::MemberAdded(body) => {
            write(Key::Member(channel, body.user));
            write(outbox(body.user));
        }
        FactBody::MemberRemoved(body) => write(outbox(body.user)),
        FactBody::Message(body) => {
            write(Key::Head(channel));
            write(Key::Message(channel, body.seq));
            body.mentions.iter().for_each(|user| write(outbox(*user)));
        }
        FactBody::ChannelAdded(body) => inbox::touches(channel, body.channel, true, &mut write),
        FactBody::ChannelRemoved(body) => inbox::touches(channel, body.channel, false, &mut write),
        FactBody::Mentioned(body) => {
            inbox::touches(channel, body.channel, false, &mut write);
            write(Key::Mention(inbox::owner(channel), body.channel, body.seq));
        }
        FactBody::ReadMarked(body) => {
            write(Key::ReadMarker(inbox::owner(channel), body.channel));
        }
        _ => {}
    }
    let mut change = |key| touch(Touch { key, needs_row: true });
    if !matches!(fact.body, FactBody::Message(_)) {
        change(Key::Head(channel)); // it keeps the last message's number
    }
    match &fact.body {
        FactBody::Updated(_)
        | FactBody::Archived(_)
        | FactBody::Unarchived(_)
        | FactBody::Deleted(_)
        | FactBody::MemberAdded(_) => change(Key::Channel(channel)),
        FactBody::MemberRemoved(body) => {
            change(Key::Channel(channel));
            change(Key::Member(channel, body.user));
        }
        FactBody::RoleSet(body) => change(Key::Member(channel, body.user)),
        FactBody::Message(body) if body.slowed => change(Key::Member(channel, fact.by)),
        FactBody::Edited(_)
        | FactBody::Erased(_)
        | FactBody::Reacted(_)
        | FactBody::Unreacted(_) => {
            fact.message().into_iter().for_each(|seq| change(Key::Message(channel, seq)));
        }
        FactBody::ChannelRemoved(body) => {
            change(Key::ChannelOfUser(inbox::owner(channel), body.channel));
        }
        _ => {}
    }
}

/// What the row under `key` becomes by `fact`, which [`touches`] it and stands at `offset`.
/// `old` is the row before; it may be left out where the touch does not need it.
pub fn project(
    fact: &Fact,
    offset: Offset,
    key: &Key,
    old: Option<RowValue>,
) -> Result<RowValue, MissingRow> {
    let missing = || MissingRow { table: key.table(), offset };
    Ok(match key {
        Key::Event(..) => RowValue::Event(event_row(fact)),
        Key::Head(_) => RowValue::Head(head(fact, old)),
        Key::Channel(_) => match (&fact.body, old) {
            (FactBody::Created(body), _) => RowValue::Channel(created_channel(fact, body)),
            (_, Some(RowValue::Channel(mut row))) => {
                change_channel(&mut row, fact);
                RowValue::Channel(row)
            }
            _ => return Err(missing()),
        },
        Key::Member(_, user) => {
            let old = match old {
                Some(RowValue::Member(row)) => Some(row),
                _ => None,
            };
            RowValue::Member(channel::member(fact, *user, old).ok_or_else(missing)?)
        }
        Key::Message(..) => match (&fact.body, old) {
            (FactBody::Message(body), _) => RowValue::Message(created_message(fact, body)),
            (_, Some(RowValue::Message(mut message))) => {
                change_message(&mut message, fact);
                RowValue::Message(message)
            }
            _ => return Err(missing()),
        },
        Key::Outbox { target, .. } => {
            RowValue::Outbox(inbox::outbox(fact, offset, *target).ok_or_else(missing)?)
        }
        Key::ChannelOfUser(..)
        | Key::ReadMarker(..)
        | Key::Mention(..)
        | Key::Relayed { .. }
        | Key::Checkpoint(_) => inbox::row(fact, key, old).ok_or_else(missing)?,
    })
}

/// A fact without a message leaves the last number as it was; a channel's first has none.
fn head(fact: &Fact, old: Option<RowValue>) -> HeadRow {
    let seq = match (&fact.body, old) {
        (FactBody::Message(body), _) => body.seq,
        (_, Some(RowValue::Head(head))) => head.seq,
        _ => chappe_protocol::Seq::ZERO,
    };
    HeadRow { rev: fact.rev, seq }
}
