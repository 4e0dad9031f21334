//! One WebSocket connection as the kernel's link.
//!
//! The kernel's frames are written as they are. What the link has to say itself (a pong, a close)
//! goes between two of them, never into one that was cut.

use std::{
    future::Future,
    io,
    net::SocketAddr,
    pin::Pin,
    task::{Context, Poll, Waker},
    time::Duration,
};

use bytes::Bytes;
use chappe_gateway::link::{Describe, Framing, Lane, Link, LinkEnd};
use chappe_protocol::{CloseCode, Encoding, limits};
use tokio::{io::ReadBuf, time::Sleep};

use crate::{
    close::{Violation, write_close, write_pong},
    inbound::{Heard, Inbound, Kind},
    socket::{Settle, Socket},
};

/// A WebSocket connection after its handshake.
///
/// What a delivery touches is together in one line of the processor's cache; everything else is
/// elsewhere.
#[derive(Debug)]
pub struct WsLink<S> {
    socket: S,
    /// Open, at a boundary, and with nothing of its own to say: frames are simply written.
    plain: bool,
    rest: Box<Rest>,
}

#[derive(Debug)]
struct Rest {
    about: Describe,
    /// Woken when what stayed in buffers below can go on.
    waker: Option<Waker>,
    inbound: Inbound,
    /// Bytes that came behind the handshake and were read with it.
    read_ahead: Bytes,
    /// How much of the kernel's frames is promised and not written: the next boundary.
    owed: usize,
    /// The link's own frames that wait for a boundary.
    own: Vec<u8>,
    state: State,
}

#[derive(Debug)]
enum State {
    Open,
    /// The kernel closed; the client's close is awaited.
    Closing,
    /// The client closed: the answer is on its way, and then it is over.
    Closed(Option<u16>),
    /// The client broke a rule and was told; what it still sends is not looked at.
    Broken(&'static str, Pin<Box<Sleep>>),
}

impl<S: Socket> WsLink<S> {
    /// A link over a socket whose handshake is done. To be called on the shard's thread.
    pub fn new(
        socket: impl Settle<Settled = S>,
        peer: SocketAddr,
        encoding: Encoding,
        token: Option<String>,
        read_ahead: Bytes,
    ) -> io::Result<Self> {
        let (framing, kind) = match encoding {
            Encoding::Json => (Framing::WebSocketText, Kind::Text),
            Encoding::MessagePack => (Framing::WebSocketBinary, Kind::Binary),
        };
        let transport = "ws";
        let about = Describe { transport, peer, encoding, framing, channel_lanes: 1, token };
        let inbound = Inbound::new(kind, limits::FRAME_BYTES_MAX_BEFORE_HELLO);
        let state = State::Open;
        let rest =
            Rest { about, waker: None, inbound, read_ahead, owed: 0, own: Vec::new(), state };
        Ok(Self { socket: socket.settle()?, plain: true, rest: Box::new(rest) })
    }

    /// The same, taking messages of both kinds up to a size: for tests of the transport, which
    /// want every message back. Each one is given with its opcode before it, and signs of life
    /// are not given.
    pub fn for_echo(
        socket: impl Settle<Settled = S>,
        peer: SocketAddr,
        limit: usize,
    ) -> io::Result<Self> {
        let mut link = Self::new(socket, peer, Encoding::Json, None, Bytes::new())?;
        link.rest.inbound = Inbound::new(Kind::Any, limit);
        Ok(link)
    }

    /// Names the transport in metrics and logs.
    #[must_use]
    pub fn over(mut self, transport: &'static str) -> Self {
        self.rest.about.transport = transport;
        self
    }

    /// Hands what arrived to the kernel, and answers what is the transport's own.
    fn take(&mut self, bytes: &mut [u8], inbound: &mut dyn FnMut(&[u8])) {
        let Rest { inbound: reader, own, .. } = &mut *self.rest;
        let mut closed = None;
        let echo = reader.kind() == Kind::Any;
        let result = reader.read(bytes, &mut |heard| match heard {
            Heard::Text(message) | Heard::Binary(message) if echo => {
                let opcode = if matches!(heard, Heard::Text(_)) { 1 } else { 2 };
                inbound(&[&[opcode], message].concat());
            }
            // Nothing is a sign of life; an empty message is a frame that is none.
            Heard::Text([]) | Heard::Binary([]) => inbound(b" "),
            Heard::Text(message) | Heard::Binary(message) => inbound(message),
            Heard::Ping(payload) => {
                write_pong(payload, own);
                if !echo {
                    inbound(&[]);
                }
            }
            Heard::Pong if echo => {}
            Heard::Pong => inbound(&[]),
            Heard::Close(code) => closed = Some(code),
        });
        match (result, closed) {
            (Err(violation), _) => self.break_off(violation),
            (Ok(()), Some(code)) => {
                if matches!(self.rest.state, State::Open) {
                    write_close(code, "", &mut self.rest.own);
                }
                self.rest.state = State::Closed(code);
            }
            (Ok(()), None) => {}
        }
    }

