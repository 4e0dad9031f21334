//! The rules, one case each, whole and byte by byte.

use super::*;

/// What was heard, or the close code of the violation.
type Outcome = Result<Vec<String>, u16>;

fn frame(first: u8, payload: &[u8]) -> Vec<u8> {
    frame_with(first, payload, Some([1, 2, 3, 4]))
}

fn frame_with(first: u8, payload: &[u8], mask: Option<[u8; 4]>) -> Vec<u8> {
    let masked = if mask.is_some() { 0x80 } else { 0 };
    let mut bytes = vec![first];
    match payload.len() {
        length @ 0..=125 => bytes.push(masked | length as u8),
        length @ 126..=0xffff => {
            bytes.push(masked | 126);
            bytes.extend_from_slice(&(length as u16).to_be_bytes());
        }
        length => {
            bytes.push(masked | 127);
            bytes.extend_from_slice(&(length as u64).to_be_bytes());
        }
    }
    let start = bytes.len();
    if let Some(mask) = mask {
        bytes.extend_from_slice(&mask);
        bytes.extend_from_slice(payload);
        mask::apply(mask, &mut bytes[start + 4..]);
    } else {
        bytes.extend_from_slice(payload);
    }
    bytes
}

fn read(kind: Kind, chunks: &mut dyn Iterator<Item = Vec<u8>>) -> Outcome {
    let mut inbound = Inbound::new(kind, 1_000);
    let mut heard = Vec::new();
    for mut chunk in chunks {
        let result = inbound.read(&mut chunk, &mut |what| {
            heard.push(match what {
                Heard::Text(text) => format!("text {}", String::from_utf8_lossy(text)),
                Heard::Binary(bytes) => format!("binary {bytes:?}"),
                Heard::Ping(payload) => format!("ping {}", payload.len()),
                Heard::Pong => "pong".to_owned(),
                Heard::Close(code) => format!("close {code:?}"),
            });
        });
        if let Err(violation) = result {
            return Err(violation.code());
        }
    }
    Ok(heard)
}

/// The same bytes whole, byte by byte and in threes have the same outcome.
#[track_caller]
fn check(kind: Kind, bytes: &[u8], expect: Result<&[&str], u16>) {
    let expect: Outcome = expect.map(|heard| heard.iter().map(|one| (*one).to_owned()).collect());
    for size in [bytes.len(), 1, 3] {
        let outcome = read(kind, &mut bytes.chunks(size).map(<[u8]>::to_vec));
        assert_eq!(outcome, expect, "in chunks of {size}");
    }
}

#[test]
fn whole_messages_are_heard_and_several_share_a_packet() {
    check(Kind::Text, &frame(0x81, b"hi"), Ok(&["text hi"]));
    check(Kind::Binary, &frame(0x82, &[1, 2]), Ok(&["binary [1, 2]"]));
    check(Kind::Text, &frame(0x81, b""), Ok(&["text "]));
    let two = [frame(0x81, b"a"), frame(0x81, b"b")].concat();
    check(Kind::Text, &two, Ok(&["text a", "text b"]));
    let long = "x".repeat(900);
    check(Kind::Text, &frame(0x81, long.as_bytes()), Ok(&[&format!("text {long}")]));
}

#[test]
fn fragments_make_one_message_and_control_frames_may_stand_between() {
    let bytes = [
        frame(0x01, b"one "),
        frame(0x89, b"ping"),
        frame(0x00, b"two "),
        frame(0x8a, b""),
        frame(0x80, b"three"),
        frame(0x81, b"next"),
    ];
    let heard = ["ping 4", "pong", "text one two three", "text next"];
    check(Kind::Text, &bytes.concat(), Ok(&heard));
}

#[test]
fn a_character_may_be_cut_by_a_fragment() {
    let snow = "☃".as_bytes();
    let bytes = [frame(0x01, &snow[..1]), frame(0x80, &snow[1..])].concat();
    check(Kind::Text, &bytes, Ok(&["text ☃"]));
}

#[test]
fn text_that_is_not_utf8_is_refused_as_early_as_it_is_known() {
    check(Kind::Text, &frame(0x81, b"\xff"), Err(1007));
    check(Kind::Text, &frame(0x81, "☃".as_bytes().split_last().unwrap().1), Err(1007));
    // The message is not complete, and can no longer be good.
    check(Kind::Text, &frame(0x01, b"good \xed\xa0\x80"), Err(1007));
}

#[test]
fn a_message_of_the_wrong_kind_is_refused() {
    check(Kind::Text, &frame(0x82, b"x"), Err(1003));
    check(Kind::Binary, &frame(0x81, b"x"), Err(1003));
    check(Kind::Text, &frame(0x02, b"x"), Err(1003));
    check(
        Kind::Any,
        &[frame(0x82, &[7]), frame(0x81, b"x")].concat(),
        Ok(&["binary [7]", "text x"]),
    );
}

