//! A channel's settings: changing them, archiving, deleting.

use chappe_protocol::{
    ErrorCode,
    command::UpdateChannel,
    limits::SLOW_MODE_MS_MAX,
    message::{ChannelKind, Role},
};

use super::{Access, Asked, Channel, Decided, Need, Verdict, fact, nothing, refuse};
use crate::record::{Archived, Deleted, Unarchived, Updated};

pub(super) fn update(channel: &Channel<'_>, asked: &Asked<'_>, update: &UpdateChannel) -> Decided {
    let access = Access::of(channel.state, &asked.command.caller)?;
    access.needs_settings()?;
    access.needs(Role::Admin)?;
    let meta = access.meta;
    if update.name.is_some() && meta.kind == ChannelKind::Group {
        return Err(refuse(ErrorCode::WrongKind));
    }
    if update.slow_mode_ms.is_some_and(|interval| interval > SLOW_MODE_MS_MAX) {
        return Err(refuse(ErrorCode::Invalid).because("slow mode is at most six hours"));
    }
    let name = update.name.clone().filter(|name| meta.name.as_ref() != Some(name));
    let present = meta.topic.as_ref().map_or("", |topic| topic.as_str());
    let topic = update.topic.clone().filter(|topic| topic.as_str() != present);
    let slow_mode_ms = update.slow_mode_ms.filter(|interval| *interval != meta.slow_mode_ms);
    if name.is_none() && topic.is_none() && slow_mode_ms.is_none() {
        return nothing(None);
    }
    let mut freed = None;
    if let Some(new) = &name {
        let folded = new.folded();
        let old = meta.name.as_ref();
        // Another spelling of the same name is the channel's own already.
        if old.map(chappe_protocol::ChannelName::folded).as_ref() != Some(&folded) {
            match &asked.named {
                Some(named) if named.name == folded => {
                    if !named.ours {
                        return Err(refuse(ErrorCode::NameTaken));
                    }
                }
                _ => return Ok(Verdict::Need(Need::Name(new.clone()))),
            }
            freed = old.cloned();
        }
    }
    fact(Updated { name, topic, slow_mode_ms, freed })
}

pub(super) fn archive(channel: &Channel<'_>, asked: &Asked<'_>, archive: bool) -> Decided {
    let access = Access::of(channel.state, &asked.command.caller)?;
    access.needs_settings()?;
    access.needs(Role::Admin)?;
    match (archive, access.meta.archived) {
        (true, false) => fact(Archived {}),
        (false, true) => fact(Unarchived {}),
        _ => nothing(None),
    }
}

pub(super) fn delete(channel: &Channel<'_>, asked: &Asked<'_>) -> Decided {
    let access = Access::of(channel.state, &asked.command.caller)?;
    access.needs_settings()?;
    access.needs(Role::Owner)?;
    fact(Deleted { freed: access.meta.name.clone() })
}
