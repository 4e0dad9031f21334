//! Encode and decode, in this process: the event that a server writes and the publish that it reads.
//!
//! The floor of encoding is the same bytes by hand. The floor of decoding is serde alone, without
//! the scan that bounds depth and keys and refuses what follows the frame.

mod by_hand;

use std::{
    hint::black_box,
    time::{Duration, Instant},
};

use anyhow::{Result, ensure};
use chappe_protocol::{ChannelId, ClientFrame, Encoding, ServerFrame, UserId};

use super::{Setting, progress};
use crate::{
    report::{Goal, Round, Row},
    sample,
};

/// How long one figure is measured, in milliseconds, full effort.
const TIME_MS: usize = 200;

pub(crate) fn run(setting: &Setting) -> Result<Vec<Row>> {
    let mut rows = Vec::new();
    for (encoding, name) in [(Encoding::MessagePack, "MessagePack"), (Encoding::Json, "JSON")] {
        let encode = encode(setting, encoding)?;
        rows.push(Row::less(&format!("encode an event, {name}"), "ns", Goal::None, encode));
        let decode = decode(setting, encoding)?;
        rows.push(Row::less(&format!("decode a publish, {name}"), "ns", Goal::None, decode));
    }
    progress("encode and decode: done");
    let note = format!(
        "texts of {} B; encoding against the same bytes written by hand, decoding against serde \
         without our checks",
        sample::FANOUT_TEXT_BYTES
    );
    let first = rows.remove(0).note(note);
    rows.insert(0, first);
    Ok(rows)
}

fn encode(setting: &Setting, encoding: Encoding) -> Result<Vec<Round>> {
    let event = sample::created(7);
    let write = match encoding {
        Encoding::MessagePack => by_hand::message_pack,
        Encoding::Json => by_hand::json,
    };
    let (mut out, mut floor) = (Vec::with_capacity(1024), Vec::with_capacity(1024));
    encoding.encode(&ServerFrame::Event { event: &event }, &mut out);
    write(&event, &mut floor);
    ensure!(out == floor, "what is written by hand is not the same frame");
    let rounds = (0..setting.rounds).map(|_| {
        let floor = nanoseconds(setting, || {
            floor.clear();
            write(black_box(&event), &mut floor);
            black_box(&floor);
        });
        let ours = nanoseconds(setting, || {
            out.clear();
            encoding.encode(&ServerFrame::Event { event: black_box(&event) }, &mut out);
            black_box(&out);
        });
        Round { floor: Some(floor), ours }
    });
    Ok(rounds.collect())
}

fn decode(setting: &Setting, encoding: Encoding) -> Result<Vec<Round>> {
    let channel = ChannelId::created_by(UserId::of("chappe-dev", "bench-0"), "fanout");
    let frame = ClientFrame {
        id: 7,
        nonce: Some(sample::nonce(7)),
        age_ms: 0,
        command: sample::publish(channel, sample::text(7, sample::FANOUT_TEXT_BYTES)),
    };
    let mut bytes = Vec::new();
    encoding.encode(&frame, &mut bytes);
    let serde = match encoding {
        Encoding::MessagePack => |bytes: &[u8]| rmp_serde::from_slice::<ClientFrame>(bytes).ok(),
        Encoding::Json => |bytes: &[u8]| serde_json::from_slice::<ClientFrame>(bytes).ok(),
    };
    ensure!(serde(&bytes).as_ref() == Some(&frame), "the frame does not read back");
    let rounds = (0..setting.rounds).map(|_| {
        let floor = nanoseconds(setting, || drop(black_box(serde(black_box(&bytes)))));
        let ours =
            nanoseconds(setting, || drop(black_box(encoding.decode_client(black_box(&bytes)))));
        Round { floor: Some(floor), ours }
    });
    Ok(rounds.collect())
}

/// The time of one `work`.
fn nanoseconds(setting: &Setting, mut work: impl FnMut()) -> f64 {
    const BATCH: u32 = 1_000;
    let time = Duration::from_millis(setting.amount(TIME_MS) as u64);
    let (start, mut done) = (Instant::now(), 0_u32);
    while start.elapsed() < time {
        (0..BATCH).for_each(|_| work());
        done += BATCH;
    }
    start.elapsed().as_nanos() as f64 / f64::from(done)
}
