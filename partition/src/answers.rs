//! What leaves a partition, in the order in which it was decided, and not before what it rests on.
//!
//! Everything that anyone hears (replies, refusals, pages, events) stands in one queue, with the
//! number of the last record that was decided when it entered. It leaves once that record is
//! confirmed. What claims to be the present state needs a live lease besides, and waits aside for
//! one; a reply to a confirmed fact and its event need none.

use std::{collections::VecDeque, sync::Arc};

use chappe_protocol::{ChannelId, ErrorCode, Event, Rev, reply::Change};
use chappe_uplink::{Answer, Attached, Refusal, Response, SignalTo};

use crate::{
    action::{Action, PipeId},
    config::Now,
    partition::Partition,
    slot::To,
};

#[derive(Default)]
pub(crate) struct Answers {
    queue: VecDeque<Queued>,
    /// What wants a live lease, with the time at which it is answered `retry` instead.
    held: VecDeque<(u64, Out)>,
}

struct Queued {
    rests_on: u64,
    out: Out,
}

/// Something that leaves.
pub(crate) enum Out {
    /// A fact is confirmed: its event, and the reply to who asked for it.
    Fact { channel: ChannelId, rev: Rev, event: Option<Arc<Event>>, to: Option<(To, Change)> },
    /// A reply to a fact that was confirmed before.
    Again(To, Change),
    /// An answer that shows the present state.
    Answer(To, Result<Box<Answer>, Refusal>),
    /// The same; from here on the pipe hears the channel.
    Attached(To, ChannelId, Attached),
    /// The pipe hears the channel no longer.
    Detach(PipeId, ChannelId),
    /// Something ephemeral for those who hear the channel.
    Signal(SignalTo),
}

impl Answers {
    pub(crate) fn is_empty(&self) -> bool {
        self.queue.is_empty() && self.held.is_empty()
    }

    /// How many answers wait, those to facts in flight included.
    pub(crate) fn waiting(&self) -> usize {
        self.queue.len() + self.held.len()
    }

    /// Whether what this ends is held itself: it must not overtake it.
    fn waits_aside(&self, out: &Out) -> bool {
        let Out::Detach(pipe, channel) = out else { return false };
        self.held.iter().any(|(_, held)| {
            matches!(held, Out::Attached(to, of, _) if to.pipe == *pipe && of == channel)
        })
    }

    /// When the first of them is answered `retry`.
    pub(crate) fn due(&self) -> Option<u64> {
        self.held.front().map(|(deadline, _)| *deadline)
    }
}

impl Partition {
    /// Queues something that rests on all that was decided so far.
    pub(crate) fn push(&mut self, out: Out) {
        self.answers.queue.push_back(Queued { rests_on: self.lead.n, out });
    }

    /// Queues an answer. A `retry` says nothing of any state and leaves at once.
    pub(crate) fn answer(&mut self, now: Now, to: To, result: Result<Answer, Refusal>) {
        match result {
            Err(refusal) if refusal.resend => self.retry(now, to, refusal),
            result => self.push(Out::Answer(to, result.map(Box::new))),
        }
    }

    /// Answers that the gateway is to resend.
    pub(crate) fn retry(&mut self, now: Now, to: To, refusal: Refusal) {
        self.tally.given_back += 1;
        if let Some(ticket) = to.ticket {
            self.order.stop(ticket.session, ticket.channel, ticket.attempt, now.boot_ms);
        }
        self.respond(to, Err(refusal));
    }

    /// Sends an answer now.
    pub(crate) fn respond(&mut self, to: To, result: Result<Box<Answer>, Refusal>) {
        let generation = self.lead.generation;
        let response = Response::Answer { token: to.token, generation, result };
        self.actions.push_back(Action::Respond { pipe: to.pipe, response });
    }

    /// Lets out what rests on confirmed records.
    pub(crate) fn release(&mut self, now: Now) {
        if !self.shows() || !self.lease.speaks(now) {
            return;
        }
        if !self.answers.held.is_empty() && self.lease.live(now) {
            for (_, out) in std::mem::take(&mut self.answers.held) {
                self.let_out(out);
            }
        }
        while let Some(front) = self.answers.queue.front()
            && front.rests_on <= self.flight.confirmed_n
            && let Some(Queued { out, .. }) = self.answers.queue.pop_front()
        {
            if self.answers.waits_aside(&out) || (needs_lease(&out) && !self.lease.live(now)) {
                self.tally.suspended += 1;
                let deadline = now.boot_ms + self.config.bounds.waiting_ms;
                self.answers.held.push_back((deadline, out));
            } else {
                self.let_out(out);
            }
        }
    }

