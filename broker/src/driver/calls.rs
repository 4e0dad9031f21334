//! Calls of log and store on behalf of the cores: each a task of its own, its outcome an input.

use std::{
    future::Future,
    pin::pin,
    rc::Rc,
    sync::Arc,
    time::{Duration, Instant},
};

use bytes::Bytes;
use chappe_partition::{Action, StoreFound, StoreRead};
use chappe_protocol::{ChannelId, PartitionId, Rev};
use chappe_storage::{
    log::{Log, Offset, ReadError},
    store::{Key, Mutation, Store, StoreError, UniqueKey},
};
use tokio::{select, sync::Semaphore, task::spawn_local, time::timeout};

use super::{
    inbox::{Inbox, Input},
    outage::Outage,
};

/// A call without an answer by then counts as failed. A write may have been applied all the same.
const TIMEOUT: Duration = Duration::from_secs(10);
/// A takeover waits so long for the store before it takes what was noted elsewhere.
const STORE_PATIENCE: Duration = Duration::from_secs(1);
/// Records are read in pieces of about this size.
const LOG_READ_BYTES: usize = 1 << 20;

#[derive(Clone)]
pub(super) struct Calls {
    pub(super) log: Arc<dyn Log>,
    pub(super) store: Arc<dyn Store>,
    pub(super) inbox: Inbox,
    /// Calls of the store under way.
    pub(super) permits: Rc<Semaphore>,
    /// Told of every outcome.
    pub(super) outage: Arc<Outage>,
}

impl Calls {
    pub(super) fn read_bounds(&self, partition: PartitionId, token: u64) {
        let (log, inbox) = (Arc::clone(&self.log), self.inbox.clone());
        spawn_local(async move {
            let bounds = log_answer(log.bounds(partition)).await;
            inbox.push(Input::Bounds(partition, token, bounds));
        });
    }

    pub(super) fn read_log(&self, partition: PartitionId, token: u64, from: Offset, until: Offset) {
        let (log, inbox) = (Arc::clone(&self.log), self.inbox.clone());
        spawn_local(async move {
            let mut read = log_answer(log.read(partition, from, LOG_READ_BYTES)).await;
            if let Ok(entries) = &mut read {
                entries.retain(|entry| entry.offset < until);
            }
            inbox.push(Input::Log(partition, token, read));
        });
    }

    pub(super) fn trim(&self, partition: PartitionId, below: Offset) {
        let log = Arc::clone(&self.log);
        spawn_local(async move {
            if let Err(error) = log_answer(log.trim(partition, below)).await {
                tracing::warn!(%partition, %below, %error, "the log was not trimmed; it will be later");
            }
        });
    }

    /// Reads a partition's checkpoint, and takes a noted one for it if the store does not answer
    /// soon and `noted` gives one.
    pub(super) fn read_checkpoint(
        &self,
        partition: PartitionId,
        token: u64,
        noted: impl Future<Output = Option<Bytes>> + 'static,
    ) {
        let (store, inbox) = (Arc::clone(&self.store), self.inbox.clone());
        let outage = Arc::clone(&self.outage);
        // Not among the calls that are counted: those that wait for a store that is down must not
        // hold up the one that does without it.
        spawn_local(async move {
            let reading = async {
                let read = timeout(TIMEOUT, store.get(Key::Checkpoint(partition))).await;
                let read = read.unwrap_or_else(|_| late_store());
                outage.heard(Instant::now(), &read);
                read.map(StoreFound::Checkpoint)
            };
            let mut reading = pin!(reading);
            let found = match timeout(STORE_PATIENCE, &mut reading).await {
                Ok(found @ (Ok(_) | Err(StoreError::Damaged(_)))) => found,
                Ok(Err(error)) => noted.await.map(StoreFound::Noted).ok_or(error),
                Err(_) => select! {
                    Some(noted) = noted => Ok(StoreFound::Noted(noted)),
                    found = &mut reading => found,
                },
            };
            inbox.push(Input::Found(partition, token, found));
        });
    }

