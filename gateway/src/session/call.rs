//! One command without a connection: a session that begins with it and ends with its answer.

use std::fmt;

use chappe_protocol::{ChannelId, Command, ErrorCode, UserId, WireError, reply::Reply};
use chappe_uplink::{Action, Standing};

use super::{Phase, Session, command::Sending, command::coded};
use crate::{
    auth::{Identity, Verdict},
    desk::Desk,
    frontend::Call,
    limits::Address,
};

/// What a call asks for.
pub(crate) enum Errand {
    /// A command.
    Command(Box<Call>),
    /// The end of a user's sessions.
    CloseSessions {
        /// The token of who asks.
        token: String,
        /// Whose.
        user: UserId,
    },
}

impl fmt::Debug for Errand {
    /// Without the token, which belongs into no log.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Command(call) => call.fmt(f),
            Self::CloseSessions { user, .. } => {
                f.debug_struct("CloseSessions").field("user", user).finish_non_exhaustive()
            }
        }
    }
}

impl Errand {
    /// The token of who asks.
    pub(crate) fn token(&self) -> &str {
        match self {
            Self::Command(call) => &call.token,
            Self::CloseSessions { token, .. } => token,
        }
    }

    /// Who asks; or nobody, and why; or nothing yet, because keys are needed.
    pub(crate) fn identify(&self, desk: &Desk) -> Option<Result<Identity, WireError>> {
        match desk.auth.verify(self.token(), desk.now) {
            Verdict::Accepted(identity) => Some(Ok(identity)),
            Verdict::Refused(code) => Some(Err(coded(code))),
            Verdict::KeysNeeded => None,
        }
    }
}

impl Session {
    /// A session for one call, numbered `call`.
    pub(crate) fn for_call(
        peer: u32,
        address: Address,
        desk: &mut Desk,
        call: u64,
        identity: Identity,
    ) -> Self {
        let mut session = Self::new(peer, address, desk);
        session.phase = Phase::Open;
        session.caller = Some(identity.caller);
        session.call = Some(call);
        session
    }

    /// Carries a call out.
    pub(crate) fn run(&mut self, desk: &mut Desk, errand: Errand) {
        match errand {
            Errand::Command(call) => self.run_command(desk, *call),
            Errand::CloseSessions { user, .. } => self.run_close(desk, user),
        }
    }

    fn run_command(&mut self, desk: &mut Desk, call: Call) {
        let Call { nonce, age_ms, command, .. } = call;
        if let Err(invalid) = command.check() {
            return self.reply(desk, None, Err(invalid.into()));
        }
        if let Some(error) = self.over_limits(desk, &command) {
            return self.reply(desk, None, Err(error));
        }
        match command {
            Command::Hello(_)
            | Command::Refresh(_)
            | Command::Ping(_)
            | Command::Pong(_)
            | Command::Subscribe(_)
            | Command::Unsubscribe(_) => {
                self.reply(desk, None, Err(coded(ErrorCode::UnknownCommand)));
            }
            Command::Presence(presence) => self.ask_presence(desk, None, presence.users),
            command => self.ask_leader(desk, Sending { frame: None, nonce, age_ms }, command),
        }
    }

    fn run_close(&mut self, desk: &mut Desk, user: UserId) {
        let allowed = self.caller.as_ref().is_some_and(|caller| caller.standing != Standing::User);
        if !allowed {
            return self.reply(desk, None, Err(coded(ErrorCode::Forbidden)));
        }
        let sending = Sending { frame: None, nonce: None, age_ms: 0 };
        let action = Action::CloseSessions { session: None };
        self.change(desk, sending, ChannelId::inbox(user), action);
    }

    fn over_limits(&mut self, desk: &Desk, command: &Command) -> Option<WireError> {
        let caller = self.caller.as_ref()?;
        if caller.standing == Standing::Service {
            return None;
        }
        let now_ms = desk.now.boot_ms;
        let charged =
            desk.gate.charge(&mut self.bucket, caller.user, self.address, command, now_ms);
        charged.err().map(|wait_ms| coded(ErrorCode::RateLimited).retry_after(wait_ms))
    }
}

/// What a call is answered with.
pub(crate) type Answered = Result<Reply, WireError>;
