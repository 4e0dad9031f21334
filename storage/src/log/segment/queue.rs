//! The appends that wait for the writer, and the way back for their outcomes.
//!
//! One queue for all appenders; what each may have in it is limited by the bytes and the records
//! it has in flight.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::available_parallelism;
use std::time::{Duration, Instant};

use bytes::Bytes;
use chappe_protocol::PartitionId;
use tokio::sync::{mpsc, watch};

use super::config::{IN_FLIGHT_OVERHEAD_BYTES, SegmentConfig};
use crate::log::{Acked, Acks, AppendError, AppendRefused, Appender, Offset};

/// Whether appends are taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Mode {
    Open,
    /// The disk is full.
    NoSpace,
    /// A write or a sync failed.
    Failed,
    /// The log was dropped.
    Closed,
}

/// Why the writer is to do something.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Wake {
    /// There is something to write.
    Work,
    /// Nothing came in the time given.
    Silence,
    /// The log was dropped: write what is there and end.
    Close,
}

/// An accepted append.
pub(super) struct Pending {
    appender: Arc<InFlight>,
    pub(super) partition: PartitionId,
    token: u64,
    pub(super) record: Bytes,
}

/// The queue.
pub(super) struct Queue {
    state: Mutex<State>,
    wake: Condvar,
    /// How many appends are queued, for looking on without the lock.
    queued: AtomicUsize,
    /// Whether there is more than one processor.
    is_parallel: bool,
    trims: watch::Sender<Trims>,
}

struct State {
    mode: Mode,
    pending: VecDeque<Pending>,
    /// Counts the changes of trim marks.
    trims: u64,
    trims_taken: u64,
    writer_waits: bool,
}

/// How far changes of trim marks were dealt with.
#[derive(Debug, Clone, Copy)]
struct Trims {
    recorded: u64,
    mode: Mode,
}

impl Queue {
    pub(super) fn new() -> Self {
        let state = State {
            mode: Mode::Open,
            pending: VecDeque::new(),
            trims: 0,
            trims_taken: 0,
            writer_waits: false,
        };
        let trims = watch::Sender::new(Trims { recorded: 0, mode: Mode::Open });
        Self {
            state: Mutex::new(state),
            wake: Condvar::new(),
            queued: AtomicUsize::new(0),
            is_parallel: available_parallelism().is_ok_and(|processors| processors.get() > 1),
            trims,
        }
    }

    /// Waits until there is something to do, at most `timeout`.
    pub(super) fn wait(&self, timeout: Duration) -> Wake {
        let deadline = Instant::now() + timeout;
        let mut state = self.lock();
        loop {
            if state.has_work() {
                return Wake::Work;
            }
            let left = deadline.saturating_duration_since(Instant::now());
            if state.mode == Mode::Closed {
                return Wake::Close;
            }
            if left.is_zero() {
                return Wake::Silence;
            }
            state.writer_waits = true;
            let waited = self.wake.wait_timeout(state, left);
            state = waited.unwrap_or_else(PoisonError::into_inner).0;
            state.writer_waits = false;
        }
    }

    /// Looks on until so many appends are queued, or none has come for `pause`, or the deadline is
    /// there. Whether any is queued.
    pub(super) fn gather(&self, wanted: usize, pause: Duration, deadline: Instant) -> bool {
        let (mut seen, mut grown) = (0, Instant::now());
        loop {
            let queued = self.queued.load(Ordering::Relaxed);
            let now = Instant::now();
            if queued > seen {
                (seen, grown) = (queued, now);
            }
            // On a single processor nothing comes while one looks on.
            if queued >= wanted || !self.is_parallel || now - grown > pause || now > deadline {
                return queued > 0;
            }
            std::hint::spin_loop();
        }
    }

    /// Moves all appends to the end of `backlog`; returns how many changes of trim marks there
    /// were until now.
    pub(super) fn take(&self, backlog: &mut VecDeque<Pending>) -> u64 {
        let mut state = self.lock();
        if backlog.is_empty() {
            // Changes places, so that neither gives its memory up.
            std::mem::swap(backlog, &mut state.pending);
        } else {
            backlog.append(&mut state.pending);
        }
        self.queued.store(0, Ordering::Relaxed);
        state.trims_taken = state.trims;
        state.trims
    }

