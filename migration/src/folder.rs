//! The folder that an export is: what its files are called, and that each is there whole or not.
//!
//! ```text
//! FOLDER/  rows-000001 …   rows, numbered from 1
//!          progress        how far the export is, until it is done
//!          digests         count and digest of each channel, sorted
//!          manifest        written last: without it nothing is promised
//! ```

use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use serde::{Serialize, de::DeserializeOwned};

/// A file of the folder cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum FolderError {
    /// It cannot be read or written.
    #[error("{path}: {source}")]
    Io {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// It is not what was written.
    #[error("{path} is damaged at byte {at}: {what}")]
    Damaged {
        /// The file.
        path: PathBuf,
        /// Where.
        at: u64,
        /// What is wrong there.
        what: &'static str,
    },
    /// It is of another version.
    #[error("{path} has a format that this version does not read")]
    Format {
        /// The file.
        path: PathBuf,
    },
    /// The folder holds something else.
    #[error("{path} is none of an export's files: name an empty folder")]
    Foreign {
        /// The file.
        path: PathBuf,
    },
    /// There is no export in it, or half of one.
    #[error("{path} is missing: the export is not finished; run `chappe export` again")]
    Unfinished {
        /// The manifest.
        path: PathBuf,
    },
}

/// A folder of files.
#[derive(Debug, Clone)]
pub(crate) struct Folder(PathBuf);

impl Folder {
    /// The folder at this path, which need not be there.
    pub(crate) fn at(path: &Path) -> Self {
        Self(path.to_owned())
    }

    /// Makes the folder, and refuses one that holds anything else.
    pub(crate) fn prepare(&self) -> Result<(), FolderError> {
        fs::create_dir_all(&self.0).map_err(io_error(&self.0))?;
        for entry in fs::read_dir(&self.0).map_err(io_error(&self.0))? {
            let entry = entry.map_err(io_error(&self.0))?;
            let name = entry.file_name();
            let name = name.to_str().unwrap_or_default();
            let name = name.strip_suffix(NEW).unwrap_or(name);
            let is_ours = [PROGRESS, DIGESTS, MANIFEST].contains(&name)
                || [ROWS, RUN].iter().any(|prefix| name.starts_with(prefix));
            if !is_ours {
                return Err(FolderError::Foreign { path: entry.path() });
            }
        }
        Ok(())
    }

    pub(crate) fn path(&self) -> &Path {
        &self.0
    }

    pub(crate) fn join(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }

    /// The file of rows with this number.
    pub(crate) fn rows(&self, number: u32) -> PathBuf {
        self.0.join(format!("{ROWS}{number:06}"))
    }

    /// Begins a file under a name that no reader looks at.
    pub(crate) fn create(&self, path: &Path) -> Result<File, FolderError> {
        let new = new(path);
        File::create(&new).map_err(io_error(&new))
    }

    /// Gives a file its name, once it is durable.
    pub(crate) fn finish(&self, path: &Path, file: &File) -> Result<(), FolderError> {
        file.sync_all().map_err(io_error(path))?;
        fs::rename(new(path), path).map_err(io_error(path))?;
        let synced = File::open(&self.0).and_then(|folder| folder.sync_all());
        synced.map_err(io_error(&self.0))
    }

    /// Writes a small file whole.
    pub(crate) fn write<T: Serialize>(&self, name: &str, value: &T) -> Result<(), FolderError> {
        let path = self.join(name);
        let text = serde_json::to_string_pretty(value)
            .map_err(|error| FolderError::Io { path: path.clone(), source: error.into() })?;
        let mut file = self.create(&path)?;
        file.write_all((text + "\n").as_bytes()).map_err(io_error(&path))?;
        self.finish(&path, &file)
    }

    /// Reads a small file; none if it is not there.
    pub(crate) fn read<T: DeserializeOwned>(&self, name: &str) -> Result<Option<T>, FolderError> {
        let path = self.join(name);
        let text = match fs::read(&path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            read => read.map_err(io_error(&path))?,
        };
        let versioned: Versioned = serde_json::from_slice(&text).map_err(bad_json(&path))?;
        if versioned.format != FORMAT {
            return Err(FolderError::Format { path });
        }
        Ok(Some(serde_json::from_slice(&text).map_err(bad_json(&path))?))
    }

    /// Removes a file, if it is there.
    pub(crate) fn remove(&self, name: &str) -> Result<(), FolderError> {
        let path = self.join(name);
        match fs::remove_file(&path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(io_error(&path)(error)),
            _ => Ok(()),
        }
    }
}

/// What every small file has.
#[derive(serde::Deserialize)]
struct Versioned {
    format: u32,
}

/// An error of the system at a path.
pub(crate) fn io_error(path: &Path) -> impl FnOnce(io::Error) -> FolderError {
    let path = path.to_owned();
    move |source| FolderError::Io { path, source }
}

fn bad_json(path: &Path) -> impl FnOnce(serde_json::Error) -> FolderError {
    let path = path.to_owned();
    move |_| FolderError::Damaged { path, at: 0, what: "it is of another form" }
}

fn new(path: &Path) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(NEW);
    name.into()
}

/// The version of all files.
pub(crate) const FORMAT: u32 = 1;
pub(crate) const PROGRESS: &str = "progress";
pub(crate) const DIGESTS: &str = "digests";
pub(crate) const MANIFEST: &str = "manifest";
/// What the names of files of rows begin with.
const ROWS: &str = "rows-";
/// What the names of parts of the digests begin with, while they are made.
pub(crate) const RUN: &str = "digests-run-";
const NEW: &str = ".new";
