//! The frames: what a client sends and what a server sends.

use std::fmt;

use serde::{Deserialize, Deserializer, Serialize, Serializer, de, ser::SerializeMap};

use crate::{
    code::{CloseCode, ErrorCode},
    command::{self, Command},
    event::{AnyEvent, Event, EventPlace},
    id::{ChannelId, Incarnation, Rev, UserId},
    reply::Reply,
    rule,
    rule::InvalidValue,
    value::{Data, Nonce},
};

/// One command of a client: `{"id": 7, "publish": {…}}`.
///
/// `nonce` and `age_ms` stand beside the command, because they say how it was sent and not what
/// it asks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClientFrame {
    /// Echoed in the reply; the client chooses it.
    pub id: u32,
    /// Names the command, so that a retry gets the first result.
    pub nonce: Option<Nonce>,
    /// How long ago the first attempt was sent, in milliseconds; 0 at the first.
    pub age_ms: u64,
    /// What is asked.
    pub command: Command,
}

/// One frame of a server, its only key naming it, but for replies, where `id` comes first.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(untagged)]
pub enum ServerFrame<'a> {
    /// A command succeeded.
    Ok {
        /// The command's.
        id: u32,
        /// Its result.
        ok: &'a Reply,
    },
    /// A command was refused.
    Error {
        /// The command's; absent when the frame was so broken that it had none.
        #[serde(skip_serializing_if = "Option::is_none")]
        id: Option<u32>,
        /// Why.
        error: WireError,
    },
    /// A revision of a channel.
    Event {
        /// What happened.
        event: &'a Event,
    },
    /// A channel's catch-up is complete.
    Live {
        /// Which.
        live: Live,
    },
    /// A channel cannot be continued from the client's cursor.
    Reset {
        /// Which, and where it goes on.
        reset: Reset,
    },
    /// Something ephemeral.
    Signal {
        /// What.
        signal: Signalled,
    },
    /// Are you there?
    Ping {
        /// With the heads of the client's channels.
        ping: ServerPing,
    },
    /// The server is about to close the connection.
    Closing {
        /// Why, and what to do.
        closing: Closing,
    },
}

/// An error on the wire.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct WireError {
    /// The number: its thousands tell what to do.
    pub code: u16,
    /// The name.
    pub name: String,
    /// What is wrong, for people. Never repeats the input.
    pub message: String,
    /// How long to wait before a retry, in milliseconds. Every code of the range 1xxx has it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub retry_after_ms: Option<u64>,
}

impl From<InvalidValue> for WireError {
    fn from(invalid: InvalidValue) -> Self {
        Self::with_message(invalid.code, invalid.rule)
    }
}

impl WireError {
    /// An error with the code's own message, and the wait that goes with it.
    pub fn new(code: ErrorCode) -> Self {
        Self::with_message(code, code.message())
    }

    /// An error with a message that says more than the code's.
    pub fn with_message(code: ErrorCode, message: impl Into<String>) -> Self {
        Self {
            code: code.number(),
            name: code.name().to_owned(),
            message: message.into(),
            retry_after_ms: code.retry_after_ms(),
        }
    }

    /// The same error with another time to wait.
    #[must_use]
    pub fn retry_after(mut self, wait_ms: u64) -> Self {
        self.retry_after_ms = Some(wait_ms);
        self
    }
}

/// A channel's catch-up is complete: every event up to `rev` was sent, later ones are live.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Live {
    /// The channel.
    pub channel: ChannelId,
    /// Its head when the catch-up ended.
    pub rev: Rev,
}

/// The events after the client's cursor are not to be had: forget the channel, read its state
/// and go on from `base`. Events after `base` follow.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Reset {
    /// The channel.
    pub channel: ChannelId,
    /// Events after this revision follow.
    pub base: Rev,
    /// The present incarnation.
    pub incarnation: Incarnation,
}

/// A channel's ephemeral signal: `typing`, or the application's `data`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Signalled {
    /// The channel.
    pub channel: ChannelId,
    /// Who.
    pub by: UserId,
    /// The value; absent for typing.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub data: Option<Data>,
}

/// The server's heartbeat. The heads let a client notice that the last event of a quiet channel
/// did not arrive.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ServerPing {
    /// The server's time, in milliseconds since 1970 UTC.
    pub at: u64,
    /// Heads of subscribed channels.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub heads: Vec<(ChannelId, Rev)>,
}

/// The last frame of a connection that the server closes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Closing {
    /// The close code.
    pub code: u16,
    /// Its name.
    pub name: String,
    /// Why, for people.
    pub message: String,
    /// Connect again after this time, in milliseconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reconnect_after_ms: Option<u64>,
}

impl Closing {
    /// The frame for `code`.
    pub fn new(code: CloseCode) -> Self {
        Self {
            code: code.number(),
            name: code.name().to_owned(),
            message: code.message().to_owned(),
            reconnect_after_ms: None,
        }
    }
}

/// A server's frame as a client reads it. The body of an `ok` is read in a second step
/// ([`OkFrame`]) by who knows which command it answers.
#[derive(Debug, Clone, PartialEq)]
pub enum Incoming {
    /// A command succeeded.
    Ok {
        /// The command's.
        id: u32,
    },
    /// A command was refused.
    Error {
        /// The command's.
        id: Option<u32>,
        /// Why.
        error: WireError,
    },
    /// A revision of a channel.
    Event(Box<Event>),
    /// A revision of a kind that this version lacks: take its revision and go on.
    UnknownEvent(EventPlace),
    /// A catch-up is complete.
    Live(Live),
    /// A cursor cannot be continued.
    Reset(Reset),
    /// Something ephemeral.
    Signal(Signalled),
    /// Are you there?
    Ping(ServerPing),
    /// The server is about to close the connection.
    Closing(Closing),
    /// A frame of a later version.
    Unknown,
}

