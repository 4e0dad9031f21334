//! The digest of a set of rows, whatever their order.

use std::fmt;

use chappe_protocol::ChannelId;
use sha2::{Digest as _, Sha256};

use crate::entry::Entry;

/// How many rows there are, and the sum of their digests modulo 2^128: the first half of the
/// SHA-256 of each one's key, stamp and value. It finds what was lost, doubled or altered, not what
/// somebody alters who can compute.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Digest {
    /// The rows.
    pub rows: u64,
    /// The sum.
    pub sum: u128,
}

/// What a row is counted under.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Owner {
    /// A channel, or the inbox of a user: whichever stamps the row.
    Channel(ChannelId),
    /// The names, which nobody stamps.
    Names,
}

impl Digest {
    /// Adds the rows of another set.
    pub(crate) const fn add(&mut self, other: Self) {
        self.rows += other.rows;
        self.sum = self.sum.wrapping_add(other.sum);
    }

    /// Of one row.
    pub(crate) fn of(entry: &Entry) -> Self {
        let key = entry.key();
        let hash = Sha256::new()
            .chain_update((key.len() as u32).to_be_bytes())
            .chain_update(&key)
            .chain_update(entry.stamp().to_be_bytes())
            .chain_update(entry.value())
            .finalize();
        let sum = hash.iter().take(16).fold(0, |sum, byte| sum << 8 | u128::from(*byte));
        Self { rows: 1, sum }
    }
}

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} rows, {:032x}", self.rows, self.sum)
    }
}
