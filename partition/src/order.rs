//! The order of a session's commands for a channel, across retries.
//!
//! After `retry` to one command the session's later ones, already on their way, must not overtake
//! it: they are refused until the gateway resends from it with a higher attempt. A session that
//! never had a retry costs nothing here.

use chappe_protocol::{ChannelId, SessionId, limits::NONCE_WINDOW_MS};

use crate::id_map::{IdMap, id_map};

pub(crate) struct Order {
    sessions: IdMap<(SessionId, ChannelId), Attempts>,
}

#[derive(Debug, Clone, Copy)]
struct Attempts {
    /// Lower ones are refused.
    attempt: u32,
    /// So is this one.
    stopped: bool,
    used_ms: u64,
}

impl Order {
    pub(crate) fn new(seed: u64) -> Self {
        Self { sessions: id_map(seed) }
    }

    /// Whether a command of this attempt may be decided.
    pub(crate) fn admits(
        &mut self,
        session: SessionId,
        channel: ChannelId,
        attempt: u32,
        now_ms: u64,
    ) -> bool {
        if self.sessions.is_empty() && attempt == 0 {
            return true;
        }
        let Some(attempts) = self.sessions.get_mut(&(session, channel)) else {
            // Remembered, so that what an earlier pipe still holds is refused.
            if attempt > 0 {
                let attempts = Attempts { attempt, stopped: false, used_ms: now_ms };
                self.sessions.insert((session, channel), attempts);
            }
            return true;
        };
        attempts.used_ms = now_ms;
        if attempt > attempts.attempt {
            *attempts = Attempts { attempt, stopped: false, used_ms: now_ms };
        }
        attempt == attempts.attempt && !attempts.stopped
    }

    /// A command was answered `retry`.
    pub(crate) fn stop(
        &mut self,
        session: SessionId,
        channel: ChannelId,
        attempt: u32,
        now_ms: u64,
    ) {
        let new = Attempts { attempt, stopped: true, used_ms: now_ms };
        let attempts = self.sessions.entry((session, channel)).or_insert(new);
        attempts.used_ms = now_ms;
        if attempt >= attempts.attempt {
            *attempts = new;
        }
    }

    /// Forgets sessions whose nonces are forgotten too.
    pub(crate) fn expire(&mut self, now_ms: u64) {
        self.sessions.retain(|_, attempts| attempts.used_ms + NONCE_WINDOW_MS > now_ms);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn after_a_retry_only_a_higher_attempt_goes_on() {
        let mut order = Order::new(1);
        let (session, channel) = (SessionId::new(1), ChannelId::new(2));
        assert!(order.admits(session, channel, 0, 0));
        order.stop(session, channel, 0, 0);
        assert!(!order.admits(session, channel, 0, 1));
        assert!(order.admits(session, channel, 1, 2));
        assert!(!order.admits(session, channel, 0, 3), "a lower attempt is late");
        assert!(order.admits(session, channel, 1, 4));
    }

    #[test]
    fn a_retry_of_an_older_attempt_does_not_stop_the_newer() {
        let mut order = Order::new(1);
        let (session, channel) = (SessionId::new(1), ChannelId::new(2));
        assert!(order.admits(session, channel, 2, 0));
        order.stop(session, channel, 1, 0);
        assert!(order.admits(session, channel, 2, 0));
    }

    #[test]
    fn sessions_and_channels_do_not_stop_each_other() {
        let mut order = Order::new(1);
        order.stop(SessionId::new(1), ChannelId::new(2), 0, 0);
        assert!(order.admits(SessionId::new(1), ChannelId::new(3), 0, 0));
        assert!(order.admits(SessionId::new(2), ChannelId::new(2), 0, 0));
    }
}
