//! A file on the simulated disk: what is seen of it, and what a crash leaves.

use std::collections::BTreeMap;

use super::random::Random;

const SECTOR: usize = 512;

/// A file's bytes.
#[derive(Clone, Default)]
pub(super) struct Content {
    pub(super) seen: Vec<u8>,
    durable: Vec<u8>,
    /// Sectors written since the last sync, with everything that they held in between.
    dirty: BTreeMap<usize, Vec<Vec<u8>>>,
    is_length_durable: bool,
}

impl Content {
    /// A file of zeros, whose length is not durable yet.
    pub(super) fn zeros(bytes: usize) -> Self {
        Self { seen: vec![0; bytes], ..Self::default() }
    }

    /// A file whose bytes are durable.
    pub(super) fn durable(bytes: Vec<u8>) -> Self {
        Self {
            seen: bytes.clone(),
            durable: bytes,
            dirty: BTreeMap::new(),
            is_length_durable: true,
        }
    }

    pub(super) fn write(&mut self, bytes: &[u8], position: usize) {
        let end = position + bytes.len();
        assert!(end <= self.seen.len(), "a write beyond the length that was set");
        if bytes.is_empty() {
            return;
        }
        self.seen[position..end].copy_from_slice(bytes);
        for sector in position / SECTOR..=(end - 1) / SECTOR {
            let now = sector_of(&self.seen, sector).to_vec();
            self.dirty.entry(sector).or_default().push(now);
        }
    }

    pub(super) fn sync(&mut self) {
        self.durable.resize(self.seen.len(), 0);
        self.is_length_durable = true;
        for (sector, versions) in std::mem::take(&mut self.dirty) {
            put_sector(&mut self.durable, sector, &versions[versions.len() - 1]);
        }
    }

    /// A sync that fails: some of it becomes durable, and all of it counts as clean.
    pub(super) fn sync_badly(&mut self, random: &mut Random) {
        self.durable.resize(self.seen.len(), 0);
        for (sector, versions) in std::mem::take(&mut self.dirty) {
            if random.below(2) == 0 {
                put_sector(&mut self.durable, sector, &versions[versions.len() - 1]);
            }
        }
    }

    /// The file after a crash.
    pub(super) fn found(&self, survives: &mut impl FnMut(()) -> bool) -> Self {
        let mut found = self.durable.clone();
        if self.is_length_durable || survives(()) {
            found.resize(self.seen.len(), 0);
        }
        for (sector, versions) in &self.dirty {
            let survivor = versions.iter().rev().find(|_| survives(()));
            if let Some(version) = survivor.filter(|_| sector * SECTOR < found.len()) {
                put_sector(&mut found, *sector, version);
            }
        }
        Self::durable(found)
    }
}

fn sector_of(bytes: &[u8], sector: usize) -> &[u8] {
    &bytes[sector * SECTOR..bytes.len().min((sector + 1) * SECTOR)]
}

fn put_sector(bytes: &mut [u8], sector: usize, content: &[u8]) {
    bytes[sector * SECTOR..][..content.len()].copy_from_slice(content);
}
