//! Records read back as they were written, and nothing else reads as a record.

use std::sync::Arc;

use chappe_protocol::{
    ChannelId, ChannelName, Data, Emoji, Incarnation, Nonce, Rev, Seq, SessionId, Text, Topic,
    UserId,
    message::{ChannelKind, Role},
};
use chappe_uplink::Generation;
use proptest::prelude::*;

use super::*;

fn mark() -> Mark {
    let generation = Generation { incarnation: Incarnation(1), epoch: 70_000 };
    Mark { generation, n: 70_001, ts: 1_800_000_000_000, tick: 3_600_000 }
}

fn fact(body: impl Into<FactBody>) -> Fact {
    Fact {
        mark: mark(),
        channel: ChannelId::new(u64::MAX / 3),
        rev: Rev::new(70_002),
        by: UserId::new(u64::MAX / 5),
        nonce: Some(Nonce::parse("0192f0c1-7a52-4e").unwrap()),
        client_nonce: true,
        digest: Digest([7; 16]),
        body: body.into(),
    }
}

fn message(text: &str) -> MessageCreated {
    MessageCreated {
        seq: Seq::new(70_000),
        text: Some(Text::parse(text).unwrap()),
        data: None,
        reply_to: None,
        mentions: Vec::new(),
        slowed: false,
    }
}

fn one_of_each() -> Vec<Record> {
    let name = Some(ChannelName::parse("general").unwrap());
    let topic = Some(Topic::parse("weather").unwrap());
    let (seq, rev, user) = (Seq::new(4), Rev::new(5), UserId::new(6));
    let (channel, incarnation, role) = (ChannelId::new(8), Incarnation(1), Role::Moderator);
    let text = Some(Text::parse("text").unwrap());
    let data = Some(Data::new(serde_json::json!({"a": [1, -2, 0.5, null, "x"]})).unwrap());
    let emoji = Emoji::parse("+1").unwrap();
    let person: Option<Arc<str>> = Some("Ann".into());
    let new = NewMember { user, role, name: person.clone() };
    let facts: Vec<FactBody> = vec![
        Created {
            kind: ChannelKind::Announcement,
            name: name.clone(),
            topic: topic.clone(),
            members: vec![new],
        }
        .into(),
        Updated { name: name.clone(), topic, slow_mode_ms: Some(1), freed: name.clone() }.into(),
        Archived {}.into(),
        Unarchived {}.into(),
        Deleted { freed: name }.into(),
        MemberAdded { user, role, name: None }.into(),
        MemberRemoved { user }.into(),
        RoleSet { user, role, name: person, since: rev }.into(),
        MessageCreated {
            seq,
            text: text.clone(),
            data: data.clone(),
            reply_to: Some(seq),
            mentions: vec![user],
            slowed: true,
        }
        .into(),
        Edited { seq, text, data }.into(),
        Erased { seq }.into(),
        Reacted { seq, emoji: emoji.clone() }.into(),
        Unreacted { seq, emoji }.into(),
        Nothing { seq: None }.into(),
        ChannelAdded { channel, incarnation, rev, role }.into(),
        ChannelRemoved { channel, incarnation, rev }.into(),
        Mentioned { channel, incarnation, rev, seq }.into(),
        ReadMarked { channel, seq }.into(),
        SessionsClosed { session: Some(SessionId::new(9)) }.into(),
    ];
    let lineage = Lineage(u128::MAX / 7);
    let mut records = vec![
        Record::Genesis(Genesis { lineage, partitions: 64 }),
        Record::Claim(Claim { lineage, incarnation, leader: 3, address: "a:1".to_owned() }),
        Record::Beat(mark()),
        Record::Release(mark()),
        Record::Adopt(Adopt { lineage, incarnation }),
        Record::Level(mark(), 2),
        Record::Seal(mark(), 1),
        Record::Unseal(mark()),
    ];
    records.extend(facts.into_iter().map(|body| Record::Fact(Arc::new(fact(body)))));
    let relayed = Fact { nonce: None, client_nonce: false, ..fact(Archived {}) };
    records.push(Record::Fact(Arc::new(relayed)));
    records
}

fn bytes(record: &Record) -> Vec<u8> {
    let mut bytes = Vec::new();
    encode(record, &mut bytes);
    bytes
}

#[test]
fn every_kind_reads_back_as_it_was_written() {
    for record in one_of_each() {
        assert_eq!(decode(&bytes(&record)), Ok(record));
    }
}

#[test]
fn a_cut_or_longer_record_is_none() {
    for record in one_of_each() {
        let whole = bytes(&record);
        for end in 0..whole.len() {
            assert!(decode(&whole[..end]).is_err(), "{record:?} cut at {end}");
        }
        assert!(decode(&[&whole[..], &[0]].concat()).is_err());
    }
}

#[test]
fn a_message_of_128_bytes_costs_a_hundred_bytes_more() {
    let record = Record::Fact(Arc::new(fact(message(&"x".repeat(128)))));
    let size = bytes(&record).len();
    assert!(size <= 228, "{size}");
}

#[test]
fn other_formats_and_kinds_are_told_apart_from_damage() {
    assert_eq!(decode(&[]), Err(RecordError::Empty));
    assert_eq!(decode(&[2, 1]), Err(RecordError::UnknownFormat(2)));
    assert_eq!(decode(&[1, 200, 1]), Err(RecordError::UnknownKind(200)));
    let mut unknown = bytes(&Record::Fact(Arc::new(fact(Archived {}))));
    let kind = unknown.len() - 2;
    assert_eq!(unknown[kind], 3);
    unknown[kind] = 99;
    assert_eq!(decode(&unknown), Err(RecordError::UnknownFact(99)));
}

proptest! {
    #[test]
    fn no_bytes_make_decoding_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
        let _ = decode(&bytes);
    }

    #[test]
    fn no_change_of_a_byte_makes_decoding_panic(i in 0..27_usize, at in 0..100_usize, to in any::<u8>()) {
        let mut changed = bytes(&one_of_each()[i]);
        let at = at % changed.len();
        changed[at] = to;
        if let Ok(record) = decode(&changed) {
            // What reads at all, writes and reads again the same.
            prop_assert_eq!(decode(&bytes(&record)), Ok(record));
        }
    }
}
