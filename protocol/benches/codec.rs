//! What the codec costs over bare serde, measured in the same run.
//!
//! The floor reads and writes plain structs that have the frames' fields, with `serde_json` or
//! `rmp_serde` alone: no scan, no rules, no strictness. Rounds alternate and the best of each
//! counts. `1.00` is the floor's own speed; less is slower.
//!
//! `cargo bench -p chappe-protocol`; with `--json` one line for programs.

use std::{hint::black_box, time::Instant};

use chappe_protocol::{
    ChannelId, ClientFrame, Data, Encoding, Event, EventBody, Message, Nonce, Rev, Seq,
    ServerFrame, Text, UserId, command::Publish, event::MessageBody,
};
use serde::{Deserialize, Serialize};

/// Many short rounds: one that nothing interrupts is among them, also on a busy machine.
const ROUNDS: usize = 1_000;
const ITERATIONS: usize = 200;
const TEXT: &str = "The quick brown fox jumps over the lazy dog, and then it naps. ";

/// `I` is how an id is spelt: a string in JSON, a number in MessagePack.
#[derive(Serialize, Deserialize)]
struct PlainClientFrame<I> {
    id: u32,
    nonce: String,
    publish: PlainPublish<I>,
}

#[derive(Serialize, Deserialize)]
struct PlainPublish<I> {
    channel: I,
    text: String,
    data: serde_json::Value,
    reply_to: u64,
    mentions: Vec<I>,
}

#[derive(Serialize, Deserialize)]
struct PlainServerFrame<I> {
    event: PlainEvent<I>,
}

#[derive(Serialize, Deserialize)]
struct PlainEvent<I> {
    channel: I,
    rev: u64,
    seq: u64,
    by: I,
    at: u64,
    nonce: String,
    kind: String,
    body: PlainBody<I>,
}

#[derive(Serialize, Deserialize)]
struct PlainBody<I> {
    message: PlainMessage<I>,
}

#[derive(Serialize, Deserialize)]
struct PlainMessage<I> {
    seq: u64,
    rev: u64,
    changed: u64,
    by: I,
    at: u64,
    text: String,
    data: serde_json::Value,
    reply_to: u64,
    mentions: Vec<I>,
}

fn publish() -> ClientFrame {
    let publish = Publish {
        channel: ChannelId::new(0x5bd1_e995_0000_0001),
        text: Text::parse(TEXT.repeat(2)).ok(),
        data: Data::new(serde_json::json!({"client": "web", "draft": 3})).ok(),
        reply_to: Some(Seq::new(4_711)),
        mentions: vec![UserId::new(0x1234_5678_9abc_def0), UserId::new(77)],
    };
    let nonce = Nonce::parse("0198c6f2-7a1e-7c3b-9d5e-2b1f00c0ffee").ok();
    ClientFrame { id: 7, nonce, age_ms: 0, command: publish.into() }
}

fn event() -> Event {
    let by = UserId::new(0x1234_5678_9abc_def0);
    let message = Message {
        seq: Seq::new(4_712),
        rev: Rev::new(9_001),
        changed: Rev::new(9_001),
        by,
        at: 1_795_000_000_000,
        text: Text::parse(TEXT.repeat(2)).ok(),
        data: Data::new(serde_json::json!({"client": "web", "draft": 3})).ok(),
        reply_to: Some(Seq::new(4_711)),
        mentions: vec![UserId::new(0x0fed_cba9_8765_4321), UserId::new(77)],
        edited_at: None,
        deleted: false,
        reactions: Vec::new(),
    };
    Event {
        channel: ChannelId::new(0x5bd1_e995_0000_0001),
        rev: message.rev,
        by,
        at: message.at,
        nonce: Nonce::parse("0198c6f2-7a1e-7c3b-9d5e-2b1f00c0ffee").ok(),
        body: EventBody::MessageCreated(MessageBody { message }),
    }
}

/// Nanoseconds per call, the best round of each.
fn race(mut floor: impl FnMut(), mut ours: impl FnMut()) -> (f64, f64) {
    let time = |work: &mut dyn FnMut()| {
        let start = Instant::now();
        (0..ITERATIONS).for_each(|_| work());
        start.elapsed().as_secs_f64() * 1e9 / ITERATIONS as f64
    };
    (0..ROUNDS).fold((f64::MAX, f64::MAX), |(best_floor, best_ours), _| {
        (best_floor.min(time(&mut floor)), best_ours.min(time(&mut ours)))
    })
}

fn decode(encoding: Encoding) -> (f64, f64) {
    let mut bytes = Vec::new();
    encoding.encode(&publish(), &mut bytes);
    let bytes = black_box(bytes);
    let ours = || {
        black_box(encoding.decode_client(&bytes).expect("the frame is valid"));
    };
    match encoding {
        Encoding::Json => race(
            || {
                let frame = serde_json::from_slice::<PlainClientFrame<String>>(&bytes);
                black_box(frame.expect("the frame is valid"));
            },
            ours,
        ),
        Encoding::MessagePack => race(
            || {
                let frame = rmp_serde::from_slice::<PlainClientFrame<u64>>(&bytes);
                black_box(frame.expect("the frame is valid"));
            },
            ours,
        ),
    }
}

fn encode(encoding: Encoding) -> (f64, f64) {
    let event = event();
    let mut bytes = Vec::new();
    encoding.encode(&ServerFrame::Event { event: &event }, &mut bytes);
    let mut out = Vec::with_capacity(2 * bytes.len());
    let mut floor_out = out.clone();
    let ours = || {
        out.clear();
        encoding.encode(&ServerFrame::Event { event: black_box(&event) }, &mut out);
        black_box(&out);
    };
    match encoding {
        Encoding::Json => {
            let plain: PlainServerFrame<String> =
                serde_json::from_slice(&bytes).expect("the same fields");
            let floor = || {
                floor_out.clear();
                serde_json::to_writer(&mut floor_out, black_box(&plain)).expect("a Vec takes all");
                black_box(&floor_out);
            };
            race(floor, ours)
        }
        Encoding::MessagePack => {
            let plain: PlainServerFrame<u64> =
                rmp_serde::from_slice(&bytes).expect("the same fields");
            let floor = || {
                floor_out.clear();
                rmp_serde::encode::write_named(&mut floor_out, black_box(&plain))
                    .expect("a Vec takes all");
                black_box(&floor_out);
            };
            race(floor, ours)
        }
    }
}

fn main() {
    let results = [
        ("decode_publish_json", decode(Encoding::Json)),
        ("decode_publish_msgpack", decode(Encoding::MessagePack)),
        ("encode_event_json", encode(Encoding::Json)),
        ("encode_event_msgpack", encode(Encoding::MessagePack)),
    ];
    if std::env::args().any(|argument| argument == "--json") {
        let lines = results.map(|(name, (floor, ours))| {
            serde_json::json!({"name": name, "floor_ns": floor, "ours_ns": ours, "ratio": floor / ours})
        });
        println!("{}", serde_json::json!(lines));
        return;
    }
    println!("{:<24} {:>9} {:>9} {:>6}", "", "floor ns", "ours ns", "ratio");
    for (name, (floor, ours)) in results {
        println!("{name:<24} {floor:>9.0} {ours:>9.0} {:>6.2}", floor / ours);
    }
}
