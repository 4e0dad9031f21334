//! What a client asks: one type for each command, named after it.

mod channels;
mod check;

use serde::{Deserialize, Serialize, de::MapAccess, ser::SerializeMap};

pub use self::channels::{ChannelFrom, Channels, Subscribe, Unsubscribe};
use crate::{
    cursor::Cursor,
    id::{ChannelId, Seq, UserId},
    message::{ChannelKind, Role},
    value::{ChannelName, Data, Emoji, Text, Topic},
};

/// Declares the commands: the enum, its wire names and the list of them.
macro_rules! commands {
    ($($(#[$doc:meta])* $variant:ident($body:ty) = $name:literal,)*) => {
        /// A command: on the wire a map key with its body.
        #[derive(Debug, Clone, PartialEq, Eq)]
        pub enum Command {
            $($(#[$doc])* $variant($body),)*
        }

        impl Command {
            /// The wire names of all commands, in the order of the documentation.
            pub const NAMES: &[&str] = &[$($name),*];

            /// The wire name of this command.
            pub const fn name(&self) -> &'static str {
                match self {
                    $(Self::$variant(_) => $name,)*
                }
            }

            /// Writes `name: body` into an open map.
            pub(crate) fn write_body<S: SerializeMap>(&self, map: &mut S) -> Result<(), S::Error> {
                match self {
                    $(Self::$variant(body) => map.serialize_entry($name, body),)*
                }
            }
        }

        /// Which command a frame names.
        #[derive(Clone, Copy)]
        pub(crate) enum Name {
            $($variant,)*
        }

        impl Name {
            pub(crate) fn parse(name: &str) -> Option<Self> {
                match name {
                    $($name => Some(Self::$variant),)*
                    _ => None,
                }
            }

            /// Reads the body that stands next in `map`.
            pub(crate) fn read_body<'de, A: MapAccess<'de>>(
                self,
                map: &mut A,
            ) -> Result<Command, A::Error> {
                match self {
                    $(Self::$variant => map.next_value().map(Command::$variant),)*
                }
            }
        }

        /// All keys that a client's frame may have.
        pub(crate) const FRAME_KEYS: &[&str] = &["id", "nonce", "age_ms", $($name),*];

        $(impl From<$body> for Command {
            fn from(body: $body) -> Self {
                Self::$variant(body)
            }
        })*
    };
}

commands! {
    /// Signs in. The first command of every connection.
    Hello(Hello) = "hello",
    /// Replaces the token before it expires.
    Refresh(Refresh) = "refresh",
    /// Asks whether the server is there.
    Ping(Ping) = "ping",
    /// Answers the server's ping; has no reply.
    Pong(Pong) = "pong",
    /// Makes a channel.
    CreateChannel(CreateChannel) = "create_channel",
    /// Looks a channel up by id or name.
    GetChannel(GetChannel) = "get_channel",
    /// Lists the channels that the caller is a member of.
    ListChannels(ListChannels) = "list_channels",
    /// Changes a channel's settings.
    UpdateChannel(UpdateChannel) = "update_channel",
    /// Archives a channel.
    ArchiveChannel(ArchiveChannel) = "archive_channel",
    /// Takes a channel out of the archive.
    UnarchiveChannel(UnarchiveChannel) = "unarchive_channel",
    /// Deletes a channel for good.
    DeleteChannel(DeleteChannel) = "delete_channel",
    /// Becomes a member of a public or announcement channel.
    Join(Join) = "join",
    /// Stops being a member.
    Leave(Leave) = "leave",
    /// Adds a user to a channel.
    AddMember(AddMember) = "add_member",
    /// Removes a member from a channel.
    RemoveMember(RemoveMember) = "remove_member",
    /// Changes a member's role.
    SetRole(SetRole) = "set_role",
    /// Lists a channel's members.
    ListMembers(ListMembers) = "list_members",
    /// Publishes a message.
    Publish(Publish) = "publish",
    /// Changes a message's text or data.
    Edit(Edit) = "edit",
    /// Deletes a message.
    Delete(Delete) = "delete",
    /// Reacts to a message.
    React(React) = "react",
    /// Takes a reaction back.
    Unreact(Unreact) = "unreact",
    /// Reads messages of a channel.
    History(History) = "history",
    /// Moves the caller's read marker forward.
    MarkRead(MarkRead) = "mark_read",
    /// Tells the channel's subscribers that the caller is typing. At most once, never stored.
    Typing(Typing) = "typing",
    /// Sends the channel's subscribers a value of the application's. At most once, never stored.
    Signal(Signal) = "signal",
    /// Asks which users are connected.
    Presence(Presence) = "presence",
    /// Receives the events of channels.
    Subscribe(Subscribe) = "subscribe",
    /// Stops receiving them.
    Unsubscribe(Unsubscribe) = "unsubscribe",
}

/// Signs in. The first command of every connection.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Hello {
    /// A JWT, or an API key on a back end's connection.
    pub token: String,
    /// The client program, for the operator's logs and metrics.
    #[serde(default)]
    pub client: String,
    /// Its version.
    #[serde(default)]
    pub version: String,
    /// Subscribes from here in the same round trip.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub resume: Option<Cursor>,
}

/// Replaces the token before it expires. Another user's is refused.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Refresh {
    /// The new token.
    pub token: String,
}

/// Asks whether the server is there.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ping {}

/// Answers the server's ping.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Pong {}

/// Makes a channel. Its id derives from the caller and the nonce; a direct one's from the pair.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CreateChannel {
    /// The kind.
    pub kind: ChannelKind,
    /// The name: needed for public, private and announcement, refused for direct and group.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<ChannelName>,
    /// The subject line.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub topic: Option<Topic>,
    /// Members beside the caller, at most 50; exactly one for a direct channel.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub members: Vec<UserId>,
}

