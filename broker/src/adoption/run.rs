//! Doing it, step by step. Each may be the last before the process ends.

use std::{
    collections::BTreeMap,
    sync::Arc,
    time::{Duration, Instant},
};

use bytes::Bytes;
use chappe_partition::{
    Bounds,
    record::{self, Adopt, Record},
    row::CheckpointRow,
};
use chappe_protocol::PartitionId;
use chappe_storage::{
    log::{AppendError, Log, Offset},
    store::{Claimed, Store, UniqueKey},
};
use chappe_uplink::{Broker, Overview, Receiver, Request, Response, Sender, pipe};
use tokio::time::{sleep, timeout};

use super::{AdoptError, Adoption, Found, Onward, Plan};
use crate::{
    Config, LocalBroker, Parts, Running, Seal, StartError, fit,
    lineage::{self, LineageError, LineageRow},
    migration::{self, Migration},
    start::start_as,
};

/// Where the `Adopt` of each partition stands.
pub struct Recorded(BTreeMap<PartitionId, Offset>);

/// Says in the store that it is under way. From then on nobody leads the log but by [`start`].
pub async fn begin(store: &Arc<dyn Store>, plan: &Plan) -> Result<(), AdoptError> {
    if plan.said() != plan.adoption {
        return Ok(()); // since an earlier run, and never without a break
    }
    let Plan { adoption, begun, row, .. } = plan;
    if let (Some(Migration::Adopt(earlier)), None) = (begun, row) {
        // It ended within its last step. The row comes first: at no time does neither say what
        // the log is.
        tie(store, &earlier.row()).await?;
    }
    if let Some(begun) = begun {
        migration::end(store, *begun).await?;
    }
    match migration::begin(store, Migration::Adopt(*adoption)).await? {
        Migration::Adopt(now) if now == *adoption => Ok(()),
        Migration::Import(_) => Err(LineageError::Importing.into()),
        Migration::Adopt(_) | Migration::Export(_) => Err(LineageError::Adopting.into()),
    }
}

/// Makes every partition of the log one of the new incarnation. Whoever leads is deposed by it.
pub async fn record(log: &Arc<dyn Log>, plan: &Plan) -> Result<Recorded, AdoptError> {
    let adoption = &plan.adoption;
    let genesis = lineage::genesis_of(adoption.assignment().lineage, adoption.partitions);
    lineage::begin(log, &genesis, &plan.beginnings).await?;
    Ok(Recorded(append(log, &adopt(adoption)).await?))
}

/// Writes from where each partition goes on.
pub async fn place(
    store: &Arc<dyn Store>,
    plan: &Plan,
    recorded: &Recorded,
) -> Result<(), AdoptError> {
    let adoption = &plan.adoption;
    let (incarnation, record) = (adoption.assignment().incarnation, adopt(adoption));
    let rows = plan.found.iter().filter_map(|found| {
        let at = *recorded.0.get(&found.partition)?;
        Some(next(found, adoption, &record, at)?.write(found.partition, incarnation))
    });
    Ok(store.write(rows.collect()).await?)
}

/// Starts a broker that leads for this adoption: nobody reaches it, and it tells no inbox anything.
/// What waits to be replayed is brought into the store by it.
pub async fn start(
    config: Config,
    parts: Parts,
    adoption: &Adoption,
) -> Result<(LocalBroker, Running), StartError> {
    let parts = Parts { inboxes: Some(Arc::new(Nobody)), ..parts };
    // Its checkpoints are waited for.
    let bounds = Bounds { refresh_ms: 1_000, ..config.bounds };
    let config = Config { bounds, ..config };
    start_as(config, parts, adoption.assignment()).await
}

/// Waits until everything in the log is in the store, and open for changes.
pub async fn wait(
    (broker, running): (&LocalBroker, &Running),
    store: &Arc<dyn Store>,
    adoption: &Adoption,
    patience: Duration,
) -> Result<(), AdoptError> {
    // What an export has sealed is not what is here now.
    running.seal(Seal::Open).await;
    let (began, incarnation) = (Instant::now(), adoption.assignment().incarnation);
    for partition in (0..adoption.partitions).map(PartitionId) {
        loop {
            let row = fit::checkpoint(store, partition).await?;
            if row.is_some_and(|row| row.incarnation == incarnation && row.seal == 0) {
                break;
            }
            if began.elapsed() >= patience {
                return Err(AdoptError::Late(partition));
            }
            halted(broker).await?;
            sleep(LOOK_EVERY).await;
        }
    }
    Ok(())
}

