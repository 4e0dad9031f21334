//! Requests as they come: who may wait, where, and for how long.

use chappe_protocol::{ChannelId, ErrorCode};
use chappe_uplink::{Refusal, Request};

use crate::{
    action::PipeId,
    answers::Out,
    config::Now,
    partition::{Partition, Phase},
    slot::{State, Waiting},
};

impl Partition {
    /// Takes a request from a pipe. Its answer, if it has one, is a [`crate::Action::Respond`].
    pub fn handle_request(&mut self, now: Now, pipe: PipeId, request: Request) {
        let waiting = Waiting { pipe, since_ms: now.boot_ms, request };
        if self.waits_in_vain() {
            return self.turn_away(now, waiting);
        }
        let behind = self.answers.waiting().saturating_sub(self.flight.len());
        let waits = self.ready.len() + self.parked + behind;
        if waits >= self.config.bounds.waiting_max
            && let Some(to) = waiting.to()
        {
            let refusal = Refusal::new(ErrorCode::Overloaded).retry_after(OVERLOADED_MS);
            return self.respond(to, Err(refusal));
        }
        self.ready.push_back(waiting);
        self.proceed(now);
    }

    /// A pipe has ended: nobody hears anything on it, and nobody waits for its answers.
    pub fn handle_pipe_closed(&mut self, pipe: PipeId) {
        for slot in self.slots.values_mut() {
            slot.pipes.retain(|other| *other != pipe);
            let before = slot.waiting.len();
            slot.waiting.retain(|waiting| waiting.pipe != pipe);
            self.parked -= before - slot.waiting.len();
        }
        self.ready.retain(|waiting| waiting.pipe != pipe);
        self.forget_attaching(pipe);
    }

    /// Takes up requests until one has to be appended first, and lets out what may leave.
    pub(crate) fn proceed(&mut self, now: Now) {
        while self.offered.is_none()
            && self.shows()
            && let Some(waiting) = self.ready.pop_front()
        {
            self.take_up(now, waiting);
        }
        self.release(now);
    }

    fn take_up(&mut self, now: Now, waiting: Waiting) {
        match &waiting.request {
            Request::Command(_) => self.take_command(now, waiting),
            Request::Attach(_) => self.take_attach(now, waiting),
            Request::Detach(detach) => self.push(Out::Detach(waiting.pipe, detach.channel)),
            Request::Read(_) => self.take_read(now, waiting),
            Request::Signal(_) => self.take_signal(now, waiting),
        }
    }

    /// The channel's state if it is loaded; else the request waits for it and none is given back.
    pub(crate) fn when_known(
        &mut self,
        now: Now,
        channel: ChannelId,
        waiting: Waiting,
    ) -> Option<Waiting> {
        let slot = self.slot(channel, now.boot_ms);
        match slot.state {
            State::Known(_) => Some(waiting),
            State::Loading(_) => {
                slot.waiting.push_back(waiting);
                self.parked += 1;
                None
            }
            State::Unknown => {
                slot.waiting.push_back(waiting);
                self.parked += 1;
                self.load(now, channel);
                None
            }
        }
    }

    /// Answers everything that waits to be taken up: it will not be.
    pub(crate) fn drain_ready(&mut self, now: Now) {
        for waiting in std::mem::take(&mut self.ready) {
            self.turn_away(now, waiting);
        }
    }

    /// Gives back what waits in slots, in no channel's disfavour: it is asked again elsewhere.
    pub(crate) fn drain_slots(&mut self, now: Now) {
        let mut waiting = Vec::new();
        for slot in self.slots.values_mut() {
            waiting.extend(slot.waiting.drain(..));
            waiting.extend(slot.parked.drain(..).flat_map(|parked| parked.commands));
        }
        self.parked = 0;
        for waiting in waiting {
            self.turn_away(now, waiting);
        }
    }

    /// Answers `retry` to what waited too long.
    pub(crate) fn expire_waiting(&mut self, now: Now) {
        self.expire_held(now);
        let waiting_ms = self.config.bounds.waiting_ms;
        while let Some(front) = self.ready.front()
            && front.since_ms + waiting_ms <= now.boot_ms
            && let Some(waiting) = self.ready.pop_front()
        {
            self.turn_away(now, waiting);
        }
        if self.parked == 0 || now.boot_ms < self.parked_at_ms {
            return;
        }
        self.parked_at_ms = now.boot_ms + PARKED_CHECK_MS;
        let late = |waiting: &Waiting| waiting.since_ms + waiting_ms <= now.boot_ms;
        let mut expired = Vec::new();
        for slot in self.slots.values_mut() {
            while slot.waiting.front().is_some_and(late) {
                expired.extend(slot.waiting.pop_front());
            }
            for parked in &mut slot.parked {
                while parked.commands.front().is_some_and(late) {
                    expired.extend(parked.commands.pop_front());
                }
            }
        }
        self.parked -= expired.len();
        for waiting in expired {
            self.turn_away(now, waiting);
        }
    }

    /// When something may have waited too long.
    pub(crate) fn waiting_due(&self) -> Option<u64> {
        let waiting_ms = self.config.bounds.waiting_ms;
        let ready = self.ready.front().map(|waiting| waiting.since_ms + waiting_ms);
        let parked = (self.parked > 0).then_some(self.parked_at_ms);
        [ready, self.answers.due(), parked].into_iter().flatten().min()
    }

    /// Whether a request that comes now cannot be taken up soon.
    const fn waits_in_vain(&self) -> bool {
        matches!(self.phase, Phase::Idle | Phase::Halted(_))
            || (matches!(self.phase, Phase::Deposed { .. })
                && !matches!(self.config.leadership, crate::config::Leadership::Lock))
    }

    pub(crate) fn turn_away(&mut self, now: Now, waiting: Waiting) {
        let Some(to) = waiting.to() else { return };
        match self.phase {
            // No other broker could do better: the client hears of it.
            Phase::Halted(_) => {
                let refusal = Refusal::new(ErrorCode::Unavailable).because("its partition stopped");
                self.respond(to, Err(refusal));
            }
            _ => self.retry(now, to, Refusal::resend()),
        }
    }
}

/// What an overloaded partition tells to wait.
const OVERLOADED_MS: u64 = 100;
/// Looking for what waited too long in slots costs a walk through all of them.
const PARKED_CHECK_MS: u64 = 500;
