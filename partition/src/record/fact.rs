//! Facts: what a leader decided, in full. Nothing that follows from a fact is decided again.

use std::sync::Arc;

use chappe_protocol::{
    ChannelId, ChannelName, Data, Emoji, Incarnation, Nonce, Rev, Seq, SessionId, Text, Topic,
    UserId,
    message::{ChannelKind, Role},
};
use serde::{Deserialize, Serialize};

use super::Mark;

/// The first half of the SHA-256 of a command. It tells a retry from another command of the same
/// user under the same nonce; 128 bits are plenty for that, and half the bytes in every record.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Digest(#[serde(with = "serde_bytes")] pub [u8; 16]);

/// One change of a channel.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fact {
    /// Whose it is, and when.
    pub mark: Mark,
    /// The channel, or a user's inbox.
    pub channel: ChannelId,
    /// The channel's revision.
    pub rev: Rev,
    /// Who caused it.
    pub by: UserId,
    /// The nonce of the command; none for what was relayed, which has a source revision instead.
    pub nonce: Option<Nonce>,
    /// Whether the client chose the nonce, so that the event shows it.
    pub client_nonce: bool,
    /// The command's digest.
    pub digest: Digest,
    /// What happened.
    pub body: FactBody,
}

/// Declares the kinds of fact: the enum, their numbers, and the reading of their bodies.
macro_rules! facts {
    ($($(#[$doc:meta])* $variant:ident($body:ty) = $number:literal,)*) => {
        /// What a fact says. The numbers are part of the record format.
        #[derive(Debug, Clone, PartialEq, Eq)]
        pub enum FactBody {
            $($(#[$doc])* $variant($body),)*
        }

        impl FactBody {
            /// The number of this kind in records and rows.
            pub const fn kind(&self) -> u8 {
                match self {
                    $(Self::$variant(_) => $number,)*
                }
            }

            pub(super) fn write<S: serde::Serializer>(
                &self,
                serializer: S,
            ) -> Result<S::Ok, S::Error> {
                match self {
                    $(Self::$variant(body) => body.serialize(serializer),)*
                }
            }

            /// Reads the body of kind `kind`, or none if there is no such kind.
            pub(super) fn read<'de, D: serde::Deserializer<'de>>(
                kind: u8,
                deserializer: D,
            ) -> Result<Option<Self>, D::Error> {
                match kind {
                    $($number => <$body>::deserialize(deserializer).map(|b| Some(Self::$variant(b))),)*
                    _ => Ok(None),
                }
            }
        }

        $(impl From<$body> for FactBody {
            fn from(body: $body) -> Self {
                Self::$variant(body)
            }
        })*
    };
}

facts! {
    /// The channel was made.
    Created(Created) = 1,
    /// Its settings changed.
    Updated(Updated) = 2,
    /// It was archived.
    Archived(Archived) = 3,
    /// It was taken out of the archive.
    Unarchived(Unarchived) = 4,
    /// It was deleted.
    Deleted(Deleted) = 5,
    /// A user joined or was added.
    MemberAdded(MemberAdded) = 6,
    /// A member left or was removed.
    MemberRemoved(MemberRemoved) = 7,
    /// A member's role changed.
    RoleSet(RoleSet) = 8,
    /// A message was published.
    Message(MessageCreated) = 9,
    /// A message's text or data changed.
    Edited(Edited) = 10,
    /// A message was deleted.
    Erased(Erased) = 11,
    /// Someone reacted to a message.
    Reacted(Reacted) = 12,
    /// Someone took a reaction back.
    Unreacted(Unreacted) = 13,
    /// A command changed nothing; recorded for its nonce.
    Nothing(Nothing) = 14,
    /// Inbox: the user is now a member of a channel.
    ChannelAdded(ChannelAdded) = 20,
    /// Inbox: the user is no longer a member of a channel.
    ChannelRemoved(ChannelRemoved) = 21,
    /// Inbox: a message mentioned the user.
    Mentioned(Mentioned) = 22,
    /// Inbox: the user read a channel up to a message.
    ReadMarked(ReadMarked) = 23,
    /// Inbox: the user's sessions were closed.
    SessionsClosed(SessionsClosed) = 24,
}

/// The channel was made.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Created {
    /// Its kind.
    pub kind: ChannelKind,
    /// Its name.
    pub name: Option<ChannelName>,
    /// Its subject line.
    pub topic: Option<Topic>,
    /// Its first members.
    pub members: Vec<NewMember>,
}

/// A member that a channel was made with.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct NewMember {
    /// Who.
    pub user: UserId,
    /// His role.
    pub role: Role,
    /// The name in his token, where it is known.
    pub name: Option<Arc<str>>,
}

/// Its settings changed; what is none stayed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Updated {
    /// The new name.
    pub name: Option<ChannelName>,
    /// The new subject line, empty when it was cleared.
    pub topic: Option<Topic>,
    /// The new slow-mode interval.
    pub slow_mode_ms: Option<u32>,
    /// The name that the channel no longer has: it is free for others once this is projected.
    pub freed: Option<ChannelName>,
}

/// It was archived.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Archived {}

/// It was taken out of the archive.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Unarchived {}

/// It was deleted.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Deleted {
    /// The name that it had.
    pub freed: Option<ChannelName>,
}

