//! Catching up: events that are in no ring come from the leader, page by page.
//!
//! The channel is attached first, so that its live events wait in the ring; pages are read from
//! the cursor on until they meet the ring, and there reading goes on without a seam. Readers of
//! one channel share a read, but only those who asked before it was sent: one that is under way
//! may miss what changed since. What a shard itself lost on the way is read in the same manner
//! and enters the ring as if it had been heard.

mod page;

use std::collections::VecDeque;

use chappe_protocol::{Rev, ServerFrame, frame::Live};
use chappe_uplink::{EventsPage, Generation, Read, ReadQuery, Refusal, Request};

use crate::{
    hub::{Hub, Phase},
    uplink::{Owner, Uplink, back_off_ms},
};
use page::Page;

/// The pages that a shard reads.
#[derive(Debug)]
pub(crate) struct Pages {
    /// Channels with readers for whom nothing is under way.
    queued: VecDeque<u32>,
    under_way: usize,
    under_way_max: usize,
}

/// A channel's readers who catch up.
#[derive(Debug, Default)]
pub(crate) struct Reading {
    /// They share the next read.
    waiting: Vec<u32>,
    /// The ring itself lacks something.
    repair: bool,
    /// Since when it does.
    lacks_since_ms: Option<u64>,
    sent: Option<SentRead>,
    queued: bool,
    tries: u8,
}

#[derive(Debug)]
struct SentRead {
    token: u64,
    after: Rev,
    readers: Vec<u32>,
    repair: bool,
}

impl Pages {
    pub(crate) fn new(under_way_max: usize) -> Self {
        Self { queued: VecDeque::new(), under_way: 0, under_way_max }
    }

    /// A channel is forgotten with what was read for it.
    pub(crate) fn forget(&mut self, reading: Option<Box<Reading>>, uplink: &mut Uplink) {
        if let Some(sent) = reading.and_then(|reading| reading.sent) {
            uplink.forget(sent.token);
            self.under_way -= 1;
        }
    }
}

impl Reading {
    /// Whether what the ring lacks may still be on its way: its readers need not ask for it.
    pub(crate) fn repairs(&self, now_ms: u64) -> bool {
        self.lacks_since_ms.is_some_and(|since| now_ms < since + REPAIR_MS)
    }

    /// A connection reads no more.
    pub(crate) fn forget(&mut self, peer: u32) {
        self.waiting.retain(|waiting| *waiting != peer);
        if let Some(sent) = &mut self.sent {
            sent.readers.retain(|reader| *reader != peer);
        }
    }

    /// Nobody waits for what is under way any more.
    pub(crate) fn forget_all(&mut self) {
        self.waiting.clear();
        self.repair = false;
        self.lacks_since_ms = None;
        if let Some(sent) = &mut self.sent {
            sent.readers.clear();
            sent.repair = false;
        }
    }
}

impl Hub {
    /// Takes a subscriber that catches up further: from the ring where that has it, from the
    /// leader where not.
    pub(crate) fn advance(&mut self, peer: u32, channel: u32) {
        let Some(slot) = self.slot(peer, channel) else { return };
        let Some(entry) = self.peers.get(peer) else { return };
        let lane = entry.outlet.lane(self.channels[channel as usize].id);
        let room = self.peers.room(peer, lane);
        let Some(entry) = self.peers.get_mut(peer) else { return };
        let channel_entry = &mut self.channels[channel as usize];
        if entry.outlet.is_blocked(lane) {
            return; // goes on when the lane is free
        }
        if room == 0 {
            entry.lagging = true; // goes on when the queue was flushed
            return self.peers.mark(peer);
        }
        let head = channel_entry.head;
        let until = channel_entry.end_of(peer).unwrap_or(head);
        let base = channel_entry.ring_base();
        let subscriber = &mut channel_entry.subscribers[slot];
        let Phase::CatchingUp { announced, asked: false } = subscriber.phase else { return };
        if subscriber.cursor < base {
            subscriber.phase = Phase::CatchingUp { announced, asked: true };
            return self.want_page(peer, channel);
        }
        if subscriber.cursor < until
            && let Some(ring) = &channel_entry.ring
            && let Some((frames, cursor)) =
                ring.fitting(entry.outlet.form(), subscriber.cursor, until, room)
        {
            subscriber.cursor = cursor;
            entry.lagging |= cursor < until;
            self.peers.append(peer, lane, frames);
        }
        if self.channels[channel as usize].subscribers[slot].cursor >= until {
            self.go_live(peer, channel, slot);
            self.end_if_read(channel, slot);
        }
    }