    /// Answers a call of the store that may not be made now; gives any other action back.
    pub(super) fn without_store(&self, id: PartitionId, action: Action) -> Option<Action> {
        fn no<T>() -> Result<T, StoreError> {
            Err(StoreError::Unavailable("it was not compared with the log yet".to_owned()))
        }
        self.inbox.push(match action {
            Action::ReadStore { read: StoreRead::Checkpoint { .. }, .. } => return Some(action),
            Action::ReadStore { token, .. } => Input::Found(id, token, no()),
            Action::ClaimName { token, .. } => Input::NameClaimed(id, token, no()),
            Action::WriteStore { token, .. }
            | Action::ReleaseName { token, .. }
            | Action::ExpireEvents { token, .. } => Input::Written(id, token, no()),
            _ => return Some(action),
        });
        None
    }

    pub(super) fn read_store(&self, partition: PartitionId, token: u64, read: StoreRead) {
        self.store_call(
            move |store| async move {
                match read {
                    StoreRead::Rows(keys) => store.get_many(keys).await.map(StoreFound::Rows),
                    StoreRead::Scan(scan, limit) => {
                        store.scan(scan, limit).await.map(StoreFound::Scanned)
                    }
                    StoreRead::Checkpoint { .. } => {
                        let row = store.get(Key::Checkpoint(partition)).await;
                        row.map(StoreFound::Checkpoint)
                    }
                    StoreRead::Name(name) => {
                        store.claimed(UniqueKey::ChannelName(name)).await.map(StoreFound::Name)
                    }
                }
            },
            move |found| Input::Found(partition, token, found),
        );
    }

    pub(super) fn write_store(&self, partition: PartitionId, token: u64, rows: Vec<Mutation>) {
        self.store_call(
            move |store| async move { store.write(rows).await },
            move |written| Input::Written(partition, token, written),
        );
    }

    pub(super) fn claim_name(
        &self,
        partition: PartitionId,
        token: u64,
        name: String,
        value: Bytes,
    ) {
        self.store_call(
            move |store| async move { store.claim(UniqueKey::ChannelName(name), value).await },
            move |claimed| Input::NameClaimed(partition, token, claimed),
        );
    }

    pub(super) fn release_name(
        &self,
        partition: PartitionId,
        token: u64,
        name: String,
        value: Bytes,
    ) {
        self.store_call(
            move |store| async move { store.release(UniqueKey::ChannelName(name), value).await },
            move |released| Input::Written(partition, token, released),
        );
    }

    pub(super) fn expire_events(
        &self,
        partition: PartitionId,
        token: u64,
        channel: ChannelId,
        up_to: Rev,
    ) {
        self.store_call(
            move |store| async move { store.expire_events(channel, up_to).await },
            move |expired| Input::Written(partition, token, expired),
        );
    }

    fn store_call<T, F>(
        &self,
        call: impl FnOnce(Arc<dyn Store>) -> F + 'static,
        input: impl FnOnce(Result<T, StoreError>) -> Input + 'static,
    ) where
        F: Future<Output = Result<T, StoreError>> + 'static,
        T: 'static,
    {
        let Self { store, inbox, permits, outage, .. } = self.clone();
        spawn_local(async move {
            // Never closed, so a permit always comes.
            let _permit = permits.acquire().await;
            let outcome = timeout(TIMEOUT, call(store)).await;
            let outcome = outcome.unwrap_or_else(|_| late_store());
            outage.heard(Instant::now(), &outcome);
            inbox.push(input(outcome));
        });
    }
}

fn late_store<T>() -> Result<T, StoreError> {
    Err(StoreError::Unavailable("no answer in 10 s".to_owned()))
}

async fn log_answer<T>(call: impl Future<Output = Result<T, ReadError>>) -> Result<T, ReadError> {
    let late = || Err(ReadError::Unavailable("no answer in 10 s".to_owned()));
    timeout(TIMEOUT, call).await.unwrap_or_else(|_| late())
}
