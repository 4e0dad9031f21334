//! Who may do what. A channel that shows itself to members alone is not there for others: they
//! hear the same as of a channel that does not exist.

use chappe_protocol::{
    ErrorCode, Rev, UserId,
    message::{ChannelKind, Role},
};
use chappe_uplink::{Caller, Refusal, Standing};

use super::refuse;
use crate::{channel::ChannelState, row::ChannelRow};

/// A caller in a channel that he may see.
#[derive(Clone, Copy)]
pub(crate) struct Access<'a> {
    pub(crate) meta: &'a ChannelRow,
    caller: UserId,
    standing: Standing,
    /// His membership's role.
    member: Option<Role>,
    /// He sees what happened from this revision on.
    pub(crate) since: Rev,
}

impl<'a> Access<'a> {
    /// The access of `caller`, or `not_found`.
    pub(crate) fn of(state: &'a ChannelState, caller: &Caller) -> Result<Self, Refusal> {
        let meta = state.meta.as_ref().filter(|meta| !meta.deleted);
        let meta = meta.ok_or(refuse(ErrorCode::NotFound))?;
        let member = state.members.get(&caller.user);
        let open = state.is_open() || caller.standing != Standing::User;
        if member.is_none() && !open {
            return Err(refuse(ErrorCode::NotFound));
        }
        let since = if open { Rev::ZERO } else { member.map_or(Rev::ZERO, |m| m.since) };
        let (user, standing) = (caller.user, caller.standing);
        Ok(Self { meta, caller: user, standing, member: member.map(|m| m.role), since })
    }

    /// The role that he acts in, if he may act.
    fn role(&self) -> Option<Role> {
        match self.standing {
            Standing::Admin => Some(Role::Owner),
            // A back end is the owner of what it made, and a guest who may speak elsewhere.
            Standing::Service if self.meta.by == self.caller => Some(Role::Owner),
            Standing::Service => Some(Role::Member),
            Standing::User => self.member,
        }
    }

    /// He must act in at least this role.
    pub(super) fn needs(&self, role: Role) -> Result<(), Refusal> {
        match self.role() {
            None => Err(refuse(ErrorCode::NotAMember)),
            Some(his) if his.includes(role) => Ok(()),
            Some(_) => Err(refuse(ErrorCode::Forbidden)),
        }
    }

    /// Whether he acts in at least this role.
    pub(super) fn has(&self, role: Role) -> bool {
        self.needs(role).is_ok()
    }

    /// He must be able to publish here.
    pub(super) fn needs_voice(&self) -> Result<(), Refusal> {
        match (self.standing, self.meta.kind) {
            (Standing::Service, _) => Ok(()),
            (_, ChannelKind::Announcement) => self.needs(Role::Moderator),
            _ => self.needs(Role::Member),
        }
    }

    /// Slow mode holds for members alone.
    pub(super) fn is_slowed(&self) -> bool {
        self.standing == Standing::User && !self.has(Role::Moderator) && self.meta.slow_mode_ms > 0
    }

    /// The channel must take messages.
    pub(super) fn needs_active(&self) -> Result<(), Refusal> {
        if self.meta.archived { Err(refuse(ErrorCode::ChannelArchived)) } else { Ok(()) }
    }

    /// The channel must not be a direct one: those have no settings and no other members.
    pub(super) fn needs_settings(&self) -> Result<(), Refusal> {
        match self.meta.kind {
            ChannelKind::Direct => Err(refuse(ErrorCode::WrongKind)),
            _ => Ok(()),
        }
    }

    /// Whether he may give or take this role.
    pub(super) fn needs_to_name(&self, role: Role) -> Result<(), Refusal> {
        self.needs(match role {
            Role::Owner | Role::Admin => Role::Owner,
            Role::Moderator => Role::Admin,
            Role::Member => Role::Moderator,
        })
    }
}

/// Whether a caller may tell a channel's subscribers something ephemeral.
pub(crate) fn may_signal(state: &ChannelState, caller: &Caller) -> Result<(), Refusal> {
    let access = Access::of(state, caller)?;
    access.needs_voice()?;
    access.needs_active()
}
