//! The channels that a session follows: the last revision held of each, and what an arriving
//! event means for it.

use std::collections::{BTreeSet, HashMap};

use chappe_protocol::{
    ChannelId, Cursor, Incarnation, Rev, UserId,
    command::{ChannelFrom, Channels, Subscribe},
    frame::Reset,
    reply::Subscribed,
};

/// Attempts to mend a channel without a single event in between, before the connection itself is
/// given up.
const FRUITLESS_MENDS_MAX: u32 = 3;
/// How long a channel may stand still after a beacon told of a higher head, in milliseconds. A
/// beacon overtakes events that wait for a lane, for room or for a page, and over QUIC those whose
/// packet was lost; asking again too early would be more work for a server that is behind already.
const BEACON_GRACE_MS: u64 = 5_000;

/// What to do with an event.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Verdict {
    /// It is the next one.
    Deliver,
    /// Of no account: not subscribed, or known to come twice while the channel is mended.
    Drop,
    /// It came before, and should not have come again.
    Repeated { held: Rev },
    /// Some before it are missing: ask again from `held`.
    Gap { held: Rev },
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    /// Asked for, no answer yet.
    Asked,
    /// Its events come.
    Following,
    /// Asked for again after a gap: only what follows `held` is of use.
    Mending,
    /// The owner takes nothing of it now.
    Aside,
}

#[derive(Debug)]
struct Subscription {
    held: Option<Rev>,
    /// That of `held`.
    incarnation: Option<Incarnation>,
    phase: Phase,
    /// The server has confirmed it once: from then on it is resumed.
    established: bool,
    /// It was asked for again on this connection, so events may come twice.
    overlaps: bool,
    fruitless_mends: u32,
}

impl Subscription {
    fn new(held: Option<Rev>, incarnation: Option<Incarnation>) -> Self {
        Self {
            held,
            incarnation,
            phase: Phase::Asked,
            established: false,
            overlaps: false,
            fruitless_mends: 0,
        }
    }
}

/// What a reconnecting session asks for.
#[derive(Debug, Default)]
pub(super) struct Resumption {
    /// With `hello`.
    pub(super) cursor: Option<Cursor>,
    /// After it.
    pub(super) subscribes: Vec<Subscribe>,
}

#[derive(Debug, Default)]
pub(super) struct Subscriptions {
    channels: HashMap<ChannelId, Subscription>,
    /// All channels that the user is a member of are followed.
    mine: bool,
    me: Option<UserId>,
    incarnation: Option<Incarnation>,
    /// Channels whose head was announced and not reached: when to look again, and from where.
    suspects: BTreeSet<(u64, ChannelId, Rev, Rev)>,
}

impl Subscriptions {
    /// The owner subscribes.
    pub(super) fn handle_asked(&mut self, subscribe: &Subscribe) {
        let Channels::These(channels) = &subscribe.channels else { return };
        let incarnation = subscribe.incarnation.or(self.incarnation);
        for asked in channels {
            match self.channels.get_mut(&asked.id) {
                Some(subscription) => {
                    subscription.held = asked.from.or(subscription.held);
                    subscription.phase = Phase::Mending;
                    subscription.overlaps = true;
                }
                None => {
                    self.channels.insert(asked.id, Subscription::new(asked.from, incarnation));
                }
            }
        }
    }

    /// Brings a command that is sent again up to what is held by now.
    pub(super) fn renew(&self, subscribe: &mut Subscribe) {
        let Channels::These(channels) = &mut subscribe.channels else { return };
        for asked in channels {
            if let Some(subscription) = self.channels.get(&asked.id) {
                asked.from = subscription.held.or(asked.from);
                if subscription.held.is_some() {
                    subscribe.incarnation = subscription.incarnation.or(subscribe.incarnation);
                }
            }
        }
    }

    /// The server has confirmed a channel.
    pub(super) fn handle_subscribed(&mut self, subscribed: &Subscribed) {
        let incarnation = self.incarnation;
        let subscription = self
            .channels
            .entry(subscribed.channel)
            .or_insert_with(|| Subscription::new(None, incarnation));
        if subscription.held.is_none() {
            subscription.held = subscribed.rev;
            subscription.incarnation = incarnation;
        }
        if subscription.phase != Phase::Aside {
            subscription.phase = Phase::Following;
        }
        subscription.established = true;
    }

