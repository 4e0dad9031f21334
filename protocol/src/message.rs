//! A message, a channel and a member as clients see them.

use serde::{Deserialize, Serialize};

use crate::{
    id::{ChannelId, Rev, Seq, UserId},
    value::{ChannelName, Data, Emoji, Text, Topic},
};

/// A message as it is now, whatever event or page brought it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Message {
    /// Its number in the channel.
    pub seq: Seq,
    /// The revision that created it.
    pub rev: Rev,
    /// The revision of its last change. Of two copies, keep the one where this is higher.
    pub changed: Rev,
    /// Its author.
    pub by: UserId,
    /// When it was created, in milliseconds since 1970 UTC.
    pub at: u64,
    /// Its text, unless it carries `data` alone or was deleted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub text: Option<Text>,
    /// The application's own value.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub data: Option<Data>,
    /// The message that it answers.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reply_to: Option<Seq>,
    /// The users that it mentions.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub mentions: Vec<UserId>,
    /// When it was last edited, in milliseconds since 1970 UTC.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub edited_at: Option<u64>,
    /// It was deleted: a tombstone that keeps number and author and nothing else.
    #[serde(default, skip_serializing_if = "is_false")]
    pub deleted: bool,
    /// Its reactions, in the order in which each kind first came.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub reactions: Vec<Reaction>,
}

/// One kind of reaction on a message and who left it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Reaction {
    /// The emoji or short name.
    pub emoji: Emoji,
    /// Who reacted, in order.
    pub users: Vec<UserId>,
}

/// What kind of channel it is; fixed when it is created.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ChannelKind {
    /// Anyone may find and join it.
    Public,
    /// Members are added by its moderators.
    Private,
    /// The one channel between two users.
    Direct,
    /// A few users without a name for it.
    Group,
    /// Anyone may join, moderators and above publish.
    Announcement,
}

/// What a member may do; each role may do all that those after it may.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Role {
    /// Deletes the channel and names owners and admins.
    Owner,
    /// Changes its settings, names moderators.
    Admin,
    /// Adds and removes members, deletes others' messages.
    Moderator,
    /// Reads and writes.
    Member,
}

impl Role {
    /// Whether this role includes what `other` may do.
    pub const fn includes(self, other: Self) -> bool {
        self as u8 <= other as u8
    }
}

/// A channel's settings.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Channel {
    /// Its id.
    pub id: ChannelId,
    /// Its kind.
    pub kind: ChannelKind,
    /// Its name, unique in the instance without regard to case; none for direct and group.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<ChannelName>,
    /// Its subject line.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub topic: Option<Topic>,
    /// The least time between two messages of one member, in milliseconds; 0 for none.
    /// Moderators and above are exempt.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub slow_mode_ms: u32,
    /// It takes no more messages, edits or reactions until it is unarchived.
    #[serde(default, skip_serializing_if = "is_false")]
    pub archived: bool,
    /// It was deleted: nothing in it can be read or written.
    #[serde(default, skip_serializing_if = "is_false")]
    pub deleted: bool,
    /// Who made it.
    pub by: UserId,
    /// When, in milliseconds since 1970 UTC.
    pub at: u64,
    /// How many members it has.
    pub members: u32,
}

/// A member of a channel.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Member {
    /// Who.
    pub user: UserId,
    /// The name that his token carried when he came, for people to read.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// His role.
    pub role: Role,
    /// The revision that added him: he reads from there on, and the whole history where the
    /// channel's kind shows it (public, announcement).
    pub since: Rev,
}

fn is_false(value: &bool) -> bool {
    !value
}

fn is_zero(value: &u32) -> bool {
    *value == 0
}
