//! Writing an export into a new log and store.
//!
//! ```text
//!   check the folder → claim the target → begin its log → rows, file by file
//!                    → read everything back → checkpoints → tie store and log → free the claim
//! ```
//!
//! Each step can be made again: rows carry their stamps, and the claim says which import, into
//! which new log, is under way. Until it is freed nobody leads that log.

use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;
use chappe_broker::LineageError;
use chappe_broker::migration::{self, ExportId, Import, Migration};
use chappe_partition::{Assignment, row::CheckpointRow};
use chappe_protocol::PartitionId;
use chappe_storage::log::{Log, Offset};
use chappe_storage::store::{Claimed, Mutation, Store, StoreError, Table, UniqueKey};
use futures_util::future::try_join_all;
use serde::{Deserialize, Serialize};

use crate::compare::{Verdict, VerifyError, check_folder, verify};
use crate::entry::Entry;
use crate::folder::{FORMAT, Folder, FolderError};
use crate::manifest::Manifest;
use crate::progress::{Progress, Report};
use crate::rows::RowsReader;

/// Nothing was imported, or not all.
#[derive(Debug, thiserror::Error)]
pub enum ImportError {
    /// A file cannot be used.
    #[error(transparent)]
    Folder(#[from] FolderError),
    /// The folder is not what was exported.
    #[error("the folder is not what was exported: {}", .0.differences.iter().take(5).map(ToString::to_string).collect::<Vec<_>>().join("; "))]
    Altered(Verdict),
    /// The target is not what was exported.
    #[error("the target is not what was exported: {}", .0.differences.iter().take(5).map(ToString::to_string).collect::<Vec<_>>().join("; "))]
    Different(Verdict),
    /// There is something where it should go.
    #[error("the target is not empty: {0}. An import goes into a new log and store")]
    NotEmpty(String),
    /// Another import is under way there.
    #[error("an import of export {found} has begun there, and the folder holds {given}")]
    OtherImport {
        /// The one that has begun.
        found: ExportId,
        /// The one in the folder.
        given: ExportId,
    },
    /// A name is another channel's.
    #[error("the name {0:?} holds something else already")]
    Name(String),
    /// No log could follow.
    #[error("there is no incarnation after {0}")]
    LastIncarnation(u32),
    /// Store and log cannot be used.
    #[error(transparent)]
    Lineage(#[from] LineageError),
    /// The store does not answer.
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl From<VerifyError> for ImportError {
    fn from(error: VerifyError) -> Self {
        match error {
            VerifyError::Folder(error) => Self::Folder(error),
            VerifyError::Store(error) => Self::Store(error),
        }
    }
}

/// How an import begins.
pub enum Begun {
    /// This export was imported before, to the end.
    Before,
    /// It is to be made, or to go on.
    Now(Box<Importer>),
}

/// Imports an export.
pub struct Importer {
    store: Arc<dyn Store>,
    folder: Folder,
    /// Where notes are kept meanwhile.
    scratch: Folder,
    manifest: Manifest,
    import: Import,
}

/// How far an import is: the files up to this number are in the store.
#[derive(Debug, Serialize, Deserialize)]
struct Done {
    format: u32,
    lineage: String,
    files: u32,
}

impl Importer {
    /// Checks the folder, and that the store is new or holds a part of this very import, and takes
    /// possession of it. `scratch` is a folder of the target's own. Blocks while it reads files.
    pub async fn begin(
        store: Arc<dyn Store>,
        folder: &Path,
        scratch: &Path,
        partitions: u32,
        report: Report<'_>,
    ) -> Result<Begun, ImportError> {
        let manifest = Manifest::read(folder)?;
        let (folder, scratch) = (Folder::at(folder), Folder::at(scratch));
        std::fs::create_dir_all(scratch.path()).map_err(crate::folder::io_error(scratch.path()))?;
        let given = manifest.export;
        let begun = match migration::begun(&store).await? {
            Some(Migration::Import(import)) => Some(import),
            Some(Migration::Adopt(_)) => return Err(LineageError::Adopting.into()),
            Some(Migration::Export(_)) => {
                return Err(ImportError::NotEmpty("it is being exported".to_owned()));
            }
            None => None,
        };
        if begun.is_none() {
            if let Some(settled) = migration::settled(&store).await? {
                if settled.imported == Some(given) {
                    return Ok(Begun::Before);
                }
                let what = format!("it belongs to log {}", settled.lineage);
                return Err(ImportError::NotEmpty(what));
            }
            is_empty(&store).await?;
        }
        let verdict = check_folder(&folder, &manifest, &scratch, report)?;
        if !verdict.is_same() {
            return Err(ImportError::Altered(verdict));
        }
        let incarnation = manifest.source.next_incarnation();
        let last = ImportError::LastIncarnation(manifest.source.incarnation);
        let import = Import::new(given, incarnation.ok_or(last)?, partitions);
        let import = match migration::begin(&store, Migration::Import(import)).await? {
            Migration::Import(import) if import.from == given => import,
            Migration::Adopt(_) => return Err(LineageError::Adopting.into()),
            Migration::Import(Import { from: found, .. }) | Migration::Export(found) => {
                return Err(ImportError::OtherImport { found, given });
            }
        };
        Ok(Begun::Now(Box::new(Self { store, folder, scratch, manifest, import })))
    }

    /// The new log: what its topic is made with.
    pub const fn import(&self) -> &Import {
        &self.import
    }

    /// What is imported.
    pub const fn manifest(&self) -> &Manifest {
        &self.manifest
    }

    /// Makes the rest. From then on the log can be led.
    pub async fn run(self, log: &Arc<dyn Log>, report: Report<'_>) -> Result<Verdict, ImportError> {
        migration::begin_log(log, &self.import).await?;
        self.write_all(report).await?;
        let (folder, scratch) = (self.folder.path(), self.scratch.path());
        let verdict = verify(&self.store, folder, scratch, report).await?;
        if !verdict.is_same() {
            return Err(ImportError::Different(verdict));
        }
        self.store.write(self.checkpoints()).await?;
        migration::settle(&self.store, &self.import).await?;
        migration::end(&self.store, Migration::Import(self.import)).await?;
        self.scratch.remove(DONE)?;
        Ok(verdict)
    }

    /// Writes the files that were not.
    async fn write_all(&self, report: Report<'_>) -> Result<(), ImportError> {
        let lineage = self.import.lineage().to_string();
        let done = self.scratch.read::<Done>(DONE)?.filter(|done| done.lineage == lineage);
        let files = self.manifest.files;
        for file in 1 + done.map_or(0, |done| done.files)..=files {
            let mut reader = RowsReader::open(&self.folder, file)?;
            let mut blocks = Vec::new();
            while let Some(entries) = reader.next_block()? {
                blocks.push(self.write(entries));
                if blocks.len() == BLOCKS_AT_ONCE {
                    try_join_all(blocks.drain(..)).await?;
                }
            }
            try_join_all(blocks).await?;
            let done = Done { format: FORMAT, lineage: lineage.clone(), files: file };
            self.scratch.write(DONE, &done)?;
            report(Progress::Imported { file, files });
        }
        Ok(())
    }

    async fn write(&self, entries: Vec<Entry>) -> Result<(), ImportError> {
        let (mut rows, mut names) = (Vec::new(), Vec::new());
        for entry in entries {
            match entry {
                Entry::Row(key, row) => {
                    rows.push(Mutation { key, stamp: row.stamp, value: Some(row.value) });
                }
                Entry::Name(name, value) => names.push((name, value)),
            }
        }
        self.store.write(rows).await?;
        for names in names.chunks(NAMES_AT_ONCE) {
            try_join_all(names.iter().map(|(name, value)| self.claim(name, value))).await?;
        }
        Ok(())
    }

    async fn claim(&self, name: &str, value: &Bytes) -> Result<(), ImportError> {
        let key = UniqueKey::ChannelName(name.to_owned());
        match self.store.claim(key, value.clone()).await? {
            Claimed::Yes => Ok(()),
            Claimed::Taken(_) => Err(ImportError::Name(name.to_owned())),
        }
    }

    /// From where each partition goes on: behind its first record, and as late as any was.
    fn checkpoints(&self) -> Vec<Mutation> {
        let (import, source) = (&self.import, &self.manifest.source);
        let (lineage, incarnation) = (import.lineage(), import.incarnation());
        let (of, first) = (Assignment { lineage, incarnation }, import.genesis());
        let row = CheckpointRow::anew(of, Offset(0), &first, source.ts, source.tick());
        let row = CheckpointRow { level: source.level, ..row };
        (0..import.partitions()).map(|id| row.write(PartitionId(id), incarnation)).collect()
    }
}

/// Whether there is not a single row.
async fn is_empty(store: &Arc<dyn Store>) -> Result<(), ImportError> {
    for table in Table::ALL {
        if !store.dump(table, None, 1).await?.is_empty() {
            return Err(ImportError::NotEmpty(format!("its store has rows in {table:?}")));
        }
    }
    match store.dump_names(None, 1).await?.is_empty() {
        true => Ok(()),
        false => Err(ImportError::NotEmpty("its store has names of channels".to_owned())),
    }
}

/// How far it is, in the scratch folder.
const DONE: &str = "import";
/// Blocks that are written at once, each of some 256 KiB.
const BLOCKS_AT_ONCE: usize = 4;
/// Names that are claimed at once.
const NAMES_AT_ONCE: usize = 16;
