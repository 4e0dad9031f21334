//! What subscribers hear: one event for each revision of a channel.

use std::fmt;

use serde::{
    Deserialize, Deserializer, Serialize, Serializer,
    de::{self, MapAccess},
    ser::SerializeMap,
};

use crate::{
    id::{ChannelId, Incarnation, Rev, Seq, SessionId, UserId},
    message::{Channel, Member, Message, Role},
    rule,
    value::{Emoji, Nonce},
};

/// One revision of a channel. A channel's revisions have no gap, so a client that holds `rev`
/// knows that it holds everything up to it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Event {
    /// The channel, or the user's own inbox.
    pub channel: ChannelId,
    /// The revision.
    pub rev: Rev,
    /// Who caused it.
    pub by: UserId,
    /// When, in milliseconds since 1970 UTC, for display: order is `rev`'s alone.
    pub at: u64,
    /// The nonce of the command that caused it, so that its author recognises it.
    pub nonce: Option<Nonce>,
    /// What happened: `kind` and its `body`.
    pub body: EventBody,
}

/// Declares the kinds of event: the enum, their wire names and the reading of their bodies.
macro_rules! events {
    ($($(#[$doc:meta])* $variant:ident($body:ty) = $name:literal,)*) => {
        /// What happened, and what it happened to, as that is now.
        #[derive(Debug, Clone, PartialEq, Eq)]
        pub enum EventBody {
            $($(#[$doc])* $variant($body),)*
        }

        impl EventBody {
            /// The wire names of all kinds, in the order of the documentation.
            pub const KINDS: &[&str] = &[$($name),*];

            /// The wire name of this kind.
            pub const fn kind(&self) -> &'static str {
                match self {
                    $(Self::$variant(_) => $name,)*
                }
            }

            fn write<S: SerializeMap>(&self, map: &mut S) -> Result<(), S::Error> {
                match self {
                    $(Self::$variant(body) => map.serialize_entry("body", body),)*
                }
            }

        }

        /// Which kind an event is of.
        enum Kind {
            $($variant,)*
            Unknown,
        }

        impl Kind {
            fn parse(kind: &str) -> Self {
                match kind {
                    $($name => Self::$variant,)*
                    _ => Self::Unknown,
                }
            }

            /// Reads the body that stands next in `map`; none of an unknown kind.
            fn read_body<'de, A: MapAccess<'de>>(
                &self,
                map: &mut A,
            ) -> Result<Option<EventBody>, A::Error> {
                match self {
                    $(Self::$variant => {
                        map.next_value().map(|body| Some(EventBody::$variant(body)))
                    })*
                    Self::Unknown => map.next_value::<de::IgnoredAny>().map(|_| None),
                }
            }
        }
    };
}

events! {
    /// The channel was made.
    ChannelCreated(ChannelBody) = "channel.created",
    /// Its settings changed.
    ChannelUpdated(ChannelBody) = "channel.updated",
    /// It was archived.
    ChannelArchived(ChannelBody) = "channel.archived",
    /// It was taken out of the archive.
    ChannelUnarchived(ChannelBody) = "channel.unarchived",
    /// It was deleted.
    ChannelDeleted(ChannelBody) = "channel.deleted",
    /// A user joined or was added.
    MemberAdded(MemberBody) = "member.added",
    /// A member left or was removed. For him it is the channel's last event.
    MemberRemoved(MemberRemovedBody) = "member.removed",
    /// A member's role changed.
    MemberUpdated(MemberBody) = "member.updated",
    /// A message was published.
    MessageCreated(MessageBody) = "message.created",
    /// A message's text or data changed.
    MessageEdited(MessageBody) = "message.edited",
    /// A message was deleted.
    MessageDeleted(MessageBody) = "message.deleted",
    /// Someone reacted.
    ReactionAdded(ReactionBody) = "reaction.added",
    /// Someone took a reaction back.
    ReactionRemoved(ReactionBody) = "reaction.removed",
    /// A command with a nonce that changed nothing: recorded so that its retry gets the same answer.
    Nothing(NothingBody) = "nothing",
    /// Inbox: the user is now a member of a channel.
    ChannelAdded(ChannelAddedBody) = "channel.added",
    /// Inbox: the user is no longer a member of a channel.
    ChannelRemoved(ChannelRemovedBody) = "channel.removed",
    /// Inbox: the user read a channel up to a message.
    ReadMarked(ReadMarkedBody) = "read.marked",
    /// Inbox: a message mentioned the user.
    MentionAdded(MentionAddedBody) = "mention.added",
    /// Inbox: the user's sessions were closed by an operator's back end.
    SessionsClosed(SessionsClosedBody) = "sessions.closed",
}

/// Body of the `channel.*` events of a channel.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ChannelBody {
    /// The channel as it is now.
    pub channel: Channel,
}

/// Body of `member.added` and `member.updated`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct MemberBody {
    /// The member as of this event.
    pub member: Member,
}

/// Body of `member.removed`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct MemberRemovedBody {
    /// Who is no longer a member.
    pub user: UserId,
}

/// Body of the `message.*` events.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct MessageBody {
    /// The message as it is now, which may be later than the event.
    pub message: Message,
}

/// Body of the `reaction.*` events.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReactionBody {
    /// The reaction.
    pub emoji: Emoji,
    /// The message as it is now.
    pub message: Message,
}

/// Body of `nothing`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct NothingBody {}

