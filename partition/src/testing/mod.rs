//! A world to step partitions through: simulated logs and a store, brokers that can be cut off,
//! and a clock that moves when told to. Everything happens in the order of the script.

mod asking;
mod carry;
mod log;
mod node;
mod store;
mod trace;

use std::collections::{BTreeMap, VecDeque};

use bytes::Bytes;
use chappe_protocol::{ChannelId, Incarnation, PartitionId};
use chappe_storage::{
    log::{AppendError, Offset},
    store::StoreError,
};
use chappe_uplink::Request;

use crate::{
    action::PipeId,
    config::{Assignment, Bounds, Config, Leadership, Now},
    partition::Partition,
    record::{Genesis, Lineage, Record, encode},
};

pub use asking::{Asker, text};
pub use log::SimLog;
pub use node::{Flying, Node, StoreCall};
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
