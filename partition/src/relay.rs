//! The relay: carries a channel's facts into its members' inboxes, which other partitions hold.
//!
//! Only what lies below the checkpoint is sent, so that nothing is sent that a later leader might
//! project again. For each channel and inbox one fact is under way, and the next follows its `ok`:
//! the inbox hears them once and in order, wherever its leader is. A sent row is removed at its own
//! stamp.

use std::collections::{BTreeSet, VecDeque};

use chappe_protocol::{ChannelId, Incarnation, Nonce, SessionId};
use chappe_storage::{
    log::Offset,
    store::{Key, Mutation, Row, Scan, StoreError},
};
use chappe_uplink as uplink;

use crate::{
    action::{Action, Outcome, StoreFound, StoreRead},
    config::Now,
    halt::Halt,
    id_map::{IdMap, id_map},
    jobs::Job,
    partition::{Partition, Phase},
    projection::Sendable,
    row::{Relayed, RowValue, StampedRow},
};

type Pair = (ChannelId, ChannelId);

pub(crate) struct Relay {
    rows_max: usize,
    relays_max: usize,
    /// Rows that the checkpoint has not passed, by offset.
    above: VecDeque<Sendable>,
    lines: IdMap<Pair, Line>,
    /// Lines whose first row may be sent.
    ready: VecDeque<Pair>,
    /// Lines that wait before they send again.
    later: BTreeSet<(u64, Pair)>,
    under_way: IdMap<u64, Pair>,
    next_token: u64,
    /// Sent rows that are still in the store.
    sent: Vec<Sendable>,
    removing: Vec<Sendable>,
    remove_again_ms: Option<u64>,
    /// Rows held here.
    held: usize,
    store: StoreSide,
    checkpoint: Offset,
    /// Reading the store again is of use only once the checkpoint is here.
    reread_at: Offset,
}

/// What of the outbox is in the store and not in memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum StoreSide {
    /// Nothing.
    Known,
    /// Perhaps something; it is read when what is here was sent.
    Spilled,
    /// It is being read. `more` is whether something was left out meanwhile.
    Reading { more: bool },
    /// Nothing is sent from here.
    Stopped,
}

/// The facts of one channel for one inbox, in order.
#[derive(Default)]
struct Line {
    rows: VecDeque<Sendable>,
    sending: bool,
    back_off_ms: u64,
}

impl Relay {
    pub(crate) fn new(seed: u64, rows_max: usize, relays_max: usize) -> Self {
        Self {
            rows_max,
            relays_max,
            above: VecDeque::new(),
            lines: id_map(seed),
            ready: VecDeque::new(),
            later: BTreeSet::new(),
            under_way: id_map(seed),
            next_token: 1,
            sent: Vec::new(),
            removing: Vec::new(),
            remove_again_ms: None,
            held: 0,
            store: StoreSide::Stopped,
            checkpoint: Offset(0),
            reread_at: Offset(0),
        }
    }

    /// Stops sending; what is not removed from the store is sent again by the next leader.
    pub(crate) fn stop(&mut self) {
        self.above.clear();
        self.lines.clear();
        self.ready.clear();
        self.later.clear();
        self.under_way.clear();
        self.sent.clear();
        self.removing.clear();
        self.remove_again_ms = None;
        self.held = 0;
        self.reread_at = Offset(0);
        self.store = StoreSide::Stopped;
    }

    /// Rows that the projection wrote, in the order of their offsets.
    pub(crate) fn offer(&mut self, rows: &[Sendable]) {
        for row in rows {
            match &mut self.store {
                StoreSide::Stopped => return,
                StoreSide::Known if self.held < self.rows_max => {
                    self.held += 1;
                    self.above.push_back(*row);
                }
                StoreSide::Known => self.store = StoreSide::Spilled,
                StoreSide::Reading { more } => *more = true,
                StoreSide::Spilled => {}
            }
        }
    }

    /// The checkpoint lies at `checkpoint`: rows of facts below it may be sent.
    pub(crate) fn below(&mut self, checkpoint: Offset) {
        self.checkpoint = checkpoint;
        while self.above.front().is_some_and(|row| row.row.offset < checkpoint.0)
            && let Some(row) = self.above.pop_front()
        {
            self.line_up(row);
        }
    }

    /// The lowest offset that the log must keep for what was not sent.
    pub(crate) fn lowest(&self) -> Offset {
        if self.store != StoreSide::Known {
            return Offset(0);
        }
        let lines = self.lines.values().flat_map(|line| &line.rows);
        let rows = self.above.iter().chain(lines).chain(&self.sent).chain(&self.removing);
        rows.map(|row| Offset(row.row.offset)).min().unwrap_or(Offset(u64::MAX))
    }

