//! The messages that the measurements send, and the frames that carry them.

use anyhow::{Context, Result};
use chappe_protocol::{
    ChannelId, Command, Event, EventBody, Message, Nonce, Rev, Seq, ServerFrame, Text, UserId,
    command::Publish, event::MessageBody,
};

use crate::wire::ENCODING;

/// The text of a message in the fan-out.
pub(crate) const FANOUT_TEXT_BYTES: usize = 128;
/// The text of a message in the durable publishes, and a record in the log's.
pub(crate) const DURABLE_TEXT_BYTES: usize = 256;

const AT: u64 = 1_790_000_000_000;

/// A text of this many bytes that begins with its number.
pub(crate) fn text(number: usize, bytes: usize) -> Text {
    let text = format!("{number:08} {}", "x".repeat(bytes - 9));
    match Text::parse(text) {
        Ok(text) => text,
        Err(_) => unreachable!("digits and letters, and not too long"),
    }
}

/// The number that a text begins with.
pub(crate) fn number(text: &str) -> Result<usize> {
    let digits = text.get(..8).context("a text of someone else's")?;
    digits.parse().context("a text without its number")
}

/// The nonce of a message.
pub(crate) fn nonce(number: usize) -> Nonce {
    match Nonce::parse(format!("{number:016}")) {
        Ok(nonce) => nonce,
        Err(_) => unreachable!("16 digits"),
    }
}

/// The command that publishes a message.
pub(crate) fn publish(channel: ChannelId, text: Text) -> Command {
    Command::Publish(Publish {
        channel,
        text: Some(text),
        data: None,
        reply_to: None,
        mentions: Vec::new(),
    })
}

/// The event of a message of the fan-out, as a server with the same channel would write it: what
/// the floor sends.
pub(crate) fn event(number: usize) -> Vec<u8> {
    let mut payload = Vec::new();
    ENCODING.encode(&ServerFrame::Event { event: &created(number) }, &mut payload);
    payload
}

/// The same before it is encoded.
pub(crate) fn created(number: usize) -> Event {
    let by = UserId::of("chappe-dev", "bench-0");
    // A fan-out's channel has a thousand members, each of whom took a revision to join.
    let rev = Rev::new(1_002 + number as u64);
    let message = Message {
        seq: Seq::new(1 + number as u64),
        rev,
        changed: rev,
        by,
        at: AT,
        text: Some(text(number, FANOUT_TEXT_BYTES)),
        data: None,
        reply_to: None,
        mentions: Vec::new(),
        edited_at: None,
        deleted: false,
        reactions: Vec::new(),
    };
    Event {
        channel: ChannelId::created_by(by, "fanout"),
        rev,
        by,
        at: AT,
        nonce: Some(nonce(number)),
        body: EventBody::MessageCreated(MessageBody { message }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_text_has_its_size_and_tells_its_number() {
        let text = text(123, FANOUT_TEXT_BYTES);
        assert_eq!((text.len(), number(&text).unwrap()), (FANOUT_TEXT_BYTES, 123));
        assert!(number("no").is_err());
    }
}
