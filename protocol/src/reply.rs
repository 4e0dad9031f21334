//! What a command is answered with when it succeeds: the body of `ok`.

use serde::{Deserialize, Serialize};

use crate::{
    frame::WireError,
    id::{ChannelId, Incarnation, Rev, Seq, SessionId, UserId},
    limits::Limits,
    message::{Channel, Member, Message, Role},
};

/// The body of `ok`. On the wire its variant is not named: the command that was asked tells it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(untagged)]
pub enum Reply {
    /// To `hello`.
    Hello(Box<HelloReply>),
    /// To `refresh`.
    Refresh(RefreshReply),
    /// To `ping`, `typing`, `signal` and `unsubscribe`.
    Done(Done),
    /// To every command that changes a channel.
    Change(Change),
    /// To `get_channel`.
    Channel(Box<ChannelReply>),
    /// To `list_channels`.
    Channels(ChannelsReply),
    /// To `list_members`.
    Members(MembersReply),
    /// To `history`.
    History(HistoryReply),
    /// To `presence`.
    Presence(PresenceReply),
    /// To `subscribe`.
    Subscribe(SubscribeReply),
}

/// Nothing to say.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Done {}

/// Signed in.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct HelloReply {
    /// Who the caller is.
    pub user: UserId,
    /// The session, for logs and for closing it from elsewhere.
    pub session: SessionId,
    /// The log's incarnation: a cursor of another one is answered with `reset`.
    pub incarnation: Incarnation,
    /// How often the server pings, in milliseconds.
    pub ping_ms: u32,
    /// The limits in force.
    pub limits: Limits,
    /// The server's name and version.
    pub server: String,
    /// The subscriptions that `resume` asked for.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub subscribed: Vec<Subscribed>,
}

/// The new token is in force.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RefreshReply {
    /// When it expires, in milliseconds since 1970 UTC.
    pub expires_at: u64,
}

/// A channel changed, durably.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Change {
    /// The channel.
    pub channel: ChannelId,
    /// The revision of the change. A read that follows includes it.
    pub rev: Rev,
    /// The message that it made or changed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub seq: Option<Seq>,
    /// The server's time for it, in milliseconds since 1970 UTC.
    pub at: u64,
    /// The caller's own list of channels does not show it yet.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub inbox: Option<InboxState>,
}

/// Whether the caller's inbox shows a change already.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum InboxState {
    /// Not yet; it will.
    Pending,
}

/// A channel and where it stands.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ChannelReply {
    /// Its settings.
    pub channel: Channel,
    /// Its last revision.
    pub rev: Rev,
    /// Its last message.
    pub seq: Seq,
    /// The caller's membership.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub member: Option<Member>,
}

/// A page of the caller's channels.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ChannelsReply {
    /// The channels.
    pub channels: Vec<MyChannel>,
    /// Ask again with `after` set to this for more.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next: Option<ChannelId>,
}

/// One of the caller's channels.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct MyChannel {
    /// The channel.
    pub channel: ChannelId,
    /// The caller's role when he was added.
    pub role: Role,
    /// The channel's revision that added him.
    pub since: Rev,
    /// The last message that he read.
    pub read: Seq,
}

/// A page of members.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct MembersReply {
    /// The members.
    pub members: Vec<Member>,
    /// Ask again with `after` set to this for more.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next: Option<UserId>,
}

/// A page of messages.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct HistoryReply {
    /// The messages, lowest number first, deleted ones as tombstones.
    pub messages: Vec<Message>,
    /// The channel's revision that the page shows.
    pub rev: Rev,
    /// There are more below the first.
    pub more_before: bool,
    /// There are more above the last.
    pub more_after: bool,
}

/// Which users are connected.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PresenceReply {
    /// In the order asked.
    pub users: Vec<UserPresence>,
}

/// Whether one user is connected.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct UserPresence {
    /// The user.
    pub user: UserId,
    /// What is known of him.
    pub presence: PresenceState,
}

/// Whether a user is connected, as it was some seconds ago at worst.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum PresenceState {
    /// With at least one session, anywhere.
    Online,
    /// With none.
    Offline,
    /// The server cannot tell now.
    Unknown,
}

/// The outcome for each channel of a subscription.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SubscribeReply {
    /// In the order asked; for `mine`, in the order of their ids.
    pub channels: Vec<Subscribed>,
}

/// The outcome for one channel.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Subscribed {
    /// The channel.
    pub channel: ChannelId,
    /// Events follow after this revision.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rev: Option<Rev>,
    /// The channel's last revision.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub head: Option<Rev>,
    /// Events up to `head` follow first, and then `live`.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub catching_up: bool,
    /// Why there is no subscription.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<WireError>,
}
