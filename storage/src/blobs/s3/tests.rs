//! What the bucket backend adds to the port's promises: parts, deadlines, attempts, signed
//! addresses, and a server that is gone.

use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Instant;

use minio::s3::segmented_bytes::SegmentedBytes;
use minio::s3::types::{PartInfo, ToStream};
use sha2::{Digest, Sha256};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio::sync::OnceCell;

use super::upload::PART_BYTES;
use super::*;
use crate::blobs::conformance::Subject;
use crate::servers::{eventually, given, unique};

const BUCKET: &str = "chappe-storage-tests";

/// A prefix of its own in a bucket for all tests.
struct BucketSubject(S3Options);

impl Subject for BucketSubject {
    type Blobs = S3Blobs;

    async fn new() -> Self {
        static MADE: OnceCell<()> = OnceCell::const_new();
        let options = S3Options {
            url: given("S3"),
            access_key: given("S3_ACCESS_KEY"),
            secret_key: given("S3_SECRET_KEY"),
            prefix: format!("{}/", unique()),
            ..nowhere("http://127.0.0.1:1")
        };
        let blobs = S3Blobs::new(options.clone()).unwrap();
        MADE.get_or_init(async || {
            blobs.make_bucket().await.unwrap();
            sweep(&blobs).await;
        })
        .await;
        Self(options)
    }

    async fn open(&self) -> S3Blobs {
        S3Blobs::new(self.0.clone()).unwrap()
    }
}

crate::blob_conformance!(BucketSubject);

/// Removes what tests have left an hour ago.
async fn sweep(blobs: &S3Blobs) {
    let client = &blobs.place.client;
    let list = client.list_objects(&blobs.place.bucket).unwrap().recursive(true).build();
    let mut pages = list.to_stream().await;
    while let Some(page) = pages.next().await {
        for object in page.unwrap().contents {
            let age = object.last_modified.map(|then| minio::s3::utils::utc_now() - then);
            if age.is_some_and(|age| age.num_hours() >= 1) {
                let delete =
                    client.delete_object(&blobs.place.bucket, object.name.as_str()).unwrap();
                delete.build().send().await.unwrap();
            }
        }
    }
}

/// Options with another address, and too little time for a server that does not answer.
fn nowhere(url: &str) -> S3Options {
    S3Options {
        url: url.to_owned(),
        region: "us-east-1".to_owned(),
        bucket: BUCKET.to_owned(),
        prefix: String::new(),
        access_key: "somebody".to_owned(),
        secret_key: "sesame".to_owned(),
        limits: S3Limits::default(),
    }
}

fn short(limits: S3Limits) -> S3Limits {
    S3Limits { call: Duration::from_millis(600), transfer: Duration::from_millis(1000), ..limits }
}

fn id() -> BlobId {
    BlobId::parse("00112233445566778899aabbccddeeff").unwrap()
}

fn content(bytes: usize) -> Bytes {
    let mut content = BytesMut::with_capacity(bytes + 4);
    for word in 0..bytes as u32 / 4 + 1 {
        content.extend_from_slice(&word.to_le_bytes());
    }
    content.split_to(bytes).freeze()
}

fn expected(content: &[u8]) -> Expected {
    Expected { bytes: content.len() as u64, sha256: Sha256::digest(content).into() }
}

async fn store(blobs: &S3Blobs, content: &Bytes) -> Result<(), BlobError> {
    let mut upload = blobs.upload(id(), expected(content)).await?;
    // Chunks that do not end where parts do.
    for chunk in content.chunks(3_000_000) {
        upload.write(Bytes::copy_from_slice(chunk)).await?;
    }
    upload.finish().await
}

fn error<T>(result: Result<T, BlobError>) -> BlobError {
    result.err().expect("the call fails")
}

