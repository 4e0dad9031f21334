//! Messages: publishing, editing, deleting.

use chappe_protocol::{
    ErrorCode, Message, Seq, UserId,
    command::{Edit, Publish},
    limits::MENTIONS_MAX,
    message::Role,
};
use chappe_storage::store::Key;
use chappe_uplink::Refusal;

use super::{Access, Asked, Channel, Decided, Need, Verdict, fact, nothing, refuse};
use crate::{
    channel::ChannelState,
    hot::Known,
    record::{Edited, Erased, MessageCreated},
};

pub(super) fn publish(channel: &Channel<'_>, asked: &Asked<'_>, publish: &Publish) -> Decided {
    let caller = &asked.command.caller;
    let access = Access::of(channel.state, caller)?;
    access.needs_voice()?;
    access.needs_active()?;
    if publish.text.is_none() && publish.data.is_none() {
        return Err(refuse(ErrorCode::EmptyMessage));
    }
    if publish.mentions.len() > MENTIONS_MAX {
        return Err(refuse(ErrorCode::TooManyMentions));
    }
    let last = channel.state.head.seq;
    if publish.reply_to.is_some_and(|seq| seq == Seq::ZERO || seq > last) {
        return Err(refuse(ErrorCode::NotFound).because("the message that it answers"));
    }
    let slowed = access.is_slowed();
    if slowed {
        wait_for_slow_mode(channel.state, asked, u64::from(access.meta.slow_mode_ms))?;
    }
    fact(MessageCreated {
        seq: last.next(),
        text: publish.text.clone(),
        data: publish.data.clone(),
        reply_to: publish.reply_to,
        mentions: mentioned(channel.state, &publish.mentions),
        slowed,
    })
}

pub(super) fn edit(channel: &Channel<'_>, asked: &Asked<'_>, edit: &Edit) -> Decided {
    let caller = &asked.command.caller;
    let access = Access::of(channel.state, caller)?;
    access.needs(Role::Member)?;
    access.needs_active()?;
    if edit.text.is_none() && edit.data.is_none() {
        return Err(refuse(ErrorCode::EmptyMessage));
    }
    let message = match message(channel, asked, &access, edit.seq)? {
        Ok(message) => message,
        Err(need) => return Ok(Verdict::Need(need)),
    };
    if message.deleted {
        return Err(refuse(ErrorCode::NotFound));
    }
    if message.by != caller.user {
        return Err(refuse(ErrorCode::Forbidden));
    }
    let text = edit.text.clone().filter(|_| edit.text != message.text);
    let data = edit.data.clone().filter(|_| edit.data != message.data);
    if text.is_none() && data.is_none() {
        return nothing(Some(edit.seq));
    }
    fact(Edited { seq: edit.seq, text, data })
}

pub(super) fn delete(channel: &Channel<'_>, asked: &Asked<'_>, seq: Seq) -> Decided {
    let caller = &asked.command.caller;
    let access = Access::of(channel.state, caller)?;
    access.needs(Role::Member)?; // also in an archive: what has to go, goes
    let message = match message(channel, asked, &access, seq)? {
        Ok(message) => message,
        Err(need) => return Ok(Verdict::Need(need)),
    };
    if message.by != caller.user {
        access.needs(Role::Moderator)?;
    }
    if message.deleted {
        return nothing(Some(seq));
    }
    fact(Erased { seq })
}

/// A message that the caller may see, or what has to be read first.
pub(super) fn message<'a>(
    channel: &'a Channel<'_>,
    asked: &Asked<'_>,
    access: &Access<'_>,
    seq: Seq,
) -> Result<Result<&'a Message, Need>, Refusal> {
    let id = asked.command.channel;
    if seq == Seq::ZERO || seq > channel.state.head.seq {
        return Err(refuse(ErrorCode::NotFound));
    }
    match channel.hot.message(channel.slot, id, seq) {
        Known::Row(message) if message.rev >= access.since => Ok(Ok(message)),
        Known::Row(_) | Known::Missing => Err(refuse(ErrorCode::NotFound)),
        Known::Unknown => Ok(Err(Need::Row(Key::Message(id, seq)))),
    }
}

/// Time is measured in ticks: neither a wall clock nor a change of leader shortens the wait.
fn wait_for_slow_mode(
    state: &ChannelState,
    asked: &Asked<'_>,
    interval_ms: u64,
) -> Result<(), Refusal> {
    let member = state.members.get(&asked.command.caller.user);
    let Some(last) = member.and_then(|member| member.published_tick) else { return Ok(()) };
    let wait_ms = (last + interval_ms).saturating_sub(asked.tick);
    if wait_ms == 0 { Ok(()) } else { Err(refuse(ErrorCode::SlowMode).retry_after(wait_ms)) }
}

/// Those of the mentioned who are members, each once.
fn mentioned(state: &ChannelState, users: &[UserId]) -> Vec<UserId> {
    let mut members: Vec<UserId> = Vec::new();
    for user in users {
        if state.members.contains_key(user) && !members.contains(user) {
            members.push(*user);
        }
    }
    members
}
