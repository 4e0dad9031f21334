//! The hub of a shard: which connections read which channels, and how far each is.
//!
//! Per channel a ring of finished frames, per subscriber a cursor. The hub attaches to a channel
//! at its leader when the first subscriber comes and detaches some time after the last; it writes
//! each event once per form and gives every subscriber what it lacks as one slice. Who may read is
//! the leader's to say; that a removed member reads nothing after his removal is the hub's.
//!
//! It is fed and drained: answers and events go in by `handle_*`, requests come out of its
//! [`Uplink`], news for sessions out of [`Hub::poll_notice`], frames through [`Hub::flush`].

mod attach;
mod channel;
mod events;
mod flush;
mod form;
mod keep;
mod outlet;
mod peer;
mod ring;

use std::{
    collections::{HashMap, VecDeque},
    sync::Arc,
};

use chappe_protocol::{ChannelId, Event, Incarnation, PartitionId, Rev};
use chappe_uplink::{Caller, Generation, Refusal};
use slab::Slab;

#[cfg(test)]
pub(crate) use self::peer::Peer;
pub(crate) use self::{
    channel::{Attachment, Channel, Phase, Subscriber},
    form::Form,
    outlet::Sockets,
    peer::{Full, Peers},
};
use crate::{
    catch_up::{Pages, Reading},
    config::{Limits, Timing},
    uplink::Uplink,
};

/// The channels, connections and cursors of one shard.
#[derive(Debug)]
pub(crate) struct Hub {
    pub(crate) peers: Peers,
    pub(crate) uplink: Uplink,
    pub(crate) channels: Slab<Channel>,
    by_id: HashMap<ChannelId, u32>,
    joins: HashMap<u64, Join>,
    pub(crate) pages: Pages,
    /// Channels with events that were not flushed.
    dirty: Vec<u32>,
    /// Scratch of the flush: subscribers who are not simply offered what is new.
    left: Vec<u32>,
    /// Channels with a ring, in the order in which they are looked at for giving it up.
    rings: VecDeque<u32>,
    rings_bytes: usize,
    /// Channels that nobody reads, and when each is detached.
    idle: VecDeque<(u64, ChannelId)>,
    leading: HashMap<PartitionId, Generation>,
    incarnation: Option<Incarnation>,
    notices: VecDeque<Notice>,
    ring_bytes_max: usize,
    rings_bytes_max: usize,
    detach_ms: u64,
    ring_idle_ms: u64,
    rings_looked_at_ms: u64,
    pub(crate) now_ms: u64,
    delivered: u64,
}

/// A connection's wish to read a channel, which the leader was asked about.
#[derive(Debug)]
struct Join {
    peer: u32,
    channel: ChannelId,
    caller: Caller,
    from: Option<(Incarnation, Rev)>,
    purpose: Purpose,
    token: u64,
    tries: u8,
}

/// What a connection reads a channel for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Purpose {
    /// Its client asked; this operation replies.
    Asked(u64),
    /// Its client asked for all of the user's channels, and this one was added.
    Followed,
    /// The session follows its user's inbox; this operation waits for it.
    Inbox(u64),
}

/// Where a connection stands in a channel that it may read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Joined {
    /// Events follow after this revision.
    pub(crate) rev: Rev,
    /// The channel's last revision, as the leader gave it after the request.
    pub(crate) head: Rev,
    /// Events up to the head come first, and then `live`.
    pub(crate) catching_up: bool,
    /// The incarnation in force.
    pub(crate) incarnation: Incarnation,
}

/// News for a session.
#[derive(Debug)]
pub(crate) enum Notice {
    /// A wish to read was answered.
    Joined {
        /// Whose.
        peer: u32,
        /// What it was for.
        purpose: Purpose,
        /// The channel.
        channel: ChannelId,
        /// Whether it may.
        outcome: Result<Joined, Refusal>,
    },
    /// Something happened in the inbox of the session's user.
    Inbox {
        /// Whose session.
        peer: u32,
        /// What.
        event: Arc<Event>,
    },
    /// The inbox of the session's user cannot be followed any more.
    InboxLost {
        /// Whose session.
        peer: u32,
    },
    /// A channel can no longer be read, and its reader heard nothing of it from the channel.
    Ended {
        /// Whose reading.
        peer: u32,
        /// Why.
        refusal: Refusal,
    },
}

