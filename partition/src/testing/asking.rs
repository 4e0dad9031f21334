//! Requests as a script writes them: by a label, which is also the nonce.

use chappe_protocol::{
    ChannelId, ChannelName, Emoji, Incarnation, Nonce, Rev, Seq, SessionId, Text, UserId,
    command::{CreateChannel, Edit, History, Publish, React, Unreact},
    message::{ChannelKind, Role},
};
use chappe_uplink::{Action, Attach, Caller, Command, Read, ReadQuery, Request, Signal, Standing};

use super::World;

/// Somebody at a broker. Pipe and session have the user's number.
#[derive(Debug, Clone)]
pub struct Asker {
    /// The broker.
    pub node: usize,
    /// Who.
    pub user: u64,
    /// His standing.
    pub standing: Standing,
    /// The pipe that he asks on.
    pub pipe: u64,
    /// The attempt of his commands.
    pub attempt: u32,
    /// The age of his commands.
    pub age_ms: u64,
}

/// A message's text.
pub fn text(text: &str) -> Text {
    Text::parse(text).unwrap_or_else(|_| panic!("not a text"))
}

impl Asker {
    /// A user at a broker.
    pub const fn new(node: usize, user: u64) -> Self {
        Self { node, user, standing: Standing::User, pipe: user, attempt: 0, age_ms: 0 }
    }

    /// A command as it would be sent.
    pub fn command_of(&self, label: &str, channel: ChannelId, action: Action) -> Command {
        Command {
            token: 0,
            caller: self.caller(),
            session: SessionId::new(self.user),
            attempt: self.attempt,
            position: 0,
            channel,
            nonce: Nonce::parse(label).unwrap_or_else(|_| panic!("not a nonce")),
            client_nonce: true,
            age_ms: self.age_ms,
            action,
        }
    }

    /// Sends a command.
    pub fn command(&self, world: &mut World, label: &str, channel: ChannelId, action: Action) {
        let command = self.command_of(label, channel, action);
        self.send_command(world, label, command);
    }

    /// Sends a command whose label is not its nonce.
    pub fn send_command(&self, world: &mut World, label: &str, mut command: Command) {
        command.token = self.label(world, label);
        world.send(self.node, self.pipe, Request::Command(Box::new(command)));
    }

    /// Makes a public channel whose id comes from `label`.
    pub fn create(&self, world: &mut World, label: &str) -> ChannelId {
        self.create_kind(world, label, ChannelKind::Public, &[])
    }

    /// Makes a channel whose id comes from `label`; named, if its kind is, like its label.
    pub fn create_kind(
        &self,
        world: &mut World,
        label: &str,
        kind: ChannelKind,
        members: &[u64],
    ) -> ChannelId {
        let named = !matches!(kind, ChannelKind::Direct | ChannelKind::Group);
        let name = named.then(|| ChannelName::parse(label).unwrap_or_else(|_| panic!("no name")));
        let members: Vec<_> = members.iter().map(|user| UserId::new(*user)).collect();
        let user = UserId::new(self.user);
        let channel = match (kind, members.first()) {
            (ChannelKind::Direct, Some(other)) => ChannelId::direct(user, *other),
            _ => ChannelId::created_by(user, label),
        };
        let create = CreateChannel { kind, name, topic: None, members };
        self.command(world, label, channel, Action::Create(create));
        channel
    }

    /// Publishes a text.
    pub fn publish(&self, world: &mut World, label: &str, channel: ChannelId, says: &str) {
        self.command(world, label, channel, publish_of(channel, says, &[]));
    }

    /// Publishes a text that mentions users.
    pub fn mention(&self, world: &mut World, label: &str, channel: ChannelId, users: &[u64]) {
        self.command(world, label, channel, publish_of(channel, "you", users));
    }

    /// Changes a message's text.
    pub fn edit(&self, world: &mut World, label: &str, channel: ChannelId, seq: u64, says: &str) {
        let edit = Edit { channel, seq: Seq::new(seq), text: Some(text(says)), data: None };
        self.command(world, label, channel, Action::Edit(edit));
    }

