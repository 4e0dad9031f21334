//! The blobs of a cluster: objects in a bucket of an S3 server, under a prefix.
//!
//! A blob of one part is put at once, a larger one in parts that its completion makes an object.
//! Every call has a deadline, an end of its attempts and a place among a bounded number of calls;
//! nothing here waits for a server that is gone. Opening touches no network, so that a server that
//! is down keeps nobody from starting: [`S3Blobs::check`] asks for it.
//!
//! A process that dies leaves the parts of its uploads, which are not to be seen and to be paid
//! for. The bucket needs a lifecycle rule that aborts incomplete uploads after a day or so.
//!
//! HTTPS trusts the machine's authorities, or those in the file that `SSL_CERT_FILE` names.

mod call;
mod failure;
mod upload;

#[cfg(test)]
mod tests;

use std::fmt;
use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::{Bytes, BytesMut};
use futures_util::StreamExt;
use minio::s3::client::{MinioClient, MinioClientBuilder};
use minio::s3::creds::StaticProvider;
use minio::s3::http::BaseUrl;
use minio::s3::response::GetObjectResponse;
use minio::s3::response_traits::HasS3Fields;
use minio::s3::types::{BucketName, Region, S3Api};
use tokio::sync::Semaphore;

use super::{BlobError, BlobId, Blobs, Expected, READ_BYTES_MAX, Upload};
use failure::{Failure, Kind};
use upload::{S3Upload, Transfer};

/// Blobs in a bucket.
pub struct S3Blobs {
    place: Arc<Place>,
}

/// Where the bucket is, and who asks.
#[derive(Clone)]
pub struct S3Options {
    /// `https://host:port` or `http://…`, without a path.
    pub url: String,
    /// The region to sign for; servers other than Amazon's take `us-east-1`.
    pub region: String,
    /// The bucket.
    pub bucket: String,
    /// What the names of all blobs begin with; may be empty.
    pub prefix: String,
    /// Who asks.
    pub access_key: String,
    /// What it signs with. Never shown.
    pub secret_key: String,
    /// How long, and how much at once.
    pub limits: S3Limits,
}

/// The limits of blobs in a bucket.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct S3Limits {
    /// A call that moves no content is given up after this time, with all its attempts. One attempt
    /// may take half of it.
    pub call: Duration,
    /// A call that moves at most [`READ_BYTES_MAX`] likewise.
    pub transfer: Duration,
    /// Calls at a time; others wait, which counts for their time.
    pub calls_max: usize,
    /// The memory of all uploads, in bytes. Each takes its declared size or that of a part,
    /// whichever is less; one for which there is no room waits as long as a call, and is refused.
    pub upload_bytes_max: usize,
}

impl Default for S3Limits {
    fn default() -> Self {
        Self {
            call: Duration::from_secs(6),
            transfer: Duration::from_secs(60),
            calls_max: 32,
            upload_bytes_max: 128 * 1024 * 1024,
        }
    }
}

/// What is wrong with the options.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum S3OptionsError {
    /// Not an address.
    #[error("the url is not http://host:port or https://host:port")]
    Url,
    /// Not a region.
    #[error("the region is not one")]
    Region,
    /// Not a bucket's name.
    #[error("the bucket's name is not one that S3 knows")]
    Bucket,
    /// No call or no upload could ever begin.
    #[error("the limits leave no room for a call or for an upload's part")]
    Limits,
    /// Certificates of the machine that cannot be read, for instance.
    #[error("the client cannot be made: {0}")]
    Client(String),
}

impl S3Blobs {
    /// Blobs in a bucket, which is not looked at yet.
    pub fn new(options: S3Options) -> Result<Self, S3OptionsError> {
        let mut url: BaseUrl = options.url.parse().map_err(|_| S3OptionsError::Url)?;
        let is_region = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
        if !options.region.chars().all(is_region) {
            return Err(S3OptionsError::Region);
        }
        // Given, so that no call asks for it.
        url.region = Region::new(options.region).map_err(|_| S3OptionsError::Region)?;
        let bucket = BucketName::new_strict(options.bucket).map_err(|_| S3OptionsError::Bucket)?;
        let limits = options.limits;
        if limits.calls_max == 0 || limits.upload_bytes_max < upload::PART_BYTES {
            return Err(S3OptionsError::Limits);
        }
        // The client's TLS takes what the process has, and panics if it has none.
        let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
        let keys = StaticProvider::new(&options.access_key, &options.secret_key, None);
        let client = MinioClientBuilder::new(url)
            .provider(Some(keys))
            .build()
            .map_err(|error| S3OptionsError::Client(Failure::from(error).what))?;
        let place = Place {
            client,
            bucket,
            prefix: options.prefix,
            calls: Semaphore::new(limits.calls_max),
            upload_kib: Arc::new(Semaphore::new(limits.upload_bytes_max / 1024)),
            limits,
        };
        Ok(Self { place: Arc::new(place) })
    }

    /// Whether the server answers, and these keys see the bucket.
    pub async fn check(&self) -> Result<(), BlobError> {
        let place = &*self.place;
        let exists = || async move {
            Ok(place.client.bucket_exists(&place.bucket)?.build().send().await?.exists())
        };
        if place.call(place.limits.call, exists).await? {
            Ok(())
        } else {
            Err(BlobError::Unavailable("there is no such bucket".to_owned()))
        }
    }

