//! What subscribers hear: one event for each revision of a channel.

use std::{borrow::Cow, fmt};

use serde::{
    Deserialize, Deserializer, Serialize, Serializer,
    de::{self, MapAccess},
    ser::SerializeMap,
};

use crate::{
    id::{ChannelId, Incarnation, Rev, Seq, SessionId, UserId},
    message::{Channel, Member, Message, Role},
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

            fn read<'de, A: MapAccess<'de>>(kind: &str, map: &mut A) -> Result<Self, A::Error> {
                match kind {
                    $($name => map.next_value::<$body>().map(Self::$variant),)*
                    _ => Err(de::Error::custom("an event of a kind that this version lacks")),
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
        deserializer.deserialize_map(EventVisitor)
    }
}

struct EventVisitor;

impl<'de> de::Visitor<'de> for EventVisitor {
    type Value = Event;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an event")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Event, A::Error> {
        let (mut channel, mut rev, mut by, mut at) = (None, None, None, None);
        let (mut nonce, mut body) = (None, None);
        let mut kind: Option<Cow<'de, str>> = None;
        while let Some(key) = map.next_key::<Cow<'de, str>>()? {
            match &*key {
                "channel" => channel = Some(map.next_value()?),
                "rev" => rev = Some(map.next_value()?),
                "by" => by = Some(map.next_value()?),
                "at" => at = Some(map.next_value()?),
                "nonce" => nonce = Some(map.next_value()?),
                "kind" => kind = Some(map.next_value()?),
                "body" => {
                    let kind = kind.as_deref().ok_or_else(|| de::Error::missing_field("kind"))?;
                    body = Some(EventBody::read(kind, &mut map)?);
                }
                _ => drop(map.next_value::<de::IgnoredAny>()?), // `seq` is the message's own
            }
        }
        Ok(Event {
            channel: channel.ok_or_else(|| de::Error::missing_field("channel"))?,
            rev: rev.ok_or_else(|| de::Error::missing_field("rev"))?,
            by: by.ok_or_else(|| de::Error::missing_field("by"))?,
            at: at.ok_or_else(|| de::Error::missing_field("at"))?,
            nonce,
            body: body.ok_or_else(|| de::Error::missing_field("body"))?,
        })
    }
}
