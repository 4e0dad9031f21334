//! What facts make of a channel's settings and of its members.

use chappe_protocol::UserId;

use crate::{
    record::{Created, Fact, FactBody},
    row::{ChannelRow, MemberRow},
};

/// The settings of the channel that `fact` made.
pub(crate) fn created_channel(fact: &Fact, body: &Created) -> ChannelRow {
    ChannelRow {
        kind: body.kind,
        name: body.name.clone(),
        topic: body.topic.clone().filter(|topic| !topic.is_empty()),
        slow_mode_ms: 0,
        archived: false,
        deleted: false,
        by: fact.by,
        at: fact.mark.ts,
        members: body.members.len() as u32,
        digest: fact.digest,
    }
}

/// Changes a channel's settings by a later fact.
pub(crate) fn change_channel(row: &mut ChannelRow, fact: &Fact) {
    match &fact.body {
        FactBody::Updated(body) => {
            if body.name.is_some() {
                row.name.clone_from(&body.name);
            }
            if let Some(topic) = &body.topic {
                row.topic = Some(topic.clone()).filter(|topic| !topic.is_empty());
            }
            row.slow_mode_ms = body.slow_mode_ms.unwrap_or(row.slow_mode_ms);
        }
        FactBody::Archived(_) => row.archived = true,
        FactBody::Unarchived(_) => row.archived = false,
        FactBody::Deleted(_) => {
            row.deleted = true;
            row.name = None;
            row.topic = None;
        }
        FactBody::MemberAdded(_) => row.members += 1,
        FactBody::MemberRemoved(_) => row.members = row.members.saturating_sub(1),
        _ => {}
    }
}

/// What `fact` makes of a member's row; none if it needed a row and there is none.
pub(super) fn member(fact: &Fact, user: UserId, old: Option<MemberRow>) -> Option<MemberRow> {
    let added =
        |role, name| MemberRow { role, since: fact.rev, name, removed: None, published_tick: None };
    match &fact.body {
        FactBody::Created(body) => {
            let member = body.members.iter().find(|member| member.user == user)?;
            Some(added(member.role, member.name.clone()))
        }
        FactBody::MemberAdded(body) => Some(added(body.role, body.name.clone())),
        FactBody::MemberRemoved(_) => Some(MemberRow { removed: Some(fact.rev), ..old? }),
        FactBody::RoleSet(body) => Some(MemberRow { role: body.role, ..old? }),
        FactBody::Message(_) => Some(MemberRow { published_tick: Some(fact.mark.tick), ..old? }),
        _ => None,
    }
}
