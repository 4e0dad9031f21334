//! What a log must be before anybody leads it: also one whose beginning is trimmed, or whose end
//! is told by a node that is behind.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on says where")]

mod gateway;
mod memory;

use std::{path::Path, sync::Arc, time::Duration};

use chappe_broker::{
    Bounds, Config, JoinError, Joined, LineageError, Parts, StartError,
    adoption::{self, Loss, Onward},
    create,
    migration::{self, Migration},
    start,
};
use chappe_partition::{record::Record, row::RowValue};
use chappe_protocol::{ChannelId, Incarnation, PartitionId, Rev, UserId};
use chappe_storage::{
    log::{Log, Offset},
    ownership::All,
    store::{Key, Store, lsm::LsmStore},
};
use tokio::time::{sleep, timeout};

use gateway::{Gateway, WAIT, create as create_command, publish};
use memory::MemoryLog;

const PARTITIONS: u32 = 3;

fn store(dir: &Path) -> Arc<dyn Store> {
    Arc::new(LsmStore::open(dir).unwrap())
}

/// The log as the broker takes it.
fn shared(log: &MemoryLog) -> Arc<dyn Log> {
    Arc::new(log.clone())
}

fn channel() -> ChannelId {
    ChannelId::created_by(UserId::new(1), "c")
}

fn of_channel() -> PartitionId {
    channel().partition(PARTITIONS)
}

/// Another partition than the channel's.
fn other() -> PartitionId {
    PartitionId((of_channel().0 + 1) % PARTITIONS)
}

/// Checkpoints also what has no facts, and leaves it to the test what is trimmed.
fn config() -> Config {
    let bounds = Bounds { refresh_ms: 100, trim_ms: 1 << 40, ..Bounds::default() };
    Config { bounds, ..Config::default() }
}

/// Publishes a message, sees checkpoints behind everything that was there, and stops.
async fn published(log: &MemoryLog, store: &Arc<dyn Store>, message: u64) {
    let parts = Parts::alone(shared(log), Arc::clone(store));
    let (broker, running) = start(config(), parts).await.unwrap();
    timeout(WAIT, running.leads_all()).await.expect("all partitions are led");
    let mut gateway = Gateway::open(&broker);
    if message == 1 {
        gateway.command(1, channel(), "c", create_command("general")).await.unwrap();
    }
    let text = publish(channel(), "text");
    let change = gateway.command(1, channel(), &format!("n{message}"), text).await.unwrap();
    assert_eq!(change.rev, Rev::new(message + 1));
    for partition in (0..PARTITIONS).map(PartitionId) {
        let end = log.end(partition);
        let saved = async {
            while checkpoint(store, partition).await < end {
                sleep(Duration::from_millis(10)).await;
            }
        };
        timeout(WAIT, saved).await.expect("everything is in the store");
    }
    tokio::task::spawn_blocking(move || running.stop()).await.unwrap();
}

async fn checkpoint(store: &Arc<dyn Store>, partition: PartitionId) -> u64 {
    let key = Key::Checkpoint(partition);
    let Some(row) = store.get(key).await.unwrap() else { return 0 };
    match RowValue::decode(&key, &row.value).unwrap() {
        RowValue::Checkpoint(row) => row.offset,
        _ => panic!("no checkpoint"),
    }
}

#[tokio::test]
async fn a_trimmed_log_of_which_one_partition_was_cut_is_adopted_and_led() {
    let dir = tempfile::tempdir().unwrap();
    let (log, store) = (MemoryLog::new(PARTITIONS), store(dir.path()));
    published(&log, &store, 1).await;
    for partition in (0..PARTITIONS).map(PartitionId) {
        log.trim(partition, Offset(1)).await.unwrap();
    }
    log.cut(other(), 2);

    let ground = shared(&log);
    let plan = adoption::inspect(&ground, &store).await.unwrap();
    for found in &plan.found {
        let is_cut = matches!(found.onward, Onward::Store(Loss::Cut(_)));
        assert_eq!(is_cut, found.partition == other(), "{found}");
    }
    adoption::begin(&store, &plan).await.unwrap();
    let recorded = adoption::record(&ground, &plan).await.unwrap();
    adoption::place(&store, &plan, &recorded).await.unwrap();
    let parts = Parts::alone(ground, Arc::clone(&store));
    let (broker, running) = adoption::start(config(), parts, &plan.adoption).await.unwrap();
    adoption::wait((&broker, &running), &store, &plan.adoption, WAIT).await.unwrap();
    tokio::task::spawn_blocking(move || running.stop()).await.unwrap();
    adoption::settle(&store, &plan).await.unwrap();
    published(&log, &store, 2).await;
}

