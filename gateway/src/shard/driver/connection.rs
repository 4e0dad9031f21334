//! The task of one connection: as small as it can be, because there are many.

use std::{
    future::Future,
    pin::Pin,
    rc::Rc,
    sync::atomic::Ordering,
    task::{Context, Poll},
};

use super::{Driver, Links, Shard};
use crate::{clock::Now, link::LinkEnd};

/// Reads from a link, and finds out when it takes more, until it is over.
pub(super) struct Connection {
    pub(super) driver: Rc<Driver>,
    pub(super) peer: u32,
}

impl Future for Connection {
    type Output = ();

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let driver = &self.driver;
        let shard = &mut *driver.shard.borrow_mut();
        let links = &mut *driver.links.borrow_mut();
        shard.handle_time(Now::read());
        let over = match driver.poll_link(cx, shard, links, self.peer) {
            Poll::Ready(()) => true,
            // Closing may have begun, or the link failed while something was sent.
            Poll::Pending => {
                driver.carry_out(shard, links);
                links.get(self.peer).is_none_or(|entry| entry.over)
            }
        };
        if !over {
            return Poll::Pending;
        }
        if let Some(entry) = links.remove(self.peer) {
            driver.gate.disconnect(entry.address);
            driver.load.fetch_sub(1, Ordering::Relaxed);
        }
        shard.handle_gone(self.peer);
        driver.carry_out(shard, links);
        Poll::Ready(())
    }
}

impl Driver {
    /// Moves what a link has to say into the shard. Ready when the link is over.
    fn poll_link(
        &self,
        cx: &mut Context<'_>,
        shard: &mut Shard,
        links: &mut Links,
        peer: u32,
    ) -> Poll<()> {
        let Some(entry) = links.get(peer) else { return Poll::Ready(()) };
        if entry.over {
            return Poll::Ready(());
        }
        if !entry.waker.as_ref().is_some_and(|waker| waker.will_wake(cx.waker())) {
            entry.waker = Some(cx.waker().clone());
        }
        if Self::poll_lanes(cx, shard, links, peer).is_err() {
            return Poll::Ready(());
        }
        let scratch = &mut *self.scratch.borrow_mut();
        let mut messages = 0;
        for _ in 0..READS_MAX {
            if !shard.wants_input(peer) {
                self.received.increment(messages);
                return Poll::Pending; // woken when the session takes more
            }
            let Some(link) = links.link(peer) else { return Poll::Ready(()) };
            let mut inbound = |message: &[u8]| {
                messages += 1;
                shard.handle_message(peer, message);
            };
            match link.poll_recv(cx, scratch, &mut inbound) {
                Poll::Ready(Ok(())) => {}
                Poll::Pending => {
                    self.received.increment(messages);
                    return Poll::Pending;
                }
                Poll::Ready(Err(end)) => {
                    if let LinkEnd::Broken(rule) = end {
                        tracing::debug!(rule, "a client broke its transport's rules");
                        metrics::counter!("chappe_gateway_broken_links_total").increment(1);
                    }
                    return Poll::Ready(());
                }
            }
        }
        self.received.increment(messages);
        cx.waker().wake_by_ref(); // others first
        Poll::Pending
    }

    fn poll_lanes(
        cx: &mut Context<'_>,
        shard: &mut Shard,
        links: &mut Links,
        peer: u32,
    ) -> Result<(), LinkEnd> {
        for lane in shard.blocked_lanes(peer) {
            // Until the lane is free, or its link is full again and has the waker.
            while let Some(link) = links.link(peer)
                && let Poll::Ready(writable) = link.poll_writable(cx, lane)
            {
                writable?;
                shard.handle_writable(peer, lane, links);
                if !shard.blocked_lanes(peer).any(|blocked| blocked == lane) {
                    break;
                }
            }
        }
        Ok(())
    }
}

/// Reads of one connection before others get their turn.
const READS_MAX: usize = 16;
