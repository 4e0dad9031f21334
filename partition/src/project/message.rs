//! What facts make of a message.

use chappe_protocol::{Message, message::Reaction};

use crate::record::{Fact, FactBody, MessageCreated};

/// The message that `fact` published.
pub fn created_message(fact: &Fact, body: &MessageCreated) -> Message {
    Message {
        seq: body.seq,
        rev: fact.rev,
        changed: fact.rev,
        by: fact.by,
        at: fact.mark.ts,
        text: body.text.clone(),
        data: body.data.clone(),
        reply_to: body.reply_to,
        mentions: body.mentions.clone(),
        edited_at: None,
        deleted: false,
        reactions: Vec::new(),
    }
}

/// Changes `message` by a later fact about it.
pub fn change_message(message: &mut Message, fact: &Fact) {
    match &fact.body {
        FactBody::Edited(body) => {
            if body.text.is_some() {
                message.text.clone_from(&body.text);
            }
            if body.data.is_some() {
                message.data.clone_from(&body.data);
            }
            message.edited_at = Some(fact.mark.ts);
        }
        FactBody::Erased(_) => {
            // Whatever the author or others put into it goes; what is left says that it was there.
            *message = Message {
                text: None,
                data: None,
                reply_to: None,
                mentions: Vec::new(),
                edited_at: None,
                deleted: true,
                reactions: Vec::new(),
                ..*message
            };
        }
        FactBody::Reacted(body) => {
            match message.reactions.iter_mut().find(|r| r.emoji == body.emoji) {
                Some(reaction) => reaction.users.push(fact.by),
                None => message
                    .reactions
                    .push(Reaction { emoji: body.emoji.clone(), users: vec![fact.by] }),
            }
        }
        FactBody::Unreacted(body) => {
            for reaction in &mut message.reactions {
                if reaction.emoji == body.emoji {
                    reaction.users.retain(|user| *user != fact.by);
                }
            }
            message.reactions.retain(|reaction| !reaction.users.is_empty());
        }
        _ => return,
    }
    message.changed = fact.rev;
}
