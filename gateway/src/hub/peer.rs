//! What the hub knows of a connection: its way out and what it reads.

use chappe_protocol::UserId;
use serde::Serialize;
use slab::Slab;

use crate::link::Lane;

use super::{
    form::Form,
    outlet::{Outlet, Pool, Sockets},
};

/// One connection.
#[derive(Debug)]
pub(crate) struct Peer {
    pub(crate) outlet: Outlet,
    /// Who it is; nobody before the sign-in.
    pub(crate) user: Option<UserId>,
    /// Its places in the channels that it reads.
    pub(crate) subscriptions: Vec<Subscription>,
    /// The channel of its user's inbox, once that is watched.
    pub(crate) inbox: Option<u32>,
    /// Subscriptions that the leader was asked about, the session's own inbox included.
    pub(crate) joins: u32,
    /// One of them is for the session's own inbox.
    pub(crate) inbox_awaited: bool,
    /// Since when a lane of it is blocked; 0 if none is.
    pub(crate) blocked_since_ms: u64,
    /// Some of its events wait in a ring although its lane is free by now.
    pub(crate) lagging: bool,
    dirty: bool,
}

/// A connection's place in a channel.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Subscription {
    pub(crate) channel: u32,
    pub(crate) slot: u32,
}

/// What the fan-out has to know of a connection, four bytes of it: a thousand of them stay in the
/// processor's first cache.
#[derive(Debug, Clone, Copy)]
pub(super) struct Hot {
    /// In how many of the channels of this flush it has a place.
    pub(super) gathered: u16,
    pub(super) form: Form,
    /// Nothing waits for it, nothing is blocked, and everything goes over one lane: what is new
    /// may be offered to its link at once.
    pub(super) free: bool,
}

/// The connection has as much waiting as it may.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Full;

/// All connections of a shard, by their index, and the buffers that they share.
#[derive(Debug)]
pub(crate) struct Peers {
    table: Slab<Peer>,
    /// By the same index.
    pub(super) hot: Vec<Hot>,
    /// Those for which something was queued since the last flush.
    pub(super) dirty: Vec<u32>,
    /// Those with a lane that was free before the last flush and is not now.
    newly_blocked: Vec<u32>,
    pub(super) pool: Pool,
    pub(super) payload: Vec<u8>,
    outbox_bytes: usize,
}

impl Peers {
    pub(crate) fn new(outbox_bytes: usize) -> Self {
        Self {
            table: Slab::new(),
            hot: Vec::new(),
            dirty: Vec::new(),
            newly_blocked: Vec::new(),
            pool: Pool::default(),
            payload: Vec::new(),
            outbox_bytes,
        }
    }

    pub(crate) fn insert(&mut self, form: Form, channel_lanes: u8) -> u32 {
        let peer = Peer {
            outlet: Outlet::new(form, channel_lanes),
            user: None,
            subscriptions: Vec::new(),
            inbox: None,
            joins: 0,
            inbox_awaited: false,
            blocked_since_ms: 0,
            lagging: false,
            dirty: false,
        };
        let index = self.table.insert(peer);
        let hot = Hot { gathered: 0, form, free: channel_lanes <= 1 };
        if index == self.hot.len() {
            self.hot.push(hot);
        } else {
            self.hot[index] = hot;
        }
        index as u32
    }

    pub(crate) fn remove(&mut self, peer: u32) {
        let mut gone = self.table.remove(peer as usize);
        gone.outlet.clear(&mut self.pool);
        self.dirty.retain(|dirty| *dirty != peer);
        self.newly_blocked.retain(|blocked| *blocked != peer);
    }

    pub(crate) fn get(&self, peer: u32) -> Option<&Peer> {
        self.table.get(peer as usize)
    }

    pub(crate) fn get_mut(&mut self, peer: u32) -> Option<&mut Peer> {
        self.table.get_mut(peer as usize)
    }

    /// Queues a frame behind what waits on a lane. Refuses it when the connection has too much
    /// waiting; a single frame is taken by a connection with nothing waiting, whatever its size.
    pub(crate) fn send<T: Serialize>(
        &mut self,
        peer: u32,
        lane: Lane,
        frame: &T,
    ) -> Result<(), Full> {
        let Some(entry) = self.table.get_mut(peer as usize) else { return Ok(()) };
        let before = entry.outlet.waiting();
        let form = entry.outlet.form();
        let queue = entry.outlet.queue(lane, &mut self.pool);
        let start = queue.len();
        form.write(frame, &mut self.payload, queue);
        if before > 0 && before + queue.len() - start > self.outbox_bytes {
            queue.truncate(start);
            return Err(Full);
        }
        self.mark(peer);
        Ok(())
    }

