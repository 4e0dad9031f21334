//! Draining: connections are closed one after another over the time that a stop may take, each
//! with its own moment to come back.

use super::Shard;
use chappe_protocol::CloseCode;

impl Shard {
    /// Begins to close everything, evenly until `over_ms` from now.
    pub(crate) fn drain(&mut self, over_ms: u64) {
        let now_ms = self.desk.now.boot_ms;
        let count = self.sessions.len().max(1) as u64;
        let peers = self.sessions.iter().filter(|(_, session)| !session.is_call());
        let moments = peers
            .enumerate()
            .map(|(place, (peer, _))| (now_ms + over_ms * (place as u64 + 1) / count, peer as u32));
        let mut left: Vec<_> = moments.collect();
        left.reverse();
        self.draining = Some(left);
        self.close_drained();
    }

    /// Whether it drained and nobody is left.
    pub(crate) fn is_drained(&self) -> bool {
        self.draining.is_some() && self.sessions.is_empty()
    }

    /// Closes those whose moment has come.
    pub(super) fn close_drained(&mut self) {
        let now_ms = self.desk.now.boot_ms;
        let Some(left) = &mut self.draining else { return };
        while let Some((_, peer)) = left.pop_if(|(at_ms, _)| *at_ms <= now_ms) {
            if let Some(session) = self.sessions.get_mut(peer as usize) {
                // Spread, so that those who were closed together do not come back together.
                let back_ms = RECONNECT_MS + session.number() % RECONNECT_SPREAD_MS;
                session.close(&mut self.desk, CloseCode::Drain, Some(back_ms));
                let due_ms = session.next_due_ms(&self.desk);
                self.wheel.arm(peer, due_ms);
            }
        }
    }
}

/// A client comes back after this time at the earliest: another gateway is ready by then.
const RECONNECT_MS: u64 = 100;
const RECONNECT_SPREAD_MS: u64 = 2_000;
