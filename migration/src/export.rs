//! Writing everything that a sealed store holds into a folder.
//!
//! The store stands still, so that it can be read in any order and over any time. A file of rows is
//! durable before the position behind it is noted: an export that is begun again writes the file
//! that was not finished anew, and goes on. In the end all files are read back and summed up.

use std::path::Path;
use std::sync::Arc;

use chappe_broker::LineageError;
use chappe_broker::migration::{self, ExportId, Migration};
use chappe_partition::row::{CheckpointRow, RowError, RowValue, StampedRow};
use chappe_protocol::{Incarnation, PartitionId};
use chappe_storage::store::{Key, Scan, Store, StoreError};

use crate::entry::Entry;
use crate::folder::{DIGESTS, FORMAT, Folder, FolderError, MANIFEST, PROGRESS};
use crate::manifest::{Manifest, Next, Position, Source, TABLES};
use crate::progress::{Progress, Report};
use crate::rows::{RowsReader, RowsWriter};
use crate::sums::Sums;
use crate::ticks::framed;

/// Nothing was exported, or not all. It can be tried again.
#[derive(Debug, thiserror::Error)]
pub enum ExportError {
    /// The folder cannot be used.
    #[error(transparent)]
    Folder(#[from] FolderError),
    /// It holds another export.
    #[error("the folder holds export {found}, and this is {this}: name an empty folder")]
    OtherExport {
        /// The one in the folder.
        found: ExportId,
        /// The one that is under way.
        this: ExportId,
    },
    /// Somebody gave it up meanwhile: the rows that were read may be of different times.
    #[error(
        "export {0} was given up while it ran, by `chappe export --abort`: the folder holds no \
         whole export; begin again with an empty one"
    )]
    GivenUp(ExportId),
    /// The store is not sealed.
    #[error("partition {0} is not sealed")]
    NotSealed(PartitionId),
    /// The store is not tied to a log.
    #[error("the store belongs to no log: there is nothing to export")]
    Empty,
    /// A row is not what its table holds.
    #[error("the row {key:?} cannot be read")]
    Row {
        /// The row.
        key: Key,
    },
    /// No log could follow.
    #[error("there is no incarnation after {}", .0.0)]
    LastIncarnation(Incarnation),
    /// The store does not say.
    #[error(transparent)]
    Lineage(#[from] LineageError),
    /// The store does not answer.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// Exports a store.
pub struct Exporter {
    store: Arc<dyn Store>,
    folder: Folder,
    file_bytes: u64,
}

impl Exporter {
    /// Of a store that is sealed, into a folder that is empty or holds a part of the same export.
    /// A file is closed when it has `file_bytes`.
    pub fn new(store: Arc<dyn Store>, folder: &Path, file_bytes: u64) -> Self {
        Self { store, folder: Folder::at(folder), file_bytes }
    }

    /// Writes what is missing. Blocks while it does.
    pub async fn run(&self, report: Report<'_>) -> Result<Manifest, ExportError> {
        let Some(Migration::Export(this)) = migration::begun(&self.store).await? else {
            return Err(ExportError::NotSealed(PartitionId(0)));
        };
        self.folder.prepare()?;
        if let Some(manifest) = self.folder.read::<Manifest>(MANIFEST)? {
            return same(this, manifest.export).map(|()| manifest);
        }
        let mut position = match self.folder.read::<Position>(PROGRESS)? {
            Some(position) => {
                same(this, position.export)?;
                report(Progress::GoesOn(position.files));
                position
            }
            None => Position::start(this, self.source().await?),
        };
        while position.next != Next::Sums {
            self.write_file(&mut position).await?;
            self.check_under_way(this).await?;
            self.folder.write(PROGRESS, &position)?;
            report(Progress::Exported { file: position.files, rows: position.rows });
        }
        let manifest = self.sum_up(position, report)?;
        // Behind the last page: all that was read before was sealed when it was read.
        self.check_under_way(this).await?;
        self.folder.write(MANIFEST, &manifest)?;
        self.folder.remove(PROGRESS)?;
        Ok(manifest)
    }

    /// Refuses to go on with an export that was given up, from another host perhaps, where no lock
    /// of ours is seen.
    async fn check_under_way(&self, this: ExportId) -> Result<(), ExportError> {
        match migration::begun(&self.store).await? {
            Some(Migration::Export(export)) if export == this => Ok(()),
            _ => Err(ExportError::GivenUp(this)),
        }
    }

    /// What the store says of its log.
    async fn source(&self) -> Result<Source, ExportError> {
        let settled = migration::settled(&self.store).await?.ok_or(ExportError::Empty)?;
        let mut source = Source {
            lineage: settled.lineage.to_string(),
            incarnation: settled.incarnation.0,
            level: 1,
            ts: 0,
            ticks: Vec::new(),
        };
        for partition in (0..settled.partitions).map(PartitionId) {
            let checkpoint = self.checkpoint(partition).await?;
            let outbox = self.store.scan(Scan::Outbox(partition), 1).await?;
            if checkpoint.seal != SEALED || !outbox.is_empty() {
                return Err(ExportError::NotSealed(partition));
            }
            source.level = source.level.max(checkpoint.level);
            source.ts = source.ts.max(checkpoint.last_ts);
            source.ticks.push(checkpoint.last_tick);
        }
        match source.next_incarnation() {
            Some(_) => Ok(source),
            None => Err(ExportError::LastIncarnation(settled.incarnation)),
        }
    }

    async fn checkpoint(&self, partition: PartitionId) -> Result<CheckpointRow, ExportError> {
        let key = Key::Checkpoint(partition);
        let row = self.store.get(key).await?.ok_or(ExportError::NotSealed(partition))?;
        match StampedRow::decode(&key, &row) {
            Ok(StampedRow { value: RowValue::Checkpoint(row), .. }) => Ok(row),
            _ => Err(ExportError::Row { key }),
        }
    }

    /// Writes one more file, and moves the position behind it.
    async fn write_file(&self, position: &mut Position) -> Result<(), ExportError> {
        let mut file = RowsWriter::create(&self.folder, position.files + 1)?;
        // A page at least, however small a file is to be.
        loop {
            let (entries, next) = self.page(&position.next, &position.source).await?;
            for entry in &entries {
                file.push(entry)?;
            }
            position.rows += entries.len() as u64;
            position.next = next;
            if file.bytes() >= self.file_bytes || position.next == Next::Sums {
                break;
            }
        }
        file.finish()?;
        position.files += 1;
        Ok(())
    }

    /// The rows behind a place, and the place behind them.
    async fn page(&self, at: &Next, source: &Source) -> Result<(Vec<Entry>, Next), ExportError> {
        match at {
            Next::Table(index, after) => {
                let Some(table) = TABLES.get(usize::from(*index)) else {
                    return Ok((Vec::new(), Next::Names(None)));
                };
                let rows = self.store.dump(*table, *after, PAGE_ROWS).await?;
                let next = match rows.last() {
                    Some((key, _)) => Next::Table(*index, Some(*key)),
                    None => Next::Table(index + 1, None),
                };
                let entry = |(key, row)| match framed(&key, row, source) {
                    Ok(row) => Ok(Entry::Row(key, row)),
                    Err(RowError) => Err(ExportError::Row { key }),
                };
                Ok((rows.into_iter().map(entry).collect::<Result<_, _>>()?, next))
            }
            Next::Names(after) => {
                let names = self.store.dump_names(after.clone(), PAGE_ROWS).await?;
                let next =
                    names.last().map_or(Next::Sums, |(name, _)| Next::Names(Some(name.clone())));
                let entry = |(name, value)| Entry::Name(name, value);
                Ok((names.into_iter().map(entry).collect(), next))
            }
            Next::Sums => Ok((Vec::new(), Next::Sums)),
        }
    }

    /// Reads everything back, and says what it is.
    fn sum_up(&self, position: Position, report: Report<'_>) -> Result<Manifest, ExportError> {
        let Position { export, source, files, .. } = position;
        let mut sums = Sums::new(self.folder.clone());
        for file in 1..=files {
            let mut reader = RowsReader::open(&self.folder, file)?;
            while let Some(entries) = reader.next_block()? {
                entries.iter().try_for_each(|entry| sums.add(entry))?;
            }
            report(Progress::Checked { file, files });
        }
        let sum = sums.finish(&self.folder.join(DIGESTS))?;
        Ok(Manifest {
            format: FORMAT,
            export,
            source,
            files,
            rows: sum.rows,
            channels: sum.channels,
            names_rows: sum.names.rows,
            names_digest: format!("{:032x}", sum.names.sum),
            digests_sha256: sum.sha256,
        })
    }
}

fn same(this: ExportId, found: ExportId) -> Result<(), ExportError> {
    if this == found { Ok(()) } else { Err(ExportError::OtherExport { found, this }) }
}

/// The last stage of the seal.
const SEALED: u8 = 2;
/// Rows that are read at once: a few MiB of the largest messages.
const PAGE_ROWS: usize = 256;
