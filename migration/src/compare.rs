//! Comparing a store with an export: count and digest of every channel, and which rows differ.

use std::collections::BTreeSet;
use std::fmt;
use std::path::Path;
use std::sync::Arc;

use chappe_protocol::ChannelId;
use chappe_storage::store::{Key, Store, StoreError};

use crate::digest::{Digest, Owner};
use crate::entry::Entry;
use crate::folder::{DIGESTS, Folder, FolderError};
use crate::manifest::{Manifest, TABLES};
use crate::progress::{Progress, Report};
use crate::rows::RowsReader;
use crate::sums::{Reader, Sum, Sums};

/// It could not be compared.
#[derive(Debug, thiserror::Error)]
pub enum VerifyError {
    /// A file cannot be used.
    #[error(transparent)]
    Folder(#[from] FolderError),
    /// The store does not answer.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// Something that is not as it was exported.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Difference {
    /// A channel or an inbox.
    Channel {
        /// Which.
        channel: ChannelId,
        /// What was exported of it.
        exported: Digest,
        /// What is there.
        found: Digest,
    },
    /// The names of channels.
    Names {
        /// What was exported.
        exported: Digest,
        /// What is there.
        found: Digest,
    },
    /// A row of one of the channels.
    Row(Key),
    /// The file of digests.
    Digests,
}

/// What a comparison came to.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Verdict {
    /// Rows that were read.
    pub rows: u64,
    /// Channels that were compared.
    pub channels: u64,
    /// The first differences, at most a hundred channels and twenty rows.
    pub differences: Vec<Difference>,
    /// How many more channels differ.
    pub more: u64,
}

impl Verdict {
    /// Whether everything is as it was exported.
    pub fn is_same(&self) -> bool {
        self.differences.is_empty()
    }

    fn differs(&mut self, difference: Difference) {
        match self.differences.len() < CHANNELS_NAMED {
            true => self.differences.push(difference),
            false => self.more += 1,
        }
    }
}

/// Compares everything in a store with what was exported. `scratch` is a folder for what does not
/// fit into memory. Blocks while it reads files.
pub async fn verify(
    store: &Arc<dyn Store>,
    folder: &Path,
    scratch: &Path,
    report: Report<'_>,
) -> Result<Verdict, VerifyError> {
    let manifest = Manifest::read(folder)?;
    let (folder, scratch) = (Folder::at(folder), Folder::at(scratch));
    let found = scratch.join(DIGESTS);
    let sum = sum_of_store(store, &scratch, &found, manifest.rows, report).await?;
    let mut verdict = compare(&folder, &manifest, &sum, &found)?;
    drop(std::fs::remove_file(found));
    if !verdict.is_same() {
        name_rows(store, &folder, manifest.files, &mut verdict).await?;
    }
    Ok(verdict)
}

/// Whether a folder holds what its manifest says. Nothing may be imported that does not: a row
/// that was written cannot be replaced by another with its stamp.
pub(crate) fn check_folder(
    folder: &Folder,
    manifest: &Manifest,
    scratch: &Folder,
    report: Report<'_>,
) -> Result<Verdict, FolderError> {
    let files = manifest.files;
    let mut sums = Sums::new(scratch.clone());
    for file in 1..=files {
        let mut reader = RowsReader::open(folder, file)?;
        while let Some(entries) = reader.next_block()? {
            entries.iter().try_for_each(|entry| sums.add(entry))?;
        }
        report(Progress::Checked { file, files });
    }
    let found = scratch.join(DIGESTS);
    let sum = sums.finish(&found)?;
    let verdict = compare(folder, manifest, &sum, &found)?;
    drop(std::fs::remove_file(found));
    Ok(verdict)
}

