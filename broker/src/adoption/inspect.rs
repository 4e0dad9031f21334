//! Looking at a log and a store that may not belong together: what each partition goes on from, and
//! what is lost. Changes nothing.

use std::{fmt, sync::Arc};

use chappe_partition::{
    count::{Count, Verdict},
    record::{Lineage, Record, decode},
    row::CheckpointRow,
};
use chappe_protocol::{Incarnation, PartitionId};
use chappe_storage::{
    log::{Bounds, Entry, Log, Offset},
    store::Store,
};

use super::{AdoptError, Adoption};
use crate::{
    fit,
    lineage::{self, Found as Beginnings, LineageError, LineageRow},
    migration::{self, Migration},
};

/// What was found, and what an adoption would make of it.
#[derive(Debug)]
pub struct Plan {
    /// The partitions, in their order.
    pub found: Vec<Found>,
    /// What the log is now, by the store.
    pub now: Incarnation,
    /// What it becomes.
    pub adoption: Adoption,
    /// What the store says is under way: an earlier adoption, or an export that this one ends.
    pub(super) begun: Option<Migration>,
    /// The row in the store. None in the middle of the last step.
    pub(super) row: Option<LineageRow>,
    /// Which partitions have their first record.
    pub(super) beginnings: Beginnings,
}

/// One partition.
#[derive(Debug, Clone, Copy)]
pub struct Found {
    /// Which.
    pub partition: PartitionId,
    /// What the log has.
    pub bounds: Bounds,
    /// What it goes on from.
    pub onward: Onward,
    pub(super) checkpoint: Option<CheckpointRow>,
    /// It is of the incarnation and the lineage that the store says.
    is_current: bool,
}

/// What a partition goes on from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Onward {
    /// From the checkpoint: these facts behind it are replayed, and so many records that were
    /// durable are missing at the end.
    Replay {
        /// What is replayed.
        facts: u64,
        /// What is missing.
        missing: u64,
    },
    /// From what the store has: nothing of the log is replayed.
    Store(Loss),
}

/// Why nothing is replayed. Each names what the checkpoint needs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Loss {
    /// There is no record.
    Empty,
    /// It ends at or below this offset.
    Cut(Offset),
    /// It begins above this offset.
    Trimmed(Offset),
    /// Another record stands at this offset.
    Other(Offset),
}

impl Plan {
    /// Whether the log is the store's already, and nothing is under way.
    pub fn is_sound(&self) -> bool {
        let is_under_way = matches!(self.begun, Some(Migration::Adopt(_)));
        !is_under_way && self.row.is_some() && self.found.iter().all(Found::is_sound)
    }

    /// Whether an earlier adoption was cut off.
    pub fn goes_on(&self) -> bool {
        matches!(self.begun, Some(Migration::Adopt(_)))
    }

    /// What the store says of it while it is under way. Another run of an adoption leaves there what
    /// the first said, as the log may be known by that alone; its incarnation is the first's then.
    pub(super) fn said(&self) -> Adoption {
        match self.begun {
            Some(Migration::Adopt(earlier)) if earlier.lineage == self.adoption.lineage => earlier,
            _ => self.adoption,
        }
    }

    /// Whether an export is given up by it.
    pub fn ends_export(&self) -> bool {
        matches!(self.begun, Some(Migration::Export(_)))
    }
}

impl Found {
    /// Whether nothing is wrong with it.
    pub fn is_sound(&self) -> bool {
        self.is_current && matches!(self.onward, Onward::Replay { missing: 0, .. })
    }
}

