//! Keeping channels attached: after the pipe ended, after a leader changed, and not longer than
//! somebody reads.

use std::collections::HashMap;

use chappe_protocol::{PartitionId, Rev};
use chappe_uplink::{Attach, Attached, Detach, Generation, Leading, Refusal, Request, Start};

use super::{Attachment, Hub, Notice, Phase};
use crate::uplink::{Owner, back_off_ms};

impl Hub {
    /// A new pipe is open: everything is asked again. Channels are attached when it says who leads
    /// them.
    pub(crate) fn handle_open(&mut self) {
        self.uplink.handle_open();
        let mut joins: Vec<u64> = self.joins.keys().copied().collect();
        joins.sort_unstable();
        for serial in joins {
            self.ask_join(serial);
        }
        self.pump_pages();
    }

    /// The pipe ended. What was delivered stays; what was lost on the way is read when a new one
    /// is open.
    pub(crate) fn handle_end(&mut self) {
        self.uplink.handle_end();
        self.leading.clear();
        for join in self.joins.values_mut() {
            join.token = 0;
        }
        self.pages_lost();
        let channels: Vec<u32> = self.channels.iter().map(|(index, _)| index as u32).collect();
        for channel in channels {
            self.channels[channel as usize].attachment = Attachment::None;
            self.note_idle(channel);
        }
    }

    /// The leaderships behind the pipe. A new one does not know what its predecessor was attached
    /// to, and one that has gone tells nothing any more. Returns the partitions with a new one.
    pub(crate) fn handle_leading(&mut self, leading: Leading) -> Vec<PartitionId> {
        let Leading { partitions, leads } = leading;
        let leads: HashMap<_, _> = leads.into_iter().collect();
        leads.values().for_each(|generation| self.note_incarnation(*generation));
        let before = std::mem::replace(&mut self.leading, leads);
        if before == self.leading || partitions == 0 {
            return Vec::new();
        }
        let channels: Vec<u32> = self.channels.iter().map(|(index, _)| index as u32).collect();
        for channel in channels {
            let entry = &mut self.channels[channel as usize];
            let partition = entry.id.partition(partitions);
            match (before.get(&partition), self.leading.get(&partition)) {
                (Some(old), Some(new)) if old >= new => {}
                (_, Some(_)) if entry.has_readers() => self.reattach(channel),
                (Some(_), None) => {
                    entry.attachment = Attachment::None;
                    self.note_idle(channel);
                }
                _ => {}
            }
        }
        let new =
            self.leading.iter().filter(|(id, new)| before.get(id).is_none_or(|old| old < new));
        let new = new.map(|(id, _)| *id).collect::<Vec<_>>();
        if !new.is_empty() {
            self.ask_joins();
        }
        new
    }

    /// Asks at once, as if for the first time, for the wishes that wait before they are asked
    /// again.
    fn ask_joins(&mut self) {
        let waiting = self.joins.iter_mut().filter(|(_, join)| join.token == 0);
        let serials = waiting.map(|(serial, join)| {
            join.tries = 0;
            *serial
        });
        for serial in serials.collect::<Vec<_>>() {
            self.ask_join(serial);
        }
    }

    /// The time to attach a channel again has come. By now it may be another, which took the
    /// place of one that was forgotten and that nobody reads yet.
    pub(crate) fn retry_reattach(&mut self, channel: u32) {
        if self.channels.get(channel as usize).is_some_and(|entry| entry.has_readers()) {
            self.reattach(channel);
        }
    }

    /// Attaches a channel again for those who read it.
    pub(crate) fn reattach(&mut self, channel: u32) {
        let Some(entry) = self.channels.get_mut(channel as usize) else { return };
        let id = entry.id;
        let from = entry.generation.map(|generation| (generation.incarnation, entry.head));
        let token = self.uplink.ask(Owner::Reattach(channel), |token| {
            Request::Attach(Attach { token, channel: id, caller: None, from })
        });
        if token != 0 {
            metrics::counter!("chappe_gateway_reattaches_total").increment(1);
            entry.attachment = Attachment::Asked(token);
        }
    }

    /// The leader's answer to an attach for those who read already.
    pub(crate) fn handle_reattached(
        &mut self,
        channel: u32,
        token: u64,
        generation: Generation,
        result: Result<Attached, Refusal>,
    ) {
        let Some(entry) = self.channels.get(channel as usize) else { return };
        if entry.attachment != Attachment::Asked(token) {
            return;
        }
        match result {
            Ok(attached) if !entry.refuses(generation) => {
                self.heard_of(channel, generation);
                self.channels[channel as usize].attachment = Attachment::Attached;
                if let Start::Reset(base) = attached.start {
                    self.reset_channel(channel, base, generation);
                }
                self.note_head(channel, attached.head);
            }
            Err(refusal) if !refusal.resend && refusal.code.retry_after_ms().is_none() => {
                self.end_channel(channel, &refusal);
            }
            _ => self.uplink.retry_at(self.now_ms + back_off_ms(4), Owner::Reattach(channel)),
        }
    }

    /// Notes that a channel was heard from a leadership.
    pub(crate) fn heard_of(&mut self, channel: u32, generation: Generation) {
        self.note_incarnation(generation);
        let newest = &mut self.channels[channel as usize].generation;
        *newest = Some(newest.map_or(generation, |newest| newest.max(generation)));
    }