/// Ties the store to the log as it is now, and says that nothing is under way any more.
pub async fn settle(store: &Arc<dyn Store>, plan: &Plan) -> Result<(), AdoptError> {
    let now = lineage::row(store).await?;
    if let Some(row) = now.filter(|row| *row != plan.adoption.row()) {
        store.release(UniqueKey::Lineage, lineage::encode(&row)).await?;
    }
    tie(store, &plan.adoption.row()).await?;
    Ok(migration::end(store, Migration::Adopt(plan.said())).await?)
}

async fn tie(store: &Arc<dyn Store>, row: &LineageRow) -> Result<(), AdoptError> {
    match store.claim(UniqueKey::Lineage, lineage::encode(row)).await? {
        Claimed::Yes => Ok(()),
        Claimed::Taken(_) => Err(LineageError::Adopting.into()),
    }
}

fn adopt(adoption: &Adoption) -> Bytes {
    let of = adoption.assignment();
    let mut bytes = Vec::new();
    let adopt = Adopt { lineage: of.lineage, incarnation: of.incarnation };
    record::encode(&Record::Adopt(adopt), &mut bytes);
    bytes.into()
}

/// Appends a record to every partition, and gives where they stand.
async fn append(
    log: &Arc<dyn Log>,
    record: &Bytes,
) -> Result<BTreeMap<PartitionId, Offset>, AdoptError> {
    let (mut appender, mut acks) = log.appender();
    for partition in (0..log.partitions()).map(PartitionId) {
        appender.append(partition, 0, record.clone())?;
    }
    appender.flush();
    let acked = async {
        let mut offsets = BTreeMap::new();
        while offsets.len() < log.partitions() as usize {
            let Some(batch) = acks.recv().await else {
                return Err(AppendError("the log was closed".to_owned()));
            };
            for acked in batch {
                offsets.insert(acked.partition, acked.result?);
            }
        }
        Ok(offsets)
    };
    let late = |_| Err(AppendError("no answer in 30 s".to_owned()));
    Ok(timeout(APPEND_TIMEOUT, acked).await.unwrap_or_else(late)?)
}

/// The checkpoint that a partition goes on from, whose `Adopt` stands at `at`. None where it has
/// none, and is replayed from its beginning.
fn next(found: &Found, adoption: &Adoption, record: &[u8], at: Offset) -> Option<CheckpointRow> {
    let before = found.checkpoint;
    match found.onward {
        // What is missing at its end is not waited for any more.
        Onward::Replay { .. } => before.map(|row| CheckpointRow { highest: at.0, ..row }),
        Onward::Store(_) => {
            let (ts, tick) = before.map_or((0, 0), |row| (row.last_ts, row.last_tick));
            let row = CheckpointRow::anew(adoption.assignment(), at, record, ts, tick);
            Some(CheckpointRow { level: before.map_or(1, |row| row.level), ..row })
        }
    }
}

/// Says which partition stopped, if one did.
async fn halted(broker: &LocalBroker) -> Result<(), AdoptError> {
    let status = broker.status().await;
    let halted = status.holds.into_iter().find_map(|of| Some((of.partition, of.halt?)));
    match halted {
        Some((partition, what)) => Err(AdoptError::Halted { partition, what }),
        None => Ok(()),
    }
}

/// Where no inbox is: what is to be told waits for those who lead afterwards.
struct Nobody;

impl Broker for Nobody {
    fn open(&self) -> (Sender<Request>, Receiver<Response>) {
        // The other ends are gone at once.
        (pipe(1).0, pipe(1).1)
    }
}

/// How long the records may take.
const APPEND_TIMEOUT: Duration = Duration::from_secs(30);
/// The store is asked this often how far it is.
const LOOK_EVERY: Duration = Duration::from_millis(100);
