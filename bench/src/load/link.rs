//! One WebSocket connection of the load.

use std::{io::ErrorKind, net::IpAddr};

use anyhow::{Context, Result, bail};

use super::stream::{Stream, Target};
use crate::wire::{self, BINARY, CLOSE, Head, PING, PONG};

/// What a link hears.
#[derive(Debug)]
pub(crate) enum Heard<'a> {
    /// The upgrade is done.
    Upgraded,
    /// One message.
    Message(&'a [u8]),
}

/// How a server's own ping begins in the encoding of the measurements: a map of one, `ping`.
const SERVER_PING: &[u8] = b"\x81\xa4ping";
/// The answer: `{"pong": {}}`.
const CLIENT_PONG: &[u8] = b"\x81\xa4pong\x80";

/// One connection. It answers pings by itself, so that an idle one lives.
pub(crate) struct Link {
    stream: Stream,
    upgraded: bool,
    /// An incomplete response or frame. Takes no memory while there is none.
    partial: Vec<u8>,
}

impl Link {
    /// Connects and asks for the upgrade.
    pub(crate) fn open(target: &Target, source: IpAddr) -> Result<Self> {
        let mut stream = Stream::connect(target, source)?;
        stream.write_all(&wire::upgrade_request(&target.addr.to_string()))?;
        Ok(Self { stream, upgraded: false, partial: Vec::new() })
    }

    /// The connection itself.
    pub(crate) const fn stream(&self) -> &Stream {
        &self.stream
    }

    /// Sends bytes that are framed and masked already.
    pub(crate) fn send(&mut self, frames: &[u8]) -> Result<()> {
        self.stream.write_all(frames).context("the server does not read")
    }

    /// Says goodbye. Best effort: the server may be gone.
    pub(crate) fn close(&mut self) {
        let mut frame = Vec::new();
        wire::write_masked(CLOSE, &1000_u16.to_be_bytes(), &mut frame);
        drop(self.stream.write_all(&frame));
    }

    /// Reads until there is nothing more, and tells what came.
    pub(crate) fn read(
        &mut self,
        scratch: &mut [u8],
        heard: &mut dyn FnMut(Heard<'_>) -> Result<()>,
    ) -> Result<()> {
        loop {
            let count = match self.stream.read(scratch) {
                Ok(0) => bail!("the server closed a connection"),
                Ok(count) => count,
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(()),
                Err(error) => return Err(error).context("a connection broke"),
            };
            self.take(&scratch[..count], heard)?;
            // A socket that gave less than was asked for has no more: epoll tells when it does.
            if count < scratch.len() && matches!(self.stream, Stream::Plain(_)) {
                return Ok(());
            }
        }
    }

    fn take(&mut self, bytes: &[u8], heard: &mut dyn FnMut(Heard<'_>) -> Result<()>) -> Result<()> {
        if self.partial.is_empty() {
            let used = self.take_some(bytes, heard)?;
            self.partial.extend_from_slice(&bytes[used..]);
            return Ok(());
        }
        let mut all = std::mem::take(&mut self.partial);
        all.extend_from_slice(bytes);
        let used = self.take_some(&all, heard)?;
        self.partial.extend_from_slice(&all[used..]);
        Ok(())
    }

    fn take_some(
        &mut self,
        bytes: &[u8],
        heard: &mut dyn FnMut(Heard<'_>) -> Result<()>,
    ) -> Result<usize> {
        let mut at = 0;
        if !self.upgraded {
            let Some(length) = wire::accept_upgrade(bytes)? else { return Ok(0) };
            self.upgraded = true;
            at = length;
            heard(Heard::Upgraded)?;
        }
        while let Some(head) = Head::parse(&bytes[at..])? {
            let end = at + head.frame_bytes();
            let Some(payload) = bytes.get(at + head.head_bytes..end) else { break };
            match head.opcode {
                BINARY if payload.starts_with(SERVER_PING) => self.answer(BINARY, CLIENT_PONG)?,
                BINARY => heard(Heard::Message(payload))?,
                PING => self.answer(PONG, payload)?,
                PONG => {}
                CLOSE => bail!("the server closed a connection: {}", close_code(payload)),
                other => bail!("a frame of kind {other:#x}, which nobody asked for"),
            }
            at = end;
        }
        Ok(at)
    }

    fn answer(&mut self, opcode: u8, payload: &[u8]) -> Result<()> {
        let mut frame = Vec::new();
        wire::write_masked(opcode, payload, &mut frame);
        self.send(&frame)
    }
}

fn close_code(payload: &[u8]) -> u16 {
    match payload {
        [high, low, ..] => u16::from_be_bytes([*high, *low]),
        _ => 1005, // the code for none
    }
}

#[cfg(test)]
mod tests {
    use chappe_protocol::{ClientFrame, ServerFrame, command, frame::ServerPing};

    use super::*;

    #[test]
    fn ping_and_pong_look_as_the_protocol_writes_them() {
        let mut ping = Vec::new();
        let frame = ServerFrame::Ping { ping: ServerPing { at: 1, heads: Vec::new() } };
        wire::ENCODING.encode(&frame, &mut ping);
        assert!(ping.starts_with(SERVER_PING));
        let pong = wire::ENCODING.decode_client(CLIENT_PONG).unwrap();
        let expected =
            ClientFrame { id: 0, nonce: None, age_ms: 0, command: command::Pong {}.into() };
        assert_eq!(pong, expected);
    }
}