    /// Whether nothing waits to be sent or removed, here or in the store.
    pub(crate) fn is_empty(&self) -> bool {
        self.store == StoreSide::Known
            && self.held == 0
            && self.sent.is_empty()
            && self.removing.is_empty()
    }

    /// How many rows wait or are under way.
    pub(crate) const fn held(&self) -> usize {
        self.held
    }

    pub(crate) fn due(&self) -> Option<u64> {
        let later = self.later.first().map(|(at, _)| *at);
        let removable = !self.sent.is_empty() && self.removing.is_empty();
        let removal = self.remove_again_ms.or(removable.then_some(0));
        [later, removal].into_iter().flatten().min()
    }

    fn line_up(&mut self, row: Sendable) {
        let Key::Outbox { source, target, .. } = row.key else { return };
        let pair = (source, target);
        let line = self.lines.entry(pair).or_default();
        line.rows.push_back(row);
        if line.rows.len() == 1 {
            self.ready.push_back(pair);
        }
    }

    /// The row that goes out next.
    fn next(&mut self) -> Option<(u64, Sendable)> {
        if self.under_way.len() >= self.relays_max {
            return None;
        }
        loop {
            let pair = self.ready.pop_front()?;
            let Some(line) = self.lines.get_mut(&pair) else { continue };
            let Some(row) = line.rows.front().copied() else { continue };
            assert!(!line.sending, "one fact of a line is under way at a time");
            line.sending = true;
            let token = self.next_token;
            self.next_token += 1;
            self.under_way.insert(token, pair);
            return Some((token, row));
        }
    }

    fn ended(&mut self, now: Now, token: u64, outcome: Outcome) {
        let Some(pair) = self.under_way.remove(&token) else { return };
        let Some(line) = self.lines.get_mut(&pair) else { return };
        line.sending = false;
        if outcome == Outcome::Again {
            line.back_off_ms = (line.back_off_ms * 2).clamp(BACK_OFF_MIN_MS, BACK_OFF_MAX_MS);
            self.later.insert((now.boot_ms + line.back_off_ms, pair));
            return;
        }
        line.back_off_ms = 0;
        if let Some(row) = line.rows.pop_front() {
            self.held -= 1;
            self.sent.push(row);
        }
        if line.rows.is_empty() {
            self.lines.remove(&pair);
        } else {
            self.ready.push_back(pair);
        }
    }

    fn wake(&mut self, now: Now) {
        while let Some((at, pair)) = self.later.first().copied()
            && at <= now.boot_ms
        {
            self.later.pop_first();
            self.ready.push_back(pair);
        }
    }

    /// Whether everything that was held has been sent and removed, and the store may have more.
    fn wants_reading(&self) -> bool {
        self.store == StoreSide::Spilled
            && self.checkpoint >= self.reread_at
            && self.held == 0
            && self.sent.is_empty()
            && self.removing.is_empty()
    }
}

impl Partition {
    /// Says how a relayed command ended.
    pub fn handle_relayed(&mut self, now: Now, token: u64, outcome: Outcome) {
        self.relay.ended(now, token, outcome);
        self.send_relays(now);
    }

    /// How many facts are on their way to inboxes, as far as they are known here.
    pub fn outbox_rows(&self) -> usize {
        self.relay.held()
    }

    /// Goes on with what earlier leaders did not send.
    pub(crate) fn read_outbox(&mut self) {
        self.relay.stop();
        self.relay.store = StoreSide::Reading { more: false };
        self.relay.checkpoint = self.projection.checkpoint().unwrap_or(Offset(0));
        self.ask_outbox();
    }

    fn ask_outbox(&mut self) {
        let token = self.jobs.begin(Job::Outbox);
        let read = StoreRead::Scan(Scan::Outbox(self.config.id), self.relay.rows_max);
        self.actions.push_back(Action::ReadStore { token, read });
    }

