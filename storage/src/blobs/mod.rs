//! The blob port: the stored bytes of files.
//!
//! A backend promises that a blob is there whole or not at all: it becomes readable when
//! [`Upload::finish`] returns `Ok`, and then its size and digest are what was declared.

#[cfg(any(test, feature = "conformance"))]
pub mod conformance;
#[cfg(feature = "runtime")]
pub mod files;
#[cfg(feature = "s3")]
pub mod s3;

use std::ops::Range;

use async_trait::async_trait;
use bytes::Bytes;

/// A blob's name: 128 random bits as 32 lower-case hexadecimal digits, so that it cannot be
/// guessed and cannot leave its folder.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct BlobId(String);

/// The text is not a blob's name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a blob id has 32 lower-case hexadecimal digits")]
pub struct ParseBlobIdError;

impl BlobId {
    /// Checks a name.
    pub fn parse(text: &str) -> Result<Self, ParseBlobIdError> {
        let hex = |b: u8| b.is_ascii_digit() || (b'a'..=b'f').contains(&b);
        let valid = text.len() == 32 && text.bytes().all(hex);
        if valid { Ok(Self(text.to_owned())) } else { Err(ParseBlobIdError) }
    }

    /// The name of 128 random bits.
    pub fn from_random(bits: u128) -> Self {
        Self(format!("{bits:032x}"))
    }

    /// The name.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// What a blob must turn out to be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Expected {
    /// Its size in bytes.
    pub bytes: u64,
    /// Its SHA-256.
    pub sha256: [u8; 32],
}

/// Why a blob call failed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BlobError {
    /// There is no such blob.
    #[error("no such blob")]
    NotFound,
    /// More bytes came than were declared.
    #[error("the upload is larger than declared")]
    TooLarge,
    /// The bytes are not the declared ones. Nothing was stored.
    #[error("the upload's size or digest is not what was declared")]
    Mismatch,
    /// The range begins behind the end.
    #[error("the range is outside the blob")]
    Range,
    /// There is no space.
    #[error("there is no space for the blob")]
    NoSpace,
    /// The backend did not answer.
    #[error("the blob store is unavailable: {0}")]
    Unavailable(String),
}

/// The most that one read brings, in bytes.
pub const READ_BYTES_MAX: usize = 8 * 1024 * 1024;

/// Stored bytes of files.
///
/// Every future is safe to drop; what it was to do may be done nevertheless.
#[async_trait]
pub trait Blobs: Send + Sync + 'static {
    /// Begins an upload. Dropping it leaves nothing behind. A blob of the same name is replaced
    /// when it finishes, and is read until then.
    async fn upload(&self, id: BlobId, expected: Expected) -> Result<Box<dyn Upload>, BlobError>;

    /// The size of a blob in bytes.
    async fn size(&self, id: &BlobId) -> Result<u64, BlobError>;

    /// Reads a part of a blob, shortened to its end and to [`READ_BYTES_MAX`]. A range that begins
    /// at the end is empty.
    async fn read(&self, id: &BlobId, range: Range<u64>) -> Result<Bytes, BlobError>;

    /// Removes a blob, durably. Removing one that is not there succeeds.
    async fn delete(&self, id: &BlobId) -> Result<(), BlobError>;
}

/// An upload under way.
#[async_trait]
pub trait Upload: Send {
    /// Adds bytes. After an error, or if the future was dropped, the upload can only fail.
    async fn write(&mut self, chunk: Bytes) -> Result<(), BlobError>;

    /// Checks size and digest and makes the blob readable, durably. After
    /// [`BlobError::Unavailable`] it may be there all the same; after the others it is not.
    async fn finish(self: Box<Self>) -> Result<(), BlobError>;
}
