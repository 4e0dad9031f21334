//! What a fact leaves in `events`, and the event that such a row becomes for clients.

use chappe_protocol::{
    ChannelId, Event, EventBody, Message, Rev,
    event::{
        ChannelAddedBody, ChannelBody, ChannelRemovedBody, MemberBody, MemberRemovedBody,
        MentionAddedBody, MessageBody, NothingBody, ReactionBody, ReadMarkedBody,
        SessionsClosedBody,
    },
    message::{Channel, Member},
};

use crate::{
    record::{Fact, FactBody},
    row::{Detail, EventRow},
};

/// The reference that `fact` leaves.
pub fn event_row(fact: &Fact) -> EventRow {
    let seq = match &fact.body {
        FactBody::Nothing(body) => body.seq,
        FactBody::ReadMarked(body) => Some(body.seq),
        _ => fact.message(),
    };
    EventRow {
        kind: fact.body.kind(),
        seq,
        by: fact.by,
        at: fact.mark.ts,
        tick: fact.mark.tick,
        nonce: fact.nonce.clone(),
        client_nonce: fact.client_nonce,
        digest: fact.digest,
        detail: detail(fact),
    }
}

fn detail(fact: &Fact) -> Detail {
    match &fact.body {
        FactBody::MemberAdded(body) => {
            Detail::Member(body.user, body.role, body.name.clone(), fact.rev)
        }
        FactBody::RoleSet(body) => {
            Detail::Member(body.user, body.role, body.name.clone(), body.since)
        }
        FactBody::MemberRemoved(body) => Detail::Left(body.user),
        FactBody::Reacted(body) => Detail::Emoji(body.emoji.clone()),
        FactBody::Unreacted(body) => Detail::Emoji(body.emoji.clone()),
        FactBody::ChannelAdded(body) => {
            Detail::Listed(body.channel, body.incarnation, body.rev, body.role)
        }
        FactBody::ChannelRemoved(body) => Detail::Unlisted(body.channel, body.rev),
        FactBody::Mentioned(body) => Detail::Message(body.channel, body.seq),
        FactBody::ReadMarked(body) => Detail::Message(body.channel, body.seq),
        FactBody::SessionsClosed(body) => Detail::Sessions(body.session),
        _ => Detail::None,
    }
}

/// What a client hears of `row`: with the channel and the message as they are now.
///
/// None when the row is of a kind that this version does not know, or when what it needs is not
/// given.
pub fn event_body(
    row: &EventRow,
    channel: impl FnOnce() -> Option<Channel>,
    message: impl FnOnce() -> Option<Message>,
) -> Option<EventBody> {
    let about_channel = || Some(ChannelBody { channel: channel()? });
    let member = || match &row.detail {
        Detail::Member(user, role, name, since) => {
            let name = name.as_deref().map(str::to_owned);
            Some(MemberBody { member: Member { user: *user, name, role: *role, since: *since } })
        }
        _ => None,
    };
    Some(match (row.kind, &row.detail) {
        (1, _) => EventBody::ChannelCreated(about_channel()?),
        (2, _) => EventBody::ChannelUpdated(about_channel()?),
        (3, _) => EventBody::ChannelArchived(about_channel()?),
        (4, _) => EventBody::ChannelUnarchived(about_channel()?),
        (5, _) => EventBody::ChannelDeleted(about_channel()?),
        (6, _) => EventBody::MemberAdded(member()?),
        (7, Detail::Left(user)) => EventBody::MemberRemoved(MemberRemovedBody { user: *user }),
        (8, _) => EventBody::MemberUpdated(member()?),
        (9, _) => EventBody::MessageCreated(MessageBody { message: message()? }),
        (10, _) => EventBody::MessageEdited(MessageBody { message: message()? }),
        (11, _) => EventBody::MessageDeleted(MessageBody { message: message()? }),
        (12, Detail::Emoji(emoji)) => {
            EventBody::ReactionAdded(ReactionBody { emoji: emoji.clone(), message: message()? })
        }
        (13, Detail::Emoji(emoji)) => {
            EventBody::ReactionRemoved(ReactionBody { emoji: emoji.clone(), message: message()? })
        }
        (14, _) => EventBody::Nothing(NothingBody {}),
        (20, Detail::Listed(channel, incarnation, rev, role)) => {
            EventBody::ChannelAdded(ChannelAddedBody {
                channel: *channel,
                incarnation: *incarnation,
                rev: *rev,
                role: *role,
            })
        }
        (21, Detail::Unlisted(channel, rev)) => {
            EventBody::ChannelRemoved(ChannelRemovedBody { channel: *channel, rev: *rev })
        }
        (22, Detail::Message(channel, seq)) => {
            EventBody::MentionAdded(MentionAddedBody { channel: *channel, seq: *seq, by: row.by })
        }
        (23, Detail::Message(channel, seq)) => {
            EventBody::ReadMarked(ReadMarkedBody { channel: *channel, seq: *seq })
        }
        (24, Detail::Sessions(session)) => {
            EventBody::SessionsClosed(SessionsClosedBody { session: *session })
        }
        _ => return None,
    })
}

impl EventRow {
    /// The event at `rev` of `channel`, with its body.
    pub fn event(&self, channel: ChannelId, rev: Rev, body: EventBody) -> Event {
        let nonce = self.nonce.clone().filter(|_| self.client_nonce);
        Event { channel, rev, by: self.by, at: self.at, nonce, body }
    }
}