    /// Asks for what a channel lost on the way.
    pub(crate) fn want_repair(&mut self, channel: u32) {
        let reading = self.channels[channel as usize].reading.get_or_insert_default();
        reading.lacks_since_ms.get_or_insert(self.now_ms);
        if reading.repair || reading.sent.as_ref().is_some_and(|sent| sent.repair) {
            return;
        }
        reading.repair = true;
        metrics::counter!("chappe_gateway_repairs_total").increment(1);
        self.queue_page(channel);
    }

    /// Sends the reads that may be under way.
    pub(crate) fn pump_pages(&mut self) {
        while self.uplink.is_open() && self.pages.under_way < self.pages.under_way_max {
            let Some(channel) = self.pages.queued.pop_front() else { return };
            self.send_page(channel);
        }
    }

    /// The pipe ended: what was under way is read again.
    pub(crate) fn pages_lost(&mut self) {
        self.pages.under_way = 0;
        let mut again = Vec::new();
        for (index, channel) in &mut self.channels {
            if let Some(reading) = &mut channel.reading
                && let Some(sent) = reading.sent.take()
            {
                reading.waiting.extend(sent.readers);
                reading.repair |= sent.repair;
                again.push(index as u32);
            }
        }
        for channel in again {
            self.queue_page(channel);
        }
    }

    /// The leader's answer to a read of events.
    pub(crate) fn handle_page(
        &mut self,
        channel: u32,
        token: u64,
        generation: Generation,
        result: Result<EventsPage, Refusal>,
    ) {
        let Some(entry) = self.channels.get_mut(channel as usize) else { return };
        let stale = entry.refuses(generation);
        let Some(reading) = &mut entry.reading else { return };
        let Some(sent) = reading.sent.take_if(|sent| sent.token == token) else { return };
        self.pages.under_way -= 1;
        match result {
            Ok(page) if !stale && Page::is_whole(&page, sent.after) => {
                reading.tries = 0;
                self.heard_of(channel, generation);
                self.give_page(channel, generation, sent, &page);
            }
            Err(refusal) if !refusal.resend && refusal.code.retry_after_ms().is_none() => {
                self.end_channel(channel, &refusal);
            }
            _ => {
                reading.tries = reading.tries.saturating_add(1);
                reading.waiting.extend(sent.readers);
                reading.repair |= sent.repair;
                let at_ms = self.now_ms + back_off_ms(reading.tries);
                self.uplink.retry_at(at_ms, Owner::Page(channel));
            }
        }
        self.pump_pages();
    }

    /// The time to ask for a channel's page again has come.
    pub(crate) fn retry_page(&mut self, channel: u32) {
        if self.channels.contains(channel as usize) {
            self.queue_page(channel);
        }
    }

    fn want_page(&mut self, peer: u32, channel: u32) {
        let reading = self.channels[channel as usize].reading.get_or_insert_default();
        reading.waiting.push(peer);
        self.queue_page(channel);
    }

    fn queue_page(&mut self, channel: u32) {
        let Some(reading) = &mut self.channels[channel as usize].reading else { return };
        if reading.sent.is_none() && !std::mem::replace(&mut reading.queued, true) {
            self.pages.queued.push_back(channel);
        }
    }

    /// Sends one read for all who wait now, from where the furthest behind is.
    fn send_page(&mut self, channel: u32) {
        let Some(entry) = self.channels.get_mut(channel as usize) else { return };
        let Some(mut reading) = entry.reading.take() else { return };
        reading.queued = false;
        let readers = std::mem::take(&mut reading.waiting);
        let repair = std::mem::take(&mut reading.repair) && entry.known > entry.head;
        let places = readers.iter().filter_map(|peer| self.slot(*peer, channel));
        let entry = &self.channels[channel as usize];
        let cursors = places.map(|slot| entry.subscribers[slot].cursor);
        let after = cursors.chain(repair.then_some(entry.head)).min();
        let (id, at_least) = (entry.id, entry.known);
        if let Some(after) = after {
            let query = ReadQuery::Events { after, limit: PAGE_EVENTS };
            let token = self.uplink.ask(Owner::Page(channel), |token| {
                Request::Read(Read { token, caller: None, channel: id, at_least, query })
            });
            reading.sent = Some(SentRead { token, after, readers, repair });
            self.pages.under_way += 1;
            metrics::counter!("chappe_gateway_catch_up_pages_total").increment(1);
        }
        if reading.sent.is_some() {
            self.channels[channel as usize].reading = Some(reading);
        }
    }

