//! What a session tells its owner.

use chappe_protocol::{
    ChannelId, Event, Incarnation, Rev, SessionId, UserId, WireError,
    event::EventPlace,
    frame::{Live, Reset, Signalled},
    reply::Subscribed,
};

use crate::error::Error;

/// News of a session. For each channel, events come in the order of their revisions without a
/// gap; a [`Update::Reset`] is the only jump.
#[derive(Debug, Clone, PartialEq)]
pub enum Update {
    /// Signed in, for the first time or again.
    Connected(Connected),
    /// The client has ended for this reason; nothing follows. ([`crate::Session::next`] says it
    /// in its own way.)
    Closed(Error),
    /// The connection is lost; the session connects again by itself.
    Disconnected(Error),
    /// A channel's events follow from here.
    Subscribed(Subscribed),
    /// A channel's next revision.
    Event(Box<Event>),
    /// A channel's next revision, of a kind that this version lacks.
    Unknown(EventPlace),
    /// A channel's catch-up is complete.
    Live(Live),
    /// A channel could not be continued: forget its state, read it anew and go on from `base`.
    Reset(Reset),
    /// Something ephemeral.
    Signal(Signalled),
    /// A channel's subscription was refused or taken away.
    Ended {
        /// The channel.
        channel: ChannelId,
        /// Why.
        error: WireError,
    },
    /// The server's stream was not what it promises; the session mends it by itself.
    Anomaly(Anomaly),
}

/// Who the session is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Connected {
    /// The user.
    pub user: UserId,
    /// The session's id on this connection.
    pub session: SessionId,
    /// The log's incarnation.
    pub incarnation: Incarnation,
    /// How many connections the session made, this one included.
    pub connections: u32,
}

/// A break of the server's promise, noticed and mended. For those who test a server.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Anomaly {
    /// An event came before its predecessors. It was dropped and the channel asked for again.
    Gap {
        /// The channel.
        channel: ChannelId,
        /// The last revision held.
        held: Rev,
        /// The one that came.
        found: Rev,
    },
    /// An event came again. It was dropped.
    Repeated {
        /// The channel.
        channel: ChannelId,
        /// The last revision held.
        held: Rev,
        /// The one that came.
        found: Rev,
    },
    /// The server's head is ahead and nothing came. The channel was asked for again.
    Behind {
        /// The channel.
        channel: ChannelId,
        /// The last revision held.
        held: Rev,
        /// The server's head.
        head: Rev,
    },
}

impl Anomaly {
    /// The channel that it is about.
    pub const fn channel(&self) -> ChannelId {
        match self {
            Self::Gap { channel, .. }
            | Self::Repeated { channel, .. }
            | Self::Behind { channel, .. } => *channel,
        }
    }
}
