//! Starts a broker: checks that log and store belong together, then gives each thread its
//! partitions.

use std::{
    io,
    sync::{Arc, atomic::AtomicU64},
    thread,
};

use chappe_partition::{Assignment, Config as PartitionConfig, Partition};
use chappe_protocol::{Incarnation, PartitionId};
use chappe_storage::{log::Log, store::Store};
use tokio::{
    runtime,
    sync::{mpsc, watch},
    task::LocalSet,
};

use crate::{
    Config, LineageError, LocalBroker,
    budget::Budget,
    clock::now,
    driver::{Driver, Seat},
    leading::Leading,
    lineage,
    local::{Mail, Shared},
};

/// Pipes and batches of requests on their way to a thread.
const MAILBOX: usize = 1_024;

/// A broker cannot start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// Log and store cannot be used together.
    #[error(transparent)]
    Lineage(#[from] LineageError),
    /// The system gives no thread or timer.
    #[error("a thread of the broker cannot be started: {0}")]
    Thread(#[from] io::Error),
}

/// A running broker. Dropping it stops it without waiting for that.
#[derive(Debug)]
pub struct Running {
    incarnation: Incarnation,
    partitions: usize,
    leading: watch::Receiver<usize>,
    stop: watch::Sender<bool>,
    threads: Vec<thread::JoinHandle<()>>,
}

/// Starts a broker that leads all partitions of `log`.
///
/// Call it within a tokio runtime; the broker's own threads do not use that one.
pub async fn start(
    config: Config,
    log: Arc<dyn Log>,
    store: Arc<dyn Store>,
) -> Result<(LocalBroker, Running), StartError> {
    let assignment = lineage::open(&log, &store).await?;
    let drivers = config.threads.clamp(1, log.partitions() as usize);
    let (mailboxes, mails): (Vec<_>, Vec<_>) =
        (0..drivers).map(|_| mpsc::channel::<Mail>(MAILBOX)).unzip();
    let shared = Arc::new(Shared {
        partitions: log.partitions(),
        pipe_bytes_max: config.pipe_bytes_max,
        mailboxes,
        leading: Leading::new(log.partitions()),
        next_pipe: AtomicU64::new(1),
    });
    let (bytes_max, age_ms_max) = (config.unprojected_bytes_max, config.unprojected_age_ms_max);
    let budget = Arc::new(Budget::new(bytes_max, age_ms_max, drivers));
    let (stop, stopped) = watch::channel(false);
    let mut running = Running {
        incarnation: assignment.incarnation,
        partitions: log.partitions() as usize,
        leading: shared.leading.count(),
        stop,
        threads: Vec::with_capacity(drivers),
    };
    let leader = lineage::random() as u64;
    for (index, mail) in mails.into_iter().enumerate() {
        let seat = Seat {
            index,
            partitions: partitions_of(
                index,
                drivers,
                &config,
                leader,
                log.partitions(),
                assignment,
            ),
            log: Arc::clone(&log),
            store: Arc::clone(&store),
            store_calls_max: config.store_calls_max,
            mail,
            shared: Arc::clone(&shared),
            budget: Arc::clone(&budget),
            stop: stopped.clone(),
        };
        running.threads.push(run_on_thread(seat)?);
    }
    Ok((LocalBroker::new(shared), running))
}

/// The partitions of one thread, told to lead.
fn partitions_of(
    index: usize,
    drivers: usize,
    config: &Config,
    leader: u64,
    partitions: u32,
    assignment: Assignment,
) -> Vec<Partition> {
    let of_thread = (index as u32..partitions).step_by(drivers).map(PartitionId);
    of_thread
        .map(|id| {
            let mut partition = Partition::new(PartitionConfig {
                id,
                partitions,
                leader,
                address: "local".to_owned(),
                leadership: config.leadership,
                seed: lineage::random() as u64,
                bounds: config.bounds.clone(),
            });
            partition.handle_assigned(now(), assignment);
            partition
        })
        .collect()
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
