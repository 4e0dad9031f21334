//! A pipe: batches of requests one way, batches of responses the other, both bounded.
//!
//! The bound is in bytes of what waits, not in messages: a gateway that stops reading costs the
//! broker at most its pipe's budget, and then the pipe ends.

use std::{
    future::poll_fn,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    task::{Context, Poll, ready},
};

use futures_util::task::AtomicWaker;
use tokio::sync::mpsc;

use crate::{Request, Response};

/// Whoever answers requests: the broker of this process, or the way to others.
pub trait Broker: Send + Sync + 'static {
    /// Opens a pipe. It ends when either side is dropped, or when the broker cannot go on with it;
    /// then the gateway opens another and attaches everything again.
    fn open(&self) -> (Sender<Request>, Receiver<Response>);
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
    // Every item weighs at least one, so the count can never pass the weight.
    let (sender, receiver) = mpsc::channel(weight_max);
    let shared = Arc::new(Shared {
        weight: AtomicUsize::new(0),
        weight_max,
        closed: AtomicBool::new(false),
        ended: AtomicWaker::new(),
    });
    (Sender { items: sender, shared: Arc::clone(&shared) }, Receiver { items: receiver, shared })
}

struct Shared {
    weight: AtomicUsize,
    weight_max: usize,
    closed: AtomicBool,
    /// Wakes the receiver when the pipe is closed under it.
    ended: AtomicWaker,
}

/// The sending end. Clones send into the same pipe.
pub struct Sender<T> {
    items: mpsc::Sender<(usize, T)>,
    shared: Arc<Shared>,
}

impl<T> Clone for Sender<T> {
    fn clone(&self) -> Self {
        Self { items: self.items.clone(), shared: Arc::clone(&self.shared) }
    }
}

impl<T> Sender<T> {
    /// Sends one item of the given weight (its bytes, about; at least one). Does not wait.
    pub fn send(&self, item: T, weight: usize) -> Result<(), SendError<T>> {
        let weight = weight.clamp(1, self.shared.weight_max);
        if self.shared.closed.load(Ordering::Acquire) {
            return Err(SendError::Closed(item));
        }
        let before = self.shared.weight.fetch_add(weight, Ordering::AcqRel);
        if before + weight > self.shared.weight_max {
            self.shared.weight.fetch_sub(weight, Ordering::AcqRel);
            return Err(SendError::Full(item));
        }
        match self.items.try_send((weight, item)) {
            Ok(()) => Ok(()),
            Err(mpsc::error::TrySendError::Full((_, item))) => {
                self.shared.weight.fetch_sub(weight, Ordering::AcqRel);
                Err(SendError::Full(item))
            }
            Err(mpsc::error::TrySendError::Closed((_, item))) => Err(SendError::Closed(item)),
        }
    }

    /// Ends the pipe: nothing more is taken, and the receiver hears the end at once, without what
    /// still waits.
    pub fn close(&self) {
        self.shared.closed.store(true, Ordering::Release);
        self.shared.ended.wake();
    }

    /// Whether the pipe has ended.
    pub fn is_closed(&self) -> bool {
        self.shared.closed.load(Ordering::Acquire) || self.items.is_closed()
    }

    /// What waits, by weight.
    pub fn weight(&self) -> usize {
        self.shared.weight.load(Ordering::Acquire)
    }
}

/// The receiving end.
pub struct Receiver<T> {
    items: mpsc::Receiver<(usize, T)>,
    shared: Arc<Shared>,
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
        // Registered before the flag is read: a close in between wakes.
        self.shared.ended.register(cx.waker());
        if self.shared.closed.load(Ordering::Acquire) {
            return Poll::Ready(Err(Closed));
        }
        let Some(first) = ready!(self.items.poll_recv(cx)) else {
            return Poll::Ready(Err(Closed));
        };
        let mut weight = first.0;
        out.push(first.1);
        for _ in 1..limit {
            let Ok((item_weight, item)) = self.items.try_recv() else { break };
            weight += item_weight;
            out.push(item);
        }
        self.shared.weight.fetch_sub(weight, Ordering::AcqRel);
        Poll::Ready(Ok(()))
    }
}

impl<T> Drop for Receiver<T> {
    fn drop(&mut self) {
        self.shared.closed.store(true, Ordering::Release);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

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
    async fn a_closed_pipe_ends_at_once_at_both_ends() {
        let (sender, mut receiver) = pipe(10);
        assert!(sender.send('a', 1).is_ok());
        sender.close();
        assert_eq!(receiver.recv(&mut Vec::new(), 8).await, Err(Closed));
        assert!(matches!(sender.send('b', 1), Err(SendError::Closed('b'))));
    }
}