/// A channel by its id or its name.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ChannelRef {
    /// By id.
    Id(ChannelId),
    /// By name, without regard to case.
    Name(ChannelName),
}

/// Looks a channel up by id or name.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct GetChannel {
    /// Which one.
    pub channel: ChannelRef,
}

/// Lists the channels that the caller is a member of, in the order of their ids.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ListChannels {
    /// Channels after this one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub after: Option<ChannelId>,
    /// At most this many, 1 to 200, 50 by default.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub limit: Option<u32>,
}

/// Changes a channel's settings; what is absent stays.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct UpdateChannel {
    /// The channel.
    pub channel: ChannelId,
    /// The new name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<ChannelName>,
    /// The new subject line, empty to clear it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub topic: Option<Topic>,
    /// The new slow-mode interval in milliseconds, 0 for none, at most six hours.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub slow_mode_ms: Option<u32>,
}

macro_rules! on_channel {
    ($($(#[$doc:meta])* $name:ident;)*) => {
        $($(#[$doc])*
        #[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
        pub struct $name {
            /// The channel.
            pub channel: ChannelId,
        })*
    };
}

on_channel! {
    /// Archives a channel.
    ArchiveChannel;
    /// Takes a channel out of the archive.
    UnarchiveChannel;
    /// Deletes a channel for good.
    DeleteChannel;
    /// Becomes a member of a public or announcement channel.
    Join;
    /// Stops being a member.
    Leave;
    /// Tells the channel's subscribers that the caller is typing.
    Typing;
}

/// Adds a user to a channel.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AddMember {
    /// The channel.
    pub channel: ChannelId,
    /// Whom.
    pub user: UserId,
    /// The role that he gets; `member` by default.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub role: Option<Role>,
}

/// Removes a member from a channel.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RemoveMember {
    /// The channel.
    pub channel: ChannelId,
    /// Whom.
    pub user: UserId,
}

/// Changes a member's role.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SetRole {
    /// The channel.
    pub channel: ChannelId,
    /// Whose.
    pub user: UserId,
    /// The new role.
    pub role: Role,
}

/// Lists a channel's members in the order of their ids.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ListMembers {
    /// The channel.
    pub channel: ChannelId,
    /// Members after this one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub after: Option<UserId>,
    /// At most this many, 1 to 200, 50 by default.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub limit: Option<u32>,
}

/// Publishes a message with text, data or both.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Publish {
    /// The channel.
    pub channel: ChannelId,
    /// The text.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub text: Option<Text>,
    /// The application's own value.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub data: Option<Data>,
    /// The message that this one answers.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reply_to: Option<Seq>,
    /// The users that it mentions, at most 50.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub mentions: Vec<UserId>,
}

/// Changes the caller's own message; what is absent stays.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Edit {
    /// The channel.
    pub channel: ChannelId,
    /// The message.
    pub seq: Seq,
    /// The new text.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub text: Option<Text>,
    /// The new data.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub data: Option<Data>,
}

/// Deletes a message: the caller's own, or anyone's for moderators and above.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Delete {
    /// The channel.
    pub channel: ChannelId,
    /// The message.
    pub seq: Seq,
}

/// Reacts to a message.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct React {
    /// The channel.
    pub channel: ChannelId,
    /// The message.
    pub seq: Seq,
    /// The reaction.
    pub emoji: Emoji,
}

/// Takes the caller's reaction back.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Unreact {
    /// The channel.
    pub channel: ChannelId,
    /// The message.
    pub seq: Seq,
    /// The reaction.
    pub emoji: Emoji,
}

/// Reads messages of a channel, newest last. At most one of `before`, `after`, `around`; with
/// none of them the newest.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct History {
    /// The channel.
    pub channel: ChannelId,
    /// Messages below this number.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub before: Option<Seq>,
    /// Messages above this number.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub after: Option<Seq>,
    /// Half of them up to this number, half above it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub around: Option<Seq>,
    /// At most this many, 1 to 200, 50 by default.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub limit: Option<u32>,
}

/// Moves the caller's read marker forward; a lower number changes nothing.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct MarkRead {
    /// The channel.
    pub channel: ChannelId,
    /// The last message that was read.
    pub seq: Seq,
}

/// Sends the channel's subscribers a value of the application's.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Signal {
    /// The channel.
    pub channel: ChannelId,
    /// The value.
    pub data: Data,
}

/// Asks which users are connected.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Presence {
    /// Whom, 1 to 100.
    pub users: Vec<UserId>,
}
