//! The open loop: hands each message of the schedule to its publisher when it is due, whatever
//! the server does.

use std::{
    cell::Cell,
    iter::Peekable,
    rc::Rc,
    time::{Duration, Instant},
};

use anyhow::{Context, Result};
use tokio::sync::mpsc;

use crate::{
    plan::{Arrival, Plan},
    setup::Crowd,
    ticker::Ticker,
    user::{Books, Order},
};

/// Messages handed out before the publishers get their turn.
const BATCH_MAX: usize = 64;
/// How far behind its schedule the generator goes on at the end: beyond it the run is invalid
/// anyway.
const BEHIND_MAX: Duration = Duration::from_secs(1);

/// Publishes the schedule, from the books' start on. `stop` ends it early.
pub(crate) async fn publish(
    plan: &Plan,
    crowd: &Crowd,
    books: &Rc<Books>,
    stop: &Cell<bool>,
    duration: Duration,
) -> Result<()> {
    let ticker = Ticker::new().context("no timer")?;
    let mut schedule = plan.schedule().peekable();
    let end = books.start.get() + duration + BEHIND_MAX;
    while let Some(next) = schedule.peek() {
        if stop.get() {
            return Ok(());
        }
        if Instant::now() >= end {
            books.measured.borrow_mut().unsent += schedule.count() as u64;
            return Ok(());
        }
        ticker.until(books.start.get() + next.at).await.context("the timer failed")?;
        hand_out(&mut schedule, crowd, books);
        // The publishers share this thread.
        tokio::task::yield_now().await;
    }
    Ok(())
}

fn hand_out(schedule: &mut Peekable<impl Iterator<Item = Arrival>>, crowd: &Crowd, books: &Books) {
    let now = books.start.get().elapsed();
    for _ in 0..BATCH_MAX {
        let Some(arrival) = schedule.next_if(|arrival| arrival.at <= now) else { return };
        let Some(id) = crowd.channels[arrival.channel as usize] else { continue };
        let at_ns = arrival.at.as_nanos() as u64;
        let order = Order::Publish { channel: arrival.channel, id, at_ns };
        match crowd.orders[arrival.publisher as usize].try_send(order) {
            Ok(()) => {}
            Err(mpsc::error::TrySendError::Full(_) | mpsc::error::TrySendError::Closed(_)) => {
                books.measured.borrow_mut().withheld += 1;
            }
        }
    }
}
