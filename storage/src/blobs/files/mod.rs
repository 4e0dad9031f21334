//! The embedded blobs: files in a folder, two levels deep.
//!
//! ```text
//!   DIR/uploads/        what is being written; emptied when the folder is opened
//!   DIR/3f/9a/3f9a…     a blob, put there whole by a rename
//! ```
//!
//! Everything that touches the disk runs on the runtime's blocking pool, a bounded number at a
//! time. What is read is not checked against the digest again.

mod upload;

#[cfg(test)]
mod tests;

use std::fs::{self, File};
use std::io::{self, Read, Seek, SeekFrom};
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use async_trait::async_trait;
use bytes::Bytes;
use tokio::sync::Semaphore;

use super::{BlobError, BlobId, Blobs, Expected, READ_BYTES_MAX, Upload};
use crate::folder::{Folder, sync_dir};
use upload::{FileUpload, Part};

pub use crate::folder::OpenError;

/// Blobs in a directory of their own, which it locks.
#[derive(Debug)]
pub struct FileBlobs {
    place: Arc<Place>,
}

/// The limits of file blobs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FileOptions {
    /// An upload is refused unless its declared size leaves this much free on the disk, in bytes:
    /// files are not to take the space that messages need.
    pub disk_free_bytes_min: u64,
}

impl Default for FileOptions {
    fn default() -> Self {
        Self { disk_free_bytes_min: 256 * 1024 * 1024 }
    }
}

impl FileBlobs {
    /// Opens the blobs in `dir`, with the default limits, and removes what uploads a crash left
    /// there. Blocks.
    pub fn open(dir: impl AsRef<Path>) -> Result<Self, OpenError> {
        Self::open_with(dir, FileOptions::default())
    }

    /// The same with other limits.
    pub fn open_with(dir: impl AsRef<Path>, options: FileOptions) -> Result<Self, OpenError> {
        let folder = Folder::lock(dir.as_ref(), FORMAT)?;
        let is_made = folder.is_made(&[UPLOADS])?;
        match fs::remove_dir_all(folder.join(UPLOADS)) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error.into()),
            _ => fs::create_dir(folder.join(UPLOADS))?,
        }
        if !is_made {
            folder.set_made()?;
        }
        let jobs = Arc::new(Semaphore::new(JOBS_MAX));
        let place = Place { folder, options, uploads: AtomicU64::new(0), jobs };
        Ok(Self { place: Arc::new(place) })
    }
}

#[async_trait]
impl Blobs for FileBlobs {
    async fn upload(&self, id: BlobId, expected: Expected) -> Result<Box<dyn Upload>, BlobError> {
        let place = Arc::clone(&self.place);
        let part = self.place.run(move |at| Part::begin(at, &id, expected)).await?;
        Ok(Box::new(FileUpload::new(place, part)))
    }

    async fn size(&self, id: &BlobId) -> Result<u64, BlobError> {
        let id = id.clone();
        self.place.run(move |at| at.open_blob(&id).map(|(_, size)| size)).await
    }

    async fn read(&self, id: &BlobId, range: Range<u64>) -> Result<Bytes, BlobError> {
        let id = id.clone();
        self.place.run(move |at| at.read(&id, range)).await
    }

    async fn delete(&self, id: &BlobId) -> Result<(), BlobError> {
        let id = id.clone();
        self.place.run(move |at| at.delete(&id)).await
    }
}

/// Where the blobs are. Its methods block, but for [`Place::run`].
#[derive(Debug)]
struct Place {
    folder: Folder,
    options: FileOptions,
    /// How many uploads have begun, for the names of their files.
    uploads: AtomicU64,
    jobs: Arc<Semaphore>,
}

impl Place {
    /// Runs a job on the blocking pool, when there is room. A job that has begun runs to its end,
    /// also if nobody waits for it any more.
    async fn run<T, F>(self: &Arc<Self>, job: F) -> Result<T, BlobError>
    where
        T: Send + 'static,
        F: FnOnce(&Self) -> Result<T, BlobError> + Send + 'static,
    {
        let closed = |_| BlobError::Unavailable("it is closed".to_owned());
        let permit = Arc::clone(&self.jobs).acquire_owned().await.map_err(closed)?;
        let place = Arc::clone(self);
        let task = tokio::task::spawn_blocking(move || {
            let _permit = permit; // held to the end of the job, even if nobody waits for it
            job(&place)
        });
        task.await.unwrap_or_else(|_| Err(BlobError::Unavailable("a job was stopped".to_owned())))
    }

    fn blob_path(&self, id: &BlobId) -> PathBuf {
        let name = id.as_str();
        self.folder.join(&name[..2]).join(&name[2..4]).join(name)
    }

    /// A new name for an upload, never used before by this process.
    fn upload_path(&self, id: &BlobId) -> PathBuf {
        let number = self.uploads.fetch_add(1, Ordering::Relaxed);
        self.folder.join(UPLOADS).join(format!("{}.{number}", id.as_str()))
    }

    fn check_space(&self, bytes: u64) -> Result<(), BlobError> {
        let free_bytes = self.folder.free_bytes().map_err(blob_error)?;
        let needed = self.options.disk_free_bytes_min.saturating_add(bytes);
        if free_bytes < needed { Err(BlobError::NoSpace) } else { Ok(()) }
    }

    fn open_blob(&self, id: &BlobId) -> Result<(File, u64), BlobError> {
        let file = File::open(self.blob_path(id)).map_err(|error| match error.kind() {
            io::ErrorKind::NotFound => BlobError::NotFound,
            _ => blob_error(error),
        })?;
        let size = file.metadata().map_err(blob_error)?.len();
        Ok((file, size))
    }

    fn read(&self, id: &BlobId, range: Range<u64>) -> Result<Bytes, BlobError> {
        let (mut file, size) = self.open_blob(id)?;
        if range.start > size {
            return Err(BlobError::Range);
        }
        let length = range.end.min(size).saturating_sub(range.start).min(READ_BYTES_MAX as u64);
        let mut bytes = vec![0; length as usize];
        file.seek(SeekFrom::Start(range.start)).map_err(blob_error)?;
        file.read_exact(&mut bytes).map_err(blob_error)?;
        Ok(bytes.into())
    }

    fn delete(&self, id: &BlobId) -> Result<(), BlobError> {
        let path = self.blob_path(id);
        match fs::remove_file(&path) {
            Ok(()) => path.parent().map_or(Ok(()), sync_dir).map_err(blob_error),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            Err(error) => Err(blob_error(error)),
        }
    }

    /// Puts a written and synced file where its blob is read, durably.
    fn put(&self, file: &Path, id: &BlobId) -> io::Result<()> {
        let path = self.blob_path(id);
        let folders: Vec<_> = path.ancestors().skip(1).take(3).collect();
        fs::create_dir_all(folders[0])?;
        fs::rename(file, &path)?;
        // All three, also if the folders were there: another upload may have made them just now,
        // and they may not be durable yet.
        folders.into_iter().try_for_each(sync_dir)
    }
}

fn blob_error(error: io::Error) -> BlobError {
    match error.kind() {
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded | io::ErrorKind::FileTooLarge => {
            BlobError::NoSpace
        }
        _ => BlobError::Unavailable(error.to_string()),
    }
}

const FORMAT: &str = "chappe blobs 1\n";
const UPLOADS: &str = "uploads";
/// Jobs at work at once. Each occupies a thread of the blocking pool.
const JOBS_MAX: usize = 16;
