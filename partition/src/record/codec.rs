//! Records as bytes: `format`, `kind`, then MessagePack arrays, as short as they go.

use std::sync::Arc;

use chappe_protocol::{ChannelId, Incarnation, Nonce, Rev, UserId};
use chappe_uplink::Generation;
use serde::{Deserialize, Serialize, de::DeserializeOwned};

use super::{Adopt, Claim, Digest, FORMAT, Fact, FactBody, Genesis, Lineage, Mark, Record};

/// A record that this version cannot read. The partition stops there.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum RecordError {
    /// Written in a format that this version does not know.
    #[error("format {0} is unknown to this version")]
    UnknownFormat(u8),
    /// Of a kind that this version does not know.
    #[error("record kind {0} is unknown to this version")]
    UnknownKind(u8),
    /// A fact of a kind that this version does not know.
    #[error("fact kind {0} is unknown to this version")]
    UnknownFact(u8),
    /// The bytes are not what their kind says.
    #[error("a record of kind {0} cannot be decoded")]
    Undecodable(u8),
    /// There is nothing, not even a format.
    #[error("the record is empty")]
    Empty,
}

const GENESIS: u8 = 1;
const CLAIM: u8 = 2;
const FACT: u8 = 3;
const BEAT: u8 = 4;
const RELEASE: u8 = 5;
const ADOPT: u8 = 6;
const LEVEL: u8 = 7;
const SEAL: u8 = 8;
const UNSEAL: u8 = 9;

/// The numbers of a [`Mark`]: incarnation, epoch, n, ts, tick.
type MarkFields = (Incarnation, u64, u64, u64, u64);
/// The head of a fact: mark, channel, rev, by, nonce, flags, digest, kind of its body.
type FactFields<N> =
    (Incarnation, u64, u64, u64, u64, ChannelId, Rev, UserId, Option<N>, u8, Digest, u8);

const CLIENT_NONCE: u8 = 1;

/// Appends the bytes of `record` to `out`.
pub fn encode(record: &Record, out: &mut Vec<u8>) {
    out.push(FORMAT);
    match record {
        Record::Genesis(genesis) => {
            put(out, GENESIS, &(lineage_bytes(genesis.lineage), genesis.partitions));
        }
        Record::Claim(claim) => {
            let lineage = lineage_bytes(claim.lineage);
            put(out, CLAIM, &(lineage, claim.incarnation, claim.leader, &claim.address));
        }
        Record::Fact(fact) => encode_fact(fact, out),
        Record::Beat(mark) => put(out, BEAT, &fields(mark)),
        Record::Release(mark) => put(out, RELEASE, &fields(mark)),
        Record::Adopt(adopt) => {
            put(out, ADOPT, &(lineage_bytes(adopt.lineage), adopt.incarnation));
        }
        Record::Level(mark, level) => put(out, LEVEL, &(fields(mark), level)),
        Record::Seal(mark, stage) => put(out, SEAL, &(fields(mark), stage)),
        Record::Unseal(mark) => put(out, UNSEAL, &fields(mark)),
    }
}

