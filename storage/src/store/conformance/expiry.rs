//! Events expire by whole buckets.

use chappe_protocol::{ChannelId, Rev};

use super::{CHANNEL, Key, Scan, Store, Subject, event, message, put, scanned, stamp};

async fn kept(store: &impl Store) -> Vec<Key> {
    scanned(store, Scan::EventsAfter(CHANNEL, Rev::ZERO), 20_000).await
}

/// A bucket of 4096 goes once all of it may go.
pub async fn expiry_drops_whole_buckets_only(subject: impl Subject) {
    let store = subject.open().await;
    let revs = [1, 2, 4094, 4095, 4096, 4097, 8191, 8192, 12_287, 12_288];
    store.write(revs.map(|rev| put(event(rev), stamp(rev))).to_vec()).await.unwrap();
    // Each `up_to` with the first that is kept.
    for (up_to, first) in
        [(0, 1), (4094, 1), (4095, 4096), (4095, 4096), (8190, 4096), (12_287, 12_288)]
    {
        store.expire_events(CHANNEL, Rev::new(up_to)).await.unwrap();
        let expected = revs.into_iter().filter(|rev| *rev >= first).map(event);
        assert_eq!(kept(&store).await, expected.collect::<Vec<_>>(), "up to {up_to}");
    }
}

/// Nothing goes but the events of that channel.
pub async fn expiry_leaves_other_channels_and_tables_alone(subject: impl Subject) {
    let store = subject.open().await;
    let (below, above) = (ChannelId::new(CHANNEL.get() - 1), ChannelId::new(CHANNEL.get() + 1));
    let others = [
        Key::Event(below, Rev::new(1)),
        Key::Event(above, Rev::new(1)),
        message(1),
        Key::Head(CHANNEL),
    ];
    let writes = others.into_iter().chain([event(1)]).map(|key| put(key, stamp(1))).collect();
    store.write(writes).await.unwrap();
    store.expire_events(CHANNEL, Rev::new((1 << 40) - 1)).await.unwrap();
    assert_eq!(kept(&store).await, []);
    assert!(store.get_many(others.to_vec()).await.unwrap().iter().all(Option::is_some));
}

/// More events than a backend removes at once.
pub async fn a_long_past_expires_and_is_gone_after_a_reopen(subject: impl Subject) {
    let store = subject.open().await;
    for revs in (1..=8200).collect::<Vec<u64>>().chunks(1000) {
        let writes = revs.iter().map(|rev| put(event(*rev), stamp(*rev))).collect();
        store.write(writes).await.unwrap();
    }
    store.expire_events(CHANNEL, Rev::new(8195)).await.unwrap();
    drop(store);
    let store = subject.open().await;
    assert_eq!(kept(&store).await, (8192..=8200).map(event).collect::<Vec<_>>());
}