#[tokio::test]
async fn a_blob_of_several_parts_is_put_together_in_order() {
    let blobs = BucketSubject::new().await.open().await;
    // The last part is full, or one byte, or there is only one.
    for bytes in [2 * PART_BYTES, PART_BYTES + 1, PART_BYTES] {
        let content = content(bytes);
        store(&blobs, &content).await.unwrap();
        assert_eq!(blobs.size(&id()).await, Ok(bytes as u64));
        let edge = PART_BYTES - 5;
        let found = blobs.read(&id(), edge as u64..edge as u64 + 10).await.unwrap();
        assert_eq!(found, content.slice(edge..bytes.min(edge + 10)));
        let mut found = BytesMut::new();
        while found.len() < bytes {
            found.extend(blobs.read(&id(), found.len() as u64..u64::MAX).await.unwrap());
        }
        assert!(found == content, "the blob has other bytes");
    }
}

#[tokio::test]
async fn an_upload_in_parts_that_is_dropped_or_fails_is_aborted() {
    let blobs = BucketSubject::new().await.open().await;
    let place = &blobs.place;
    for is_finished in [false, true] {
        let content = content(PART_BYTES + 1);
        let declared = Expected { sha256: [0; 32], ..expected(&content) };
        let transfer = Transfer::begin(place, place.key(&id()), declared.bytes).await.unwrap();
        let server_id = transfer.multipart_id().unwrap().to_owned();
        let mut upload = Box::new(S3Upload::new(transfer, declared));
        upload.write(content).await.unwrap();
        if is_finished {
            assert_eq!(upload.finish().await, Err(BlobError::Mismatch));
        } else {
            drop(upload);
        }
        // The server knows it no more: a part of it is refused.
        let refused = async || {
            let part = SegmentedBytes::from(Bytes::from_static(b"late"));
            let (bucket, key) = (&place.bucket, place.key(&id()));
            let put = place.client.upload_part(bucket, key, server_id.as_str(), 3, part).unwrap();
            put.build().send().await.is_err()
        };
        eventually("the upload is aborted", refused).await;
        assert_eq!(blobs.size(&id()).await, Err(BlobError::NotFound));
    }
}

#[tokio::test]
async fn a_signed_address_gives_ranges_to_anybody_and_nothing_else() {
    let blobs = BucketSubject::new().await.open().await;
    store(&blobs, &content(1000)).await.unwrap();
    let url = blobs.signed_url(&id(), Duration::from_secs(60)).await.unwrap();
    let client = reqwest::Client::new();
    let answer = client.get(&url).header("range", "bytes=10-19").send().await.unwrap();
    assert_eq!(answer.status(), 206);
    assert_eq!(answer.bytes().await.unwrap(), content(1000).slice(10..20));
    // For another blob, or to write.
    let other = url.replacen(id().as_str(), &"0".repeat(32), 1);
    assert_ne!(other, url);
    assert_eq!(client.get(other).send().await.unwrap().status(), 403);
    assert_eq!(client.delete(&url).send().await.unwrap().status(), 403);
    // Longer than S3 allows is as long as it allows.
    let url = blobs.signed_url(&id(), Duration::MAX).await.unwrap();
    assert_eq!(client.get(&url).send().await.unwrap().status(), 200);
}

#[tokio::test]
async fn wrong_keys_and_a_missing_bucket_are_told_apart() {
    let subject = BucketSubject::new().await;
    subject.open().await.check().await.unwrap();
    let secret_key = "sesame".to_owned();
    let stranger = S3Blobs::new(S3Options { secret_key, ..subject.0.clone() }).unwrap();
    let refused = error(stranger.check().await).to_string();
    assert!(refused.contains("AccessDenied") && !refused.contains("sesame"), "{refused}");
    error(store(&stranger, &content(10)).await);
    error(stranger.read(&id(), 0..1).await);
    let bucket = format!("chappe-{}", unique());
    let astray = S3Blobs::new(S3Options { bucket, ..subject.0.clone() }).unwrap();
    let missing = BlobError::Unavailable("there is no such bucket".to_owned());
    assert_eq!(astray.check().await, Err(missing));
    let refused = error(store(&astray, &content(10)).await).to_string();
    assert!(refused.contains("NoSuchBucket"), "{refused}");
}