    fn break_off(&mut self, violation: Violation) {
        if !matches!(self.rest.state, State::Closing) {
            let Rest { about, own, .. } = &mut *self.rest;
            violation.write(about.encoding, about.framing, own);
        }
        let linger = Box::pin(tokio::time::sleep(LINGER));
        self.rest.state = State::Broken(violation.rule, linger);
    }

    /// Writes the link's own frames if it is their turn. Ready when none waits.
    fn poll_own(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while !self.rest.own.is_empty() {
            if self.rest.owed > 0 {
                return Poll::Pending; // the kernel's rest comes first
            }
            match self.socket.try_send(&self.rest.waker, &self.rest.own)? {
                0 => match self.socket.poll_sendable(cx)? {
                    Poll::Ready(()) => {}
                    Poll::Pending => return Poll::Pending,
                },
                sent => drop(self.rest.own.drain(..sent)),
            }
        }
        self.rest.own = Vec::new();
        self.socket.poll_flushed(cx)
    }

    /// Writes of the link's own frames what can be written at once, if it is their turn.
    fn send_own(&mut self) -> Result<(), LinkEnd> {
        if self.rest.owed == 0 && !self.rest.own.is_empty() {
            let sent =
                self.socket.try_send(&self.rest.waker, &self.rest.own).map_err(LinkEnd::Io)?;
            self.rest.own.drain(..sent);
        }
        Ok(())
    }

    /// Sends frames while there is something else to mind: the link's own, or an end.
    fn send_between(&mut self, lane: Lane, frames: &[u8]) -> Result<usize, LinkEnd> {
        if matches!(self.rest.state, State::Closed(_) | State::Broken(..)) {
            return Ok(frames.len()); // nobody reads it any more
        }
        self.send_own()?;
        let in_between = self.rest.owed > 0 && lane == Lane::Signals;
        if in_between || (self.rest.owed == 0 && !self.rest.own.is_empty()) {
            return Ok(0);
        }
        let sent = self.socket.try_send(&self.rest.waker, frames).map_err(LinkEnd::Io)?;
        let taken = self.cut(lane, frames, sent);
        self.send_own()?;
        Ok(taken)
    }

    /// Notes how much of an offer was written, and says how much of it was taken.
    fn cut(&mut self, lane: Lane, frames: &[u8], sent: usize) -> usize {
        if lane == Lane::Signals {
            if sent == 0 {
                return 0;
            }
            self.rest.own.extend_from_slice(&frames[sent..]); // begun is promised
            self.look_if_plain();
            if let Some(waker) = &self.rest.waker {
                waker.wake_by_ref(); // its task waits for the socket then
            }
            return frames.len();
        }
        self.rest.owed = frames.len() - sent;
        self.look_if_plain();
        sent
    }

    fn look_if_plain(&mut self) {
        let Rest { owed, own, state, .. } = &*self.rest;
        self.plain = *owed == 0 && own.is_empty() && matches!(state, State::Open);
    }

    /// Brings an ending to its end.
    fn poll_end(&mut self, cx: &mut Context<'_>) -> Poll<LinkEnd> {
        // A rest that will never come does not hold up the end.
        self.rest.owed = 0;
        let told = self.poll_own(cx);
        let finished = match told {
            Poll::Ready(Ok(())) => self.socket.poll_finish(cx),
            other => other,
        };
        match (&mut self.rest.state, finished) {
            (_, Poll::Ready(Err(error))) => Poll::Ready(LinkEnd::Io(error)),
            (State::Closed(code), Poll::Ready(Ok(()))) => Poll::Ready(LinkEnd::Closed(*code)),
            (State::Broken(rule, linger), _) => {
                linger.as_mut().poll(cx).map(|()| LinkEnd::Broken(rule))
            }
            _ => Poll::Pending,
        }
    }

    fn remember(&mut self, waker: &Waker) {
        if !self.rest.waker.as_ref().is_some_and(|known| known.will_wake(waker)) {
            self.rest.waker = Some(waker.clone());
        }
    }

