//! A broker behind a bad line: every frame is encoded and decoded, delayed, the line is cut now and
//! then, and a chosen event is lost.
//!
//! It stands for the TCP uplink in tests of gateways: what holds over it does not rest on the
//! leader being in the same process. Never in production; `CHAPPE_TEST_UPLINK` switches it on.

use std::{str::FromStr, sync::Arc, time::Duration};

use crate::{Broker, Receiver, Request, Response, Sender, codec::Frame, pipe};

/// How bad the line is: `seed=7,delay_us=300,cut_one_in=500,lose_rev=9`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Strain {
    /// Where its chance starts: the same seed cuts at the same frames.
    pub seed: u64,
    /// The longest delay of a frame, in microseconds.
    pub delay_us: u64,
    /// One frame in this many cuts the pipe; 0 for none.
    pub cut_one_in: u64,
    /// On each pipe the event of every channel that has this revision is lost, and nothing else: a
    /// lost delivery that depends on no chance. 0 for none.
    pub lose_rev: u64,
}

/// The text does not describe a line.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("not a strain: {0}; expected seed=7,delay_us=300,cut_one_in=500,lose_rev=9")]
pub struct ParseStrainError(String);

impl FromStr for Strain {
    type Err = ParseStrainError;

    fn from_str(text: &str) -> Result<Self, ParseStrainError> {
        let mut strain = Self { seed: 1, delay_us: 0, cut_one_in: 0, lose_rev: 0 };
        for part in text.split(',') {
            let wrong = || ParseStrainError(part.to_owned());
            let (name, value) = part.split_once('=').ok_or_else(wrong)?;
            let value = value.trim().parse().map_err(|_| wrong())?;
            match name.trim() {
                "seed" => strain.seed = value,
                "delay_us" => strain.delay_us = value,
                "cut_one_in" => strain.cut_one_in = value,
                "lose_rev" => strain.lose_rev = value,
                _ => return Err(wrong()),
            }
        }
        Ok(strain)
    }
}

/// The broker behind the bad line. [`Broker::open`] must be called within a tokio runtime.
pub struct Strained {
    inner: Arc<dyn Broker>,
    strain: Strain,
    opened: std::sync::atomic::AtomicU64,
}

/// What one direction of the line may hold, in bytes.
const LINE_BYTES_MAX: usize = 8 << 20;
/// Frames taken at once.
const BATCH: usize = 64;

impl Strained {
    /// Puts `inner` behind a line.
    pub fn new(inner: Arc<dyn Broker>, strain: Strain) -> Self {
        Self { inner, strain, opened: 0.into() }
    }
}

impl Broker for Strained {
    fn open(&self) -> (Sender<Request>, Receiver<Response>) {
        let (to_broker, from_broker) = self.inner.open();
        let (to_gateway, gateway_end) = pipe(LINE_BYTES_MAX);
        let (gateway_start, from_gateway) = pipe(LINE_BYTES_MAX);
        // Each pipe has a chance of its own, or every one would be cut at the same frame.
        let opened = self.opened.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        let seed = self.strain.seed.wrapping_mul(0x9e37_79b9_7f4a_7c15).wrapping_add(opened);
        let there = Line { strain: self.strain, chance: Chance(seed | 1) };
        let back = Line { strain: self.strain, chance: Chance(!seed | 1) };
        tokio::spawn(async move {
            // Whichever direction is cut first takes the other with it.
            tokio::select! {
                () = there.carry(from_gateway, &to_broker) => {}
                () = back.carry(from_broker, &to_gateway) => {}
            }
            to_broker.close();
            to_gateway.close();
        });
        (gateway_start, gateway_end)
    }
}

struct Line {
    strain: Strain,
    chance: Chance,
}

impl Line {
    /// Carries frames until the pipe ends or is cut.
    async fn carry<T: Frame>(mut self, mut from: Receiver<T>, to: &Sender<T>) {
        let (mut batch, mut bytes) = (Vec::new(), Vec::new());
        while from.recv(&mut batch, BATCH).await.is_ok() {
            if self.strain.delay_us > 0 {
                let delay_us = self.chance.below(self.strain.delay_us + 1);
                tokio::time::sleep(Duration::from_micros(delay_us)).await;
            }
            for frame in batch.drain(..) {
                if self.strain.cut_one_in > 0 && self.chance.below(self.strain.cut_one_in) == 0 {
                    tracing::info!("the line was cut on purpose");
                    return;
                }
                bytes.clear();
                frame.encode(&mut bytes);
                let decoded = T::decode(&bytes);
                assert!(decoded.is_ok(), "a frame reads back: {:?}", decoded.err());
                let Ok(decoded) = decoded else { return };
                if self.strain.lose_rev > 0 && decoded.event_rev() == Some(self.strain.lose_rev) {
                    tracing::info!(rev = self.strain.lose_rev, "an event was lost on purpose");
                    continue;
                }
                if to.send_when_room(decoded, bytes.len()).await.is_err() {
                    return;
                }
            }
        }
    }
}

