//! The machine: its parts, its phases and its clockwork. What each part does stands beside it.

use std::collections::VecDeque;

use chappe_protocol::ChannelId;
use chappe_storage::log::Offset;
use chappe_uplink::{Generation, Heads, Response};

use crate::{
    action::{Action, PipeId},
    answers::Answers,
    append::{Lead, Offered},
    config::{Assignment, Config, Leadership, Now},
    confirm::Flight,
    count::Count,
    expiry::Expiry,
    halt::Halt,
    hot::Hot,
    id_map::{IdMap, id_map},
    jobs::Jobs,
    lease::Lease,
    names::Freeing,
    noted::Noted,
    order::Order,
    projection::Projection,
    record::Lineage,
    relay::Relay,
    row::RowValue,
    slot::{Slot, Waiting},
    tail::Retained,
    takeover::{Asking, Replay},
    tally::Tally,
};

/// One partition, led or to be led by this process.
///
/// Feed it with `handle_*`; after each call take its actions with [`Partition::poll_action`] until
/// there are none, and call [`Partition::handle_tick`] no later than [`Partition::deadline`].
pub struct Partition {
    pub(crate) config: Config,
    pub(crate) phase: Phase,
    pub(crate) assignment: Option<Assignment>,
    /// Set while the leadership rests on a noted checkpoint alone.
    pub(crate) noted: Option<Noted>,
    /// Whether a takeover may go on from a noted checkpoint: not after one that did not fit.
    pub(crate) trusts_notes: bool,
    /// Since when the log seems to end too early.
    pub(crate) behind_since_ms: Option<u64>,
    /// Counts claims of this process, so that what was appended under an earlier one is told
    /// apart.
    pub(crate) term: u64,
    /// What the log says up to the last confirmed record.
    pub(crate) count: Count,
    pub(crate) lead: Lead,
    pub(crate) slots: IdMap<ChannelId, Slot>,
    pub(crate) hot: Hot,
    pub(crate) jobs: Jobs,
    pub(crate) retained: Retained,
    /// Requests in the order in which they are taken up.
    pub(crate) ready: VecDeque<Waiting>,
    /// Requests that wait in a slot.
    pub(crate) parked: usize,
    pub(crate) nonces: usize,
    pub(crate) offered: Option<Offered>,
    pub(crate) flight: Flight,
    pub(crate) answers: Answers,
    pub(crate) lease: Lease,
    pub(crate) order: Order,
    pub(crate) projection: Projection,
    pub(crate) relay: Relay,
    pub(crate) freeing: Freeing,
    pub(crate) expiry: Expiry,
    /// Publishes are refused, with this time to wait: the projection is behind.
    pub(crate) behind_ms: Option<u64>,
    pub(crate) actions: VecDeque<Action>,
    pub(crate) scratch: Vec<u8>,
    /// Memory for records that are handed to the log.
    pub(crate) records: bytes::BytesMut,
    pub(crate) tally: Tally,
    pub(crate) back_off_ms: u64,
    /// When slots are looked through for what waited too long.
    pub(crate) parked_at_ms: u64,
    /// Someone hears a channel, or did a moment ago.
    pub(crate) heard: bool,
    heads_at_ms: u64,
    sweep_at_ms: u64,
    idle: VecDeque<(u64, ChannelId)>,
}

/// Where a partition stands between having nothing to do with its log and leading it.
#[derive(Debug)]
pub(crate) enum Phase {
    /// Not assigned.
    Idle,
    /// Asking the log and the store how things stand, before the claim or after it.
    Asking(Box<Asking>),
    /// The claim is to be appended, or is on its way.
    Claiming,
    /// Reading what the log says since the checkpoint.
    Replaying(Replay),
    /// Deciding.
    Leading,
    /// No longer leading; claims again at this time, if it may.
    Deposed {
        again_ms: u64,
    },
    /// Leading still, but deciding nothing more.
    HandingOver {
        until_ms: u64,
    },
    Halted(Halt),
}

/// Where a partition stands, for status pages and metrics.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Standing {
    /// Not assigned to this process.
    Idle,
    /// On its way to lead.
    TakingOver,
    /// It leads.
    Leading,
    /// It led, and will claim again.
    Deposed,
    /// It stopped for good.
    Halted,
}

