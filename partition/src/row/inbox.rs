//! `channels_by_user`, `read_markers`, `mentions`, `relayed`, all projected from a user's inbox
//! alone; and `outbox`, what is on its way there.

use chappe_protocol::{Incarnation, Rev, Seq, UserId, message::Role};
use serde::{Deserialize, Serialize};

/// A channel in a user's list.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct ListedRow {
    /// The user's role when he was added.
    pub role: Role,
    /// The channel's incarnation then.
    pub incarnation: Incarnation,
    /// The channel's revision that added or removed him last.
    pub rev: Rev,
    /// Whether he is a member no longer.
    pub removed: bool,
}

/// How far a user read a channel.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReadMarkerRow {
    /// The last message that he read.
    pub seq: Seq,
}

/// A message that mentioned a user.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct MentionRow {
    /// Its author.
    pub by: UserId,
    /// The channel's revision that created it.
    pub rev: Rev,
}

/// The last fact of a channel that an inbox took.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct RelayedRow {
    /// Its incarnation.
    pub incarnation: Incarnation,
    /// Its revision.
    pub rev: Rev,
}

/// A fact on its way into an inbox.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct OutboxRow {
    /// The fact's place in its partition: it is sent once the checkpoint lies above.
    pub offset: u64,
    /// Who caused it.
    pub by: UserId,
    /// What it says of the inbox's user.
    pub says: Relayed,
}

/// What a relayed fact says of the inbox's user.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Relayed {
    /// He is a member now.
    #[serde(rename = "a")]
    Added(Role),
    /// He is no longer a member.
    #[serde(rename = "r")]
    Removed,
    /// A message mentioned him.
    #[serde(rename = "m")]
    Mentioned(Seq),
}
