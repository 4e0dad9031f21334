//! Who is connected: asked of the gateway's presence, not of a leader.

use chappe_protocol::{
    ErrorCode, UserId,
    reply::{PresenceReply, PresenceState, Reply, UserPresence},
};

use super::{Session, command::coded, operation::Work};
use crate::{
    desk::{Desk, Effect},
    presence::Found,
};

impl Session {
    /// Asks which users are connected.
    pub(super) fn ask_presence(&mut self, desk: &mut Desk, frame: Option<u32>, users: Vec<UserId>) {
        let serial = self.begin(desk, frame, Work::Presence(users.clone()));
        desk.ask(Effect::LookUp { peer: self.peer, serial, users });
    }

    /// Takes what was found out.
    pub(crate) fn handle_presence(&mut self, desk: &mut Desk, serial: u64, found: Found) {
        let Some(place) = self.find(serial) else { return };
        let Work::Presence(users) = &self.operations[place].work else { return };
        let state = |at: usize| match &found {
            Found::Online(online) => match online.get(at) {
                Some(true) => PresenceState::Online,
                Some(false) => PresenceState::Offline,
                None => PresenceState::Unknown,
            },
            Found::Unknown | Found::Overloaded => PresenceState::Unknown,
        };
        let users = users.iter().enumerate();
        let users =
            users.map(|(at, user)| UserPresence { user: *user, presence: state(at) }).collect();
        let result = match found {
            Found::Overloaded => Err(coded(ErrorCode::Overloaded)),
            Found::Online(_) | Found::Unknown => Ok(Reply::Presence(PresenceReply { users })),
        };
        self.finish(desk, serial, result);
    }
}