/// Reads one record. Fails on anything that is not exactly one record of this version.
pub fn decode(bytes: &[u8]) -> Result<Record, RecordError> {
    let (&format, rest) = bytes.split_first().ok_or(RecordError::Empty)?;
    if format != FORMAT {
        return Err(RecordError::UnknownFormat(format));
    }
    let (&kind, body) = rest.split_first().ok_or(RecordError::Undecodable(0))?;
    Ok(match kind {
        GENESIS => {
            let (lineage, partitions) = take::<(serde_bytes::ByteArray<16>, u32)>(kind, body)?;
            Record::Genesis(Genesis { lineage: lineage_of(&lineage), partitions })
        }
        CLAIM => {
            type Fields = (serde_bytes::ByteArray<16>, Incarnation, u64, String);
            let (lineage, incarnation, leader, address) = take::<Fields>(kind, body)?;
            Record::Claim(Claim { lineage: lineage_of(&lineage), incarnation, leader, address })
        }
        FACT => Record::Fact(Arc::new(decode_fact(body)?)),
        BEAT => Record::Beat(mark(take(kind, body)?)),
        RELEASE => Record::Release(mark(take(kind, body)?)),
        ADOPT => {
            let (lineage, incarnation) =
                take::<(serde_bytes::ByteArray<16>, Incarnation)>(kind, body)?;
            Record::Adopt(Adopt { lineage: lineage_of(&lineage), incarnation })
        }
        LEVEL => {
            let (fields, level) = take::<(MarkFields, u32)>(kind, body)?;
            Record::Level(mark(fields), level)
        }
        SEAL => {
            let (fields, stage) = take::<(MarkFields, u8)>(kind, body)?;
            Record::Seal(mark(fields), stage)
        }
        UNSEAL => Record::Unseal(mark(take(kind, body)?)),
        unknown => return Err(RecordError::UnknownKind(unknown)),
    })
}

/// Appends the bytes of a fact's record to `out`.
fn encode_fact(fact: &Fact, out: &mut Vec<u8>) {
    let (incarnation, epoch, n, ts, tick) = fields(&fact.mark);
    let flags = if fact.client_nonce { CLIENT_NONCE } else { 0 };
    let head: FactFields<&Nonce> = (
        incarnation,
        epoch,
        n,
        ts,
        tick,
        fact.channel,
        fact.rev,
        fact.by,
        fact.nonce.as_ref(),
        flags,
        fact.digest,
        fact.body.kind(),
    );
    put(out, FACT, &head);
    let written = fact.body.write(&mut rmp_serde::Serializer::new(out));
    assert!(written.is_ok(), "every fact can be encoded");
}

fn decode_fact(body: &[u8]) -> Result<Fact, RecordError> {
    let mut rest = body;
    let mut reader = rmp_serde::Deserializer::new(&mut rest);
    let head = FactFields::<Nonce>::deserialize(&mut reader)
        .map_err(|_| RecordError::Undecodable(FACT))?;
    let (incarnation, epoch, n, ts, tick, channel, rev, by, nonce, flags, digest, kind) = head;
    let body = FactBody::read(kind, &mut reader)
        .map_err(|_| RecordError::Undecodable(FACT))?
        .ok_or(RecordError::UnknownFact(kind))?;
    if !rest.is_empty() || flags > CLIENT_NONCE {
        return Err(RecordError::Undecodable(FACT));
    }
    Ok(Fact {
        mark: mark((incarnation, epoch, n, ts, tick)),
        channel,
        rev,
        by,
        nonce,
        client_nonce: flags & CLIENT_NONCE != 0,
        digest,
        body,
    })
}

fn put<T: Serialize>(out: &mut Vec<u8>, kind: u8, body: &T) {
    out.push(kind);
    let written = body.serialize(&mut rmp_serde::Serializer::new(out));
    assert!(written.is_ok(), "every record can be encoded");
}

fn take<T: DeserializeOwned>(kind: u8, body: &[u8]) -> Result<T, RecordError> {
    let mut rest = body;
    let value = T::deserialize(&mut rmp_serde::Deserializer::new(&mut rest));
    match value {
        Ok(value) if rest.is_empty() => Ok(value),
        _ => Err(RecordError::Undecodable(kind)),
    }
}

const fn fields(mark: &Mark) -> MarkFields {
    (mark.generation.incarnation, mark.generation.epoch, mark.n, mark.ts, mark.tick)
}

const fn mark((incarnation, epoch, n, ts, tick): MarkFields) -> Mark {
    Mark { generation: Generation { incarnation, epoch }, n, ts, tick }
}

fn lineage_bytes(lineage: Lineage) -> serde_bytes::ByteArray<16> {
    serde_bytes::ByteArray::new(lineage.0.to_be_bytes())
}

fn lineage_of(bytes: &[u8; 16]) -> Lineage {
    Lineage(u128::from_be_bytes(*bytes))
}
