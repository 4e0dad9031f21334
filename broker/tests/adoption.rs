//! Adoptions on the real embedded log and store, cut off between any two steps.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on says where")]

mod frail;
mod gateway;

use std::{path::Path, sync::Arc, time::Duration};

use chappe_broker::{
    Config, LineageError, Parts, StartError,
    adoption::{self, AdoptError, Onward, Plan},
    migration::{self, ExportId, Migration},
    start,
};
use chappe_partition::row::{CheckpointRow, RowValue};
use chappe_protocol::{ChannelId, Incarnation, Rev, Seq, UserId};
use chappe_storage::{
    log::{
        Log,
        segment::{SegmentConfig, SegmentLog},
    },
    store::{Key, Mutation, Stamp, Store, UniqueKey, lsm::LsmStore},
};
use chappe_uplink::{Answer, Start};
use tokio::time::{sleep, timeout};

use frail::Frail;
use gateway::{Gateway, WAIT, create, history, publish};

const PARTITIONS: u32 = 2;

type Ground = (Arc<dyn Log>, Arc<dyn Store>);

fn segments() -> SegmentConfig {
    SegmentConfig { segment_bytes: 4 << 20, ..SegmentConfig::default() }
}

fn open(dir: &Path) -> Ground {
    let log = SegmentLog::open(&dir.join("log"), PARTITIONS, segments()).unwrap();
    (Arc::new(log), Arc::new(LsmStore::open(dir.join("store")).unwrap()))
}

fn channel() -> ChannelId {
    ChannelId::created_by(UserId::new(1), "c")
}

/// Leads everything, publishes messages with these numbers, and sees the checkpoint behind them.
async fn published(dir: &Path, messages: std::ops::RangeInclusive<u64>) {
    let (log, store) = open(dir);
    let parts = Parts::alone(Arc::clone(&log), Arc::clone(&store));
    let (broker, running) = start(Config::default(), parts).await.unwrap();
    timeout(WAIT, running.leads_all()).await.expect("all partitions are led");
    let mut gateway = Gateway::open(&broker);
    if *messages.start() == 1 {
        gateway.command(1, channel(), "c", create("general")).await.unwrap();
    }
    for n in messages {
        let text = publish(channel(), &format!("message {n}"));
        let change = gateway.command(1, channel(), &format!("n{n}"), text).await.unwrap();
        assert_eq!((change.seq, change.rev), (Some(Seq::new(n)), Rev::new(n + 1)));
    }
    let end = log.bounds(channel().partition(PARTITIONS)).await.unwrap().end;
    let saved = async {
        while checkpoint(&store).await.is_none_or(|(_, row)| row.offset < end.0) {
            sleep(Duration::from_millis(10)).await;
        }
    };
    timeout(WAIT, saved).await.expect("everything is in the store");
    tokio::task::spawn_blocking(move || running.stop()).await.unwrap();
}

/// What a start says.
async fn refused(dir: &Path) -> String {
    let (log, store) = open(dir);
    match start(Config::default(), Parts::alone(log, store)).await {
        Ok(_) => panic!("it starts"),
        Err(StartError::Lineage(error)) => error.to_string(),
        Err(error) => panic!("{error}"),
    }
}

async fn inspect(ground: &Ground) -> Plan {
    adoption::inspect(&ground.0, &ground.1).await.unwrap()
}

/// Makes an adoption up to a step and leaves it there; 5 is all.
async fn adopt_until(dir: &Path, step: u32) -> Plan {
    let ground = open(dir);
    let plan = inspect(&ground).await;
    let (log, store) = ground;
    if step >= 1 {
        adoption::begin(&store, &plan).await.unwrap();
    }
    if step >= 2 {
        let recorded = adoption::record(&log, &plan).await.unwrap();
        if step >= 3 {
            adoption::place(&store, &plan, &recorded).await.unwrap();
        }
    }
    if step >= 4 {
        let parts = Parts::alone(log, Arc::clone(&store));
        let started = adoption::start(Config::default(), parts, &plan.adoption).await;
        let (broker, running) = started.unwrap();
        let waited = adoption::wait((&broker, &running), &store, &plan.adoption, WAIT);
        waited.await.unwrap();
        tokio::task::spawn_blocking(move || running.stop()).await.unwrap();
    }
    if step >= 5 {
        adoption::settle(&store, &plan).await.unwrap();
    }
    plan
}

