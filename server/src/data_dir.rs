//! The data directory: what lies where, who may use it, and what the running server is.
//!
//! ```text
//! chappe-data/  format      the layout's version
//!               run.json    where the running server listens
//!               secret      32 bytes for development tokens, mode 0600
//!               tls/        the certificate made for localhost
//!               log/ store/ blobs/
//! ```

use std::{
    fs, io,
    net::SocketAddr,
    os::unix::fs::{OpenOptionsExt, PermissionsExt},
    path::{Path, PathBuf},
};

use serde::Serialize;
use sha2::{Digest, Sha256};

/// The version of the layout that this program reads and writes.
const FORMAT: &str = "chappe 1\n";
const SECRET_BYTES: usize = 32;

/// A data directory that this process may use alone.
#[derive(Debug)]
pub(crate) struct DataDir {
    path: PathBuf,
    /// The secret of development tokens, if it is not the directory's own.
    secret_file: Option<PathBuf>,
    /// Held as long as the process lives: the file lock is the proof that nobody else writes.
    _lock: fs::File,
}

/// The directory cannot be used.
#[derive(Debug, thiserror::Error)]
pub(crate) enum DataDirError {
    #[error("{path}: another process uses this data directory")]
    Locked { path: PathBuf },
    #[error("{path}: made by another version ({found:?}); this one reads {FORMAT:?}")]
    Format { path: PathBuf, found: String },
    #[error("{path}: {what}")]
    Secret { path: PathBuf, what: &'static str },
    #[error("{path}: {source}")]
    Io { path: PathBuf, source: io::Error },
}

/// What a running server is, as `run.json` tells tools.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct Run {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) tcp: Option<SocketAddr>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) quic: Option<SocketAddr>,
    pub(crate) admin: SocketAddr,
    /// Where a broker takes gateways.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) uplink: Option<SocketAddr>,
    /// Whether `tcp` speaks TLS.
    pub(crate) tls: bool,
    /// `sha256:` and the digest of the certificate.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) fingerprint: Option<String>,
    pub(crate) pid: u32,
}

impl DataDir {
    /// Makes or opens a directory and locks it.
    pub(crate) fn open(path: &Path) -> Result<Self, DataDirError> {
        fs::create_dir_all(path).map_err(at(path))?;
        let lock_path = path.join("lock");
        let lock = fs::OpenOptions::new()
            .create(true)
            .write(true)
            .truncate(false)
            .mode(0o600)
            .open(&lock_path)
            .map_err(at(&lock_path))?;
        match lock.try_lock() {
            Ok(()) => {}
            Err(fs::TryLockError::WouldBlock) => {
                return Err(DataDirError::Locked { path: path.to_owned() });
            }
            Err(fs::TryLockError::Error(source)) => return Err(at(&lock_path)(source)),
        }
        let dir = Self { path: path.to_owned(), secret_file: None, _lock: lock };
        dir.check_format()?;
        Ok(dir)
    }

    /// The same with a secret that several processes share.
    #[must_use]
    pub(crate) fn with_secret(mut self, file: Option<PathBuf>) -> Self {
        self.secret_file = file;
        self
    }

    /// The path of a part.
    pub(crate) fn join(&self, part: &str) -> PathBuf {
        self.path.join(part)
    }

    /// The secret of development tokens, made when it is not there.
    pub(crate) fn secret(&self) -> Result<Vec<u8>, DataDirError> {
        if let Some(file) = &self.secret_file {
            return read_secret_file(file);
        }
        let path = self.path.join("secret");
        if !path.exists() {
            let mut secret = [0; SECRET_BYTES];
            getrandom::fill(&mut secret).map_err(|error| at(&path)(error.into()))?;
            write_private(&path, &secret).map_err(at(&path))?;
        }
        read_secret(&self.path)
    }

    /// A key for one purpose, the same at every start on this directory.
    pub(crate) fn derived_key(&self, purpose: &str) -> Result<[u8; 32], DataDirError> {
        let secret = self.secret()?;
        Ok(Sha256::new()
            .chain_update(purpose)
            .chain_update([0])
            .chain_update(secret)
            .finalize()
            .into())
    }

    /// Tells tools where the server listens.
    pub(crate) fn write_run(&self, run: &Run) -> Result<(), DataDirError> {
        let path = self.path.join("run.json");
        let text = serde_json::to_string_pretty(run).map_err(|e| at(&path)(e.into()))?;
        // A reader must never see half of it.
        let new = self.path.join("run.json.new");
        fs::write(&new, text + "\n").and_then(|()| fs::rename(&new, &path)).map_err(at(&path))
    }

    /// The server has stopped.
    pub(crate) fn remove_run(&self) {
        // Best effort: a stale file names a process that is gone, which tools can tell.
        drop(fs::remove_file(self.path.join("run.json")));
    }

    fn check_format(&self) -> Result<(), DataDirError> {
        let path = self.path.join("format");
        match fs::read_to_string(&path) {
            Ok(found) if found == FORMAT => Ok(()),
            Ok(found) => Err(DataDirError::Format { path, found }),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                fs::write(&path, FORMAT).map_err(at(&path))
            }
            Err(error) => Err(at(&path)(error)),
        }
    }
}

/// Reads the secret of a directory that another process may be using.
pub(crate) fn read_secret(data: &Path) -> Result<Vec<u8>, DataDirError> {
    read_secret_file(&data.join("secret"))
}

fn read_secret_file(path: &Path) -> Result<Vec<u8>, DataDirError> {
    let path = path.to_owned();
    let mode = fs::metadata(&path).map_err(at(&path))?.permissions().mode();
    if mode & 0o077 != 0 {
        let what = "others can read the secret: chmod 600 it, or remove it to get a new one";
        return Err(DataDirError::Secret { path, what });
    }
    let secret = fs::read(&path).map_err(at(&path))?;
    if secret.len() != SECRET_BYTES {
        let what = "the secret is not 32 bytes: remove it to get a new one";
        return Err(DataDirError::Secret { path, what });
    }
    Ok(secret)
}

/// Writes a file that only its owner may read, whole or not at all.
pub(crate) fn write_private(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let new = path.with_extension("new");
    drop(fs::remove_file(&new));
    let mut file = fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(&new)?;
    io::Write::write_all(&mut file, bytes)?;
    file.sync_all()?;
    fs::rename(&new, path)
}

fn at(path: &Path) -> impl FnOnce(io::Error) -> DataDirError {
    let path = path.to_owned();
    move |source| DataDirError::Io { path, source }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_second_process_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let _first = DataDir::open(folder.path()).unwrap();
        // A lock belongs to the open file, so a second open in one process stands for another's.
        assert!(matches!(DataDir::open(folder.path()), Err(DataDirError::Locked { .. })));
    }

    #[test]
    fn the_secret_stays_and_must_be_private() {
        let folder = tempfile::tempdir().unwrap();
        let dir = DataDir::open(folder.path()).unwrap();
        let secret = dir.secret().unwrap();
        assert_eq!(dir.secret().unwrap(), secret);
        let path = folder.path().join("secret");
        fs::set_permissions(&path, fs::Permissions::from_mode(0o644)).unwrap();
        assert!(matches!(dir.secret(), Err(DataDirError::Secret { .. })));
    }

    #[test]
    fn another_format_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join("format"), "chappe 99\n").unwrap();
        assert!(matches!(DataDir::open(folder.path()), Err(DataDirError::Format { .. })));
    }
}