impl Partition {
    /// A partition that is not assigned yet.
    pub fn new(config: Config) -> Self {
        let bounds = &config.bounds;
        let seed = config.seed;
        Self {
            phase: Phase::Idle,
            assignment: None,
            noted: None,
            trusts_notes: true,
            behind_since_ms: None,
            term: 0,
            count: Count::new(Lineage(0), chappe_protocol::Incarnation(0)),
            lead: Lead::default(),
            slots: id_map(seed),
            hot: Hot::new(config.id, seed, bounds.hot_rows_max, bounds.hot_messages_max),
            jobs: Jobs::new(),
            retained: Retained::default(),
            ready: VecDeque::new(),
            parked: 0,
            nonces: 0,
            offered: None,
            flight: Flight::default(),
            answers: Answers::default(),
            lease: Lease::new(config.leadership),
            order: Order::new(seed),
            projection: Projection::new(config.id),
            relay: Relay::new(seed, bounds.outbox_rows_max, bounds.relays_max),
            freeing: Freeing::default(),
            expiry: Expiry::default(),
            behind_ms: None,
            actions: VecDeque::new(),
            scratch: Vec::new(),
            records: bytes::BytesMut::new(),
            tally: Tally::default(),
            back_off_ms: 0,
            parked_at_ms: 0,
            heard: false,
            heads_at_ms: 0,
            sweep_at_ms: 0,
            idle: VecDeque::new(),
            config,
        }
    }

    /// The next thing to do, if there is one.
    pub fn poll_action(&mut self) -> Option<Action> {
        self.actions.pop_front()
    }

    /// Does what is due. Early calls are harmless.
    pub fn handle_tick(&mut self, now: Now) {
        self.retry_takeover(now);
        self.expire_waiting(now);
        self.beat(now);
        self.hand_over(now);
        self.project(now);
        self.send_relays(now);
        self.tell_heads(now);
        self.sweep(now);
        self.proceed(now);
    }

    /// When [`Partition::handle_tick`] is due at the latest, on the clock of [`Now::boot_ms`].
    pub fn deadline(&self, now: Now) -> u64 {
        let mut deadline = now.boot_ms + IDLE_TICK_MS;
        if matches!(self.phase, Phase::Halted(_)) {
            return deadline;
        }
        let mut due = |at: Option<u64>| deadline = deadline.min(at.unwrap_or(u64::MAX));
        due(self.takeover_due(now));
        due(self.waiting_due());
        due(self.beat_due());
        due(self.hand_over_due());
        due(self.projection.due(&self.config.bounds));
        due(self.lease.silent_until(now).filter(|_| !self.answers.is_empty()));
        if self.leads() {
            due(self.heard.then_some(self.heads_at_ms));
            due(self.relay.due());
        }
        deadline.max(now.boot_ms + 1)
    }

    /// The process's facts that the store lacks passed half their budget (or no longer): client
    /// commands are refused and told to wait `retry_after_ms`.
    pub fn handle_backlog(&mut self, retry_after_ms: Option<u64>) {
        self.behind_ms = retry_after_ms;
    }

    /// What happened since this was last called.
    pub fn take_tally(&mut self) -> Tally {
        std::mem::take(&mut self.tally)
    }

    /// Which partition this is.
    pub const fn id(&self) -> chappe_protocol::PartitionId {
        self.config.id
    }

    /// Where it stands.
    pub const fn standing(&self) -> Standing {
        match self.phase {
            Phase::Idle => Standing::Idle,
            Phase::Asking(_) | Phase::Claiming | Phase::Replaying(_) => Standing::TakingOver,
            Phase::Leading | Phase::HandingOver { .. } => Standing::Leading,
            Phase::Deposed { .. } => Standing::Deposed,
            Phase::Halted(_) => Standing::Halted,
        }
    }

    /// Whether it is handed over and nothing of it is left to do: the store has what the log has,
    /// and its checkpoint says so.
    pub fn has_ended(&self) -> bool {
        match self.phase {
            Phase::Idle => self.projection.is_saved(),
            Phase::Halted(_) => true,
            _ => false,
        }
    }

    /// Why it stopped, if it did.
    pub const fn halt(&self) -> Option<&Halt> {
        match &self.phase {
            Phase::Halted(halt) => Some(halt),
            _ => None,
        }
    }

    /// The bytes of confirmed facts that the store lacks, and when the oldest was confirmed.
    ///
    /// None for one that stopped for good: what it lacks must not stop the others.
    pub fn unprojected(&self) -> (usize, Option<u64>) {
        if matches!(self.phase, Phase::Halted(_)) {
            return (0, None);
        }
        self.projection.backlog()
    }

    /// How many confirmed facts the store lacks.
    pub const fn unprojected_records(&self) -> usize {
        self.projection.facts()
    }

    /// The offset after the last record that is known here to count.
    pub const fn end(&self) -> Offset {
        self.flight.next
    }

