//! What an export says of itself, and how far one is that is not finished.

use std::path::Path;

use chappe_broker::migration::ExportId;
use chappe_protocol::{Incarnation, PartitionId};
use chappe_storage::store::{Key, Table};
use serde::{Deserialize, Deserializer, Serialize, Serializer, de::Error as _};

use crate::digest::Digest;
use crate::folder::{FORMAT, Folder, FolderError, MANIFEST};

/// What was exported. It is written last.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Manifest {
    pub(crate) format: u32,
    /// Which export this is.
    #[serde(with = "export_id")]
    pub export: ExportId,
    /// The log that it came from.
    pub source: Source,
    /// Files of rows.
    pub files: u32,
    /// Rows in them, names too.
    pub rows: u64,
    /// Channels and inboxes that have rows.
    pub channels: u64,
    pub(crate) names_rows: u64,
    pub(crate) names_digest: String,
    /// The SHA-256 of the file of digests.
    pub(crate) digests_sha256: String,
}

/// The log and store that are exported.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Source {
    /// The log's identity.
    pub lineage: String,
    /// Its incarnation. What is imported gets the next one.
    pub incarnation: u32,
    /// The level of its records.
    pub level: u32,
    /// The time of its newest record.
    pub ts: u64,
    /// The last tick of each partition.
    pub ticks: Vec<u64>,
}

/// How far an export is. The files before it are durable.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Position {
    pub(crate) format: u32,
    #[serde(with = "export_id")]
    pub(crate) export: ExportId,
    pub(crate) source: Source,
    pub(crate) files: u32,
    pub(crate) rows: u64,
    pub(crate) next: Next,
}

/// Where it goes on.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Next {
    /// A table, behind the row with this key.
    Table(u8, #[serde(with = "hex_key")] Option<Key>),
    /// The names, behind this one.
    Names(Option<String>),
    /// Nothing is left to be read.
    Sums,
}

impl Manifest {
    /// Reads the manifest of a folder.
    pub fn read(folder: &Path) -> Result<Self, FolderError> {
        let folder = Folder::at(folder);
        let found = folder.read(MANIFEST)?;
        found.ok_or_else(|| FolderError::Unfinished { path: folder.join(MANIFEST) })
    }

    pub(crate) fn names(&self) -> Option<Digest> {
        let sum = u128::from_str_radix(&self.names_digest, 16).ok()?;
        Some(Digest { rows: self.names_rows, sum })
    }
}

impl Source {
    /// The incarnation of a log that it is imported into; none if there are no more.
    pub fn next_incarnation(&self) -> Option<Incarnation> {
        Some(Incarnation(self.incarnation.saturating_add(1)))
            .filter(|next| next.0 <= INCARNATION_MAX)
    }

    /// The tick that all rows are moved to the frame of: no partition is beyond it.
    pub fn tick(&self) -> u64 {
        self.ticks.iter().copied().max().unwrap_or(0)
    }

    /// By how much ticks of a partition's rows are moved.
    pub(crate) fn shift(&self, partition: PartitionId) -> u64 {
        let own = self.ticks.get(partition.0 as usize).copied();
        own.map_or(0, |own| self.tick() - own)
    }

    pub(crate) fn partitions(&self) -> u32 {
        self.ticks.len() as u32
    }
}

impl Position {
    pub(crate) fn start(export: ExportId, source: Source) -> Self {
        let next = Next::Table(0, None);
        Self { format: FORMAT, export, source, files: 0, rows: 0, next }
    }
}

/// The tables that are exported, in this order. What is on its way between partitions has arrived,
/// and checkpoints are those of a log that is left behind.
pub(crate) const TABLES: [Table; 9] = [
    Table::Channels,
    Table::Heads,
    Table::Members,
    Table::Messages,
    Table::Events,
    Table::ChannelsByUser,
    Table::ReadMarkers,
    Table::Mentions,
    Table::Relayed,
];

/// As in a stamp.
const INCARNATION_MAX: u32 = 1_000;

mod export_id {
    use super::*;

    pub(super) fn serialize<S: Serializer>(id: &ExportId, to: S) -> Result<S::Ok, S::Error> {
        to.collect_str(id)
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<ExportId, D::Error> {
        let text = String::deserialize(from)?;
        ExportId::parse(&text).ok_or_else(|| D::Error::custom("no id of an export"))
    }
}

mod hex_key {
    use super::*;

    pub(super) fn serialize<S: Serializer>(key: &Option<Key>, to: S) -> Result<S::Ok, S::Error> {
        let hex = |key: &Key| key.encode().iter().map(|byte| format!("{byte:02x}")).collect();
        key.as_ref().map::<String, _>(hex).serialize(to)
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Option<Key>, D::Error> {
        let Some(text) = Option::<String>::deserialize(from)? else { return Ok(None) };
        let byte = |at: usize| u8::from_str_radix(text.get(at..at + 2)?, 16).ok();
        let bytes: Option<Vec<u8>> = (0..text.len()).step_by(2).map(byte).collect();
        let key = bytes.and_then(|bytes| Key::decode(&bytes));
        key.map(Some).ok_or_else(|| D::Error::custom("no key"))
    }
}
