//! A pipe: batches of requests one way, batches of responses the other, both bounded.
//!
//! The bound is in bytes of what waits, not in messages: a gateway that stops reading costs the
//! broker at most its pipe's budget, and then the pipe ends.

use std::{
    collections::VecDeque,
    future::poll_fn,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    task::{Context, Poll},
};

use futures_util::task::AtomicWaker;

use crate::{Request, Response, status::BrokerStatus};

/// Whoever answers requests: the broker of this process, or the way to others.
pub trait Broker: Send + Sync + 'static {
    /// Opens a pipe. It ends when either side is dropped, or when the broker cannot go on with it;
    /// then the gateway opens another and attaches everything again.
    fn open(&self) -> (Sender<Request>, Receiver<Response>);
}

/// A broker that can say how it stands.
pub trait Overview: Broker {
    /// How it stands now, without the gateways that come in over an uplink: those its listener
    /// knows. May wait for its threads.
    fn status(&self) -> impl Future<Output = BrokerStatus> + Send;
}

/// The pipe is at its limit, or has ended. The item comes back.
#[derive(Debug, thiserror::Error)]
pub enum SendError<T> {
    /// The other end does not keep up.
    #[error("the pipe is full")]
    Full(T),
    /// The other end is gone.
    #[error("the pipe has ended")]
    Closed(T),
}

/// The pipe has ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the pipe has ended")]
pub struct Closed;

/// Makes one direction of a pipe, which holds at most `weight_max` of what is sent.
pub fn pipe<T>(weight_max: usize) -> (Sender<T>, Receiver<T>) {
    let shared = Arc::new(Shared {
        items: Mutex::new(VecDeque::new()),
        weight: AtomicUsize::new(0),
        weight_max,
        closed: AtomicBool::new(false),
        senders: AtomicUsize::new(1),
        receiver: AtomicWaker::new(),
        waits_for_room: AtomicWaker::new(),
    });
    (Sender { shared: Arc::clone(&shared) }, Receiver { shared })
}

struct Shared<T> {
    /// Bounded by their weight; each weighs at least one.
    items: Mutex<VecDeque<(usize, T)>>,
    weight: AtomicUsize,
    weight_max: usize,
    closed: AtomicBool,
    senders: AtomicUsize,
    receiver: AtomicWaker,
    /// The one task that waits for room.
    waits_for_room: AtomicWaker,
}

impl<T> Shared<T> {
    fn items(&self) -> MutexGuard<'_, VecDeque<(usize, T)>> {
        // A panic cannot leave the queue half changed.
        self.items.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The sending end. Clones send into the same pipe.
pub struct Sender<T> {
    shared: Arc<Shared<T>>,
}

impl<T> Clone for Sender<T> {
    fn clone(&self) -> Self {
        self.shared.senders.fetch_add(1, Ordering::Relaxed);
        Self { shared: Arc::clone(&self.shared) }
    }
}

impl<T> Sender<T> {
    /// Sends one item of the given weight (its bytes, about; at least one). Does not wait.
    pub fn send(&self, item: T, weight: usize) -> Result<(), SendError<T>> {
        self.send_quietly(item, weight)?;
        self.wake();
        Ok(())
    }

    /// The same without waking the receiver, who may not see the item before [`Sender::wake`].
    ///
    /// For several at once: woken by the first, a receiver on the same core would run before the
    /// second is sent, and do the work of a batch for one.
    pub fn send_quietly(&self, item: T, weight: usize) -> Result<(), SendError<T>> {
        let weight = weight.clamp(1, self.shared.weight_max);
        if self.shared.closed.load(Ordering::Acquire) {
            return Err(SendError::Closed(item));
        }
        let before = self.shared.weight.fetch_add(weight, Ordering::AcqRel);
        if before + weight > self.shared.weight_max {
            self.shared.weight.fetch_sub(weight, Ordering::AcqRel);
            return Err(SendError::Full(item));
        }
        self.shared.items().push_back((weight, item));
        Ok(())
    }

    /// The same as [`Sender::send`], but waits while the pipe is full, as a socket would. One task
    /// at a time may wait for room in a pipe. Dropped while it waits, it has not sent.
    pub async fn send_when_room(&self, item: T, weight: usize) -> Result<(), Closed> {
        let mut waiting = Some(item);
        let sent = poll_fn(|cx| {
            // Registered before the try: room made in between wakes.
            self.shared.waits_for_room.register(cx.waker());
            let Some(item) = waiting.take() else { return Poll::Ready(Ok(())) };
            match self.send_quietly(item, weight) {
                Ok(()) => Poll::Ready(Ok(())),
                Err(SendError::Closed(_)) => Poll::Ready(Err(Closed)),
                Err(SendError::Full(item)) => {
                    waiting = Some(item);
                    Poll::Pending
                }
            }
        });
        sent.await?;
        self.wake();
        Ok(())
    }

