//! What is wrong with a command can often be told from the command alone: this is that part, the
//! same for every transport. What depends on the channel or the caller is the leader's to say.

use super::{Command, CreateChannel, History};
use crate::{limits, message::ChannelKind, rule, rule::InvalidValue};

impl Command {
    /// Checks what the types of the fields do not: limits on lists and pages, and fields that
    /// exclude or need each other.
    ///
    /// Frames are checked when they are decoded. Whoever builds a command from something else (a
    /// REST route) calls this.
    pub fn check(&self) -> Result<(), InvalidValue> {
        match self {
            Self::CreateChannel(create) => check_create(create),
            Self::ListChannels(list) => check_limit(list.limit),
            Self::ListMembers(list) => check_limit(list.limit),
            Self::History(history) => check_history(history),
            Self::UpdateChannel(update) => {
                ensure(update.slow_mode_ms <= Some(limits::SLOW_MODE_MS_MAX), rule::SLOW_MODE)
            }
            Self::Publish(publish) => {
                ensure(publish.text.is_some() || publish.data.is_some(), rule::MESSAGE_EMPTY)?;
                ensure(publish.mentions.len() <= limits::MENTIONS_MAX, rule::MENTIONS)?;
                ensure(publish.reply_to.is_none_or(|seq| seq.get() > 0), rule::SEQ_ZERO)
            }
            Self::Edit(edit) => {
                ensure(edit.text.is_some() || edit.data.is_some(), rule::EDIT_EMPTY)?;
                ensure(edit.seq.get() > 0, rule::SEQ_ZERO)
            }
            Self::Delete(delete) => ensure(delete.seq.get() > 0, rule::SEQ_ZERO),
            Self::React(react) => ensure(react.seq.get() > 0, rule::SEQ_ZERO),
            Self::Unreact(unreact) => ensure(unreact.seq.get() > 0, rule::SEQ_ZERO),
            Self::Unsubscribe(unsubscribe) => {
                ensure(unsubscribe.channels.len() <= limits::SUBSCRIPTIONS_MAX, rule::SUBSCRIPTIONS)
            }
            Self::Hello(hello) => {
                let channels = hello.resume.as_ref().map_or(0, |cursor| cursor.channels.len());
                ensure(channels <= limits::SUBSCRIPTIONS_MAX, rule::SUBSCRIPTIONS)
            }
            Self::Presence(presence) => {
                let users = presence.users.len();
                ensure((1..=limits::PRESENCE_USERS_MAX).contains(&users), rule::PRESENCE_USERS)
            }
            Self::Refresh(_)
            | Self::Ping(_)
            | Self::Pong(_)
            | Self::GetChannel(_)
            | Self::ArchiveChannel(_)
            | Self::UnarchiveChannel(_)
            | Self::DeleteChannel(_)
            | Self::Join(_)
            | Self::Leave(_)
            | Self::AddMember(_)
            | Self::RemoveMember(_)
            | Self::SetRole(_)
            | Self::MarkRead(_)
            | Self::Typing(_)
            | Self::Signal(_)
            | Self::Subscribe(_) => Ok(()),
        }
    }
}

fn check_create(create: &CreateChannel) -> Result<(), InvalidValue> {
    match create.kind {
        ChannelKind::Public | ChannelKind::Private | ChannelKind::Announcement => {
            ensure(create.name.is_some(), rule::NAME_MISSING)?;
        }
        ChannelKind::Direct => {
            ensure(create.name.is_none(), rule::NAME_REFUSED)?;
            ensure(create.members.len() == 1, rule::DIRECT_MEMBERS)?;
        }
        ChannelKind::Group => ensure(create.name.is_none(), rule::NAME_REFUSED)?,
    }
    ensure(create.members.len() <= limits::INITIAL_MEMBERS_MAX, rule::MEMBERS)
}

