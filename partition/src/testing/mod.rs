//! A world to step partitions through: simulated logs and a store, brokers that can be cut off,
//! and a clock that moves when told to. Everything happens in the order of the script.

mod asking;
mod log;
mod store;
mod trace;

use std::collections::{BTreeMap, VecDeque};

use bytes::Bytes;
use chappe_protocol::{ChannelId, Incarnation, PartitionId};
use chappe_storage::{
    log::{AppendError, AppendRefused, Offset},
    store::StoreError,
};
use chappe_uplink::{Request, Response};

use crate::{
    action::{Action, Outcome, PipeId, StoreRead},
    config::{Assignment, Bounds, Config, Leadership, Now},
    partition::Partition,
    record::{Genesis, Lineage, Record, encode},
};

pub use asking::{Asker, text};
pub use log::SimLog;
pub use store::SimStore;
pub use trace::Trace;

/// The log's identity in every world.
pub const LINEAGE: Lineage = Lineage(7);

/// Brokers, their logs and their store.
pub struct World {
    /// The time on every clock that counts suspension.
    pub now_ms: u64,
    /// One for each partition.
    pub logs: Vec<SimLog>,
    /// The one store.
    pub store: SimStore,
    /// The brokers.
    pub nodes: Vec<Node>,
    /// What was heard, for the script's expectations.
    pub trace: Trace,
    /// Where relayed commands go: the node that leads the inbox's partition, or nowhere.
    pub relay_to: Option<usize>,
    leadership: Leadership,
    bounds: Bounds,
    next_token: u64,
    relays: BTreeMap<u64, (usize, PartitionId, u64)>,
    relayed: VecDeque<Box<chappe_uplink::Command>>,
}

/// One broker process.
pub struct Node {
    /// Its partitions, led or not.
    pub cores: Vec<Partition>,
    /// How far its wall clock is from the others'.
    pub wall_skew_ms: i64,
    /// Appended and not acknowledged, in order.
    pub flying: VecDeque<Flying>,
    /// Its appends stay where they are until the script moves them.
    pub held: bool,
    /// Its log refuses appends with this.
    pub refuses: Option<AppendRefused>,
    /// Calls of the store that wait for the script.
    pub store_calls: VecDeque<(PartitionId, StoreCall)>,
    /// Its calls of the store wait.
    pub store_held: bool,
    /// What it asked for beside: trims, leaderships, halts.
    pub events: Vec<String>,
}

/// A record on its way into the log.
#[derive(Debug, Clone)]
pub struct Flying {
    /// The partition.
    pub partition: PartitionId,
    /// Comes back with the acknowledgement.
    pub token: u64,
    /// Its bytes.
    pub record: Bytes,
}

/// A call of the store.
#[derive(Debug)]
#[allow(missing_docs)]
pub enum StoreCall {
    Read(u64, StoreRead),
    Write(u64, Vec<chappe_storage::store::Mutation>),
    Claim(u64, String, Bytes),
    Release(u64, String, Bytes),
}

impl World {
    /// A world of fresh logs, led under the lock, with one partition and one broker.
    pub fn embedded() -> Self {
        Self::new(Leadership::Lock, 1, 1)
    }

    /// The same with leases, and `nodes` brokers.
    pub fn clustered(nodes: usize) -> Self {
        Self::new(Leadership::LEASE, 1, nodes)
    }

    /// A world of fresh logs.
    pub fn new(leadership: Leadership, partitions: u32, nodes: usize) -> Self {
        Self::with_bounds(leadership, partitions, nodes, Bounds::default())
    }

    /// The same with other bounds.
    pub fn with_bounds(
        leadership: Leadership,
        partitions: u32,
        nodes: usize,
        bounds: Bounds,
    ) -> Self {
        let genesis = Record::Genesis(Genesis { lineage: LINEAGE, partitions });
        let mut world = Self {
            now_ms: 1_000_000,
            logs: (0..partitions).map(|_| SimLog::default()).collect(),
            store: SimStore::default(),
            nodes: Vec::new(),
            trace: Trace::default(),
            relay_to: Some(0),
            leadership,
            bounds,
            next_token: 1,
            relays: BTreeMap::new(),
            relayed: VecDeque::new(),
        };
        for partition in 0..partitions {
            world.inject(partition, &genesis);
        }
        for _ in 0..nodes {
            world.add_node();
        }
        world
    }

    /// Adds a broker that leads nothing yet. Returns its number.
    pub fn add_node(&mut self) -> usize {
        let node = self.nodes.len();
        let cores = (0..self.logs.len() as u32).map(|id| {
            Partition::new(Config {
                id: PartitionId(id),
                partitions: self.logs.len() as u32,
                leader: node as u64,
                address: format!("node-{node}"),
                leadership: self.leadership,
                seed: node as u64 + 1,
                bounds: self.bounds.clone(),
            })
        });
        self.nodes.push(Node {
            cores: cores.collect(),
            wall_skew_ms: 0,
            flying: VecDeque::new(),
            held: false,
            refuses: None,
            store_calls: VecDeque::new(),
            store_held: false,
            events: Vec::new(),
        });
        node
    }

