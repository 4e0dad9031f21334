//! A store as it ought to be: two maps. A backend is compared with it over random operations.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use chappe_protocol::{ChannelId, Rev};

use super::{Key, Mutation, Row, Scan, Store, Subject};
use crate::store::{Claimed, UniqueKey};

/// A step of a random run.
#[derive(Debug, Clone)]
pub enum Operation {
    /// A batch of rows.
    Write(Vec<Mutation>),
    /// One row.
    Get(Key),
    /// A range.
    Scan(Scan, usize),
    /// A claim.
    Claim(UniqueKey, Bytes),
    /// A release.
    Release(UniqueKey, Bytes),
    /// The end of a channel's past.
    Expire(ChannelId, Rev),
    /// The store is dropped and opened again.
    Reopen,
}

/// The state that a store must show.
#[derive(Debug, Default)]
pub struct Model {
    rows: BTreeMap<Key, Row>,
    claims: BTreeMap<String, Bytes>,
    removed: BTreeSet<Key>,
    expired: BTreeMap<ChannelId, u64>,
}

/// Runs the operations against a store and the model, and compares every answer and the end.
pub async fn a_store_answers_as_its_model(subject: impl Subject, operations: Vec<Operation>) {
    let mut model = Model::default();
    let mut store = subject.open().await;
    for (step, operation) in operations.into_iter().enumerate() {
        match operation {
            Operation::Write(mut batch) => {
                // Row by row: a removal earlier in the batch forbids a write later in it.
                batch.retain(|write| {
                    let may_write = model.may_write(write.key);
                    if may_write {
                        model.write(write.clone());
                    }
                    may_write
                });
                store.write(batch).await.unwrap();
            }
            Operation::Get(key) => {
                let found = store.get(key).await.unwrap();
                assert_eq!(found.as_ref(), model.rows.get(&key), "step {step}: {key:?}");
            }
            Operation::Scan(scan, limit) => {
                let found = store.scan(scan, limit).await.unwrap();
                assert_eq!(found, model.scan(scan, limit), "step {step}: {scan:?}");
            }
            Operation::Claim(key, value) => {
                let claimed = store.claim(key.clone(), value.clone()).await.unwrap();
                assert_eq!(claimed, model.claim(&key, value), "step {step}: {key:?}");
            }
            Operation::Release(key, value) => {
                store.release(key.clone(), value.clone()).await.unwrap();
                model.release(&key, &value);
                let claimed = store.claimed(key.clone()).await.unwrap();
                assert_eq!(claimed.as_ref(), model.claims.get(&name(&key)), "step {step}");
            }
            Operation::Expire(channel, up_to) => {
                store.expire_events(channel, up_to).await.unwrap();
                model.expire(channel, up_to);
            }
            Operation::Reopen => {
                drop(store);
                store = subject.open().await;
            }
        }
    }
    let (keys, rows): (Vec<_>, Vec<_>) = model.rows.into_iter().map(|(k, r)| (k, Some(r))).unzip();
    assert_eq!(store.get_many(keys).await.unwrap(), rows, "at the end");
}

impl Model {
    /// Whether a projection would still write this row: not if it was removed or has expired.
    fn may_write(&self, key: Key) -> bool {
        let expired =
            |channel, rev: Rev| self.expired.get(&channel).is_some_and(|e| rev.get() < *e);
        let gone = matches!(key, Key::Event(channel, rev) if expired(channel, rev));
        !gone && !self.removed.contains(&key)
    }

    fn write(&mut self, write: Mutation) {
        let Mutation { key, stamp, value } = write;
        let newer = |row: &Row| row.stamp > stamp || (row.stamp == stamp && value.is_some());
        if self.rows.get(&key).is_some_and(newer) {
            return;
        }
        match value {
            Some(value) => drop(self.rows.insert(key, Row { stamp, value })),
            None => {
                self.rows.remove(&key);
                self.removed.insert(key);
            }
        }
    }

    fn scan(&self, scan: Scan, limit: usize) -> Vec<(Key, Row)> {
        let mut rows: Vec<_> = self.rows.iter().filter(|(key, _)| is_in(scan, **key)).collect();
        if matches!(scan, Scan::MessagesBefore(..) | Scan::EventsUpTo(..)) {
            rows.reverse();
        }
        rows.into_iter().take(limit).map(|(key, row)| (*key, row.clone())).collect()
    }

    fn claim(&mut self, key: &UniqueKey, value: Bytes) -> Claimed {
        let held = self.claims.entry(name(key)).or_insert_with(|| value.clone());
        if *held == value { Claimed::Yes } else { Claimed::Taken(held.clone()) }
    }

    fn release(&mut self, key: &UniqueKey, value: &Bytes) {
        if self.claims.get(&name(key)) == Some(value) {
            self.claims.remove(&name(key));
        }
    }

    fn expire(&mut self, channel: ChannelId, up_to: Rev) {
        let kept_from = (up_to.get() + 1) / 4096 * 4096;
        let floor = self.expired.entry(channel).or_default();
        *floor = kept_from.max(*floor);
        self.rows.retain(
            |key, _| !matches!(key, Key::Event(of, rev) if *of == channel && rev.get() < kept_from),
        );
    }
}

/// Whether a scan without a limit brings the row of this key.
fn is_in(scan: Scan, key: Key) -> bool {
    match (scan, key) {
        (Scan::MessagesBefore(of, bound), Key::Message(channel, seq)) => {
            channel == of && seq < bound
        }
        (Scan::MessagesAfter(of, bound), Key::Message(channel, seq)) => {
            channel == of && seq > bound
        }
        (Scan::EventsAfter(of, bound), Key::Event(channel, rev)) => channel == of && rev > bound,
        (Scan::EventsUpTo(of, bound), Key::Event(channel, rev)) => channel == of && rev <= bound,
        (Scan::Members(of, bound), Key::Member(channel, user)) => {
            channel == of && bound.is_none_or(|bound| user > bound)
        }
        (Scan::ChannelsByUser(of, bound), Key::ChannelOfUser(user, channel)) => {
            user == of && bound.is_none_or(|bound| channel > bound)
        }
        (Scan::Mentions(of, within, bound), Key::Mention(user, channel, seq)) => {
            user == of && channel == within && seq > bound
        }
        (Scan::Outbox(of), Key::Outbox { partition, .. }) => partition == of,
        _ => false,
    }
}

fn name(key: &UniqueKey) -> String {
    format!("{key:?}")
}