fn check_history(history: &History) -> Result<(), InvalidValue> {
    let places = [history.before, history.after, history.around];
    ensure(places.iter().flatten().count() <= 1, rule::PAGE_PLACE)?;
    check_limit(history.limit)
}

fn check_limit(limit: Option<u32>) -> Result<(), InvalidValue> {
    ensure(
        limit.is_none_or(|limit| (1..=limits::PAGE_ITEMS_MAX).contains(&limit)),
        rule::PAGE_LIMIT,
    )
}

fn ensure(holds: bool, rule: InvalidValue) -> Result<(), InvalidValue> {
    if holds { Ok(()) } else { Err(rule) }
}

#[cfg(test)]
mod tests {
    use crate::{
        codec::Encoding,
        rule::{self, InvalidValue},
    };

    fn check(command: &str) -> Option<InvalidValue> {
        let frame = format!(r#"{{"id":1,{command}}}"#);
        match Encoding::Json.decode_client(frame.as_bytes()) {
            Ok(frame) => {
                assert_eq!(frame.command.check(), Ok(()));
                None
            }
            Err(error) => Some(
                *InvalidValue::ALL.iter().find(|rule| error.message.ends_with(rule.rule)).unwrap(),
            ),
        }
    }

    #[test]
    fn what_can_be_told_from_the_command_alone_is_told() {
        let page = |fields: &str| check(&format!(r#""history":{{"channel":"1",{fields}}}"#));
        assert_eq!(page(r#""before":3,"limit":200"#), None);
        assert_eq!(page(r#""before":3,"after":1"#), Some(rule::PAGE_PLACE));
        assert_eq!(page(r#""limit":0"#), Some(rule::PAGE_LIMIT));
        assert_eq!(page(r#""limit":201"#), Some(rule::PAGE_LIMIT));

        let create = |fields: &str| check(&format!(r#""create_channel":{{{fields}}}"#));
        assert_eq!(create(r#""kind":"public","name":"a""#), None);
        assert_eq!(create(r#""kind":"public""#), Some(rule::NAME_MISSING));
        assert_eq!(create(r#""kind":"group","name":"a""#), Some(rule::NAME_REFUSED));
        assert_eq!(create(r#""kind":"direct","members":["1"]"#), None);
        assert_eq!(create(r#""kind":"direct""#), Some(rule::DIRECT_MEMBERS));
        let crowd = vec![r#""1""#; 51].join(",");
        assert_eq!(create(&format!(r#""kind":"group","members":[{crowd}]"#)), Some(rule::MEMBERS));

        let publish = |fields: &str| check(&format!(r#""publish":{{"channel":"1"{fields}}}"#));
        assert_eq!(publish(r#","data":null"#), Some(rule::MESSAGE_EMPTY));
        assert_eq!(publish(r#","data":0"#), None);
        assert_eq!(publish(r#","text":"a","reply_to":0"#), Some(rule::SEQ_ZERO));
        assert_eq!(publish(&format!(r#","text":"a","mentions":[{crowd}]"#)), Some(rule::MENTIONS));

        let presence = |users: &str| check(&format!(r#""presence":{{"users":[{users}]}}"#));
        assert_eq!(presence(r#""1""#), None);
        assert_eq!(presence(""), Some(rule::PRESENCE_USERS));
        assert_eq!(presence(&vec![r#""1""#; 100].join(",")), None);
        assert_eq!(presence(&vec![r#""1""#; 101].join(",")), Some(rule::PRESENCE_USERS));

        let update =
            |fields: &str| check(&format!(r#""update_channel":{{"channel":"1"{fields}}}"#));
        assert_eq!(update(r#","slow_mode_ms":21600000"#), None);
        assert_eq!(update(r#","slow_mode_ms":21600001"#), Some(rule::SLOW_MODE));
        assert_eq!(update(""), None);
        assert_eq!(check(r#""delete":{"channel":"1","seq":0}"#), Some(rule::SEQ_ZERO));
    }
}