    /// Replaces a broker by one that knows nothing: what it had in flight is gone with it.
    pub fn restart(&mut self, node: usize) {
        self.add_node();
        let fresh = self.nodes.pop();
        self.nodes[node] = fresh.unwrap_or_else(|| unreachable!("a node was just added"));
        self.assign(node);
    }

    /// Tells a broker to lead all partitions, in the incarnation in force.
    pub fn assign(&mut self, node: usize) {
        self.assign_as(node, Incarnation(1));
    }

    /// The same in another incarnation.
    pub fn assign_as(&mut self, node: usize, incarnation: Incarnation) {
        let now = self.now(node);
        for core in &mut self.nodes[node].cores {
            core.handle_assigned(now, Assignment { lineage: LINEAGE, incarnation });
        }
        self.run();
    }

    /// Sends a request to a broker.
    pub fn send(&mut self, node: usize, pipe: u64, request: Request) {
        let now = self.now(node);
        let partition = partition_of(&request, self.logs.len() as u32);
        let core = &mut self.nodes[node].cores[partition.0 as usize];
        core.handle_request(now, PipeId(pipe), request);
        self.run();
    }

    /// The moment on a broker's clocks.
    pub fn now(&self, node: usize) -> Now {
        let wall = WALL_MS as i64 + self.now_ms as i64 + self.nodes[node].wall_skew_ms;
        Now { boot_ms: self.now_ms, wall_ms: wall as u64 }
    }

    /// Lets time pass, with every tick that falls due in between.
    pub fn pass(&mut self, ms: u64) {
        let until = self.now_ms + ms;
        loop {
            let mut next = until;
            for node in 0..self.nodes.len() {
                let now = self.now(node);
                for core in &self.nodes[node].cores {
                    next = next.min(core.deadline(now));
                }
            }
            self.now_ms = next;
            self.tick();
            if self.now_ms >= until {
                return;
            }
        }
    }

    /// Moves the clock without any tick, as when the process stands still.
    pub fn freeze(&mut self, ms: u64) {
        self.now_ms += ms;
    }

    /// Ticks every broker now.
    pub fn tick(&mut self) {
        for node in 0..self.nodes.len() {
            let now = self.now(node);
            for core in &mut self.nodes[node].cores {
                core.handle_tick(now);
            }
        }
        self.run();
    }

    /// Carries out what the brokers ask for, until they ask for nothing more.
    pub fn run(&mut self) {
        loop {
            let mut moved = false;
            for node in 0..self.nodes.len() {
                moved |= self.act(node);
                moved |= self.call_store(node);
                if !self.nodes[node].held {
                    while self.fly(node) {
                        moved = true;
                    }
                }
            }
            while let Some(command) = self.relayed.pop_front() {
                moved = true;
                self.relay(command);
            }
            if !moved {
                return;
            }
        }
    }

    fn relay(&mut self, command: Box<chappe_uplink::Command>) {
        let Some(to) = self.relay_to else {
            return self.relay_ended(command.token, Outcome::Again);
        };
        let now = self.now(to);
        let partition = command.channel.partition(self.logs.len() as u32);
        let core = &mut self.nodes[to].cores[partition.0 as usize];
        core.handle_request(now, PipeId(RELAY_PIPE), Request::Command(command));
    }

    /// Lands the oldest record in flight and acknowledges it. False if there is none.
    pub fn fly(&mut self, node: usize) -> bool {
        let Some(flying) = self.nodes[node].flying.pop_front() else { return false };
        let offset = self.logs[flying.partition.0 as usize].push(flying.record);
        self.ack(node, flying.partition, flying.token, Ok(offset));
        true
    }

    /// Lands the oldest record in flight; its acknowledgement is the script's affair.
    pub fn land(&mut self, node: usize) -> (Flying, Offset) {
        let flying = self.nodes[node].flying.pop_front();
        let flying = flying.unwrap_or_else(|| panic!("nothing is in flight"));
        let offset = self.logs[flying.partition.0 as usize].push(flying.record.clone());
        (flying, offset)
    }

    /// Drops the oldest record in flight: it never lands.
    pub fn lose(&mut self, node: usize) -> Flying {
        let flying = self.nodes[node].flying.pop_front();
        flying.unwrap_or_else(|| panic!("nothing is in flight"))
    }

    /// Tells a broker how an append ended.
    pub fn ack(
        &mut self,
        node: usize,
        partition: PartitionId,
        token: u64,
        result: Result<Offset, AppendError>,
    ) {
        let now = self.now(node);
        self.nodes[node].cores[partition.0 as usize].handle_acked(now, token, result);
        self.act(node);
    }

    /// Puts a record into a log, from nowhere.
    pub fn inject(&mut self, partition: u32, record: &Record) -> Offset {
        let mut bytes = Vec::new();
        encode(record, &mut bytes);
        self.logs[partition as usize].push(Bytes::from(bytes))
    }

    /// The first partition of a broker.
    pub fn core(&mut self, node: usize) -> &mut Partition {
        &mut self.nodes[node].cores[0]
    }