/// The second reading of an `ok`: its body as the type that the command is answered with.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct OkFrame<T> {
    /// The command's id.
    pub id: u32,
    /// The body.
    pub ok: T,
}

impl Serialize for ClientFrame {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let optional = usize::from(self.nonce.is_some()) + usize::from(self.age_ms > 0);
        let mut map = serializer.serialize_map(Some(2 + optional))?;
        map.serialize_entry("id", &self.id)?;
        if let Some(nonce) = &self.nonce {
            map.serialize_entry("nonce", nonce)?;
        }
        if self.age_ms > 0 {
            map.serialize_entry("age_ms", &self.age_ms)?;
        }
        self.command.write_body(&mut map)?;
        map.end()
    }
}

impl<'de> Deserialize<'de> for ClientFrame {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_struct("ClientFrame", command::FRAME_KEYS, ClientFrameVisitor)
    }
}

/// A key of a client's frame.
enum ClientKey {
    Id,
    Nonce,
    AgeMs,
    Command(command::Name),
    Other,
}

impl<'de> Deserialize<'de> for ClientKey {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_identifier(ClientKeyVisitor)
    }
}

struct ClientKeyVisitor;

impl de::Visitor<'_> for ClientKeyVisitor {
    type Value = ClientKey;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a key")
    }

    fn visit_str<E: de::Error>(self, key: &str) -> Result<ClientKey, E> {
        Ok(match key {
            "id" => ClientKey::Id,
            "nonce" => ClientKey::Nonce,
            "age_ms" => ClientKey::AgeMs,
            name => command::Name::parse(name).map_or(ClientKey::Other, ClientKey::Command),
        })
    }
}

struct ClientFrameVisitor;

impl<'de> de::Visitor<'de> for ClientFrameVisitor {
    type Value = ClientFrame;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a client frame")
    }

    fn visit_map<A: de::MapAccess<'de>>(self, mut map: A) -> Result<ClientFrame, A::Error> {
        let (mut id, mut nonce, mut age_ms, mut command) = (None, None, None::<u64>, None);
        while let Some(key) = map.next_key()? {
            match key {
                ClientKey::Id => id = Some(map.next_value()?),
                ClientKey::Nonce => nonce = map.next_value()?,
                ClientKey::AgeMs => age_ms = map.next_value()?,
                ClientKey::Command(_) if command.is_some() => {
                    return Err(de::Error::custom(rule::TWO_COMMANDS));
                }
                ClientKey::Command(name) => command = Some(name.read_body(&mut map)?),
                ClientKey::Other => drop(map.next_value::<de::IgnoredAny>()?),
            }
        }
        let command = command.ok_or_else(|| de::Error::custom(rule::NO_COMMAND))?;
        let id = match (id, &command) {
            (Some(id), _) => id,
            (None, Command::Pong(_)) => 0, // it has no reply
            (None, _) => return Err(de::Error::custom(rule::NO_ID)),
        };
        Ok(ClientFrame { id, nonce, age_ms: age_ms.unwrap_or(0), command })
    }
}

impl<'de> Deserialize<'de> for Incoming {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_map(IncomingVisitor)
    }
}

/// A key of a server's frame.
#[derive(Deserialize)]
#[serde(field_identifier, rename_all = "snake_case")]
enum ServerKey {
    Id,
    Ok,
    Error,
    Event,
    Live,
    Reset,
    Signal,
    Ping,
    Closing,
    #[serde(other)]
    Other,
}

struct IncomingVisitor;

impl<'de> de::Visitor<'de> for IncomingVisitor {
    type Value = Incoming;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a server frame")
    }

    fn visit_map<A: de::MapAccess<'de>>(self, mut map: A) -> Result<Incoming, A::Error> {
        let (mut id, mut error, mut frame) = (None, None, None);
        let mut succeeded = false;
        while let Some(key) = map.next_key()? {
            match key {
                ServerKey::Id => id = Some(map.next_value()?),
                ServerKey::Error => error = Some(map.next_value()?),
                ServerKey::Ok => {
                    map.next_value::<de::IgnoredAny>()?;
                    succeeded = true;
                }
                ServerKey::Event => {
                    frame = Some(match map.next_value()? {
                        AnyEvent::Known(event) => Incoming::Event(event),
                        AnyEvent::Unknown(place) => Incoming::UnknownEvent(place),
                    });
                }
                ServerKey::Live => frame = Some(Incoming::Live(map.next_value()?)),
                ServerKey::Reset => frame = Some(Incoming::Reset(map.next_value()?)),
                ServerKey::Signal => frame = Some(Incoming::Signal(map.next_value()?)),
                ServerKey::Ping => frame = Some(Incoming::Ping(map.next_value()?)),
                ServerKey::Closing => frame = Some(Incoming::Closing(map.next_value()?)),
                ServerKey::Other => drop(map.next_value::<de::IgnoredAny>()?),
            }
        }
        Ok(match (error, id, succeeded) {
            (Some(error), id, _) => Incoming::Error { id, error },
            (None, Some(id), true) => Incoming::Ok { id },
            _ => frame.unwrap_or(Incoming::Unknown),
        })
    }
}
