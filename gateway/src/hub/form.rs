//! A form of frames: how they are encoded and framed. An event is written once per form in use.

use chappe_protocol::Encoding;
use serde::Serialize;

use crate::link::Framing;

/// One of the six combinations of encoding and framing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct Form(u8);

impl Form {
    pub(crate) const COUNT: usize = 6;

    pub(crate) const fn new(encoding: Encoding, framing: Framing) -> Self {
        let encoding = match encoding {
            Encoding::Json => 0,
            Encoding::MessagePack => 3,
        };
        let framing = match framing {
            Framing::WebSocketText => 0,
            Framing::WebSocketBinary => 1,
            Framing::LengthPrefixed => 2,
        };
        Self(encoding + framing)
    }

    /// The form with this index.
    pub(crate) const fn at(index: usize) -> Self {
        assert!(index < Self::COUNT);
        Self(index as u8)
    }

    pub(crate) const fn encoding(self) -> Encoding {
        if self.0 < 3 { Encoding::Json } else { Encoding::MessagePack }
    }

    pub(crate) const fn framing(self) -> Framing {
        match self.0 % 3 {
            0 => Framing::WebSocketText,
            1 => Framing::WebSocketBinary,
            _ => Framing::LengthPrefixed,
        }
    }

    pub(crate) const fn index(self) -> usize {
        self.0 as usize
    }

    /// Appends the finished frame to `out`; `payload` is scratch.
    pub(crate) fn write<T: Serialize>(self, frame: &T, payload: &mut Vec<u8>, out: &mut Vec<u8>) {
        payload.clear();
        self.encoding().encode(frame, payload);
        self.framing().write(payload, out);
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn each_combination_is_a_form_of_its_own_and_reads_back() {
        let mut seen = HashSet::new();
        for encoding in [Encoding::Json, Encoding::MessagePack] {
            for framing in
                [Framing::WebSocketText, Framing::WebSocketBinary, Framing::LengthPrefixed]
            {
                let form = Form::new(encoding, framing);
                assert_eq!((form.encoding(), form.framing()), (encoding, framing));
                assert!(seen.insert(form) && form.index() < Form::COUNT);
            }
        }
    }
}