/// SplitMix64: small, and the same on every machine.
struct Chance(u64);

impl Chance {
    fn below(&mut self, bound: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (mixed ^ (mixed >> 31)) % bound
    }
}

#[cfg(test)]
mod tests {
    use chappe_protocol::{
        ChannelId, Event, EventBody, Incarnation, Rev, UserId, event::NothingBody,
    };

    use super::*;
    use crate::{Attach, Detach, Generation, Heads, SendError};

    /// Answers every attach with heads, so that something comes back.
    struct Echo;

    impl Broker for Echo {
        fn open(&self) -> (Sender<Request>, Receiver<Response>) {
            let (to_gateway, gateway_end) = pipe(1024);
            let (gateway_start, mut from_gateway) = pipe(1024);
            tokio::spawn(async move {
                let mut batch = Vec::new();
                while from_gateway.recv(&mut batch, 8).await.is_ok() {
                    for request in batch.drain(..) {
                        if let Request::Attach(attach) = request {
                            let heads = vec![(attach.channel, Rev::new(attach.token))];
                            drop(to_gateway.send(Response::Heads(Heads { heads }), 1));
                        }
                    }
                }
            });
            (gateway_start, gateway_end)
        }
    }

    fn attach(token: u64) -> Request {
        Request::Attach(Attach { token, channel: ChannelId::new(9), caller: None, from: None })
    }

    #[tokio::test]
    async fn frames_come_through_in_order() {
        let strain = Strain { seed: 3, delay_us: 50, cut_one_in: 0, lose_rev: 0 };
        let (sender, mut receiver) = Strained::new(Arc::new(Echo), strain).open();
        for token in 0..100 {
            assert!(sender.send(attach(token), 1).is_ok());
        }
        let mut answers = Vec::new();
        while answers.len() < 100 {
            receiver.recv(&mut answers, 100).await.unwrap();
        }
        for (token, answer) in answers.iter().enumerate() {
            let heads = vec![(ChannelId::new(9), Rev::new(token as u64))];
            assert_eq!(*answer, Response::Heads(Heads { heads }));
        }
    }

    #[tokio::test]
    async fn a_cut_ends_the_pipe_at_both_ends() {
        let strain = Strain { seed: 3, delay_us: 0, cut_one_in: 1, lose_rev: 0 };
        let (sender, mut receiver) = Strained::new(Arc::new(Echo), strain).open();
        assert!(sender.send(attach(1), 1).is_ok());
        assert!(receiver.recv(&mut Vec::new(), 8).await.is_err());
        let detach = Request::Detach(Detach { channel: ChannelId::new(9) });
        assert!(matches!(sender.send(detach, 1), Err(SendError::Closed(_))));
    }

    #[tokio::test]
    async fn the_event_with_a_revision_is_lost_and_nothing_else() {
        let strain = Strain { seed: 3, delay_us: 0, cut_one_in: 0, lose_rev: 2 };
        let (to_gateway, mut gateway_end) = pipe(1024);
        let (gateway_start, from_gateway) = pipe(1024);
        let line = Line { strain, chance: Chance(1) };
        tokio::spawn(async move { line.carry(from_gateway, &to_gateway).await });
        let generation = Generation { incarnation: Incarnation(1), epoch: 1 };
        let event = |rev| {
            let body = EventBody::Nothing(NothingBody {});
            let (channel, by) = (ChannelId::new(9), UserId::new(1));
            let rev = Rev::new(rev);
            let event = Arc::new(Event { channel, rev, by, at: 0, nonce: None, body });
            Response::Event { generation, event }
        };
        let heads = Response::Heads(Heads { heads: vec![(ChannelId::new(9), Rev::new(2))] });
        for response in [event(1), event(2), heads.clone(), event(3)] {
            assert!(gateway_start.send(response, 1).is_ok());
        }
        let mut heard = Vec::new();
        while heard.len() < 3 {
            gateway_end.recv(&mut heard, 8).await.unwrap();
        }
        assert_eq!(heard, [event(1), heads, event(3)]);
    }

    #[test]
    fn a_strain_is_read_from_text() {
        let strain = Strain { seed: 7, delay_us: 300, cut_one_in: 500, lose_rev: 9 };
        assert_eq!("seed=7,delay_us=300,cut_one_in=500,lose_rev=9".parse(), Ok(strain));
        assert!("cut=1".parse::<Strain>().is_err());
    }
}
