//! Arbitrary values of everything that crosses the wire, each valid by its own rules.

pub(crate) mod command;
pub(crate) mod server;

use chappe_protocol::{
    ChannelId, ChannelName, Cursor, Data, Emoji, Incarnation, Nonce, Rev, Seq, SessionId, Text,
    Topic, UserId,
    message::{Channel, ChannelKind, Member, Message, Reaction, Role},
};
use proptest::{collection::vec, option, prelude::*, sample::select};
use serde_json::Value;

pub(crate) fn user() -> impl Strategy<Value = UserId> {
    (0..=u64::MAX >> 1).prop_map(UserId::new)
}

pub(crate) fn channel_id() -> impl Strategy<Value = ChannelId> {
    any::<u64>().prop_map(ChannelId::new)
}

pub(crate) fn session() -> impl Strategy<Value = SessionId> {
    any::<u64>().prop_map(SessionId::new)
}

pub(crate) fn rev() -> impl Strategy<Value = Rev> {
    (0..1u64 << 40).prop_map(Rev::new)
}

pub(crate) fn seq() -> impl Strategy<Value = Seq> {
    (1..1u64 << 40).prop_map(Seq::new)
}

pub(crate) fn incarnation() -> impl Strategy<Value = Incarnation> {
    any::<u32>().prop_map(Incarnation)
}

pub(crate) fn text() -> impl Strategy<Value = Text> {
    "\\PC{0,40}[\\n\\t\\r\"\\\\]?\\PC{1,40}x".prop_map(|text| Text::parse(text).unwrap())
}

pub(crate) fn topic() -> impl Strategy<Value = Topic> {
    "\\PC{0,60}".prop_map(|topic| Topic::parse(topic).unwrap())
}

pub(crate) fn name() -> impl Strategy<Value = ChannelName> {
    "[a-z]\\PC{0,40}[a-z]".prop_map(|name| ChannelName::parse(name).unwrap())
}

pub(crate) fn nonce() -> impl Strategy<Value = Nonce> {
    "[!-~]{1,64}".prop_map(|nonce| Nonce::parse(nonce).unwrap())
}

pub(crate) fn emoji() -> impl Strategy<Value = Emoji> {
    select(vec!["👍", "🧑🏽‍🚀", ":tada:", "+1"]).prop_map(|emoji| Emoji::parse(emoji).unwrap())
}

/// What JSON can say, a few levels deep.
pub(crate) fn data() -> impl Strategy<Value = Data> {
    let scalar = prop_oneof![
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<u64>().prop_map(Value::from),
        any::<f64>().prop_filter_map("JSON has finite numbers", |number| {
            serde_json::Number::from_f64(number).map(Value::Number)
        }),
        "\\PC{0,20}".prop_map(Value::from),
        Just(Value::Null),
    ];
    let value = scalar.prop_recursive(4, 24, 6, |inner| {
        prop_oneof![
            vec(inner.clone(), 0..6).prop_map(Value::from),
            proptest::collection::btree_map("\\PC{0,8}", inner, 0..6)
                .prop_map(|map| Value::Object(map.into_iter().collect())),
        ]
    });
    // A field that is null is a field that is absent.
    value.prop_filter_map("not null", |value| (!value.is_null()).then(|| Data::new(value).unwrap()))
}

pub(crate) fn cursor() -> impl Strategy<Value = Cursor> {
    (incarnation(), vec((channel_id(), rev()), 0..8))
        .prop_map(|(incarnation, channels)| Cursor { incarnation, channels })
}

pub(crate) fn kind() -> impl Strategy<Value = ChannelKind> {
    use ChannelKind::{Announcement, Direct, Group, Private, Public};
    select(vec![Public, Private, Direct, Group, Announcement])
}

pub(crate) fn role() -> impl Strategy<Value = Role> {
    select(vec![Role::Owner, Role::Admin, Role::Moderator, Role::Member])
}

pub(crate) fn channel() -> impl Strategy<Value = Channel> {
    let settings = (option::of(name()), option::of(topic()), any::<u32>());
    let flags = (any::<bool>(), any::<bool>());
    (channel_id(), kind(), settings, flags, user(), any::<u64>(), any::<u32>()).prop_map(
        |(id, kind, (name, topic, slow_mode_ms), (archived, deleted), by, at, members)| Channel {
            id,
            kind,
            name,
            topic,
            slow_mode_ms,
            archived,
            deleted,
            by,
            at,
            members,
        },
    )
}

pub(crate) fn member() -> impl Strategy<Value = Member> {
    (user(), option::of("\\PC{0,30}"), role(), rev()).prop_map(|(user, name, role, since)| Member {
        user,
        name,
        role,
        since,
    })
}

pub(crate) fn message() -> impl Strategy<Value = Message> {
    let reaction =
        (emoji(), vec(user(), 0..3)).prop_map(|(emoji, users)| Reaction { emoji, users });
    let content = (option::of(text()), option::of(data()), option::of(seq()), vec(user(), 0..4));
    let state = (option::of(any::<u64>()), any::<bool>(), vec(reaction, 0..3));
    (seq(), rev(), rev(), user(), any::<u64>(), content, state).prop_map(
        |(seq, rev, changed, by, at, (text, data, reply_to, mentions), state)| {
            let (edited_at, deleted, reactions) = state;
            Message {
                seq,
                rev,
                changed,
                by,
                at,
                text,
                data,
                reply_to,
                mentions,
                edited_at,
                deleted,
                reactions,
            }
        },
    )
}
