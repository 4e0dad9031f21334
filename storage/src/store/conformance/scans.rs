//! What a scan brings: its own rows, in its order, without its bound, up to its limit.

use chappe_protocol::{ChannelId, PartitionId, Rev, Seq, UserId};

use super::{
    CHANNEL, Key, Scan, Store, Subject, USER, event, message, outbox, put, scanned, stamp,
};

/// Numbers on both sides of the borders of two buckets, and the last that there is.
const NUMBERS: [u64; 10] = [1, 2, 3, 4095, 4096, 4097, 8191, 8192, 9000, (1 << 40) - 1];

async fn with_numbers<S: Subject>(subject: S, key: fn(u64) -> Key) -> S::Store {
    let store = subject.open().await;
    // In another order than they will be read in.
    let mut numbers = NUMBERS;
    numbers.rotate_left(4);
    store.write(numbers.map(|n| put(key(n), stamp(7))).to_vec()).await.unwrap();
    store
}

/// History upwards: the bound itself is left out, wherever a bucket ends.
pub async fn messages_before_come_highest_first_without_the_bound(subject: impl Subject) {
    let store = with_numbers(subject, message).await;
    for bound in NUMBERS.into_iter().chain([0, 5, 4098, 100_000]) {
        let found = scanned(&store, Scan::MessagesBefore(CHANNEL, Seq::new(bound)), 100).await;
        let below = NUMBERS.into_iter().rev().filter(|n| *n < bound).map(message);
        assert_eq!(found, below.collect::<Vec<_>>(), "before {bound}");
    }
}

/// History downwards.
pub async fn messages_after_come_lowest_first_without_the_bound(subject: impl Subject) {
    let store = with_numbers(subject, message).await;
    for bound in NUMBERS.into_iter().chain([0, 5, 4098, 100_000]) {
        let found = scanned(&store, Scan::MessagesAfter(CHANNEL, Seq::new(bound)), 100).await;
        let above = NUMBERS.into_iter().filter(|n| *n > bound).map(message);
        assert_eq!(found, above.collect::<Vec<_>>(), "after {bound}");
    }
}

/// The two scans of events meet at the bound, and share nothing.
pub async fn events_after_leave_the_bound_out_and_events_up_to_take_it_in(subject: impl Subject) {
    let store = with_numbers(subject, event).await;
    for bound in NUMBERS.into_iter().chain([0, 5, 4098, 100_000]) {
        let rev = Rev::new(bound);
        let after = scanned(&store, Scan::EventsAfter(CHANNEL, rev), 100).await;
        let above = NUMBERS.into_iter().filter(|n| *n > bound).map(event);
        assert_eq!(after, above.collect::<Vec<_>>(), "after {bound}");
        let up_to = scanned(&store, Scan::EventsUpTo(CHANNEL, rev), 100).await;
        let rest = NUMBERS.into_iter().rev().filter(|n| *n <= bound).map(event);
        assert_eq!(up_to, rest.collect::<Vec<_>>(), "up to {bound}");
    }
}

/// Listings go through every id, the greatest too, and pages follow each other without a gap.
pub async fn members_and_channels_come_in_order_after_the_bound(subject: impl Subject) {
    let store = subject.open().await;
    let ids = [0, 1, 255, 256, 1 << 32, u64::MAX - 1, u64::MAX];
    let member = |id| Key::Member(CHANNEL, UserId::new(id));
    let channel = |id| Key::ChannelOfUser(USER, ChannelId::new(id));
    let keys = ids.iter().rev().flat_map(|id| [member(*id), channel(*id)]);
    store.write(keys.map(|key| put(key, stamp(1))).collect()).await.unwrap();
    for bound in [None, Some(0), Some(2), Some(256), Some(u64::MAX - 1), Some(u64::MAX)] {
        let above = || ids.into_iter().filter(|id| bound.is_none_or(|bound| *id > bound));
        let scan = Scan::Members(CHANNEL, bound.map(UserId::new));
        assert_eq!(scanned(&store, scan, 100).await, above().map(member).collect::<Vec<_>>());
        let scan = Scan::ChannelsByUser(USER, bound.map(ChannelId::new));
        assert_eq!(scanned(&store, scan, 100).await, above().map(channel).collect::<Vec<_>>());
    }
}

