//! What the store says of an export, an import or an adoption that is under way, and the first and
//! the last step of an import.
//!
//! It is a unique key of its own, so that it is set and freed by conditions. A log and a store that
//! are being imported into are not led by anybody; those that are being exported are, sealed.

use std::{fmt, sync::Arc};

use bytes::Bytes;
use chappe_partition::record::Lineage;
use chappe_protocol::Incarnation;
use chappe_storage::{
    log::Log,
    store::{Claimed, Store, UniqueKey},
};
use serde::{Deserialize, Serialize};

use crate::adoption::Adoption;
use crate::lineage::{self, Found, LineageError, LineageRow};

/// An export. Its seal is the same until it is aborted, and so is what it exports.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct ExportId([u8; 16]);

/// What is under way.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Migration {
    /// Everything is sealed, or is about to be, and read.
    Export(ExportId),
    /// Everything is written. Nobody may lead the log.
    Import(Import),
    /// A log is taken over into a new incarnation. Nobody but who does it may lead it.
    Adopt(Adoption),
}

/// An import, and the log that it begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Import {
    /// What is imported.
    pub from: ExportId,
    /// The new log's identity.
    lineage: [u8; 16],
    incarnation: u32,
    partitions: u32,
}

/// What a store that can be used is tied to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Settled {
    /// Its log.
    pub lineage: Lineage,
    /// The log's incarnation.
    pub incarnation: Incarnation,
    /// The log's partitions.
    pub partitions: u32,
    /// Where its rows came from, if they were imported.
    pub imported: Option<ExportId>,
}

impl ExportId {
    /// A new one.
    pub fn random() -> Self {
        Self(lineage::random().to_be_bytes())
    }

    /// Reads what was displayed.
    pub fn parse(text: &str) -> Option<Self> {
        let id = u128::from_str_radix(text, 16).ok().filter(|_| text.len() == 32);
        id.map(|id| Self(id.to_be_bytes()))
    }
}

impl fmt::Display for ExportId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:032x}", u128::from_be_bytes(self.0))
    }
}

impl Import {
    /// An import into a new log.
    pub fn new(from: ExportId, incarnation: Incarnation, partitions: u32) -> Self {
        let lineage = lineage::random().to_be_bytes();
        Self { from, lineage, incarnation: incarnation.0, partitions }
    }

    /// The new log's identity.
    pub const fn lineage(&self) -> Lineage {
        Lineage(u128::from_be_bytes(self.lineage))
    }

    /// Its incarnation.
    pub const fn incarnation(&self) -> Incarnation {
        Incarnation(self.incarnation)
    }

    /// Its partitions.
    pub const fn partitions(&self) -> u32 {
        self.partitions
    }

    /// The record that each of them begins with.
    pub fn genesis(&self) -> Bytes {
        lineage::genesis_of(self.lineage(), self.partitions)
    }
}

/// What is under way in a store.
pub async fn begun(store: &Arc<dyn Store>) -> Result<Option<Migration>, LineageError> {
    store.claimed(UniqueKey::Migration).await?.map(|bytes| decode(&bytes)).transpose()
}

/// Begins, or finds what was begun before: that is what is under way.
pub async fn begin(
    store: &Arc<dyn Store>,
    migration: Migration,
) -> Result<Migration, LineageError> {
    match store.claim(UniqueKey::Migration, encode(&migration)).await? {
        Claimed::Yes => Ok(migration),
        Claimed::Taken(other) => decode(&other),
    }
}

/// Ends what is under way. Changes nothing if something else is.
pub async fn end(store: &Arc<dyn Store>, migration: Migration) -> Result<(), LineageError> {
    Ok(store.release(UniqueKey::Migration, encode(&migration)).await?)
}

/// Begins the log of an import: every partition gets its first record, if it has none.
pub async fn begin_log(log: &Arc<dyn Log>, import: &Import) -> Result<(), LineageError> {
    if log.partitions() != import.partitions {
        let (made, configured) = (import.partitions, log.partitions());
        return Err(LineageError::Partitions { made, configured });
    }
    let found = Found::read(log).await?;
    let is_other = found.lineage.is_some_and(|lineage| lineage != import.lineage());
    if found.used || found.trimmed || is_other {
        return Err(LineageError::InUse);
    }
    lineage::begin(log, &import.genesis(), &found).await
}

/// Ties the store to the log that was imported into. From the end of the import on it can be led.
pub async fn settle(store: &Arc<dyn Store>, import: &Import) -> Result<(), LineageError> {
    let Import { from, lineage, incarnation, partitions } = *import;
    let row = LineageRow { lineage, incarnation, partitions, imported: Some(from.0) };
    match store.claim(UniqueKey::Lineage, lineage::encode(&row)).await? {
        Claimed::Yes => Ok(()),
        Claimed::Taken(other) => {
            let store = lineage::decode(&other)?.lineage();
            Err(LineageError::Other { log: import.lineage(), store })
        }
    }
}

/// What a store is tied to; none for a new one.
pub async fn settled(store: &Arc<dyn Store>) -> Result<Option<Settled>, LineageError> {
    let row = store.claimed(UniqueKey::Lineage).await?;
    let row = row.map(|bytes| lineage::decode(&bytes)).transpose()?;
    Ok(row.map(|row| Settled {
        lineage: row.lineage(),
        incarnation: Incarnation(row.incarnation),
        partitions: row.partitions,
        imported: row.imported.map(ExportId),
    }))
}

fn encode(migration: &Migration) -> Bytes {
    let bytes = rmp_serde::to_vec_named(migration);
    assert!(bytes.is_ok(), "a migration can be encoded");
    bytes.unwrap_or_default().into()
}

fn decode(bytes: &[u8]) -> Result<Migration, LineageError> {
    rmp_serde::from_slice(bytes).map_err(|_| LineageError::Row)
}
