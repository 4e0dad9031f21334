//! Which records count: the one rule by which a leader, its successor and a replay agree on what
//! a log says, whatever a deposed leader or a repeating producer left in it.
//!
//! A record with an n counts if its epoch is that of the last claim and its n is the last counted
//! n + 1. Anything else is void. Nothing here looks at what a fact says.

use chappe_protocol::Incarnation;
use chappe_storage::log::Offset;
use chappe_uplink::Generation;

use crate::{
    halt::{Halt, Poison},
    record::{Adopt, Claim, Genesis, LEVEL_MAX, Lineage, Mark, Record},
    row::CheckpointRow,
};

/// What a log says up to some offset.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Count {
    /// The log's identity.
    pub lineage: Lineage,
    /// The incarnation in force.
    pub incarnation: Incarnation,
    /// The offset of the last claim that counts, unless its epoch has ended.
    pub epoch: Option<u64>,
    /// The last counted number in that epoch.
    pub last_n: u64,
    /// The last counted record's time.
    pub last_ts: u64,
    /// The last counted record's tick.
    pub last_tick: u64,
    /// The last record that was not void is a release.
    pub released: bool,
    /// The level in force.
    pub level: u32,
    /// The stage of the seal in force; 0 when open.
    pub seal: u8,
}

/// What a record is worth.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// It counts, and it is what it says.
    Counts,
    /// It never counted: a deposed leader's, or out of its count.
    Void,
    /// A claim: a new epoch begins.
    Claimed,
    /// An operator's adoption: the epoch ended.
    Adopted,
}

impl Count {
    /// Before the first record of a log.
    pub const fn new(lineage: Lineage, incarnation: Incarnation) -> Self {
        Self {
            lineage,
            incarnation,
            epoch: None,
            last_n: 0,
            last_ts: 0,
            last_tick: 0,
            released: false,
            level: 1,
            seal: 0,
        }
    }

    /// Where a checkpoint left off.
    pub const fn at(row: &CheckpointRow) -> Self {
        Self {
            lineage: row.lineage,
            incarnation: row.incarnation,
            epoch: row.epoch,
            last_n: row.last_n,
            last_ts: row.last_ts,
            last_tick: row.last_tick,
            released: row.released,
            level: row.level,
            seal: row.seal,
        }
    }

    /// Takes the record at `offset`.
    pub fn take(&mut self, offset: Offset, record: &Record) -> Result<Verdict, Halt> {
        match record {
            Record::Genesis(genesis) => self.genesis(offset, genesis),
            Record::Claim(claim) => Ok(self.claim(offset, claim)),
            Record::Adopt(adopt) => Ok(self.adopt(adopt)),
            Record::Fact(fact) => Ok(self.marked(&fact.mark, self.seal < 2)),
            Record::Beat(mark) => Ok(self.marked(mark, true)),
            Record::Release(mark) => {
                let verdict = self.marked(mark, true);
                if verdict == Verdict::Counts {
                    self.epoch = None;
                    self.released = true;
                }
                Ok(verdict)
            }
            Record::Level(mark, level) => {
                let verdict = self.marked(mark, self.seal < 2);
                if verdict == Verdict::Counts {
                    if *level > LEVEL_MAX {
                        return Err(Halt::Poison { offset, what: Poison::Level(*level) });
                    }
                    self.level = *level;
                }
                Ok(verdict)
            }
            Record::Seal(mark, stage) => {
                let verdict = self.marked(mark, self.seal < 2);
                if verdict == Verdict::Counts {
                    self.seal = *stage;
                }
                Ok(verdict)
            }
            Record::Unseal(mark) => {
                let verdict = self.marked(mark, true);
                if verdict == Verdict::Counts {
                    self.seal = 0;
                }
                Ok(verdict)
            }
        }
    }

    /// Whether the record with this mark would count, and counts it if so. `open` is whether the
    /// seal lets its kind count.
    pub fn marked(&mut self, mark: &Mark, open: bool) -> Verdict {
        let in_epoch = self.epoch == Some(mark.generation.epoch)
            && self.incarnation == mark.generation.incarnation;
        if !in_epoch || mark.n != self.last_n + 1 || !open {
            return Verdict::Void;
        }
        self.last_n = mark.n;
        self.last_ts = mark.ts;
        self.last_tick = mark.tick;
        self.released = false;
        Verdict::Counts
    }

    /// The leadership in force, if any.
    pub fn generation(&self) -> Option<Generation> {
        self.epoch.map(|epoch| Generation { incarnation: self.incarnation, epoch })
    }

    fn genesis(&self, offset: Offset, genesis: &Genesis) -> Result<Verdict, Halt> {
        if offset != Offset(0) {
            return Err(Halt::Poison { offset, what: Poison::MisplacedGenesis });
        }
        if genesis.lineage != self.lineage {
            return Err(Halt::OtherLineage { expected: self.lineage, found: genesis.lineage });
        }
        Ok(Verdict::Counts)
    }

    fn claim(&mut self, offset: Offset, claim: &Claim) -> Verdict {
        if claim.lineage != self.lineage || claim.incarnation != self.incarnation {
            return Verdict::Void;
        }
        self.epoch = Some(offset.0);
        self.last_n = 0;
        self.released = false;
        Verdict::Claimed
    }

    fn adopt(&mut self, adopt: &Adopt) -> Verdict {
        if adopt.lineage != self.lineage || adopt.incarnation <= self.incarnation {
            return Verdict::Void;
        }
        self.incarnation = adopt.incarnation;
        self.epoch = None;
        self.last_n = 0;
        self.released = false;
        Verdict::Adopted
    }
}