/// Everything that was published is there, an old cursor is reset, and numbers go on.
async fn goes_on(dir: &Path, messages: u64, incarnation: u32) {
    let (log, store) = open(dir);
    let (broker, running) = start(Config::default(), Parts::alone(log, store)).await.unwrap();
    assert_eq!(running.incarnation(), Incarnation(incarnation));
    timeout(WAIT, running.leads_all()).await.expect("all partitions are led");
    let mut gateway = Gateway::open(&broker);
    let Ok(Answer::Messages(page)) = gateway.read(1, channel(), history()).await else {
        panic!("no page");
    };
    let texts = page.messages.iter().map(|m| m.text.as_ref().unwrap().to_string());
    let expected = (1..=messages).map(|n| format!("message {n}"));
    assert_eq!(texts.collect::<Vec<_>>(), expected.collect::<Vec<_>>());
    let head = Rev::new(messages + 1);
    let old = Some((Incarnation(incarnation - 1), Rev::new(2)));
    assert_eq!(gateway.attach_from(1, channel(), old).await.unwrap(), Start::Reset(head));
    // What was answered before is answered so again.
    let again = publish(channel(), &format!("message {messages}"));
    let again = gateway.command(1, channel(), &format!("n{messages}"), again).await.unwrap();
    assert_eq!(again.rev, head);
    tokio::task::spawn_blocking(move || running.stop()).await.unwrap();
    published(dir, messages + 1..=messages + 1).await;
}

fn copy(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let target = to.join(entry.file_name());
        match entry.file_type().unwrap().is_dir() {
            true => copy(&entry.path(), &target),
            false => drop(std::fs::copy(entry.path(), target).unwrap()),
        }
    }
}

fn replace(dir: &Path, part: &str, by: &Path) {
    std::fs::remove_dir_all(dir.join(part)).unwrap();
    copy(by, &dir.join(part));
}

/// The channel's partition's checkpoint.
async fn checkpoint(store: &Arc<dyn Store>) -> Option<(Key, CheckpointRow)> {
    let key = Key::Checkpoint(channel().partition(PARTITIONS));
    let row = store.get(key).await.unwrap()?;
    let RowValue::Checkpoint(row) = RowValue::decode(&key, &row.value).unwrap() else {
        panic!("no checkpoint")
    };
    Some((key, row))
}

#[tokio::test]
async fn facts_behind_the_checkpoint_are_stored_and_the_missing_end_is_not_waited_for() {
    let (dir, kept) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    published(dir.path(), 1..=3).await;
    copy(&dir.path().join("store"), &kept.path().join("store"));
    published(dir.path(), 4..=9).await;
    // The store lacks the last six, and knows of records that the log has no more.
    replace(dir.path(), "store", &kept.path().join("store"));
    let (_, store) = open(dir.path());
    let (key, row) = checkpoint(&store).await.unwrap();
    let stamp = Stamp::at(row.incarnation, row.offset);
    store.write(vec![Mutation { key, stamp, value: None }]).await.unwrap();
    let row = CheckpointRow { highest: row.highest + 1_000, ..row };
    store.write(vec![row.write(channel().partition(PARTITIONS), row.incarnation)]).await.unwrap();
    drop(store);

    let said = refused(dir.path()).await;
    assert!(said.contains("it was truncated") && said.contains("chappe log adopt"), "{said}");
    let plan = adopt_until(dir.path(), 5).await;
    let found = plan.found.iter().find(|found| found.partition == channel().partition(PARTITIONS));
    let Onward::Replay { facts: 6, missing: 1.. } = found.unwrap().onward else {
        panic!("{found:?}")
    };
    goes_on(dir.path(), 9, 2).await;
}

