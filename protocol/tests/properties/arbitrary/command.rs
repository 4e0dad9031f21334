//! Arbitrary client frames, every command among them.

use chappe_protocol::{ClientFrame, Command, command::*, message::ChannelKind};
use proptest::{collection::vec, option, prelude::*};

use super::*;

pub(crate) fn client_frame() -> impl Strategy<Value = ClientFrame> {
    (any::<u32>(), option::of(nonce()), any::<u64>(), command())
        .prop_map(|(id, nonce, age_ms, command)| ClientFrame { id, nonce, age_ms, command })
}

pub(crate) fn command() -> impl Strategy<Value = Command> {
    prop_oneof![about_session(), about_channels(), about_members(), about_messages()]
}

fn about_session() -> impl Strategy<Value = Command> {
    let from = (channel_id(), option::of(rev())).prop_map(|(id, from)| ChannelFrom { id, from });
    let channels = prop_oneof![Just(Channels::Mine), vec(from, 0..5).prop_map(Channels::These),];
    prop_oneof![
        ("\\PC{0,40}", "\\PC{0,9}", "\\PC{0,9}", option::of(cursor())).prop_map(
            |(token, client, version, resume)| Hello { token, client, version, resume }.into()
        ),
        "\\PC{0,40}".prop_map(|token| Refresh { token }.into()),
        Just(Ping {}.into()),
        Just(Pong {}.into()),
        (channels, option::of(incarnation()))
            .prop_map(|(channels, incarnation)| { Subscribe { channels, incarnation }.into() }),
        vec(channel_id(), 0..5).prop_map(|channels| Unsubscribe { channels }.into()),
    ]
}

fn about_channels() -> impl Strategy<Value = Command> {
    let create = (kind(), name(), option::of(topic()), vec(user(), 1..5)).prop_map(
        |(kind, name, topic, mut members)| {
            let named = !matches!(kind, ChannelKind::Direct | ChannelKind::Group);
            if kind == ChannelKind::Direct {
                members.truncate(1);
            }
            CreateChannel { kind, name: named.then_some(name), topic, members }.into()
        },
    );
    let reference =
        prop_oneof![channel_id().prop_map(ChannelRef::Id), name().prop_map(ChannelRef::Name)];
    let update =
        (channel_id(), option::of(name()), option::of(topic()), option::of(0..21_600_000u32));
    prop_oneof![
        create,
        reference.prop_map(|channel| GetChannel { channel }.into()),
        (option::of(channel_id()), limit()).prop_map(|(after, limit)| ListChannels {
            after,
            limit
        }
        .into()),
        update.prop_map(|(channel, name, topic, slow_mode_ms)| {
            UpdateChannel { channel, name, topic, slow_mode_ms }.into()
        }),
        channel_id().prop_map(|channel| ArchiveChannel { channel }.into()),
        channel_id().prop_map(|channel| UnarchiveChannel { channel }.into()),
        channel_id().prop_map(|channel| DeleteChannel { channel }.into()),
    ]
}

fn about_members() -> impl Strategy<Value = Command> {
    prop_oneof![
        channel_id().prop_map(|channel| Join { channel }.into()),
        channel_id().prop_map(|channel| Leave { channel }.into()),
        (channel_id(), user(), option::of(role())).prop_map(|(channel, user, role)| AddMember {
            channel,
            user,
            role
        }
        .into()),
        (channel_id(), user()).prop_map(|(channel, user)| RemoveMember { channel, user }.into()),
        (channel_id(), user(), role()).prop_map(|(channel, user, role)| SetRole {
            channel,
            user,
            role
        }
        .into()),
        (channel_id(), option::of(user()), limit())
            .prop_map(|(channel, after, limit)| ListMembers { channel, after, limit }.into()),
        vec(user(), 1..4).prop_map(|users| Presence { users }.into()),
    ]
}

fn about_messages() -> impl Strategy<Value = Command> {
    let content = || {
        (option::of(text()), data()).prop_map(|(text, data)| match text {
            Some(text) => (Some(text), None),
            None => (None, Some(data)),
        })
    };
    let publish = (channel_id(), content(), option::of(seq()), vec(user(), 0..4)).prop_map(
        |(channel, (text, data), reply_to, mentions)| {
            Publish { channel, text, data, reply_to, mentions }.into()
        },
    );
    let history =
        (channel_id(), 0..4usize, seq(), limit()).prop_map(|(channel, place, seq, limit)| {
            let at = |index| (place == index).then_some(seq);
            History { channel, before: at(1), after: at(2), around: at(3), limit }.into()
        });
    prop_oneof![
        publish,
        (channel_id(), seq(), content()).prop_map(|(channel, seq, (text, data))| Edit {
            channel,
            seq,
            text,
            data
        }
        .into()),
        (channel_id(), seq()).prop_map(|(channel, seq)| Delete { channel, seq }.into()),
        (channel_id(), seq(), emoji()).prop_map(|(channel, seq, emoji)| React {
            channel,
            seq,
            emoji
        }
        .into()),
        (channel_id(), seq(), emoji()).prop_map(|(channel, seq, emoji)| Unreact {
            channel,
            seq,
            emoji
        }
        .into()),
        history,
        (channel_id(), seq()).prop_map(|(channel, seq)| MarkRead { channel, seq }.into()),
        channel_id().prop_map(|channel| Typing { channel }.into()),
        (channel_id(), data()).prop_map(|(channel, data)| Signal { channel, data }.into()),
    ]
}

fn limit() -> impl Strategy<Value = Option<u32>> {
    option::of(1..=200u32)
}