    /// The offset below which everything is in the store, durably and by its own account.
    pub fn checkpoint(&self) -> Option<Offset> {
        self.projection.checkpoint()
    }

    /// That checkpoint in full, to be kept where a successor finds it when the store is down.
    pub fn checkpoint_noted(&self) -> Option<bytes::Bytes> {
        self.projection.noted().map(|row| RowValue::Checkpoint(*row).encode())
    }

    /// The leadership in force here, while it decides.
    pub const fn generation(&self) -> Generation {
        self.lead.generation
    }

    /// Whether it decides or hands over: answers are its to give.
    pub(crate) const fn leads(&self) -> bool {
        matches!(self.phase, Phase::Leading | Phase::HandingOver { .. })
    }

    /// Whether it may show what is confirmed though it does not decide: nobody else can lead.
    pub(crate) fn shows(&self) -> bool {
        self.leads()
            || (self.config.leadership == Leadership::Lock
                && self.flight.next > Offset(0)
                && !matches!(self.phase, Phase::Halted(_) | Phase::Idle))
    }

    /// The slot of a channel, made if there is none.
    pub(crate) fn slot(&mut self, channel: ChannelId, now_ms: u64) -> &mut Slot {
        let slot = self.slots.entry(channel).or_insert_with(|| {
            self.idle.push_back((now_ms, channel));
            Slot::new(now_ms)
        });
        slot.used_ms = now_ms;
        slot
    }

    /// Stops for good.
    pub(crate) fn halt_by(&mut self, now: Now, halt: Halt) {
        self.drop_leadership(now);
        self.actions.push_back(Action::Halted(halt.clone()));
        self.phase = Phase::Halted(halt);
        self.drain_ready(now);
    }

    /// Tells every pipe the heads of the channels that it hears.
    fn tell_heads(&mut self, now: Now) {
        if !self.leads() || !self.heard || now.boot_ms < self.heads_at_ms || !self.lease.speaks(now)
        {
            return;
        }
        self.heads_at_ms = now.boot_ms + self.config.bounds.heads_ms;
        let mut heads: Vec<(PipeId, ChannelId, chappe_protocol::Rev)> = Vec::new();
        for (channel, slot) in &self.slots {
            heads.extend(slot.pipes.iter().map(|pipe| (*pipe, *channel, slot.told)));
        }
        heads.sort_unstable_by_key(|(pipe, channel, _)| (*pipe, *channel));
        for of_pipe in heads.chunk_by(|a, b| a.0 == b.0) {
            let heads = of_pipe.iter().map(|(_, channel, rev)| (*channel, *rev)).collect();
            let response = Response::Heads(Heads { heads });
            self.actions.push_back(Action::Respond { pipe: of_pipe[0].0, response });
        }
    }

    /// Forgets channels that nobody uses, and sessions that had a retry long ago.
    fn sweep(&mut self, now: Now) {
        if now.boot_ms < self.sweep_at_ms {
            return;
        }
        self.sweep_at_ms = now.boot_ms + SWEEP_MS;
        self.order.expire(now.boot_ms);
        self.make_room_for_nonces(now);
        self.heard = self.slots.values().any(Slot::is_heard);
        let mut surplus = self.surplus();
        let bounds = &self.config.bounds;
        for _ in 0..self.idle.len() {
            let Some((since_ms, channel)) = self.idle.front().copied() else { return };
            if surplus == 0 && since_ms + bounds.idle_ms > now.boot_ms {
                return;
            }
            self.idle.pop_front();
            let Some(slot) = self.slots.get_mut(&channel) else { continue };
            let idle = surplus > 0 || slot.used_ms + bounds.idle_ms <= now.boot_ms;
            if !idle || !slot.may_forget() {
                self.idle.push_back((now.boot_ms, channel));
                continue;
            }
            surplus -= usize::from(surplus > 0 && slot.is_kept());
            self.nonces -= slot.known().map_or(0, |state| state.nonces.len());
            self.hot.forget(channel, slot);
            if slot.is_heard() {
                slot.state = crate::slot::State::Unknown;
                self.idle.push_back((now.boot_ms, channel));
            } else {
                self.slots.remove(&channel);
            }
        }
    }

    /// How many channels are kept beyond what may be. One that is heard and not loaded costs next
    /// to nothing and is not counted.
    fn surplus(&self) -> usize {
        let most = self.config.bounds.channels_max;
        if self.slots.len() <= most {
            return 0;
        }
        self.slots.values().filter(|slot| slot.is_kept()).count().saturating_sub(most)
    }
}

/// A tick is never further away than this.
const IDLE_TICK_MS: u64 = 5_000;
const SWEEP_MS: u64 = 1_000;
