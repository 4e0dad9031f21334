//! What the facts of an inbox make of its user's rows, and what a channel's facts send there.

use chappe_protocol::{ChannelId, UserId};
use chappe_storage::{log::Offset, store::Key};

use crate::{
    record::{Fact, FactBody},
    row::{ListedRow, MentionRow, OutboxRow, ReadMarkerRow, Relayed, RelayedRow, RowValue},
};

/// The user whose inbox this is. Inbox facts are decided for inboxes alone.
pub(super) fn owner(inbox: ChannelId) -> UserId {
    // Of an ordinary channel, which no such fact has, this would be a user that does not exist.
    inbox.inbox_owner().unwrap_or(UserId::new(inbox.get()))
}

pub(super) fn touches(
    inbox: ChannelId,
    source: ChannelId,
    listed: bool,
    write: &mut impl FnMut(Key),
) {
    write(Key::Relayed { inbox, source });
    if listed {
        write(Key::ChannelOfUser(owner(inbox), source));
    }
}

/// What an inbox's fact makes of the row under `key`; none if it says nothing of it.
pub(super) fn row(fact: &Fact, key: &Key, old: Option<RowValue>) -> Option<RowValue> {
    Some(match (key, &fact.body) {
        (Key::ChannelOfUser(..), FactBody::ChannelAdded(body)) => RowValue::Listed(ListedRow {
            role: body.role,
            incarnation: body.incarnation,
            rev: body.rev,
            removed: false,
        }),
        (Key::ChannelOfUser(..), FactBody::ChannelRemoved(body)) => {
            // The addition came before it, as one source's facts are relayed in order.
            let Some(RowValue::Listed(old)) = old else { return None };
            let (incarnation, rev) = (body.incarnation, body.rev);
            RowValue::Listed(ListedRow { incarnation, rev, removed: true, ..old })
        }
        (Key::ReadMarker(..), FactBody::ReadMarked(body)) => {
            RowValue::ReadMarker(ReadMarkerRow { seq: body.seq })
        }
        (Key::Mention(..), FactBody::Mentioned(body)) => {
            RowValue::Mention(MentionRow { by: fact.by, rev: body.rev })
        }
        (Key::Relayed { .. }, FactBody::ChannelAdded(body)) => {
            RowValue::Relayed(RelayedRow { incarnation: body.incarnation, rev: body.rev })
        }
        (Key::Relayed { .. }, FactBody::ChannelRemoved(body)) => {
            RowValue::Relayed(RelayedRow { incarnation: body.incarnation, rev: body.rev })
        }
        (Key::Relayed { .. }, FactBody::Mentioned(body)) => {
            RowValue::Relayed(RelayedRow { incarnation: body.incarnation, rev: body.rev })
        }
        _ => return None,
    })
}

/// The row that carries a channel's `fact` to the inbox `target`.
pub(super) fn outbox(fact: &Fact, offset: Offset, target: ChannelId) -> Option<OutboxRow> {
    let says = match &fact.body {
        FactBody::Created(body) => {
            let user = target.inbox_owner()?;
            Relayed::Added(body.members.iter().find(|member| member.user == user)?.role)
        }
        FactBody::MemberAdded(body) => Relayed::Added(body.role),
        FactBody::MemberRemoved(_) | FactBody::Deleted(_) => Relayed::Removed,
        FactBody::Message(body) => Relayed::Mentioned(body.seq),
        _ => return None,
    };
    Some(OutboxRow { offset: offset.0, by: fact.by, says })
}
