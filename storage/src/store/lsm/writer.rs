//! The writer: one thread that turns whatever waits in its queue into one commit.
//!
//! The queue is bounded in changes and in bytes. A caller waits for its place in it, and gives the
//! place up when its future is dropped; what has a place will be committed.

use std::io;
use std::sync::Arc;
use std::thread::{self, JoinHandle};

use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc, oneshot};

use super::super::{Claimed, StoreError};
use super::ends::Ends;
use super::group::{Change, Group, Rows};

pub(super) struct Writer {
    /// None once it is being stopped.
    queue: Option<mpsc::Sender<Request>>,
    queue_bytes: Arc<Semaphore>,
    thread: Option<JoinHandle<()>>,
}

/// A change with its place in the queue.
struct Request {
    change: Change,
    answer: oneshot::Sender<Result<Claimed, StoreError>>,
    place: OwnedSemaphorePermit,
}

impl Writer {
    pub(super) fn start(rows: Arc<impl Rows + Send + Sync + 'static>) -> io::Result<Self> {
        let (queue, requests) = mpsc::channel(QUEUE_CHANGES_MAX);
        let thread = thread::Builder::new()
            .name("chappe-store".to_owned())
            .spawn(move || run(&*rows, requests))?;
        Ok(Self {
            queue: Some(queue),
            queue_bytes: Arc::new(Semaphore::new(QUEUE_BYTES_MAX)),
            thread: Some(thread),
        })
    }

    /// Hands a change over and waits until it is durable.
    pub(super) async fn submit(&self, change: Change) -> Result<Claimed, StoreError> {
        let stopped = || StoreError::Unavailable("its writer has stopped".to_owned());
        let queue = self.queue.as_ref().ok_or_else(stopped)?;
        // A batch larger than the queue takes all of it.
        let bytes = change.bytes().min(QUEUE_BYTES_MAX) as u32;
        let place = Arc::clone(&self.queue_bytes).acquire_many_owned(bytes).await;
        let place = place.map_err(|_| stopped())?;
        let (answer, answered) = oneshot::channel();
        queue.send(Request { change, answer, place }).await.map_err(|_| stopped())?;
        answered.await.unwrap_or_else(|_| Err(stopped()))
    }

    /// How many changes wait in the queue.
    #[cfg(test)]
    pub(super) fn waiting(&self) -> usize {
        self.queue.as_ref().map_or(0, |queue| queue.max_capacity() - queue.capacity())
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        self.queue = None;
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
        {
            tracing::error!("the store's writer panicked");
        }
    }
}

fn run(rows: &impl Rows, mut requests: mpsc::Receiver<Request>) {
    let ends = &mut Ends::default();
    while let Some(first) = requests.blocking_recv() {
        let mut group = Group::default();
        let mut places = Vec::new();
        let mut answers = Vec::new();
        let mut bytes = 0;
        let mut next = Some(first);
        while let Some(Request { change, answer, place }) = next {
            bytes += change.bytes();
            places.push(place);
            answers.push((answer, group.add(rows, ends, change)));
            next = if bytes < GROUP_BYTES_MAX { requests.try_recv().ok() } else { None };
        }
        let committed = rows.commit(group.into_changes());
        drop(places);
        for (answer, decided) in answers {
            // Nobody waits any more if the caller's future was dropped.
            let _ = answer.send(committed.clone().and(decided));
        }
    }
}

/// Changes that wait at most.
const QUEUE_CHANGES_MAX: usize = 4096;
/// Bytes of changes that wait or are being committed, at most.
const QUEUE_BYTES_MAX: usize = 16 * 1024 * 1024;
/// A group is closed when it has this many bytes, so that nobody waits for a long commit.
const GROUP_BYTES_MAX: usize = 4 * 1024 * 1024;
