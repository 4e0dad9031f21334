//! One thread of the broker: moves things between its partitions, the log, the store and the pipes.
//!
//! It decides nothing. Whatever happened since the last round is handed to the cores in one go,
//! then their actions are carried out: so the appends of a round share a commit, and a pipe's
//! reader is woken once.

mod calls;
mod inbox;
mod outage;
mod owned;
mod pipes;
mod relays;

use std::{
    collections::{BTreeSet, VecDeque},
    rc::Rc,
    sync::Arc,
    time::Duration,
};

use chappe_partition::{Action, Assignment, Leadership, Now, Partition, StoreRead, Tally};
use chappe_protocol::PartitionId;
use chappe_storage::{
    log::{Acked, Acks, Appender, Log},
    ownership::{Change, Ownership},
    store::Store,
};
use chappe_uplink::Broker;
use tokio::{
    sync::{Semaphore, mpsc, oneshot, watch},
    time::{Instant, sleep_until},
};

pub(crate) use self::outage::Outage;
use self::{
    calls::Calls,
    inbox::{Inbox, Input},
    owned::Owned,
    pipes::Pipes,
    relays::Relays,
};
use crate::{
    budget::Budget,
    clock::now,
    local::{Mail, Shared},
    overview::{self, Told},
};

/// How long the projection may go on after everything was handed over.
const FLUSH_MS: u64 = 5_000;

/// What a driver is started with.
pub(crate) struct Seat {
    pub(crate) index: usize,
    pub(crate) partitions: Vec<Partition>,
    pub(crate) log: Arc<dyn Log>,
    pub(crate) store: Arc<dyn Store>,
    pub(crate) store_calls_max: usize,
    /// What is known of the store failing, by all threads.
    pub(crate) outage: Arc<Outage>,
    pub(crate) ownership: Arc<dyn Ownership>,
    pub(crate) assignment: Assignment,
    pub(crate) leadership: Leadership,
    /// The way to the leaders of inboxes.
    pub(crate) relays: Arc<dyn Broker>,
    pub(crate) mail: mpsc::Receiver<Mail>,
    pub(crate) shared: Arc<Shared>,
    pub(crate) budget: Arc<Budget>,
    pub(crate) stop: watch::Receiver<bool>,
}

/// One thread's partitions and all that they need.
pub(crate) struct Driver {
    index: usize,
    /// Partition `p` stands at `p / drivers`.
    partitions: Vec<Partition>,
    deadlines_ms: Vec<u64>,
    /// The partitions that were handed something in this round.
    touched: BTreeSet<usize>,
    appender: Box<dyn Appender>,
    acks: Acks,
    inbox: Inbox,
    inputs: VecDeque<Input>,
    calls: Calls,
    pipes: Pipes,
    relays: Relays,
    owned: Owned,
    shared: Arc<Shared>,
    budget: Arc<Budget>,
    backlog_bytes: usize,
    behind_ms: Option<u64>,
    /// How far its partitions are to be sealed, if anybody said so.
    seal: Option<u8>,
    stop: watch::Receiver<bool>,
    /// When it stops at the latest, once it was told to.
    stop_at_ms: Option<u64>,
}

impl Driver {
    /// Takes the seat. Must be called within the local task set that will run it.
    pub(crate) fn new(seat: Seat) -> Self {
        let Seat { index, partitions, log, store, store_calls_max, outage, mail, .. } = seat;
        let Seat { shared, budget, stop, ownership, assignment, leadership, relays, .. } = seat;
        let inbox = Inbox::default();
        let permits = Rc::new(Semaphore::new(store_calls_max));
        let (appender, acks) = log.appender();
        tokio::task::spawn_local(pipes::read_mail(mail, inbox.clone()));
        Self {
            index,
            deadlines_ms: vec![0; partitions.len()],
            partitions,
            touched: BTreeSet::new(),
            appender,
            acks,
            calls: Calls { log, store, inbox: inbox.clone(), permits, outage },
            pipes: Pipes::new(index, Arc::clone(&shared), inbox.clone()),
            relays: Relays::new(relays, inbox.clone()),
            owned: Owned::new(ownership, assignment, leadership, inbox.clone()),
            inbox,
            inputs: VecDeque::new(),
            shared,
            budget,
            backlog_bytes: 0,
            behind_ms: None,
            seal: None,
            stop,
            stop_at_ms: None,
        }
    }

    /// Runs until it was told to stop and has.
    pub(crate) async fn run(mut self) {
        while !self.has_stopped() {
            let wait_ms = self.next_deadline_ms().saturating_sub(now().boot_ms);
            let deadline = Instant::now() + Duration::from_millis(wait_ms);
            tokio::select! {
                biased;
                acked = self.acks.recv() => match acked {
                    Some(acked) => self.take_acked(acked),
                    None => break, // the log is gone, and with it everything to do
                },
                () = self.inbox.filled() => {}
                () = sleep_until(deadline) => {}
                told = self.stop.changed(), if self.stop_at_ms.is_none() => {
                    // A dropped handle is an order to stop as well.
                    if told.is_err() || *self.stop.borrow() {
                        self.hand_over();
                    }
                }
            }
            self.take_inputs();
            self.tick();
            self.act();
            self.report();
        }
    }

