//! The promises of the blob port, each as a test that a backend passes.
//!
//! [`blob_conformance!`](crate::blob_conformance) makes them tests of one backend. They panic
//! where a promise is broken.
#![allow(clippy::unwrap_used)] // what fails here fails a test

use std::future::Future;
use std::sync::Arc;

use bytes::Bytes;
use sha2::{Digest, Sha256};

use super::{BlobError, BlobId, Blobs, Expected, READ_BYTES_MAX};

/// A backend under test: a place for blobs, empty at first.
pub trait Subject: Sized {
    /// The backend.
    type Blobs: Blobs;

    /// A new place.
    fn new() -> impl Future<Output = Self>;

    /// Opens the blobs of this place. Called again only after the one before was dropped.
    fn open(&self) -> impl Future<Output = Self::Blobs>;
}

/// Makes the suite tests of a backend, given its [`Subject`](crate::blobs::conformance::Subject).
#[macro_export]
macro_rules! blob_conformance {
    ($subject:ty) => {
        $crate::blob_conformance! { $subject:
            an_upload_in_chunks_is_read_whole,
            an_upload_is_not_there_before_it_is_finished,
            a_dropped_upload_is_never_there,
            more_bytes_than_declared_are_refused,
            fewer_bytes_than_declared_are_refused,
            another_digest_is_refused,
            an_empty_blob_is_a_blob,
            a_range_is_shortened_to_the_end,
            a_read_is_shortened_to_its_greatest_size,
            a_range_behind_the_end_is_refused,
            an_absent_blob_is_not_found,
            a_deleted_blob_is_gone_and_can_be_deleted_again,
            a_blob_outlives_a_reopen,
            a_failed_upload_leaves_the_blob_of_its_name_alone,
            of_two_uploads_of_a_name_one_is_there_whole,
            many_uploads_at_once_do_not_mix,
        }
    };
    ($subject:ty: $($promise:ident,)*) => {
        $(
            #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $promise() {
                let subject = <$subject as $crate::blobs::conformance::Subject>::new().await;
                $crate::blobs::conformance::$promise(subject).await;
            }
        )*
    };
}

fn id(number: u128) -> BlobId {
    BlobId::from_random(number)
}

/// Bytes no part of which is like another.
fn content(seed: u32, bytes: usize) -> Bytes {
    let words = (0..bytes as u32 / 4 + 1).flat_map(|n| (n ^ seed.rotate_left(16)).to_le_bytes());
    words.take(bytes).collect()
}

fn expected(content: &[u8]) -> Expected {
    Expected { bytes: content.len() as u64, sha256: Sha256::digest(content).into() }
}

async fn upload(
    blobs: &impl Blobs,
    id: BlobId,
    expected: Expected,
    chunks: &[Bytes],
) -> Result<(), BlobError> {
    let mut upload = blobs.upload(id, expected).await?;
    for chunk in chunks {
        upload.write(chunk.clone()).await?;
    }
    upload.finish().await
}

async fn store(blobs: &impl Blobs, id: BlobId, content: &Bytes) {
    upload(blobs, id, expected(content), std::slice::from_ref(content)).await.unwrap();
}

async fn assert_absent(blobs: &impl Blobs, id: &BlobId) {
    assert_eq!(blobs.size(id).await, Err(BlobError::NotFound));
    assert_eq!(blobs.read(id, 0..1).await, Err(BlobError::NotFound));
}

async fn assert_is(blobs: &impl Blobs, id: &BlobId, content: &Bytes) {
    assert_eq!(blobs.size(id).await, Ok(content.len() as u64));
    let found = blobs.read(id, 0..u64::MAX).await.unwrap();
    assert!(found == *content, "the blob has other bytes");
}

/// However it was cut, in empty chunks too.
pub async fn an_upload_in_chunks_is_read_whole(subject: impl Subject) {
    let blobs = subject.open().await;
    let content = content(1, 3_000_001);
    for (number, chunk_bytes) in [(1, 3_000_001), (2, 700_000), (3, 65_536), (4, 1_021)] {
        let mut chunks = vec![Bytes::new()];
        chunks.extend(content.chunks(chunk_bytes).map(Bytes::copy_from_slice));
        chunks.insert(chunks.len() / 2, Bytes::new());
        upload(&blobs, id(number), expected(&content), &chunks).await.unwrap();
        assert_is(&blobs, &id(number), &content).await;
    }
    // A name that differs in one digit is another blob.
    assert_absent(&blobs, &id(5)).await;
    assert_absent(&blobs, &id(1 << 120 | 1)).await;
}

