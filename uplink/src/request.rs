//! What a gateway asks of a leader.

use std::sync::Arc;

use chappe_protocol::{
    ChannelId, ChannelName, Data, Incarnation, Nonce, Rev, Seq, SessionId, UserId, command,
    message::Role,
};
use serde::{Deserialize, Serialize};

/// One request. `token` comes back in its answer; a gateway does not use one twice on a pipe.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Request {
    /// Change a channel.
    Command(Box<Command>),
    /// Hear a channel's events, on behalf of a user who is checked.
    Attach(Attach),
    /// Stop hearing a channel's events on this pipe. Has no answer.
    Detach(Detach),
    /// Read.
    Read(Read),
    /// Tell a channel's subscribers something, at most once.
    Signal(Signal),
}

/// Who asks.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Caller {
    /// The user.
    pub user: UserId,
    /// The name in his token, for people.
    pub name: Option<Arc<str>>,
    /// What the instance lets him do.
    pub standing: Standing,
}

/// What a caller may do in the instance, beside his roles in channels.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Standing {
    /// What his roles in channels say.
    User,
    /// Reads and changes every channel, as an owner of it would.
    Admin,
    /// A back end with an API key: publishes and reads everywhere without membership, closes
    /// users' sessions, creates channels; is never a member.
    Service,
}

/// A command on its way to the leader of its channel.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Command {
    /// Comes back in the answer.
    pub token: u64,
    /// Who asks.
    pub caller: Caller,
    /// The session: with `channel`, the scope of the order below.
    pub session: SessionId,
    /// Raised by the gateway each time it resends a session's commands for this channel after a
    /// `retry`. The leader refuses a lower one, and after a `retry` the same one.
    pub attempt: u32,
    /// The command's place among the session's commands for this channel.
    pub position: u64,
    /// The channel that it changes; an inbox for [`Action::MarkRead`] and what is relayed.
    pub channel: ChannelId,
    /// Names the command among the caller's.
    pub nonce: Nonce,
    /// Whether the client chose the nonce, so that the event shows it.
    pub client_nonce: bool,
    /// How long ago its first attempt began, in milliseconds.
    pub age_ms: u64,
    /// What is asked.
    pub action: Action,
}

/// What a command does to its channel.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Action {
    /// Makes it. The gateway derived its id from caller and nonce, or from the pair.
    Create(command::CreateChannel),
    /// Changes its settings.
    Update(command::UpdateChannel),
    /// Archives it.
    Archive,
    /// Takes it out of the archive.
    Unarchive,
    /// Deletes it.
    DeleteChannel,
    /// Adds the caller.
    Join,
    /// Removes the caller.
    Leave,
    /// Adds a user.
    AddMember {
        /// Whom.
        user: UserId,
        /// With which role.
        role: Role,
    },
    /// Removes a member.
    RemoveMember {
        /// Whom.
        user: UserId,
    },
    /// Changes a member's role.
    SetRole {
        /// Whose.
        user: UserId,
        /// To what.
        role: Role,
    },
    /// Publishes a message.
    Publish(command::Publish),
    /// Changes a message.
    Edit(command::Edit),
    /// Deletes a message.
    Delete {
        /// Which.
        seq: Seq,
    },
    /// Adds the caller's reaction.
    React(command::React),
    /// Takes the caller's reaction back.
    Unreact(command::Unreact),
    /// On an inbox: moves a read marker.
    MarkRead(command::MarkRead),
    /// On an inbox, by a service or an admin: closes the user's sessions.
    CloseSessions {
        /// One of them, or all with none.
        session: Option<SessionId>,
    },
    /// On an inbox, from a leader: a fact of another channel. No client can ask it.
    Relay(Relay),
}

/// A fact of a channel on its way into an inbox.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Relay {
    /// The channel.
    pub source: ChannelId,
    /// The fact's incarnation.
    pub incarnation: Incarnation,
    /// The fact's revision: the inbox ignores what is not newer than the last it took.
    pub rev: Rev,
    /// Who caused it.
    pub by: UserId,
    /// What it says of the inbox's user.
    pub kind: RelayKind,
}

/// What a relayed fact says of the inbox's user.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum RelayKind {
    /// He is a member now.
    Added {
        /// With this role.
        role: Role,
    },
    /// He is no longer a member.
    Removed,
    /// A message mentioned him.
    Mentioned {
        /// Which.
        seq: Seq,
    },
}

/// Asks to hear a channel's events on this pipe.
///
/// Attaching twice is one interest. The answer is the caller's right to read and the place to
/// start from; events after the answer's head follow on the pipe.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Attach {
    /// Comes back in the answer.
    pub token: u64,
    /// The channel.
    pub channel: ChannelId,
    /// Who wants to read; none when the gateway attaches again for those who already do.
    pub caller: Option<Caller>,
    /// The last revision that he holds, with its incarnation.
    pub from: Option<(Incarnation, Rev)>,
}

/// Ends a pipe's interest in a channel.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Detach {
    /// The channel.
    pub channel: ChannelId,
}

/// A read, answered with what is at least as new as the caller has seen.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Read {
    /// Comes back in the answer.
    pub token: u64,
    /// Who asks; none for a gateway's own catch-up, which filters for its readers itself.
    pub caller: Option<Caller>,
    /// The channel, or the caller's inbox for a list of his own. Ignored when resolving a name.
    pub channel: ChannelId,
    /// The last revision of the channel that the caller has seen: the answer includes it.
    pub at_least: Rev,
    /// What is read.
    pub query: ReadQuery,
}

/// What is read.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum ReadQuery {
    /// The id of the channel with this name, whoever may see it.
    Resolve(ChannelName),
    /// The channel's settings, head and the caller's membership.
    Channel,
    /// A page of members.
    Members {
        /// After this one.
        after: Option<UserId>,
        /// At most this many.
        limit: u32,
    },
    /// A page of messages.
    Messages(command::History),
    /// A page of events above `after`, for catching up.
    Events {
        /// The last revision that the reader holds.
        after: Rev,
        /// At most this many.
        limit: u32,
    },
    /// On an inbox: a page of the user's channels.
    MyChannels {
        /// After this one.
        after: Option<ChannelId>,
        /// At most this many.
        limit: u32,
    },
}

/// Something ephemeral for a channel's subscribers. Answered like a command, without a revision.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Signal {
    /// Comes back in the answer.
    pub token: u64,
    /// Who sends it.
    pub caller: Caller,
    /// The channel.
    pub channel: ChannelId,
    /// The application's value; none for typing.
    pub data: Option<Data>,
}