    fn next_deadline_ms(&self) -> u64 {
        let deadline = self.deadlines_ms.iter().copied().min().unwrap_or(u64::MAX);
        deadline.min(self.stop_at_ms.unwrap_or(u64::MAX)).min(now().boot_ms + 1_000)
    }

    fn take_acked(&mut self, first: Vec<Acked>) {
        let mut batch = Some(first);
        let now = now();
        while let Some(acked) = batch {
            for Acked { partition, token, result } in acked {
                self.touch(partition).handle_acked(now, token, result);
            }
            batch = self.acks.try_recv().ok();
        }
    }

    fn take_inputs(&mut self) {
        let mut inputs = std::mem::take(&mut self.inputs);
        self.inbox.take(&mut inputs);
        let now = now();
        for input in inputs.drain(..) {
            match input {
                Input::Opened(pipe, responses, requests) => {
                    self.pipes.opened(pipe, responses, requests);
                }
                Input::Closed(pipe) => self.close_pipe(pipe),
                Input::Request(pipe, request) => {
                    let partition = self.shared.partition_of(&request);
                    self.touch(partition).handle_request(now, pipe, request);
                }
                Input::Ownership(change) => self.take_change(now, change),
                Input::Seal(stage) => self.seal = Some(stage),
                Input::Committed(id, outcome) => {
                    if self.owned.committed(id, outcome) {
                        self.claim_again(now, id);
                    }
                }
                Input::Bounds(id, token, bounds) => {
                    self.touch(id).handle_bounds(now, token, bounds);
                }
                Input::Log(id, token, read) => self.touch(id).handle_log(now, token, read),
                Input::Found(id, token, found) => self.touch(id).handle_found(now, token, found),
                Input::Written(id, token, written) => {
                    self.touch(id).handle_written(now, token, written);
                }
                Input::NameClaimed(id, token, claimed) => {
                    self.touch(id).handle_name_claimed(now, token, claimed);
                }
                Input::Relayed(id, token, outcome) => {
                    self.touch(id).handle_relayed(now, token, outcome);
                }
                Input::Tell(whom) => self.tell(now, whom),
            }
        }
        self.inputs = inputs;
    }

    fn tell(&self, now: Now, whom: oneshot::Sender<Told>) {
        let told = self.partitions.iter().filter_map(|partition| overview::of(partition, now));
        let told = Told { partitions: told.collect(), pipes: self.pipes.len() };
        drop(whom.send(told)); // whoever asked may have gone
    }

    fn take_change(&mut self, now: Now, change: Change) {
        let assignment = self.owned.assignment;
        match change {
            // Told to stop, it takes nothing up any more: what it owns is about to be given up.
            Change::Assigned(id) if self.stop_at_ms.is_none() => {
                self.owned.gain(id);
                self.touch(id).handle_assigned(now, assignment);
            }
            Change::Assigned(_) => {}
            Change::Revoked(id) => {
                self.owned.lose(id);
                self.touch(id).handle_revoked(now);
            }
            Change::Lost(id) => {
                self.owned.lose(id);
                self.touch(id).handle_lost(now);
            }
        }
    }

    /// A deposed leader whose ownership was proved after the deposition goes on.
    fn claim_again(&mut self, now: Now, id: PartitionId) {
        let assignment = self.owned.assignment;
        let index = self.index_of(id);
        if self.owned.may_claim_again(&self.partitions[index], now) {
            self.touch(id).handle_assigned(now, assignment);
        }
    }

    fn tick(&mut self) {
        let now = now();
        for (index, partition) in self.partitions.iter_mut().enumerate() {
            if self.deadlines_ms[index] <= now.boot_ms || self.touched.contains(&index) {
                partition.handle_tick(now);
                self.touched.insert(index);
            }
            if let Some(stage) = self.seal
                && partition.handle_seal(now, stage)
            {
                self.touched.insert(index);
            }
        }
    }

    /// Carries out what the touched partitions ask for.
    fn act(&mut self) {
        while let Some(index) = self.touched.pop_first() {
            while let Some(action) = self.partitions[index].poll_action() {
                self.carry_out(index, action);
            }
            self.deadlines_ms[index] = self.partitions[index].deadline(now());
            tell_metrics(self.partitions[index].take_tally());
        }
        self.appender.flush();
        self.pipes.wake();
    }

