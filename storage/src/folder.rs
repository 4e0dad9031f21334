//! A backend's own folder: held by one process, and marked with its format once it is made.
//!
//! ```text
//!   DIR/lock     held while the backend is open
//!   DIR/format   written last when the folder is made; without it nothing in it was ever promised
//! ```
//!
//! Another format is refused, never guessed at, and so are files of others.

use std::ffi::OsStr;
use std::fs::{self, File, TryLockError};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

/// Why a backend was not opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// Another process, or this one, has it open.
    #[error("the directory is in use by another process")]
    Locked,
    /// It was written in a format that this version does not know.
    #[error("the directory has a format that this version does not read")]
    Format,
    /// The directory holds something else.
    #[error("the directory holds files that are none of ours")]
    Foreign,
    /// What was read is not what was written.
    #[error("the directory's files are damaged: {0}")]
    Damaged(String),
    /// The disk is full, cannot be read, or is not ours to write.
    #[error("the directory cannot be opened: {0}")]
    Io(#[from] io::Error),
}

/// A folder that this process holds until this is dropped.
#[derive(Debug)]
pub(crate) struct Folder {
    dir: PathBuf,
    /// The line in its format file.
    format: &'static str,
    _lock: File,
}

impl Folder {
    /// Takes the folder, which is made if it is not there, or refuses at once.
    pub(crate) fn lock(dir: &Path, format: &'static str) -> Result<Self, OpenError> {
        fs::create_dir_all(dir)?;
        let lock = File::options().create(true).write(true).truncate(false).open(dir.join(LOCK))?;
        match lock.try_lock() {
            Ok(()) => Ok(Self { dir: dir.to_owned(), format, _lock: lock }),
            Err(TryLockError::WouldBlock) => Err(OpenError::Locked),
            Err(TryLockError::Error(error)) => Err(error.into()),
        }
    }

    /// A path in it.
    pub(crate) fn join(&self, name: impl AsRef<Path>) -> PathBuf {
        self.dir.join(name)
    }

    /// Whether it was made, to its end. If not, it may hold `parts` of one that was begun.
    pub(crate) fn is_made(&self, parts: &[&str]) -> Result<bool, OpenError> {
        match fs::read(self.join(FORMAT)) {
            Ok(found) if found == self.format.as_bytes() => return Ok(true),
            Ok(_) => return Err(OpenError::Format),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(error.into()),
        }
        let ours = |name: &OsStr| [LOCK, FORMAT_NEW].iter().chain(parts).any(|part| name == *part);
        for entry in fs::read_dir(&self.dir)? {
            if !ours(&entry?.file_name()) {
                return Err(OpenError::Foreign);
            }
        }
        Ok(false)
    }

    /// Marks a folder of an older format, of which the present one can read everything, as of this
    /// one.
    pub(crate) fn upgrade(&self, older: &str) -> io::Result<()> {
        match fs::read(self.join(FORMAT)) {
            Ok(found) if found == older.as_bytes() => self.set_made(),
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
            _ => Ok(()),
        }
    }

    /// Marks it as made. Everything in it is durable.
    pub(crate) fn set_made(&self) -> io::Result<()> {
        let mut file = File::create(self.join(FORMAT_NEW))?;
        file.write_all(self.format.as_bytes())?;
        file.sync_all()?;
        fs::rename(self.join(FORMAT_NEW), self.join(FORMAT))?;
        sync_dir(&self.dir)
    }

    /// Bytes that are free on its disk.
    pub(crate) fn free_bytes(&self) -> io::Result<u64> {
        let stat = rustix::fs::statvfs(&self.dir)?;
        Ok(stat.f_bavail.saturating_mul(stat.f_frsize))
    }
}

/// Makes the names in a folder durable.
pub(crate) fn sync_dir(dir: &Path) -> io::Result<()> {
    File::open(dir)?.sync_all()
}

const FORMAT: &str = "format";
const FORMAT_NEW: &str = "format.new";
const LOCK: &str = "lock";
