//! The LSM store against its model, and what its folder and disk may do to it.

mod bundles;
mod disk;
mod group;
mod writer;

use std::fs;

use chappe_protocol::{ChannelId, Incarnation, Rev, Seq};
use proptest::prelude::*;
use tempfile::TempDir;

use super::*;
use crate::store::Stamp;
use crate::store::conformance::{self, Subject};

struct LsmSubject(TempDir);

impl Subject for LsmSubject {
    type Store = LsmStore;

    async fn new() -> Self {
        Self(TempDir::new().unwrap())
    }

    async fn open(&self) -> LsmStore {
        LsmStore::open(self.0.path()).unwrap()
    }
}

crate::store_conformance!(LsmSubject);
crate::store_dump_conformance!(LsmSubject);

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, ..ProptestConfig::default() })]
    #[test]
    fn a_store_answers_as_its_model(operations in conformance::random::operations(60)) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let subject = LsmSubject::new().await;
            conformance::a_store_answers_as_its_model(subject, operations).await;
        });
    }
}

fn message(seq: u64, rev: u64, text: &str) -> Mutation {
    Mutation {
        key: Key::Message(ChannelId::new(1), Seq::new(seq)),
        stamp: Stamp::of(Incarnation(1), Rev::new(rev)),
        value: Some(Bytes::copy_from_slice(text.as_bytes())),
    }
}

#[tokio::test]
async fn a_second_store_in_the_same_directory_is_refused() {
    let dir = TempDir::new().unwrap();
    let first = LsmStore::open(dir.path()).unwrap();
    assert!(matches!(LsmStore::open(dir.path()), Err(OpenError::Locked)));
    drop(first);
    LsmStore::open(dir.path()).unwrap();
}

#[tokio::test]
async fn another_format_is_refused() {
    let dir = TempDir::new().unwrap();
    drop(LsmStore::open(dir.path()).unwrap());
    fs::write(dir.path().join("format"), "chappe store 3\n").unwrap();
    assert!(matches!(LsmStore::open(dir.path()), Err(OpenError::Format)));
}

#[tokio::test]
async fn a_store_without_bundles_is_taken_over_and_then_no_longer_of_its_format() {
    let dir = TempDir::new().unwrap();
    let store = LsmStore::open(dir.path()).unwrap();
    store.write(vec![message(1, 1, "hello")]).await.unwrap();
    drop(store);
    fs::write(dir.path().join("format"), "chappe store 1\n").unwrap();
    let store = LsmStore::open(dir.path()).unwrap();
    assert!(store.get(message(1, 1, "").key).await.unwrap().is_some());
    assert_eq!(fs::read(dir.path().join("format")).unwrap(), b"chappe store 2\n");
}

#[tokio::test]
async fn a_directory_with_other_files_is_refused_and_left_alone() {
    let dir = TempDir::new().unwrap();
    fs::write(dir.path().join("letter.txt"), "dear").unwrap();
    assert!(matches!(LsmStore::open(dir.path()), Err(OpenError::Foreign)));
    assert_eq!(fs::read(dir.path().join("letter.txt")).unwrap(), b"dear");
}

#[tokio::test]
async fn a_store_whose_making_was_cut_short_is_made_again() {
    let dir = TempDir::new().unwrap();
    // What is there when the power fails before the tree has its version file.
    fs::create_dir(dir.path().join("tree")).unwrap();
    fs::write(dir.path().join("tree/0.jnl"), "").unwrap();
    fs::write(dir.path().join("format.new"), "cha").unwrap();
    let store = LsmStore::open(dir.path()).unwrap();
    store.write(vec![message(1, 1, "hello")]).await.unwrap();
}

#[tokio::test]
async fn a_full_disk_refuses_writes_and_goes_on_answering_reads() {
    let dir = TempDir::new().unwrap();
    let row = message(1, 1, "hello");
    let store = LsmStore::open(dir.path()).unwrap();
    store.write(vec![row.clone()]).await.unwrap();
    drop(store);
    let options = LsmOptions { disk_free_bytes_min: u64::MAX, ..LsmOptions::default() };
    let store = LsmStore::open_with(dir.path(), options).unwrap();
    let refused = store.write(vec![message(2, 2, "more")]).await;
    assert_eq!(refused, Err(StoreError::Unavailable("the disk is full".to_owned())));
    assert!(store.get(row.key).await.unwrap().is_some());
    // Nothing to write, so nothing that a full disk could refuse.
    store.write(vec![row]).await.unwrap();
}

#[tokio::test]
async fn what_is_too_large_is_refused_and_takes_its_batch_along() {
    let dir = TempDir::new().unwrap();
    let store = LsmStore::open(dir.path()).unwrap();
    let (small, mut large) = (message(1, 1, "hello"), message(2, 2, ""));
    large.value = Some(Bytes::from(vec![0; ROW_BYTES_MAX + 1]));
    let too_large = StoreError::TooLarge { bytes: ROW_BYTES_MAX + 1 };
    let refused = store.write(vec![small.clone(), large]).await;
    assert_eq!(refused, Err(too_large));
    assert_eq!(store.get(small.key).await, Ok(None));
    let name = UniqueKey::ChannelName("n".repeat(5000));
    let refused = store.claim(name, Bytes::from_static(b"x")).await;
    assert_eq!(refused, Err(StoreError::TooLarge { bytes: 5001 }));
}
