//! The commands that name channels to hear: a list of them with cursors, or all of the caller's.

use std::fmt;

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

use crate::{
    id::{ChannelId, Incarnation, Rev},
    limits, rule,
};

/// Receives the events of channels.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Subscribe {
    /// Which ones, at most 1,000 a connection.
    pub channels: Channels,
    /// The incarnation that the `from` revisions belong to; without it they are the present one's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub incarnation: Option<Incarnation>,
}

/// The channels of a subscription: the string `mine`, or a list.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Channels {
    /// All that the caller is a member of, now and later.
    Mine,
    /// These, at most 1,000.
    These(Vec<ChannelFrom>),
}

impl Serialize for Channels {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Mine => serializer.serialize_str("mine"),
            Self::These(channels) => channels.serialize(serializer),
        }
    }
}

// By hand: serde's untagged enums forget which encoding they came from, and ids differ by it.
impl<'de> Deserialize<'de> for Channels {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(ChannelsVisitor)
    }
}

struct ChannelsVisitor;

impl<'de> de::Visitor<'de> for ChannelsVisitor {
    type Value = Channels;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the string `mine` or a list of channels")
    }

    fn visit_str<E: de::Error>(self, text: &str) -> Result<Channels, E> {
        match text {
            "mine" => Ok(Channels::Mine),
            _ => Err(E::custom(rule::CHANNELS_WORD)),
        }
    }

    fn visit_seq<A: de::SeqAccess<'de>>(self, mut seq: A) -> Result<Channels, A::Error> {
        let mut channels = Vec::new();
        while let Some(channel) = seq.next_element()? {
            if channels.len() == limits::SUBSCRIPTIONS_MAX {
                return Err(de::Error::custom(rule::SUBSCRIPTIONS));
            }
            channels.push(channel);
        }
        Ok(Channels::These(channels))
    }
}

/// A channel and where to start in it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ChannelFrom {
    /// The channel.
    pub id: ChannelId,
    /// The last revision that the client holds: events after it follow. Without it, events from
    /// now on.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub from: Option<Rev>,
}

/// Stops receiving the events of channels.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Unsubscribe {
    /// Which ones.
    pub channels: Vec<ChannelId>,
}
