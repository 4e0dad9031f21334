//! Arbitrary events, replies and other frames of a server.

use chappe_protocol::{
    CloseCode, ErrorCode, Event, EventBody, WireError,
    event::*,
    frame::{Closing, Live, Reset, ServerPing, Signalled},
    limits::Limits,
    reply::*,
};
use proptest::{collection::vec, option, prelude::*, sample::select};

use super::*;

pub(crate) fn event() -> impl Strategy<Value = Event> {
    (channel_id(), rev(), user(), any::<u64>(), option::of(nonce()), body())
        .prop_map(|(channel, rev, by, at, nonce, body)| Event { channel, rev, by, at, nonce, body })
}

fn body() -> impl Strategy<Value = EventBody> {
    prop_oneof![about_channel(), about_message(), about_inbox()]
}

fn about_channel() -> impl Strategy<Value = EventBody> {
    use EventBody::{
        ChannelArchived, ChannelCreated, ChannelDeleted, ChannelUnarchived, ChannelUpdated,
        MemberAdded, MemberRemoved, MemberUpdated,
    };
    let channel_kind = select(vec![
        ChannelCreated as fn(ChannelBody) -> EventBody,
        ChannelUpdated,
        ChannelArchived,
        ChannelUnarchived,
        ChannelDeleted,
    ]);
    let member_kind = select(vec![MemberAdded as fn(MemberBody) -> EventBody, MemberUpdated]);
    prop_oneof![
        (channel_kind, channel()).prop_map(|(kind, channel)| kind(ChannelBody { channel })),
        (member_kind, member()).prop_map(|(kind, member)| kind(MemberBody { member })),
        user().prop_map(|user| MemberRemoved(MemberRemovedBody { user })),
    ]
}

fn about_message() -> impl Strategy<Value = EventBody> {
    use EventBody::{MessageCreated, MessageDeleted, MessageEdited, Nothing};
    use EventBody::{ReactionAdded, ReactionRemoved};
    let message_kind =
        select(vec![MessageCreated as fn(MessageBody) -> EventBody, MessageEdited, MessageDeleted]);
    let reaction_kind =
        select(vec![ReactionAdded as fn(ReactionBody) -> EventBody, ReactionRemoved]);
    prop_oneof![
        (message_kind, message()).prop_map(|(kind, message)| kind(MessageBody { message })),
        (reaction_kind, emoji(), message())
            .prop_map(|(kind, emoji, message)| kind(ReactionBody { emoji, message })),
        Just(Nothing(NothingBody {})),
    ]
}

fn about_inbox() -> impl Strategy<Value = EventBody> {
    use EventBody::{ChannelAdded, ChannelRemoved, MentionAdded, ReadMarked, SessionsClosed};
    prop_oneof![
        (channel_id(), incarnation(), rev(), role()).prop_map(
            |(channel, incarnation, rev, role)| ChannelAdded(ChannelAddedBody {
                channel,
                incarnation,
                rev,
                role
            })
        ),
        (channel_id(), rev())
            .prop_map(|(channel, rev)| ChannelRemoved(ChannelRemovedBody { channel, rev })),
        (channel_id(), seq())
            .prop_map(|(channel, seq)| ReadMarked(ReadMarkedBody { channel, seq })),
        (channel_id(), seq(), user())
            .prop_map(|(channel, seq, by)| MentionAdded(MentionAddedBody { channel, seq, by })),
        option::of(session()).prop_map(|session| SessionsClosed(SessionsClosedBody { session })),
    ]
}

/// A reply, and the same as the type that a client reads it as.
pub(crate) fn reply() -> impl Strategy<Value = Reply> {
    prop_oneof![hello(), short_reply(), page()]
}

fn hello() -> impl Strategy<Value = Reply> {
    let head = (user(), session(), incarnation(), any::<u32>());
    (head, "\\PC{0,20}", vec(subscribed(), 0..3)).prop_map(
        |((user, session, incarnation, ping_ms), server, subscribed)| {
            let limits = Limits::default();
            let hello =
                HelloReply { user, session, incarnation, ping_ms, limits, server, subscribed };
            Reply::Hello(Box::new(hello))
        },
    )
}

