//! Bringing a log to a standstill: lead everything, refuse clients, let what is under way arrive,
//! let nothing count any more, and wait until the store has it all.

use std::sync::Arc;
use std::time::{Duration, Instant};

use chappe_broker::migration::{self, ExportId, Migration};
use chappe_broker::{LineageError, Running, Seal, Sealing};
use chappe_protocol::PartitionId;
use chappe_storage::store::Store;
use tokio::time::timeout;

use crate::progress::{Progress, Report, list};

/// It could not be sealed, or opened. Both can be tried again.
#[derive(Debug, thiserror::Error)]
pub enum SealError {
    /// Others lead, or nobody can.
    #[error(
        "partition {} is led elsewhere, or stopped for good: stop the other brokers, and look into \
         their logs", list(.0)
    )]
    NotLed(Vec<PartitionId>),
    /// Something does not end.
    #[error("partition {} does not come to rest: {what}", list(.partitions))]
    Stuck {
        /// Where.
        partitions: Vec<PartitionId>,
        /// What was waited for.
        what: &'static str,
    },
    /// It was imported into, and that is not finished.
    #[error("an import into this store is not finished: there is nothing to export")]
    Importing,
    /// The store does not say.
    #[error(transparent)]
    Lineage(#[from] LineageError),
}

/// Seals everything that a broker leads, alone, and says which export that is. `patience` is how
/// long each step may take. What was sealed before goes on being the same export.
pub async fn seal(
    running: &Running,
    store: &Arc<dyn Store>,
    patience: Duration,
    report: Report<'_>,
) -> Result<ExportId, SealError> {
    lead(running, patience, report).await?;
    let export = match migration::begun(store).await? {
        Some(Migration::Export(export)) => export,
        Some(Migration::Import(_)) => return Err(SealError::Importing),
        Some(Migration::Adopt(_)) => return Err(LineageError::Adopting.into()),
        None => {
            // What an export that was aborted left sealed would let the others never be drained.
            opened(running, patience).await?;
            let begun = Migration::Export(ExportId::random());
            match migration::begin(store, begun).await? {
                Migration::Export(export) => export,
                Migration::Import(_) => return Err(SealError::Importing),
                Migration::Adopt(_) => return Err(LineageError::Adopting.into()),
            }
        }
    };
    running.seal(Seal::Clients).await;
    let drained = |at: &Sealing| at.stage >= Some(Seal::Clients as u8) && at.drained;
    let what = "facts wait to be projected or relayed";
    wait(running, patience, drained, what, &mut |left| report(Progress::Draining(left))).await?;
    running.seal(Seal::Facts).await;
    let last = Some(Seal::Facts as u8);
    let sealed = |at: &Sealing| at.stage == last && at.saved == last;
    wait(running, patience, sealed, "the store's checkpoint lags behind", &mut |_| {}).await?;
    report(Progress::Sealed);
    Ok(export)
}

/// Opens everything again.
pub async fn open(
    running: &Running,
    store: &Arc<dyn Store>,
    patience: Duration,
    report: Report<'_>,
) -> Result<(), SealError> {
    lead(running, patience, report).await?;
    match migration::begun(store).await? {
        Some(Migration::Import(_)) => return Err(SealError::Importing),
        Some(Migration::Adopt(_)) => return Err(LineageError::Adopting.into()),
        // First: what is half opened is no export any more.
        Some(export @ Migration::Export(_)) => migration::end(store, export).await?,
        None => {}
    }
    opened(running, patience).await?;
    report(Progress::Opened);
    Ok(())
}

/// Waits until this process leads everything.
async fn lead(running: &Running, patience: Duration, report: Report<'_>) -> Result<(), SealError> {
    let began = Instant::now();
    loop {
        if timeout(TOLD_EVERY.min(patience), running.leads_all()).await.is_ok() {
            return Ok(());
        }
        let not_led = running.not_led();
        if began.elapsed() >= patience {
            return Err(SealError::NotLed(not_led));
        }
        report(Progress::NotLed(not_led));
    }
}

async fn opened(running: &Running, patience: Duration) -> Result<(), SealError> {
    running.seal(Seal::Open).await;
    let open = |at: &Sealing| at.stage == Some(Seal::Open as u8);
    wait(running, patience, open, "its seal is not taken off", &mut |_| {}).await
}

/// Waits until every partition is where it is wanted, and tells how many are not.
async fn wait(
    running: &Running,
    patience: Duration,
    is_there: impl Fn(&Sealing) -> bool,
    what: &'static str,
    tell: &mut dyn FnMut(usize),
) -> Result<(), SealError> {
    let (began, mut sealings) = (Instant::now(), running.sealings());
    loop {
        let all = sealings.wait_for(|all| all.iter().all(&is_there));
        if timeout(TOLD_EVERY.min(patience), all).await.is_ok() {
            return Ok(());
        }
        let now = sealings.borrow().clone();
        let left = now.iter().zip(0..).filter(|(at, _)| !is_there(at));
        let left: Vec<_> = left.map(|(_, id)| PartitionId(id)).collect();
        if began.elapsed() >= patience {
            return Err(SealError::Stuck { partitions: left, what });
        }
        tell(left.len());
    }
}

/// What is waited for is told this often.
const TOLD_EVERY: Duration = Duration::from_secs(2);