    pub(crate) fn outbox_found(&mut self, now: Now, found: Option<StoreFound>) {
        let StoreSide::Reading { more } = self.relay.store else { return };
        let Some(StoreFound::Scanned(rows)) = found else {
            self.relay.store = StoreSide::Spilled; // asked again on a later tick
            self.relay.remove_again_ms = Some(now.boot_ms + BACK_OFF_MIN_MS);
            return;
        };
        let mut left = more || rows.len() == self.relay.rows_max;
        let (below, of) =
            (self.relay.checkpoint.0, self.projection.noted().map(|of| of.incarnation));
        // An adoption may go on from the store on another log: the offsets of the one before say
        // nothing there, and nobody projects its facts again.
        let is_of_earlier = |row: &Sendable| of.is_some_and(|of| row.stamp.incarnation() < of);
        for (key, row) in rows {
            match self.sendable(key, &row) {
                Some(row) if row.row.offset < below || is_of_earlier(&row) => {
                    self.relay.held += 1;
                    self.relay.line_up(row);
                }
                // Above the checkpoint: it is read again once it is below. Whether it is offered
                // again cannot be told: its batch may be done already, and its checkpoint not.
                Some(row) => {
                    left = true;
                    self.relay.reread_at = self.relay.reread_at.max(Offset(row.row.offset).next());
                }
                None => return self.halt_by(now, Halt::Store("an outbox row".to_owned())),
            }
        }
        self.relay.store = if left { StoreSide::Spilled } else { StoreSide::Known };
        self.send_relays(now);
    }

    fn sendable(&self, key: Key, row: &Row) -> Option<Sendable> {
        match StampedRow::decode(&key, row) {
            Ok(StampedRow { stamp, value: RowValue::Outbox(row) }) => {
                Some(Sendable { key, stamp, row })
            }
            _ => None,
        }
    }

    /// Sends what may be sent, and removes what was.
    pub(crate) fn send_relays(&mut self, now: Now) {
        if !matches!(self.phase, Phase::Leading) || self.relay.store == StoreSide::Stopped {
            return;
        }
        self.relay.wake(now);
        while let Some((token, row)) = self.relay.next() {
            if let Some(command) = command(&row) {
                self.actions.push_back(Action::Relay { token, command: Box::new(command) });
            }
        }
        self.remove_sent(now);
        if self.relay.wants_reading() && self.relay.remove_again_ms.is_none() {
            self.relay.store = StoreSide::Reading { more: false };
            self.relay.reread_at = Offset(0);
            self.ask_outbox();
        }
    }

    fn remove_sent(&mut self, now: Now) {
        if self.relay.remove_again_ms.is_some_and(|at| at > now.boot_ms) {
            return;
        }
        self.relay.remove_again_ms = None;
        if !self.relay.removing.is_empty() || self.relay.sent.is_empty() {
            return;
        }
        let sent = std::mem::take(&mut self.relay.sent);
        let rows = sent.iter();
        let rows = rows.map(|row| Mutation { key: row.key, stamp: row.stamp, value: None });
        let rows: Vec<_> = rows.collect();
        self.relay.removing = sent;
        let token = self.jobs.begin(Job::Sent);
        self.actions.push_back(Action::WriteStore { token, rows });
    }

    pub(crate) fn sent_removed(&mut self, now: Now, result: Result<(), StoreError>) {
        let removing = std::mem::take(&mut self.relay.removing);
        if result.is_err() {
            self.relay.sent.extend(removing);
            self.relay.remove_again_ms = Some(now.boot_ms + BACK_OFF_MAX_MS);
        }
        self.send_relays(now);
    }
}

/// The command that carries a row into its inbox. It needs no nonce of its own: the inbox keeps the
/// last revision that it took from the channel.
fn command(row: &Sendable) -> Option<uplink::Command> {
    let Key::Outbox { source, target, rev, .. } = row.key else { return None };
    let incarnation: Incarnation = row.stamp.incarnation();
    let kind = match row.row.says {
        Relayed::Added(role) => uplink::RelayKind::Added { role },
        Relayed::Removed => uplink::RelayKind::Removed,
        Relayed::Mentioned(seq) => uplink::RelayKind::Mentioned { seq },
    };
    let by = row.row.by;
    let relay = uplink::Relay { source, incarnation, rev, by, kind };
    Some(uplink::Command {
        token: 0,
        caller: uplink::Caller { user: by, name: None, standing: uplink::Standing::Service },
        session: SessionId::new(0),
        attempt: 0,
        position: 0,
        channel: target,
        nonce: Nonce::parse(format!("{source}/{incarnation}/{rev}")).ok()?,
        client_nonce: false,
        age_ms: 0,
        action: uplink::Action::Relay(relay),
    })
}

/// The back-off of one line while its inbox's leader does not take what it sends.
const BACK_OFF_MIN_MS: u64 = 100;
const BACK_OFF_MAX_MS: u64 = 2_000;