/// Not even when all of its bytes have come.
pub async fn an_upload_is_not_there_before_it_is_finished(subject: impl Subject) {
    let blobs = subject.open().await;
    let content = content(1, 1_000_000);
    let mut upload = blobs.upload(id(1), expected(&content)).await.unwrap();
    assert_absent(&blobs, &id(1)).await;
    upload.write(content.clone()).await.unwrap();
    assert_absent(&blobs, &id(1)).await;
    upload.finish().await.unwrap();
    assert_is(&blobs, &id(1), &content).await;
}

/// Wherever it was dropped; and its name is as good as before.
pub async fn a_dropped_upload_is_never_there(subject: impl Subject) {
    let blobs = subject.open().await;
    let content = content(1, 1_000_000);
    for part in [0, 10, content.len()] {
        let mut upload = blobs.upload(id(1), expected(&content)).await.unwrap();
        upload.write(content.slice(..part)).await.unwrap();
        drop(upload);
        assert_absent(&blobs, &id(1)).await;
    }
    store(&blobs, id(1), &content).await;
    assert_is(&blobs, &id(1), &content).await;
}

/// At the chunk that goes too far, and for good.
pub async fn more_bytes_than_declared_are_refused(subject: impl Subject) {
    let blobs = subject.open().await;
    let content = content(1, 100_000);
    let mut upload = blobs.upload(id(1), expected(&content)).await.unwrap();
    upload.write(content.clone()).await.unwrap();
    let refused = upload.write(Bytes::from_static(b"!")).await;
    assert_eq!(refused, Err(BlobError::TooLarge));
    upload.finish().await.unwrap_err();
    assert_absent(&blobs, &id(1)).await;
}

/// When it is finished.
pub async fn fewer_bytes_than_declared_are_refused(subject: impl Subject) {
    let blobs = subject.open().await;
    let content = content(1, 100_000);
    // The digest is that of what comes, only the size is not.
    let declared = Expected { bytes: 100_001, ..expected(&content) };
    let refused = upload(&blobs, id(1), declared, &[content]).await;
    assert_eq!(refused, Err(BlobError::Mismatch));
    assert_absent(&blobs, &id(1)).await;
}

/// One bit is enough.
pub async fn another_digest_is_refused(subject: impl Subject) {
    let blobs = subject.open().await;
    let content = content(1, 100_000);
    let mut changed = content.to_vec();
    changed[99_999] ^= 1;
    let refused = upload(&blobs, id(1), expected(&content), &[changed.into()]).await;
    assert_eq!(refused, Err(BlobError::Mismatch));
    assert_absent(&blobs, &id(1)).await;
}

/// It has a size, and nothing to read.
pub async fn an_empty_blob_is_a_blob(subject: impl Subject) {
    let blobs = subject.open().await;
    upload(&blobs, id(1), expected(b""), &[]).await.unwrap();
    assert_is(&blobs, &id(1), &Bytes::new()).await;
    assert_eq!(blobs.read(&id(1), 0..0).await, Ok(Bytes::new()));
    assert_eq!(blobs.read(&id(1), 1..2).await, Err(BlobError::Range));
}

/// Ranges are half open.
pub async fn a_range_is_shortened_to_the_end(subject: impl Subject) {
    let blobs = subject.open().await;
    let content = content(1, 10_000);
    store(&blobs, id(1), &content).await;
    for range in [0..1, 0..10_000, 5..5, 4_000..4_001, 9_999..10_000, 9_999..10_001, 10_000..20_000]
    {
        let part = content.slice(range.start..range.end.min(10_000));
        let found = blobs.read(&id(1), range.start as u64..range.end as u64).await;
        assert_eq!(found, Ok(part), "{range:?}");
    }
}

/// A reader goes on from where the part ended.
pub async fn a_read_is_shortened_to_its_greatest_size(subject: impl Subject) {
    let blobs = subject.open().await;
    let content = content(1, READ_BYTES_MAX + 10);
    store(&blobs, id(1), &content).await;
    let first = blobs.read(&id(1), 0..u64::MAX).await.unwrap();
    assert!(first == content.slice(..READ_BYTES_MAX), "the first part is another");
    let rest = blobs.read(&id(1), first.len() as u64..u64::MAX).await.unwrap();
    assert_eq!(rest, content.slice(READ_BYTES_MAX..));
}

