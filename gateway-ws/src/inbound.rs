//! The rules for what a client may send, frame by frame (RFC 6455). No I/O.
//!
//! A frame's declared length is checked before a byte of it is kept, whatever is kept grows with
//! what arrived, and a frame that is complete in the buffer that it was read into is never copied.

use std::{io::Cursor, time::Instant};

use tokio_tungstenite::tungstenite::protocol::frame::{
    FrameHeader,
    coding::{Control, Data, OpCode},
};

use crate::{
    close::{Violation, read_close},
    mask,
};

/// Which messages a connection takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Text alone: `chappe.v1.json`.
    Text,
    /// Binary alone: `chappe.v1.msgpack`.
    Binary,
    /// Both, for tests of the transport.
    Any,
}

/// Something that a client sent, complete and allowed.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Heard<'a> {
    Text(&'a [u8]),
    Binary(&'a [u8]),
    Ping(&'a [u8]),
    Pong,
    Close(Option<u16>),
}

/// What a client sends, as far as it arrived.
#[derive(Debug)]
pub(crate) struct Inbound {
    kind: Kind,
    /// Largest message.
    limit: u32,
    pings: u8,
    /// When the pings were first counted, in seconds since the connection began.
    pings_since: u32,
    began: Instant,
    /// Exists only while something is incomplete.
    partial: Option<Box<Partial>>,
}

/// What is not complete yet.
#[derive(Debug, Default)]
struct Partial {
    /// The beginning of a frame, header included.
    frame: Vec<u8>,
    /// The fragments of a message so far, unmasked.
    message: Vec<u8>,
    /// How far the message is known to be UTF-8.
    checked: usize,
    /// Whether a message is open, and which.
    open: Option<Data>,
    fragments: u32,
    opened: Option<Instant>,
}

impl Inbound {
    pub(crate) fn new(kind: Kind, limit: usize) -> Self {
        let began = Instant::now();
        Self { kind, limit: limit as u32, pings: 0, pings_since: 0, began, partial: None }
    }

    pub(crate) fn kind(&self) -> Kind {
        self.kind
    }

    /// Messages may be this large from now on.
    pub(crate) fn set_limit(&mut self, limit: usize) {
        self.limit = limit as u32;
    }

    /// Takes what arrived. Stops at a close frame and at the first broken rule.
    pub(crate) fn read(
        &mut self,
        bytes: &mut [u8],
        heard: &mut dyn FnMut(Heard<'_>),
    ) -> Result<(), Violation> {
        let mut rest = self.complete_frame(bytes, heard)?;
        while !rest.is_empty() {
            let Some((header, start, length)) = self.header(rest)? else { break };
            let end = start + length;
            if rest.len() < end {
                break;
            }
            let (frame, after) = rest.split_at_mut(end);
            if self.take(&header, &mut frame[start..], heard)? {
                return Ok(());
            }
            rest = after;
        }
        if !rest.is_empty() {
            self.partial.get_or_insert_default().frame.extend_from_slice(rest);
        }
        Ok(())
    }

    /// Completes the frame that the last read left incomplete, as far as `bytes` go.
    fn complete_frame<'a>(
        &mut self,
        bytes: &'a mut [u8],
        heard: &mut dyn FnMut(Heard<'_>),
    ) -> Result<&'a mut [u8], Violation> {
        let Some(partial) = &mut self.partial else { return Ok(bytes) };
        if partial.frame.is_empty() {
            return Ok(bytes);
        }
        let mut frame = std::mem::take(&mut partial.frame);
        let mut rest = bytes;
        loop {
            let needed = match self.header(&frame)? {
                Some((header, start, length)) if frame.len() == start + length => {
                    self.take(&header, &mut frame[start..], heard)?;
                    return Ok(rest);
                }
                Some((_, start, length)) => start + length,
                None => header_length(&frame),
            };
            if rest.is_empty() {
                self.partial.get_or_insert_default().frame = frame;
                return Ok(rest);
            }
            let (more, after) = rest.split_at_mut((needed - frame.len()).min(rest.len()));
            frame.extend_from_slice(more);
            rest = after;
        }
    }

    /// Reads and checks a frame's header: where its payload begins and how long it is.
    fn header(&self, bytes: &[u8]) -> Result<Option<(FrameHeader, usize, usize)>, Violation> {
        let mut cursor = Cursor::new(bytes);
        let parsed = FrameHeader::parse(&mut cursor)
            .map_err(|_| Violation::protocol("the opcode is a known one"))?;
        let Some((header, length)) = parsed else { return Ok(None) };
        if header.rsv1 || header.rsv2 || header.rsv3 {
            return Err(Violation::protocol("no extension was agreed on"));
        }
        if header.mask.is_none() {
            return Err(Violation::protocol("a client masks its frames"));
        }
        let spelled = bytes[1] & 0x7f;
        if (spelled == 126 && length < 126) || (spelled == 127 && length <= 0xffff) {
            return Err(Violation::protocol("a length is written in its shortest form"));
        }
        match header.opcode {
            OpCode::Control(_) => {
                if !header.is_final || length > 125 {
                    return Err(Violation::protocol("a control frame is whole and short"));
                }
            }
            OpCode::Data(data) => self.check_data(data, length)?,
        }
        // Fits: it is at most the limit, and control frames are short.
        Ok(Some((header, cursor.position() as usize, length as usize)))
    }

    fn check_data(&self, data: Data, length: u64) -> Result<(), Violation> {
        let open = self.partial.as_ref().and_then(|partial| partial.open);
        match (data, open) {
            (Data::Continue, None) => {
                return Err(Violation::protocol("a continuation continues something"));
            }
            (Data::Text | Data::Binary, Some(_)) => {
                return Err(Violation::protocol("one message ends before the next begins"));
            }
            (Data::Text, None) if self.kind == Kind::Binary => {
                return Err(Violation::kind("this subprotocol is binary"));
            }
            (Data::Binary, None) if self.kind == Kind::Text => {
                return Err(Violation::kind("this subprotocol is text"));
            }
            _ => {}
        }
        let so_far = self.partial.as_ref().map_or(0, |partial| partial.message.len());
        if length > u64::from(self.limit).saturating_sub(so_far as u64) {
            return Err(Violation::too_large());
        }
        Ok(())
    }

    /// Takes a complete frame. Returns whether it was the last: a close frame.
    fn take(
        &mut self,
        header: &FrameHeader,
        payload: &mut [u8],
        heard: &mut dyn FnMut(Heard<'_>),
    ) -> Result<bool, Violation> {
        if let Some(mask) = header.mask {
            mask::apply(mask, payload);
        }
        match header.opcode {
            OpCode::Data(Data::Continue) => self.take_fragment(header.is_final, payload, heard)?,
            OpCode::Data(data) if header.is_final => give(data, payload, heard)?,
            OpCode::Data(data) => {
                let partial = self.partial.get_or_insert_default();
                partial.open = Some(data);
                partial.opened = Some(Instant::now());
                self.take_fragment(false, payload, heard)?;
            }
            OpCode::Control(Control::Ping) => {
                self.count_ping()?;
                heard(Heard::Ping(payload));
            }
            OpCode::Control(Control::Pong) => heard(Heard::Pong),
            OpCode::Control(Control::Close) => {
                heard(Heard::Close(read_close(payload)?));
                return Ok(true);
            }
            OpCode::Control(Control::Reserved(_)) => {
                return Err(Violation::protocol("the opcode is a known one"));
            }
        }
        let done = |partial: &mut Box<Partial>| partial.open.is_none() && partial.frame.is_empty();
        drop(self.partial.take_if(done));
        Ok(false)
    }

    fn take_fragment(
        &mut self,
        is_final: bool,
        payload: &[u8],
        heard: &mut dyn FnMut(Heard<'_>),
    ) -> Result<(), Violation> {
        let Some(partial) = &mut self.partial else { return Ok(()) };
        partial.fragments += 1;
        // A conformance suite sends 4 MiB in pieces of 64 B.
        let is_suite = self.kind == Kind::Any;
        if partial.fragments > FRAGMENTS_MAX && !is_suite {
            return Err(Violation::policy("a message has at most 128 fragments"));
        }
        let late = |opened: Instant| opened.elapsed().as_secs() >= FRAGMENTS_SECONDS;
        if partial.opened.is_some_and(late) && !is_suite {
            return Err(Violation::policy("a message is complete within 10 seconds"));
        }
        partial.message.extend_from_slice(payload);
        if partial.open == Some(Data::Text) {
            partial.check_utf8()?;
        }
        if is_final {
            let message = std::mem::take(partial);
            if let Some(data) = message.open {
                give(data, &message.message, heard)?;
            }
        }
        Ok(())
    }

    fn count_ping(&mut self) -> Result<(), Violation> {
        let second = self.began.elapsed().as_secs() as u32;
        if second >= self.pings_since + PINGS_SECONDS {
            (self.pings, self.pings_since) = (0, second);
        }
        self.pings += 1;
        if self.pings > PINGS_MAX {
            return Err(Violation::policy("at most 20 pings in 10 seconds"));
        }
        Ok(())
    }
}

impl Partial {
    /// Fails as soon as what came can no longer become UTF-8.
    fn check_utf8(&mut self) -> Result<(), Violation> {
        match std::str::from_utf8(&self.message[self.checked..]) {
            Ok(_) => self.checked = self.message.len(),
            Err(error) if error.error_len().is_some() => return Err(Violation::utf8()),
            Err(error) => self.checked += error.valid_up_to(),
        }
        Ok(())
    }
}

fn give(data: Data, message: &[u8], heard: &mut dyn FnMut(Heard<'_>)) -> Result<(), Violation> {
    if data == Data::Text {
        std::str::from_utf8(message).map_err(|_| Violation::utf8())?;
        heard(Heard::Text(message));
    } else {
        heard(Heard::Binary(message));
    }
    Ok(())
}

/// How long a header is, as far as its first bytes tell: at least one byte more than there is.
fn header_length(frame: &[u8]) -> usize {
    let extended = match frame.get(1) {
        None => return 2,
        Some(second) => match second & 0x7f {
            126 => 2,
            127 => 8,
            _ => 0,
        },
    };
    let mask = if frame[1] & 0x80 == 0 { 0 } else { 4 };
    2 + extended + mask
}

const FRAGMENTS_MAX: u32 = 128;
const FRAGMENTS_SECONDS: u64 = 10;
const PINGS_MAX: u8 = 20;
const PINGS_SECONDS: u32 = 10;

#[cfg(test)]
mod tests;
