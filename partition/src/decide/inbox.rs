//! Inboxes: what leaders relay there, read markers, and the closing of a user's sessions.

use chappe_protocol::{ErrorCode, SessionId, UserId, command::MarkRead, reply::Change};
use chappe_storage::store::Key;
use chappe_uplink::{Relay, RelayKind, Standing};

use super::{Asked, Channel, Decided, Verdict, fact, nothing, refuse};
use crate::{
    record::{ChannelAdded, ChannelRemoved, Mentioned, ReadMarked, SessionsClosed},
    row::RowValue,
};

/// Takes a channel's fact, unless one as new was taken before.
pub(super) fn relay(channel: &Channel<'_>, asked: &Asked<'_>, relay: &Relay) -> Decided {
    let inbox = asked.command.channel;
    let owner = owner(asked)?;
    if asked.command.caller.standing != Standing::Service {
        return Err(refuse(ErrorCode::Forbidden)); // leaders relay, and nobody else
    }
    let key = Key::Relayed { inbox, source: relay.source };
    match channel.row(key) {
        Err(need) => return Ok(Verdict::Need(need)),
        Ok(Some(RowValue::Relayed(last)))
            if (last.incarnation, last.rev) >= (relay.incarnation, relay.rev) =>
        {
            return Ok(Verdict::Again(unchanged(channel, asked)));
        }
        Ok(_) => {}
    }
    let (channel_id, incarnation, rev) = (relay.source, relay.incarnation, relay.rev);
    match relay.kind {
        RelayKind::Added { role } => {
            fact(ChannelAdded { channel: channel_id, incarnation, rev, role })
        }
        RelayKind::Removed => {
            // Without an addition before it there is nothing to take out of the list.
            match channel.row(Key::ChannelOfUser(owner, relay.source)) {
                Err(need) => Ok(Verdict::Need(need)),
                Ok(None) => Ok(Verdict::Again(unchanged(channel, asked))),
                Ok(Some(_)) => fact(ChannelRemoved { channel: channel_id, incarnation, rev }),
            }
        }
        RelayKind::Mentioned { seq } => {
            fact(Mentioned { channel: channel_id, incarnation, rev, seq })
        }
    }
}

/// Moves a marker forward, for a channel in the user's list.
pub(super) fn mark_read(channel: &Channel<'_>, asked: &Asked<'_>, mark: &MarkRead) -> Decided {
    let owner = owner(asked)?;
    if asked.command.caller.user != owner || asked.command.caller.standing == Standing::Service {
        return Err(refuse(ErrorCode::NotFound));
    }
    match channel.row(Key::ChannelOfUser(owner, mark.channel)) {
        Err(need) => return Ok(Verdict::Need(need)),
        Ok(Some(RowValue::Listed(listed))) if !listed.removed => {}
        Ok(_) => return Err(refuse(ErrorCode::NotAMember)),
    }
    match channel.row(Key::ReadMarker(owner, mark.channel)) {
        Err(need) => Ok(Verdict::Need(need)),
        Ok(Some(RowValue::ReadMarker(marker))) if marker.seq >= mark.seq => {
            nothing(Some(marker.seq))
        }
        Ok(_) => fact(ReadMarked { channel: mark.channel, seq: mark.seq }),
    }
}

pub(super) fn close_sessions(asked: &Asked<'_>, session: Option<SessionId>) -> Decided {
    owner(asked)?;
    if asked.command.caller.standing == Standing::User {
        return Err(refuse(ErrorCode::Forbidden));
    }
    fact(SessionsClosed { session })
}

fn owner(asked: &Asked<'_>) -> Result<UserId, chappe_uplink::Refusal> {
    asked.command.channel.inbox_owner().ok_or(refuse(ErrorCode::NotFound))
}

fn unchanged(channel: &Channel<'_>, asked: &Asked<'_>) -> Change {
    let rev = channel.state.head.rev;
    Change { channel: asked.command.channel, rev, seq: None, at: 0, inbox: None }
}
