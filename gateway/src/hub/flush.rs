//! The fan-out: every subscriber of a channel with news gets what it lacks, as one slice of the
//! ring.
//!
//! No allocation, no lock and no wake-up for a subscriber. What a link does not take stays in the
//! ring, but for the rest of the frame that it cut.

use chappe_protocol::Rev;

use super::{Form, Hub, Phase, Sockets};
use crate::link::Lane;

impl Hub {
    /// Offers everything that is new or queued to the connections that can take it.
    pub(crate) fn flush(&mut self, sockets: &mut impl Sockets) {
        let mut dirty = std::mem::take(&mut self.dirty);
        // A connection that has news in several channels gets them in one send.
        if dirty.len() > 1 {
            self.gather(&dirty);
        }
        for channel in dirty.drain(..) {
            self.flush_channel(channel, sockets);
        }
        if self.dirty.is_empty() {
            self.dirty = dirty; // keeps its buffer
        }
        let mut budget = FLUSHES_MAX;
        while budget > 0
            && let Some(peer) = self.peers.next_dirty()
        {
            budget -= 1;
            self.peers.flush(peer, sockets, self.now_ms);
            if self.peers.get(peer).is_some_and(|entry| entry.lagging) {
                self.resume(peer, sockets);
            }
        }
    }

    /// Whether something waits for the next flush.
    pub(crate) fn needs_flush(&self) -> bool {
        !self.dirty.is_empty() || !self.peers.dirty.is_empty()
    }

    /// A link takes more on a lane: gives it what waits there, then what it lacks.
    pub(crate) fn handle_writable(&mut self, peer: u32, lane: Lane, sockets: &mut impl Sockets) {
        if self.peers.unblock(peer, lane, sockets, self.now_ms) {
            self.resume(peer, sockets);
        }
    }

    /// Counts for each connection in how many of these channels it has a place.
    fn gather(&mut self, channels: &[u32]) {
        for channel in channels {
            let Some(entry) = self.channels.get(*channel as usize) else { continue };
            for subscriber in &entry.subscribers {
                let gathered = &mut self.peers.hot[subscriber.peer as usize].gathered;
                *gathered = gathered.saturating_add(1);
            }
        }
    }

    fn flush_channel(&mut self, channel: u32, sockets: &mut impl Sockets) {
        let Some(entry) = self.channels.get_mut(channel as usize) else { return };
        entry.dirty = false;
        entry.unflushed = 0;
        let mut left = std::mem::take(&mut self.left);
        self.offer(channel, sockets, &mut left);
        // From the last to the first, because the last takes the place of one that ends.
        for slot in left.drain(..).rev() {
            self.deliver(channel, slot as usize, sockets);
        }
        self.left = left; // keeps its buffer
    }

    /// Offers a channel's news to all whose link takes it whole and at once, which is nearly
    /// everybody, and leaves the slots of the others.
    fn offer(&mut self, channel: u32, sockets: &mut impl Sockets, left: &mut Vec<u32>) {
        let entry = &mut self.channels[channel as usize];
        let head = entry.head;
        let Some(ring) = entry.ring.as_deref().filter(|_| entry.ends.is_empty()) else {
            return left.extend(0..entry.subscribers.len() as u32);
        };
        // Most have the same form and were given the same: looked up once for all of them.
        let mut shared: Option<(Form, Rev, &[u8])> = None;
        for (slot, subscriber) in entry.subscribers.iter_mut().enumerate() {
            let hot = self.peers.hot[subscriber.peer as usize];
            if subscriber.phase != Phase::Live || !hot.free || hot.gathered > 1 {
                left.push(slot as u32);
                continue;
            }
            self.peers.hot[subscriber.peer as usize].gathered = 0;
            if subscriber.cursor >= head {
                continue;
            }
            let frames = match shared {
                Some((form, cursor, frames)) if form == hot.form && cursor == subscriber.cursor => {
                    frames
                }
                _ => match ring.frames(hot.form, subscriber.cursor, head) {
                    Some(frames) => {
                        shared = Some((hot.form, subscriber.cursor, frames));
                        frames
                    }
                    None => {
                        left.push(slot as u32);
                        continue;
                    }
                },
            };
            let cursor = subscriber.cursor;
            let taken = sockets.send(subscriber.peer, Lane::Control, frames);
            if taken >= frames.len() {
                subscriber.cursor = head;
                self.delivered += head.get() - cursor.get();
            } else if let Some(cut) = ring.cut(hot.form, cursor, taken) {
                subscriber.cursor = cut.cursor;
                self.delivered += cut.cursor.get() - cursor.get();
                self.peers.block(subscriber.peer, Lane::Control, &frames[cut.rest], self.now_ms);
            }
        }
    }

