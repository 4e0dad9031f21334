//! Who reads what: wishes to read, the leader's answers, and the end of reading.

use chappe_protocol::{ChannelId, ErrorCode, Incarnation, Rev, ServerFrame, frame::Reset, limits};
use chappe_uplink::{Attach, Attached, Caller, Generation, Refusal, Request, Start};

use super::{
    Attachment, Channel, Hub, Join, Joined, Notice, Phase, Purpose, Subscriber, peer::Subscription,
};
use crate::uplink::{Owner, back_off_ms};

impl Hub {
    /// Asks the leader whether a connection may read a channel, and from where.
    ///
    /// Its answer is a [`Notice::Joined`]. Events are held until [`Hub::release`]: the reply to
    /// the client comes before them.
    pub(crate) fn subscribe(
        &mut self,
        peer: u32,
        caller: &Caller,
        channel: ChannelId,
        from: Option<(Incarnation, Rev)>,
        purpose: Purpose,
    ) {
        let Some(entry) = self.peers.get_mut(peer) else { return };
        let for_session = matches!(purpose, Purpose::Inbox(_));
        // The user's own inbox is beside the count: all his channels and it may be read together.
        let counted = !for_session && channel.inbox_owner() != Some(caller.user);
        let asked = entry.joins as usize - usize::from(entry.inbox_awaited);
        if counted && entry.subscriptions.len() + asked >= limits::SUBSCRIPTIONS_MAX {
            let outcome = Err(Refusal::new(ErrorCode::TooManySubscriptions));
            self.notices.push_back(Notice::Joined { peer, purpose, channel, outcome });
            return;
        }
        if !for_session && from.is_none() && self.is_subscribed(peer, channel) {
            let outcome = self.standing(peer, channel);
            self.notices.push_back(Notice::Joined { peer, purpose, channel, outcome });
            return;
        }
        if purpose == Purpose::Followed && self.follows(peer, channel) {
            return;
        }
        if let Some(entry) = self.peers.get_mut(peer) {
            entry.joins += 1;
            entry.inbox_awaited |= for_session;
        }
        let index = self.open(channel);
        self.channels[index].joins += 1;
        self.channels[index].idle_since_ms = 0;
        let caller = caller.clone();
        let join = Join { peer, channel, caller, from, purpose, token: 0, tries: 0 };
        let serial = self.uplink.serial();
        self.joins.insert(serial, join);
        self.ask_join(serial);
    }

    /// Lets events flow to a connection whose client has its reply.
    pub(crate) fn release(&mut self, peer: u32, channel: ChannelId) {
        let Some(index) = self.find(channel) else { return };
        let Some(slot) = self.slot(peer, index as u32) else { return };
        let entry = &mut self.channels[index];
        let subscriber = &mut entry.subscribers[slot];
        let Phase::Held { reset, announced } = subscriber.phase else { return };
        let cursor = subscriber.cursor;
        subscriber.phase =
            if announced { Phase::CatchingUp { announced, asked: false } } else { Phase::Live };
        if reset && let Some(generation) = entry.generation {
            self.send_reset(peer, channel, cursor, generation.incarnation);
        }
        if announced {
            self.advance(peer, index as u32);
        } else if cursor < self.channels[index].head {
            self.mark(index as u32);
        }
    }

    /// Ends a connection's reading of a channel, or its wish to.
    pub(crate) fn unsubscribe(&mut self, peer: u32, channel: ChannelId) {
        let wishes = self.joins.iter().filter(|(_, join)| {
            join.peer == peer
                && join.channel == channel
                && !matches!(join.purpose, Purpose::Inbox(_))
        });
        for serial in wishes.map(|(serial, _)| *serial).collect::<Vec<_>>() {
            if let Some(join) = self.take_join(serial) {
                let outcome = Err(Refusal::new(ErrorCode::NotFound).because("unsubscribed"));
                let Join { purpose, .. } = join;
                self.notices.push_back(Notice::Joined { peer, purpose, channel, outcome });
            }
        }
        if let Some(index) = self.find(channel)
            && let Some(slot) = self.slot(peer, index as u32)
        {
            self.remove_subscriber(index as u32, slot as u32);
        }
    }

    /// Gives up the wishes that an operation still waits for.
    pub(crate) fn give_up(&mut self, operation: u64) {
        let waits = |purpose: Purpose| match purpose {
            Purpose::Asked(serial) | Purpose::Inbox(serial) => serial == operation,
            Purpose::Followed => false,
        };
        let wishes = self.joins.iter().filter(|(_, join)| waits(join.purpose));
        for serial in wishes.map(|(serial, _)| *serial).collect::<Vec<_>>() {
            self.take_join(serial);
        }
    }