    /// Notes that a channel has a revision; if it was not heard, it is read.
    pub(crate) fn note_head(&mut self, channel: u32, head: Rev) {
        let entry = &mut self.channels[channel as usize];
        entry.known = entry.known.max(head);
        if entry.known > entry.head {
            self.want_repair(channel);
        }
    }

    /// All readers of a channel go on at another revision: what lies before it is not to be had.
    pub(crate) fn reset_channel(&mut self, channel: u32, base: Rev, generation: Generation) {
        let entry = &mut self.channels[channel as usize];
        let id = entry.id;
        self.rings_bytes -= entry.ring.as_ref().map_or(0, |ring| ring.bytes());
        entry.rebase(base);
        if let Some(reading) = &mut entry.reading {
            reading.forget_all();
        }
        let mut reset = Vec::new();
        for subscriber in &mut entry.subscribers {
            subscriber.cursor = base;
            if let Phase::Held { reset, .. } = &mut subscriber.phase {
                *reset = true;
            } else {
                let announced =
                    matches!(subscriber.phase, Phase::CatchingUp { announced: true, .. });
                subscriber.phase = Phase::CatchingUp { announced, asked: false };
                reset.push(subscriber.peer);
            }
        }
        for watcher in &self.channels[channel as usize].watchers {
            self.notices.push_back(Notice::InboxLost { peer: *watcher });
        }
        for peer in reset {
            self.send_reset(peer, id, base, generation.incarnation);
            self.advance(peer, channel);
        }
    }

    /// Nobody can read a channel any more.
    pub(crate) fn end_channel(&mut self, channel: u32, refusal: &Refusal) {
        while let Some(last) = self.channels[channel as usize].subscribers.len().checked_sub(1) {
            let peer = self.channels[channel as usize].subscribers[last].peer;
            self.remove_subscriber(channel, last as u32);
            self.notices.push_back(Notice::Ended { peer, refusal: refusal.clone() });
            if !self.channels.contains(channel as usize) {
                return;
            }
        }
        for watcher in &self.channels[channel as usize].watchers {
            self.notices.push_back(Notice::InboxLost { peer: *watcher });
        }
    }

    /// Notes since when nobody needs a channel. One that is not attached goes at once.
    pub(crate) fn note_idle(&mut self, channel: u32) {
        let Some(entry) = self.channels.get_mut(channel as usize) else { return };
        if entry.is_needed() {
            return;
        }
        if entry.attachment == Attachment::None {
            self.forget_channel(channel);
        } else if entry.idle_since_ms == 0 {
            entry.idle_since_ms = self.now_ms.max(1);
            let id = entry.id;
            self.idle.push_back((self.now_ms + self.detach_ms, id));
        }
    }

    /// Detaches channels that nobody read for long enough, and gives up rings that are not used.
    pub(crate) fn handle_tick(&mut self) {
        while let Some((due_ms, id)) = self.idle.front().copied() {
            if due_ms > self.now_ms {
                break;
            }
            self.idle.pop_front();
            let Some(index) = self.find(id) else { continue };
            let since = self.channels[index].idle_since_ms;
            if since != 0 && since + self.detach_ms <= self.now_ms {
                self.uplink.tell(Request::Detach(Detach { channel: id }));
                self.forget_channel(index as u32);
            }
        }
        if self.now_ms >= self.rings_looked_at_ms + self.ring_idle_ms {
            self.rings_looked_at_ms = self.now_ms;
            for _ in 0..self.rings.len() {
                self.look_at_ring();
            }
        }
    }

    /// Notes that a ring grew, and gives up the least used ones while all together are too large.
    pub(super) fn note_ring(&mut self, channel: u32, before: Option<usize>) {
        let ring = &self.channels[channel as usize].ring;
        let now = ring.as_ref().map_or(0, |ring| ring.bytes());
        self.rings_bytes = self.rings_bytes + now - before.unwrap_or(0);
        if before.is_none() && ring.is_some() {
            self.rings.push_back(channel);
        }
        let mut looks = 2 * self.rings.len();
        while self.rings_bytes > self.rings_bytes_max && looks > 0 {
            looks -= 1;
            self.look_at_ring();
        }
    }

    /// Gives up the next ring unless it was used since it was looked at last.
    fn look_at_ring(&mut self) {
        let Some(channel) = self.rings.pop_front() else { return };
        let Some(entry) = self.channels.get_mut(channel as usize) else { return };
        let Some(ring) = &entry.ring else { return };
        if entry.dirty || std::mem::take(&mut entry.ring_used) {
            self.rings.push_back(channel);
        } else {
            self.rings_bytes -= ring.bytes();
            entry.ring = None;
        }
    }

    fn forget_channel(&mut self, channel: u32) {
        let entry = self.channels.remove(channel as usize);
        assert!(!entry.is_needed(), "a channel is forgotten when nobody needs it");
        self.rings_bytes -= entry.ring.as_ref().map_or(0, |ring| ring.bytes());
        if let Attachment::Asked(token) = entry.attachment {
            self.uplink.forget(token);
        }
        self.pages.forget(entry.reading, &mut self.uplink);
        self.by_id.remove(&entry.id);
    }

    fn note_incarnation(&mut self, generation: Generation) {
        let newest = self
            .incarnation
            .map_or(generation.incarnation, |newest| newest.max(generation.incarnation));
        self.incarnation = Some(newest);
    }
}
