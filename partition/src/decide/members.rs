//! Members: joining, leaving, adding, removing, roles.

use chappe_protocol::{
    ChannelId, ErrorCode, UserId,
    limits::GROUP_MEMBERS_MAX,
    message::{ChannelKind, Role},
};
use chappe_uplink::{Refusal, Standing};

use super::{Access, Asked, Channel, Decided, fact, nothing, refuse};
use crate::{
    channel::ChannelState,
    record::{MemberAdded, MemberRemoved, RoleSet},
};

pub(super) fn join(channel: &Channel<'_>, asked: &Asked<'_>) -> Decided {
    let caller = &asked.command.caller;
    let access = Access::of(channel.state, caller)?;
    access.needs_settings()?;
    if caller.standing == Standing::Service {
        return Err(refuse(ErrorCode::Forbidden)); // a back end is never a member
    }
    if channel.state.members.contains_key(&caller.user) {
        return nothing(None);
    }
    needs_room(channel.state, asked)?;
    fact(MemberAdded { user: caller.user, role: Role::Member, name: caller.name.clone() })
}

pub(super) fn leave(channel: &Channel<'_>, asked: &Asked<'_>) -> Decided {
    let caller = &asked.command.caller;
    let access = Access::of(channel.state, caller)?;
    access.needs_settings()?;
    if !channel.state.members.contains_key(&caller.user) {
        return Err(refuse(ErrorCode::NotAMember));
    }
    keeps_an_owner(channel.state, caller.user, None)?;
    fact(MemberRemoved { user: caller.user })
}

pub(super) fn add(channel: &Channel<'_>, asked: &Asked<'_>, user: UserId, role: Role) -> Decided {
    let caller = &asked.command.caller;
    let access = Access::of(channel.state, caller)?;
    access.needs_settings()?;
    access.needs_to_name(role)?;
    if ChannelId::inbox(user).get() == user.get() {
        return Err(refuse(ErrorCode::Invalid).because("a member is not a user"));
    }
    if channel.state.members.contains_key(&user) {
        return nothing(None);
    }
    needs_room(channel.state, asked)?;
    let name = caller.name.clone().filter(|_| user == caller.user);
    fact(MemberAdded { user, role, name })
}

pub(super) fn remove(channel: &Channel<'_>, asked: &Asked<'_>, user: UserId) -> Decided {
    let caller = &asked.command.caller;
    let access = Access::of(channel.state, caller)?;
    access.needs_settings()?;
    let member = channel.state.members.get(&user);
    if user != caller.user || member.is_none() {
        access.needs_to_name(member.map_or(Role::Member, |member| member.role))?;
    }
    if member.is_none() {
        return nothing(None);
    }
    keeps_an_owner(channel.state, user, None)?;
    fact(MemberRemoved { user })
}

pub(super) fn set_role(
    channel: &Channel<'_>,
    asked: &Asked<'_>,
    user: UserId,
    role: Role,
) -> Decided {
    let caller = &asked.command.caller;
    let access = Access::of(channel.state, caller)?;
    access.needs_settings()?;
    let member = channel.state.members.get(&user);
    let present = member.map_or(Role::Member, |member| member.role);
    // Anyone may step down.
    if user != caller.user || !present.includes(role) || member.is_none() {
        access.needs_to_name(present)?;
        access.needs_to_name(role)?;
    }
    let Some(member) = member else { return Err(refuse(ErrorCode::NotFound)) };
    if present == role {
        return nothing(None);
    }
    keeps_an_owner(channel.state, user, Some(role))?;
    fact(RoleSet { user, role, name: member.name.clone(), since: member.since })
}

fn needs_room(state: &ChannelState, asked: &Asked<'_>) -> Result<(), Refusal> {
    let group = state.meta.as_ref().is_some_and(|meta| meta.kind == ChannelKind::Group);
    let most = if group { GROUP_MEMBERS_MAX } else { asked.members_max };
    let full = state.members.len() >= most;
    if full { Err(refuse(ErrorCode::TooManyMembers)) } else { Ok(()) }
}

/// Refuses what would leave members without an owner: `user` goes, or gets `role`.
fn keeps_an_owner(state: &ChannelState, user: UserId, role: Option<Role>) -> Result<(), Refusal> {
    let owns = |member: &crate::channel::MemberState| member.role == Role::Owner;
    let leaves = state.members.get(&user).is_some_and(owns) && role != Some(Role::Owner);
    if !leaves {
        return Ok(());
    }
    let alone = role.is_none() && state.members.len() == 1;
    let another = state.members.iter().any(|(other, member)| *other != user && owns(member));
    if alone || another { Ok(()) } else { Err(refuse(ErrorCode::LastOwner)) }
}