    /// Gives a page to all who shared its read.
    fn give_page(
        &mut self,
        channel: u32,
        generation: Generation,
        sent: SentRead,
        events: &EventsPage,
    ) {
        if sent.repair {
            self.repair(channel, generation, events);
        }
        let mut page = Page::new(events, sent.after);
        for peer in sent.readers {
            self.give_reader(peer, channel, generation, &mut page);
        }
        let entry = &mut self.channels[channel as usize];
        entry.known = entry.known.max(events.head);
        let lacks = entry.known > entry.head;
        match &mut entry.reading {
            _ if lacks => {
                self.want_repair(channel);
                self.queue_page(channel); // it was wanted before, and nothing was sent for it yet
            }
            Some(reading) if reading.waiting.is_empty() && !reading.queued => entry.reading = None,
            Some(reading) => {
                reading.lacks_since_ms = None;
                self.queue_page(channel);
            }
            None => {}
        }
    }

    fn give_reader(
        &mut self,
        peer: u32,
        channel: u32,
        generation: Generation,
        page: &mut Page<'_>,
    ) {
        let Some(slot) = self.slot(peer, channel) else { return };
        let id = self.channels[channel as usize].id;
        let Some(entry) = self.peers.get(peer) else { return };
        let lane = entry.outlet.lane(id);
        let room = self.peers.room(peer, lane);
        let Some(entry) = self.peers.get_mut(peer) else { return };
        let channel_entry = &mut self.channels[channel as usize];
        let subscriber = &mut channel_entry.subscribers[slot];
        let Phase::CatchingUp { announced, .. } = subscriber.phase else { return };
        subscriber.phase = Phase::CatchingUp { announced, asked: false };
        if let Some(base) = page.reset().filter(|base| subscriber.cursor < *base) {
            subscriber.cursor = base;
            self.send_reset(peer, id, base, generation.incarnation);
            return self.advance(peer, channel);
        }
        // Who was removed since he was let in is in the channel's own events up to its head.
        let end = channel_entry.ends.iter().find(|(of, _)| *of == peer);
        let until = end.map_or(channel_entry.head, |(_, rev)| *rev);
        let part = page.after(entry.outlet.form(), subscriber.cursor, until, room);
        subscriber.cursor = part.cursor;
        if !part.frames.is_empty() {
            self.peers.append(peer, lane, part.frames);
        }
        self.end_if_read(channel, slot);
        self.advance(peer, channel);
    }

    /// Takes what was lost on the way as if it had been heard.
    fn repair(&mut self, channel: u32, generation: Generation, page: &EventsPage) {
        let head = self.channels[channel as usize].head;
        if let Some(base) = page.reset.filter(|base| *base > head) {
            self.reset_channel(channel, base, generation);
        }
        for event in &page.events {
            if event.rev == self.channels[channel as usize].head.next() {
                self.take(channel, event);
            }
        }
    }

    fn go_live(&mut self, peer: u32, channel: u32, slot: usize) {
        let entry = &mut self.channels[channel as usize];
        let (id, rev) = (entry.id, entry.subscribers[slot].cursor);
        let phase = std::mem::replace(&mut entry.subscribers[slot].phase, Phase::Live);
        if phase == (Phase::CatchingUp { announced: true, asked: false })
            && let Some(lane) = self.peers.get(peer).map(|entry| entry.outlet.lane(id))
        {
            let live = Live { channel: id, rev };
            // A connection with too much waiting is closed as slow before long.
            let _ = self.peers.send(peer, lane, &ServerFrame::Live { live });
        }
    }
}

/// How long a shard reads what it lost before it tells clients that they lack it: longer than a
/// leader takes to move, and than most that ails a store. If reading fails for good, they ask.
const REPAIR_MS: u64 = 30_000;
/// Events of a page. With the largest messages a page stays within a few MiB.
const PAGE_EVENTS: u32 = 128;
