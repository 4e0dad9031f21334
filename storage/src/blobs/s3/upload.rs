//! An upload under way: the part that is being gathered, the digest so far, and the parts that the
//! server has.
//!
//! Parts are sent one after the other, each once it is full, so an upload holds one part in memory
//! and no more. Nothing becomes an object before size and digest are right. Whatever goes wrong
//! once, the upload stays failed.

use std::sync::Arc;

use async_trait::async_trait;
use bytes::{Bytes, BytesMut};
use minio::s3::response_traits::{HasEtagFromHeaders, HasS3Fields};
use minio::s3::segmented_bytes::SegmentedBytes;
use minio::s3::types::{PartInfo, S3Api};
use sha2::{Digest, Sha256};
use tokio::sync::OwnedSemaphorePermit;
use tokio::time::timeout;

use super::super::{BlobError, Expected, Upload};
use super::Place;
use super::failure::Failure;

pub(super) struct S3Upload {
    expected: Expected,
    /// None once a write failed, or its future was dropped.
    transfer: Option<Transfer>,
    /// The bytes that may still come.
    left_bytes: u64,
}

impl S3Upload {
    pub(super) fn new(transfer: Transfer, expected: Expected) -> Self {
        Self { left_bytes: expected.bytes, expected, transfer: Some(transfer) }
    }
}

#[async_trait]
impl Upload for S3Upload {
    async fn write(&mut self, mut chunk: Bytes) -> Result<(), BlobError> {
        // Put back at the end: what returns or is dropped before that leaves nothing to go on with.
        let mut transfer = self.transfer.take().ok_or_else(failed)?;
        self.left_bytes =
            self.left_bytes.checked_sub(chunk.len() as u64).ok_or(BlobError::TooLarge)?;
        while !chunk.is_empty() {
            let room = transfer.part_bytes - transfer.part.len();
            transfer.part.extend_from_slice(&chunk.split_to(room.min(chunk.len())));
            if transfer.part.len() == transfer.part_bytes && transfer.multipart.is_some() {
                transfer.send_part().await?;
            }
        }
        self.transfer = Some(transfer);
        Ok(())
    }

    async fn finish(mut self: Box<Self>) -> Result<(), BlobError> {
        let mut transfer = self.transfer.take().ok_or_else(failed)?;
        if self.left_bytes > 0 {
            return Err(BlobError::Mismatch);
        }
        let last = transfer.take_part().await?;
        if transfer.digest.finalize_reset()[..] != self.expected.sha256 {
            return Err(BlobError::Mismatch);
        }
        transfer.finish(last).await
    }
}

fn failed() -> BlobError {
    BlobError::Unavailable("an earlier write of this upload failed".to_owned())
}

/// What an upload has of the server. Dropping it gives that back.
pub(super) struct Transfer {
    place: Arc<Place>,
    key: String,
    part: BytesMut,
    /// How long a part is that is not the last.
    part_bytes: usize,
    digest: Sha256,
    multipart: Option<Multipart>,
    /// Its share of the memory of all uploads.
    memory: Option<OwnedSemaphorePermit>,
}

/// An upload in parts that the server knows of, neither completed nor aborted.
struct Multipart {
    id: String,
    parts: Vec<PartInfo>,
}

impl Transfer {
    pub(super) async fn begin(
        place: &Arc<Place>,
        key: String,
        bytes: u64,
    ) -> Result<Self, BlobError> {
        if bytes > PARTS_MAX * PART_BYTES as u64 {
            return Err(BlobError::NoSpace); // no bucket has room for an object of that size
        }
        let part_bytes = PART_BYTES.min(bytes as usize);
        let kib = part_bytes.div_ceil(1024) as u32;
        let room = Arc::clone(&place.upload_kib).acquire_many_owned(kib);
        let Ok(Ok(memory)) = timeout(place.limits.call, room).await else {
            return Err(BlobError::Unavailable("too many uploads are under way".to_owned()));
        };
        let mut transfer = Self {
            place: Arc::clone(place),
            key,
            part: BytesMut::with_capacity(part_bytes),
            part_bytes,
            digest: Sha256::new(),
            multipart: None,
            memory: Some(memory),
        };
        if bytes > PART_BYTES as u64 {
            transfer.multipart = Some(transfer.begin_multipart().await?);
        }
        Ok(transfer)
    }

    #[cfg(test)]
    pub(super) fn multipart_id(&self) -> Option<&str> {
        self.multipart.as_ref().map(|multipart| multipart.id.as_str())
    }

    /// As if the server had begun an upload and taken its parts.
    #[cfg(test)]
    pub(super) fn pretend_parts(&mut self, id: String, parts: Vec<PartInfo>) {
        self.multipart = Some(Multipart { id, parts });
    }

