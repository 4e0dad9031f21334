//! `heads`, `channels`, `members`.

use std::sync::Arc;

use chappe_protocol::{
    ChannelId, ChannelName, Rev, Seq, Topic, UserId,
    message::{Channel, ChannelKind, Role},
};
use serde::{Deserialize, Serialize};

use crate::record::Digest;

/// Where a channel stands.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct HeadRow {
    /// Its last revision.
    pub rev: Rev,
    /// Its last message.
    pub seq: Seq,
}

/// A channel's settings.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ChannelRow {
    /// Its kind.
    pub kind: ChannelKind,
    /// Its name.
    pub name: Option<ChannelName>,
    /// Its subject line.
    pub topic: Option<Topic>,
    /// Its slow-mode interval; 0 for none.
    pub slow_mode_ms: u32,
    /// Whether it is archived.
    pub archived: bool,
    /// Whether it was deleted.
    pub deleted: bool,
    /// Who made it.
    pub by: UserId,
    /// When.
    pub at: u64,
    /// How many members it has.
    pub members: u32,
    /// The digest of the command that made it: a create that is retried late meets itself.
    pub digest: Digest,
}

impl ChannelRow {
    /// The channel as clients see it.
    pub fn channel(&self, id: ChannelId) -> Channel {
        Channel {
            id,
            kind: self.kind,
            name: self.name.clone(),
            topic: self.topic.clone(),
            slow_mode_ms: self.slow_mode_ms,
            archived: self.archived,
            deleted: self.deleted,
            by: self.by,
            at: self.at,
            members: self.members,
        }
    }
}

/// A member, present or former.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct MemberRow {
    /// His role.
    pub role: Role,
    /// The revision that added him last.
    pub since: Rev,
    /// The name in his token when he came.
    pub name: Option<Arc<str>>,
    /// The revision that removed him, if he is a member no longer.
    pub removed: Option<Rev>,
    /// The tick of his last message under slow mode.
    pub published_tick: Option<u64>,
}
