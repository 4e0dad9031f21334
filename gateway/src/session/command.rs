//! From a command to what is done about it: the one place that knows them all.

use chappe_protocol::{
    ChannelId, ClientFrame, Command, ErrorCode, Nonce, WireError,
    command::{ChannelRef, Channels, CreateChannel},
    limits,
    message::{ChannelKind, Role},
    reply::{Done, Reply},
};
use chappe_uplink::{Action, Caller, ReadQuery};

use super::{
    Session,
    operation::{Membership, Read, Work},
};
use crate::desk::Desk;

/// How a command that changes a channel was sent.
pub(super) struct Sending {
    pub(super) frame: Option<u32>,
    pub(super) nonce: Option<Nonce>,
    pub(super) age_ms: u64,
}

impl Session {
    /// Carries out a command of a session that is signed in.
    pub(super) fn execute(&mut self, desk: &mut Desk, frame: ClientFrame) {
        let ClientFrame { id, nonce, age_ms, command } = frame;
        let sending = Sending { frame: Some(id), nonce, age_ms };
        match command {
            Command::Hello(hello) => self.handle_late_hello(desk, id, hello),
            Command::Refresh(refresh) => self.handle_refresh(desk, Some(id), refresh.token),
            Command::Pong(_) => {}
            Command::Ping(_) => self.reply(desk, Some(id), Ok(Reply::Done(Done {}))),
            Command::Presence(presence) => self.ask_presence(desk, Some(id), presence.users),
            Command::Subscribe(subscribe) => match subscribe.channels {
                Channels::Mine => self.subscribe_mine(desk, id),
                Channels::These(channels) => {
                    self.subscribe_these(desk, id, subscribe.incarnation, &channels);
                }
            },
            Command::Unsubscribe(unsubscribe) => {
                self.unsubscribe(desk, &unsubscribe.channels);
                self.reply(desk, Some(id), Ok(Reply::Done(Done {})));
            }
            command => self.ask_leader(desk, sending, command),
        }
    }

    /// Carries out a command that a leader answers.
    pub(super) fn ask_leader(&mut self, desk: &mut Desk, sending: Sending, command: Command) {
        let frame = sending.frame;
        if desk.hub.uplink.is_full() {
            return self.refuse_with(desk, frame, ErrorCode::Overloaded);
        }
        let Some(caller) = self.caller.clone() else { return };
        match command {
            Command::GetChannel(get) => self.get_channel(desk, frame, get.channel),
            Command::ListChannels(list) => {
                let limit = list.limit.unwrap_or(limits::PAGE_ITEMS_DEFAULT);
                let query = ReadQuery::MyChannels { after: list.after, limit };
                self.read(desk, frame, Some(ChannelId::inbox(caller.user)), query);
            }
            Command::ListMembers(list) => {
                let limit = list.limit.unwrap_or(limits::PAGE_ITEMS_DEFAULT);
                let query = ReadQuery::Members { after: list.after, limit };
                self.read(desk, frame, Some(list.channel), query);
            }
            Command::History(history) => {
                self.read(desk, frame, Some(history.channel), ReadQuery::Messages(history));
            }
            Command::Typing(typing) => self.signal(desk, frame, typing.channel, None),
            Command::Signal(signal) => {
                self.signal(desk, frame, signal.channel, Some(signal.data));
            }
            Command::CreateChannel(create) => self.create(desk, sending, &caller, create),
            command => match action(command, &caller) {
                Some((channel, action)) => self.change(desk, sending, channel, action),
                None => self.refuse_with(desk, frame, ErrorCode::UnknownCommand),
            },
        }
    }

    fn get_channel(&mut self, desk: &mut Desk, frame: Option<u32>, channel: ChannelRef) {
        match channel {
            ChannelRef::Id(channel) => {
                self.read(desk, frame, Some(channel), ReadQuery::Channel);
            }
            ChannelRef::Name(name) => self.read(desk, frame, None, ReadQuery::Resolve(name)),
        }
    }

