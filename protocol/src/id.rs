//! Identifiers and positions, each a type of its own so that no two can be mixed up.
//!
//! Ids are 64 bits wide: decimal strings in JSON (a JavaScript number holds only 53 bits),
//! unsigned integers in MessagePack. Positions stay below 2^40 and are numbers in both.

use std::{fmt, str::FromStr};

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};
use sha2::{Digest, Sha256};

use crate::rule;

/// Positions (revisions, message numbers) stay below this.
pub const POSITION_MAX: u64 = 1 << 40;
/// The top bit of a channel id marks a user's inbox.
const INBOX_BIT: u64 = 1 << 63;

/// The text is not a decimal number that fits the id.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not an id: a decimal number that fits it")]
pub struct ParseIdError;

macro_rules! id {
    ($(#[$doc:meta])* $name:ident <= $max:expr) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(u64);

        impl $name {
            /// Wraps a raw value, for instance one read back from storage.
            pub const fn new(raw: u64) -> Self {
                Self(raw)
            }

            /// The raw value.
            pub const fn get(self) -> u64 {
                self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Display::fmt(&self.0, f)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, concat!(stringify!($name), "({})"), self.0)
            }
        }

        impl FromStr for $name {
            type Err = ParseIdError;

            fn from_str(text: &str) -> Result<Self, ParseIdError> {
                parse_decimal(text, $max).map(Self)
            }
        }

        impl Serialize for $name {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                if serializer.is_human_readable() {
                    serializer.serialize_str(Decimal::of(self.0).as_str())
                } else {
                    serializer.serialize_u64(self.0)
                }
            }
        }

        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                if deserializer.is_human_readable() {
                    deserializer.deserialize_str(DecimalVisitor { max: $max }).map(Self)
                } else {
                    match u64::deserialize(deserializer)? {
                        raw if raw <= $max => Ok(Self(raw)),
                        _ => Err(de::Error::custom(rule::ID)),
                    }
                }
            }
        }
    };
}

id! {
    /// A user: the first 63 bits of SHA-256 over issuer and subject of the token that signed in.
    UserId <= u64::MAX >> 1
}
id! {
    /// A channel, or a user's inbox when the top bit is set.
    ChannelId <= u64::MAX
}
id! {
    /// One signed-in connection, drawn at random by its gateway.
    SessionId <= u64::MAX
}

impl UserId {
    /// The identity of `subject` as `issuer` names it.
    pub fn of(issuer: &str, subject: &str) -> Self {
        Self(hashed("user", &[issuer.as_bytes(), &[0], subject.as_bytes()]))
    }
}

impl ChannelId {
    /// The channel that `creator` makes with `nonce`: a create that is retried meets itself.
    pub fn created_by(creator: UserId, nonce: &str) -> Self {
        Self(hashed("channel", &[&creator.0.to_le_bytes(), nonce.as_bytes()]))
    }

    /// The one direct channel between two users, whoever asks.
    pub fn direct(a: UserId, b: UserId) -> Self {
        let (low, high) = if a <= b { (a, b) } else { (b, a) };
        Self(hashed("direct", &[&low.0.to_le_bytes(), &high.0.to_le_bytes()]))
    }

    /// The user's private channel, in which a server tells him of his channels.
    pub const fn inbox(user: UserId) -> Self {
        Self(user.0 | INBOX_BIT)
    }

    /// The user whose inbox this is, or none for an ordinary channel.
    pub const fn inbox_owner(self) -> Option<UserId> {
        if self.0 & INBOX_BIT == 0 { None } else { Some(UserId(self.0 & !INBOX_BIT)) }
    }

    /// The partition that orders this channel: XXH3-64 (seed 0) of the id's little-endian
    /// bytes, modulo the number of partitions. Never a client library's partitioner.
    pub fn partition(self, partitions: u32) -> PartitionId {
        let hash = xxhash_rust::xxh3::xxh3_64(&self.0.to_le_bytes());
        PartitionId((hash % u64::from(partitions)) as u32)
    }
}

