//! Which reply each command is answered with.

use chappe_protocol::{
    Command,
    command::{
        AddMember, ArchiveChannel, CreateChannel, Delete, DeleteChannel, Edit, GetChannel, History,
        Join, Leave, ListChannels, ListMembers, MarkRead, Ping, Presence, Publish, React,
        RemoveMember, SetRole, Signal, Subscribe, Typing, UnarchiveChannel, Unreact, Unsubscribe,
        UpdateChannel,
    },
    reply::{
        Change, ChannelReply, ChannelsReply, Done, HistoryReply, MembersReply, PresenceReply,
        SubscribeReply,
    },
};
use serde::de::DeserializeOwned;

/// A command and the type of its reply.
///
/// `hello`, `refresh` and `pong` are not among them: the client sends these itself.
pub trait Ask: Into<Command> + Send {
    /// What it is answered with when it succeeds.
    type Reply: DeserializeOwned + Send;
}

macro_rules! ask {
    ($($command:ty => $reply:ty;)*) => {
        $(impl Ask for $command {
            type Reply = $reply;
        })*
    };
}

ask! {
    Ping => Done;
    CreateChannel => Change;
    GetChannel => ChannelReply;
    ListChannels => ChannelsReply;
    UpdateChannel => Change;
    ArchiveChannel => Change;
    UnarchiveChannel => Change;
    DeleteChannel => Change;
    Join => Change;
    Leave => Change;
    AddMember => Change;
    RemoveMember => Change;
    SetRole => Change;
    ListMembers => MembersReply;
    Publish => Change;
    Edit => Change;
    Delete => Change;
    React => Change;
    Unreact => Change;
    History => HistoryReply;
    MarkRead => Change;
    Typing => Done;
    Signal => Done;
    Presence => PresenceReply;
    Subscribe => SubscribeReply;
    Unsubscribe => Done;
}
