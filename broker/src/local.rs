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
        let drivers = shared.mailboxes.len();
        // Home first: only who reads a pipe hears its end and tells the others.
        for driver in (home..drivers).chain(0..home) {
            let requests = requests.take();
            let mail = Mail::Opened { pipe: PipeId(id), responses: responses.clone(), requests };
            // A driver that is that far behind, or gone, gets no more work: the gateway sees the
            // pipe's end and opens another one.
            if shared.mailboxes[driver].try_send(mail).is_err() {
                responses.close();
                break;
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

#[cfg(test)]
mod tests {
    use super::*;

    const DRIVERS: usize = 3;
    /// Of the first pipe.
    const HOME: usize = 1;

    /// A broker without drivers, whose mailboxes take one thing each.
    fn broker() -> (LocalBroker, Vec<mpsc::Receiver<Mail>>) {
        let (mailboxes, mails) = (0..DRIVERS).map(|_| mpsc::channel(1)).unzip();
        let shared = Shared {
            partitions: DRIVERS as u32,
            pipe_bytes_max: 1 << 20,
            mailboxes,
            leading: Leading::new(DRIVERS as u32),
            sealings: Sealings::new(DRIVERS as u32),
            next_pipe: AtomicU64::new(HOME as u64),
            address: String::new(),
            started: Instant::now(),
            unprojected_bytes_max: 1,
            unprojected_age_ms_max: 1,
        };
        (LocalBroker::new(Arc::new(shared)), mails)
    }

    /// Fills a driver's mailbox, opens a pipe, and says for each driver whether it was told of the
    /// pipe, and if so whether it reads it.
    async fn told_when_full(full: usize) -> Vec<Option<bool>> {
        let (broker, mails) = broker();
        assert!(broker.shared.mailboxes[full].try_send(Mail::Seal(0)).is_ok());
        let (_requests, mut responses) = broker.open();
        assert!(responses.recv(&mut Vec::new(), 1).await.is_err(), "the gateway hears an end");
        let told = mails.into_iter().map(|mut mail| match mail.try_recv() {
            Ok(Mail::Opened { requests, .. }) => Some(requests.is_some()),
            _ => None,
        });
        told.collect()
    }

    #[tokio::test]
    async fn a_pipe_whose_home_takes_no_more_is_opened_nowhere() {
        assert_eq!(told_when_full(HOME).await, [None, None, None]);
    }

    #[tokio::test]
    async fn a_pipe_that_another_driver_does_not_take_is_read_to_its_end_by_its_home() {
        assert_eq!(told_when_full(0).await, [None, Some(true), Some(false)]);
        assert_eq!(told_when_full(2).await, [None, Some(true), None]);
    }

    #[tokio::test]
    async fn a_pipe_that_all_take_has_one_home() {
        let (broker, mut mails) = broker();
        let (_requests, _responses) = broker.open();
        for (driver, mail) in mails.iter_mut().enumerate() {
            let Ok(Mail::Opened { requests, .. }) = mail.try_recv() else { panic!("not told") };
            assert_eq!(requests.is_some(), driver == HOME);
        }
    }
}