    async fn begin_multipart(&self) -> Result<Multipart, Failure> {
        let (place, key) = (&*self.place, self.key.as_str());
        let begin = || async move {
            let request = place.client.create_multipart_upload(&place.bucket, key)?.build();
            Ok(request.send().await?.upload_id().await?.to_string())
        };
        let id = place.call(place.limits.call, begin).await?;
        Ok(Multipart { id, parts: Vec::new() })
    }

    /// The part as it is, and an empty one in its place. It counts for the digest from now on, which
    /// takes milliseconds and a thread that may be busy for so long.
    async fn take_part(&mut self) -> Result<Bytes, BlobError> {
        let part = self.part.split().freeze();
        let mut digest = std::mem::take(&mut self.digest);
        let hash = tokio::task::spawn_blocking(move || {
            digest.update(&part);
            (digest, part)
        });
        let stopped = |_| BlobError::Unavailable("a job was stopped".to_owned());
        let (digest, part) = hash.await.map_err(stopped)?;
        self.digest = digest;
        Ok(part)
    }

    async fn send_part(&mut self) -> Result<(), BlobError> {
        let part = self.take_part().await?;
        self.put_part(part).await?;
        self.part.reserve(self.part_bytes);
        Ok(())
    }

    async fn put_part(&mut self, part: Bytes) -> Result<(), Failure> {
        let (place, key) = (&*self.place, self.key.as_str());
        let multipart = self.multipart.as_mut().expect("parts are of an upload in parts");
        let (id, number) = (multipart.id.as_str(), multipart.parts.len() as u16 + 1);
        let part = &part;
        let put = || async move {
            let content = SegmentedBytes::from(part.clone());
            let request = place.client.upload_part(&place.bucket, key, id, number, content)?;
            Ok(request.build().send().await?.etag()?)
        };
        let etag = place.call(place.limits.transfer, put).await?;
        multipart.parts.push(PartInfo::new(number, etag, part.len() as u64, None));
        Ok(())
    }

    /// Makes it an object, with the `last` part.
    pub(super) async fn finish(mut self, last: Bytes) -> Result<(), BlobError> {
        if self.multipart.is_none() {
            return Ok(self.put_object(&last).await?);
        }
        if !last.is_empty() {
            self.put_part(last).await?;
        }
        self.complete().await?;
        self.multipart = None;
        Ok(())
    }

    async fn put_object(&self, content: &Bytes) -> Result<(), Failure> {
        let (place, key) = (&*self.place, self.key.as_str());
        let put = || async move {
            let content = SegmentedBytes::from(content.clone());
            let request = place.client.put_object(&place.bucket, key, content)?;
            Ok(request.build().send().await.map(drop)?)
        };
        place.call(place.limits.transfer, put).await
    }

    async fn complete(&self) -> Result<(), Failure> {
        let (place, key) = (&*self.place, self.key.as_str());
        let multipart = self.multipart.as_ref().expect("parts are of an upload in parts");
        let complete = || async move {
            let (id, parts) = (multipart.id.as_str(), multipart.parts.clone());
            let request = place.client.complete_multipart_upload(&place.bucket, key, id, parts)?;
            let answer = request.build().send().await?;
            // It begins to answer before it knows: an error may come under a status of success.
            let body = String::from_utf8_lossy(answer.body());
            if body.contains("CompleteMultipartUploadResult") {
                Ok(())
            } else {
                Err(Failure::transient("the server did not complete the upload"))
            }
        };
        place.call(place.limits.transfer, complete).await
    }
}

impl Drop for Transfer {
    /// Aborts what the server still has, beside whoever dropped it. What cannot be aborted now is
    /// the lifecycle rule's.
    fn drop(&mut self) {
        let (Some(Multipart { id, .. }), Ok(runtime)) =
            (self.multipart.take(), tokio::runtime::Handle::try_current())
        else {
            return;
        };
        let (place, key) = (Arc::clone(&self.place), std::mem::take(&mut self.key));
        // Kept until it is done, so that there are no more of these than there may be uploads.
        let memory = self.memory.take();
        runtime.spawn(async move {
            let _memory = memory;
            let (place, key, id) = (&*place, key.as_str(), id.as_str());
            let abort = || async move {
                let request = place.client.abort_multipart_upload(&place.bucket, key, id)?;
                Ok(request.build().send().await.map(drop)?)
            };
            if let Err(failure) = place.call(place.limits.call, abort).await {
                tracing::debug!(what = failure.what, "an upload was not aborted");
            }
        });
    }
}

/// The length of a part, in bytes; S3 wants 5 MiB at least. What is not longer is put at once.
pub(super) const PART_BYTES: usize = 8 * 1024 * 1024;
/// The most parts that S3 puts together.
const PARTS_MAX: u64 = 10_000;
