//! What a gateway hears from a leader.

use std::sync::Arc;

use chappe_protocol::{
    ChannelId, Data, ErrorCode, Event, Incarnation, PartitionId, Rev, UserId, reply,
};
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

/// Orders leaderships of a partition: a gateway refuses what comes from an older one than it has
/// seen.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Generation {
    /// The log's incarnation.
    pub incarnation: Incarnation,
    /// The offset of the leader's claim.
    pub epoch: u64,
}

/// Something from a leader.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub enum Response {
    /// The answer to the request with this token.
    Answer {
        /// The request's.
        token: u64,
        /// Whose answer it is.
        generation: Generation,
        /// What it is.
        result: Result<Box<Answer>, Refusal>,
    },
    /// A revision of an attached channel, in order and without a gap after the attach's head.
    Event {
        /// Whose event it is.
        generation: Generation,
        /// What happened. Shared by all pipes that hear it.
        event: Arc<Event>,
    },
    /// Something ephemeral in an attached channel.
    Signal(SignalTo),
    /// The heads of attached channels: a lost last event is noticed too. At least every 2 s.
    Heads(Heads),
    /// What is led behind the pipe. Told when a pipe opens and whenever it changes.
    Leading(Leading),
}

/// The partitions that are led behind a pipe; those left out are not, for now.
///
/// To a partition that is new in it, or led by a newer leadership, nothing is attached yet; of one
/// that has gone nothing is attached any more.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Leading {
    /// How many partitions the log has.
    pub partitions: u32,
    /// Who leads which.
    pub leads: Vec<(PartitionId, Generation)>,
}

/// The answer to a request that was carried out.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub enum Answer {
    /// To a command.
    Change(reply::Change),
    /// To a signal.
    Done,
    /// To an attach.
    Attached(Attached),
    /// To [`crate::ReadQuery::Resolve`].
    Resolved(Resolved),
    /// To [`crate::ReadQuery::Channel`].
    Channel(reply::ChannelReply),
    /// To [`crate::ReadQuery::Members`].
    Members(reply::MembersReply),
    /// To [`crate::ReadQuery::Messages`].
    Messages(reply::HistoryReply),
    /// To [`crate::ReadQuery::Events`].
    Events(EventsPage),
    /// To [`crate::ReadQuery::MyChannels`].
    MyChannels(reply::ChannelsReply),
}

/// The channel that a name belongs to.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Resolved {
    /// Its id.
    pub channel: ChannelId,
}

/// The pipe hears the channel, and the reader may read it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Attached {
    /// The channel's last revision. Events after it follow on the pipe.
    pub head: Rev,
    /// Where the reader starts.
    pub start: Start,
}

/// Where a reader starts in a channel.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Start {
    /// With the events after this revision: his cursor, or the head if he brought none.
    After(Rev),
    /// His cursor cannot be continued: `reset`, then the events after this revision.
    Reset(Rev),
}

/// A page of events for catching up, each with its message as it is now.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct EventsPage {
    /// The events, without a gap after the revision that was asked.
    pub events: Vec<Arc<Event>>,
    /// The channel's last revision.
    pub head: Rev,
    /// The events after the one asked are no longer kept: the reader is reset to this revision.
    pub reset: Option<Rev>,
}

/// The heads of attached channels.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Heads {
    /// Each with its last revision.
    pub heads: Vec<(ChannelId, Rev)>,
}

/// Something ephemeral on its way to a channel's subscribers.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SignalTo {
    /// The channel.
    pub channel: ChannelId,
    /// Who sent it.
    pub by: UserId,
    /// The application's value; none for typing.
    pub data: Option<Data>,
}

/// A request that was not carried out.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Refusal {
    /// Why.
    #[serde(serialize_with = "write_code", deserialize_with = "read_code")]
    pub code: ErrorCode,
    /// More than the code says, for people.
    pub message: Option<String>,
    /// How long to wait before a retry, in milliseconds.
    pub retry_after_ms: Option<u64>,
    /// The gateway resends it by itself, with a higher attempt and the commands after it: the
    /// leader moved, is suspended, or refused it for its order.
    pub resend: bool,
}

impl Refusal {
    /// A refusal that the client hears of.
    pub const fn new(code: ErrorCode) -> Self {
        Self { code, message: None, retry_after_ms: None, resend: false }
    }

    /// The same with the time to wait.
    #[must_use]
    pub const fn retry_after(mut self, wait_ms: u64) -> Self {
        self.retry_after_ms = Some(wait_ms);
        self
    }

    /// The same with a message that says more than the code's.
    #[must_use]
    pub fn because(mut self, message: impl Into<String>) -> Self {
        self.message = Some(message.into());
        self
    }

    /// A refusal that the gateway answers by resending.
    pub const fn resend() -> Self {
        Self { code: ErrorCode::Unavailable, message: None, retry_after_ms: None, resend: true }
    }
}

fn write_code<S: Serializer>(code: &ErrorCode, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_u16(code.number())
}

fn read_code<'de, D: Deserializer<'de>>(deserializer: D) -> Result<ErrorCode, D::Error> {
    let number = u16::deserialize(deserializer)?;
    ErrorCode::from_number(number).ok_or_else(|| de::Error::custom("an unknown error code"))
}