/// A user joined or was added.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct MemberAdded {
    /// Who.
    pub user: UserId,
    /// His role.
    pub role: Role,
    /// The name in his token, where it is known.
    pub name: Option<Arc<str>>,
}

/// A member left or was removed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct MemberRemoved {
    /// Who.
    pub user: UserId,
}

/// A member's role changed. The rest of the member is repeated, so that the event needs no row.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RoleSet {
    /// Whose.
    pub user: UserId,
    /// His new role.
    pub role: Role,
    /// His name.
    pub name: Option<Arc<str>>,
    /// The revision that added him.
    pub since: Rev,
}

/// A message was published.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct MessageCreated {
    /// Its number.
    pub seq: Seq,
    /// Its text.
    pub text: Option<Text>,
    /// The application's own value.
    pub data: Option<Data>,
    /// The message that it answers.
    pub reply_to: Option<Seq>,
    /// The members that it mentions.
    pub mentions: Vec<UserId>,
    /// Its author was subject to slow mode: his next message waits from here.
    pub slowed: bool,
}

/// A message's text or data changed; what is none stayed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Edited {
    /// The message.
    pub seq: Seq,
    /// Its new text.
    pub text: Option<Text>,
    /// Its new data.
    pub data: Option<Data>,
}

/// A message was deleted.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Erased {
    /// The message.
    pub seq: Seq,
}

/// Someone reacted to a message.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Reacted {
    /// The message.
    pub seq: Seq,
    /// The reaction.
    pub emoji: Emoji,
}

/// Someone took a reaction back.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Unreacted {
    /// The message.
    pub seq: Seq,
    /// The reaction.
    pub emoji: Emoji,
}

/// A command changed nothing.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Nothing {
    /// The message that it was about.
    pub seq: Option<Seq>,
}

/// Inbox: the user is now a member of a channel.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ChannelAdded {
    /// The channel.
    pub channel: ChannelId,
    /// Its incarnation then.
    pub incarnation: Incarnation,
    /// Its revision that added him.
    pub rev: Rev,
    /// His role.
    pub role: Role,
}

/// Inbox: the user is no longer a member of a channel.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ChannelRemoved {
    /// The channel.
    pub channel: ChannelId,
    /// Its incarnation then.
    pub incarnation: Incarnation,
    /// Its revision that removed him.
    pub rev: Rev,
}

/// Inbox: a message mentioned the user.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Mentioned {
    /// The channel.
    pub channel: ChannelId,
    /// Its incarnation then.
    pub incarnation: Incarnation,
    /// Its revision that created the message.
    pub rev: Rev,
    /// The message.
    pub seq: Seq,
}

/// Inbox: the user read a channel up to a message.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReadMarked {
    /// The channel.
    pub channel: ChannelId,
    /// The last message that he read.
    pub seq: Seq,
}

/// Inbox: the user's sessions were closed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SessionsClosed {
    /// One of them, or all with none.
    pub session: Option<SessionId>,
}

impl Fact {
    /// The number of the message that this fact is about.
    pub fn message(&self) -> Option<Seq> {
        match &self.body {
            FactBody::Message(body) => Some(body.seq),
            FactBody::Edited(body) => Some(body.seq),
            FactBody::Erased(body) => Some(body.seq),
            FactBody::Reacted(body) => Some(body.seq),
            FactBody::Unreacted(body) => Some(body.seq),
            _ => None,
        }
    }
}