impl Hub {
    pub(crate) fn new(limits: &Limits, timing: &Timing) -> Self {
        Self {
            peers: Peers::new(limits.outbox_bytes),
            uplink: Uplink::default(),
            channels: Slab::new(),
            by_id: HashMap::new(),
            joins: HashMap::new(),
            pages: Pages::new(limits.pages_under_way),
            dirty: Vec::new(),
            left: Vec::new(),
            rings: VecDeque::new(),
            rings_bytes: 0,
            idle: VecDeque::new(),
            leading: HashMap::new(),
            incarnation: None,
            notices: VecDeque::new(),
            ring_bytes_max: limits.ring_bytes,
            rings_bytes_max: limits.rings_bytes,
            detach_ms: timing.detach_ms,
            ring_idle_ms: timing.ring_idle_ms,
            rings_looked_at_ms: 0,
            now_ms: 0,
            delivered: 0,
        }
    }

    /// What follows happens at this time.
    pub(crate) fn handle_time(&mut self, now_ms: u64) {
        self.now_ms = now_ms;
    }

    /// The next piece of news for a session.
    pub(crate) fn poll_notice(&mut self) -> Option<Notice> {
        self.notices.pop_front()
    }

    /// Takes the number of event deliveries since the last call.
    pub(crate) fn take_delivered(&mut self) -> u64 {
        std::mem::take(&mut self.delivered)
    }

    /// The incarnation of the newest leadership heard of.
    pub(crate) fn incarnation(&self) -> Option<Incarnation> {
        self.incarnation
    }

    /// Whether an answer about a channel comes from a leadership older than one already heard.
    pub(crate) fn refuses(&self, channel: ChannelId, generation: Generation) -> bool {
        self.find(channel).is_some_and(|index| self.channels[index].refuses(generation))
    }

    /// The last revision of a channel that a connection was given; for an inbox, the last one
    /// that its session was told.
    pub(crate) fn cursor(&self, peer: u32, channel: ChannelId) -> Rev {
        let Some(index) = self.find(channel) else { return Rev::ZERO };
        let entry = &self.channels[index];
        if entry.watchers.contains(&peer) {
            return entry.head;
        }
        self.slot(peer, index as u32).map_or(Rev::ZERO, |slot| entry.subscribers[slot].cursor)
    }

    /// The heads of the channels that a connection reads. Of one that it is catching up with, what
    /// it was given, and of one that this shard reads itself, what that has: that more is to come is
    /// known, and its client must not ask for it again.
    pub(crate) fn heads(&self, peer: u32) -> Vec<(ChannelId, Rev)> {
        let Some(entry) = self.peers.get(peer) else { return Vec::new() };
        let heads = entry.subscriptions.iter().map(|place| {
            let channel = &self.channels[place.channel as usize];
            let subscriber = channel.subscribers[place.slot as usize];
            let repairs = |reading: &Reading| reading.repairs(self.now_ms);
            let head = match subscriber.phase {
                Phase::Live if channel.reading.as_deref().is_some_and(repairs) => channel.head,
                Phase::Live => channel.known,
                Phase::Held { .. } | Phase::CatchingUp { .. } => subscriber.cursor,
            };
            (channel.id, head)
        });
        heads.collect()
    }

    /// A channel's index, if anything is known of it.
    pub(crate) fn index_of(&self, channel: ChannelId) -> Option<u32> {
        self.by_id.get(&channel).copied()
    }

    fn find(&self, channel: ChannelId) -> Option<usize> {
        self.by_id.get(&channel).map(|index| *index as usize)
    }

    /// A connection's place among a channel's subscribers.
    pub(crate) fn slot(&self, peer: u32, channel: u32) -> Option<usize> {
        let places = &self.peers.get(peer)?.subscriptions;
        places.iter().find(|place| place.channel == channel).map(|place| place.slot as usize)
    }

    /// Notes that a channel has events to flush.
    fn mark(&mut self, channel: u32) {
        let entry = &mut self.channels[channel as usize];
        if !std::mem::replace(&mut entry.dirty, true) {
            self.dirty.push(channel);
        }
    }
}