impl fmt::Display for Found {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { partition, bounds: Bounds { start, end }, onward, .. } = self;
        write!(f, "partition {partition}: ")?;
        match onward {
            Onward::Replay { facts, missing: 0 } => {
                write!(
                    f,
                    "as the store knows it; facts that the store still takes from it: {facts}"
                )
            }
            Onward::Replay { facts, missing } => write!(
                f,
                "cut at offset {end}: {missing} durable records are gone; facts that the store \
                 still takes from it: {facts}"
            ),
            Onward::Store(Loss::Empty) => write!(f, "empty; the store goes on with what it has"),
            Onward::Store(Loss::Cut(needed)) => write!(
                f,
                "ends at offset {end}, and the store is at {needed}; the store goes on with what it \
                 has"
            ),
            Onward::Store(Loss::Trimmed(needed)) => write!(
                f,
                "begins at offset {start}, and the store is at {needed}: what is between is lost, \
                 and what is in the log is not used; the store goes on with what it has"
            ),
            Onward::Store(Loss::Other(at)) => write!(
                f,
                "another record stands at offset {at} than the store was made of: nothing of it is \
                 used; the store goes on with what it has"
            ),
        }
    }
}

/// Looks at everything. Reads what stands behind the checkpoints.
pub async fn inspect(log: &Arc<dyn Log>, store: &Arc<dyn Store>) -> Result<Plan, AdoptError> {
    let begun = migration::begun(store).await?;
    let earlier = match begun {
        Some(Migration::Import(_)) => return Err(LineageError::Importing.into()),
        Some(Migration::Adopt(adoption)) => Some(adoption),
        Some(Migration::Export(_)) | None => None,
    };
    let row = lineage::row(store).await?;
    let known = row.or(earlier.map(|adoption| adoption.row())).ok_or(AdoptError::NoStore)?;
    if known.partitions != log.partitions() {
        let (made, configured) = (known.partitions, log.partitions());
        return Err(LineageError::Partitions { made, configured }.into());
    }
    let beginnings = Beginnings::read(log).await?;
    let ours = [Some(known.lineage()), earlier.map(|it| it.assignment().lineage)];
    let ours: Vec<_> = ours.into_iter().flatten().collect();
    let lineage = match beginnings.lineage {
        Some(found) if !ours.contains(&found) && beginnings.used => {
            return Err(AdoptError::Foreign { found });
        }
        Some(found) => found,
        // Whoever finds the old log again shall not take it for this one.
        None if !beginnings.trimmed => {
            earlier.map_or_else(|| Lineage(lineage::random()), |it| it.assignment().lineage)
        }
        None => known.lineage(),
    };
    let look = Look { log, store, lineage, ours, known };
    let (mut found, mut newest) = (Vec::new(), known.incarnation);
    newest = newest.max(earlier.map_or(0, |adoption| adoption.incarnation));
    for partition in (0..log.partitions()).map(PartitionId) {
        let (one, incarnation) = look.at(partition).await?;
        newest = newest.max(incarnation.0);
        found.push(one);
    }
    if newest >= INCARNATION_MAX {
        return Err(AdoptError::LastIncarnation(newest));
    }
    let adoption = Adoption {
        lineage: lineage.0.to_be_bytes(),
        incarnation: newest + 1,
        partitions: known.partitions,
        imported: known.imported,
    };
    let now = Incarnation(known.incarnation);
    Ok(Plan { found, now, adoption, begun, row, beginnings })
}

struct Look<'a> {
    log: &'a Arc<dyn Log>,
    store: &'a Arc<dyn Store>,
    /// What the log is, or is to be.
    lineage: Lineage,
    /// What it may be of.
    ours: Vec<Lineage>,
    known: LineageRow,
}

