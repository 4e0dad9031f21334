//! The broker of this process, as its gateways reach it.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Instant,
};

use chappe_partition::PipeId;
use chappe_protocol::PartitionId;
use chappe_storage::ownership::Change;
use chappe_uplink::{Broker, Receiver, Request, Response, Sender, pipe};
use tokio::sync::{mpsc, oneshot};

use crate::{leading::Leading, overview::Told, sealing::Sealings};

/// The broker of this process. Cheap to clone.
#[derive(Clone)]
pub struct LocalBroker {
    pub(crate) shared: Arc<Shared>,
}

pub(crate) struct Shared {
    pub(crate) partitions: u32,
    pub(crate) pipe_bytes_max: usize,
    /// One for each driver.
    pub(crate) mailboxes: Vec<mpsc::Sender<Mail>>,
    pub(crate) leading: Leading,
    pub(crate) sealings: Sealings,
    pub(crate) next_pipe: AtomicU64,
    /// Where this process can be reached.
    pub(crate) address: String,
    pub(crate) started: Instant,
    pub(crate) unprojected_bytes_max: usize,
    pub(crate) unprojected_age_ms_max: u64,
}

/// What reaches a driver from other threads.
pub(crate) enum Mail {
    /// A pipe was opened. Its requests are read by one driver, its home.
    Opened { pipe: PipeId, responses: Sender<Response>, requests: Option<Receiver<Request>> },
    /// A pipe has ended.
    Closed(PipeId),
    /// What became of the ownership of one of its partitions.
    Ownership(Change),
    /// Its partitions are to be sealed so far, and kept so whoever led them before.
    Seal(u8),
    /// Requests of a pipe whose home is another driver.
    Requests(PipeId, Vec<Request>),
    /// Somebody wants to know how its partitions stand.
    Tell(oneshot::Sender<Told>),
}

impl LocalBroker {
    pub(crate) const fn new(shared: Arc<Shared>) -> Self {
        Self { shared }
    }

    /// How many partitions there are.
    pub fn partitions(&self) -> u32 {
        self.shared.partitions
    }
}

impl Broker for LocalBroker {
    fn open(&self) -> (Sender<Request>, Receiver<Response>) {
        let shared = &self.shared;
        let id = shared.next_pipe.fetch_add(1, Ordering::Relaxed);
        let (to_broker, requests) = pipe(shared.pipe_bytes_max);
        let (responses, from_broker) = pipe(shared.pipe_bytes_max);
        let home = (id % shared.mailboxes.len() as u64) as usize;
        let mut requests = Some(requests);
        for (driver, mailbox) in shared.mailboxes.iter().enumerate() {
            let requests = if driver == home { requests.take() } else { None };
            let mail = Mail::Opened { pipe: PipeId(id), responses: responses.clone(), requests };
            // A driver that is that far behind, or gone, gets no more work: the gateway sees the
            // pipe's end and opens another one.
            if mailbox.try_send(mail).is_err() {
                responses.close();
            }
        }
        (to_broker, from_broker)
    }
}

impl Shared {
    /// The partition of a request's channel.
    pub(crate) fn partition_of(&self, request: &Request) -> PartitionId {
        let channel = match request {
            Request::Command(command) => command.channel,
            Request::Attach(attach) => attach.channel,
            Request::Detach(detach) => detach.channel,
            Request::Read(read) => read.channel,
            Request::Signal(signal) => signal.channel,
        };
        channel.partition(self.partitions)
    }

    /// The driver that leads it.
    pub(crate) fn driver_of(&self, request: &Request) -> usize {
        self.partition_of(request).0 as usize % self.mailboxes.len()
    }
}