    /// Reads once. Ready with the number of bytes, 0 at the end.
    fn poll_read(
        &mut self,
        cx: &mut Context<'_>,
        scratch: &mut Vec<u8>,
    ) -> Poll<io::Result<usize>> {
        if scratch.len() < READ_BYTES {
            scratch.resize(READ_BYTES, 0);
        }
        if !self.rest.read_ahead.is_empty() {
            let length = self.rest.read_ahead.len().min(scratch.len());
            scratch[..length].copy_from_slice(&self.rest.read_ahead.split_to(length));
            return Poll::Ready(Ok(length));
        }
        let mut buffer = ReadBuf::new(scratch);
        Pin::new(&mut self.socket).poll_read(cx, &mut buffer).map_ok(|()| buffer.filled().len())
    }
}

impl<S: Socket> Link for WsLink<S> {
    fn describe(&self) -> &Describe {
        &self.rest.about
    }

    fn poll_recv(
        &mut self,
        cx: &mut Context<'_>,
        scratch: &mut Vec<u8>,
        inbound: &mut dyn FnMut(&[u8]),
    ) -> Poll<Result<(), LinkEnd>> {
        self.remember(cx.waker());
        let read = match self.poll_read(cx, scratch) {
            Poll::Ready(Ok(0)) => {
                return Poll::Ready(Err(match self.rest.state {
                    State::Broken(rule, _) => LinkEnd::Broken(rule),
                    State::Closed(code) => LinkEnd::Closed(code),
                    State::Open | State::Closing => LinkEnd::Closed(None),
                }));
            }
            Poll::Ready(Ok(length)) => {
                if matches!(self.rest.state, State::Open | State::Closing) {
                    self.take(&mut scratch[..length], inbound);
                }
                Poll::Ready(Ok(()))
            }
            Poll::Ready(Err(error)) => return Poll::Ready(Err(LinkEnd::Io(error))),
            Poll::Pending => Poll::Pending,
        };
        if matches!(self.rest.state, State::Closed(_) | State::Broken(..)) {
            if let Poll::Ready(end) = self.poll_end(cx) {
                return Poll::Ready(Err(end));
            }
        } else if let Poll::Ready(Err(error)) = self.poll_own(cx) {
            return Poll::Ready(Err(LinkEnd::Io(error)));
        }
        self.look_if_plain();
        read
    }

    fn send(&mut self, lane: Lane, frames: &[u8]) -> Result<usize, LinkEnd> {
        if self.plain {
            let sent = self.socket.try_send(&self.rest.waker, frames).map_err(LinkEnd::Io)?;
            return Ok(if sent == frames.len() { sent } else { self.cut(lane, frames, sent) });
        }
        let sent = self.send_between(lane, frames);
        self.look_if_plain();
        sent
    }

    fn poll_writable(&mut self, cx: &mut Context<'_>, _: Lane) -> Poll<Result<(), LinkEnd>> {
        self.remember(cx.waker());
        if self.rest.owed == 0 {
            match self.poll_own(cx) {
                Poll::Ready(Ok(())) => {}
                Poll::Ready(Err(error)) => return Poll::Ready(Err(LinkEnd::Io(error))),
                Poll::Pending => return Poll::Pending,
            }
        }
        self.look_if_plain();
        self.socket.poll_sendable(cx).map_err(LinkEnd::Io)
    }

    fn signed_in(&mut self) {
        self.rest.inbound.set_limit(limits::FRAME_BYTES_MAX);
    }

    fn close(&mut self, code: CloseCode, reason: &str) {
        if matches!(self.rest.state, State::Open) {
            write_close(Some(code.number()), reason, &mut self.rest.own);
            self.rest.state = State::Closing; // written by the next poll, which the kernel does now
            self.plain = false;
        }
    }
}

/// What is read at once.
const READ_BYTES: usize = 16 * 1024;
/// A client that broke a rule is given this long to read why, so that its own bytes under way do
/// not reset the connection before.
const LINGER: Duration = Duration::from_secs(2);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_idle_link_is_small_and_holds_no_buffer() {
        let sizes = (size_of::<WsLink<tokio::net::TcpStream>>(), size_of::<Rest>());
        assert!(
            sizes.0 <= 64 && sizes.1 <= 320,
            "{sizes:?}, {}",
            size_of::<tokio::net::TcpStream>()
        );
        assert!(size_of::<State>() <= 32);
    }
}
