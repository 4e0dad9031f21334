//! What an export consists of: rows with their stamps, and names.

use bytes::Bytes;
use chappe_protocol::ChannelId;
use chappe_storage::store::{Key, Row, Stamp};
use serde::{Deserialize, Serialize};
use serde_bytes::Bytes as Raw;

use crate::digest::Owner;

/// One of them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Entry {
    /// A row of a stamped table.
    Row(Key, Row),
    /// A channel's name, and what it holds.
    Name(String, Bytes),
}

/// Key, stamp and value, as they are written.
#[derive(Serialize, Deserialize)]
struct Written<'a>(#[serde(borrow)] &'a Raw, u64, #[serde(borrow)] &'a Raw);

impl Entry {
    /// The bytes of its key. A name's begin with a number that no table has.
    pub(crate) fn key(&self) -> Vec<u8> {
        match self {
            Self::Row(key, _) => key.encode(),
            Self::Name(name, _) => [&[NAME], name.as_bytes()].concat(),
        }
    }

    /// Its stamp; 0 of a name, which has none.
    pub(crate) const fn stamp(&self) -> u64 {
        match self {
            Self::Row(_, row) => row.stamp.0,
            Self::Name(..) => 0,
        }
    }

    pub(crate) const fn value(&self) -> &Bytes {
        match self {
            Self::Row(_, row) => &row.value,
            Self::Name(_, value) => value,
        }
    }

    /// What it is counted under. The rows of a user are written by his inbox alone.
    pub(crate) const fn owner(&self) -> Owner {
        let Self::Row(key, _) = self else { return Owner::Names };
        Owner::Channel(match *key {
            Key::Message(channel, _)
            | Key::Event(channel, _)
            | Key::Head(channel)
            | Key::Channel(channel)
            | Key::Member(channel, _) => channel,
            Key::ChannelOfUser(user, _) | Key::ReadMarker(user, _) | Key::Mention(user, ..) => {
                ChannelId::inbox(user)
            }
            Key::Relayed { inbox, .. } => inbox,
            Key::Outbox { source, .. } => source,
            Key::Checkpoint(partition) => ChannelId::new(partition.0 as u64),
        })
    }

    /// Appends its bytes: a length of four bytes, then MessagePack.
    pub(crate) fn encode(&self, out: &mut Vec<u8>) {
        let start = out.len();
        out.extend_from_slice(&[0; 4]);
        let key = self.key();
        let written = Written(Raw::new(&key), self.stamp(), Raw::new(self.value()));
        let written = written.serialize(&mut rmp_serde::Serializer::new(&mut *out));
        assert!(written.is_ok(), "every entry can be encoded");
        let bytes = (out.len() - start - 4) as u32;
        out[start..start + 4].copy_from_slice(&bytes.to_le_bytes());
    }

    /// Takes the first one off these bytes; none if they are of another form.
    pub(crate) fn take(bytes: &mut &[u8]) -> Option<Self> {
        let (length, rest) = bytes.split_first_chunk::<4>()?;
        let length = u32::from_le_bytes(*length) as usize;
        let (entry, rest) = rest.split_at_checked(length)?;
        *bytes = rest;
        let Written(key, stamp, value) = rmp_serde::from_slice(entry).ok()?;
        let value = Bytes::copy_from_slice(value);
        match key.strip_prefix(&[NAME]) {
            Some(name) => Some(Self::Name(String::from_utf8(name.to_vec()).ok()?, value)),
            None => {
                let is_stamp = |stamp: &Stamp| (1..=1_000).contains(&stamp.incarnation().0);
                let stamp = Some(Stamp(stamp)).filter(is_stamp)?;
                Some(Self::Row(Key::decode(key)?, Row { stamp, value }))
            }
        }
    }
}

/// The first byte of a name's key, as in the embedded store.
const NAME: u8 = 128;