    /// Gives a live subscriber what it lacks.
    fn deliver(&mut self, channel: u32, slot: usize, sockets: &mut impl Sockets) {
        let entry = &mut self.channels[channel as usize];
        let subscriber = &mut entry.subscribers[slot];
        let index = subscriber.peer;
        let shares = std::mem::take(&mut self.peers.hot[index as usize].gathered) > 1;
        let Some(peer) = self.peers.get_mut(index) else { return };
        if subscriber.phase != Phase::Live || subscriber.cursor >= entry.head {
            return;
        }
        let lane = peer.outlet.lane(entry.id);
        if peer.outlet.is_blocked(lane) {
            return;
        }
        let until = if entry.ends.is_empty() {
            entry.head
        } else {
            let end = entry.ends.iter().find(|(of, _)| *of == index);
            end.map_or(entry.head, |(_, rev)| *rev)
        };
        let form = peer.outlet.form();
        let cursor = subscriber.cursor;
        let Some(ring) = &entry.ring else {
            return self.fall_behind(channel, slot);
        };
        let Some(frames) = ring.frames(form, cursor, until) else {
            return self.fall_behind(channel, slot);
        };
        self.delivered += until.get() - cursor.get();
        if shares || peer.outlet.waiting_on(lane) > 0 {
            self.enqueue(channel, slot, until);
            return self.end_if_read(channel, slot);
        }
        let taken = sockets.send(index, lane, frames);
        if taken >= frames.len() {
            subscriber.cursor = until;
        } else if let Some(cut) = ring.cut(form, cursor, taken) {
            self.delivered -= until.get() - cut.cursor.get();
            subscriber.cursor = cut.cursor;
            self.peers.block(index, lane, &frames[cut.rest], self.now_ms);
        }
        self.end_if_read(channel, slot);
    }

    /// Queues what a subscriber lacks behind what waits for its connection, as far as there is
    /// room.
    fn enqueue(&mut self, channel: u32, slot: usize, until: Rev) {
        let entry = &mut self.channels[channel as usize];
        let subscriber = &mut entry.subscribers[slot];
        let index = subscriber.peer;
        let Some(peer) = self.peers.get(index) else { return };
        let lane = peer.outlet.lane(entry.id);
        let room = self.peers.room(index, lane);
        let Some(peer) = self.peers.get_mut(index) else { return };
        let form = peer.outlet.form();
        let Some(ring) = &entry.ring else { return };
        let fitting = ring.fitting(form, subscriber.cursor, until, room);
        let Some((frames, cursor)) = fitting else { return };
        subscriber.cursor = cursor;
        peer.lagging |= cursor < until;
        self.peers.append(index, lane, frames);
    }

    /// Queues what a connection lacks in all its channels, as far as there is room.
    pub(super) fn enqueue_all(&mut self, peer: u32) {
        let Some(entry) = self.peers.get(peer) else { return };
        for place in entry.subscriptions.clone() {
            let channel = &self.channels[place.channel as usize];
            let slot = place.slot as usize;
            let until = channel.end_of(peer).unwrap_or(channel.head);
            let subscriber = channel.subscribers[slot];
            if subscriber.phase == Phase::Live && subscriber.cursor < until {
                self.enqueue(place.channel, slot, until);
            }
        }
    }

    /// Gives a connection what it lacks in all its channels whose lane is free.
    fn resume(&mut self, peer: u32, sockets: &mut impl Sockets) {
        let Some(entry) = self.peers.get_mut(peer) else { return };
        entry.lagging = false;
        let channels: Vec<u32> = entry.subscriptions.iter().map(|place| place.channel).collect();
        for channel in channels {
            let Some(slot) = self.slot(peer, channel) else { continue };
            if let Phase::CatchingUp { asked: false, .. } =
                self.channels[channel as usize].subscribers[slot].phase
            {
                self.advance(peer, channel);
            } else {
                self.deliver(channel, slot, sockets);
            }
        }
        if self.peers.get(peer).is_some_and(|entry| entry.outlet.waiting() > 0) {
            self.peers.mark(peer);
        }
    }

    /// What a subscriber lacks is no longer in the ring: the leader has it.
    fn fall_behind(&mut self, channel: u32, slot: usize) {
        let subscriber = &mut self.channels[channel as usize].subscribers[slot];
        subscriber.phase = Phase::CatchingUp { announced: false, asked: false };
        let peer = subscriber.peer;
        self.advance(peer, channel);
    }

    /// Takes a subscriber out once it read the revision that ends its reading.
    pub(crate) fn end_if_read(&mut self, channel: u32, slot: usize) {
        let entry = &self.channels[channel as usize];
        if entry.ends.is_empty() {
            return;
        }
        let subscriber = entry.subscribers[slot];
        if entry.end_of(subscriber.peer).is_some_and(|end| subscriber.cursor >= end) {
            self.remove_subscriber(channel, slot as u32);
        }
    }
}

/// Connections flushed before others get their turn.
const FLUSHES_MAX: usize = 4_096;