    fn carry_out(&mut self, index: usize, action: Action) {
        let id = self.partitions[index].id();
        let action = if self.partitions[index].may_use_store() {
            action
        } else {
            match self.calls.without_store(id, action) {
                Some(action) => action,
                None => return,
            }
        };
        match action {
            Action::Append { token, record } => {
                let taken = self.appender.append(id, token, record);
                self.partitions[index].handle_appended(now(), taken);
            }
            Action::ReadBounds { token } => self.calls.read_bounds(id, token),
            Action::ReadLog { token, from, until } => self.calls.read_log(id, token, from, until),
            Action::Trim { below } => self.calls.trim(id, below),
            Action::ReadStore { token, read: StoreRead::Checkpoint { or_noted: true } } => {
                self.calls.read_checkpoint(id, token, self.owned.noted(id));
            }
            Action::ReadStore { token, read } => self.calls.read_store(id, token, read),
            Action::WriteStore { token, rows } => self.calls.write_store(id, token, rows),
            Action::ClaimName { token, name, value } => {
                self.calls.claim_name(id, token, name, value);
            }
            Action::ReleaseName { token, name, value } => {
                self.calls.release_name(id, token, name, value);
            }
            Action::ExpireEvents { token, channel, up_to } => {
                self.calls.expire_events(id, token, channel, up_to);
            }
            Action::Relay { token, command } => self.relays.send(id, token, command),
            Action::Respond { pipe, response } => {
                if !self.pipes.send(pipe, response) {
                    self.close_pipe(pipe);
                }
            }
            Action::Leads(generation) => {
                if self.shared.leading.set(id, generation) {
                    self.owned.log(id, generation);
                    self.pipes.tell_leading();
                }
            }
            Action::HandedOver => {
                self.owned.release(id);
                // Taken away and given back before it was handed over.
                if self.owned.holds(id) {
                    let assignment = self.owned.assignment;
                    self.partitions[index].handle_assigned(now(), assignment);
                }
            }
            Action::Halted(halt) => {
                metrics::counter!("chappe_broker_halted_partitions_total").increment(1);
                tracing::error!(partition = %id, %halt, "the partition stopped for good");
            }
        }
    }

    /// A pipe has ended, or is made to: its gateway attaches everything again on another.
    fn close_pipe(&mut self, pipe: chappe_partition::PipeId) {
        if self.pipes.close(pipe) {
            for (index, partition) in self.partitions.iter_mut().enumerate() {
                partition.handle_pipe_closed(pipe);
                self.touched.insert(index);
            }
        }
    }

    fn touch(&mut self, partition: PartitionId) -> &mut Partition {
        let index = self.index_of(partition);
        self.touched.insert(index);
        &mut self.partitions[index]
    }

    fn index_of(&self, partition: PartitionId) -> usize {
        partition.0 as usize / self.shared.mailboxes.len()
    }

    /// Tells the process's budget what the store lacks, and the cores what the budget says.
    fn report(&mut self) {
        self.owned.look(&self.partitions, now());
        if self.seal.is_some() {
            self.shared.sealings.tell(&self.partitions);
        }
        let (mut bytes, mut oldest_ms) = (0, None::<u64>);
        for partition in &self.partitions {
            let (of_partition, since_ms) = partition.unprojected();
            bytes += of_partition;
            oldest_ms = match (oldest_ms, since_ms) {
                (Some(a), Some(b)) => Some(a.min(b)),
                (a, b) => a.or(b),
            };
        }
        self.budget.report(self.index, self.backlog_bytes, bytes, oldest_ms);
        self.backlog_bytes = bytes;
        let behind_ms = self.budget.retry_after_ms(now().boot_ms);
        if behind_ms != self.behind_ms {
            self.behind_ms = behind_ms;
            for partition in &mut self.partitions {
                partition.handle_backlog(behind_ms);
            }
        }
    }

    fn hand_over(&mut self) {
        let now = now();
        self.stop_at_ms = Some(now.boot_ms + FLUSH_MS);
        for (index, partition) in self.partitions.iter_mut().enumerate() {
            // Whether anybody else revoked it or not: what is handed over is not taken up again.
            self.owned.lose(partition.id());
            partition.handle_revoked(now);
            self.touched.insert(index);
        }
    }

    /// Stops once everything is handed over and in the store, also that it is, or when its time is
    /// up: what is not in the store then is in the log.
    fn has_stopped(&self) -> bool {
        let Some(at_ms) = self.stop_at_ms else { return false };
        self.partitions.iter().all(Partition::has_ended) || now().boot_ms >= at_ms
    }
}

/// Adds what happened in a partition to the process's counts. Nothing did, most often.
fn tell_metrics(tally: Tally) {
    if tally == Tally::default() {
        return;
    }
    let Tally { voided, deposed, suspended, repeated, given_back } = tally;
    metrics::counter!("chappe_broker_voided_records_total").increment(voided);
    metrics::counter!("chappe_broker_depositions_total").increment(deposed);
    metrics::counter!("chappe_broker_suspended_answers_total").increment(suspended);
    metrics::counter!("chappe_broker_repeated_commands_total").increment(repeated);
    metrics::counter!("chappe_broker_given_back_total").increment(given_back);
}
