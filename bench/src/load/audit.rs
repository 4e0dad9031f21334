//! Every delivery, once and in order, or the measurement does not count.
//!
//! An event's frame is the same for everyone. So the first one of each message is read in full,
//! and all others are compared with it byte by byte.

use anyhow::{Context, Result, bail, ensure};
use chappe_protocol::{EventBody, Rev, frame::Incoming};

use crate::{sample, wire::ENCODING};

/// What a set of subscribers has received.
pub(crate) struct Audit {
    /// The frame of each message, from 0.
    frames: Vec<Box<[u8]>>,
    last_rev: Option<Rev>,
    /// For each subscriber, the message that must come next.
    next: Vec<usize>,
    deliveries: u64,
    bytes: u64,
}

impl Audit {
    /// For subscribers that have received nothing.
    pub(crate) fn new(subscribers: usize) -> Self {
        Self {
            frames: Vec::new(),
            last_rev: None,
            next: vec![0; subscribers],
            deliveries: 0,
            bytes: 0,
        }
    }

    /// How many messages were delivered, over all subscribers.
    pub(crate) const fn deliveries(&self) -> u64 {
        self.deliveries
    }

    /// The mean size of a delivered message.
    pub(crate) fn bytes_per_delivery(&self) -> f64 {
        self.bytes as f64 / self.deliveries.max(1) as f64
    }

    /// Takes what a subscriber received. Frames other than messages do not count.
    pub(crate) fn take(&mut self, subscriber: usize, payload: &[u8]) -> Result<()> {
        let next = self.next[subscriber];
        match self.frames.get(next) {
            Some(expected) if **expected == *payload => {}
            known => {
                let Some((number, rev)) = read(payload)? else { return Ok(()) };
                ensure!(
                    number == next && known.is_none(),
                    "subscriber {subscriber} got message {number} instead of {next}"
                );
                ensure!(
                    self.last_rev.is_none_or(|last| rev == last.next()),
                    "message {number} has revision {rev}, which does not follow"
                );
                self.last_rev = Some(rev);
                self.frames.push(payload.into());
            }
        }
        self.next[subscriber] = next + 1;
        self.deliveries += 1;
        self.bytes += payload.len() as u64;
        Ok(())
    }
}

/// The number and revision of a message; none for a frame of another kind.
fn read(payload: &[u8]) -> Result<Option<(usize, Rev)>> {
    let event = match ENCODING.decode_server(payload)? {
        Incoming::Event(event) => event,
        Incoming::Closing(closing) => bail!("closing: {} {}", closing.code, closing.message),
        Incoming::Reset(_) => bail!("a subscriber was reset"),
        _ => return Ok(None),
    };
    let EventBody::MessageCreated(body) = &event.body else { return Ok(None) };
    let text = body.message.text.as_deref().context("a message without a text")?;
    Ok(Some((sample::number(text)?, event.rev)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn delivered(order: &[usize]) -> Result<Audit> {
        let mut audit = Audit::new(2);
        for number in 0..3 {
            audit.take(0, &sample::event(number))?;
        }
        for number in order {
            audit.take(1, &sample::event(*number))?;
        }
        Ok(audit)
    }

    #[test]
    fn each_message_once_in_order_is_clean() {
        assert_eq!(delivered(&[0, 1, 2]).unwrap().deliveries(), 6);
    }

    #[test]
    fn a_lost_a_repeated_and_a_swapped_delivery_are_found() {
        assert!(delivered(&[0, 2]).is_err());
        assert!(delivered(&[0, 0]).is_err());
        assert!(delivered(&[1, 0, 2]).is_err());
    }

    #[test]
    fn a_changed_delivery_is_found() {
        let mut audit = Audit::new(2);
        let mut frame = sample::event(0);
        audit.take(0, &frame).unwrap();
        *frame.last_mut().unwrap() ^= 1;
        assert!(audit.take(1, &frame).is_err());
    }
}