/// Every call, with an upload of one part and one of several; each in its time.
async fn assert_unavailable(blobs: &S3Blobs, within: Duration) {
    let unavailable = |error: BlobError| matches!(error, BlobError::Unavailable(_));
    let begin = Instant::now();
    assert!(unavailable(error(blobs.check().await)));
    assert!(unavailable(error(blobs.size(&id()).await)));
    assert!(unavailable(error(blobs.read(&id(), 0..10).await)));
    assert!(unavailable(error(blobs.delete(&id()).await)));
    assert!(unavailable(error(store(blobs, &content(10)).await)));
    assert!(unavailable(error(store(blobs, &content(PART_BYTES + 1)).await)));
    assert!(begin.elapsed() < within, "{:?}", begin.elapsed());
}

/// Something that could have been listening, and is not.
#[tokio::test]
async fn a_server_that_is_down_is_unavailable() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    drop(listener);
    let blobs = S3Blobs::new(nowhere(&url)).unwrap();
    // Refused connections are noticed: six calls, of which each may take longer than this together.
    assert_unavailable(&blobs, Duration::from_secs(20)).await;
    let refused = error(blobs.check().await).to_string();
    assert!(refused.contains("refused") && !refused.contains("127.0.0.1"), "{refused}");
}

#[tokio::test]
async fn a_server_that_never_answers_is_given_up_in_time() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let _hanging = tokio::spawn(async move {
        let mut accepted = Vec::new();
        while let Ok((connection, _)) = listener.accept().await {
            accepted.push(connection);
        }
    });
    let limits = short(S3Limits::default());
    let within = 6 * limits.transfer + Duration::from_secs(5);
    let blobs = S3Blobs::new(S3Options { limits, ..nowhere(&url) }).unwrap();
    assert_unavailable(&blobs, within).await;
}

/// A server that gives the same answer to every request, and counts them.
async fn answering(answer: &'static str) -> (S3Blobs, Arc<AtomicU32>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let requests = Arc::new(AtomicU32::new(0));
    let count = Arc::clone(&requests);
    tokio::spawn(async move {
        while let Ok((mut connection, _)) = listener.accept().await {
            let mut head = Vec::new();
            while !head.windows(4).any(|end| end == b"\r\n\r\n") {
                if connection.read_buf(&mut head).await.unwrap_or(0) == 0 {
                    break;
                }
            }
            count.fetch_add(1, Ordering::Relaxed);
            let _ = connection.write_all(answer.as_bytes()).await;
        }
    });
    (S3Blobs::new(nowhere(&url)).unwrap(), requests)
}

#[tokio::test]
async fn what_may_pass_is_tried_again_and_what_will_not_is_not() {
    let busy = "HTTP/1.1 503 Busy\r\nconnection: close\r\ncontent-length: 0\r\n\r\n";
    let forbidden = "HTTP/1.1 403 No\r\nconnection: close\r\ncontent-length: 0\r\n\r\n";
    let full = "HTTP/1.1 507 Full\r\nconnection: close\r\ncontent-length: 0\r\n\r\n";
    for (answer, attempts) in [(busy, 3), (forbidden, 1), (full, 1)] {
        let (blobs, requests) = answering(answer).await;
        let failed = error(blobs.delete(&id()).await);
        assert_eq!(failed == BlobError::NoSpace, answer == full, "{failed}");
        assert_eq!(requests.load(Ordering::Relaxed), attempts, "{answer}");
    }
}