    /// Changes what appends are told from now on. What is queued is the caller's to take. A closed
    /// queue stays closed.
    pub(super) fn set_mode(&self, mode: Mode) {
        let mut state = self.lock();
        if state.mode != Mode::Closed {
            state.mode = mode;
        }
        let mode = state.mode;
        drop(state);
        self.trims.send_modify(|trims| trims.mode = mode);
    }

    #[cfg(test)]
    pub(super) fn is_failed(&self) -> bool {
        self.lock().mode == Mode::Failed
    }

    /// Takes no more appends, and lets the writer write what is queued and end.
    pub(super) fn close(&self) {
        self.set_mode(Mode::Closed);
        self.wake.notify_one();
    }

    /// Says that a trim mark was changed. The mark itself is in the map.
    pub(super) fn trim_changed(&self) -> u64 {
        let mut state = self.lock();
        state.trims += 1;
        let trims = state.trims;
        self.wake_writer(state);
        trims
    }

    /// Waits until the change of trim marks with that number is durable; returns early when that
    /// cannot be now.
    pub(super) async fn trim_recorded(&self, trims: u64) -> Mode {
        let mut watch = self.trims.subscribe();
        let done = |now: &Trims| now.recorded >= trims || now.mode != Mode::Open;
        match watch.wait_for(done).await {
            Ok(now) if now.recorded >= trims => Mode::Open,
            Ok(now) => now.mode,
            Err(_) => Mode::Closed,
        }
    }

    /// Says that the changes of trim marks up to that number are durable.
    pub(super) fn set_trims_recorded(&self, trims: u64) {
        self.trims.send_if_modified(|now| std::mem::replace(&mut now.recorded, trims) != trims);
    }

    fn push(&self, pending: Pending) -> Result<(), AppendRefused> {
        let mut state = self.lock();
        match state.mode {
            Mode::Open => {}
            Mode::NoSpace => return Err(AppendRefused::NoSpace),
            Mode::Failed | Mode::Closed => return Err(AppendRefused::Failed),
        }
        pending.appender.add(pending.record.len());
        state.pending.push_back(pending);
        self.queued.store(state.pending.len(), Ordering::Relaxed);
        Ok(())
    }

