//! An upload under way: its file, its digest so far, and what is yet to be written.
//!
//! Chunks are gathered to [`FLUSH_BYTES`] before the disk is touched; a slow client costs no
//! thread. Whatever goes wrong once, the upload stays failed.

use std::fs::{self, File};
use std::io::Write;
use std::path::PathBuf;
use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use sha2::{Digest, Sha256};

use super::super::{BlobError, BlobId, Expected, Upload};
use super::{Place, blob_error};

pub(super) struct FileUpload {
    place: Arc<Place>,
    /// None once a write failed, or its future was dropped.
    part: Option<Part>,
    /// Chunks that are not in the file yet, and their bytes.
    waiting: Vec<Bytes>,
    waiting_bytes: usize,
    /// The bytes that may still come.
    left_bytes: u64,
}

impl FileUpload {
    pub(super) fn new(place: Arc<Place>, part: Part) -> Self {
        let left_bytes = part.expected.bytes;
        Self { place, part: Some(part), waiting: Vec::new(), waiting_bytes: 0, left_bytes }
    }

    /// Writes what waits, and hands the part over: it is put back by whoever keeps it.
    async fn flush(&mut self) -> Result<Part, BlobError> {
        let part = self.part.take().ok_or_else(failed)?;
        let chunks = std::mem::take(&mut self.waiting);
        self.waiting_bytes = 0;
        self.place.run(move |_| part.write(&chunks)).await
    }
}

#[async_trait]
impl Upload for FileUpload {
    async fn write(&mut self, chunk: Bytes) -> Result<(), BlobError> {
        if self.part.is_none() {
            return Err(failed());
        }
        let Some(left_bytes) = self.left_bytes.checked_sub(chunk.len() as u64) else {
            self.part = None;
            return Err(BlobError::TooLarge);
        };
        self.left_bytes = left_bytes;
        if !chunk.is_empty() {
            self.waiting_bytes += chunk.len();
            self.waiting.push(chunk);
        }
        if self.waiting_bytes >= FLUSH_BYTES || self.waiting.len() >= FLUSH_CHUNKS {
            self.part = Some(self.flush().await?);
        }
        Ok(())
    }

    async fn finish(mut self: Box<Self>) -> Result<(), BlobError> {
        let part = self.flush().await?;
        self.place.run(move |place| part.finish(place)).await
    }
}

fn failed() -> BlobError {
    BlobError::Unavailable("an earlier write of this upload failed".to_owned())
}

/// The file of an upload. Dropping it removes the file.
pub(super) struct Part {
    id: BlobId,
    expected: Expected,
    path: PathBuf,
    file: File,
    digest: Sha256,
    written_bytes: u64,
}

impl Part {
    pub(super) fn begin(place: &Place, id: &BlobId, expected: Expected) -> Result<Self, BlobError> {
        place.check_space(expected.bytes)?;
        let path = place.upload_path(id);
        let file = File::create_new(&path).map_err(blob_error)?;
        Ok(Self::of(id, expected, path, file))
    }

    pub(super) fn of(id: &BlobId, expected: Expected, path: PathBuf, file: File) -> Self {
        Self { id: id.clone(), expected, path, file, digest: Sha256::new(), written_bytes: 0 }
    }

    pub(super) fn write(mut self, chunks: &[Bytes]) -> Result<Self, BlobError> {
        for chunk in chunks {
            self.file.write_all(chunk).map_err(blob_error)?;
            self.digest.update(chunk);
            self.written_bytes += chunk.len() as u64;
        }
        Ok(self)
    }

    fn finish(mut self, place: &Place) -> Result<(), BlobError> {
        let digest: [u8; 32] = self.digest.finalize_reset().into();
        if self.written_bytes != self.expected.bytes || digest != self.expected.sha256 {
            return Err(BlobError::Mismatch);
        }
        self.file.sync_all().map_err(blob_error)?;
        place.put(&self.path, &self.id).map_err(blob_error)
    }
}

impl Drop for Part {
    fn drop(&mut self) {
        // After a finish there is nothing of that name. What cannot be removed now is removed when
        // the folder is opened.
        let _ = fs::remove_file(&self.path);
    }
}

/// What is gathered before it is written, in bytes.
const FLUSH_BYTES: usize = 256 * 1024;
/// And in chunks: each may hold on to a larger buffer of its transport.
const FLUSH_CHUNKS: usize = 64;
