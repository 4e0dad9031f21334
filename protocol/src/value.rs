//! Values that were checked when they were made: a `Nonce` in hand is a valid nonce.

use std::{fmt, ops::Deref, sync::Arc};

use serde::{Deserialize, Deserializer, Serialize, de};
use serde_json::Value;

pub use crate::rule::InvalidValue;
use crate::{limits, rule};

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
                deserializer.deserialize_str(TextVisitor(|text| Self::parse(text)))
            }
        }
    };
}

/// Hands the text to a type's `parse` as it lies in the frame, so that it is copied once.
struct TextVisitor<T>(fn(&str) -> Result<T, InvalidValue>);

impl<T> de::Visitor<'_> for TextVisitor<T> {
    type Value = T;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a string")
    }

    fn visit_str<E: de::Error>(self, text: &str) -> Result<T, E> {
        (self.0)(text).map_err(E::custom)
    }
}

checked_text! {
    /// A message's text: 1 to 4,000 code points, without control characters other than
    /// line breaks and tabs, and not white space alone.
    Text, |text| {
        if text.trim_start().is_empty() {
            return Err(rule::TEXT_EMPTY);
        }
        if longer_than(text, limits::TEXT_CODE_POINTS_MAX) {
            return Err(rule::TEXT_LONG);
        }
        if has_control(text, Breaks::Allowed) { Err(rule::TEXT_CONTROL) } else { Ok(()) }
    }
}
checked_text! {
    /// A channel's name: 1 to 80 code points, no control characters, no white space at
    /// either end, and not a decimal number, which would read as an id.
    ChannelName, |name| {
        if name.is_empty() || longer_than(name, limits::NAME_CODE_POINTS_MAX) {
            return Err(rule::NAME_LENGTH);
        }
        if name.trim() != name || has_control(name, Breaks::Refused) {
            return Err(rule::NAME_CHARACTERS);
        }
        if name.bytes().all(|b| b.is_ascii_digit()) { Err(rule::NAME_NUMBER) } else { Ok(()) }
    }
}
checked_text! {
    /// A channel's subject line: up to 250 code points, empty to clear it.
    Topic, |topic| {
        if longer_than(topic, limits::TOPIC_CODE_POINTS_MAX) {
            return Err(rule::TOPIC_LONG);
        }
        if has_control(topic, Breaks::Allowed) { Err(rule::TOPIC_CONTROL) } else { Ok(()) }
    }
}
checked_text! {
    /// The name that a client gives a command, so that a retry can be told from a repeat:
    /// 1 to 64 bytes, no control characters.
    Nonce, |nonce| {
        if nonce.is_empty() || nonce.len() > limits::NONCE_BYTES_MAX {
            return Err(rule::NONCE_LENGTH);
        }
        if has_control(nonce, Breaks::Refused) { Err(rule::NONCE_CONTROL) } else { Ok(()) }
    }
}
checked_text! {
    /// A reaction: an emoji or a short name, 1 to 64 bytes without white space.
    Emoji, |emoji| {
        if emoji.is_empty() || emoji.len() > limits::EMOJI_BYTES_MAX {
            return Err(rule::EMOJI_LENGTH);
        }
        let allowed = |c: char| !c.is_control() && !c.is_whitespace();
        if emoji.chars().all(allowed) { Ok(()) } else { Err(rule::EMOJI_CHARACTERS) }
    }
}

impl ChannelName {
    /// The form in which two names are the same name: lower case.
    pub fn folded(&self) -> String {
        self.to_lowercase()
    }
}

/// A value of the application's own that travels with a message: at most 8 KiB of MessagePack,
/// 12 levels deep, 64 keys a map.
///
/// It is whatever JSON can say, so that both encodings can carry it; keys are sorted, so that
/// equal values have equal bytes.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(transparent)]
pub struct Data(Value);

impl Data {
    /// Checks depth, keys and size of `value`.
    pub fn new(value: Value) -> Result<Self, InvalidValue> {
        check_nesting(&value, limits::DATA_DEPTH_MAX)?;
        let mut counter = ByteCounter(0);
        rmp_serde::encode::write(&mut counter, &value).map_err(|_| rule::DATA_LARGE)?;
        Ok(Self(value))
    }

