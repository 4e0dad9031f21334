//! What the segment log asks of a file system, so that a test can put a failing one in its place.

use std::io;
use std::sync::Arc;

/// A flat folder of files.
pub(super) trait Disk: Send + Sync + 'static {
    /// Takes the folder for this process until the guard is dropped; none if another has it.
    fn lock(&self) -> io::Result<Option<Box<dyn Send + Sync>>>;

    /// The names of the files.
    fn list(&self) -> io::Result<Vec<String>>;

    /// Creates or empties a file and sets its length ahead; it reads as zeros. The space need not be
    /// reserved: a later write may still find none. Leaves nothing behind when there is no space.
    fn create(&self, name: &str, bytes: u64) -> io::Result<Arc<dyn File>>;

    /// Opens a file.
    fn open(&self, name: &str) -> io::Result<Arc<dyn File>>;

    /// Gives a file another name. Durable after [`sync_dir`](Self::sync_dir).
    fn rename(&self, from: &str, to: &str) -> io::Result<()>;

    /// Removes a file. Durable after [`sync_dir`](Self::sync_dir).
    fn remove(&self, name: &str) -> io::Result<()>;

    /// Makes the names durable.
    fn sync_dir(&self) -> io::Result<()>;

    /// The wall clock, ms since 1970.
    fn now_ms(&self) -> u64;

    /// A number that nobody can guess.
    fn random(&self) -> io::Result<u64>;
}

/// One file.
pub(super) trait File: Send + Sync {
    /// Its length.
    fn bytes(&self) -> io::Result<u64>;

    /// Fills the buffer from `position` on.
    fn read_at(&self, buffer: &mut [u8], position: u64) -> io::Result<()>;

    /// Writes all bytes at `position`. On an error some of them may have been written.
    fn write_at(&self, bytes: &[u8], position: u64) -> io::Result<()>;

    /// Makes what was written durable. After an error nothing is known of what was not durable
    /// before, and asking again would not tell.
    fn sync_data(&self) -> io::Result<()>;
}

/// Whether the error says that there is no space.
pub(super) fn is_no_space(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded)
}
