//! The rules of RFC 6455 for what a client sends: bytes in, messages out, without a socket.
//!
//! Nothing is kept but a frame or a message that is not complete, and a declared length is judged
//! before a byte of it is kept.

use std::{
    io::Cursor,
    time::{Duration, Instant},
};

use tokio_tungstenite::tungstenite::protocol::frame::{
    FrameHeader,
    coding::{Control, Data, OpCode},
};

/// What a message may be made of.
const FRAGMENTS_MAX: u32 = 128;
/// How long a message in fragments may take.
const FRAGMENTS_TIME_MAX: Duration = Duration::from_secs(10);
/// Pings that are answered within [`PINGS_TIME`].
const PINGS_MAX: u32 = 20;
const PINGS_TIME: Duration = Duration::from_secs(10);
/// The longest payload of a control frame (RFC 6455, 5.5).
const CONTROL_BYTES_MAX: u64 = 125;

/// Something complete.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Item<'a> {
    /// A message's payload.
    Message(&'a [u8]),
    /// A ping, to be answered with the same payload.
    Ping(&'a [u8]),
    /// The answer to a ping.
    Pong,
    /// The client closes, with this code if it gave one.
    Close(Option<u16>),
}

/// The client broke a rule: the close code that RFC 6455 gives it, and the rule.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Violation {
    pub(crate) code: u16,
    pub(crate) rule: &'static str,
}

/// Whether messages are text or binary; a connection carries one of them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum MessageType {
    Text,
    Binary,
    /// Both, each answered in kind: for conformance suites.
    Any,
}

/// Reads what one client sends.
pub(crate) struct Reader {
    kind: MessageType,
    bytes_max: usize,
    /// The beginning of a frame that is not complete.
    partial: Vec<u8>,
    /// The beginning of a message that is not complete.
    message: Option<Box<Fragments>>,
    pings: Option<Box<(Instant, u32)>>,
}

struct Fragments {
    payload: Vec<u8>,
    is_text: bool,
    count: u32,
    since: Instant,
}

impl Reader {
    pub(crate) const fn new(kind: MessageType, bytes_max: usize) -> Self {
        Self { kind, bytes_max, partial: Vec::new(), message: None, pings: None }
    }

    /// Messages may have this many bytes from now on.
    pub(crate) const fn allow(&mut self, bytes_max: usize) {
        self.bytes_max = bytes_max;
    }

