//! Waits until a moment, to some tens of microseconds: the runtime's own timers count whole
//! milliseconds, which would be most of a fast server's latency.

use std::{
    io,
    sync::{
        Arc,
        mpsc::{Receiver, SyncSender, sync_channel},
    },
    thread,
    time::Instant,
};

use tokio::sync::Notify;

/// A thread that sleeps for others. It ends with its ticker.
pub(crate) struct Ticker {
    moments: SyncSender<Instant>,
    woken: Arc<Notify>,
}

impl Ticker {
    pub(crate) fn new() -> io::Result<Self> {
        let (moments, asked) = sync_channel(1);
        let woken = Arc::new(Notify::new());
        let wake = Arc::clone(&woken);
        thread::Builder::new().name("ticker".to_owned()).spawn(move || sleep(&asked, &wake))?;
        Ok(Self { moments, woken })
    }

    /// Returns at `moment`, or at once if it has passed. Dropping the future loses nothing.
    pub(crate) async fn until(&self, moment: Instant) -> io::Result<()> {
        while Instant::now() < moment {
            // Full means that an earlier, forgotten moment is slept for; its waking comes first.
            match self.moments.try_send(moment) {
                Ok(()) | Err(std::sync::mpsc::TrySendError::Full(_)) => {}
                Err(std::sync::mpsc::TrySendError::Disconnected(_)) => {
                    return Err(io::Error::other("the timer's thread has ended"));
                }
            }
            self.woken.notified().await;
        }
        Ok(())
    }
}

fn sleep(moments: &Receiver<Instant>, wake: &Notify) {
    while let Ok(moment) = moments.recv() {
        thread::sleep(moment.saturating_duration_since(Instant::now()));
        wake.notify_one();
    }
}

#[cfg(test)]
mod tests {
    use std::{future::Future, pin::pin, task::Poll, time::Duration};

    use super::*;

    #[tokio::test]
    async fn it_never_wakes_early_and_goes_again() {
        let ticker = Ticker::new().unwrap();
        for _ in 0..3 {
            let moment = Instant::now() + Duration::from_millis(2);
            ticker.until(moment).await.unwrap();
            assert!(Instant::now() >= moment);
        }
        ticker.until(Instant::now()).await.unwrap();
    }

    #[tokio::test]
    async fn a_forgotten_wait_does_not_disturb_the_next() {
        let ticker = Ticker::new().unwrap();
        {
            let mut forgotten = pin!(ticker.until(Instant::now() + Duration::from_millis(20)));
            std::future::poll_fn(|cx| {
                assert!(forgotten.as_mut().poll(cx).is_pending());
                Poll::Ready(())
            })
            .await;
        }
        let moment = Instant::now() + Duration::from_millis(40);
        ticker.until(moment).await.unwrap();
        assert!(Instant::now() >= moment);
    }
}