    /// Queues finished frames behind what waits on a lane.
    pub(crate) fn append(&mut self, peer: u32, lane: Lane, frames: &[u8]) {
        let Some(entry) = self.table.get_mut(peer as usize) else { return };
        entry.outlet.queue(lane, &mut self.pool).extend_from_slice(frames);
        self.mark(peer);
    }

    /// How many more bytes of events may be queued on a lane of a connection: a part of its bound
    /// stays for replies, and each lane has its own, so that one that is stalled takes nothing
    /// from the others. At least one frame fits where nothing waits.
    pub(crate) fn room(&self, peer: u32, lane: Lane) -> usize {
        let Some(entry) = self.get(peer) else { return 0 };
        let share = match lane {
            Lane::Channel(_) => self.outbox_bytes / 2 / entry.outlet.channel_lanes(),
            Lane::Control | Lane::Signals => self.outbox_bytes / 4,
        };
        match entry.outlet.waiting_on(lane) {
            0 => share.max(1),
            waiting => share.saturating_sub(waiting),
        }
    }

    /// Notes that something is to be flushed for a connection.
    pub(crate) fn mark(&mut self, peer: u32) {
        let Some(entry) = self.table.get_mut(peer as usize) else { return };
        self.hot[peer as usize].free = false;
        if !std::mem::replace(&mut entry.dirty, true) {
            self.dirty.push(peer);
        }
    }

    /// The next connection with something to flush.
    pub(super) fn next_dirty(&mut self) -> Option<u32> {
        let peer = self.dirty.pop()?;
        if let Some(entry) = self.table.get_mut(peer as usize) {
            entry.dirty = false;
        }
        Some(peer)
    }

    /// Offers what waits for a connection, on all its lanes.
    pub(super) fn flush(&mut self, peer: u32, sockets: &mut impl Sockets, now_ms: u64) {
        let Some(entry) = self.table.get_mut(peer as usize) else { return };
        entry.outlet.flush(peer, &mut self.pool, sockets);
        if entry.outlet.is_any_blocked() {
            self.note_blocked(peer, now_ms);
        }
        self.note_free(peer);
    }

    /// Keeps the rest of a frame that a link cut.
    pub(super) fn block(&mut self, peer: u32, lane: Lane, rest: &[u8], now_ms: u64) {
        let Some(entry) = self.table.get_mut(peer as usize) else { return };
        entry.outlet.block(lane, rest, &mut self.pool);
        self.note_blocked(peer, now_ms);
        self.note_free(peer);
    }

    /// The link takes more on a blocked lane. Returns whether the lane is free now.
    pub(super) fn unblock(
        &mut self,
        peer: u32,
        lane: Lane,
        sockets: &mut impl Sockets,
        now_ms: u64,
    ) -> bool {
        let Some(entry) = self.table.get_mut(peer as usize) else { return false };
        let free = entry.outlet.unblock(lane, peer, &mut self.pool, sockets);
        if free {
            let others = entry.outlet.is_any_blocked();
            entry.blocked_since_ms = if others { now_ms } else { 0 };
        }
        self.note_free(peer);
        free
    }

    /// Notes whether the fan-out may offer something to a connection's link at once.
    fn note_free(&mut self, peer: u32) {
        let Some(entry) = self.table.get(peer as usize) else { return };
        let outlet = &entry.outlet;
        self.hot[peer as usize].free = outlet.has_one_lane()
            && !entry.dirty
            && !outlet.is_any_blocked()
            && outlet.waiting() == 0;
    }

    fn note_blocked(&mut self, peer: u32, now_ms: u64) {
        let Some(entry) = self.table.get_mut(peer as usize) else { return };
        if entry.blocked_since_ms == 0 {
            entry.blocked_since_ms = now_ms.max(1);
        }
        if entry.outlet.take_unattended() {
            self.newly_blocked.push(peer);
        }
    }

    /// The next connection whose link has to say when it takes more.
    pub(crate) fn poll_blocked(&mut self) -> Option<u32> {
        self.newly_blocked.pop()
    }
}