    /// All of the caller's channels are followed from now on.
    pub(super) fn handle_mine(&mut self) {
        self.mine = true;
    }

    /// The inbox says that the user is in another channel now, whose events follow `rev`.
    pub(super) fn handle_added(&mut self, channel: ChannelId, incarnation: Incarnation, rev: Rev) {
        if self.mine {
            let mut new = Subscription::new(Some(rev), Some(incarnation));
            (new.phase, new.established) = (Phase::Following, true);
            self.channels.entry(channel).or_insert(new);
        }
    }

    /// A channel is followed no more.
    pub(super) fn remove(&mut self, channel: ChannelId) -> bool {
        self.channels.remove(&channel).is_some()
    }

    /// An event's place in its channel.
    pub(super) fn handle_event(&mut self, channel: ChannelId, rev: Rev) -> Verdict {
        let subscription = match self.channels.get_mut(&channel) {
            Some(subscription) => subscription,
            None if self.mine => {
                let mut new = Subscription::new(None, self.incarnation);
                (new.phase, new.established) = (Phase::Following, true);
                self.channels.entry(channel).or_insert(new)
            }
            None => return Verdict::Drop,
        };
        match subscription.held {
            _ if subscription.phase == Phase::Aside => Verdict::Drop,
            Some(held) if rev > held.next() && subscription.phase == Phase::Mending => {
                Verdict::Drop
            }
            Some(held) if rev > held.next() => Verdict::Gap { held },
            Some(held) if rev <= held && subscription.overlaps => Verdict::Drop,
            Some(held) if rev <= held => Verdict::Repeated { held },
            _ => {
                subscription.held = Some(rev);
                subscription.fruitless_mends = 0;
                Verdict::Deliver
            }
        }
    }

    /// The server says that everything up to `rev` was sent. Gives what is held if that is less.
    pub(super) fn handle_live(&mut self, channel: ChannelId, rev: Rev) -> Option<Rev> {
        let subscription = self.channels.get_mut(&channel)?;
        let settled = matches!(subscription.phase, Phase::Asked | Phase::Following);
        subscription.held.filter(|held| *held < rev && settled)
    }

    /// The server cannot go on from what is held.
    pub(super) fn handle_reset(&mut self, reset: &Reset) -> bool {
        let subscription = match self.channels.get_mut(&reset.channel) {
            Some(subscription) => subscription,
            None if self.mine => self
                .channels
                .entry(reset.channel)
                .or_insert_with(|| Subscription::new(None, Some(reset.incarnation))),
            None => return false,
        };
        subscription.held = Some(reset.base);
        subscription.incarnation = Some(reset.incarnation);
        subscription.fruitless_mends = 0;
        true
    }

    /// The question that mends a channel, or none if that was tried in vain.
    pub(super) fn mend(&mut self, channel: ChannelId) -> Option<Subscribe> {
        let subscription = self.channels.get_mut(&channel)?;
        subscription.fruitless_mends += 1;
        if subscription.fruitless_mends > FRUITLESS_MENDS_MAX {
            return None;
        }
        subscription.phase = Phase::Mending;
        subscription.overlaps = true;
        Some(Subscribe {
            channels: Channels::These(vec![ChannelFrom { id: channel, from: subscription.held }]),
            incarnation: subscription.incarnation,
        })
    }

    /// The owner did not take the event at `rev`, nor anything after it.
    pub(super) fn put_aside(&mut self, channel: ChannelId, rev: Rev) {
        if let Some(subscription) = self.channels.get_mut(&channel) {
            let before = Rev::new(rev.get().saturating_sub(1));
            subscription.held = subscription.held.map(|held| held.min(before));
            subscription.phase = Phase::Aside;
        }
    }

    /// The questions that go on with what was put aside.
    pub(super) fn take_up(&mut self) -> Vec<Subscribe> {
        let mut questions = Vec::new();
        for (channel, subscription) in &mut self.channels {
            if subscription.phase == Phase::Aside {
                subscription.phase = Phase::Mending;
                subscription.overlaps = true;
                questions.push(Subscribe {
                    channels: Channels::These(vec![ChannelFrom {
                        id: *channel,
                        from: subscription.held,
                    }]),
                    incarnation: subscription.incarnation,
                });
            }
        }
        questions
    }