macro_rules! position {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(
            Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize,
        )]
        #[serde(transparent)]
        pub struct $name(u64);

        impl $name {
            /// Before the first.
            pub const ZERO: Self = Self(0);

            /// Wraps a raw value. Panics at or above [`POSITION_MAX`], which no channel reaches.
            pub const fn new(raw: u64) -> Self {
                assert!(raw < POSITION_MAX, "a position stays below 2^40");
                Self(raw)
            }

            /// The raw value.
            pub const fn get(self) -> u64 {
                self.0
            }

            /// The position after this one.
            #[must_use]
            pub const fn next(self) -> Self {
                Self::new(self.0 + 1)
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Display::fmt(&self.0, f)
            }
        }

        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                match u64::deserialize(deserializer)? {
                    raw if raw < POSITION_MAX => Ok(Self(raw)),
                    _ => Err(de::Error::custom(rule::POSITION)),
                }
            }
        }
    };
}

position! {
    /// A channel's revision: every change has one, they start at 1 and leave no gap.
    Rev
}
position! {
    /// A channel's message number, starting at 1 without a gap. A message is `channel/seq`.
    Seq
}

/// The number of the log's lineage, raised when an operator adopts another log.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Incarnation(pub u32);

impl fmt::Display for Incarnation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.0, f)
    }
}

/// A shard of channels: the unit of order and of leadership.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct PartitionId(pub u32);

impl fmt::Display for PartitionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.0, f)
    }
}

fn hashed(tag: &str, parts: &[&[u8]]) -> u64 {
    let mut hash = Sha256::new();
    hash.update(tag.as_bytes());
    hash.update([0]);
    for part in parts {
        hash.update(part);
    }
    let digest = hash.finalize();
    let mut first = [0; 8];
    first.copy_from_slice(&digest[..8]);
    u64::from_be_bytes(first) >> 1
}

/// One spelling for each number: no sign, no leading zero.
fn parse_decimal(text: &str, max: u64) -> Result<u64, ParseIdError> {
    let canonical = text == "0" || text.starts_with(|c: char| ('1'..='9').contains(&c));
    let number = if canonical { text.parse().ok() } else { None };
    number.filter(|number| *number <= max).ok_or(ParseIdError)
}

/// A number's decimal digits, written without the formatting machinery: ids are most of what an
/// event consists of.
struct Decimal {
    digits: [u8; 20],
    start: usize,
}

impl Decimal {
    fn of(mut number: u64) -> Self {
        let mut decimal = Self { digits: [b'0'; 20], start: 20 };
        loop {
            decimal.start -= 1;
            decimal.digits[decimal.start] += (number % 10) as u8;
            number /= 10;
            if number == 0 {
                return decimal;
            }
        }
    }

    fn as_str(&self) -> &str {
        std::str::from_utf8(&self.digits[self.start..]).unwrap_or_default() // digits are ASCII
    }
}

struct DecimalVisitor {
    max: u64,
}

impl de::Visitor<'_> for DecimalVisitor {
    type Value = u64;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an id as a decimal string")
    }

    fn visit_str<E: de::Error>(self, text: &str) -> Result<u64, E> {
        parse_decimal(text, self.max).map_err(|_| E::custom(rule::ID))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_direct_channel_is_the_same_from_both_ends() {
        let (a, b) = (UserId::of("i", "a"), UserId::of("i", "b"));
        assert_eq!(ChannelId::direct(a, b), ChannelId::direct(b, a));
    }

    #[test]
    fn an_inbox_names_its_owner_and_an_ordinary_channel_has_none() {
        let user = UserId::of("i", "a");
        assert_eq!(ChannelId::inbox(user).inbox_owner(), Some(user));
        assert_eq!(ChannelId::created_by(user, "n").inbox_owner(), None);
    }

    #[test]
    fn issuer_and_subject_cannot_be_shifted_into_each_other() {
        assert_ne!(UserId::of("ab", "c"), UserId::of("a", "bc"));
    }

    #[test]
    fn an_id_has_one_spelling() {
        assert!("007".parse::<UserId>().is_err());
        assert!("+7".parse::<UserId>().is_err());
        assert_eq!("7".parse::<UserId>(), Ok(UserId::new(7)));
        for number in [0, 9, 10, 1 << 40, u64::MAX] {
            assert_eq!(Decimal::of(number).as_str(), number.to_string());
        }
    }

    #[test]
    fn a_user_id_never_carries_the_inbox_bit() {
        assert!("9223372036854775807".parse::<UserId>().is_ok());
        assert!("9223372036854775808".parse::<UserId>().is_err());
        assert!("18446744073709551615".parse::<ChannelId>().is_ok());
        assert!(rmp_serde::from_slice::<UserId>(&rmp_serde::to_vec(&INBOX_BIT).unwrap()).is_err());
    }
}
