//! The frame of a new message, written field by field: what no general encoder can beat by much.
//!
//! Good for the sample alone: its text needs no escape and its optional fields are as they are.

use chappe_protocol::{Event, EventBody, Message};

/// As JSON.
pub(super) fn json(event: &Event, out: &mut Vec<u8>) {
    let message = message(event);
    out.extend_from_slice(b"{\"event\":{\"channel\":\"");
    decimal(event.channel.get(), out);
    out.extend_from_slice(b"\",\"rev\":");
    decimal(event.rev.get(), out);
    out.extend_from_slice(b",\"seq\":");
    decimal(message.seq.get(), out);
    out.extend_from_slice(b",\"by\":\"");
    decimal(event.by.get(), out);
    out.extend_from_slice(b"\",\"at\":");
    decimal(event.at, out);
    out.extend_from_slice(b",\"nonce\":\"");
    out.extend_from_slice(event.nonce.as_deref().unwrap_or_default().as_bytes());
    out.extend_from_slice(b"\",\"kind\":\"message.created\",\"body\":{\"message\":{\"seq\":");
    decimal(message.seq.get(), out);
    out.extend_from_slice(b",\"rev\":");
    decimal(message.rev.get(), out);
    out.extend_from_slice(b",\"changed\":");
    decimal(message.changed.get(), out);
    out.extend_from_slice(b",\"by\":\"");
    decimal(message.by.get(), out);
    out.extend_from_slice(b"\",\"at\":");
    decimal(message.at, out);
    out.extend_from_slice(b",\"text\":\"");
    out.extend_from_slice(message.text.as_deref().unwrap_or_default().as_bytes());
    out.extend_from_slice(b"\"}}}}");
}

/// As MessagePack.
pub(super) fn message_pack(event: &Event, out: &mut Vec<u8>) {
    let message = message(event);
    out.extend_from_slice(b"\x81\xa5event\x88\xa7channel");
    unsigned(event.channel.get(), out);
    out.extend_from_slice(b"\xa3rev");
    unsigned(event.rev.get(), out);
    out.extend_from_slice(b"\xa3seq");
    unsigned(message.seq.get(), out);
    out.extend_from_slice(b"\xa2by");
    unsigned(event.by.get(), out);
    out.extend_from_slice(b"\xa2at");
    unsigned(event.at, out);
    out.extend_from_slice(b"\xa5nonce");
    string(event.nonce.as_deref().unwrap_or_default(), out);
    out.extend_from_slice(b"\xa4kind\xafmessage.created\xa4body\x81\xa7message\x86\xa3seq");
    unsigned(message.seq.get(), out);
    out.extend_from_slice(b"\xa3rev");
    unsigned(message.rev.get(), out);
    out.extend_from_slice(b"\xa7changed");
    unsigned(message.changed.get(), out);
    out.extend_from_slice(b"\xa2by");
    unsigned(message.by.get(), out);
    out.extend_from_slice(b"\xa2at");
    unsigned(message.at, out);
    out.extend_from_slice(b"\xa4text");
    string(message.text.as_deref().unwrap_or_default(), out);
}

fn message(event: &Event) -> &Message {
    match &event.body {
        EventBody::MessageCreated(body) => &body.message,
        _ => unreachable!("the sample is a new message"),
    }
}

fn decimal(mut value: u64, out: &mut Vec<u8>) {
    let mut digits = [0; 20];
    let mut at = digits.len();
    loop {
        at -= 1;
        digits[at] = b'0' + (value % 10) as u8;
        value /= 10;
        if value == 0 {
            break;
        }
    }
    out.extend_from_slice(&digits[at..]);
}

fn unsigned(value: u64, out: &mut Vec<u8>) {
    match value {
        0..=0x7f => out.push(value as u8),
        0x80..=0xff => out.extend_from_slice(&[0xcc, value as u8]),
        0x100..=0xffff => {
            out.push(0xcd);
            out.extend_from_slice(&(value as u16).to_be_bytes());
        }
        0x1_0000..=0xffff_ffff => {
            out.push(0xce);
            out.extend_from_slice(&(value as u32).to_be_bytes());
        }
        _ => {
            out.push(0xcf);
            out.extend_from_slice(&value.to_be_bytes());
        }
    }
}

fn string(text: &str, out: &mut Vec<u8>) {
    match text.len() {
        short @ 0..=31 => out.push(0xa0 | short as u8),
        long => {
            assert!(long <= 0xff, "the sample's texts are short");
            out.extend_from_slice(&[0xd9, long as u8]);
        }
    }
    out.extend_from_slice(text.as_bytes());
}

#[cfg(test)]
mod tests {
    use chappe_protocol::{Encoding, ServerFrame};

    use super::*;
    use crate::sample;

    #[test]
    fn by_hand_and_by_the_protocol_are_the_same_bytes() {
        for number in [0, 1, 127, 128, 70_000] {
            let event = sample::created(number);
            for (encoding, write) in [
                (Encoding::Json, json as fn(&Event, &mut Vec<u8>)),
                (Encoding::MessagePack, message_pack),
            ] {
                let (mut ours, mut by_hand) = (Vec::new(), Vec::new());
                encoding.encode(&ServerFrame::Event { event: &event }, &mut ours);
                write(&event, &mut by_hand);
                assert_eq!(ours, by_hand, "{encoding:?}");
            }
        }
    }
}