/// Mentions of another user, or in another channel, are not among them.
pub async fn mentions_are_those_of_one_user_in_one_channel(subject: impl Subject) {
    let store = subject.open().await;
    let mention = |user: u64, channel: u64, seq| {
        Key::Mention(UserId::new(user), ChannelId::new(channel), Seq::new(seq))
    };
    let mut keys = Vec::new();
    for user in [1, 2, 3] {
        for channel in [1, 2, 3] {
            keys.extend([1, 4096, 4097, 5000].map(|seq| mention(user, channel, seq)));
        }
    }
    store.write(keys.into_iter().map(|key| put(key, stamp(1))).collect()).await.unwrap();
    let scan = |seq| Scan::Mentions(UserId::new(2), ChannelId::new(2), Seq::new(seq));
    assert_eq!(
        scanned(&store, scan(0), 100).await,
        [1, 4096, 4097, 5000].map(|n| mention(2, 2, n))
    );
    assert_eq!(scanned(&store, scan(4096), 100).await, [4097, 5000].map(|n| mention(2, 2, n)));
    assert_eq!(scanned(&store, scan(5000), 100).await, []);
}

/// A relay reads its partition's rows so that those of one source and target are in order.
pub async fn an_outbox_comes_in_the_order_of_source_target_and_revision(subject: impl Subject) {
    let store = subject.open().await;
    let mut keys = Vec::new();
    for partition in [6, 7, 8] {
        for source in [1, 300, u64::MAX] {
            for target in [2, 1 << 63, u64::MAX] {
                keys.extend([1, 255, 256].map(|rev| outbox(partition, source, target, rev)));
            }
        }
    }
    store.write(keys.iter().rev().map(|key| put(*key, stamp(1))).collect()).await.unwrap();
    let found = scanned(&store, Scan::Outbox(PartitionId(7)), 100).await;
    assert_eq!(found, keys[27..54]);
    assert_eq!(scanned(&store, Scan::Outbox(PartitionId(9)), 100).await, []);
}

/// The first rows in the scan's order, and no more than asked for.
pub async fn a_scan_keeps_to_its_limit(subject: impl Subject) {
    let store = with_numbers(subject, message).await;
    for limit in [0, 1, 4, 5, 10, 11] {
        let taken = limit.min(NUMBERS.len());
        let after = scanned(&store, Scan::MessagesAfter(CHANNEL, Seq::ZERO), limit).await;
        assert_eq!(after, NUMBERS.map(message)[..taken]);
        let scan = Scan::MessagesBefore(CHANNEL, Seq::new(10_000));
        let mut below = NUMBERS[..9].to_vec();
        below.reverse();
        below.truncate(limit);
        assert_eq!(
            scanned(&store, scan, limit).await,
            below.into_iter().map(message).collect::<Vec<_>>()
        );
    }
}

/// Rows of the ids next to it, of the inbox of the same number and of other tables stay out.
pub async fn a_scan_never_shows_a_neighbours_rows(subject: impl Subject) {
    let store = subject.open().await;
    let own = 1 << 40;
    let ids = [0, own - 1, own, own + 1, own | 1 << 63, u64::MAX];
    let mut keys = Vec::new();
    for id in ids.map(ChannelId::new) {
        for n in [1, 4096, (1 << 40) - 1] {
            let user = UserId::new(n);
            keys.push(Key::Message(id, Seq::new(n)));
            keys.push(Key::Event(id, Rev::new(n)));
            keys.push(Key::Member(id, user));
            keys.push(Key::ChannelOfUser(UserId::new(id.get()), ChannelId::new(n)));
            keys.push(Key::Relayed { inbox: id, source: ChannelId::new(n) });
        }
        keys.push(Key::Head(id));
        keys.push(Key::Channel(id));
    }
    store.write(keys.into_iter().map(|key| put(key, stamp(1))).collect()).await.unwrap();
    let (channel, last) = (ChannelId::new(own), (1 << 40) - 1);
    let scans = [
        Scan::MessagesBefore(channel, Seq::new(last)),
        Scan::MessagesAfter(channel, Seq::new(1)),
        Scan::EventsAfter(channel, Rev::new(1)),
        Scan::EventsUpTo(channel, Rev::new(4096)),
        Scan::Members(channel, Some(UserId::new(1))),
        Scan::ChannelsByUser(UserId::new(own), Some(ChannelId::new(1))),
    ];
    for scan in scans {
        let found = scanned(&store, scan, 100).await;
        let is_own = |key: &Key| match (scan, *key) {
            (Scan::MessagesBefore(..) | Scan::MessagesAfter(..), Key::Message(id, _))
            | (Scan::EventsAfter(..) | Scan::EventsUpTo(..), Key::Event(id, _))
            | (Scan::Members(..), Key::Member(id, _)) => id == channel,
            (Scan::ChannelsByUser(user, _), Key::ChannelOfUser(of, _)) => of == user,
            _ => false,
        };
        assert_eq!(found.len(), 2, "{scan:?} found {found:?}");
        assert!(found.iter().all(is_own), "{scan:?} found {found:?}");
    }
}
