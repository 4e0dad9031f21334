//! One method for each command.

use chappe_protocol::{
    ChannelId, ChannelName, Cursor, Data, Emoji, Seq, Text, UserId,
    command::{
        AddMember, ArchiveChannel, ChannelFrom, ChannelRef, Channels, CreateChannel, Delete,
        DeleteChannel, Edit, GetChannel, History, Join, Leave, ListChannels, ListMembers, MarkRead,
        Ping, Presence, Publish, React, RemoveMember, SetRole, Signal, Subscribe, Typing,
        UnarchiveChannel, Unreact, Unsubscribe, UpdateChannel,
    },
    message::Role,
    reply::{
        Change, ChannelReply, ChannelsReply, HistoryReply, MembersReply, PresenceReply,
        SubscribeReply, Subscribed,
    },
};

use super::Client;
use crate::error::Error;

impl Client {
    /// Asks whether the server is there.
    pub async fn ping(&self) -> Result<(), Error> {
        self.ask(Ping {}).await.map(drop)
    }

    /// Makes a channel.
    pub async fn create_channel(&self, command: CreateChannel) -> Result<Change, Error> {
        self.ask(command).await
    }

    /// Looks a channel up by its id.
    pub async fn get_channel(&self, channel: ChannelId) -> Result<ChannelReply, Error> {
        self.ask(GetChannel { channel: ChannelRef::Id(channel) }).await
    }

    /// Looks a channel up by its name, without regard to case.
    pub async fn find_channel(&self, name: ChannelName) -> Result<ChannelReply, Error> {
        self.ask(GetChannel { channel: ChannelRef::Name(name) }).await
    }

    /// Lists a page of the channels that the caller is a member of.
    pub async fn list_channels(&self, command: ListChannels) -> Result<ChannelsReply, Error> {
        self.ask(command).await
    }

    /// Changes a channel's settings.
    pub async fn update_channel(&self, command: UpdateChannel) -> Result<Change, Error> {
        self.ask(command).await
    }

    /// Archives a channel.
    pub async fn archive_channel(&self, channel: ChannelId) -> Result<Change, Error> {
        self.ask(ArchiveChannel { channel }).await
    }

    /// Takes a channel out of the archive.
    pub async fn unarchive_channel(&self, channel: ChannelId) -> Result<Change, Error> {
        self.ask(UnarchiveChannel { channel }).await
    }

    /// Deletes a channel for good.
    pub async fn delete_channel(&self, channel: ChannelId) -> Result<Change, Error> {
        self.ask(DeleteChannel { channel }).await
    }

    /// Becomes a member of a public or announcement channel.
    pub async fn join(&self, channel: ChannelId) -> Result<Change, Error> {
        self.ask(Join { channel }).await
    }

    /// Stops being a member.
    pub async fn leave(&self, channel: ChannelId) -> Result<Change, Error> {
        self.ask(Leave { channel }).await
    }

    /// Adds a user to a channel, as a `member` if no role is given.
    pub async fn add_member(
        &self,
        channel: ChannelId,
        user: UserId,
        role: Option<Role>,
    ) -> Result<Change, Error> {
        self.ask(AddMember { channel, user, role }).await
    }

    /// Removes a member from a channel.
    pub async fn remove_member(&self, channel: ChannelId, user: UserId) -> Result<Change, Error> {
        self.ask(RemoveMember { channel, user }).await
    }

    /// Changes a member's role.
    pub async fn set_role(
        &self,
        channel: ChannelId,
        user: UserId,
        role: Role,
    ) -> Result<Change, Error> {
        self.ask(SetRole { channel, user, role }).await
    }

    /// Lists a page of a channel's members.
    pub async fn list_members(&self, command: ListMembers) -> Result<MembersReply, Error> {
        self.ask(command).await
    }

    /// Asks which of these users are connected: at most 100, answered in their order.
    pub async fn presence(&self, users: Vec<UserId>) -> Result<PresenceReply, Error> {
        self.ask(Presence { users }).await
    }

