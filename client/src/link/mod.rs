//! One connection's framed pipe, whatever the transport: messages of one or more frames in,
//! frames out.

mod quic;
mod ws;

use std::task::{Context, Poll};

use bytes::Bytes;
use chappe_protocol::{CloseCode, Encoding};

pub(crate) use self::{quic::QuicLink, ws::WsLink};
use crate::error::Closed;

/// Largest message that a server may send. A frame of a client is far smaller; a page of history
/// with full messages is not.
pub(crate) const MESSAGE_BYTES_MAX: usize = 8 * 1024 * 1024;
/// How much may wait to be written before [`Link::poll_ready`] holds its owner back.
pub(crate) const OUTBOUND_BYTES_MAX: usize = 256 * 1024;

/// The transports, one behaviour.
pub(crate) enum Link {
    Ws(Box<WsLink>),
    Quic(Box<QuicLink>),
}

impl Link {
    pub(crate) fn encoding(&self) -> Encoding {
        match self {
            Self::Ws(link) => link.encoding(),
            Self::Quic(_) => Encoding::MessagePack,
        }
    }

    /// Ready when [`Link::start_send`] may be called.
    pub(crate) fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Closed>> {
        match self {
            Self::Ws(link) => link.poll_ready(cx),
            Self::Quic(link) => link.poll_ready(cx),
        }
    }

    /// Takes one encoded frame; it leaves with the next flush at the latest.
    pub(crate) fn start_send(&mut self, frame: Vec<u8>) -> Result<(), Closed> {
        match self {
            Self::Ws(link) => link.start_send(frame),
            Self::Quic(link) => link.start_send(&frame),
        }
    }

    /// Ready when nothing waits to be written.
    pub(crate) fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Closed>> {
        match self {
            Self::Ws(link) => link.poll_flush(cx),
            Self::Quic(link) => link.poll_flush(cx),
        }
    }

    /// The next message, which holds one or more frames.
    pub(crate) fn poll_recv(&mut self, cx: &mut Context<'_>) -> Poll<Result<Bytes, Closed>> {
        match self {
            Self::Ws(link) => link.poll_recv(cx),
            Self::Quic(link) => link.poll_recv(cx),
        }
    }

    /// From now on, what the server sends outside the control stream is read too. Before that, an
    /// event of a resumed channel could overtake the reply to `hello`.
    pub(crate) fn open_lanes(&mut self) {
        if let Self::Quic(link) = self {
            link.open_lanes();
        }
    }

    /// Begins to close; ready when the peer knows or the link is gone.
    pub(crate) fn poll_close(&mut self, cx: &mut Context<'_>, code: CloseCode) -> Poll<()> {
        match self {
            Self::Ws(link) => link.poll_close(cx, code),
            Self::Quic(link) => link.poll_close(cx, code),
        }
    }
}