#[tokio::test]
async fn a_trimmed_log_is_not_begun_again_for_a_store_that_is_empty() {
    for trimmed in [PARTITIONS, 1] {
        let (dir, empty) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let log = MemoryLog::new(PARTITIONS);
        // Nothing but its first records was ever there.
        create(shared(&log), store(dir.path())).await.unwrap();
        for partition in (0..trimmed).map(PartitionId) {
            log.trim(partition, Offset(1)).await.unwrap();
        }
        let empty = store(empty.path());
        let refused = create(shared(&log), Arc::clone(&empty)).await.unwrap_err();
        let is_named = match trimmed {
            PARTITIONS => matches!(refused, LineageError::StoreMissingOfTrimmed),
            _ => matches!(refused, LineageError::StoreMissing(_)),
        };
        assert!(is_named, "{refused}");
        assert!((0..PARTITIONS).all(|partition| log.end(PartitionId(partition)) == 1));
        let started = start(config(), Parts::alone(shared(&log), empty)).await;
        assert!(matches!(started.err(), Some(StartError::Lineage(_))));
    }
}

#[tokio::test]
async fn a_log_whose_end_is_told_by_a_node_that_is_behind_is_looked_at_again_beside_its_leaders() {
    let dir = tempfile::tempdir().unwrap();
    let (log, store) = (MemoryLog::new(PARTITIONS), store(dir.path()));
    published(&log, &store, 1).await;
    tokio::time::pause();
    log.seems_to_end(other(), 4, 2);
    let made = create(shared(&log), Arc::clone(&store)).await;
    assert_eq!(made.unwrap(), Incarnation(1));
}

/// Starts one that does this when it joins.
async fn start_joining(
    log: &MemoryLog,
    store: &Arc<dyn Store>,
    joins: impl FnOnce() + Send + 'static,
) -> String {
    let join = move || -> Result<Joined, JoinError> {
        joins();
        let (all, changes) = All::new(PARTITIONS);
        Ok((Arc::new(all), changes))
    };
    let parts = Parts { join: Box::new(join), ..Parts::alone(shared(log), Arc::clone(store)) };
    match start(config(), parts).await {
        Err(StartError::Lineage(error)) => error.to_string(),
        Err(error) => panic!("{error}"),
        Ok(_) => panic!("it starts"),
    }
}

#[tokio::test]
async fn nobody_joins_those_who_lead_before_log_and_store_were_compared() {
    let dir = tempfile::tempdir().unwrap();
    let (log, store) = (MemoryLog::new(PARTITIONS), store(dir.path()));
    published(&log, &store, 1).await;
    log.cut(other(), 2);
    let said = start_joining(&log, &store, || panic!("it joins")).await;
    assert!(said.contains("it was truncated"), "{said}");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_adoption_that_begins_or_ends_before_a_broker_joins_keeps_it_from_leading() {
    let dir = tempfile::tempdir().unwrap();
    let (log, store) = (MemoryLog::new(PARTITIONS), store(dir.path()));
    published(&log, &store, 1).await;
    let before: Vec<_> = (0..PARTITIONS).map(|id| log.end(PartitionId(id))).collect();
    let plan = adoption::inspect(&shared(&log), &store).await.unwrap();
    let adopted = plan.adoption;
    let now = tokio::runtime::Handle::current();
    let (of, on) = (Arc::clone(&store), now.clone());
    let begins = move || {
        let begins = async { migration::begin(&of, Migration::Adopt(adopted)).await };
        tokio::task::block_in_place(|| on.block_on(begins)).unwrap();
    };
    let said = start_joining(&log, &store, begins).await;
    assert!(said.contains("has begun and is not finished"), "{said}");

    migration::end(&store, Migration::Adopt(adopted)).await.unwrap();
    let of = Arc::clone(&store);
    let ends = move || {
        let ends = async { adoption::settle(&of, &plan).await };
        tokio::task::block_in_place(|| now.block_on(ends)).unwrap();
    };
    let said = start_joining(&log, &store, ends).await;
    assert!(said.contains("adopted a moment ago"), "{said}");
    let after: Vec<_> = (0..PARTITIONS).map(|id| log.end(PartitionId(id))).collect();
    assert_eq!(before, after, "it claimed nothing");
}

#[tokio::test]
async fn after_a_stop_the_store_has_everything_and_the_next_start_replays_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let (log, store) = (MemoryLog::new(PARTITIONS), store(dir.path()));
    for _ in 0..2 {
        let parts = Parts::alone(shared(&log), Arc::clone(&store));
        let (broker, running) = start(Config::default(), parts).await.unwrap();
        timeout(WAIT, running.leads_all()).await.expect("all partitions are led");
        let mut gateway = Gateway::open(&broker);
        gateway.command(1, channel(), "c", create_command("general")).await.unwrap();
        for n in 0..100 {
            let text = publish(channel(), "text");
            gateway.command(1, channel(), &format!("n{n}"), text).await.unwrap();
        }
        tokio::task::spawn_blocking(move || running.stop()).await.unwrap();
        for partition in (0..PARTITIONS).map(PartitionId) {
            assert_eq!(checkpoint(&store, partition).await, log.end(partition), "{partition}");
            let last = log.last(partition);
            assert!(matches!(last, Record::Release(_)), "{partition} ends with {last:?}");
        }
    }
}
