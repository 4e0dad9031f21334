//! What a scan has open: maps and arrays, and the keys of the maps. It refuses depth, wide maps
//! and a key that a map has twice.

use xxhash_rust::xxh3::xxh3_64;

use super::DecodeError;
use crate::{code::ErrorCode, limits};

/// Why a scan stopped. Small, because it is part of every step's result.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Unsound {
    Malformed,
    KeyTwice,
    KeyNotText,
    Binary,
    TooDeep,
}

impl From<Unsound> for DecodeError {
    fn from(unsound: Unsound) -> Self {
        match unsound {
            Unsound::Malformed => Self::new(ErrorCode::Malformed),
            Unsound::KeyTwice => Self::malformed("a map has the same key twice"),
            Unsound::KeyNotText => Self::malformed("a key is a string"),
            Unsound::Binary => Self::malformed("binary and extension values are not used"),
            Unsound::TooDeep => Self::new(ErrorCode::TooDeep),
        }
    }
}

/// The open maps and arrays of a scan, on a stack of fixed size.
pub(super) struct Nesting {
    levels: [Level; limits::DEPTH_MAX],
    depth: usize,
    /// Hashes of the keys of all open maps, those of the innermost last. A hash stands for its
    /// key: who makes two keys collide has only his own frame refused.
    keys: Vec<u64>,
}

/// One open map or array.
#[derive(Clone, Copy)]
pub(super) struct Level {
    pub(super) kind: Kind,
    /// The values that it still lacks, where the encoding tells.
    pub(super) left: u32,
    first_key: u32,
}

#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Map,
    Array,
}

impl Nesting {
    pub(super) fn new() -> Self {
        const NONE: Level = Level { kind: Kind::Array, left: 0, first_key: 0 };
        // Room for the keys of an ordinary frame; more is taken only as keys are really read.
        Self { levels: [NONE; limits::DEPTH_MAX], depth: 0, keys: Vec::with_capacity(16) }
    }

    pub(super) fn open(&mut self, kind: Kind, left: u32) -> Result<(), Unsound> {
        let level = self.levels.get_mut(self.depth).ok_or(Unsound::TooDeep)?;
        *level = Level { kind, left, first_key: self.keys.len() as u32 };
        self.depth += 1;
        Ok(())
    }

    pub(super) fn close(&mut self) {
        assert!(self.depth > 0, "closed more than was opened");
        self.depth -= 1;
        self.keys.truncate(self.levels[self.depth].first_key as usize);
    }

    /// The innermost, or none when the frame is complete.
    pub(super) fn top(&mut self) -> Option<&mut Level> {
        self.depth.checked_sub(1).map(|top| &mut self.levels[top])
    }

    /// Takes a key of the innermost map.
    pub(super) fn add_key(&mut self, key: &[u8]) -> Result<(), Unsound> {
        let first = self.top().map_or(0, |level| level.first_key as usize);
        let keys = &self.keys[first..];
        if keys.len() == limits::KEYS_MAX {
            return Err(Unsound::TooDeep);
        }
        let hash = xxh3_64(key);
        if keys.contains(&hash) {
            return Err(Unsound::KeyTwice);
        }
        self.keys.push(hash);
        Ok(())
    }
}