    /// Publishes a message. The reply means that it is durable and counts.
    pub async fn publish(&self, command: Publish) -> Result<Change, Error> {
        self.ask(command).await
    }

    /// Publishes a message of text alone.
    pub async fn send_text(&self, channel: ChannelId, text: Text) -> Result<Change, Error> {
        let (data, reply_to, mentions) = (None, None, Vec::new());
        self.ask(Publish { channel, text: Some(text), data, reply_to, mentions }).await
    }

    /// Changes the caller's own message.
    pub async fn edit(&self, command: Edit) -> Result<Change, Error> {
        self.ask(command).await
    }

    /// Deletes a message.
    pub async fn delete(&self, channel: ChannelId, seq: Seq) -> Result<Change, Error> {
        self.ask(Delete { channel, seq }).await
    }

    /// Reacts to a message.
    pub async fn react(&self, channel: ChannelId, seq: Seq, emoji: Emoji) -> Result<Change, Error> {
        self.ask(React { channel, seq, emoji }).await
    }

    /// Takes the caller's reaction back.
    pub async fn unreact(
        &self,
        channel: ChannelId,
        seq: Seq,
        emoji: Emoji,
    ) -> Result<Change, Error> {
        self.ask(Unreact { channel, seq, emoji }).await
    }

    /// Reads a page of a channel's messages.
    pub async fn history(&self, command: History) -> Result<HistoryReply, Error> {
        self.ask(command).await
    }

    /// Moves the caller's read marker forward.
    pub async fn mark_read(&self, channel: ChannelId, seq: Seq) -> Result<Change, Error> {
        self.ask(MarkRead { channel, seq }).await
    }

    /// Tells the channel's subscribers that the caller is typing. At most once: it fails when
    /// there is no connection.
    pub async fn typing(&self, channel: ChannelId) -> Result<(), Error> {
        self.ask(Typing { channel }).await.map(drop)
    }

    /// Sends the channel's subscribers a value of the application's. At most once.
    pub async fn signal(&self, channel: ChannelId, data: Data) -> Result<(), Error> {
        self.ask(Signal { channel, data }).await.map(drop)
    }

    /// Receives the events of channels, each from after `from` or from now on. The reply has an
    /// outcome for each; [`crate::Events`] gives the events.
    pub async fn subscribe(&self, channels: Vec<ChannelFrom>) -> Result<SubscribeReply, Error> {
        let channels = Channels::These(channels);
        self.ask(Subscribe { channels, incarnation: None }).await
    }

    /// Receives the events of one channel and fails if that one is refused.
    pub async fn subscribe_to(&self, channel: ChannelFrom) -> Result<Subscribed, Error> {
        let reply = self.subscribe(vec![channel]).await?;
        let Some(outcome) = reply.channels.into_iter().next() else {
            return Err(Error::Protocol("no outcome for the channel".to_owned()));
        };
        match outcome.error {
            Some(error) => Err(Error::Refused(error)),
            None => Ok(outcome),
        }
    }

    /// Receives the events of all channels that the caller is a member of, now and later.
    pub async fn subscribe_mine(&self) -> Result<SubscribeReply, Error> {
        self.ask(Subscribe { channels: Channels::Mine, incarnation: None }).await
    }

    /// Goes on where a cursor of [`crate::Events::cursor`] stopped, also one of another process
    /// or another server.
    pub async fn resume(&self, cursor: &Cursor) -> Result<SubscribeReply, Error> {
        let channels =
            cursor.channels.iter().map(|(id, rev)| ChannelFrom { id: *id, from: Some(*rev) });
        let channels = Channels::These(channels.collect());
        self.ask(Subscribe { channels, incarnation: Some(cursor.incarnation) }).await
    }

    /// Stops receiving the events of channels.
    pub async fn unsubscribe(&self, channels: Vec<ChannelId>) -> Result<(), Error> {
        self.ask(Unsubscribe { channels }).await.map(drop)
    }
}