fn short_reply() -> impl Strategy<Value = Reply> {
    let pending = option::of(Just(InboxState::Pending));
    let reply = (channel(), rev(), seq(), option::of(member()));
    prop_oneof![
        any::<u64>().prop_map(|expires_at| Reply::Refresh(RefreshReply { expires_at })),
        Just(Reply::Done(Done {})),
        (channel_id(), rev(), option::of(seq()), any::<u64>(), pending).prop_map(
            |(channel, rev, seq, at, inbox)| Reply::Change(Change { channel, rev, seq, at, inbox })
        ),
        reply.prop_map(|(channel, rev, seq, member)| {
            Reply::Channel(Box::new(ChannelReply { channel, rev, seq, member }))
        }),
        vec(subscribed(), 0..4).prop_map(|channels| Reply::Subscribe(SubscribeReply { channels })),
    ]
}

fn page() -> impl Strategy<Value = Reply> {
    let mine = (channel_id(), role(), rev(), seq())
        .prop_map(|(channel, role, since, read)| MyChannel { channel, role, since, read });
    prop_oneof![
        (vec(mine, 0..4), option::of(channel_id()))
            .prop_map(|(channels, next)| Reply::Channels(ChannelsReply { channels, next })),
        (vec(member(), 0..4), option::of(user()))
            .prop_map(|(members, next)| Reply::Members(MembersReply { members, next })),
        vec((user(), presence()), 0..4).prop_map(|users| {
            let users = users.into_iter();
            let users = users.map(|(user, presence)| UserPresence { user, presence }).collect();
            Reply::Presence(PresenceReply { users })
        }),
        (vec(message(), 0..4), rev(), any::<bool>(), any::<bool>()).prop_map(
            |(messages, rev, more_before, more_after)| {
                Reply::History(HistoryReply { messages, rev, more_before, more_after })
            }
        ),
    ]
}

fn presence() -> impl Strategy<Value = PresenceState> {
    select(&[PresenceState::Online, PresenceState::Offline, PresenceState::Unknown][..])
}

fn subscribed() -> impl Strategy<Value = Subscribed> {
    (channel_id(), option::of(rev()), option::of(rev()), any::<bool>(), option::of(error()))
        .prop_map(|(channel, rev, head, catching_up, error)| Subscribed {
            channel,
            rev,
            head,
            catching_up,
            error,
        })
}

pub(crate) fn error() -> impl Strategy<Value = WireError> {
    (select(ErrorCode::ALL), option::of(any::<u64>()))
        .prop_map(|(code, retry_after_ms)| WireError { retry_after_ms, ..WireError::new(code) })
}

pub(crate) fn live() -> impl Strategy<Value = Live> {
    (channel_id(), rev()).prop_map(|(channel, rev)| Live { channel, rev })
}

pub(crate) fn reset() -> impl Strategy<Value = Reset> {
    (channel_id(), rev(), incarnation()).prop_map(|(channel, base, incarnation)| Reset {
        channel,
        base,
        incarnation,
    })
}

pub(crate) fn signal() -> impl Strategy<Value = Signalled> {
    (channel_id(), user(), option::of(data())).prop_map(|(channel, by, data)| Signalled {
        channel,
        by,
        data,
    })
}

pub(crate) fn ping() -> impl Strategy<Value = ServerPing> {
    (any::<u64>(), vec((channel_id(), rev()), 0..4))
        .prop_map(|(at, heads)| ServerPing { at, heads })
}

pub(crate) fn closing() -> impl Strategy<Value = Closing> {
    (select(CloseCode::ALL), option::of(any::<u64>()))
        .prop_map(|(code, reconnect_after_ms)| Closing { reconnect_after_ms, ..Closing::new(code) })
}