/// Reads everything in a store and writes the file of its channels to `path`.
async fn sum_of_store(
    store: &Arc<dyn Store>,
    scratch: &Folder,
    path: &Path,
    of: u64,
    report: Report<'_>,
) -> Result<Sum, VerifyError> {
    let mut sums = Sums::new(scratch.clone());
    let mut rows = 0;
    let mut told = 0;
    for table in TABLES {
        let mut after = None;
        loop {
            let page = store.dump(table, after, PAGE_ROWS).await?;
            let Some((last, _)) = page.last() else { break };
            after = Some(*last);
            rows += page.len() as u64;
            for (key, row) in page {
                sums.add(&Entry::Row(key, row))?;
            }
            if rows - told >= TOLD_ROWS {
                told = rows;
                report(Progress::Compared { rows, of });
            }
        }
    }
    let mut after = None;
    loop {
        let page = store.dump_names(after, PAGE_ROWS).await?;
        let Some((last, _)) = page.last() else { break };
        after = Some(last.clone());
        rows += page.len() as u64;
        for (name, value) in page {
            sums.add(&Entry::Name(name, value))?;
        }
    }
    report(Progress::Compared { rows, of });
    Ok(sums.finish(path)?)
}

/// Goes through both files of channels side by side.
fn compare(
    folder: &Folder,
    manifest: &Manifest,
    sum: &Sum,
    found: &Path,
) -> Result<Verdict, FolderError> {
    let mut verdict = Verdict { rows: sum.rows, ..Verdict::default() };
    let mut exported = Reader::open(&folder.join(DIGESTS))?;
    let mut found = Reader::open(found)?;
    let (mut left, mut right) = (exported.next()?, found.next()?);
    while let Some(channel) = left.into_iter().chain(right).map(|(channel, _)| channel).min() {
        let mut digests = [Digest::default(); 2];
        if let Some((of, digest)) = left
            && of == channel
        {
            digests[0] = digest;
            left = exported.next()?;
        }
        if let Some((of, digest)) = right
            && of == channel
        {
            digests[1] = digest;
            right = found.next()?;
        }
        verdict.channels += 1;
        let ([exported, found], channel) = (digests, ChannelId::new(channel));
        if exported != found {
            verdict.differs(Difference::Channel { channel, exported, found });
        }
    }
    let names = manifest.names().unwrap_or_default();
    if names != sum.names {
        verdict.differs(Difference::Names { exported: names, found: sum.names });
    }
    if exported.sha256() != manifest.digests_sha256 {
        verdict.differs(Difference::Digests);
    }
    Ok(verdict)
}

/// Looks for the rows by which channels differ: those of the export that the store does not have,
/// or has otherwise.
async fn name_rows(
    store: &Arc<dyn Store>,
    folder: &Folder,
    files: u32,
    verdict: &mut Verdict,
) -> Result<(), VerifyError> {
    let channel = |difference: &Difference| match difference {
        Difference::Channel { channel, .. } => Some(*channel),
        _ => None,
    };
    let channels: BTreeSet<_> = verdict.differences.iter().filter_map(channel).collect();
    let mut named = 0;
    for file in 1..=files {
        let mut reader = RowsReader::open(folder, file)?;
        while let Some(entries) = reader.next_block()? {
            let of_these = |entry: Entry| match (entry.owner(), entry) {
                (Owner::Channel(channel), Entry::Row(key, row)) => {
                    channels.contains(&channel).then_some((key, row))
                }
                _ => None,
            };
            let rows: Vec<_> = entries.into_iter().filter_map(of_these).collect();
            let found = store.get_many(rows.iter().map(|(key, _)| *key).collect()).await?;
            for ((key, row), found) in rows.into_iter().zip(found) {
                if found != Some(row) {
                    verdict.differences.push(Difference::Row(key));
                    named += 1;
                }
                if named == ROWS_NAMED {
                    return Ok(());
                }
            }
        }
    }
    Ok(())
}

impl fmt::Display for Difference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Channel { channel, exported, found } => {
                let kind = if channel.inbox_owner().is_some() { "inbox" } else { "channel" };
                write!(f, "{kind} {channel}: exported {exported}; found {found}")
            }
            Self::Names { exported, found } => {
                write!(f, "names of channels: exported {exported}; found {found}")
            }
            Self::Row(key) => write!(f, "row {key:?} is missing or another"),
            Self::Digests => f.write_str("the file of digests is another than the manifest says"),
        }
    }
}

const CHANNELS_NAMED: usize = 100;
const ROWS_NAMED: usize = 20;
/// Rows that are read at once.
const PAGE_ROWS: usize = 256;
/// What was compared is told this often.
const TOLD_ROWS: u64 = 20_000;
