//! One QUIC connection as a [`Link`].
//!
//! The client's first bidirectional stream is control, both ways. Events go on streams that the
//! server opens, so that loss or a slow reader in one does not hold up another; signals go as
//! datagrams. The connection itself is driven by quinn's task on the endpoint's runtime; here its
//! streams are polled, from the shard's thread.

use std::{
    future::Future,
    io,
    pin::Pin,
    task::{Context, Poll, Waker},
    time::Duration,
};

use bytes::Bytes;
use chappe_gateway::link::{Describe, Framing, Lane, Link, LinkEnd};
use chappe_protocol::{
    CloseCode, Command, Encoding, ErrorCode, ServerFrame, WireError, frame::Closing,
};
use quinn::{Connection, ConnectionError, ReadError, RecvStream, SendStream, VarInt, WriteError};

use crate::{
    close::{close_after, closed},
    inbox::Inbox,
    lane::Outgoing,
    meter,
};

/// How many lanes the events of a connection are spread over.
pub(crate) const LANES: u8 = 8;

pub(crate) struct QuicLink {
    connection: Connection,
    describe: Describe,
    control: Control,
    inbox: Inbox,
    lanes: [Outgoing; LANES as usize],
    datagram: Option<Boxed<Result<Bytes, ConnectionError>>>,
    /// The last frame on the control stream was not taken whole: nothing may come between.
    control_cut: bool,
    linger: Duration,
    /// Set once the connection is being closed: what is waited for then.
    closed: Option<Boxed<ConnectionError>>,
}

pub(crate) type Boxed<T> = Pin<Box<dyn Future<Output = T> + Send>>;

enum Control {
    /// The client has not opened it yet.
    Awaited(Boxed<Result<(SendStream, RecvStream), ConnectionError>>),
    Open(SendStream, RecvStream),
    /// It was given up to be ended.
    Ended,
}

/// What a client did that the transport does not allow.
struct Breach {
    code: ErrorCode,
    what: &'static str,
}

/// Why reading stopped.
enum Stop {
    Breach(Breach),
    End(LinkEnd),
}

impl QuicLink {
    pub(crate) fn new(connection: Connection, linger: Duration) -> Self {
        let describe = Describe {
            transport: "quic",
            peer: connection.remote_address(),
            encoding: Encoding::MessagePack,
            framing: Framing::LengthPrefixed,
            channel_lanes: LANES,
            token: None,
        };
        let accepting = connection.clone();
        meter::connections().increment(1.0);
        Self {
            control: Control::Awaited(Box::pin(async move { accepting.accept_bi().await })),
            datagram: None,
            connection,
            describe,
            inbox: Inbox::new(),
            lanes: Default::default(),
            control_cut: false,
            linger,
            closed: None,
        }
    }

    /// Reads from the control stream once: the kernel asks before each read whether its session
    /// takes more.
    fn poll_control(
        &mut self,
        cx: &mut Context<'_>,
        scratch: &mut Vec<u8>,
        inbound: &mut dyn FnMut(&[u8]),
    ) -> Poll<Result<(), Stop>> {
        if let Control::Awaited(opening) = &mut self.control {
            match opening.as_mut().poll(cx) {
                Poll::Ready(Ok((send, recv))) => {
                    // Replies and pings go before events.
                    drop(send.set_priority(1));
                    self.control = Control::Open(send, recv);
                }
                Poll::Ready(Err(error)) => return Poll::Ready(Err(lost(&error).into())),
                Poll::Pending => return Poll::Pending,
            }
        }
        let Control::Open(_, recv) = &mut self.control else { return Poll::Pending };
        if scratch.len() < READ_BYTES {
            scratch.resize(READ_BYTES, 0);
        }
        match recv.poll_read(cx, scratch) {
            Poll::Ready(Ok(0)) if self.inbox.is_inside_frame() => {
                Poll::Ready(Err(breach(ErrorCode::Malformed, "a frame cut short")))
            }
            Poll::Ready(Ok(0)) => {
                self.close(CloseCode::Normal, CloseCode::Normal.name());
                Poll::Ready(Err(LinkEnd::Closed(Some(CloseCode::Normal.number())).into()))
            }
            Poll::Ready(Ok(length)) => {
                let bytes = &scratch[..length];
                let handled = self.inbox.handle(bytes, inbound);
                Poll::Ready(handled.map_err(|code| breach(code, "a frame's length")))
            }
            Poll::Ready(Err(ReadError::ConnectionLost(error))) => {
                Poll::Ready(Err(lost(&error).into()))
            }
            Poll::Ready(Err(_)) => {
                Poll::Ready(Err(breach(ErrorCode::Malformed, "a reset control stream")))
            }
            Poll::Pending => Poll::Pending,
        }
    }

