//! Reactions: leaving one, taking it back.

use chappe_protocol::{
    Emoji, ErrorCode, Message, Seq, UserId,
    command::{React, Unreact},
    limits::{REACTION_KINDS_MAX, REACTIONS_MAX},
    message::Role,
};
use chappe_uplink::Refusal;

use super::{Access, Asked, Channel, Decided, Need, Verdict, fact, messages, nothing, refuse};
use crate::record::{Reacted, Unreacted};

pub(super) fn react(channel: &Channel<'_>, asked: &Asked<'_>, react: &React) -> Decided {
    let message = match target(channel, asked, react.seq)? {
        Ok(message) => message,
        Err(need) => return Ok(Verdict::Need(need)),
    };
    if reacted(message, &react.emoji, asked.command.caller.user) {
        return nothing(Some(react.seq));
    }
    let known = message.reactions.iter().any(|reaction| reaction.emoji == react.emoji);
    let all: usize = message.reactions.iter().map(|reaction| reaction.users.len()).sum();
    if all >= REACTIONS_MAX || (!known && message.reactions.len() >= REACTION_KINDS_MAX) {
        return Err(refuse(ErrorCode::TooManyReactions));
    }
    fact(Reacted { seq: react.seq, emoji: react.emoji.clone() })
}

pub(super) fn unreact(channel: &Channel<'_>, asked: &Asked<'_>, unreact: &Unreact) -> Decided {
    let message = match target(channel, asked, unreact.seq)? {
        Ok(message) => message,
        Err(need) => return Ok(Verdict::Need(need)),
    };
    if !reacted(message, &unreact.emoji, asked.command.caller.user) {
        return nothing(Some(unreact.seq));
    }
    fact(Unreacted { seq: unreact.seq, emoji: unreact.emoji.clone() })
}

/// The message that the caller reacts to, or what has to be read first.
fn target<'a>(
    channel: &'a Channel<'_>,
    asked: &Asked<'_>,
    seq: Seq,
) -> Result<Result<&'a Message, Need>, Refusal> {
    let access = Access::of(channel.state, &asked.command.caller)?;
    access.needs(Role::Member)?;
    access.needs_active()?;
    match messages::message(channel, asked, &access, seq)? {
        Ok(message) if message.deleted => Err(refuse(ErrorCode::NotFound)),
        known => Ok(known),
    }
}

fn reacted(message: &Message, emoji: &Emoji, user: UserId) -> bool {
    message.reactions.iter().any(|r| r.emoji == *emoji && r.users.contains(&user))
}