/// The end itself is not behind it.
pub async fn a_range_behind_the_end_is_refused(subject: impl Subject) {
    let blobs = subject.open().await;
    store(&blobs, id(1), &content(1, 100)).await;
    assert_eq!(blobs.read(&id(1), 100..200).await, Ok(Bytes::new()));
    assert_eq!(blobs.read(&id(1), 101..200).await, Err(BlobError::Range));
    assert_eq!(blobs.read(&id(1), u64::MAX - 1..u64::MAX).await, Err(BlobError::Range));
}

/// Whether anything was ever stored or not.
pub async fn an_absent_blob_is_not_found(subject: impl Subject) {
    let blobs = subject.open().await;
    assert_absent(&blobs, &id(1)).await;
    store(&blobs, id(1), &content(1, 100)).await;
    assert_absent(&blobs, &id(2)).await;
}

/// And stored again; its neighbours stay.
pub async fn a_deleted_blob_is_gone_and_can_be_deleted_again(subject: impl Subject) {
    let blobs = subject.open().await;
    let (one, two) = (content(1, 100), content(2, 100));
    blobs.delete(&id(1)).await.unwrap();
    store(&blobs, id(1), &one).await;
    store(&blobs, id(2), &two).await;
    for _ in 0..2 {
        blobs.delete(&id(1)).await.unwrap();
        assert_absent(&blobs, &id(1)).await;
    }
    assert_is(&blobs, &id(2), &two).await;
    store(&blobs, id(1), &two).await;
    assert_is(&blobs, &id(1), &two).await;
}

/// And a deletion stays one.
pub async fn a_blob_outlives_a_reopen(subject: impl Subject) {
    let blobs = subject.open().await;
    let content = content(1, 300_000);
    store(&blobs, id(1), &content).await;
    store(&blobs, id(2), &content).await;
    blobs.delete(&id(2)).await.unwrap();
    let unfinished = blobs.upload(id(3), expected(&content)).await.unwrap();
    drop(unfinished);
    drop(blobs);
    let blobs = subject.open().await;
    assert_is(&blobs, &id(1), &content).await;
    assert_absent(&blobs, &id(2)).await;
    assert_absent(&blobs, &id(3)).await;
}

/// It is read during the upload and after.
pub async fn a_failed_upload_leaves_the_blob_of_its_name_alone(subject: impl Subject) {
    let blobs = subject.open().await;
    let (old, new) = (content(1, 100_000), content(2, 50_000));
    store(&blobs, id(1), &old).await;
    let mut failing = blobs.upload(id(1), expected(&new)).await.unwrap();
    failing.write(new.slice(..1000)).await.unwrap();
    assert_is(&blobs, &id(1), &old).await;
    assert_eq!(failing.finish().await, Err(BlobError::Mismatch));
    assert_is(&blobs, &id(1), &old).await;
    store(&blobs, id(1), &new).await;
    assert_is(&blobs, &id(1), &new).await;
}

/// The one that finished last.
pub async fn of_two_uploads_of_a_name_one_is_there_whole(subject: impl Subject) {
    let blobs = subject.open().await;
    let (one, two) = (content(1, 600_000), content(2, 500_000));
    let mut first = blobs.upload(id(1), expected(&one)).await.unwrap();
    let mut second = blobs.upload(id(1), expected(&two)).await.unwrap();
    for part in 0..10 {
        first.write(one.slice(part * 60_000..(part + 1) * 60_000)).await.unwrap();
        second.write(two.slice(part * 50_000..(part + 1) * 50_000)).await.unwrap();
    }
    second.finish().await.unwrap();
    assert_is(&blobs, &id(1), &two).await;
    first.finish().await.unwrap();
    assert_is(&blobs, &id(1), &one).await;
}

/// More than a backend works on at a time.
pub async fn many_uploads_at_once_do_not_mix(subject: impl Subject) {
    let blobs = Arc::new(subject.open().await);
    let uploads: Vec<_> = (0..64_u32)
        .map(|number| {
            let blobs = Arc::clone(&blobs);
            tokio::spawn(async move {
                let content = content(number, 20_000);
                let chunks: Vec<_> = content.chunks(1000).map(Bytes::copy_from_slice).collect();
                upload(&*blobs, id(number.into()), expected(&content), &chunks).await
            })
        })
        .collect();
    for upload in uploads {
        upload.await.unwrap().unwrap();
    }
    for number in 0..64_u32 {
        assert_is(&*blobs, &id(number.into()), &content(number, 20_000)).await;
    }
}
