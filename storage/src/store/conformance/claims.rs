//! Unique keys: one holder at a time, whoever asks when.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use bytes::Bytes;

use super::{Store, Subject};
use crate::store::{Claimed, UniqueKey};

fn name(text: &str) -> UniqueKey {
    UniqueKey::ChannelName(text.to_owned())
}

fn holder(n: u32) -> Bytes {
    Bytes::from(format!("channel {n}"))
}

/// Of many concurrent claims one succeeds, and every other names its value.
pub async fn one_of_many_claims_wins_and_the_others_see_its_value(subject: impl Subject) {
    let store = Arc::new(subject.open().await);
    for round in 0..10 {
        let key = name(&format!("round {round}"));
        let claims: Vec<_> = (0..32)
            .map(|n| {
                let (store, key) = (Arc::clone(&store), key.clone());
                tokio::spawn(async move { store.claim(key, holder(n)).await.unwrap() })
            })
            .collect();
        let (mut winners, mut seen) = (Vec::new(), Vec::new());
        for (n, claim) in (0..).zip(claims) {
            match claim.await.unwrap() {
                Claimed::Yes => winners.push(holder(n)),
                Claimed::Taken(value) => seen.push(value),
            }
        }
        assert_eq!((winners.len(), seen.len()), (1, 31));
        assert!(seen.iter().all(|value| *value == winners[0]));
        assert_eq!(store.claimed(key).await.unwrap(), Some(winners.remove(0)));
    }
}

/// A claim that is made again, as after an unknown outcome, meets itself. Other keys, the one
/// without a name too, are other claims.
pub async fn a_claim_with_the_same_value_succeeds_again(subject: impl Subject) {
    let store = subject.open().await;
    for key in [name("general"), name("generals"), name(""), UniqueKey::Lineage] {
        assert_eq!(store.claimed(key.clone()).await.unwrap(), None);
        for _ in 0..2 {
            assert_eq!(store.claim(key.clone(), holder(1)).await.unwrap(), Claimed::Yes);
        }
        let taken = store.claim(key.clone(), holder(2)).await.unwrap();
        assert_eq!(taken, Claimed::Taken(holder(1)));
        assert_eq!(store.claimed(key).await.unwrap(), Some(holder(1)));
    }
}

/// Releasing with another value changes nothing; with its own it frees the key for anyone.
pub async fn a_claim_is_released_only_by_its_value(subject: impl Subject) {
    let store = subject.open().await;
    let key = name("general");
    store.release(key.clone(), holder(1)).await.unwrap(); // nobody holds it: nothing to do
    store.claim(key.clone(), holder(1)).await.unwrap();
    store.release(key.clone(), holder(2)).await.unwrap();
    assert_eq!(store.claimed(key.clone()).await.unwrap(), Some(holder(1)));
    store.release(key.clone(), holder(1)).await.unwrap();
    assert_eq!(store.claimed(key.clone()).await.unwrap(), None);
    assert_eq!(store.claim(key.clone(), holder(2)).await.unwrap(), Claimed::Yes);
    store.release(key.clone(), holder(1)).await.unwrap(); // the first one's, late
    assert_eq!(store.claimed(key).await.unwrap(), Some(holder(2)));
}

/// Between a claim that succeeded and its release nobody else's succeeds.
pub async fn a_claim_excludes_until_it_is_released(subject: impl Subject) {
    let store = Arc::new(subject.open().await);
    let holders = Arc::new(AtomicU32::new(0));
    let tasks: Vec<_> = (0..8)
        .map(|n| {
            let (store, holders) = (Arc::clone(&store), Arc::clone(&holders));
            tokio::spawn(async move {
                let mut held = 0;
                while held < 5 {
                    if store.claim(name("lock"), holder(n)).await.unwrap() != Claimed::Yes {
                        tokio::task::yield_now().await;
                        continue;
                    }
                    assert_eq!(holders.fetch_add(1, Ordering::SeqCst), 0, "two hold it");
                    let value = store.claimed(name("lock")).await.unwrap();
                    assert_eq!(value, Some(holder(n)));
                    assert_eq!(holders.fetch_sub(1, Ordering::SeqCst), 1, "two hold it");
                    store.release(name("lock"), holder(n)).await.unwrap();
                    held += 1;
                }
            })
        })
        .collect();
    for task in tasks {
        task.await.unwrap();
    }
    assert_eq!(store.claimed(name("lock")).await.unwrap(), None);
}

/// A claim holds, and a release stays one, after a reopen.
pub async fn claims_outlive_a_reopen(subject: impl Subject) {
    let store = subject.open().await;
    store.claim(name("kept"), holder(1)).await.unwrap();
    store.claim(name("freed"), holder(1)).await.unwrap();
    store.release(name("freed"), holder(1)).await.unwrap();
    drop(store);
    let store = subject.open().await;
    let taken = store.claim(name("kept"), holder(2)).await.unwrap();
    assert_eq!(taken, Claimed::Taken(holder(1)));
    assert_eq!(store.claimed(name("freed")).await.unwrap(), None);
}
