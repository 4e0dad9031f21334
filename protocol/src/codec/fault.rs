//! What is wrong with a value, where, and by which rule: in fixed words that are ours. What was
//! sent is not at hand when the words are chosen, so it cannot get into them.

use std::{borrow::Cow, fmt, fmt::Write};

use serde::de::{self, Expected, Unexpected};

use crate::{code::ErrorCode, rule::InvalidValue};

/// Why a value was refused.
#[derive(Debug)]
pub(super) struct Fault(Box<Details>);

#[derive(Debug)]
struct Details {
    code: ErrorCode,
    message: Cow<'static, str>,
    /// The fields around the value, innermost first.
    path: Vec<&'static str>,
}

impl Fault {
    fn new(code: ErrorCode, message: impl Into<Cow<'static, str>>) -> Self {
        Self(Box::new(Details { code, message: message.into(), path: Vec::new() }))
    }

    /// The encoding itself is wrong.
    pub(super) fn malformed(message: &'static str) -> Self {
        Self::new(ErrorCode::Malformed, message)
    }

    /// The same, inside a field.
    pub(super) fn within(mut self, field: &'static str) -> Self {
        self.0.path.push(field);
        self
    }

    pub(super) fn code(&self) -> ErrorCode {
        self.0.code
    }

    fn expected(expected: &dyn Expected) -> Self {
        Self::new(ErrorCode::Invalid, format!("expected {}", in_plain_words(&expected.to_string())))
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, field) in self.0.path.iter().rev().enumerate() {
            if index > 0 {
                f.write_char('.')?;
            }
            f.write_str(field)?;
        }
        if !self.0.path.is_empty() {
            f.write_str(": ")?;
        }
        f.write_str(&self.0.message)
    }
}

impl std::error::Error for Fault {}

impl de::Error for Fault {
    /// Takes only what one of our rules says: other words could hold anything.
    fn custom<T: fmt::Display>(message: T) -> Self {
        let message = message.to_string();
        match InvalidValue::ALL.iter().find(|rule| rule.rule == message) {
            Some(rule) => Self::new(rule.code, rule.rule),
            None => Self::new(ErrorCode::Invalid, ErrorCode::Invalid.message()),
        }
    }

    fn invalid_type(_: Unexpected<'_>, expected: &dyn Expected) -> Self {
        Self::expected(expected)
    }

    fn invalid_value(_: Unexpected<'_>, expected: &dyn Expected) -> Self {
        Self::expected(expected)
    }

    fn invalid_length(_: usize, expected: &dyn Expected) -> Self {
        Self::expected(expected)
    }

    fn unknown_variant(_: &str, expected: &'static [&'static str]) -> Self {
        Self::new(ErrorCode::Invalid, format!("expected one of {}", expected.join(", ")))
    }

    fn unknown_field(_: &str, expected: &'static [&'static str]) -> Self {
        Self::new(ErrorCode::Invalid, format!("expected one of {}", expected.join(", ")))
    }

    fn missing_field(field: &'static str) -> Self {
        Self::new(ErrorCode::Invalid, format!("{field} is missing"))
    }

    fn duplicate_field(field: &'static str) -> Self {
        Self::new(ErrorCode::Malformed, format!("{field} is there twice"))
    }
}

/// serde names Rust's types; a client knows JSON's.
fn in_plain_words(expected: &str) -> Cow<'_, str> {
    match expected {
        "u16" | "u32" | "u64" => format!("a whole number of {} bits", &expected[1..]).into(),
        "a sequence" => "an array".into(),
        "enum" => "a map with one key".into(),
        _ if expected.starts_with("struct ") => "a map".into(),
        _ => match expected.strip_prefix("a tuple of size ") {
            Some(size) => format!("an array of {size}").into(),
            None => expected.into(),
        },
    }
}
