//! How long a fact stays in its channel's tail: until it is projected, and until every read of the
//! store that began before that has ended. A read that began later finds it in the store.

use std::collections::VecDeque;

use chappe_protocol::{ChannelId, Rev};

/// Projected facts that a read under way may have missed.
#[derive(Debug, Default)]
pub(crate) struct Retained {
    facts: VecDeque<Projected>,
}

#[derive(Debug, Clone, Copy)]
pub(crate) struct Projected {
    /// Reads below this number began before.
    pub(crate) reads_below: u64,
    pub(crate) channel: ChannelId,
    pub(crate) up_to: Rev,
}

impl Retained {
    pub(crate) fn push(&mut self, projected: Projected) {
        self.facts.push_back(projected);
    }

    /// The next that no read needs, `oldest` being the oldest one under way.
    pub(crate) fn pop(&mut self, oldest: Option<u64>) -> Option<Projected> {
        let front = self.facts.front()?;
        if oldest.is_some_and(|oldest| oldest < front.reads_below) {
            return None;
        }
        self.facts.pop_front()
    }
}
