//! A cluster that goes and comes back, and answers that are lost.

use std::time::Instant;

use chappe_protocol::Incarnation;

use super::*;
use crate::servers::{Relay, eventually, unique};
use crate::store::Stamp;

/// The time of a call where the cluster is to fail, and what may come on top of it.
const CALL: Duration = Duration::from_secs(3);
const SLACK: Duration = Duration::from_secs(5);

fn head() -> Key {
    Key::Head(ChannelId::new(getrandom::u64().unwrap()))
}

fn put(key: Key, rev: u64) -> Mutation {
    let stamp = Stamp::of(Incarnation(1), Rev::new(rev));
    Mutation { key, stamp, value: Some(Bytes::from(format!("at {rev}"))) }
}

fn row(rev: u64) -> Option<Row> {
    let Mutation { stamp, value, .. } = put(head(), rev);
    value.map(|value| Row { stamp, value })
}

/// A store behind a relay, with a time for its calls, and one that reaches the cluster itself.
async fn behind_a_relay(call: Duration) -> (ScyllaStore, Relay, ScyllaStore) {
    shared_keyspace().await;
    let nodes = given("CQL");
    let relay = Relay::to(nodes.split(',').next().unwrap()).await;
    let behind = ScyllaOptions {
        nodes: vec![relay.address().to_string()],
        request: CALL,
        call,
        ..options()
    };
    (ScyllaStore::new(behind).unwrap(), relay, ScyllaStore::new(options()).unwrap())
}

/// Every call, as its error if it has one.
async fn errors(store: &ScyllaStore) -> Vec<Option<StoreError>> {
    let name = || UniqueKey::ChannelName(unique());
    let value = || Bytes::from_static(b"holder");
    let (write, get, scan, claim, release, check) = tokio::join!(
        store.write(vec![put(head(), 1)]),
        store.get(head()),
        store.scan(Scan::Outbox(PartitionId(0)), 1),
        store.claim(name(), value()),
        store.release(name(), value()),
        store.check(),
    );
    vec![write.err(), get.err(), scan.err(), claim.err(), release.err(), check.err()]
}

async fn assert_unavailable_in_time(store: &ScyllaStore) {
    let began = Instant::now();
    for error in errors(store).await {
        assert!(matches!(error, Some(StoreError::Unavailable(_))), "{error:?}");
    }
    assert!(began.elapsed() < CALL + SLACK, "{:?}", began.elapsed());
}

#[tokio::test]
async fn a_write_whose_answer_was_lost_is_made_again_with_its_stamp() {
    // Long enough for the connection to be lost and found.
    let (store, relay, direct) = behind_a_relay(Duration::from_secs(60)).await;
    store.check().await.unwrap();
    let (kept, newer) = (head(), head());
    relay.mute();
    let store = std::sync::Arc::new(store);
    let writing = tokio::spawn({
        let store = std::sync::Arc::clone(&store);
        async move { store.write(vec![put(kept, 5), put(newer, 5)]).await }
    });
    eventually("the write is applied", || async {
        direct.get_many(vec![kept, newer]).await.unwrap() == [row(5), row(5)]
    })
    .await;
    assert!(!writing.is_finished(), "nobody answered it");
    // A retry at any other time than its stamp would show here.
    direct.write(vec![put(newer, 6)]).await.unwrap();
    relay.cut(); // and the answer is lost
    relay.restore();
    writing.await.unwrap().unwrap();
    let found = direct.get_many(vec![kept, newer]).await.unwrap();
    assert_eq!(found, [row(5), row(6)], "each is one row with its stamp");
}

#[tokio::test]
async fn a_claim_whose_answer_was_lost_is_read_back() {
    let (store, relay, direct) = behind_a_relay(Duration::from_secs(60)).await;
    store.check().await.unwrap();
    let (key, value) = (UniqueKey::ChannelName(unique()), Bytes::from_static(b"holder"));
    relay.mute();
    let claiming = tokio::spawn({
        let (key, value) = (key.clone(), value.clone());
        async move { (store.claim(key, value).await, store) }
    });
    eventually("the claim holds", || async {
        direct.claimed(key.clone()).await.unwrap() == Some(value.clone())
    })
    .await;
    relay.cut();
    relay.restore();
    let (claimed, store) = claiming.await.unwrap();
    assert_eq!(claimed, Ok(Claimed::Yes));
    // And so is a release.
    relay.mute();
    let releasing = tokio::spawn({
        let key = key.clone();
        async move { store.release(key, value).await }
    });
    eventually("it is released", || async { direct.claimed(key.clone()).await.unwrap().is_none() })
        .await;
    relay.cut();
    relay.restore();
    assert_eq!(releasing.await.unwrap(), Ok(()));
}

#[tokio::test]
async fn a_cluster_that_is_cut_off_or_frozen_is_unavailable_in_time_and_comes_back() {
    let (store, relay, _) = behind_a_relay(CALL).await;
    let is_back = || async { errors(&store).await.iter().all(Option::is_none) };
    eventually("it is there", is_back).await;
    relay.cut();
    assert_unavailable_in_time(&store).await;
    assert_unavailable_in_time(&store).await; // with the connections gone
    relay.restore();
    eventually("it is back", is_back).await;
    relay.freeze();
    assert_unavailable_in_time(&store).await;
    relay.restore();
    eventually("it is back", is_back).await;
}

#[tokio::test]
async fn a_store_starts_while_its_cluster_is_down_and_is_there_when_it_comes() {
    let (store, relay, _) = behind_a_relay(CALL).await;
    relay.cut();
    assert_unavailable_in_time(&store).await;
    // Not every call tries to connect: most say what the last one that tried found.
    let began = Instant::now();
    let mut errors = Vec::new();
    while errors.len() < 1000 {
        errors.push(store.get(head()).await.unwrap_err().to_string());
    }
    assert!(began.elapsed() < CALL * 2 + SLACK, "{:?}", began.elapsed());
    let address = relay.address().to_string();
    assert!(errors.iter().all(|error| error.contains(&address)), "{}", errors[0]);
    relay.restore();
    eventually("it is there", || async { store.check().await.is_ok() }).await;
}

#[tokio::test]
async fn a_dropped_call_takes_the_try_to_connect_from_nobody() {
    let (store, relay, _) = behind_a_relay(Duration::from_secs(60)).await;
    relay.freeze();
    {
        let first = store.check();
        tokio::pin!(first);
        assert!(futures_util::poll!(&mut first).is_pending());
        let second = store.check();
        tokio::pin!(second);
        assert!(futures_util::poll!(&mut second).is_pending());
    }
    relay.restore();
    // That try, or the one after it if it took too long: no call is told off for a dropped one.
    store.check().await.unwrap();
}

#[tokio::test]
async fn calls_wait_for_their_turn_no_longer_than_their_time() {
    let (store, relay, _) = behind_a_relay(CALL).await;
    store.check().await.unwrap();
    relay.freeze();
    let began = Instant::now();
    // More than may be under way at once.
    let calls = (0..1000).map(|_| store.get(head()));
    let answers = futures_util::future::join_all(calls).await;
    assert!(answers.iter().all(|answer| matches!(answer, Err(StoreError::Unavailable(_)))));
    assert!(began.elapsed() < CALL + SLACK, "{:?}", began.elapsed());
}