impl Look<'_> {
    /// One partition, and the highest incarnation that was met.
    async fn at(&self, partition: PartitionId) -> Result<(Found, Incarnation), AdoptError> {
        // First the checkpoint: a log that is appended to ends behind what it says.
        let checkpoint = fit::checkpoint(self.store, partition).await?;
        let bounds = self.log.bounds(partition).await?;
        let of = checkpoint.map_or(Incarnation(1), |row| row.incarnation);
        let (onward, newest) = match self.loss(partition, bounds, checkpoint.as_ref()).await? {
            Some(loss) => {
                self.refuse_foreign(partition, bounds).await?;
                (Onward::Store(loss), of)
            }
            None => {
                let (facts, newest) = self.facts(partition, bounds, checkpoint.as_ref()).await?;
                let highest = checkpoint.map_or(0, |row| row.highest + 1);
                let missing = highest.saturating_sub(bounds.end.0);
                (Onward::Replay { facts, missing }, newest)
            }
        };
        let is_current = self.lineage == self.known.lineage()
            && checkpoint.is_none_or(|row| row.incarnation.0 == self.known.incarnation);
        Ok((Found { partition, bounds, onward, checkpoint, is_current }, newest.max(of)))
    }

    /// Why nothing of it can be replayed, if so.
    async fn loss(
        &self,
        partition: PartitionId,
        Bounds { start, end }: Bounds,
        checkpoint: Option<&CheckpointRow>,
    ) -> Result<Option<Loss>, AdoptError> {
        if start == end {
            return Ok(Some(Loss::Empty));
        }
        let Some(row) = checkpoint else {
            return Ok((start > Offset(0)).then_some(Loss::Trimmed(Offset(0))));
        };
        let Some(needed) = row.offset.checked_sub(1).map(Offset) else {
            return Err(LineageError::Checkpoint(partition).into());
        };
        if end <= needed {
            return Ok(Some(Loss::Cut(needed)));
        }
        if start > needed {
            return Ok(Some(Loss::Trimmed(needed)));
        }
        let entries = self.log.read(partition, needed, 1).await?;
        if !entries.first().is_some_and(|entry| row.follows(&entry.record)) {
            return Ok(Some(Loss::Other(needed)));
        }
        if row.lineage != self.lineage {
            let (found, other) = (row.lineage, self.lineage);
            return Err(AdoptError::Mixed { partition, found, other });
        }
        Ok(None)
    }

    /// The facts that count behind the checkpoint, and the incarnation at the end.
    async fn facts(
        &self,
        partition: PartitionId,
        bounds: Bounds,
        checkpoint: Option<&CheckpointRow>,
    ) -> Result<(u64, Incarnation), AdoptError> {
        let first = || Count::new(self.lineage, Incarnation(1));
        let mut count = checkpoint.map_or_else(first, Count::at);
        let mut facts = 0;
        let from = Offset(checkpoint.map_or(0, |row| row.offset));
        let mut take = |entry: &Entry, record: Record| {
            let what = |halt: chappe_partition::Halt| halt.to_string();
            match count.take(entry.offset, &record) {
                Ok(Verdict::Counts) => facts += u64::from(matches!(record, Record::Fact(_))),
                Ok(_) => {}
                Err(halt) => return Err(AdoptError::Halted { partition, what: what(halt) }),
            }
            Ok(true)
        };
        self.walk(partition, from, bounds.end, &mut take).await?;
        Ok((facts, count.incarnation))
    }

    /// A log that nothing is replayed of may be another's: its first claim says.
    async fn refuse_foreign(
        &self,
        partition: PartitionId,
        bounds: Bounds,
    ) -> Result<(), AdoptError> {
        let mut take = |_: &Entry, record: Record| {
            let found = match record {
                Record::Claim(claim) => claim.lineage,
                Record::Adopt(adopt) => adopt.lineage,
                _ => return Ok(true),
            };
            let is_ours = self.ours.contains(&found) || found == self.lineage;
            if is_ours { Ok(false) } else { Err(AdoptError::Foreign { found }) }
        };
        self.walk(partition, bounds.start, bounds.end, &mut take).await
    }

    /// Reads records until there are no more, or `take` wants none.
    async fn walk(
        &self,
        partition: PartitionId,
        from: Offset,
        end: Offset,
        take: &mut (dyn FnMut(&Entry, Record) -> Result<bool, AdoptError> + Send),
    ) -> Result<(), AdoptError> {
        let mut next = from;
        while next < end {
            let entries = self.log.read(partition, next, READ_BYTES).await?;
            let Some(last) = entries.last() else { return Ok(()) };
            next = last.offset.next();
            for entry in &entries {
                let offset = entry.offset;
                let record = decode(&entry.record).map_err(|error| AdoptError::Unreadable {
                    partition,
                    offset,
                    error,
                })?;
                if !take(entry, record)? {
                    return Ok(());
                }
            }
        }
        Ok(())
    }
}

/// Stamps hold no more.
const INCARNATION_MAX: u32 = 1_000;
/// Read at once.
const READ_BYTES: usize = 1024 * 1024;