    pub(super) fn read(
        &mut self,
        desk: &mut Desk,
        frame: Option<u32>,
        channel: Option<ChannelId>,
        query: ReadQuery,
    ) {
        let serial = self.begin(desk, frame, Work::Read(Box::new(Read { channel, query })));
        self.send(desk, serial);
    }

    fn signal(
        &mut self,
        desk: &mut Desk,
        frame: Option<u32>,
        channel: ChannelId,
        data: Option<chappe_protocol::Data>,
    ) {
        let serial = self.begin(desk, frame, Work::Signal(Box::new((channel, data))));
        self.send(desk, serial);
    }

    /// A new channel's id comes from its maker and the nonce, a direct one's from the pair, so
    /// that a create that is sent again meets itself.
    fn create(
        &mut self,
        desk: &mut Desk,
        sending: Sending,
        caller: &Caller,
        create: CreateChannel,
    ) {
        let sending = Sending { nonce: Some(self.nonce_of(desk, &sending)), ..sending };
        let channel = match (create.kind, create.members.first(), &sending.nonce) {
            (ChannelKind::Direct, Some(other), _) => ChannelId::direct(caller.user, *other),
            (_, _, Some(nonce)) => ChannelId::created_by(caller.user, nonce.as_str()),
            (_, _, None) => return,
        };
        self.change(desk, sending, channel, Action::Create(create));
    }
}

/// What a command does to which channel; none for those that change none.
fn action(command: Command, caller: &Caller) -> Option<(ChannelId, Action)> {
    Some(match command {
        Command::UpdateChannel(update) => (update.channel, Action::Update(update)),
        Command::ArchiveChannel(archive) => (archive.channel, Action::Archive),
        Command::UnarchiveChannel(unarchive) => (unarchive.channel, Action::Unarchive),
        Command::DeleteChannel(delete) => (delete.channel, Action::DeleteChannel),
        Command::Join(join) => (join.channel, Action::Join),
        Command::Leave(leave) => (leave.channel, Action::Leave),
        Command::AddMember(add) => {
            let role = add.role.unwrap_or(Role::Member);
            (add.channel, Action::AddMember { user: add.user, role })
        }
        Command::RemoveMember(remove) => {
            (remove.channel, Action::RemoveMember { user: remove.user })
        }
        Command::SetRole(set) => (set.channel, Action::SetRole { user: set.user, role: set.role }),
        Command::Publish(publish) => (publish.channel, Action::Publish(publish)),
        Command::Edit(edit) => (edit.channel, Action::Edit(edit)),
        Command::Delete(delete) => (delete.channel, Action::Delete { seq: delete.seq }),
        Command::React(react) => (react.channel, Action::React(react)),
        Command::Unreact(unreact) => (unreact.channel, Action::Unreact(unreact)),
        Command::MarkRead(mark) => (ChannelId::inbox(caller.user), Action::MarkRead(mark)),
        Command::Hello(_)
        | Command::Refresh(_)
        | Command::Ping(_)
        | Command::Pong(_)
        | Command::CreateChannel(_)
        | Command::GetChannel(_)
        | Command::ListChannels(_)
        | Command::ListMembers(_)
        | Command::History(_)
        | Command::Typing(_)
        | Command::Signal(_)
        | Command::Presence(_)
        | Command::Subscribe(_)
        | Command::Unsubscribe(_) => return None,
    })
}

/// What the caller's inbox will show of an action.
pub(super) fn settles(action: &Action) -> Option<Membership> {
    match action {
        Action::Create(_) | Action::Join => Some(Membership::Member),
        Action::Leave => Some(Membership::NoMember),
        _ => None,
    }
}

/// A refusal in the words of its code.
pub(super) fn coded(code: ErrorCode) -> WireError {
    WireError::new(code)
}
