//! What a message of a run carries: which one it is, and when it was to be sent.

use chappe_protocol::Data;
use serde_json::{Value, json};

/// The identity of a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct MessageId {
    /// The user, by number.
    pub(crate) publisher: u32,
    /// The user's messages are counted from 0.
    pub(crate) number: u32,
}

/// A message of a run as it was read from an event or a page.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Payload {
    /// Tells the runs with one seed apart.
    pub(crate) run: u64,
    pub(crate) id: MessageId,
    /// The intended time, in nanoseconds since the run's start.
    pub(crate) at_ns: u64,
}

/// Makes the data of messages of one size.
#[derive(Debug, Clone)]
pub(crate) struct Writer {
    run: u64,
    padding: String,
}

impl Writer {
    /// For messages whose data has about `bytes` bytes of MessagePack.
    pub(crate) fn new(run: u64, bytes: u32) -> Self {
        // The map, its five keys and the numbers at their longest.
        const FRAME_BYTES: usize = 1 + 5 * 2 + 3 * 9 + 9 + 3;
        let padding = "x".repeat((bytes as usize).saturating_sub(FRAME_BYTES));
        Self { run, padding }
    }

    /// The data of a message. It is within the protocol's limit as the command line is.
    pub(crate) fn write(&self, id: MessageId, at_ns: u64) -> Option<Data> {
        let value = json!({
            "r": self.run,
            "u": id.publisher,
            "n": id.number,
            "t": at_ns,
            "p": self.padding,
        });
        Data::new(value).ok()
    }
}

impl Payload {
    /// Reads the data of a message, unless it is not a run's.
    pub(crate) fn read(data: Option<&Data>) -> Option<Self> {
        let Value::Object(fields) = data?.get() else { return None };
        let number = |key: &str| fields.get(key).and_then(Value::as_u64);
        let id = MessageId {
            publisher: u32::try_from(number("u")?).ok()?,
            number: u32::try_from(number("n")?).ok()?,
        };
        Some(Self { run: number("r")?, id, at_ns: number("t")? })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_payload_reads_back() {
        let id = MessageId { publisher: 3, number: 9 };
        let data = Writer::new(u64::MAX, 128).write(id, 12_345).unwrap();
        let payload = Payload { run: u64::MAX, id, at_ns: 12_345 };
        assert_eq!(Payload::read(Some(&data)), Some(payload));
    }

    #[test]
    fn another_applications_data_is_not_a_runs() {
        for value in [json!({"r": 1}), json!("text"), json!({"r": 1, "u": -1, "n": 2, "t": 3})] {
            assert_eq!(Payload::read(Some(&Data::new(value).unwrap())), None);
        }
        assert_eq!(Payload::read(None), None);
    }

    #[test]
    fn the_largest_payload_is_within_the_limit() {
        let id = MessageId { publisher: u32::MAX, number: u32::MAX };
        let bytes = chappe_protocol::limits::DATA_BYTES_MAX as u32;
        assert!(Writer::new(u64::MAX, bytes).write(id, u64::MAX).is_some());
    }
}