    /// Answers `retry` to what waited too long for a lease.
    pub(crate) fn expire_held(&mut self, now: Now) {
        while let Some((deadline, _)) = self.answers.held.front()
            && *deadline <= now.boot_ms
            && let Some((_, out)) = self.answers.held.pop_front()
        {
            self.take_back(now, out);
        }
    }

    /// A pipe has ended: it will not hear what it was about to be attached to.
    pub(crate) fn forget_attaching(&mut self, pipe: PipeId) {
        let slots = &mut self.slots;
        let mut keep = |out: &Out| match out {
            Out::Attached(to, channel, _) if to.pipe == pipe => {
                if let Some(slot) = slots.get_mut(channel) {
                    slot.attaching -= 1;
                }
                false
            }
            _ => true,
        };
        self.answers.queue.retain(|queued| keep(&queued.out));
        self.answers.held.retain(|(_, out)| keep(out));
    }

    /// Leadership ended: what has not left will not. A command whose record is on its way may or
    /// may not have happened; everything else is asked again elsewhere.
    pub(crate) fn drop_answers(&mut self, now: Now) {
        let answers = std::mem::take(&mut self.answers);
        let held = answers.held.into_iter().map(|(_, out)| out);
        for out in held.chain(answers.queue.into_iter().map(|queued| queued.out)) {
            self.take_back(now, out);
        }
    }

    fn take_back(&mut self, now: Now, out: Out) {
        match out {
            Out::Fact { to: Some((to, _)), .. } => {
                let unknown = Refusal { code: ErrorCode::Unknown, ..Refusal::resend() };
                self.retry(now, to, unknown);
            }
            Out::Again(to, _) | Out::Answer(to, _) => self.retry(now, to, Refusal::resend()),
            Out::Attached(to, channel, _) => {
                if let Some(slot) = self.slots.get_mut(&channel) {
                    slot.attaching -= 1;
                }
                self.retry(now, to, Refusal::resend());
            }
            Out::Detach(pipe, channel) => self.detach(pipe, channel),
            Out::Fact { to: None, .. } | Out::Signal(_) => {}
        }
    }

    fn let_out(&mut self, out: Out) {
        match out {
            Out::Fact { channel, rev, event, to } => {
                self.tell(channel, rev, event);
                if let Some((to, change)) = to {
                    self.respond(to, Ok(Box::new(Answer::Change(change))));
                }
            }
            Out::Again(to, change) => self.respond(to, Ok(Box::new(Answer::Change(change)))),
            Out::Answer(to, result) => self.respond(to, result),
            Out::Attached(to, channel, attached) => self.let_in(to, channel, attached),
            Out::Detach(pipe, channel) => self.detach(pipe, channel),
            Out::Signal(signal) => {
                let pipes = self.slots.get(&signal.channel).map_or(&[][..], |slot| &slot.pipes);
                for pipe in pipes {
                    let response = Response::Signal(signal.clone());
                    self.actions.push_back(Action::Respond { pipe: *pipe, response });
                }
            }
        }
    }

    fn let_in(&mut self, to: To, channel: ChannelId, attached: Attached) {
        let Some(slot) = self.slots.get_mut(&channel) else { return };
        slot.attaching -= 1;
        if slot.told > attached.head {
            // What was told while this waited for a lease may have taken the right to read.
            return self.respond(to, Err(Refusal::resend()));
        }
        if !slot.pipes.contains(&to.pipe) {
            slot.pipes.push(to.pipe);
        }
        self.heard = true;
        self.respond(to, Ok(Box::new(Answer::Attached(attached))));
    }

    fn tell(&mut self, channel: ChannelId, rev: Rev, event: Option<Arc<Event>>) {
        let Some(slot) = self.slots.get_mut(&channel) else { return };
        slot.told = slot.told.max(rev);
        let Some(event) = event else { return };
        let generation = self.lead.generation;
        for pipe in &slot.pipes {
            let response = Response::Event { generation, event: Arc::clone(&event) };
            self.actions.push_back(Action::Respond { pipe: *pipe, response });
        }
    }

    fn detach(&mut self, pipe: PipeId, channel: ChannelId) {
        if let Some(slot) = self.slots.get_mut(&channel) {
            slot.pipes.retain(|other| *other != pipe);
        }
    }
}

const fn needs_lease(out: &Out) -> bool {
    matches!(out, Out::Answer(..) | Out::Attached(..) | Out::Signal(_))
}
