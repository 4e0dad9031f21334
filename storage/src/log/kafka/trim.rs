//! Deletes what may be forgotten, from time to time and for all partitions at once.
//!
//! A mark says that nobody needs what is below it; a record goes when it is below its mark and
//! older than the retention, by the time at which Kafka took it. Marks live in memory: a leader
//! tells his again.

use std::collections::BTreeMap;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use chappe_protocol::PartitionId;
use rdkafka::admin::{AdminClient, AdminOptions};
use rdkafka::{Offset as Place, TopicPartitionList};

use super::asker::Asker;
use super::config::KafkaConfig;
use super::connection::Voice;
use crate::log::Offset;

/// The marks, and the thread that goes by them.
pub(super) struct Trims {
    state: Mutex<State>,
    wake: Condvar,
}

#[derive(Default)]
struct State {
    marks: BTreeMap<PartitionId, Mark>,
    is_closed: bool,
}

#[derive(Debug, Clone, Copy, Default)]
struct Mark {
    /// Everything below may go.
    below: Offset,
    /// Everything below is gone.
    gone: Offset,
}

impl Trims {
    /// Starts the thread, unless each mark is gone by at once. It ends when the marks are closed.
    pub(super) fn start(config: Arc<KafkaConfig>, asker: Arc<Asker>) -> std::io::Result<Arc<Self>> {
        let this = Arc::new(Self { state: Mutex::default(), wake: Condvar::new() });
        let trims = Arc::clone(&this);
        if config.trim_every.is_zero() {
            return Ok(this);
        }
        let run = move || {
            while trims.wait(config.trim_every) {
                if let Err(error) = trims.round(&config, &asker) {
                    tracing::warn!(error, "the log was not trimmed; it will be later");
                }
            }
        };
        thread::Builder::new().name("kafka-trim".to_owned()).spawn(run)?;
        Ok(this)
    }

    /// Raises a mark. A lower one changes nothing.
    pub(super) fn allow(&self, partition: PartitionId, below: Offset) {
        let mut state = self.lock();
        let mark = state.marks.entry(partition).or_default();
        mark.below = mark.below.max(below);
    }

    pub(super) fn close(&self) {
        self.lock().is_closed = true;
        self.wake.notify_one();
    }

    /// Waits for the next round. False if there is none.
    fn wait(&self, every: Duration) -> bool {
        let is_open = |state: &mut State| !state.is_closed;
        let waited = self.wake.wait_timeout_while(self.lock(), every, is_open);
        !waited.unwrap_or_else(PoisonError::into_inner).0.is_closed
    }

    /// Deletes what is due. Blocks.
    pub(super) fn round(&self, config: &KafkaConfig, asker: &Asker) -> Result<(), String> {
        let mut due: Vec<_> = {
            let state = self.lock();
            let is_due = |(_, mark): &(&PartitionId, &Mark)| mark.below > mark.gone;
            state.marks.iter().filter(is_due).map(|(id, mark)| (*id, mark.below)).collect()
        };
        if !config.keep.is_zero() && !due.is_empty() {
            let since = SystemTime::now() - config.keep;
            let since_ms = since.duration_since(UNIX_EPOCH).map_or(0, |time| time.as_millis());
            let partitions: Vec<_> = due.iter().map(|(id, _)| *id).collect();
            let kept = asker.since(&partitions, since_ms as i64)?;
            for ((_, below), kept) in due.iter_mut().zip(kept) {
                *below = kept.map_or(*below, |kept| kept.min(*below));
            }
        }
        let state = self.lock();
        let gone = |id: &PartitionId| state.marks.get(id).map_or(Offset(0), |mark| mark.gone);
        due.retain(|(id, below)| *below > gone(id));
        drop(state);
        if due.is_empty() {
            return Ok(());
        }
        for (partition, gone) in delete(config, &due)? {
            self.lock().marks.entry(partition).or_default().gone = gone;
        }
        Ok(())
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Deletes what is below; returns where each partition starts now.
fn delete(
    config: &KafkaConfig,
    below: &[(PartitionId, Offset)],
) -> Result<Vec<(PartitionId, Offset)>, String> {
    let mut list = TopicPartitionList::with_capacity(below.len());
    for (partition, offset) in below {
        let place = Place::Offset(offset.0 as i64);
        let added = list.add_partition_offset(&config.topic, partition.0 as i32, place);
        added.map_err(|error| error.to_string())?;
    }
    // Made for this once: nobody would serve its events in between, and they have no limit.
    let admin: AdminClient<Voice> =
        config.asker().create_with_context(Voice::default()).map_err(|error| error.to_string())?;
    let options = AdminOptions::new()
        .request_timeout(Some(config.call_timeout))
        .operation_timeout(Some(config.call_timeout));
    let deleted = block_on(admin.delete_records(&list, &options))?;
    let mut starts = Vec::with_capacity(below.len());
    for element in deleted.elements() {
        element.error().map_err(|error| format!("partition {}: {error}", element.partition()))?;
        if let Place::Offset(start) = element.offset() {
            starts.push((PartitionId(element.partition() as u32), Offset(start.max(0) as u64)));
        }
    }
    Ok(starts)
}

/// Waits for an answer that has its own time limit.
fn block_on<T>(
    answer: impl Future<Output = Result<T, rdkafka::error::KafkaError>>,
) -> Result<T, String> {
    let runtime = tokio::runtime::Builder::new_current_thread().build();
    let runtime = runtime.map_err(|error| error.to_string())?;
    runtime.block_on(answer).map_err(|error| error.to_string())
}
