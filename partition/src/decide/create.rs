//! Making a channel.

use std::sync::Arc;

use chappe_protocol::{
    ChannelId, ErrorCode, Rev, UserId,
    command::CreateChannel,
    limits::{GROUP_MEMBERS_MAX, INITIAL_MEMBERS_MAX},
    message::{ChannelKind, Role},
    reply::Change,
};
use chappe_uplink::{Caller, Standing};

use super::{Asked, Channel, Decided, Need, Verdict, fact, refuse};
use crate::{
    record::{Created, NewMember},
    row::ChannelRow,
};

pub(super) fn create(channel: &Channel<'_>, asked: &Asked<'_>, create: &CreateChannel) -> Decided {
    let caller = &asked.command.caller;
    let others = others(caller.user, &create.members);
    check(asked, create, &others)?;
    if let Some(meta) = &channel.state.meta {
        return met(asked, create, meta);
    }
    if let Some(name) = &create.name {
        match &asked.named {
            Some(named) if named.name == name.folded() => {
                if !named.ours {
                    return Err(refuse(ErrorCode::NameTaken));
                }
            }
            _ => return Ok(Verdict::Need(Need::Name(name.clone()))),
        }
    }
    fact(Created {
        kind: create.kind,
        name: create.name.clone(),
        topic: create.topic.clone(),
        members: members(caller, create.kind, others),
    })
}

/// The members beside the caller, each once.
fn others(caller: UserId, members: &[UserId]) -> Vec<UserId> {
    let mut others: Vec<UserId> = Vec::with_capacity(members.len());
    for user in members {
        if *user != caller && !others.contains(user) {
            others.push(*user);
        }
    }
    others
}

fn check(
    asked: &Asked<'_>,
    create: &CreateChannel,
    others: &[UserId],
) -> Result<(), chappe_uplink::Refusal> {
    let command = asked.command;
    let invalid = |why| Err(refuse(ErrorCode::Invalid).because(why));
    if create.members.len() > INITIAL_MEMBERS_MAX {
        return invalid("a channel is made with at most 50 members");
    }
    if others.iter().any(|user| ChannelId::inbox(*user).get() == user.get()) {
        return invalid("a member is not a user");
    }
    let named = matches!(
        create.kind,
        ChannelKind::Public | ChannelKind::Private | ChannelKind::Announcement
    );
    if named != create.name.is_some() {
        let why = if named { "it needs a name" } else { "channels of this kind have no name" };
        return invalid(why);
    }
    let caller = command.caller.user;
    let expected = match (create.kind, others) {
        (ChannelKind::Direct, [other]) => {
            if create.topic.is_some() {
                return invalid("a direct channel has no topic");
            }
            if command.caller.standing == Standing::Service {
                return Err(refuse(ErrorCode::Forbidden)); // it is never a member
            }
            ChannelId::direct(caller, *other)
        }
        (ChannelKind::Direct, _) => {
            return invalid("a direct channel has exactly one member beside the caller");
        }
        (ChannelKind::Group, others) if others.len() >= GROUP_MEMBERS_MAX => {
            return Err(refuse(ErrorCode::TooManyMembers));
        }
        _ => ChannelId::created_by(caller, &command.nonce),
    };
    if expected == command.channel { Ok(()) } else { invalid("the id is not this channel's") }
}

/// The channel exists. A direct one is there for both; any other only for the command that made
/// it, when its nonce is long forgotten.
fn met(asked: &Asked<'_>, create: &CreateChannel, meta: &ChannelRow) -> Decided {
    let direct = create.kind == ChannelKind::Direct && meta.kind == ChannelKind::Direct;
    let same = meta.by == asked.command.caller.user && meta.digest == asked.digest;
    if !direct && !same {
        return Err(refuse(ErrorCode::NonceReused));
    }
    let (channel, at) = (asked.command.channel, meta.at);
    Ok(Verdict::Again(Change { channel, rev: Rev::new(1), seq: None, at, inbox: None }))
}

fn members(caller: &Caller, kind: ChannelKind, others: Vec<UserId>) -> Vec<NewMember> {
    let named: Option<Arc<str>> = caller.name.clone();
    let first = match (caller.standing, kind) {
        (Standing::Service, _) => None,
        (_, ChannelKind::Direct) => Some(Role::Member),
        _ => Some(Role::Owner),
    };
    let first = first.map(|role| NewMember { user: caller.user, role, name: named });
    let others = others.into_iter();
    let others = others.map(|user| NewMember { user, role: Role::Member, name: None });
    first.into_iter().chain(others).collect()
}
