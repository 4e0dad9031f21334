//! Random operations: few keys and low stamps, so that they meet.

use bytes::Bytes;
use chappe_protocol::{ChannelId, PartitionId, Rev, Seq, UserId};
use proptest::collection::vec;
use proptest::prelude::*;

use super::{Key, Mutation, Operation, Scan, put, remove, stamp};
use crate::store::UniqueKey;

/// A run of up to `steps_max` operations.
pub(crate) fn operations(steps_max: usize) -> impl Strategy<Value = Vec<Operation>> {
    let operation = prop_oneof![
        12 => vec(write(), 1..12).prop_map(Operation::Write),
        6 => key().prop_map(Operation::Get),
        8 => (scan(), 0..12_usize).prop_map(|(scan, limit)| Operation::Scan(scan, limit)),
        3 => (unique(), holder()).prop_map(|(key, value)| Operation::Claim(key, value)),
        2 => (unique(), holder()).prop_map(|(key, value)| Operation::Release(key, value)),
        1 => (channel(), rev()).prop_map(|(channel, up_to)| Operation::Expire(channel, up_to)),
        1 => Just(Operation::Reopen),
    ];
    vec(operation, 1..steps_max)
}

fn write() -> impl Strategy<Value = Mutation> {
    prop_oneof![
        9 => (key(), 1..20_u64).prop_map(|(key, rev)| put(key, stamp(rev))),
        1 => (outbox(), 1..20_u64).prop_map(|(key, rev)| remove(key, stamp(rev))),
    ]
}

pub(crate) fn key() -> impl Strategy<Value = Key> {
    prop_oneof![
        4 => (channel(), seq()).prop_map(|(channel, seq)| Key::Message(channel, seq)),
        4 => (channel(), rev()).prop_map(|(channel, rev)| Key::Event(channel, rev)),
        1 => channel().prop_map(Key::Head),
        1 => channel().prop_map(Key::Channel),
        2 => (channel(), user()).prop_map(|(channel, user)| Key::Member(channel, user)),
        2 => (user(), channel()).prop_map(|(user, channel)| Key::ChannelOfUser(user, channel)),
        1 => (user(), channel()).prop_map(|(user, channel)| Key::ReadMarker(user, channel)),
        2 => (user(), channel(), seq())
            .prop_map(|(user, channel, seq)| Key::Mention(user, channel, seq)),
        1 => (channel(), channel()).prop_map(|(inbox, source)| Key::Relayed { inbox, source }),
        3 => outbox(),
        1 => partition().prop_map(Key::Checkpoint),
    ]
}

fn outbox() -> impl Strategy<Value = Key> {
    (partition(), channel(), channel(), rev())
        .prop_map(|(partition, source, target, rev)| Key::Outbox { partition, source, target, rev })
}

fn scan() -> impl Strategy<Value = Scan> {
    prop_oneof![
        (channel(), seq()).prop_map(|(channel, seq)| Scan::MessagesBefore(channel, seq)),
        (channel(), seq()).prop_map(|(channel, seq)| Scan::MessagesAfter(channel, seq)),
        (channel(), rev()).prop_map(|(channel, rev)| Scan::EventsAfter(channel, rev)),
        (channel(), rev()).prop_map(|(channel, rev)| Scan::EventsUpTo(channel, rev)),
        (channel(), proptest::option::of(user())).prop_map(|(of, user)| Scan::Members(of, user)),
        (user(), proptest::option::of(channel()))
            .prop_map(|(user, channel)| Scan::ChannelsByUser(user, channel)),
        (user(), channel(), seq())
            .prop_map(|(user, channel, seq)| Scan::Mentions(user, channel, seq)),
        partition().prop_map(Scan::Outbox),
    ]
}

fn unique() -> impl Strategy<Value = UniqueKey> {
    prop_oneof![
        3 => "[ab]{0,2}".prop_map(UniqueKey::ChannelName),
        1 => Just(UniqueKey::Lineage),
    ]
}

fn holder() -> impl Strategy<Value = Bytes> {
    prop_oneof![Just(Bytes::from_static(b"x")), Just(Bytes::from_static(b"y"))]
}

fn channel() -> impl Strategy<Value = ChannelId> {
    prop_oneof![Just(1), Just(2), Just(1 << 63 | 1), Just(u64::MAX)].prop_map(ChannelId::new)
}

fn user() -> impl Strategy<Value = UserId> {
    prop_oneof![Just(0), Just(1), Just(256), Just(u64::MAX)].prop_map(UserId::new)
}

fn partition() -> impl Strategy<Value = PartitionId> {
    (0..2_u32).prop_map(PartitionId)
}

fn seq() -> impl Strategy<Value = Seq> {
    number().prop_map(Seq::new)
}

fn rev() -> impl Strategy<Value = Rev> {
    number().prop_map(Rev::new)
}

/// Near the borders of buckets and of what there is.
fn number() -> impl Strategy<Value = u64> {
    prop_oneof![0..5_u64, 4093..4099_u64, 8190..8194_u64, (1 << 40) - 2..1_u64 << 40]
}