    fn act(&mut self, node: usize) -> bool {
        let mut moved = false;
        for index in 0..self.nodes[node].cores.len() {
            while let Some(action) = self.nodes[node].cores[index].poll_action() {
                moved = true;
                self.carry_out(node, PartitionId(index as u32), action);
            }
        }
        moved
    }

    fn carry_out(&mut self, node: usize, partition: PartitionId, action: Action) {
        let now = self.now(node);
        let log = &mut self.logs[partition.0 as usize];
        let this = &mut self.nodes[node];
        let core = &mut this.cores[partition.0 as usize];
        match action {
            Action::Append { token, record } => match this.refuses {
                Some(refused) => core.handle_appended(now, Err(refused)),
                None => {
                    this.flying.push_back(Flying { partition, token, record });
                    core.handle_appended(now, Ok(()));
                }
            },
            Action::ReadBounds => core.handle_bounds(now, Ok(log.bounds())),
            Action::ReadLog { from, until } => core.handle_log(now, log.read(from, until)),
            Action::Trim { below } => {
                log.trim(below);
                this.events.push(format!("trim {below}"));
            }
            Action::ReadStore { token, read } => {
                this.store_calls.push_back((partition, StoreCall::Read(token, read)));
            }
            Action::WriteStore { token, rows } => {
                this.store_calls.push_back((partition, StoreCall::Write(token, rows)));
            }
            Action::ClaimName { token, name, value } => {
                this.store_calls.push_back((partition, StoreCall::Claim(token, name, value)));
            }
            Action::ReleaseName { token, name, value } => {
                this.store_calls.push_back((partition, StoreCall::Release(token, name, value)));
            }
            Action::Relay { token, mut command } => {
                command.token = self.token();
                self.relays.insert(command.token, (node, partition, token));
                self.relayed.push_back(command);
            }
            Action::Respond { pipe, response } if pipe.0 == RELAY_PIPE => {
                let Response::Answer { token, result, .. } = response else { return };
                let outcome = if result.is_ok() { Outcome::Taken } else { Outcome::Again };
                self.relay_ended(token, outcome);
            }
            Action::Respond { pipe, response } => self.trace.heard(pipe, response),
            Action::Leads(Some(generation)) => {
                this.events.push(format!("leads {}", generation.epoch))
            }
            Action::Leads(None) => this.events.push("leads no more".to_owned()),
            Action::HandedOver => this.events.push("handed over".to_owned()),
            Action::Halted(halt) => this.events.push(format!("halted: {halt}")),
        }
    }

    fn relay_ended(&mut self, token: u64, outcome: Outcome) {
        let Some((node, partition, token)) = self.relays.remove(&token) else { return };
        let now = self.now(node);
        self.nodes[node].cores[partition.0 as usize].handle_relayed(now, token, outcome);
    }

    /// Carries out the calls of the store that may be.
    fn call_store(&mut self, node: usize) -> bool {
        let mut moved = false;
        while !self.nodes[node].store_held && self.call_store_once(node) {
            moved = true;
        }
        moved
    }

    /// Carries out the oldest call of the store, also when they are held.
    pub fn call_store_once(&mut self, node: usize) -> bool {
        let now = self.now(node);
        let Some((partition, call)) = self.nodes[node].store_calls.pop_front() else {
            return false;
        };
        let core = &mut self.nodes[node].cores[partition.0 as usize];
        match call {
            StoreCall::Read(token, read) => core.handle_found(now, token, self.store.read(read)),
            StoreCall::Write(token, rows) => {
                core.handle_written(now, token, self.store.write(rows))
            }
            StoreCall::Claim(token, name, value) => {
                core.handle_name_claimed(now, token, self.store.claim(&name, &value));
            }
            StoreCall::Release(token, name, value) => {
                core.handle_written(now, token, self.store.release(&name, &value));
            }
        }
        self.act(node);
        true
    }

    fn token(&mut self) -> u64 {
        self.next_token += 1;
        self.next_token
    }
}

/// A channel id of the partition, the `n`-th that user 1 could make.
pub fn channel_in(partition: u32, partitions: u32, n: u64) -> (ChannelId, String) {
    let mut left = n;
    for i in 0.. {
        let nonce = format!("channel-{i}");
        let id = ChannelId::created_by(chappe_protocol::UserId::new(1), &nonce);
        if id.partition(partitions).0 == partition {
            if left == 0 {
                return (id, nonce);
            }
            left -= 1;
        }
    }
    unreachable!("some id falls into each partition")
}

fn partition_of(request: &Request, partitions: u32) -> PartitionId {
    let channel = match request {
        Request::Command(command) => command.channel,
        Request::Attach(attach) => attach.channel,
        Request::Detach(detach) => detach.channel,
        Request::Read(read) => read.channel,
        Request::Signal(signal) => signal.channel,
    };
    channel.partition(partitions)
}

/// The answer of a store that is down.
pub(crate) fn down<T>() -> Result<T, StoreError> {
    Err(StoreError::Unavailable("it is down".to_owned()))
}

const WALL_MS: u64 = 1_800_000_000_000;
const RELAY_PIPE: u64 = 9_999;
