//! What a session does when time passes: ping, notice silence, expiry and slowness.

use chappe_protocol::{CloseCode, ErrorCode};

use super::{Phase, Session};
use crate::desk::{Desk, Effect};

impl Session {
    /// When it wants to be looked at next.
    pub(crate) fn next_due_ms(&self, desk: &Desk) -> u64 {
        let timing = &desk.config.timing;
        let due_ms = match self.phase {
            _ if self.is_call() => u64::MAX,
            Phase::Fresh => self.since_ms + timing.hello_ms,
            Phase::SigningIn => u64::MAX,
            Phase::Closing(_) => self.since_ms + timing.linger_ms,
            Phase::Open => {
                let blocked_ms =
                    desk.hub.peers.get(self.peer).map_or(0, |peer| peer.blocked_since_ms);
                let slow_ms = if blocked_ms == 0 { u64::MAX } else { blocked_ms + timing.slow_ms };
                self.next_ping_ms.min(slow_ms).min(self.expiry_ms(desk))
            }
        };
        // The oldest operation is the first whose time is over: they all have the same.
        let oldest = self.operations.front().map_or(u64::MAX, |one| one.started_ms);
        due_ms.min(oldest.saturating_add(timing.command_ms))
    }

    /// Looks at what is due.
    pub(crate) fn handle_due(&mut self, desk: &mut Desk) {
        let now_ms = desk.now.boot_ms;
        let command_ms = desk.config.timing.command_ms;
        while let Some(oldest) = self.operations.front()
            && oldest.started_ms + command_ms <= now_ms
        {
            let serial = oldest.serial;
            self.handle_deadline(desk, serial);
        }
        match self.phase {
            _ if self.is_call() => {}
            Phase::Fresh if self.since_ms + desk.config.timing.hello_ms <= now_ms => {
                self.refuse_with(desk, None, ErrorCode::HelloTimeout);
            }
            Phase::Fresh | Phase::SigningIn => {}
            // The timer may still be one from before it was closed.
            Phase::Closing(_) if self.since_ms + desk.config.timing.linger_ms <= now_ms => {
                self.linger(desk);
            }
            Phase::Closing(_) => {}
            Phase::Open => self.look(desk),
        }
    }

    /// How long after its sign-in it is pinged first: connections that came together are not
    /// pinged together.
    pub(super) fn first_ping_ms(&self, desk: &Desk) -> u64 {
        let ping_ms = desk.config.timing.ping_ms;
        ping_ms / 2 + self.id.get() % (ping_ms / 2).max(1)
    }

    fn look(&mut self, desk: &mut Desk) {
        let timing = &desk.config.timing;
        let now_ms = desk.now.boot_ms;
        let since_ms = desk.hub.peers.get(self.peer).map_or(0, |peer| peer.blocked_since_ms);
        if since_ms != 0 && since_ms + timing.slow_ms <= now_ms {
            metrics::counter!("chappe_gateway_slow_consumers_total").increment(1);
            return self.refuse_with(desk, None, ErrorCode::SlowConsumer);
        }
        if self.heard_ms + timing.dead_after_ms <= now_ms {
            metrics::counter!("chappe_gateway_dead_total").increment(1);
            return desk.ask(Effect::Drop(self.peer));
        }
        if self.expiry_ms(desk) <= now_ms {
            return self.refuse_with(desk, None, ErrorCode::TokenExpired);
        }
        if self.next_ping_ms <= now_ms {
            self.next_ping_ms = now_ms + timing.ping_ms;
            if desk.hub.send_ping(self.peer, desk.now).is_err() {
                self.close(desk, CloseCode::Slow, None);
            }
        }
    }

    /// A closing connection that does not go gets a push, then none.
    fn linger(&mut self, desk: &mut Desk) {
        let linger_ms = desk.config.timing.linger_ms;
        if self.since_ms + 2 * linger_ms <= desk.now.boot_ms {
            desk.ask(Effect::Drop(self.peer));
        } else if let Some(code) = self.close_code() {
            desk.ask(Effect::Close(self.peer, code));
        }
    }

    /// When its token is over for good, on the clock of waiting.
    fn expiry_ms(&self, desk: &Desk) -> u64 {
        if self.expires_ms == 0 {
            return u64::MAX;
        }
        let end_ms = self.expires_ms + desk.config.timing.expiry_grace_ms;
        desk.now.boot_ms + end_ms.saturating_sub(desk.now.unix_ms)
    }
}
