//! What a frontend gives the kernel for each connection: a [`Link`].
//!
//! Nothing else about a transport crosses. A link lives on one shard's thread from its birth to
//! its end, so nothing in it needs a lock.

use std::{
    fmt, io,
    net::SocketAddr,
    task::{Context, Poll},
};

use chappe_protocol::{ChannelId, CloseCode, Encoding};

/// One client connection's framed pipe.
///
/// The kernel drives it from one task. All methods return at once.
pub trait Link {
    /// What the kernel may know of the connection.
    fn describe(&self) -> &Describe;

    /// Takes what has arrived and hands the payload of each complete message to `inbound`: one
    /// or more encoded frames, without the transport's own header.
    ///
    /// `scratch` is the shard's read buffer; the link keeps bytes of its own only while a message
    /// is incomplete. `Pending` once there is nothing more to read, with the waker registered;
    /// `Ready(Ok)` when it stopped for the sake of others and wants to be called again. A
    /// transport's own control traffic (a WebSocket ping, a QUIC acknowledgement) is answered
    /// inside and counts as a sign of life: then `inbound` is called with an empty payload.
    fn poll_recv(
        &mut self,
        cx: &mut Context<'_>,
        scratch: &mut Vec<u8>,
        inbound: &mut dyn FnMut(&[u8]),
    ) -> Poll<Result<(), LinkEnd>>;

    /// Sends finished frames (written by this link's [`Framing`]) on a lane and says how many
    /// bytes were taken. When it is fewer than all, the kernel sends the rest of the frame that
    /// was cut, before anything else on that lane, once [`Link::poll_writable`] is ready. Frames
    /// of which nothing was taken may come later in another form: an edit can reach them first.
    ///
    /// Signals are the exception: they are taken whole or dropped.
    fn send(&mut self, lane: Lane, frames: &[u8]) -> Result<usize, LinkEnd>;

    /// Ready when the lane may take more; registers the waker otherwise.
    fn poll_writable(&mut self, cx: &mut Context<'_>, lane: Lane) -> Poll<Result<(), LinkEnd>>;

    /// The session is signed in: from now on it may send frames of up to
    /// `limits::FRAME_BYTES_MAX`, before that only of `limits::FRAME_BYTES_MAX_BEFORE_HELLO`.
    ///
    /// A link that bounds frames elsewhere (HTTP's body limit) ignores it.
    fn signed_in(&mut self) {}

    /// Begins to close with a code. What was sent before is still delivered as far as the peer
    /// reads it. The link ends by [`Link::poll_recv`] giving an end, or by being dropped.
    fn close(&mut self, code: CloseCode, reason: &str);
}

/// What the kernel may know of a connection.
#[derive(Clone)]
pub struct Describe {
    /// `ws`, `wss`, `quic`, `sse`: a label of metrics and logs.
    pub transport: &'static str,
    /// The client's address, behind trusted proxies the one that they tell.
    pub peer: SocketAddr,
    /// How its frames are encoded.
    pub encoding: Encoding,
    /// How they are framed.
    pub framing: Framing,
    /// How many lanes its channels are spread over (1: all share one with control).
    pub channel_lanes: u8,
    /// A token that came with the handshake (`Authorization`): the session is signed in without
    /// a `hello` of its own. One with an empty token is still answered, so that the client learns
    /// who it is and may resume.
    pub token: Option<String>,
}

impl fmt::Debug for Describe {
    /// Without the token, which belongs into no log.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { transport, peer, encoding, framing, channel_lanes, token: _ } = self;
        f.debug_struct("Describe")
            .field("transport", transport)
            .field("peer", peer)
            .field("encoding", encoding)
            .field("framing", framing)
            .field("channel_lanes", channel_lanes)
            .finish_non_exhaustive()
    }
}

impl Describe {
    /// The lane of a channel.
    pub fn lane(&self, channel: ChannelId) -> Lane {
        if self.channel_lanes <= 1 {
            return Lane::Control;
        }
        let lane = channel.partition(u32::from(self.channel_lanes));
        Lane::Channel(lane.0 as u8)
    }
}

/// A sequence of frames on a link; loss or a full buffer in one does not hold up another, where
/// the transport can do that.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Lane {
    /// Replies, pings, everything that is not a channel's.
    Control,
    /// The events of the channels that hash to this number.
    Channel(u8),
    /// Typing and other signals: taken whole or dropped.
    Signals,
}

/// How a frame's header is written, once per frame for all who receive it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Framing {
    /// A WebSocket text or binary message from the server: unmasked, so the same for everyone.
    WebSocketText,
    /// See [`Framing::WebSocketText`].
    WebSocketBinary,
    /// The payload's length as a u32, little-endian, before it.
    LengthPrefixed,
}

impl Framing {
    /// Appends header and payload to `out`.
    pub fn write(self, payload: &[u8], out: &mut Vec<u8>) {
        let opcode = match self {
            Self::WebSocketText => 0x81,
            Self::WebSocketBinary => 0x82,
            Self::LengthPrefixed => {
                out.extend_from_slice(&(payload.len() as u32).to_le_bytes());
                out.extend_from_slice(payload);
                return;
            }
        };
        out.push(opcode);
        match payload.len() {
            length @ 0..=125 => out.push(length as u8),
            length @ 126..=0xffff => {
                out.push(126);
                out.extend_from_slice(&(length as u16).to_be_bytes());
            }
            length => {
                out.push(127);
                out.extend_from_slice(&(length as u64).to_be_bytes());
            }
        }
        out.extend_from_slice(payload);
    }
}

/// Why a link ended.
#[derive(Debug)]
pub enum LinkEnd {
    /// The peer closed it, with this code if it gave one.
    Closed(Option<u16>),
    /// The peer broke the transport's rules; the link has answered as the transport says.
    Broken(&'static str),
    /// The socket failed.
    Io(io::Error),
}