    /// Wakes the receiver for what was sent quietly.
    pub fn wake(&self) {
        self.shared.receiver.wake();
    }

    /// Ends the pipe: nothing more is taken, and the receiver hears the end at once, without what
    /// still waits.
    pub fn close(&self) {
        self.shared.closed.store(true, Ordering::Release);
        self.shared.receiver.wake();
        self.shared.waits_for_room.wake();
    }

    /// Whether the pipe has ended.
    pub fn is_closed(&self) -> bool {
        self.shared.closed.load(Ordering::Acquire)
    }

    /// What waits, by weight.
    pub fn weight(&self) -> usize {
        self.shared.weight.load(Ordering::Acquire)
    }
}

impl<T> Drop for Sender<T> {
    fn drop(&mut self) {
        if self.shared.senders.fetch_sub(1, Ordering::AcqRel) == 1 {
            self.shared.receiver.wake(); // it hears what waits, and then the end
        }
    }
}

/// The receiving end.
pub struct Receiver<T> {
    shared: Arc<Shared<T>>,
}

impl<T> Receiver<T> {
    /// Waits for items and takes those that are there, at most `limit`, into `out`.
    ///
    /// Fails when the pipe has ended. Safe to drop: nothing is lost.
    pub async fn recv(&mut self, out: &mut Vec<T>, limit: usize) -> Result<(), Closed> {
        poll_fn(|cx| self.poll_recv(cx, out, limit)).await
    }

    /// The same for a task that waits for several pipes at once: ready when it took something or
    /// the pipe has ended, else the task is woken when there is something to take.
    pub fn poll_recv(
        &mut self,
        cx: &mut Context<'_>,
        out: &mut Vec<T>,
        limit: usize,
    ) -> Poll<Result<(), Closed>> {
        self.poll_take(cx, limit, |_, item| out.push(item))
    }

    /// The same with each item's weight, for who passes it on.
    pub fn poll_recv_weighed(
        &mut self,
        cx: &mut Context<'_>,
        out: &mut Vec<(usize, T)>,
        limit: usize,
    ) -> Poll<Result<(), Closed>> {
        self.poll_take(cx, limit, |weight, item| out.push((weight, item)))
    }

    fn poll_take(
        &mut self,
        cx: &mut Context<'_>,
        limit: usize,
        mut take: impl FnMut(usize, T),
    ) -> Poll<Result<(), Closed>> {
        // Registered before anything is looked at: what comes in between wakes.
        self.shared.receiver.register(cx.waker());
        if self.shared.closed.load(Ordering::Acquire) {
            return Poll::Ready(Err(Closed));
        }
        // Read before the items: what the last sender sent is there once it is seen to be gone.
        let senders = self.shared.senders.load(Ordering::Acquire);
        let mut items = self.shared.items();
        if items.is_empty() {
            return if senders == 0 { Poll::Ready(Err(Closed)) } else { Poll::Pending };
        }
        let taken = items.len().min(limit.max(1));
        let mut weight = 0;
        for (item_weight, item) in items.drain(..taken) {
            weight += item_weight;
            take(item_weight, item);
        }
        drop(items);
        self.shared.weight.fetch_sub(weight, Ordering::AcqRel);
        self.shared.waits_for_room.wake();
        Poll::Ready(Ok(()))
    }
}

impl<T> Drop for Receiver<T> {
    fn drop(&mut self) {
        self.shared.closed.store(true, Ordering::Release);
        self.shared.items().clear(); // nobody will take them
        self.shared.waits_for_room.wake();
    }
}

#[cfg(test)]
mod tests {
    use std::{pin::Pin, sync::atomic::AtomicBool, task::Wake};

    use super::*;

    /// A task that is polled by hand.
    struct Task<F: Future> {
        future: Pin<Box<F>>,
        woken: Arc<Woken>,
        output: Option<F::Output>,
    }

    struct Woken(AtomicBool);

    impl Wake for Woken {
        fn wake(self: Arc<Self>) {
            self.0.store(true, Ordering::SeqCst);
        }
    }

