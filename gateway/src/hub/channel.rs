//! A channel as a shard knows it: how far it is heard, who reads it, and its ring.

use std::sync::Arc;

use chappe_protocol::{ChannelId, Event, Rev};
use chappe_uplink::Generation;

use crate::catch_up::Reading;

use super::{form::Form, ring::Ring};

/// One channel. Small when it is quiet: each signed-in connection has one, its user's inbox.
#[derive(Debug)]
pub(crate) struct Channel {
    pub(crate) id: ChannelId,
    /// Of the newest leadership that it was heard from.
    pub(crate) generation: Option<Generation>,
    /// The last revision that was taken.
    pub(crate) head: Rev,
    /// The highest revision that was heard of: above `head` something was lost on the way.
    pub(crate) known: Rev,
    pub(crate) attachment: Attachment,
    pub(crate) ring: Option<Box<Ring>>,
    pub(crate) subscribers: Vec<Subscriber>,
    /// Sessions that follow it for themselves: an inbox's.
    pub(crate) watchers: Vec<u32>,
    /// How many subscribers have each form.
    forms: [u32; Form::COUNT],
    /// Users whose reading ends at a revision.
    pub(crate) ends: Vec<(u32, Rev)>,
    pub(crate) reading: Option<Box<Reading>>,
    /// Connections that the leader was asked about.
    pub(crate) joins: u32,
    /// Since when nobody needs it; 0 while someone does.
    pub(crate) idle_since_ms: u64,
    /// Bytes that entered the ring since it was flushed.
    pub(super) unflushed: u32,
    pub(super) dirty: bool,
    /// The ring was used since it was last looked at for giving it up.
    pub(super) ring_used: bool,
}

/// Whether the leader tells this shard's pipe of the channel.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Attachment {
    /// No.
    None,
    /// It was asked again, for those who read already; the token of that request.
    Asked(u64),
    /// Yes.
    Attached,
}

/// A connection's place in a channel: 16 bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Subscriber {
    /// The last revision that it was given.
    pub(crate) cursor: Rev,
    pub(crate) peer: u32,
    pub(crate) phase: Phase,
}

/// What a subscriber waits for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Phase {
    /// For the reply to its `subscribe`, which comes first.
    Held {
        /// A `reset` goes before the events.
        reset: bool,
        /// The reply promises a `live`.
        announced: bool,
    },
    /// For the next event.
    Live,
    /// For events that it has missed.
    CatchingUp {
        /// Its client was promised a `live`.
        announced: bool,
        /// The leader is asked for them.
        asked: bool,
    },
}

impl Channel {
    pub(crate) fn new(id: ChannelId) -> Self {
        Self {
            id,
            generation: None,
            head: Rev::ZERO,
            known: Rev::ZERO,
            attachment: Attachment::None,
            ring: None,
            subscribers: Vec::new(),
            watchers: Vec::new(),
            forms: [0; Form::COUNT],
            ends: Vec::new(),
            reading: None,
            joins: 0,
            idle_since_ms: 0,
            unflushed: 0,
            dirty: false,
            ring_used: false,
        }
    }

    /// Someone reads it or asks to.
    pub(crate) fn is_needed(&self) -> bool {
        !self.subscribers.is_empty() || !self.watchers.is_empty() || self.joins > 0
    }

    /// Someone hears of it already.
    pub(crate) fn has_readers(&self) -> bool {
        !self.subscribers.is_empty() || !self.watchers.is_empty()
    }

    /// What comes from this leadership is too old to be believed.
    pub(crate) fn refuses(&self, generation: Generation) -> bool {
        self.generation.is_some_and(|newest| generation < newest)
    }

    /// The reading of `peer` ends here, if anywhere.
    pub(crate) fn end_of(&self, peer: u32) -> Option<Rev> {
        self.ends.iter().find(|(of, _)| *of == peer).map(|(_, rev)| *rev)
    }

    /// The revision after which the ring has everything.
    pub(crate) fn ring_base(&self) -> Rev {
        self.ring.as_ref().map_or(self.head, |ring| ring.base())
    }

    /// Takes the next event, into the ring too if anyone reads that.
    pub(super) fn push(&mut self, event: &Arc<Event>, ring_bytes: usize, scratch: &mut Vec<u8>) {
        assert_eq!(event.rev, self.head.next(), "events enter in order");
        self.head = event.rev;
        self.known = self.known.max(event.rev);
        if self.subscribers.is_empty() {
            return;
        }
        let base = Rev::new(event.rev.get() - 1);
        let ring = self.ring.get_or_insert_with(|| {
            let mut ring = Box::new(Ring::new(base, ring_bytes));
            for form in self.forms.iter().enumerate().filter(|(_, count)| **count > 0) {
                ring.keep(Form::at(form.0), scratch);
            }
            ring
        });
        let before = ring.entered();
        ring.push(Arc::clone(event), scratch);
        self.unflushed = self.unflushed.saturating_add((ring.entered() - before) as u32);
        self.ring_used = true;
    }

    /// Goes on at another revision: nothing before it can be had any more.
    pub(super) fn rebase(&mut self, head: Rev) {
        self.head = head;
        self.known = head;
        self.ring = None;
        self.unflushed = 0;
    }

    pub(super) fn add(&mut self, subscriber: Subscriber, form: Form, scratch: &mut Vec<u8>) -> u32 {
        self.forms[form.index()] += 1;
        if let Some(ring) = &mut self.ring {
            ring.keep(form, scratch);
        }
        self.subscribers.push(subscriber);
        (self.subscribers.len() - 1) as u32
    }

    /// Takes a subscriber out. The last one takes its place; returns that one's connection.
    pub(super) fn take_out(&mut self, slot: u32, form: Form) -> Option<u32> {
        let gone = self.subscribers.swap_remove(slot as usize);
        self.forms[form.index()] -= 1;
        if self.forms[form.index()] == 0
            && let Some(ring) = &mut self.ring
        {
            ring.give_up(form);
        }
        if self.subscribers.is_empty() {
            self.ring = None;
            self.subscribers = Vec::new();
        }
        self.ends.retain(|(peer, _)| *peer != gone.peer);
        if let Some(reading) = &mut self.reading {
            reading.forget(gone.peer);
        }
        self.subscribers.get(slot as usize).map(|moved| moved.peer)
    }
}