    /// Reads the datagrams that came, within their fair share.
    fn poll_datagrams(
        &mut self,
        cx: &mut Context<'_>,
        inbound: &mut dyn FnMut(&[u8]),
    ) -> Poll<Result<(), Stop>> {
        for _ in 0..DATAGRAMS_AT_ONCE {
            let connection = &self.connection;
            let datagram = self.datagram.get_or_insert_with(|| {
                let connection = connection.clone();
                Box::pin(async move { connection.read_datagram().await })
            });
            match datagram.as_mut().poll(cx) {
                Poll::Ready(Ok(payload)) => {
                    self.datagram = None;
                    meter::datagram_received();
                    check_datagram(&payload)?;
                    inbound(&payload);
                }
                Poll::Ready(Err(error)) => return Poll::Ready(Err(lost(&error).into())),
                Poll::Pending => return Poll::Pending,
            }
        }
        Poll::Ready(Ok(()))
    }

    /// Tells the client what it did, and closes.
    fn answer(&mut self, Breach { code, what }: Breach) -> LinkEnd {
        meter::broken(what);
        let close = code.closes().unwrap_or(CloseCode::ProtocolError);
        if !self.control_cut {
            let error = WireError::with_message(code, what);
            let closing = Closing::new(close);
            let mut told = Vec::new();
            for frame in [ServerFrame::Error { id: None, error }, ServerFrame::Closing { closing }]
            {
                let mut payload = Vec::new();
                self.describe.encoding.encode(&frame, &mut payload);
                self.describe.framing.write(&payload, &mut told);
            }
            // What a client that does not read misses is the close code's explanation.
            drop(self.send(Lane::Control, &told));
        }
        self.close(close, what);
        LinkEnd::Broken(what)
    }

    fn poll_write(
        &mut self,
        cx: &mut Context<'_>,
        lane: Lane,
        bytes: &[u8],
    ) -> Poll<Result<usize, WriteError>> {
        match lane {
            Lane::Control => match &mut self.control {
                Control::Open(send, _) => Pin::new(send).poll_write(cx, bytes),
                // The task that polls is woken when the stream is there: it reads from it too.
                Control::Awaited(_) | Control::Ended => Poll::Pending,
            },
            Lane::Channel(number) => {
                self.lanes[usize::from(number)].poll_write(cx, &self.connection, number, bytes)
            }
            Lane::Signals => Poll::Ready(Ok(bytes.len())),
        }
    }

    /// Ends a connection that cannot be written to.
    fn give_up(&mut self, error: &WriteError) -> LinkEnd {
        match error {
            WriteError::ConnectionLost(error) => lost(error),
            WriteError::Stopped(_) => {
                let what = "a stopped stream";
                meter::broken(what);
                self.close(CloseCode::ProtocolError, what);
                LinkEnd::Broken(what)
            }
            WriteError::ClosedStream | WriteError::ZeroRttRejected => LinkEnd::Closed(None),
        }
    }

    /// Sends each of some frames as a datagram of its own, without its length.
    fn send_datagrams(&self, mut frames: &[u8]) {
        while let Some((header, rest)) = frames.split_first_chunk() {
            let length = u32::from_le_bytes(*header) as usize;
            let Some((frame, rest)) = rest.split_at_checked(length) else { break };
            match self.connection.send_datagram(Bytes::copy_from_slice(frame)) {
                Ok(()) => meter::datagram_sent(),
                Err(_) => meter::datagram_dropped(),
            }
            frames = rest;
        }
    }
}

impl Link for QuicLink {
    fn describe(&self) -> &Describe {
        &self.describe
    }

    fn poll_recv(
        &mut self,
        cx: &mut Context<'_>,
        scratch: &mut Vec<u8>,
        inbound: &mut dyn FnMut(&[u8]),
    ) -> Poll<Result<(), LinkEnd>> {
        if let Some(closed) = &mut self.closed {
            return closed.as_mut().poll(cx).map(|error| Err(lost(&error)));
        }
        let control = self.poll_control(cx, scratch, inbound);
        let datagrams = match control {
            Poll::Ready(Err(_)) => Poll::Pending,
            _ => self.poll_datagrams(cx, inbound),
        };
        match (control, datagrams) {
            (Poll::Ready(Err(stop)), _) | (_, Poll::Ready(Err(stop))) => {
                Poll::Ready(Err(match stop {
                    Stop::Breach(breach) => self.answer(breach),
                    Stop::End(end) => end,
                }))
            }
            (Poll::Pending, Poll::Pending) => Poll::Pending,
            (Poll::Ready(Ok(())), _) | (_, Poll::Ready(Ok(()))) => Poll::Ready(Ok(())),
        }
    }