    /// Deletes a message.
    pub fn delete(&self, world: &mut World, label: &str, channel: ChannelId, seq: u64) {
        self.command(world, label, channel, Action::Delete { seq: Seq::new(seq) });
    }

    /// Reacts to a message.
    pub fn react(&self, world: &mut World, label: &str, channel: ChannelId, seq: u64, emoji: &str) {
        let emoji = Emoji::parse(emoji).unwrap_or_else(|_| panic!("no emoji"));
        let react = React { channel, seq: Seq::new(seq), emoji };
        self.command(world, label, channel, Action::React(react));
    }

    /// Takes a reaction back.
    pub fn unreact(
        &self,
        world: &mut World,
        label: &str,
        channel: ChannelId,
        seq: u64,
        emoji: &str,
    ) {
        let emoji = Emoji::parse(emoji).unwrap_or_else(|_| panic!("no emoji"));
        let unreact = Unreact { channel, seq: Seq::new(seq), emoji };
        self.command(world, label, channel, Action::Unreact(unreact));
    }

    /// Adds a member.
    pub fn add(&self, world: &mut World, label: &str, channel: ChannelId, user: u64, role: Role) {
        self.command(world, label, channel, Action::AddMember { user: UserId::new(user), role });
    }

    /// Removes a member.
    pub fn remove(&self, world: &mut World, label: &str, channel: ChannelId, user: u64) {
        self.command(world, label, channel, Action::RemoveMember { user: UserId::new(user) });
    }

    /// Attaches, from a revision of incarnation 1 or from now.
    pub fn attach(&self, world: &mut World, label: &str, channel: ChannelId, from: Option<u64>) {
        let from = from.map(|rev| (Incarnation(1), Rev::new(rev)));
        self.attach_from(world, label, channel, from);
    }

    /// Attaches from anywhere.
    pub fn attach_from(
        &self,
        world: &mut World,
        label: &str,
        channel: ChannelId,
        from: Option<(Incarnation, Rev)>,
    ) {
        let token = self.label(world, label);
        let attach = Attach { token, channel, caller: Some(self.caller()), from };
        world.send(self.node, self.pipe, Request::Attach(attach));
    }

    /// Reads.
    pub fn read(&self, world: &mut World, label: &str, channel: ChannelId, query: ReadQuery) {
        let token = self.label(world, label);
        let caller = Some(self.caller());
        let read = Read { token, caller, channel, at_least: Rev::ZERO, query };
        world.send(self.node, self.pipe, Request::Read(read));
    }

    /// Reads the newest messages.
    pub fn history(&self, world: &mut World, label: &str, channel: ChannelId) {
        let history = History { channel, before: None, after: None, around: None, limit: None };
        self.read(world, label, channel, ReadQuery::Messages(history));
    }

    /// Reads events.
    pub fn events(&self, world: &mut World, label: &str, channel: ChannelId, after: u64) {
        let query = ReadQuery::Events { after: Rev::new(after), limit: 100 };
        self.read(world, label, channel, query);
    }

    /// Tells those who hear the channel that he is typing.
    pub fn typing(&self, world: &mut World, label: &str, channel: ChannelId) {
        let token = self.label(world, label);
        let signal = Signal { token, caller: self.caller(), channel, data: None };
        world.send(self.node, self.pipe, Request::Signal(signal));
    }

    /// Who asks.
    pub fn caller(&self) -> Caller {
        Caller { user: UserId::new(self.user), name: None, standing: self.standing }
    }

    fn label(&self, world: &mut World, label: &str) -> u64 {
        let token = world.token();
        world.trace.labels.insert(token, label.to_owned());
        token
    }
}

fn publish_of(channel: ChannelId, says: &str, users: &[u64]) -> Action {
    Action::Publish(Publish {
        channel,
        text: Some(text(says)),
        data: None,
        reply_to: None,
        mentions: users.iter().map(|user| UserId::new(*user)).collect(),
    })
}
