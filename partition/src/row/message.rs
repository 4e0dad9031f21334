//! `messages`: a message as it is now. A deleted one keeps number, author and times alone.

use chappe_protocol::{Data, Emoji, Message, Rev, Seq, Text, UserId, message::Reaction};
use serde::{Deserialize, Serialize};

use super::{RowError, from_bytes, to_bytes};

/// The fields by position; the number stands in the key.
#[derive(Serialize)]
struct Written<'a> {
    rev: Rev,
    changed: Rev,
    by: UserId,
    at: u64,
    text: Option<&'a Text>,
    data: Option<&'a Data>,
    reply_to: Option<Seq>,
    mentions: &'a [UserId],
    edited_at: Option<u64>,
    deleted: bool,
    reactions: Vec<(&'a Emoji, &'a [UserId])>,
}

#[derive(Deserialize)]
struct Read {
    rev: Rev,
    changed: Rev,
    by: UserId,
    at: u64,
    text: Option<Text>,
    data: Option<Data>,
    reply_to: Option<Seq>,
    mentions: Vec<UserId>,
    edited_at: Option<u64>,
    deleted: bool,
    reactions: Vec<(Emoji, Vec<UserId>)>,
}

pub(super) fn encode(message: &Message, out: &mut Vec<u8>) {
    let written = Written {
        rev: message.rev,
        changed: message.changed,
        by: message.by,
        at: message.at,
        text: message.text.as_ref(),
        data: message.data.as_ref(),
        reply_to: message.reply_to,
        mentions: &message.mentions,
        edited_at: message.edited_at,
        deleted: message.deleted,
        reactions: message.reactions.iter().map(|r| (&r.emoji, &r.users[..])).collect(),
    };
    to_bytes(&written, out);
}

pub(super) fn decode(seq: Seq, bytes: &[u8]) -> Result<Message, RowError> {
    let read: Read = from_bytes(bytes)?;
    let reactions = read.reactions.into_iter();
    Ok(Message {
        seq,
        rev: read.rev,
        changed: read.changed,
        by: read.by,
        at: read.at,
        text: read.text,
        data: read.data,
        reply_to: read.reply_to,
        mentions: read.mentions,
        edited_at: read.edited_at,
        deleted: read.deleted,
        reactions: reactions.map(|(emoji, users)| Reaction { emoji, users }).collect(),
    })
}