    /// Heads came with a heartbeat: those that are ahead are looked at again a little later.
    pub(super) fn handle_heads(&mut self, now_ms: u64, heads: &[(ChannelId, Rev)]) {
        for (channel, head) in heads {
            let Some(subscription) = self.channels.get(channel) else { continue };
            let Some(held) = subscription.held.filter(|held| held < head) else { continue };
            if self.suspects.iter().any(|(_, suspect, ..)| suspect == channel) {
                continue;
            }
            self.suspects.insert((now_ms + BEACON_GRACE_MS, *channel, held, *head));
        }
    }

    /// A channel that stood still below its head for the whole grace: (channel, held, head).
    pub(super) fn poll_behind(&mut self, now_ms: u64) -> Option<(ChannelId, Rev, Rev)> {
        while self.suspects.first().is_some_and(|(due_ms, ..)| *due_ms <= now_ms) {
            let (_, channel, held_then, head) = self.suspects.pop_first()?;
            let Some(subscription) = self.channels.get(&channel) else { continue };
            let Some(held) = subscription.held.filter(|held| *held < head) else { continue };
            if held == held_then && subscription.phase == Phase::Following {
                return Some((channel, held, head));
            }
            self.suspects.insert((now_ms + BEACON_GRACE_MS, channel, held, head));
        }
        None
    }

    /// When [`Subscriptions::poll_behind`] is to be called next.
    pub(super) fn next_due_ms(&self) -> Option<u64> {
        self.suspects.first().map(|(due_ms, ..)| *due_ms)
    }

    /// The connection is gone.
    pub(super) fn handle_lost(&mut self) {
        self.suspects.clear();
        for subscription in self.channels.values_mut() {
            subscription.phase = Phase::Asked;
            subscription.overlaps = false;
            subscription.fruitless_mends = 0;
        }
    }

    /// Signed in.
    pub(super) fn handle_connected(&mut self, me: UserId, incarnation: Incarnation) {
        self.me = Some(me);
        self.incarnation = Some(incarnation);
    }

    /// Who the session is.
    pub(super) fn me(&self) -> Option<UserId> {
        self.me
    }

    /// Everything established, so that it goes on where it stopped: as much with `hello` as fits
    /// `cursor_max` entries, the rest after it.
    pub(super) fn resume(&self, cursor_max: usize) -> Resumption {
        let mut by_incarnation: HashMap<Option<Incarnation>, Vec<(ChannelId, Option<Rev>)>> =
            HashMap::new();
        for (channel, subscription) in &self.channels {
            if subscription.established {
                let incarnation = subscription.held.and(subscription.incarnation);
                let entry = (*channel, subscription.held);
                by_incarnation.entry(incarnation).or_default().push(entry);
            }
        }
        let mut resumption = Resumption::default();
        for (incarnation, mut entries) in by_incarnation {
            entries.sort_unstable(); // the same request for the same state
            let mut rest = entries.as_slice();
            if let Some(incarnation) = incarnation.filter(|_| resumption.cursor.is_none()) {
                let (first, others) = entries.split_at(entries.len().min(cursor_max));
                let channels = first.iter().filter_map(|(id, held)| Some((*id, (*held)?)));
                resumption.cursor = Some(Cursor { incarnation, channels: channels.collect() });
                rest = others;
            }
            if !rest.is_empty() {
                let channels = rest.iter().map(|(id, from)| ChannelFrom { id: *id, from: *from });
                let channels = Channels::These(channels.collect());
                resumption.subscribes.push(Subscribe { channels, incarnation });
            }
        }
        if self.mine {
            let subscribe = Subscribe { channels: Channels::Mine, incarnation: None };
            resumption.subscribes.push(subscribe);
        }
        resumption
    }

    /// The question for one channel whose subscription failed for a while.
    pub(super) fn ask_again(&self, channel: ChannelId) -> Option<Subscribe> {
        let subscription = self.channels.get(&channel)?;
        Some(Subscribe {
            channels: Channels::These(vec![ChannelFrom { id: channel, from: subscription.held }]),
            incarnation: subscription.held.and(subscription.incarnation),
        })
    }
}
