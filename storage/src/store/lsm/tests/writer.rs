//! The writer's queue, over rows whose commits the test lets through one by one.

use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Arc, Mutex};

use tokio::task::JoinHandle;

use super::*;
use crate::store::Stamp;
use crate::store::key::Sequence;

/// Rows that are never read back. Each commit tells its size and then waits for its outcome.
struct Gate {
    commits: SyncSender<usize>,
    outcomes: Mutex<Receiver<Result<(), StoreError>>>,
}

impl Rows for Gate {
    fn get(&self, _: &[u8]) -> Result<Option<fjall::UserValue>, StoreError> {
        Ok(None)
    }

    fn end(&self, _: Sequence) -> Result<Option<u64>, StoreError> {
        Ok(None)
    }

    fn bundle(
        &self,
        _: Sequence,
        _: u64,
    ) -> Result<Option<(fjall::UserKey, fjall::UserValue)>, StoreError> {
        Ok(None)
    }

    fn commit(
        &self,
        changes: impl Iterator<Item = (fjall::UserKey, Option<fjall::UserValue>)>,
    ) -> Result<(), StoreError> {
        self.commits.send(changes.count()).unwrap();
        self.outcomes.lock().unwrap().recv().unwrap()
    }
}

/// A writer, the sizes of its commits and their outcomes.
fn gated() -> (Arc<Writer>, Receiver<usize>, SyncSender<Result<(), StoreError>>) {
    let (commits, sizes) = sync_channel(100);
    let (outcomes, receiver) = sync_channel(100);
    let gate = Gate { commits, outcomes: Mutex::new(receiver) };
    (Arc::new(Writer::start(Arc::new(gate)).unwrap()), sizes, outcomes)
}

fn put(seq: u64, bytes: usize) -> Change {
    let key = Key::Message(ChannelId::new(1), Seq::new(seq));
    let mutation = Mutation { key, stamp: Stamp(1), value: Some(vec![0; bytes].into()) };
    Change::Rows(vec![mutation])
}

type Submitted = JoinHandle<Result<Claimed, StoreError>>;

/// Submits, on a runtime of one thread, and runs until all of it is in the queue or waits.
async fn submit(writer: &Arc<Writer>, changes: impl Iterator<Item = Change>) -> Vec<Submitted> {
    let spawn = |change| {
        let writer = Arc::clone(writer);
        tokio::spawn(async move { writer.submit(change).await })
    };
    let submitted: Vec<_> = changes.map(spawn).collect();
    for _ in &submitted {
        tokio::task::yield_now().await; // lets at least one of them run
    }
    submitted
}

#[tokio::test]
async fn what_waits_during_a_commit_becomes_one_commit() {
    let (writer, sizes, outcomes) = gated();
    let first = submit(&writer, [put(0, 10)].into_iter()).await;
    assert_eq!(sizes.recv().unwrap(), 1);
    let others = submit(&writer, (1..=100).map(|seq| put(seq, 5_000))).await; // too large for bundles
    outcomes.send(Ok(())).unwrap();
    assert_eq!(sizes.recv().unwrap(), 100);
    for done in first {
        assert_eq!(done.await.unwrap(), Ok(Claimed::Yes));
    }
    assert!(others.iter().all(|other| !other.is_finished()), "answered before the commit");
    outcomes.send(Ok(())).unwrap();
    for done in others {
        assert_eq!(done.await.unwrap(), Ok(Claimed::Yes));
    }
}

#[tokio::test]
async fn a_failed_commit_fails_all_of_its_group_and_none_after() {
    let (writer, sizes, outcomes) = gated();
    let error = StoreError::Unavailable("the disk is full".to_owned());
    let first = submit(&writer, [put(0, 10)].into_iter()).await;
    sizes.recv().unwrap();
    let claim = Change::Claim { key: "name".into(), value: "x".into() };
    let group = submit(&writer, [put(1, 10), claim].into_iter()).await;
    outcomes.send(Ok(())).unwrap();
    sizes.recv().unwrap();
    let after = submit(&writer, [put(2, 10)].into_iter()).await;
    outcomes.send(Err(error.clone())).unwrap();
    outcomes.send(Ok(())).unwrap();
    for (submitted, outcome) in
        [(first, Ok(Claimed::Yes)), (group, Err(error)), (after, Ok(Claimed::Yes))]
    {
        for done in submitted {
            assert_eq!(done.await.unwrap(), outcome);
        }
    }
}

#[tokio::test]
async fn a_full_queue_makes_callers_wait_and_takes_them_as_it_empties() {
    const MIB: usize = 1024 * 1024;
    let (writer, sizes, outcomes) = gated();
    let first = submit(&writer, [put(0, MIB)].into_iter()).await;
    sizes.recv().unwrap();
    // 15 MiB are free beside it: less the overhead, 14 rows find a place.
    let others = submit(&writer, (1..=20).map(|seq| put(seq, MIB))).await;
    assert_eq!(writer.waiting(), 14);
    for _ in 0..21 {
        outcomes.send(Ok(())).unwrap();
    }
    for done in first.into_iter().chain(others) {
        assert_eq!(done.await.unwrap(), Ok(Claimed::Yes));
    }
    let sizes: Vec<_> = sizes.try_iter().collect();
    assert_eq!(sizes.iter().sum::<usize>(), 20);
    assert!(sizes.iter().all(|rows| *rows <= 4), "a group is larger than 4 MiB: {sizes:?}");
}

#[tokio::test]
async fn a_caller_that_goes_away_gives_up_its_wait_for_a_place() {
    let (writer, sizes, outcomes) = gated();
    let first = submit(&writer, [put(0, 1024 * 1024)].into_iter()).await;
    sizes.recv().unwrap();
    let others = submit(&writer, (1..=20).map(|seq| put(seq, 1024 * 1024))).await;
    others.iter().for_each(JoinHandle::abort);
    tokio::task::yield_now().await;
    let last = submit(&writer, [put(21, 10)].into_iter()).await;
    for _ in 0..10 {
        outcomes.send(Ok(())).unwrap();
    }
    for done in first.into_iter().chain(last) {
        assert_eq!(done.await.unwrap(), Ok(Claimed::Yes));
    }
    // The 14 that had a place were committed; the six that waited for one never will be.
    assert_eq!(sizes.try_iter().sum::<usize>(), 15);
}
