//! A stream of events as the kernel sees it: a link that says hello and subscribes, and then
//! only listens.

use std::{
    collections::VecDeque,
    net::SocketAddr,
    task::{Context, Poll},
};

use chappe_gateway::link::{Describe, Framing, Lane, Link, LinkEnd};
use chappe_protocol::{
    ClientFrame, CloseCode, Command, Encoding,
    command::{Hello, Pong, Subscribe},
};

use super::{
    pipe::{Progress, Writer},
    text::{EventText, HELLO_ID, Meaning},
};
use crate::meter;

pub(super) struct EventLink {
    describe: Describe,
    writer: Writer,
    text: EventText,
    /// Frames that wait for the kernel to take them.
    asking: VecDeque<Vec<u8>>,
    /// What is asked once the session is signed in.
    subscriptions: Vec<Subscribe>,
    /// The request id of the last subscription.
    last_id: u32,
    /// The kernel asked for a sign of life, which is that the reader took everything.
    pong_due: bool,
    closing: Option<CloseCode>,
}

impl EventLink {
    pub(super) fn new(
        peer: SocketAddr,
        token: &str,
        subscriptions: Vec<Subscribe>,
        writer: Writer,
    ) -> Self {
        let hello = Hello {
            token: token.to_owned(),
            client: "sse".to_owned(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            resume: None,
        };
        Self {
            describe: Describe {
                transport: "sse",
                peer,
                encoding: Encoding::Json,
                framing: Framing::LengthPrefixed,
                channel_lanes: 1,
                // Signing in by a frame of its own tells the link the incarnation, which its
                // cursors need.
                token: None,
            },
            writer,
            text: EventText::default(),
            asking: VecDeque::from([encode(HELLO_ID, hello)]),
            last_id: HELLO_ID + subscriptions.len() as u32,
            subscriptions,
            pong_due: false,
            closing: None,
        }
    }

    fn write_frame(&mut self, frame: &[u8], out: &mut Vec<u8>) -> Result<(), LinkEnd> {
        match self.text.write(frame, out).map_err(LinkEnd::Broken)? {
            Meaning::Text => {}
            Meaning::SignedIn => {
                for (id, subscribe) in (HELLO_ID + 1..).zip(self.subscriptions.drain(..)) {
                    self.asking.push_back(encode(id, subscribe));
                }
                self.writer.poll_again();
            }
            Meaning::Subscribed(id) if id == self.last_id => self.writer.open(Ok(())),
            Meaning::Subscribed(_) => {}
            Meaning::Failed(error) => self.writer.open(Err(error)),
            Meaning::Ping => {
                self.pong_due = true;
                self.writer.poll_again();
            }
        }
        Ok(())
    }
}

impl Link for EventLink {
    fn describe(&self) -> &Describe {
        &self.describe
    }

    fn poll_recv(
        &mut self,
        cx: &mut Context<'_>,
        _scratch: &mut Vec<u8>,
        inbound: &mut dyn FnMut(&[u8]),
    ) -> Poll<Result<(), LinkEnd>> {
        while let Some(frame) = self.asking.pop_front() {
            inbound(&frame);
        }
        match (self.writer.progress(cx), self.closing) {
            (Progress::Abandoned, _) => Poll::Ready(Err(LinkEnd::Closed(None))),
            (Progress::Drained, Some(code)) => {
                Poll::Ready(Err(LinkEnd::Closed(Some(code.number()))))
            }
            (Progress::Drained, None) if self.pong_due => {
                self.pong_due = false;
                inbound(&encode(0, Pong {}));
                Poll::Pending
            }
            _ => Poll::Pending,
        }
    }

    fn send(&mut self, lane: Lane, frames: &[u8]) -> Result<usize, LinkEnd> {
        let mut rest = frames;
        let mut out = Vec::new();
        while !rest.is_empty() && self.writer.has_room() && out.len() < TEXT_AT_ONCE_BYTES {
            let (frame, behind) = split(rest).ok_or(LinkEnd::Broken("an unfinished frame"))?;
            self.write_frame(frame, &mut out)?;
            rest = behind;
        }
        self.text.finish(&mut out);
        self.writer.write(&out);
        if lane == Lane::Signals && !rest.is_empty() {
            meter::signal_dropped();
            return Ok(frames.len());
        }
        Ok(frames.len() - rest.len())
    }

    fn poll_writable(&mut self, cx: &mut Context<'_>, _: Lane) -> Poll<Result<(), LinkEnd>> {
        match self.writer.progress(cx) {
            Progress::Abandoned => Poll::Ready(Err(LinkEnd::Closed(None))),
            _ if self.writer.has_room() => Poll::Ready(Ok(())),
            _ => Poll::Pending,
        }
    }

    fn close(&mut self, code: CloseCode, _reason: &str) {
        self.closing = Some(code);
        self.writer.end();
        self.writer.poll_again();
    }
}

/// Splits off the first of some length-prefixed frames.
fn split(frames: &[u8]) -> Option<(&[u8], &[u8])> {
    let (length, rest) = frames.split_first_chunk()?;
    rest.split_at_checked(u32::from_le_bytes(*length) as usize)
}

fn encode(id: u32, command: impl Into<Command>) -> Vec<u8> {
    let frame = ClientFrame { id, nonce: None, age_ms: 0, command: command.into() };
    let mut bytes = Vec::new();
    Encoding::Json.encode(&frame, &mut bytes);
    bytes
}

/// How much is turned into text before the pipe is asked again whether it has room.
const TEXT_AT_ONCE_BYTES: usize = 64 * 1024;
