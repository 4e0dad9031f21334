//! The nonces of a channel's last ten minutes of leadership: which revision each one led to.
//!
//! A nonce costs some forty bytes: its hash and the revision. What the command was answered, and
//! whether it was the same command, stands in the event of that revision and is read there.

use std::collections::VecDeque;

use chappe_protocol::{
    Nonce, Rev, UserId,
    limits::{NONCE_BYTES_MAX, NONCE_WINDOW_MS},
};
use xxhash_rust::xxh3::xxh3_64_with_seed;

use crate::{
    config::Now,
    id_map::{IdMap, id_map},
    partition::Partition,
    slot::Slot,
};

/// Ticks are noted this far apart: a nonce is forgotten up to this much later than it may be.
const MARK_MS: u64 = 5_000;

pub(crate) struct Nonces {
    seed: u64,
    revs: IdMap<u64, Rev>,
    /// Nonces whose hash another one has: practically always empty, and never wrong.
    shared: Vec<(u64, Rev)>,
    order: VecDeque<(u64, Rev)>,
    /// From this revision on, ticks are at least this.
    marks: VecDeque<(Rev, u64)>,
}

impl Nonces {
    pub(crate) fn new(seed: u64) -> Self {
        Self {
            seed,
            revs: id_map(seed),
            shared: Vec::new(),
            order: VecDeque::new(),
            marks: VecDeque::new(),
        }
    }

    pub(crate) fn len(&self) -> usize {
        self.order.len()
    }

    /// The revisions that may have come from this nonce; their events tell.
    pub(crate) fn find(&self, user: UserId, nonce: &Nonce) -> impl Iterator<Item = Rev> {
        let hash = self.hash(user, nonce);
        let shared = self.shared.iter().filter(move |(h, _)| *h == hash).map(|(_, rev)| *rev);
        self.revs.get(&hash).copied().into_iter().chain(shared)
    }

    /// Notes a nonce. Revisions and ticks never go back.
    pub(crate) fn insert(&mut self, user: UserId, nonce: &Nonce, rev: Rev, tick: u64) {
        let hash = self.hash(user, nonce);
        if self.marks.back().is_none_or(|(_, marked)| *marked + MARK_MS <= tick) {
            self.marks.push_back((rev, tick));
        }
        self.order.push_back((hash, rev));
        if let Some(other) = self.revs.insert(hash, rev) {
            self.shared.push((hash, other));
        }
    }

    /// Forgets what is older than the window.
    pub(crate) fn expire(&mut self, tick: u64) {
        while let Some((_, marked)) = self.marks.front().copied() {
            // What stands under a mark is older than the next one, or than one would be.
            let next = self.marks.get(1).copied();
            let before = next.map_or(marked + MARK_MS, |(_, next)| next);
            if before + NONCE_WINDOW_MS >= tick {
                return;
            }
            self.marks.pop_front();
            while let Some((hash, rev)) = self.order.front().copied() {
                if next.is_some_and(|(from, _)| rev >= from) {
                    break;
                }
                self.order.pop_front();
                self.forget(hash, rev);
            }
        }
    }

    fn forget(&mut self, hash: u64, rev: Rev) {
        if self.revs.get(&hash) == Some(&rev) {
            self.revs.remove(&hash);
        } else {
            self.shared.retain(|shared| *shared != (hash, rev));
        }
    }

    fn hash(&self, user: UserId, nonce: &Nonce) -> u64 {
        let mut bytes = [0; 8 + NONCE_BYTES_MAX];
        bytes[..8].copy_from_slice(&user.get().to_le_bytes());
        let end = 8 + nonce.len();
        bytes[8..end].copy_from_slice(nonce.as_bytes());
        xxh3_64_with_seed(&bytes[..end], self.seed)
    }
}

impl Partition {
    /// Forgets old nonces of all channels, where there are too many to go on: no fact does it.
    pub(crate) fn make_room_for_nonces(&mut self, now: Now) {
        if self.nonces < self.config.bounds.nonces_max || !self.leads() {
            return;
        }
        let tick = self.lead.tick(now);
        self.nonces = 0;
        for state in self.slots.values_mut().filter_map(Slot::known_mut) {
            state.nonces.expire(tick);
            self.nonces += state.nonces.len();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn nonce(text: &str) -> Nonce {
        Nonce::parse(text).unwrap()
    }

    #[test]
    fn a_nonce_is_its_users() {
        let mut nonces = Nonces::new(7);
        nonces.insert(UserId::new(1), &nonce("a"), Rev::new(5), 0);
        assert_eq!(nonces.find(UserId::new(1), &nonce("a")).collect::<Vec<_>>(), [Rev::new(5)]);
        assert_eq!(nonces.find(UserId::new(2), &nonce("a")).count(), 0);
    }

    #[test]
    fn a_nonce_is_kept_for_the_window_and_forgotten_soon_after() {
        let mut nonces = Nonces::new(7);
        let user = UserId::new(1);
        for i in 0..2_000 {
            nonces.insert(user, &nonce(&format!("n{i}")), Rev::new(i + 1), i * 1_000);
            nonces.expire(i * 1_000);
        }
        let kept = |i: u64| nonces.find(user, &nonce(&format!("n{i}"))).next().is_some();
        assert!(kept(1_999) && kept(1_999 - 600));
        assert!(!kept(1_999 - 600 - 2 * MARK_MS / 1_000));
        assert!(nonces.len() <= 612 && nonces.revs.len() == nonces.len());
    }
}
