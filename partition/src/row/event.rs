//! `events`: a reference to what happened at each revision. Content stays in `messages`, so that
//! a deleted message replays as a tombstone.

use std::sync::Arc;

use chappe_protocol::{
    ChannelId, Emoji, Incarnation, Nonce, Rev, Seq, SessionId, UserId, message::Role,
};
use serde::{Deserialize, Serialize};

use super::RowError;
use crate::record::Digest;

/// What happened at a revision, and what its command is answered with.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EventRow {
    /// The kind of fact ([`crate::record::FactBody::kind`]).
    pub kind: u8,
    /// The message that it was about: with the revision and `at`, the command's result.
    pub seq: Option<Seq>,
    /// Who caused it.
    pub by: UserId,
    /// When, in milliseconds since 1970 UTC.
    pub at: u64,
    /// When, in milliseconds of leadership.
    pub tick: u64,
    /// The command's nonce.
    pub nonce: Option<Nonce>,
    /// Whether the client chose it.
    pub client_nonce: bool,
    /// The command's digest.
    pub digest: Digest,
    /// What the kind needs beside.
    pub detail: Detail,
}

/// What an event of some kinds needs beside its message and channel.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Detail {
    /// Nothing.
    #[serde(rename = "-")]
    None,
    /// The member as of the event: user, role, name, since.
    #[serde(rename = "m")]
    Member(UserId, Role, Option<Arc<str>>, Rev),
    /// Who is no longer a member.
    #[serde(rename = "l")]
    Left(UserId),
    /// The reaction.
    #[serde(rename = "e")]
    Emoji(Emoji),
    /// Inbox: the channel, its incarnation, the revision that added the user and his role.
    #[serde(rename = "a")]
    Listed(ChannelId, Incarnation, Rev, Role),
    /// Inbox: the channel and the revision that removed the user.
    #[serde(rename = "r")]
    Unlisted(ChannelId, Rev),
    /// Inbox: the channel and the message: a mention, or a read marker.
    #[serde(rename = "s")]
    Message(ChannelId, Seq),
    /// Inbox: the session, or all.
    #[serde(rename = "c")]
    Sessions(Option<SessionId>),
}

type Fields<N, D> = (u8, Option<Seq>, UserId, u64, u64, Option<N>, bool, Digest, D);

impl EventRow {
    pub(super) fn encode(&self, out: &mut Vec<u8>) {
        let fields: Fields<&Nonce, &Detail> = (
            self.kind,
            self.seq,
            self.by,
            self.at,
            self.tick,
            self.nonce.as_ref(),
            self.client_nonce,
            self.digest,
            &self.detail,
        );
        super::to_bytes(&fields, out);
    }

    pub(super) fn decode(bytes: &[u8]) -> Result<Self, RowError> {
        let fields: Fields<Nonce, Detail> = super::from_bytes(bytes)?;
        let (kind, seq, by, at, tick, nonce, client_nonce, digest, detail) = fields;
        Ok(Self { kind, seq, by, at, tick, nonce, client_nonce, digest, detail })
    }
}