    fn send(&mut self, lane: Lane, frames: &[u8]) -> Result<usize, LinkEnd> {
        if lane == Lane::Signals {
            self.send_datagrams(frames);
            return Ok(frames.len());
        }
        // Who is to be woken is said by `poll_writable`, which the kernel calls next.
        let mut cx = Context::from_waker(Waker::noop());
        let mut taken = 0;
        while taken < frames.len() {
            match self.poll_write(&mut cx, lane, &frames[taken..]) {
                Poll::Ready(Ok(written)) => taken += written,
                Poll::Ready(Err(error)) => return Err(self.give_up(&error)),
                Poll::Pending => break,
            }
        }
        if lane == Lane::Control {
            self.control_cut = taken < frames.len();
        }
        Ok(taken)
    }

    fn poll_writable(&mut self, cx: &mut Context<'_>, lane: Lane) -> Poll<Result<(), LinkEnd>> {
        // An empty write is blocked by what would block a full one.
        self.poll_write(cx, lane, &[])
            .map(|written| written.map(drop).map_err(|error| self.give_up(&error)))
    }

    fn signed_in(&mut self) {
        self.inbox.signed_in();
    }

    fn close(&mut self, code: CloseCode, reason: &str) {
        if self.closed.is_some() {
            return;
        }
        self.closed = Some(closed(&self.connection));
        let control = match std::mem::replace(&mut self.control, Control::Ended) {
            Control::Open(send, recv) => Some((send, recv)),
            Control::Awaited(_) | Control::Ended => None,
        };
        let lanes = self.lanes.iter_mut().filter_map(Outgoing::take).collect();
        let connection = self.connection.clone();
        tokio::spawn(close_after(connection, control, lanes, self.linger, code, reason.to_owned()));
    }
}

impl Drop for QuicLink {
    fn drop(&mut self) {
        meter::connections().decrement(1.0);
    }
}

/// A datagram is one frame that may be lost: anything else does not belong there, because its
/// client would wait for an answer, or take the order of commands for granted.
fn check_datagram(payload: &[u8]) -> Result<(), Stop> {
    let (frame, rest) = Encoding::MessagePack
        .split_frame(payload)
        .map_err(|error| breach(error.code, "a datagram that is no frame"))?;
    if !rest.is_empty() {
        return Err(breach(ErrorCode::Malformed, "a datagram of several frames"));
    }
    match Encoding::MessagePack.decode_client(frame) {
        Ok(frame) if !matches!(frame.command, Command::Typing(_) | Command::Signal(_)) => {
            Err(breach(ErrorCode::Malformed, "a datagram that is no signal"))
        }
        // What is wrong inside a frame has an answer of its own.
        Ok(_) | Err(_) => Ok(()),
    }
}

fn breach(code: ErrorCode, what: &'static str) -> Stop {
    Stop::Breach(Breach { code, what })
}

impl From<LinkEnd> for Stop {
    fn from(end: LinkEnd) -> Self {
        Self::End(end)
    }
}

fn lost(error: &ConnectionError) -> LinkEnd {
    match error {
        ConnectionError::ApplicationClosed(close) => {
            LinkEnd::Closed(u16::try_from(VarInt::into_inner(close.error_code)).ok())
        }
        ConnectionError::ConnectionClosed(_) | ConnectionError::LocallyClosed => {
            LinkEnd::Closed(None)
        }
        ConnectionError::TimedOut => LinkEnd::Io(io::ErrorKind::TimedOut.into()),
        ConnectionError::Reset => LinkEnd::Io(io::ErrorKind::ConnectionReset.into()),
        ConnectionError::TransportError(_) => LinkEnd::Broken("the transport's rules"),
        ConnectionError::VersionMismatch | ConnectionError::CidsExhausted => {
            LinkEnd::Io(io::ErrorKind::ConnectionAborted.into())
        }
    }
}

/// How much the shard's buffer takes of a stream at once.
const READ_BYTES: usize = 16 * 1024;
/// Datagrams of one connection before others have their turn.
const DATAGRAMS_AT_ONCE: usize = 16;
