//! Count and digest of every channel in bounded memory, and the sorted file of them.
//!
//! ```text
//! file    "CHAPSUMS" | format u32 | 0 u32 | entry …
//! entry   channel u64 | rows u64 | sum u128       big-endian, channels rising
//! ```
//!
//! Rows come in any order. Sums are kept for so many channels; then they are written out, sorted,
//! and all those files become one in the end, a channel's sums added up.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap};
use std::fs::File;
use std::io::{BufReader, BufWriter, Read, Write};
use std::path::{Path, PathBuf};

use sha2::{Digest as _, Sha256};

use crate::digest::{Digest, Owner};
use crate::entry::Entry;
use crate::folder::{FORMAT, Folder, FolderError, RUN, io_error};

/// Adds rows up.
pub(crate) struct Sums {
    /// Where what does not fit is kept meanwhile.
    folder: Folder,
    channels_max: usize,
    channels: BTreeMap<u64, Digest>,
    runs: Vec<PathBuf>,
    next_run: u32,
    names: Digest,
    rows: u64,
}

/// What they came to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Sum {
    pub(crate) rows: u64,
    pub(crate) channels: u64,
    pub(crate) names: Digest,
    /// The SHA-256 of the file of channels, in hexadecimal.
    pub(crate) sha256: String,
}

impl Sums {
    pub(crate) fn new(folder: Folder) -> Self {
        Self::with_limit(folder, CHANNELS_MAX)
    }

    fn with_limit(folder: Folder, channels_max: usize) -> Self {
        let (channels, runs, names) = Default::default();
        Self { folder, channels_max, channels, runs, next_run: 0, names, rows: 0 }
    }

    pub(crate) fn add(&mut self, entry: &Entry) -> Result<(), FolderError> {
        let digest = Digest::of(entry);
        self.rows += 1;
        match entry.owner() {
            Owner::Names => self.names.add(digest),
            Owner::Channel(channel) => {
                self.channels.entry(channel.get()).or_default().add(digest);
                if self.channels.len() >= self.channels_max {
                    self.spill()?;
                }
            }
        }
        Ok(())
    }

    /// Writes the file of all channels.
    pub(crate) fn finish(mut self, path: &Path) -> Result<Sum, FolderError> {
        self.spill()?;
        let (channels, sha256) = merge(&self.folder, &self.runs, path)?;
        self.runs.iter().for_each(|run| drop(std::fs::remove_file(run)));
        Ok(Sum { rows: self.rows, channels, names: self.names, sha256 })
    }

    fn spill(&mut self) -> Result<(), FolderError> {
        let path = self.run();
        let mut writer = Writer::create(&self.folder, &path)?;
        for (channel, digest) in std::mem::take(&mut self.channels) {
            writer.push(channel, digest)?;
        }
        writer.finish()?;
        self.runs.push(path);
        if self.runs.len() >= RUNS_MAX {
            let merged = self.run();
            merge(&self.folder, &self.runs, &merged)?;
            self.runs.drain(..).for_each(|run| drop(std::fs::remove_file(run)));
            self.runs.push(merged);
        }
        Ok(())
    }

    fn run(&mut self) -> PathBuf {
        self.next_run += 1;
        self.folder.join(&format!("{RUN}{}", self.next_run))
    }
}

/// Makes one file of several.
fn merge(folder: &Folder, runs: &[PathBuf], path: &Path) -> Result<(u64, String), FolderError> {
    let mut readers = Vec::new();
    let mut heads = BinaryHeap::new();
    for (index, run) in runs.iter().enumerate() {
        let mut reader = Reader::open(run)?;
        if let Some((channel, digest)) = reader.next()? {
            heads.push(Reverse((channel, index, digest.rows, digest.sum)));
        }
        readers.push(reader);
    }
    let mut writer = Writer::create(folder, path)?;
    let mut open: Option<(u64, Digest)> = None;
    while let Some(Reverse((channel, index, rows, sum))) = heads.pop() {
        if let Some((channel, digest)) = readers[index].next()? {
            heads.push(Reverse((channel, index, digest.rows, digest.sum)));
        }
        match &mut open {
            Some((last, digest)) if *last == channel => digest.add(Digest { rows, sum }),
            _ => {
                if let Some((channel, digest)) = open.replace((channel, Digest { rows, sum })) {
                    writer.push(channel, digest)?;
                }
            }
        }
    }
    if let Some((channel, digest)) = open {
        writer.push(channel, digest)?;
    }
    writer.finish()
}

struct Writer<'a> {
    folder: &'a Folder,
    path: PathBuf,
    file: BufWriter<File>,
    hash: Sha256,
    channels: u64,
}

impl<'a> Writer<'a> {
    fn create(folder: &'a Folder, path: &Path) -> Result<Self, FolderError> {
        let file = BufWriter::new(folder.create(path)?);
        let (path, hash) = (path.to_owned(), Sha256::new());
        let mut writer = Self { folder, path, file, hash, channels: 0 };
        writer.write(&header())?;
        Ok(writer)
    }

    fn push(&mut self, channel: u64, digest: Digest) -> Result<(), FolderError> {
        self.channels += 1;
        let Digest { rows, sum } = digest;
        self.write(&[&channel.to_be_bytes()[..], &rows.to_be_bytes(), &sum.to_be_bytes()].concat())
    }

