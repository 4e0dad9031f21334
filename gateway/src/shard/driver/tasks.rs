//! The tasks that a shard has once: its pipe, its flush and its time.

use std::{rc::Rc, sync::Arc, time::Duration};

use chappe_uplink::Broker;

use super::Driver;
use crate::clock::Now;

impl Driver {
    /// Keeps a pipe to the leaders open, and feeds the shard what comes over it.
    pub(super) async fn keep_pipe(self: Rc<Self>, broker: Arc<dyn Broker>) {
        let mut responses = Vec::new();
        let mut pause = PIPE_PAUSE_MIN;
        loop {
            let (sender, mut receiver) = broker.open();
            *self.pipe.borrow_mut() = Some(sender);
            self.feed(|shard, _| shard.handle_open());
            let mut heard = false;
            while receiver.recv(&mut responses, RESPONSES_MAX).await.is_ok() {
                heard = true;
                self.feed(|shard, links| shard.handle_responses(&mut responses, links));
            }
            *self.pipe.borrow_mut() = None;
            self.feed(|shard, _| shard.handle_end());
            pause = if heard { PIPE_PAUSE_MIN } else { (2 * pause).min(PIPE_PAUSE_MAX) };
            tokio::time::sleep(pause).await;
        }
    }

    /// Flushes whenever something is new, after everything else that is ready now: what comes
    /// together is sent together.
    pub(super) async fn keep_flushing(self: Rc<Self>) {
        loop {
            self.flush.notified().await;
            self.feed(|shard, links| shard.flush(links));
        }
    }

    /// Tells the shard the time when it wants to know it, and often enough to notice that it
    /// stood still.
    pub(super) async fn keep_time(self: Rc<Self>) {
        loop {
            let now_ms = Now::read().boot_ms;
            let wanted_ms = self.shard.borrow().next_wake_ms().unwrap_or(u64::MAX);
            let longest_ms = if self.pipe_full.get() { PIPE_FULL_MS } else { HEARTBEAT_MS };
            let wakes_ms = wanted_ms.min(now_ms + longest_ms);
            self.wakes_ms.set(wakes_ms);
            let sleep = Duration::from_millis(wakes_ms.saturating_sub(now_ms));
            tokio::select! {
                () = tokio::time::sleep(sleep) => {}
                () = self.timer.notified() => continue,
            }
            self.feed(|shard, _| shard.handle_tick());
        }
    }
}

/// Responses that are taken before anything is flushed.
const RESPONSES_MAX: usize = 256;
const PIPE_PAUSE_MIN: Duration = Duration::from_millis(20);
const PIPE_PAUSE_MAX: Duration = Duration::from_secs(1);
/// A full pipe is tried again after this time.
const PIPE_FULL_MS: u64 = 5;
const HEARTBEAT_MS: u64 = 1_000;