/// Body of `channel.added`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ChannelAddedBody {
    /// The channel.
    pub channel: ChannelId,
    /// The channel's incarnation.
    pub incarnation: Incarnation,
    /// The channel's revision that added the user: subscribe from here.
    pub rev: Rev,
    /// His role.
    pub role: Role,
}

/// Body of `channel.removed`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ChannelRemovedBody {
    /// The channel.
    pub channel: ChannelId,
    /// The channel's revision that removed the user.
    pub rev: Rev,
}

/// Body of `read.marked`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReadMarkedBody {
    /// The channel.
    pub channel: ChannelId,
    /// The last message that was read.
    pub seq: Seq,
}

/// Body of `mention.added`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct MentionAddedBody {
    /// The channel.
    pub channel: ChannelId,
    /// The message.
    pub seq: Seq,
    /// Its author.
    pub by: UserId,
}

/// Body of `sessions.closed`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SessionsClosedBody {
    /// One session, or all of the user's when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub session: Option<SessionId>,
}

impl Event {
    /// The number of the message that this event is about.
    pub fn seq(&self) -> Option<Seq> {
        self.message().map(|message| message.seq)
    }

    /// The message that this event is about.
    pub fn message(&self) -> Option<&Message> {
        match &self.body {
            EventBody::MessageCreated(body)
            | EventBody::MessageEdited(body)
            | EventBody::MessageDeleted(body) => Some(&body.message),
            EventBody::ReactionAdded(body) | EventBody::ReactionRemoved(body) => {
                Some(&body.message)
            }
            _ => None,
        }
    }
}

impl Serialize for Event {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let seq = self.seq();
        let optional = usize::from(seq.is_some()) + usize::from(self.nonce.is_some());
        let mut map = serializer.serialize_map(Some(6 + optional))?;
        map.serialize_entry("channel", &self.channel)?;
        map.serialize_entry("rev", &self.rev)?;
        if let Some(seq) = seq {
            map.serialize_entry("seq", &seq)?;
        }
        map.serialize_entry("by", &self.by)?;
        map.serialize_entry("at", &self.at)?;
        if let Some(nonce) = &self.nonce {
            map.serialize_entry("nonce", nonce)?;
        }
        // Before the body, so that a reader knows what the body is.
        map.serialize_entry("kind", self.body.kind())?;
        self.body.write(&mut map)?;
        map.end()
    }
}

impl<'de> Deserialize<'de> for Event {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        match AnyEvent::deserialize(deserializer)? {
            AnyEvent::Known(event) => Ok(*event),
            AnyEvent::Unknown(_) => Err(de::Error::custom(rule::UNKNOWN_KIND)),
        }
    }
}

/// The place of an event whose kind this version does not know.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct EventPlace {
    /// The channel.
    pub channel: ChannelId,
    /// The revision.
    pub rev: Rev,
}

/// An event of this version's or of a later one's.
pub(crate) enum AnyEvent {
    Known(Box<Event>),
    Unknown(EventPlace),
}

impl<'de> Deserialize<'de> for AnyEvent {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_map(EventVisitor)
    }
}

impl<'de> Deserialize<'de> for Kind {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_str(KindVisitor)
    }
}

struct KindVisitor;

impl de::Visitor<'_> for KindVisitor {
    type Value = Kind;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a string")
    }

    fn visit_str<E: de::Error>(self, kind: &str) -> Result<Kind, E> {
        Ok(Kind::parse(kind))
    }
}

/// A key of an event.
#[derive(Deserialize)]
#[serde(field_identifier, rename_all = "snake_case")]
enum Key {
    Channel,
    Rev,
    By,
    At,
    Nonce,
    Kind,
    Body,
    #[serde(other)]
    Other, // `seq` is the message's own
}

struct EventVisitor;

impl<'de> de::Visitor<'de> for EventVisitor {
    type Value = AnyEvent;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an event")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<AnyEvent, A::Error> {
        let (mut channel, mut rev, mut by, mut at) = (None, None, None, None);
        let (mut nonce, mut kind, mut body) = (None, None::<Kind>, None);
        while let Some(key) = map.next_key()? {
            match key {
                Key::Channel => channel = Some(map.next_value()?),
                Key::Rev => rev = Some(map.next_value()?),
                Key::By => by = Some(map.next_value()?),
                Key::At => at = Some(map.next_value()?),
                Key::Nonce => nonce = map.next_value()?,
                Key::Kind => kind = Some(map.next_value()?),
                Key::Body => {
                    let before = || de::Error::custom(rule::BODY_BEFORE_KIND);
                    body = Some(kind.as_ref().ok_or_else(before)?.read_body(&mut map)?);
                }
                Key::Other => drop(map.next_value::<de::IgnoredAny>()?),
            }
        }
        let channel = channel.ok_or_else(|| de::Error::missing_field("channel"))?;
        let rev = rev.ok_or_else(|| de::Error::missing_field("rev"))?;
        let Some(body) = body.ok_or_else(|| de::Error::missing_field("body"))? else {
            return Ok(AnyEvent::Unknown(EventPlace { channel, rev }));
        };
        Ok(AnyEvent::Known(Box::new(Event {
            channel,
            rev,
            by: by.ok_or_else(|| de::Error::missing_field("by"))?,
            at: at.ok_or_else(|| de::Error::missing_field("at"))?,
            nonce,
            body,
        })))
    }
}
