//! What comes from leaders unasked: events, in order and without a gap, and signals.

use std::sync::Arc;

use chappe_protocol::{Event, EventBody, Rev, ServerFrame, UserId, frame::Signalled};
use chappe_uplink::{Generation, SignalTo};

use super::{Attachment, Form, Hub, Notice, Phase, Sockets};
use crate::link::Lane;

impl Hub {
    /// Takes an event. Returns whether its ring should be flushed before the next: more would
    /// push out what was not flushed yet.
    pub(crate) fn handle_event(&mut self, generation: Generation, event: &Arc<Event>) -> bool {
        let Some(index) = self.find(event.channel) else { return false };
        let entry = &self.channels[index];
        // A deposed leader's events are void, and those of a pipe that was not asked mean nothing.
        if entry.refuses(generation) || entry.attachment == Attachment::None {
            return false;
        }
        if entry.generation.is_some_and(|known| known.incarnation != generation.incarnation) {
            self.reattach(index as u32);
            return false;
        }
        self.heard_of(index as u32, generation);
        let entry = &self.channels[index];
        if event.rev <= entry.head {
            return false;
        }
        if event.rev > entry.head.next() {
            self.note_head(index as u32, event.rev);
            return false;
        }
        self.take(index as u32, event);
        self.channels[index].unflushed as usize > self.ring_bytes_max / 2
    }

    /// Takes a channel's next event, heard live or read.
    pub(crate) fn take(&mut self, channel: u32, event: &Arc<Event>) {
        let entry = &mut self.channels[channel as usize];
        let before = entry.ring.as_ref().map(|ring| ring.bytes());
        entry.push(event, self.ring_bytes_max, &mut self.peers.payload);
        let has_ring = entry.ring.is_some();
        match &event.body {
            EventBody::MemberRemoved(body) => {
                self.end_readings(channel, event.rev, Some(body.user))
            }
            EventBody::ChannelDeleted(_) => self.end_readings(channel, event.rev, None),
            _ => {}
        }
        for watcher in &self.channels[channel as usize].watchers {
            let event = Arc::clone(event);
            self.notices.push_back(Notice::Inbox { peer: *watcher, event });
        }
        if has_ring {
            self.note_ring(channel, before);
            self.mark(channel);
        }
    }

    /// Tells a channel's readers something ephemeral: taken whole at once, or dropped.
    pub(crate) fn handle_signal(&mut self, signal: SignalTo, sockets: &mut impl Sockets) {
        let Some(index) = self.find(signal.channel) else { return };
        let SignalTo { channel, by, data } = signal;
        let frame = ServerFrame::Signal { signal: Signalled { channel, by, data } };
        let mut frames: [Vec<u8>; Form::COUNT] = Default::default();
        for subscriber in &self.channels[index].subscribers {
            let Some(peer) = self.peers.get(subscriber.peer) else { continue };
            if matches!(subscriber.phase, Phase::Held { .. })
                || peer.outlet.is_blocked(Lane::Control)
            {
                continue;
            }
            let form = peer.outlet.form();
            let written = &mut frames[form.index()];
            if written.is_empty() {
                let mut payload = Vec::new();
                form.write(&frame, &mut payload, written);
            }
            sockets.send(subscriber.peer, Lane::Signals, written);
        }
    }

    /// The readings of a user, or everybody's, end with this revision.
    fn end_readings(&mut self, channel: u32, rev: Rev, user: Option<UserId>) {
        let entry = &mut self.channels[channel as usize];
        for subscriber in &entry.subscribers {
            let theirs = self.peers.get(subscriber.peer).and_then(|peer| peer.user);
            let ends = user.is_none() || theirs == user;
            if ends && subscriber.cursor < rev && entry.end_of(subscriber.peer).is_none() {
                entry.ends.push((subscriber.peer, rev));
            }
        }
    }
}