    /// A connection ended: nothing of it stays.
    pub(crate) fn leave(&mut self, peer: u32) {
        self.stop_reading(peer);
        self.peers.remove(peer);
    }

    /// Ends all reading of a connection, its session's own included.
    pub(crate) fn stop_reading(&mut self, peer: u32) {
        let Some(entry) = self.peers.get_mut(peer) else { return };
        let places = std::mem::take(&mut entry.subscriptions);
        let inbox = entry.inbox.take();
        if entry.joins > 0 {
            let wishes = self.joins.iter().filter(|(_, join)| join.peer == peer);
            for serial in wishes.map(|(serial, _)| *serial).collect::<Vec<_>>() {
                self.take_join(serial);
            }
        }
        for place in places {
            self.take_out(place.channel, place.slot, peer);
            self.note_idle(place.channel);
        }
        if let Some(inbox) = inbox {
            self.channels[inbox as usize].watchers.retain(|watcher| *watcher != peer);
            self.note_idle(inbox);
        }
    }

    /// The leader's answer to a wish.
    pub(crate) fn handle_joined(
        &mut self,
        serial: u64,
        generation: Generation,
        result: Result<Attached, Refusal>,
    ) {
        let Some(join) = self.joins.get_mut(&serial) else { return };
        join.token = 0;
        let (channel, purpose, tries) = (join.channel, join.purpose, join.tries);
        let again = match &result {
            Ok(_) => self.refuses(channel, generation),
            // Nobody would hear of it if a followed channel were given up.
            Err(refusal) if purpose == Purpose::Followed => {
                refusal.resend || refusal.code.retry_after_ms().is_some()
            }
            Err(refusal) => refusal.resend,
        };
        if again {
            self.uplink.retry_at(self.now_ms + back_off_ms(tries), Owner::Join(serial));
            return;
        }
        let Some(join) = self.joins.remove(&serial) else { return };
        let peer = join.peer;
        let outcome = result.map(|attached| self.enter(&join, generation, attached));
        self.settle_join(&join);
        self.notices.push_back(Notice::Joined { peer, purpose, channel, outcome });
        if purpose == Purpose::Followed {
            self.enqueue_all(peer); // the event that told of it comes before its own
            self.release(peer, channel);
        }
    }

    /// Asks again for a wish that was not answered.
    pub(crate) fn ask_join(&mut self, serial: u64) {
        let Some(join) = self.joins.get_mut(&serial) else { return };
        if join.token != 0 {
            return;
        }
        join.tries = join.tries.saturating_add(1);
        let (channel, from) = (join.channel, join.from);
        let caller = Some(join.caller.clone());
        join.token = self.uplink.ask(Owner::Join(serial), |token| {
            Request::Attach(Attach { token, channel, caller, from })
        });
    }

    /// Takes up reading where the leader says.
    fn enter(&mut self, join: &Join, generation: Generation, attached: Attached) -> Joined {
        let index = self.open(join.channel);
        self.heard_of(index as u32, generation);
        let entry = &mut self.channels[index];
        if entry.attachment == Attachment::None {
            entry.attachment = Attachment::Attached;
            if !entry.has_readers() {
                entry.rebase(attached.head);
            }
        }
        self.note_head(index as u32, attached.head);
        let (rev, reset) = match attached.start {
            Start::After(rev) => (rev, false),
            Start::Reset(rev) => (rev, true),
        };
        let announced = rev < attached.head;
        if let Purpose::Inbox(_) = join.purpose {
            self.channels[index].watchers.push(join.peer);
            self.channels[index].idle_since_ms = 0;
            if let Some(peer) = self.peers.get_mut(join.peer) {
                peer.inbox = Some(index as u32);
            }
        } else {
            let mut reset = reset;
            if let Some(slot) = self.slot(join.peer, index as u32) {
                let cursor = self.channels[index].subscribers[slot].cursor;
                if join.from.is_none()
                    && let Ok(standing) = self.standing(join.peer, join.channel)
                {
                    return standing; // asked twice: the first reading goes on
                }
                // What its client did not get of the reading that ends here, it is told to forget.
                reset |= join.purpose == Purpose::Followed && cursor < rev;
                self.remove_subscriber(index as u32, slot as u32);
            }
            let phase = Phase::Held { reset, announced };
            self.add_subscriber(index as u32, Subscriber { cursor: rev, peer: join.peer, phase });
        }
        let incarnation = generation.incarnation;
        Joined { rev, head: attached.head, catching_up: announced, incarnation }
    }

