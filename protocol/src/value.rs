//! Values that were checked when they were made: a `Nonce` in hand is a valid nonce.

use std::{fmt, ops::Deref, sync::Arc};

use serde::{Deserialize, Deserializer, Serialize, de};

use crate::limits;

/// Why a value was refused. The text says what the rule is and never repeats the input.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct InvalidValue(pub &'static str);

macro_rules! checked_text {
    ($(#[$doc:meta])* $name:ident, $check:expr) => {
        $(#[$doc])*
        #[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
        #[serde(transparent)]
        pub struct $name(Arc<str>);

        impl $name {
            /// Checks `text` against the rule of the type.
            pub fn parse(text: impl Into<Arc<str>>) -> Result<Self, InvalidValue> {
                let text = text.into();
                let check: fn(&str) -> Result<(), InvalidValue> = $check;
                check(&text)?;
                Ok(Self(text))
            }

            /// The text.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl Deref for $name {
            type Target = str;

            fn deref(&self) -> &str {
                &self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Debug::fmt(&*self.0, f)
            }
        }

        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                let text = String::deserialize(deserializer)?;
                Self::parse(text).map_err(de::Error::custom)
            }
        }
    };
}

checked_text! {
    /// A message's text: 1 to 4,000 code points, without control characters other than
    /// line breaks and tabs, and not white space alone.
    Text, |text| {
        if text.trim().is_empty() {
            return Err(InvalidValue("text must not be empty"));
        }
        if text.chars().count() > limits::TEXT_CODE_POINTS_MAX {
            return Err(InvalidValue("text is longer than 4000 code points"));
        }
        no_control(text, "text holds a control character")
    }
}
checked_text! {
    /// A channel's name: 1 to 80 code points, no control characters, no white space at
    /// either end, and not a decimal number, which would read as an id.
    ChannelName, |name| {
        if name.is_empty() || name.chars().count() > limits::NAME_CODE_POINTS_MAX {
            return Err(InvalidValue("a channel name has 1 to 80 code points"));
        }
        if name.trim() != name || name.chars().any(char::is_control) {
            return Err(InvalidValue(
                "a channel name has no control characters and no space at its ends",
            ));
        }
        if name.bytes().all(|b| b.is_ascii_digit()) {
            return Err(InvalidValue("a channel name is not a number: it would read as an id"));
        }
        Ok(())
    }
}
checked_text! {
    /// A channel's subject line: up to 250 code points, empty to clear it.
    Topic, |topic| {
        if topic.chars().count() > limits::TOPIC_CODE_POINTS_MAX {
            return Err(InvalidValue("a topic has at most 250 code points"));
        }
        no_control(topic, "a topic holds a control character")
    }
}
checked_text! {
    /// The name that a client gives a command, so that a retry can be told from a repeat:
    /// 1 to 64 bytes.
    Nonce, |nonce| {
        if nonce.is_empty() || nonce.len() > limits::NONCE_BYTES_MAX {
            return Err(InvalidValue("a nonce has 1 to 64 bytes"));
        }
        no_control(nonce, "a nonce holds a control character")
    }
}
checked_text! {
    /// A reaction: an emoji or a short name, 1 to 64 bytes without white space.
    Emoji, |emoji| {
        if emoji.is_empty() || emoji.len() > limits::EMOJI_BYTES_MAX {
            return Err(InvalidValue("a reaction has 1 to 64 bytes"));
        }
        if emoji.chars().any(|c| c.is_control() || c.is_whitespace()) {
            return Err(InvalidValue("a reaction has no white space or control characters"));
        }
        Ok(())
    }
}

impl ChannelName {
    /// The form in which two names are the same name: lower case.
    pub fn folded(&self) -> String {
        self.to_lowercase()
    }
}

/// A value of the application's own that travels with a message, at most 8 KiB of MessagePack.
///
/// It is whatever JSON can say, so that both encodings can carry it; keys are sorted, so that
/// equal values have equal bytes.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(transparent)]
pub struct Data(serde_json::Value);

impl Data {
    /// Checks the size of `value`.
    pub fn new(value: serde_json::Value) -> Result<Self, InvalidValue> {
        let mut counter = ByteCounter(0);
        rmp_serde::encode::write(&mut counter, &value)
            .map_err(|_| InvalidValue("data is larger than 8 KiB of MessagePack"))?;
        Ok(Self(value))
    }

    /// The value.
    pub fn get(&self) -> &serde_json::Value {
        &self.0
    }
}

impl Eq for Data {}

impl<'de> Deserialize<'de> for Data {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Self::new(serde_json::Value::deserialize(deserializer)?).map_err(de::Error::custom)
    }
}

/// Counts what is written and fails once it is over the limit, so nothing is buffered.
struct ByteCounter(usize);

impl std::io::Write for ByteCounter {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0 += bytes.len();
        if self.0 > limits::DATA_BYTES_MAX {
            return Err(std::io::ErrorKind::FileTooLarge.into());
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

fn no_control(text: &str, refusal: &'static str) -> Result<(), InvalidValue> {
    let control = |c: char| c.is_control() && !matches!(c, '\n' | '\t' | '\r');
    if text.chars().any(control) { Err(InvalidValue(refusal)) } else { Ok(()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_is_measured_in_code_points() {
        assert!(Text::parse("é".repeat(4_000)).is_ok());
        assert!(Text::parse("é".repeat(4_001)).is_err());
        assert!(Text::parse(" \n").is_err());
        assert!(Text::parse("a\u{0}b").is_err());
    }

    #[test]
    fn a_name_does_not_read_as_an_id() {
        assert!(ChannelName::parse("12345").is_err());
        assert!(ChannelName::parse("general 2").is_ok());
        assert!(ChannelName::parse(" general").is_err());
    }

    #[test]
    fn data_is_bounded_by_its_messagepack_size() {
        assert!(Data::new(serde_json::Value::String("x".repeat(8_189))).is_ok());
        assert!(Data::new(serde_json::Value::String("x".repeat(8_190))).is_err());
    }
}