#[tokio::test]
async fn an_answer_of_another_range_is_not_taken_for_the_content() {
    let whole = "HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: 5\r\n\r\nhello";
    let (blobs, _) = answering(whole).await;
    assert_eq!(blobs.read(&id(), 0..5).await.unwrap(), "hello");
    error(blobs.read(&id(), 0..4).await);
    error(blobs.read(&id(), 1..6).await);
    let short = "HTTP/1.1 206 Part\r\nconnection: close\r\ncontent-range: bytes 1-5/9\r\n\
                 content-length: 5\r\n\r\nhel";
    let (blobs, requests) = answering(short).await;
    error(blobs.read(&id(), 1..6).await);
    assert_eq!(requests.load(Ordering::Relaxed), 3, "a lost connection may pass");
}

/// S3 begins to answer a completion before it knows whether there will be one.
#[tokio::test]
async fn a_completion_that_fails_under_a_status_of_success_is_none() {
    let (blobs, _) = answering(
        "HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-type: application/xml\r\n\
         content-length: 42\r\n\r\n<Error><Code>InternalError</Code> </Error>",
    )
    .await;
    let mut transfer = Transfer::begin(&blobs.place, "key".to_owned(), 10).await.unwrap();
    let etag = minio::s3::types::ETag::new("0123").unwrap();
    transfer.pretend_parts("upload".to_owned(), vec![PartInfo::new(1, etag, 10, None)]);
    let failed = error(transfer.finish(Bytes::new()).await);
    let what = "the server did not complete the upload".to_owned();
    assert_eq!(failed, BlobError::Unavailable(what));
}

/// The memory of uploads is given in full before an upload begins, so none can wait for another
/// half way.
#[tokio::test(start_paused = true)]
async fn uploads_beyond_the_memory_wait_and_are_refused() {
    let limits = S3Limits { upload_bytes_max: PART_BYTES, ..S3Limits::default() };
    let options = S3Options { limits, ..nowhere("http://127.0.0.1:1") };
    let blobs = S3Blobs::new(options).unwrap();
    let declared = |bytes| Expected { bytes, sha256: [0; 32] };
    let half = PART_BYTES as u64 / 2;
    let first = blobs.upload(id(), declared(half)).await.unwrap();
    let second = blobs.upload(id(), declared(half)).await.unwrap();
    let refused = error(blobs.upload(id(), declared(1)).await);
    let what = "too many uploads are under way".to_owned();
    assert_eq!(refused, BlobError::Unavailable(what));
    drop(first);
    let third = blobs.upload(id(), declared(half)).await.unwrap();
    drop((second, third));
    blobs.upload(id(), declared(2 * half)).await.unwrap();
}

#[tokio::test]
async fn a_blob_of_more_parts_than_there_can_be_is_refused() {
    let blobs = S3Blobs::new(nowhere("http://127.0.0.1:1")).unwrap();
    let declared = Expected { bytes: 10_000 * PART_BYTES as u64 + 1, sha256: [0; 32] };
    assert_eq!(error(blobs.upload(id(), declared).await), BlobError::NoSpace);
}

#[test]
fn wrong_options_are_refused_by_name() {
    let refused = |change: fn(&mut S3Options)| {
        let mut options = nowhere("http://127.0.0.1:1");
        change(&mut options);
        S3Blobs::new(options).unwrap_err()
    };
    assert_eq!(refused(|o| o.url = "ftp://127.0.0.1".to_owned()), S3OptionsError::Url);
    assert_eq!(refused(|o| o.url = "http://127.0.0.1/path".to_owned()), S3OptionsError::Url);
    assert_eq!(refused(|o| o.bucket = "No Bucket".to_owned()), S3OptionsError::Bucket);
    assert_eq!(refused(|o| o.region = "no region".to_owned()), S3OptionsError::Region);
    assert_eq!(refused(|o| o.limits.calls_max = 0), S3OptionsError::Limits);
    assert_eq!(refused(|o| o.limits.upload_bytes_max = 1024), S3OptionsError::Limits);
}

#[test]
fn the_secret_key_is_not_shown() {
    let blobs = S3Blobs::new(nowhere("http://127.0.0.1:1")).unwrap();
    assert!(!format!("{blobs:?}").contains("sesame"));
}