    /// A connection reads a channel, or asks to, and nothing ends that.
    fn follows(&self, peer: u32, channel: ChannelId) -> bool {
        let Some(index) = self.find(channel) else { return false };
        let asks = self.channels[index].joins > 0
            && self.joins.values().any(|join| {
                join.peer == peer
                    && join.channel == channel
                    && !matches!(join.purpose, Purpose::Inbox(_))
            });
        let reads =
            self.slot(peer, index as u32).is_some() && self.channels[index].end_of(peer).is_none();
        asks || reads
    }

    fn is_subscribed(&self, peer: u32, channel: ChannelId) -> bool {
        self.find(channel).is_some_and(|index| self.slot(peer, index as u32).is_some())
    }

    /// Where a connection stands in a channel that it reads already.
    fn standing(&self, peer: u32, channel: ChannelId) -> Result<Joined, Refusal> {
        let missing = || Refusal::new(ErrorCode::Unavailable);
        let index = self.find(channel).ok_or_else(missing)?;
        let entry = &self.channels[index];
        let slot = self.slot(peer, index as u32).ok_or_else(missing)?;
        let generation = entry.generation.ok_or_else(missing)?;
        let subscriber = entry.subscribers[slot];
        let catching_up = matches!(
            subscriber.phase,
            Phase::Held { announced: true, .. } | Phase::CatchingUp { announced: true, .. }
        );
        let head = entry.known.max(subscriber.cursor);
        let incarnation = generation.incarnation;
        Ok(Joined { rev: subscriber.cursor, head, catching_up, incarnation })
    }

    fn take_join(&mut self, serial: u64) -> Option<Join> {
        let join = self.joins.remove(&serial)?;
        self.uplink.forget(join.token);
        self.settle_join(&join);
        Some(join)
    }

    fn settle_join(&mut self, join: &Join) {
        if let Some(peer) = self.peers.get_mut(join.peer) {
            peer.joins -= 1;
            peer.inbox_awaited &= !matches!(join.purpose, Purpose::Inbox(_));
        }
        if let Some(index) = self.find(join.channel) {
            self.channels[index].joins -= 1;
            self.note_idle(index as u32);
        }
    }

    /// The channel's entry, made if there is none.
    fn open(&mut self, channel: ChannelId) -> usize {
        if let Some(index) = self.find(channel) {
            return index;
        }
        let index = self.channels.insert(Channel::new(channel));
        self.by_id.insert(channel, index as u32);
        index
    }

    fn add_subscriber(&mut self, channel: u32, subscriber: Subscriber) {
        let Some(peer) = self.peers.get(subscriber.peer) else { return };
        let form = peer.outlet.form();
        let entry = &mut self.channels[channel as usize];
        let before = entry.ring.as_ref().map(|ring| ring.bytes());
        let slot = entry.add(subscriber, form, &mut self.peers.payload);
        entry.idle_since_ms = 0;
        if let Some(peer) = self.peers.get_mut(subscriber.peer) {
            peer.subscriptions.push(Subscription { channel, slot });
        }
        if before.is_some() {
            self.note_ring(channel, before); // it may be the first of its form
        }
    }

    pub(crate) fn remove_subscriber(&mut self, channel: u32, slot: u32) {
        let peer = self.channels[channel as usize].subscribers[slot as usize].peer;
        if let Some(entry) = self.peers.get_mut(peer) {
            entry.subscriptions.retain(|place| place.channel != channel);
        }
        self.take_out(channel, slot, peer);
        self.note_idle(channel);
    }

    fn take_out(&mut self, channel: u32, slot: u32, peer: u32) {
        let Some(entry) = self.peers.get(peer) else { return };
        let form = entry.outlet.form();
        let entry = &mut self.channels[channel as usize];
        let ring_bytes = entry.ring.as_ref().map_or(0, |ring| ring.bytes());
        let moved = entry.take_out(slot, form);
        self.rings_bytes -= ring_bytes - entry.ring.as_ref().map_or(0, |ring| ring.bytes());
        let Some(moved) = moved.and_then(|moved| self.peers.get_mut(moved)) else { return };
        for place in &mut moved.subscriptions {
            if place.channel == channel {
                place.slot = slot;
            }
        }
    }

    pub(crate) fn send_reset(
        &mut self,
        peer: u32,
        channel: ChannelId,
        base: Rev,
        incarnation: Incarnation,
    ) {
        let Some(entry) = self.peers.get(peer) else { return };
        let lane = entry.outlet.lane(channel);
        metrics::counter!("chappe_gateway_resets_total").increment(1);
        let reset = Reset { channel, base, incarnation };
        // A connection with too much waiting is closed as slow before long.
        let _ = self.peers.send(peer, lane, &ServerFrame::Reset { reset });
    }
}