    /// Takes what arrived and hands on what is complete. `bytes` is used as scratch space.
    pub(crate) fn handle_bytes(
        &mut self,
        now: Instant,
        bytes: &mut [u8],
        found: &mut dyn FnMut(bool, Item<'_>),
    ) -> Result<(), Violation> {
        if self.partial.is_empty() {
            let used = self.frames(now, bytes, found)?;
            self.partial.extend_from_slice(&bytes[used..]);
            return Ok(());
        }
        let mut partial = std::mem::take(&mut self.partial);
        partial.extend_from_slice(bytes);
        let used = self.frames(now, &mut partial, found)?;
        if used < partial.len() {
            partial.drain(..used);
            self.partial = partial;
        }
        Ok(())
    }

    /// Handles complete frames and says how many bytes they took.
    fn frames(
        &mut self,
        now: Instant,
        bytes: &mut [u8],
        found: &mut dyn FnMut(bool, Item<'_>),
    ) -> Result<usize, Violation> {
        let mut used = 0;
        loop {
            let Some((header, start, length)) = self.header(&bytes[used..])? else {
                return Ok(used);
            };
            let end = used + start + length;
            if end > bytes.len() {
                return Ok(used);
            }
            let payload = &mut bytes[used + start..end];
            if let Some(mask) = header.mask {
                unmask(payload, mask);
            }
            self.frame(now, &header, payload, found)?;
            used = end;
        }
    }

    /// The header of the frame that `bytes` begin with, its length and the payload's; none if it
    /// is not complete.
    fn header(&self, bytes: &[u8]) -> Result<Option<(FrameHeader, usize, usize)>, Violation> {
        let mut cursor = Cursor::new(bytes);
        let parsed = FrameHeader::parse(&mut cursor).map_err(|_| broken("not a frame"))?;
        let Some((header, length)) = parsed else { return Ok(None) };
        if header.rsv1 || header.rsv2 || header.rsv3 {
            return Err(broken("reserved bits are set"));
        }
        if header.mask.is_none() {
            return Err(broken("a client masks its frames"));
        }
        match header.opcode {
            OpCode::Data(Data::Reserved(_)) | OpCode::Control(Control::Reserved(_)) => {
                return Err(broken("a reserved opcode"));
            }
            OpCode::Control(_) if length > CONTROL_BYTES_MAX || !header.is_final => {
                return Err(broken("a control frame is whole and has at most 125 bytes"));
            }
            OpCode::Control(_) => {}
            OpCode::Data(_) => {
                let before = self.message.as_ref().map_or(0, |message| message.payload.len());
                if length > (self.bytes_max - before.min(self.bytes_max)) as u64 {
                    return Err(Violation { code: 1009, rule: "the message is too large" });
                }
            }
        }
        Ok(Some((header, cursor.position() as usize, length as usize)))
    }

    fn frame(
        &mut self,
        now: Instant,
        header: &FrameHeader,
        payload: &[u8],
        found: &mut dyn FnMut(bool, Item<'_>),
    ) -> Result<(), Violation> {
        match header.opcode {
            OpCode::Control(Control::Ping) => {
                self.count_ping(now)?;
                found(false, Item::Ping(payload));
                Ok(())
            }
            OpCode::Control(Control::Close) => {
                found(false, Item::Close(close_code(payload)?));
                Ok(())
            }
            OpCode::Control(_) => {
                found(false, Item::Pong);
                Ok(())
            }
            OpCode::Data(Data::Continue) => self.fragment(now, header.is_final, payload, found),
            OpCode::Data(data) => {
                if self.message.is_some() {
                    return Err(broken("a message began before the last one's end"));
                }
                let is_text = data == Data::Text;
                self.check_type(is_text)?;
                if header.is_final {
                    return complete(is_text, payload, found);
                }
                let payload = payload.to_vec();
                let fragments = Fragments { payload, is_text, count: 1, since: now };
                self.message = Some(Box::new(fragments));
                Ok(())
            }
        }
    }

    fn fragment(
        &mut self,
        now: Instant,
        is_final: bool,
        payload: &[u8],
        found: &mut dyn FnMut(bool, Item<'_>),
    ) -> Result<(), Violation> {
        let Some(message) = &mut self.message else {
            return Err(broken("a continuation of nothing"));
        };
        message.count += 1;
        let late = now.duration_since(message.since) > FRAGMENTS_TIME_MAX;
        if message.count > FRAGMENTS_MAX || late {
            let rule = "a message has at most 128 fragments within 10 s";
            return Err(Violation { code: 1008, rule });
        }
        message.payload.extend_from_slice(payload);
        if is_final && let Some(message) = self.message.take() {
            return complete(message.is_text, &message.payload, found);
        }
        Ok(())
    }

    fn check_type(&self, is_text: bool) -> Result<(), Violation> {
        let expected = match self.kind {
            MessageType::Any => return Ok(()),
            MessageType::Text => true,
            MessageType::Binary => false,
        };
        if is_text == expected {
            return Ok(());
        }
        let rule = "the subprotocol decides whether messages are text or binary";
        Err(Violation { code: 1003, rule })
    }

    fn count_ping(&mut self, now: Instant) -> Result<(), Violation> {
        let pings = self.pings.get_or_insert_with(|| Box::new((now, 0)));
        if now.duration_since(pings.0) > PINGS_TIME {
            **pings = (now, 0);
        }
        pings.1 += 1;
        if pings.1 > PINGS_MAX {
            return Err(Violation { code: 1008, rule: "at most 20 pings in 10 s" });
        }
        Ok(())
    }
}

fn complete(
    is_text: bool,
    payload: &[u8],
    found: &mut dyn FnMut(bool, Item<'_>),
) -> Result<(), Violation> {
    if is_text && std::str::from_utf8(payload).is_err() {
        return Err(Violation { code: 1007, rule: "a text message is UTF-8" });
    }
    found(is_text, Item::Message(payload));
    Ok(())
}

/// The code of a close frame, which is empty or a code that may be sent and UTF-8.
fn close_code(payload: &[u8]) -> Result<Option<u16>, Violation> {
    let (code, reason) = match payload {
        [] => return Ok(None),
        [_] => return Err(broken("half a close code")),
        [high, low, reason @ ..] => (u16::from_be_bytes([*high, *low]), reason),
    };
    if !matches!(code, 1000..=1003 | 1007..=1014 | 3000..=4999) {
        return Err(broken("a close code that may not be sent"));
    }
    if std::str::from_utf8(reason).is_err() {
        return Err(Violation { code: 1007, rule: "a close reason is UTF-8" });
    }
    Ok(Some(code))
}

const fn broken(rule: &'static str) -> Violation {
    Violation { code: 1002, rule }
}

/// Eight bytes at a time: payloads are short, and the compiler makes vectors of this.
fn unmask(payload: &mut [u8], mask: [u8; 4]) {
    let wide = u64::from_ne_bytes([
        mask[0], mask[1], mask[2], mask[3], mask[0], mask[1], mask[2], mask[3],
    ]);
    let (chunks, rest) = payload.as_chunks_mut::<8>();
    for chunk in chunks {
        *chunk = (u64::from_ne_bytes(*chunk) ^ wide).to_ne_bytes();
    }
    for (byte, mask) in rest.iter_mut().zip(mask.iter().cycle()) {
        *byte ^= mask;
    }
}

#[cfg(test)]
mod tests;