#[tokio::test]
async fn an_adoption_that_is_cut_off_behind_any_step_is_made_again() {
    let (dir, kept) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    published(dir.path(), 1..=3).await;
    copy(&dir.path().join("log"), &kept.path().join("log"));
    published(dir.path(), 4..=5).await;
    replace(dir.path(), "log", &kept.path().join("log"));
    assert!(refused(dir.path()).await.contains("chappe log adopt"));
    for step in [1, 2, 3, 4, 1, 4] {
        adopt_until(dir.path(), step).await;
        let said = refused(dir.path()).await;
        assert!(said.contains("run `chappe log adopt` again"), "{said}");
    }
    // In the middle of the last step neither row says what the log is but this one.
    let (_, store) = open(dir.path());
    let row = store.claimed(UniqueKey::Lineage).await.unwrap().unwrap();
    store.release(UniqueKey::Lineage, row).await.unwrap();
    drop(store);
    assert!(refused(dir.path()).await.contains("run `chappe log adopt` again"));
    let plan = adopt_until(dir.path(), 5).await;
    assert!(plan.goes_on());
    assert!(inspect(&open(dir.path())).await.is_sound());
    goes_on(dir.path(), 5, plan.adoption.assignment().incarnation.0).await;
}

#[tokio::test]
async fn an_adoption_of_a_log_made_anew_is_not_forgotten_while_it_is_begun_again() {
    let dir = tempfile::tempdir().unwrap();
    published(dir.path(), 1..=3).await;
    std::fs::remove_dir_all(dir.path().join("log")).unwrap();
    adopt_until(dir.path(), 2).await; // the log has records of a lineage that is said here alone
    for calls in 0..4 {
        let ground = open(dir.path());
        let plan = inspect(&ground).await;
        let dies: Arc<dyn Store> = Arc::new(Frail::after(ground.1, calls));
        // As far as it gets: whether that is an error is all one.
        drop(adoption::begin(&dies, &plan).await);
    }
    let plan = adopt_until(dir.path(), 5).await;
    goes_on(dir.path(), 3, plan.adoption.assignment().incarnation.0).await;
}

#[tokio::test]
async fn a_log_of_others_is_not_adopted_and_one_that_fits_needs_not_be() {
    let (dir, other) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    published(dir.path(), 1..=2).await;
    published(other.path(), 1..=1).await;
    assert!(inspect(&open(dir.path())).await.is_sound());
    let (_, store) = open(dir.path());
    let (log, _) = open(other.path());
    let refused = adoption::inspect(&log, &store).await.unwrap_err();
    assert!(matches!(refused, AdoptError::Foreign { .. }), "{refused}");
    // Nor is one for a store that there is none of.
    let empty = tempfile::tempdir().unwrap();
    let (_, store) = open(empty.path());
    let refused = adoption::inspect(&log, &store).await.unwrap_err();
    assert!(matches!(refused, AdoptError::NoStore), "{refused}");
}

#[tokio::test]
async fn a_partition_that_is_stopped_keeps_an_adoption_from_its_end() {
    let (dir, kept) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    published(dir.path(), 1..=3).await;
    copy(&dir.path().join("log"), &kept.path().join("log"));
    published(dir.path(), 4..=5).await;
    replace(dir.path(), "log", &kept.path().join("log"));
    let plan = adopt_until(dir.path(), 2).await;
    // The checkpoints were never written: the log is still not what they were made of.
    let (log, store) = open(dir.path());
    let parts = Parts::alone(log, Arc::clone(&store));
    let started = adoption::start(Config::default(), parts, &plan.adoption).await;
    let (broker, running) = started.unwrap();
    let waited = adoption::wait((&broker, &running), &store, &plan.adoption, WAIT).await;
    assert!(matches!(waited, Err(AdoptError::Halted { .. })), "{waited:?}");
    tokio::task::spawn_blocking(move || running.stop()).await.unwrap();
}

#[tokio::test]
async fn an_export_is_given_up_by_it_and_an_import_is_not() {
    let dir = tempfile::tempdir().unwrap();
    published(dir.path(), 1..=2).await;
    let (log, store) = open(dir.path());
    let export = Migration::Export(ExportId::random());
    migration::begin(&store, export).await.unwrap();
    drop((log, store));
    std::fs::remove_dir_all(dir.path().join("log")).unwrap();
    let plan = adopt_until(dir.path(), 5).await;
    assert!(plan.ends_export());
    goes_on(dir.path(), 2, 2).await;

    let ground = open(dir.path());
    let import = migration::Import::new(ExportId::random(), Incarnation(3), PARTITIONS);
    migration::begin(&ground.1, Migration::Import(import)).await.unwrap();
    let refused = adoption::inspect(&ground.0, &ground.1).await.unwrap_err();
    assert!(matches!(refused, AdoptError::Lineage(LineageError::Importing)), "{refused}");
}
