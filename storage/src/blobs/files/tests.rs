//! What the files backend adds to the port's promises: its folder, its leftovers, its limits.

use std::fs;
use std::path::Path;

use sha2::{Digest, Sha256};
use tempfile::TempDir;

use super::*;
use crate::blobs::conformance::Subject;

struct FileSubject(TempDir);

impl Subject for FileSubject {
    type Blobs = FileBlobs;

    async fn new() -> Self {
        Self(TempDir::new().unwrap())
    }

    async fn open(&self) -> FileBlobs {
        FileBlobs::open(self.0.path()).unwrap()
    }
}

crate::blob_conformance!(FileSubject);

const CONTENT: Bytes = Bytes::from_static(b"what is in the file");

fn id() -> BlobId {
    BlobId::parse("00112233445566778899aabbccddeeff").unwrap()
}

fn expected() -> Expected {
    Expected { bytes: CONTENT.len() as u64, sha256: Sha256::digest(&CONTENT).into() }
}

fn uploads(dir: &Path) -> usize {
    fs::read_dir(dir.join("uploads")).unwrap().count()
}

async fn store(blobs: &FileBlobs) {
    let mut upload = blobs.upload(id(), expected()).await.unwrap();
    upload.write(CONTENT).await.unwrap();
    upload.finish().await.unwrap();
}

#[tokio::test]
async fn a_blob_lies_two_folders_deep() {
    let dir = TempDir::new().unwrap();
    store(&FileBlobs::open(dir.path()).unwrap()).await;
    let path = dir.path().join("00/11/00112233445566778899aabbccddeeff");
    assert_eq!(fs::read(path).unwrap(), CONTENT);
}

#[tokio::test]
async fn no_upload_leaves_a_file_behind() {
    let dir = TempDir::new().unwrap();
    let blobs = FileBlobs::open(dir.path()).unwrap();
    let begin = || blobs.upload(id(), expected());
    store(&blobs).await;
    assert_eq!(uploads(dir.path()), 0, "finished");
    drop(begin().await.unwrap());
    assert_eq!(uploads(dir.path()), 0, "dropped");
    begin().await.unwrap().finish().await.unwrap_err();
    assert_eq!(uploads(dir.path()), 0, "mismatch");
    let mut upload = begin().await.unwrap();
    upload.write(vec![0; 1000].into()).await.unwrap_err();
    assert_eq!(uploads(dir.path()), 0, "too large");
    // Written to its file before it is dropped.
    let content = vec![7; 1 << 20];
    let expected = Expected { bytes: 2 << 20, sha256: [0; 32] };
    let mut upload = blobs.upload(id(), expected).await.unwrap();
    upload.write(content.into()).await.unwrap();
    assert_eq!(uploads(dir.path()), 1);
    drop(upload);
    assert_eq!(uploads(dir.path()), 0, "dropped with a written part");
}

#[tokio::test]
async fn leftovers_of_a_crash_are_removed_at_the_open_and_blobs_stay() {
    let dir = TempDir::new().unwrap();
    let blobs = FileBlobs::open(dir.path()).unwrap();
    store(&blobs).await;
    drop(blobs);
    fs::write(dir.path().join("uploads/00112233445566778899aabbccddeeff.0"), "wha").unwrap();
    let blobs = FileBlobs::open(dir.path()).unwrap();
    assert_eq!(uploads(dir.path()), 0);
    assert_eq!(blobs.read(&id(), 0..100).await, Ok(CONTENT));
}

#[tokio::test]
async fn a_second_opening_is_refused_and_leaves_uploads_alone() {
    let dir = TempDir::new().unwrap();
    let blobs = FileBlobs::open(dir.path()).unwrap();
    let mut upload = blobs.upload(id(), expected()).await.unwrap();
    assert!(matches!(FileBlobs::open(dir.path()), Err(OpenError::Locked)));
    upload.write(CONTENT).await.unwrap();
    upload.finish().await.unwrap();
    assert_eq!(blobs.read(&id(), 0..100).await, Ok(CONTENT));
}

#[tokio::test]
async fn another_format_and_files_of_others_are_refused() {
    let dir = TempDir::new().unwrap();
    drop(FileBlobs::open(dir.path()).unwrap());
    fs::write(dir.path().join("format"), "chappe blobs 2\n").unwrap();
    assert!(matches!(FileBlobs::open(dir.path()), Err(OpenError::Format)));
    let dir = TempDir::new().unwrap();
    fs::create_dir(dir.path().join("uploads")).unwrap();
    fs::write(dir.path().join("uploads/photo"), "").unwrap();
    fs::write(dir.path().join("letter.txt"), "").unwrap();
    assert!(matches!(FileBlobs::open(dir.path()), Err(OpenError::Foreign)));
    assert!(dir.path().join("uploads/photo").exists());
}

#[tokio::test]
async fn an_upload_that_would_fill_the_disk_is_refused_before_it_begins() {
    let dir = TempDir::new().unwrap();
    let blobs = FileBlobs::open(dir.path()).unwrap();
    store(&blobs).await;
    let huge = Expected { bytes: u64::MAX, sha256: [0; 32] };
    assert_eq!(blobs.upload(id(), huge).await.err(), Some(BlobError::NoSpace));
    drop(blobs);
    let options = FileOptions { disk_free_bytes_min: u64::MAX };
    let blobs = FileBlobs::open_with(dir.path(), options).unwrap();
    assert_eq!(blobs.upload(id(), expected()).await.err(), Some(BlobError::NoSpace));
    assert_eq!(blobs.read(&id(), 0..100).await, Ok(CONTENT));
    assert_eq!(uploads(dir.path()), 0);
}

#[tokio::test]
async fn a_disk_that_fills_up_during_an_upload_is_named() {
    let dir = TempDir::new().unwrap();
    let blobs = FileBlobs::open(dir.path()).unwrap();
    // Every write to this device fails for want of space.
    let full = File::options().write(true).open("/dev/full").unwrap();
    let part = Part::of(&id(), expected(), dir.path().join("uploads/full"), full);
    let mut upload = Box::new(FileUpload::new(Arc::clone(&blobs.place), part));
    upload.write(CONTENT).await.unwrap();
    assert_eq!(upload.finish().await, Err(BlobError::NoSpace));
    assert_eq!(blobs.size(&id()).await, Err(BlobError::NotFound));
}

#[tokio::test]
async fn an_upload_whose_write_was_dropped_can_only_fail() {
    let dir = TempDir::new().unwrap();
    let blobs = FileBlobs::open(dir.path()).unwrap();
    let content = Bytes::from(vec![7; 1 << 20]);
    let expected = Expected { bytes: 1 << 20, sha256: Sha256::digest(&content).into() };
    let mut upload = blobs.upload(id(), expected).await.unwrap();
    // Dropped while it waits for the blocking pool, at its first poll.
    let polled = is_ready_at_once(upload.write(content.clone())).await;
    assert!(!polled, "a megabyte was written without a wait");
    upload.write(Bytes::new()).await.unwrap_err();
    upload.finish().await.unwrap_err();
    assert_eq!(blobs.size(&id()).await, Err(BlobError::NotFound));
}

/// Polls a future once and drops it. Whether it was ready.
async fn is_ready_at_once<T>(future: impl Future<Output = T>) -> bool {
    let mut future = std::pin::pin!(future);
    std::future::poll_fn(|context| std::task::Poll::Ready(future.as_mut().poll(context).is_ready()))
        .await
}