    /// The channels in it, and its SHA-256.
    fn finish(self) -> Result<(u64, String), FolderError> {
        let Self { folder, path, file, hash, channels } = self;
        let file = file.into_inner().map_err(|error| io_error(&path)(error.into_error()))?;
        folder.finish(&path, &file)?;
        Ok((channels, hex(&hash.finalize())))
    }

    fn write(&mut self, bytes: &[u8]) -> Result<(), FolderError> {
        self.hash.update(bytes);
        self.file.write_all(bytes).map_err(io_error(&self.path))
    }
}

/// Reads such a file.
pub(crate) struct Reader {
    path: PathBuf,
    file: BufReader<File>,
    hash: Sha256,
    at: u64,
    last: Option<u64>,
}

impl Reader {
    pub(crate) fn open(path: &Path) -> Result<Self, FolderError> {
        let file = BufReader::new(File::open(path).map_err(io_error(path))?);
        let (path, hash) = (path.to_owned(), Sha256::new());
        let mut reader = Self { path, file, hash, at: 0, last: None };
        let mut found = [0; 16];
        let is_whole = reader.fill(&mut found)?;
        if !is_whole || found != header() {
            return Err(FolderError::Format { path: reader.path });
        }
        Ok(reader)
    }

    /// The next channel; none at the end.
    pub(crate) fn next(&mut self) -> Result<Option<(u64, Digest)>, FolderError> {
        let mut entry = [0; 32];
        if !self.fill(&mut entry)? {
            return Ok(None);
        }
        let number = entry.iter().map(|byte| u128::from(*byte));
        let number = |from: usize, to: usize| {
            number.clone().take(to).skip(from).fold(0, |number, byte| number << 8 | byte)
        };
        let (channel, rows, sum) = (number(0, 8) as u64, number(8, 16) as u64, number(16, 32));
        if self.last.is_some_and(|last| last >= channel) {
            return Err(self.damaged("its channels do not rise"));
        }
        self.last = Some(channel);
        Ok(Some((channel, Digest { rows, sum })))
    }

    /// The SHA-256 of what was read.
    pub(crate) fn sha256(self) -> String {
        hex(&self.hash.finalize())
    }

    /// Fills the buffer; false if nothing is left.
    fn fill(&mut self, buffer: &mut [u8]) -> Result<bool, FolderError> {
        let mut filled = 0;
        while filled < buffer.len() {
            let read = self.file.read(&mut buffer[filled..]).map_err(io_error(&self.path))?;
            if read == 0 {
                break;
            }
            filled += read;
        }
        if filled > 0 && filled < buffer.len() {
            return Err(self.damaged("it ends in the middle of an entry"));
        }
        self.at += filled as u64;
        self.hash.update(&buffer[..filled]);
        Ok(filled > 0)
    }

    fn damaged(&self, what: &'static str) -> FolderError {
        FolderError::Damaged { path: self.path.clone(), at: self.at, what }
    }
}

fn header() -> [u8; 16] {
    let mut header = [0; 16];
    header[..8].copy_from_slice(b"CHAPSUMS");
    header[8..12].copy_from_slice(&FORMAT.to_be_bytes());
    header
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Channels whose sums are held in memory: some 20 MiB.
const CHANNELS_MAX: usize = 256 * 1024;
/// Files that are merged at once.
const RUNS_MAX: usize = 64;

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test that cannot go on says where")]

    use bytes::Bytes;
    use chappe_protocol::{ChannelId, Seq};
    use chappe_storage::store::{Key, Row, Stamp};

    use super::*;

    fn entry(channel: u64, seq: u64) -> Entry {
        let key = Key::Message(ChannelId::new(channel), Seq::new(seq));
        Entry::Row(key, Row { stamp: Stamp(1 << 40 | seq), value: Bytes::from_static(b"text") })
    }

    #[test]
    fn sums_that_did_not_fit_are_those_that_did_in_any_order() {
        let folder = tempfile::tempdir().unwrap();
        let folder = Folder::at(folder.path());
        std::fs::create_dir_all(folder.path()).unwrap();
        let mut entries: Vec<_> =
            (0..40).flat_map(|n| (0..9).map(move |c| entry(c * 1_000 + n % 2, n))).collect();
        entries.push(Entry::Name("general".to_owned(), Bytes::from_static(b"holder")));
        let sum = |limit: usize, entries: &[Entry], name: &str| {
            let mut sums = Sums::with_limit(folder.clone(), limit);
            entries.iter().for_each(|entry| sums.add(entry).unwrap());
            sums.finish(&folder.join(name)).unwrap()
        };
        let whole = sum(1_000, &entries, "a");
        entries.reverse();
        let spilled = sum(2, &entries, "b");
        assert_eq!(whole, spilled);
        assert_eq!((whole.rows, whole.channels, whole.names.rows), (361, 18, 1));
        let left = std::fs::read_dir(folder.path()).unwrap().count();
        assert_eq!(left, 2, "what was needed meanwhile is gone");
        entries.swap_remove(3);
        assert_ne!(sum(2, &entries, "c").sha256, whole.sha256);
    }
}