    /// Wakes the writer if it sleeps and nobody has done so. Lets go of the lock first, which the
    /// writer would run into.
    fn wake_writer(&self, mut state: MutexGuard<'_, State>) {
        let is_asleep = std::mem::take(&mut state.writer_waits);
        drop(state);
        if is_asleep {
            self.wake.notify_one();
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn has_work(&self) -> bool {
        !self.pending.is_empty() || self.trims != self.trims_taken
    }
}

/// What one appender has in flight, and where its outcomes go.
struct InFlight {
    bytes: AtomicUsize,
    records: AtomicUsize,
    /// Where its outcomes were put last in [`Outcomes`].
    slot: AtomicUsize,
    outcomes: mpsc::Sender<Vec<Acked>>,
}

impl InFlight {
    fn add(&self, record_bytes: usize) {
        self.bytes.fetch_add(record_bytes + IN_FLIGHT_OVERHEAD_BYTES, Ordering::Relaxed);
        self.records.fetch_add(1, Ordering::Relaxed);
    }
}

/// The segment log's [`Appender`].
pub(super) struct SegmentAppender {
    queue: Arc<Queue>,
    in_flight: Arc<InFlight>,
    /// Whether the writer was told of all that was appended.
    is_flushed: bool,
    partitions: u32,
    record_bytes_max: usize,
    bytes_in_flight_max: usize,
    records_in_flight_max: usize,
}

impl SegmentAppender {
    pub(super) fn new(queue: Arc<Queue>, partitions: u32, config: &SegmentConfig) -> (Self, Acks) {
        let records_in_flight_max = config.bytes_in_flight_max / IN_FLIGHT_OVERHEAD_BYTES;
        // A place for every record in flight, should each be acknowledged alone, and one for the
        // outcomes that are on their way and no longer counted (see `Outcomes::send`).
        let (outcomes, acks) = mpsc::channel(records_in_flight_max + 1);
        let (bytes, records, slot) = <_>::default();
        let appender = Self {
            queue,
            in_flight: Arc::new(InFlight { bytes, records, slot, outcomes }),
            is_flushed: true,
            partitions,
            record_bytes_max: config.record_bytes_max as usize,
            bytes_in_flight_max: config.bytes_in_flight_max,
            records_in_flight_max,
        };
        (appender, acks)
    }

    fn is_full(&self, record_bytes: usize) -> bool {
        let in_flight = &*self.in_flight;
        let outcomes = &in_flight.outcomes;
        let unread = outcomes.max_capacity() - outcomes.capacity();
        let bytes = in_flight.bytes.load(Ordering::Relaxed);
        bytes + record_bytes + IN_FLIGHT_OVERHEAD_BYTES > self.bytes_in_flight_max
            || in_flight.records.load(Ordering::Relaxed) + unread >= self.records_in_flight_max
    }
}

impl Appender for SegmentAppender {
    fn append(
        &mut self,
        partition: PartitionId,
        token: u64,
        record: Bytes,
    ) -> Result<(), AppendRefused> {
        assert!(partition.0 < self.partitions, "the log has no such partition");
        if record.len() > self.record_bytes_max {
            return Err(AppendRefused::TooLarge);
        }
        if self.is_full(record.len()) {
            return Err(AppendRefused::Full);
        }
        let appender = Arc::clone(&self.in_flight);
        self.queue.push(Pending { appender, partition, token, record })?;
        self.is_flushed = false;
        Ok(())
    }

    /// Woken by the first of several appends, the writer would often commit it alone.
    fn flush(&mut self) {
        if !std::mem::replace(&mut self.is_flushed, true) {
            self.queue.wake_writer(self.queue.lock());
        }
    }
}

impl Drop for SegmentAppender {
    fn drop(&mut self) {
        self.flush();
    }
}

/// Collects the outcomes of a commit, so that each appender is woken once.
#[derive(Default)]
pub(super) struct Outcomes {
    by_appender: Vec<Outcome>,
}

struct Outcome {
    appender: Arc<InFlight>,
    acked: Vec<Acked>,
    bytes: usize,
}

impl Outcomes {
    /// Adds the outcome of one append.
    pub(super) fn add(&mut self, pending: Pending, result: Result<Offset, AppendError>) {
        let Pending { appender, partition, token, record } = pending;
        let slot = appender.slot.load(Ordering::Relaxed);
        let is_known = |known: &&mut Outcome| Arc::ptr_eq(&known.appender, &appender);
        let outcome = match self.by_appender.get_mut(slot).filter(is_known) {
            Some(outcome) => outcome,
            None => {
                appender.slot.store(self.by_appender.len(), Ordering::Relaxed);
                self.by_appender.push(Outcome { appender, acked: Vec::new(), bytes: 0 });
                let last = self.by_appender.len() - 1;
                &mut self.by_appender[last]
            }
        };
        outcome.bytes += record.len() + IN_FLIGHT_OVERHEAD_BYTES;
        outcome.acked.push(Acked { partition, token, result });
    }

    /// Hands the outcomes over.
    pub(super) fn send(&mut self) {
        for Outcome { appender, acked, bytes } in self.by_appender.drain(..) {
            // First they stop to count and then they are told: whoever waited because the queue
            // was full must find room when the last outcome comes.
            appender.bytes.fetch_sub(bytes, Ordering::Relaxed);
            appender.records.fetch_sub(acked.len(), Ordering::Relaxed);
            match appender.outcomes.try_send(acked) {
                Ok(()) | Err(mpsc::error::TrySendError::Closed(_)) => {}
                Err(mpsc::error::TrySendError::Full(_)) => {
                    unreachable!("there is a place for every record in flight")
                }
            }
        }
    }
}
