//! JSON values that keep the order of their keys, so that a transcript shows frames as they are
//! sent, and their MessagePack form.

use std::fmt;

use serde::{
    Deserialize, Deserializer, Serialize, Serializer, de,
    ser::{SerializeMap, SerializeSeq},
};

#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Ordered {
    Scalar(serde_json::Value),
    Text(String),
    Array(Vec<Self>),
    Map(Vec<(String, Self)>),
}

impl Ordered {
    pub(crate) fn get(&self, key: &str) -> Option<&Self> {
        match self {
            Self::Map(entries) => entries.iter().find(|(name, _)| name == key).map(|(_, v)| v),
            _ => None,
        }
    }

    pub(crate) fn text(&self) -> Option<&str> {
        match self {
            Self::Text(text) => Some(text),
            _ => None,
        }
    }

    pub(crate) fn number(&self) -> Option<u64> {
        match self {
            Self::Scalar(value) => value.as_u64(),
            _ => None,
        }
    }

    /// Puts the samples in the place of `$name`.
    pub(crate) fn with_samples(&self, samples: &Self) -> Self {
        match self {
            Self::Text(text) => match text.strip_prefix('$') {
                Some(name) => {
                    let sample = samples.get(name);
                    sample.unwrap_or_else(|| panic!("${name} has no sample")).clone()
                }
                None => self.clone(),
            },
            Self::Array(items) => {
                Self::Array(items.iter().map(|item| item.with_samples(samples)).collect())
            }
            Self::Map(entries) => {
                let with =
                    |(key, value): &(String, Self)| (key.clone(), value.with_samples(samples));
                Self::Map(entries.iter().map(with).collect())
            }
            Self::Scalar(_) => self.clone(),
        }
    }

    /// One line of JSON with a space after each comma and colon.
    pub(crate) fn to_line(&self) -> String {
        let mut out = Vec::new();
        let mut serializer = serde_json::Serializer::with_formatter(&mut out, Spaced);
        self.serialize(&mut serializer).unwrap();
        String::from_utf8(out).unwrap()
    }

    /// The frame in MessagePack: ids are numbers there.
    pub(crate) fn to_msgpack(&self) -> Vec<u8> {
        rmp_serde::to_vec(&Binary { value: self, ids: false }).unwrap()
    }
}

/// Fields that hold ids, alone or in lists.
const ID_FIELDS: &[&str] = &[
    "channel", "channels", "user", "users", "by", "session", "next", "id", "after", "mentions",
    "members", "heads",
];

struct Binary<'a> {
    value: &'a Ordered,
    /// Whether a string here is an id.
    ids: bool,
}

impl Serialize for Binary<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self.value {
            Ordered::Scalar(value) => value.serialize(serializer),
            Ordered::Text(text) => match text.parse::<u64>() {
                Ok(id) if self.ids => serializer.serialize_u64(id),
                _ => serializer.serialize_str(text),
            },
            Ordered::Array(items) => {
                let mut array = serializer.serialize_seq(Some(items.len()))?;
                for value in items {
                    array.serialize_element(&Binary { value, ids: self.ids })?;
                }
                array.end()
            }
            Ordered::Map(entries) => {
                let mut map = serializer.serialize_map(Some(entries.len()))?;
                for (key, value) in entries {
                    let ids = ID_FIELDS.contains(&key.as_str());
                    map.serialize_entry(key, &Binary { value, ids })?;
                }
                map.end()
            }
        }
    }
}

impl Serialize for Ordered {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Scalar(value) => value.serialize(serializer),
            Self::Text(text) => serializer.serialize_str(text),
            Self::Array(items) => serializer.collect_seq(items),
            Self::Map(entries) => serializer.collect_map(entries.iter().map(|(k, v)| (k, v))),
        }
    }
}

impl<'de> Deserialize<'de> for Ordered {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(OrderedVisitor)
    }
}

struct OrderedVisitor;

impl<'de> de::Visitor<'de> for OrderedVisitor {
    type Value = Ordered;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("JSON")
    }

    fn visit_bool<E>(self, value: bool) -> Result<Ordered, E> {
        Ok(Ordered::Scalar(value.into()))
    }

    fn visit_i64<E>(self, value: i64) -> Result<Ordered, E> {
        Ok(Ordered::Scalar(value.into()))
    }

    fn visit_u64<E>(self, value: u64) -> Result<Ordered, E> {
        Ok(Ordered::Scalar(value.into()))
    }

    fn visit_f64<E>(self, value: f64) -> Result<Ordered, E> {
        Ok(Ordered::Scalar(value.into()))
    }

    fn visit_unit<E>(self) -> Result<Ordered, E> {
        Ok(Ordered::Scalar(serde_json::Value::Null))
    }

    fn visit_str<E>(self, text: &str) -> Result<Ordered, E> {
        Ok(Ordered::Text(text.to_owned()))
    }

    fn visit_seq<A: de::SeqAccess<'de>>(self, mut seq: A) -> Result<Ordered, A::Error> {
        let mut items = Vec::new();
        while let Some(item) = seq.next_element()? {
            items.push(item);
        }
        Ok(Ordered::Array(items))
    }

    fn visit_map<A: de::MapAccess<'de>>(self, mut map: A) -> Result<Ordered, A::Error> {
        let mut entries = Vec::new();
        while let Some(entry) = map.next_entry()? {
            entries.push(entry);
        }
        Ok(Ordered::Map(entries))
    }
}

struct Spaced;

impl serde_json::ser::Formatter for Spaced {
    fn begin_array_value<W: ?Sized + std::io::Write>(
        &mut self,
        writer: &mut W,
        first: bool,
    ) -> std::io::Result<()> {
        writer.write_all(if first { b"" } else { b", " })
    }

    fn begin_object_key<W: ?Sized + std::io::Write>(
        &mut self,
        writer: &mut W,
        first: bool,
    ) -> std::io::Result<()> {
        writer.write_all(if first { b"" } else { b", " })
    }

    fn begin_object_value<W: ?Sized + std::io::Write>(
        &mut self,
        writer: &mut W,
    ) -> std::io::Result<()> {
        writer.write_all(b": ")
    }
}