#[test]
fn broken_framing_is_a_protocol_error() {
    let unmasked = frame_with(0x81, b"x", None);
    let shortest = [&[0x81, 0x80 | 126, 0, 1][..], &[0; 5]].concat();
    let shortest_wide = [&[0x81, 0x80 | 127, 0, 0, 0, 0, 0, 0, 1, 0][..], &[0; 4]].concat();
    for (name, bytes) in [
        ("unmasked", unmasked),
        ("rsv1", frame(0xc1, b"x")),
        ("rsv2", frame(0xa1, b"x")),
        ("rsv3", frame(0x91, b"x")),
        ("reserved data opcode", frame(0x83, b"x")),
        ("reserved control opcode", frame(0x8b, b"x")),
        ("fragmented control", frame(0x09, b"x")),
        ("long control", frame(0x89, &[0; 126])),
        ("continuation of nothing", frame(0x80, b"x")),
        ("interleaved", [frame(0x01, b"a"), frame(0x81, b"b")].concat()),
        ("interleaved fragments", [frame(0x01, b"a"), frame(0x01, b"b")].concat()),
        ("length not in its shortest form", shortest),
        ("wide length not in its shortest form", shortest_wide),
        ("close with one byte", frame(0x88, b"x")),
        ("close with a code that is never sent", frame(0x88, &1005_u16.to_be_bytes())),
        ("close with an unassigned code", frame(0x88, &2999_u16.to_be_bytes())),
        ("close with a code below all", frame(0x88, &999_u16.to_be_bytes())),
    ] {
        let outcome = read(Kind::Text, &mut std::iter::once(bytes));
        assert_eq!(outcome, Err(1002), "{name}");
    }
}

#[test]
fn a_close_is_heard_with_its_code_and_nothing_after_it() {
    check(Kind::Text, &frame(0x88, b""), Ok(&["close None"]));
    let reason = [&4999_u16.to_be_bytes()[..], b"bye"].concat();
    check(Kind::Text, &frame(0x88, &reason), Ok(&["close Some(4999)"]));
    let bad = [&1000_u16.to_be_bytes()[..], b"\xff"].concat();
    check(Kind::Text, &frame(0x88, &bad), Err(1007));
    let after = [frame(0x88, b""), frame(0x81, b"x")].concat();
    assert_eq!(read(Kind::Text, &mut std::iter::once(after)), Ok(vec!["close None".to_owned()]));
}

#[test]
fn a_message_that_is_too_large_is_refused_by_its_header() {
    check(Kind::Text, &frame(0x81, &[b'x'; 1_001])[..8], Err(4012));
    // A gigabyte is declared; nothing of it is waited for or kept.
    let mut huge = vec![0x81, 0x80 | 127];
    huge.extend_from_slice(&(1_u64 << 30).to_be_bytes());
    huge.extend_from_slice(&[0; 4]);
    check(Kind::Text, &huge, Err(4012));
    let fragments = [frame(0x01, &[b'x'; 600]), frame(0x80, &[b'x'; 401])].concat();
    check(Kind::Text, &fragments, Err(4012));
    let fits = [frame(0x01, &[b'x'; 600]), frame(0x80, &[b'x'; 400])].concat();
    check(Kind::Text, &fits, Ok(&[&format!("text {}", "x".repeat(1_000))]));
}

#[test]
fn a_message_has_at_most_128_fragments() {
    let fragments = |count: usize| {
        let mut bytes = frame(0x01, b"a");
        for _ in 0..count - 2 {
            bytes.extend(frame(0x00, b""));
        }
        bytes.extend(frame(0x80, b"b"));
        bytes
    };
    check(Kind::Text, &fragments(128), Ok(&["text ab"]));
    check(Kind::Text, &fragments(129), Err(1008));
}

#[test]
fn more_than_twenty_pings_in_ten_seconds_are_too_many() {
    let pings = |count: usize| frame(0x89, b"").repeat(count);
    check(Kind::Text, &pings(20), Ok(&["ping 0"; 20]));
    check(Kind::Text, &pings(21), Err(1008));
}

#[test]
fn nothing_is_kept_once_nothing_is_incomplete() {
    let mut inbound = Inbound::new(Kind::Text, 1_000);
    let bytes = [frame(0x01, b"a"), frame(0x80, b"b")].concat();
    for byte in bytes {
        inbound.read(&mut [byte], &mut |_| {}).unwrap();
    }
    assert!(inbound.partial.is_none());
}

#[test]
fn an_incomplete_frame_holds_what_came_and_not_what_was_declared() {
    let mut inbound = Inbound::new(Kind::Text, 64 * 1024);
    let declared = frame(0x81, &[b'x'; 60_000]);
    inbound.read(&mut declared[..100].to_vec(), &mut |_| {}).unwrap();
    assert!(inbound.partial.as_ref().unwrap().frame.capacity() < 1_024);
}