    /// Makes the bucket, unless it is there.
    pub async fn make_bucket(&self) -> Result<(), BlobError> {
        let place = &*self.place;
        let make = || async move {
            Ok(place.client.create_bucket(&place.bucket)?.build().send().await.map(drop)?)
        };
        match place.call(place.limits.call, make).await {
            Err(failure) if failure.kind != Kind::BucketExists => Err(failure.into()),
            _ => Ok(()),
        }
    }

    /// An address under which anybody gets the blob, in ranges too, for so long. It is made without
    /// asking the server: the blob may not be there. At most a week, which is what S3 allows.
    pub async fn signed_url(&self, id: &BlobId, valid: Duration) -> Result<String, BlobError> {
        let (place, key) = (&*self.place, self.place.key(id));
        let request = place
            .client
            .get_presigned_object_url(&place.bucket, key, http::Method::GET)
            .map_err(Failure::from)?
            .expiry_seconds(valid.min(SIGNED_MAX).as_secs().max(1) as u32);
        Ok(request.build().send().await.map_err(Failure::from)?.url)
    }
}

impl fmt::Debug for S3Blobs {
    /// Without the client, which holds the secret key.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("S3Blobs").field("bucket", &self.place.bucket.as_str()).finish()
    }
}

#[async_trait]
impl Blobs for S3Blobs {
    async fn upload(&self, id: BlobId, expected: Expected) -> Result<Box<dyn Upload>, BlobError> {
        let transfer = Transfer::begin(&self.place, self.place.key(&id), expected.bytes).await?;
        Ok(Box::new(S3Upload::new(transfer, expected)))
    }

    async fn size(&self, id: &BlobId) -> Result<u64, BlobError> {
        let (place, key) = (&*self.place, self.place.key(id));
        let key = key.as_str();
        let size = || async move {
            let found = place.client.stat_object(&place.bucket, key)?.build().send().await?;
            // The client takes a missing length for 0.
            let length = found.headers().get(http::header::CONTENT_LENGTH);
            let length = length.and_then(|length| length.to_str().ok()?.parse().ok());
            length.ok_or_else(|| Failure::refused("the server did not say how large the blob is"))
        };
        Ok(place.call(place.limits.call, size).await?)
    }

    async fn read(&self, id: &BlobId, range: Range<u64>) -> Result<Bytes, BlobError> {
        let length = range.end.saturating_sub(range.start).min(READ_BYTES_MAX as u64);
        // S3 knows no empty range, and servers count in 63 bits.
        if length == 0 || range.end.min(range.start + length) > i64::MAX as u64 {
            return self.read_nothing(id, range.start).await;
        }
        let (place, key) = (&*self.place, self.place.key(id));
        let key = key.as_str();
        let read = || async move {
            let request = place.client.get_object(&place.bucket, key)?;
            let found = request.offset(range.start).length(length).build().send().await?;
            content(found, range.start, length).await
        };
        match place.call(place.limits.transfer, read).await {
            Err(failure) if failure.kind == Kind::Range => self.read_nothing(id, range.start).await,
            found => Ok(found?),
        }
    }

    async fn delete(&self, id: &BlobId) -> Result<(), BlobError> {
        let (place, key) = (&*self.place, self.place.key(id));
        let key = key.as_str();
        let delete = || async move {
            Ok(place.client.delete_object(&place.bucket, key)?.build().send().await.map(drop)?)
        };
        match place.call(place.limits.call, delete).await {
            Err(failure) if failure.kind != Kind::NotFound => Err(failure.into()),
            _ => Ok(()),
        }
    }
}

impl S3Blobs {
    /// A range that brings nothing, which is right if the blob is there and the range does not begin
    /// behind its end. S3 refuses one that begins at the end, too.
    async fn read_nothing(&self, id: &BlobId, start: u64) -> Result<Bytes, BlobError> {
        if start > self.size(id).await? { Err(BlobError::Range) } else { Ok(Bytes::new()) }
    }
}

/// The content of an answer, which must be that of the range and no longer than `length`.
async fn content(answer: GetObjectResponse, start: u64, length: u64) -> Result<Bytes, Failure> {
    let range = answer.headers().get(http::header::CONTENT_RANGE);
    let range = range.and_then(|range| range.to_str().ok());
    let is_of_range = range.map(|range| range.starts_with(&format!("bytes {start}-")));
    let (mut stream, announced) = answer.into_boxed_stream()?;
    if !is_of_range.unwrap_or(start == 0) || announced > length {
        return Err(Failure::refused("the server answered with another range"));
    }
    let mut content = BytesMut::with_capacity(announced as usize);
    while let Some(chunk) = stream.next().await {
        let chunk = chunk.map_err(|error| Failure::lost(&error))?;
        if content.len() + chunk.len() > announced as usize {
            return Err(Failure::refused("the server sent more than it announced"));
        }
        content.extend_from_slice(&chunk);
    }
    if content.len() as u64 == announced {
        Ok(content.freeze())
    } else {
        Err(Failure::transient("the answer ended early"))
    }
}

/// The bucket, as calls and uploads use it.
struct Place {
    client: MinioClient,
    bucket: BucketName,
    prefix: String,
    limits: S3Limits,
    calls: Semaphore,
    upload_kib: Arc<Semaphore>,
}

impl Place {
    fn key(&self, id: &BlobId) -> String {
        format!("{}{}", self.prefix, id.as_str())
    }
}

const SIGNED_MAX: Duration = Duration::from_secs(7 * 24 * 60 * 60);