    /// The value.
    pub fn get(&self) -> &Value {
        &self.0
    }
}

impl Eq for Data {} // a number in a `Value` is finite, so it equals itself

impl<'de> Deserialize<'de> for Data {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Self::new(Value::deserialize(deserializer)?).map_err(de::Error::custom)
    }
}

/// Recursion ends with `levels`, however deep the value is.
fn check_nesting(value: &Value, levels: usize) -> Result<(), InvalidValue> {
    let inner = || levels.checked_sub(1).ok_or(rule::DATA_DEEP);
    match value {
        Value::Array(items) => {
            let levels = inner()?;
            items.iter().try_for_each(|item| check_nesting(item, levels))
        }
        Value::Object(map) if map.len() > limits::KEYS_MAX => Err(rule::DATA_KEYS),
        Value::Object(map) => {
            let levels = inner()?;
            map.values().try_for_each(|item| check_nesting(item, levels))
        }
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => Ok(()),
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

/// A code point has at least one byte, so most texts need no counting.
fn longer_than(text: &str, code_points_max: usize) -> bool {
    text.len() > code_points_max && text.chars().count() > code_points_max
}

/// Whether line breaks and tabs may stand in a text.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Breaks {
    Allowed,
    Refused,
}

/// Whether the text has a control character: U+0000 to U+001F, U+007F to U+009F. Looks at bytes,
/// without an early end, so that the compiler takes many at a time.
fn has_control(text: &str, breaks: Breaks) -> bool {
    let allowed = |b: u8| breaks == Breaks::Allowed && matches!(b, b'\n' | b'\t' | b'\r');
    let low = |found, b: &u8| found | ((*b < 0x20 || *b == 0x7f) && !allowed(*b));
    // The upper ones are C2 80 to C2 9F in UTF-8.
    let high = |found, pair: &[u8]| found | (pair[0] == 0xc2 && pair[1] < 0xa0);
    text.as_bytes().iter().fold(false, low)
        || !text.is_ascii() && text.as_bytes().windows(2).fold(false, high)
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
    fn every_control_character_is_found_and_nothing_else() {
        for c in '\0'..='\u{2ff}' {
            let text = format!("é{c}ß");
            assert_eq!(has_control(&text, Breaks::Refused), c.is_control(), "{c:?}");
            let is_break = matches!(c, '\n' | '\t' | '\r');
            let expected = c.is_control() && !is_break;
            assert_eq!(has_control(&text, Breaks::Allowed), expected, "{c:?}");
        }
    }

    #[test]
    fn a_name_does_not_read_as_an_id() {
        assert!(ChannelName::parse("12345").is_err());
        assert!(ChannelName::parse("general 2").is_ok());
        assert!(ChannelName::parse(" general").is_err());
    }

    #[test]
    fn data_is_bounded_by_its_messagepack_size() {
        assert!(Data::new(Value::String("x".repeat(8_189))).is_ok());
        assert!(Data::new(Value::String("x".repeat(8_190))).is_err());
    }

    #[test]
    fn data_is_bounded_in_depth_and_keys() {
        let nested = |levels| (0..levels).fold(Value::Null, |inner, _| Value::Array(vec![inner]));
        assert!(Data::new(nested(limits::DATA_DEPTH_MAX)).is_ok());
        assert_eq!(Data::new(nested(limits::DATA_DEPTH_MAX + 1)), Err(rule::DATA_DEEP));
        let map = |keys: usize| (0..keys).map(|key| (key.to_string(), Value::Null)).collect();
        assert!(Data::new(Value::Object(map(limits::KEYS_MAX))).is_ok());
        assert_eq!(Data::new(Value::Object(map(limits::KEYS_MAX + 1))), Err(rule::DATA_KEYS));
    }

    #[test]
    fn equal_data_has_equal_bytes_whatever_the_order_of_its_keys() {
        let data = |json: &str| Data::new(serde_json::from_str(json).unwrap()).unwrap();
        let (a, b) = (data(r#"{"a":1,"b":2}"#), data(r#"{"b":2,"a":1}"#));
        assert_eq!(serde_json::to_string(&a).unwrap(), serde_json::to_string(&b).unwrap());
    }
}
