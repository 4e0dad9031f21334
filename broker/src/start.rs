//! Starts a broker: checks that log and store belong together, then gives each thread its
//! partitions.

use std::{
    io,
    sync::{Arc, atomic::AtomicU64},
    thread,
    time::{Duration, Instant},
};

use chappe_partition::{Assignment, Config as PartitionConfig, Partition};
use chappe_protocol::{Incarnation, PartitionId};
use chappe_storage::{
    log::Log,
    ownership::{All, Change, Changes, Ownership},
    store::Store,
};
use chappe_uplink::Broker;
use tokio::{
    runtime,
    sync::{mpsc, watch},
    task::LocalSet,
    time::timeout,
};

use crate::{
    Config, LineageError, LocalBroker, WhenEmpty,
    budget::Budget,
    driver::{Driver, Outage, Seat},
    fit,
    leading::Leading,
    lineage,
    local::{Mail, Shared},
    sealing::Sealings,
};

/// Pipes and batches of requests on their way to a thread.
const MAILBOX: usize = 1_024;
/// Who may not lead after all waits so long until the others know.
const LEAVE_PATIENCE: Duration = Duration::from_secs(5);

/// A broker cannot start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// Log and store cannot be used together.
    #[error(transparent)]
    Lineage(#[from] LineageError),
    /// It cannot be one of those who lead.
    #[error("the group of brokers cannot be joined: {0}")]
    Join(#[from] JoinError),
    /// The system gives no thread or timer.
    #[error("a thread of the broker cannot be started: {0}")]
    Thread(#[from] io::Error),
}

/// Which partitions are this process's to lead, and what becomes of that.
pub type Joined = (Arc<dyn Ownership>, Changes);
/// Why there is no such thing.
pub type JoinError = Box<dyn std::error::Error + Send + Sync>;
/// Joins those who lead. From then on others may wait for what is given to this process.
pub type Join = Box<dyn FnOnce() -> Result<Joined, JoinError> + Send>;

/// A running broker. Dropping it stops it without waiting for that.
pub struct Running {
    incarnation: Incarnation,
    partitions: usize,
    leading: watch::Receiver<usize>,
    pub(crate) shared: Arc<Shared>,
    stop: watch::Sender<bool>,
    ownership: Arc<dyn Ownership>,
    threads: Vec<thread::JoinHandle<()>>,
}

/// What a broker stands on.
pub struct Parts {
    /// The log.
    pub log: Arc<dyn Log>,
    /// The store.
    pub store: Arc<dyn Store>,
    /// Called once it is certain that log and store belong together: one who joins and ends then
    /// takes partitions away from those who could lead them.
    pub join: Join,
    /// The way to the leaders of inboxes; none when this process leads everything.
    pub inboxes: Option<Arc<dyn Broker>>,
    /// What becomes of a log and a store that are new.
    pub when_empty: WhenEmpty,
}

impl Parts {
    /// Of a process that has log and store to itself and leads everything.
    pub fn alone(log: Arc<dyn Log>, store: Arc<dyn Store>) -> Self {
        let partitions = log.partitions();
        let join = move || -> Result<Joined, JoinError> {
            let (all, changes) = All::new(partitions);
            Ok((Arc::new(all), changes))
        };
        Self { log, store, join: Box::new(join), inboxes: None, when_empty: WhenEmpty::Make }
    }
}

/// Makes a log and a store one, if both are new; else checks that they are. Only one process may
/// do so at a time.
pub async fn create(log: Arc<dyn Log>, store: Arc<dyn Store>) -> Result<Incarnation, LineageError> {
    // Brokers may lead it meanwhile: it need not be what it seems to be.
    let assignment = lineage::open(&log, &store, WhenEmpty::Make, fit::PATIENCE).await?;
    Ok(assignment.incarnation)
}

/// Starts a broker, which leads the partitions that are given to it.
///
/// Call it within a tokio runtime; the broker's own threads do not use that one.
pub async fn start(config: Config, parts: Parts) -> Result<(LocalBroker, Running), StartError> {
    let Parts { log, store, join, inboxes, when_empty } = parts;
    let patience = match when_empty {
        // Whoever makes a log at its start has it to himself: it is what it seems to be.
        WhenEmpty::Make => Duration::ZERO,
        WhenEmpty::Refuse => fit::PATIENCE,
    };
    let assignment = lineage::open(&log, &store, when_empty, patience).await?;
    let (ownership, changes) = join()?;
    // An adoption asks whether anybody has joined. One that asked before is found here.
    if let Err(moved) = lineage::confirm(&store, assignment).await {
        drop(changes); // nothing was taken up, so nobody waits for a hand-over
        drop(timeout(LEAVE_PATIENCE, ownership.leave()).await);
        return Err(moved.into());
    }
    let ground = Ground { log, store, inboxes, assignment };
    run(config, ground, (ownership, changes)).await
}

/// The same with what it claims given: for whoever makes it so that it is.
pub(crate) async fn start_as(
    config: Config,
    parts: Parts,
    assignment: Assignment,
) -> Result<(LocalBroker, Running), StartError> {
    let Parts { log, store, join, inboxes, .. } = parts;
    run(config, Ground { log, store, inboxes, assignment }, join()?).await
}

/// What is led, and as what.
struct Ground {
    log: Arc<dyn Log>,
    store: Arc<dyn Store>,
    inboxes: Option<Arc<dyn Broker>>,
    assignment: Assignment,
}

async fn run(
    config: Config,
    ground: Ground,
    (ownership, changes): Joined,
) -> Result<(LocalBroker, Running), StartError> {
    let Ground { log, store, inboxes, assignment } = ground;
    let drivers = config.threads.clamp(1, log.partitions() as usize);
    let (mailboxes, mails): (Vec<_>, Vec<_>) =
        (0..drivers).map(|_| mpsc::channel::<Mail>(MAILBOX)).unzip();
    let shared = Arc::new(Shared {
        partitions: log.partitions(),
        pipe_bytes_max: config.pipe_bytes_max,
        mailboxes,
        leading: Leading::new(log.partitions()),
        sealings: Sealings::new(log.partitions()),
        next_pipe: AtomicU64::new(1),
        address: config.address.clone(),
        started: Instant::now(),
        unprojected_bytes_max: config.unprojected_bytes_max,
        unprojected_age_ms_max: config.unprojected_age_ms_max,
    });
    let (bytes_max, age_ms_max) = (config.unprojected_bytes_max, config.unprojected_age_ms_max);
    let budget = Arc::new(Budget::new(bytes_max, age_ms_max, drivers));
    let (stop, stopped) = watch::channel(false);
    let mut running = Running {
        incarnation: assignment.incarnation,
        partitions: log.partitions() as usize,
        leading: shared.leading.count(),
        shared: Arc::clone(&shared),
        stop,
        ownership: Arc::clone(&ownership),
        threads: Vec::with_capacity(drivers),
    };
    let relays = inboxes.unwrap_or_else(|| Arc::new(LocalBroker::new(Arc::clone(&shared))));
    tokio::spawn(hand_out(changes, Arc::clone(&shared)));
    let (leader, outage) = (lineage::random() as u64, Arc::new(Outage::default()));
    for (index, mail) in mails.into_iter().enumerate() {
        let seat = Seat {
            index,
            partitions: partitions_of(index, drivers, &config, leader, log.partitions()),
            log: Arc::clone(&log),
            store: Arc::clone(&store),
            store_calls_max: config.store_calls_max,
            outage: Arc::clone(&outage),
            ownership: Arc::clone(&ownership),
            assignment,
            leadership: config.leadership,
            relays: Arc::clone(&relays),
            mail,
            shared: Arc::clone(&shared),
            budget: Arc::clone(&budget),
            stop: stopped.clone(),
        };
        running.threads.push(run_on_thread(seat)?);
    }
    Ok((LocalBroker::new(shared), running))
}

/// The partitions of one thread.
fn partitions_of(
    index: usize,
    drivers: usize,
    config: &Config,
    leader: u64,
    partitions: u32,
) -> Vec<Partition> {
    let of_thread = (index as u32..partitions).step_by(drivers).map(PartitionId);
    let partition = |id| {
        Partition::new(PartitionConfig {
            id,
            partitions,
            leader,
            address: config.address.clone(),
            leadership: config.leadership,
            seed: lineage::random() as u64,
            bounds: config.bounds.clone(),
        })
    };
    of_thread.map(partition).collect()
}

/// Tells each thread what becomes of its partitions.
async fn hand_out(mut changes: Changes, shared: Arc<Shared>) {
    while let Some(change) = changes.recv().await {
        let (Change::Assigned(id) | Change::Revoked(id) | Change::Lost(id)) = change;
        let driver = id.0 as usize % shared.mailboxes.len();
        // Fails only when that thread is gone, and then the process is ending.
        if shared.mailboxes[driver].send(Mail::Ownership(change)).await.is_err() {
            return;
        }
    }
}

fn run_on_thread(seat: Seat) -> io::Result<thread::JoinHandle<()>> {
    let runtime = runtime::Builder::new_current_thread().enable_time().build()?;
    thread::Builder::new().name(format!("broker-{}", seat.index)).spawn(move || {
        LocalSet::new().block_on(&runtime, async move { Driver::new(seat).run().await });
    })
}

impl Running {
    /// The log's incarnation.
    pub const fn incarnation(&self) -> Incarnation {
        self.incarnation
    }

    /// Waits until every partition is led. Pending for ever if one stopped for good.
    pub async fn leads_all(&self) {
        let mut leading = self.leading.clone();
        // An error means that the broker is gone; then there is nothing to wait for.
        drop(leading.wait_for(|count| *count == self.partitions).await);
    }

    /// Leads this many partitions, as it changes.
    pub fn leading(&self) -> watch::Receiver<usize> {
        self.leading.clone()
    }

    /// Gives up all partitions to other processes, each with its hand-over. Then
    /// [`Running::stop`] has little left to do.
    pub async fn leave(&self) {
        self.ownership.leave().await;
    }

    /// Hands everything over, lets the projection catch up for a while, and ends the threads.
    /// Blocks for some seconds at worst.
    pub fn stop(self) {
        self.stop.send_replace(true);
        for thread in self.threads {
            if thread.join().is_err() {
                tracing::error!("a thread of the broker panicked");
            }
        }
    }
}