    fn by_hand<F: Future>(future: F) -> Task<F> {
        let woken = Arc::new(Woken(AtomicBool::new(false)));
        Task { future: Box::pin(future), woken, output: None }
    }

    impl<F: Future> Task<F> {
        fn poll(&mut self) -> bool {
            let waker = Arc::clone(&self.woken).into();
            if let Poll::Ready(output) = self.future.as_mut().poll(&mut Context::from_waker(&waker))
            {
                self.output = Some(output);
            }
            self.output.is_some()
        }

        fn is_woken(&self) -> bool {
            self.woken.0.load(Ordering::SeqCst)
        }
    }

    #[tokio::test]
    async fn a_full_pipe_refuses_and_takes_again_once_it_was_read() {
        let (sender, mut receiver) = pipe(10);
        assert!(sender.send('a', 6).is_ok());
        assert!(matches!(sender.send('b', 6), Err(SendError::Full('b'))));
        let mut out = Vec::new();
        assert_eq!(receiver.recv(&mut out, 8).await, Ok(()));
        assert_eq!(out, ['a']);
        assert!(sender.send('b', 6).is_ok());
    }

    #[tokio::test]
    async fn a_sender_waits_for_room_and_hears_of_it_or_of_the_end() {
        let (sender, mut receiver) = pipe(10);
        assert!(sender.send('a', 6).is_ok());
        let (other, last) = (sender.clone(), sender.clone());
        let mut waiting = by_hand(async move { other.send_when_room('b', 6).await });
        assert!(!waiting.poll() && !waiting.is_woken());
        let mut out = Vec::new();
        assert_eq!(receiver.recv(&mut out, 1).await, Ok(()));
        assert!(waiting.is_woken() && waiting.poll());
        assert_eq!(waiting.output, Some(Ok(())));
        let mut waiting = by_hand(async move { last.send_when_room('c', 6).await });
        assert!(!waiting.poll() && !waiting.is_woken());
        drop(receiver);
        assert!(waiting.is_woken() && waiting.poll());
        assert_eq!(waiting.output, Some(Err(Closed)));
    }

    #[tokio::test]
    async fn what_was_sent_quietly_is_heard_at_the_wake_and_together() {
        let (sender, mut receiver) = pipe(10);
        let mut reading = by_hand(async move {
            let mut out = Vec::new();
            receiver.recv(&mut out, 8).await.map(|()| out)
        });
        assert!(!reading.poll());
        assert!(sender.send_quietly('a', 1).is_ok() && sender.send_quietly('b', 1).is_ok());
        assert!(!reading.is_woken());
        sender.wake();
        assert!(reading.is_woken() && reading.poll());
        assert_eq!(reading.output, Some(Ok(vec!['a', 'b'])));
    }

    #[tokio::test]
    async fn what_waits_is_heard_after_the_last_sender_is_gone() {
        let (sender, mut receiver) = pipe(10);
        let other = sender.clone();
        assert!(sender.send('a', 1).is_ok());
        drop((sender, other));
        let mut out = Vec::new();
        assert_eq!(receiver.recv(&mut out, 8).await, Ok(()));
        assert_eq!(receiver.recv(&mut out, 8).await, Err(Closed));
        assert_eq!(out, ['a']);
    }

    #[tokio::test]
    async fn a_receiver_that_waits_hears_of_the_last_senders_end() {
        let (sender, mut receiver) = pipe::<char>(10);
        let waiting = tokio::spawn(async move { receiver.recv(&mut Vec::new(), 8).await });
        tokio::task::yield_now().await;
        drop(sender);
        assert_eq!(waiting.await.ok(), Some(Err(Closed)));
    }

    #[test]
    fn a_pipe_without_a_reader_takes_nothing_and_keeps_nothing() {
        let (sender, receiver) = pipe(10);
        let item = Arc::new(());
        assert!(sender.send(Arc::clone(&item), 1).is_ok());
        drop(receiver);
        assert_eq!(Arc::strong_count(&item), 1);
        assert!(sender.is_closed());
        assert!(matches!(sender.send(item, 1), Err(SendError::Closed(_))));
    }

    #[tokio::test]
    async fn a_closed_pipe_ends_at_once_at_both_ends() {
        let (sender, mut receiver) = pipe(10);
        assert!(sender.send('a', 1).is_ok());
        sender.close();
        assert_eq!(receiver.recv(&mut Vec::new(), 8).await, Err(Closed));
        assert!(matches!(sender.send('b', 1), Err(SendError::Closed('b'))));
    }
}
