use super::*;

const MASK: [u8; 4] = [0x37, 0xfa, 0x21, 0x3d];

/// A frame as a client sends it.
fn frame(first: u8, payload: &[u8]) -> Vec<u8> {
    let mut bytes = vec![first];
    match payload.len() {
        length @ 0..=125 => bytes.push(0x80 | length as u8),
        length => {
            bytes.push(0x80 | 126);
            bytes.extend_from_slice(&(length as u16).to_be_bytes());
        }
    }
    bytes.extend_from_slice(&MASK);
    bytes.extend(payload.iter().zip(MASK.iter().cycle()).map(|(byte, mask)| byte ^ mask));
    bytes
}

/// What came out, as text.
fn read_in_pieces(
    reader: &mut Reader,
    bytes: &[u8],
    piece: usize,
) -> Result<Vec<String>, Violation> {
    let mut items = Vec::new();
    for piece in bytes.chunks(piece) {
        reader.handle_bytes(Instant::now(), &mut piece.to_vec(), &mut |_, item| {
            items.push(match item {
                Item::Message(payload) => format!("message {}", String::from_utf8_lossy(payload)),
                Item::Ping(payload) => format!("ping {}", String::from_utf8_lossy(payload)),
                Item::Pong => "pong".to_owned(),
                Item::Close(code) => format!("close {code:?}"),
            });
        })?;
    }
    Ok(items)
}

fn text_reader() -> Reader {
    Reader::new(MessageType::Text, 8 * 1024)
}

#[test]
fn messages_come_out_whole_however_the_bytes_are_cut() {
    let long = "x".repeat(1_000);
    let bytes = [
        frame(0x81, b"one"),
        frame(0x01, b"two-"),
        frame(0x89, b"are you there"),
        frame(0x00, b"half"),
        frame(0x80, b"s"),
        frame(0x81, long.as_bytes()),
        frame(0x8a, b""),
        frame(0x88, &[0x03, 0xe8]),
    ]
    .concat();
    let expected =
        ["message one", "ping are you there", "message two-halfs", "", "pong", "close Some(1000)"];
    for piece in [1, 2, 3, 7, 64, bytes.len()] {
        let mut reader = text_reader();
        let mut items = read_in_pieces(&mut reader, &bytes, piece).unwrap();
        assert_eq!(std::mem::take(&mut items[3]), format!("message {long}"));
        assert_eq!(items, expected, "in pieces of {piece}");
        assert_eq!(reader.partial.capacity(), 0, "nothing is kept once all is complete");
    }
}

#[track_caller]
fn refused(bytes: &[u8], code: u16) {
    let refusal = read_in_pieces(&mut text_reader(), bytes, bytes.len()).unwrap_err();
    assert_eq!(refusal.code, code, "{}", refusal.rule);
}

#[test]
fn broken_rules_have_their_close_codes() {
    refused(&[0x81, 0x03, b'a', b'b', b'c'], 1002); // not masked
    refused(&frame(0xc1, b"x"), 1002); // rsv1: compression was not negotiated
    refused(&frame(0xa1, b"x"), 1002);
    refused(&frame(0x91, b"x"), 1002);
    refused(&frame(0x83, b"x"), 1002); // reserved data opcode
    refused(&frame(0x8b, b"x"), 1002); // reserved control opcode
    refused(&frame(0x89, &[b'x'; 126]), 1002); // a long ping
    refused(&frame(0x09, b"x"), 1002); // a ping in fragments
    refused(&frame(0x80, b"x"), 1002); // continues nothing
    refused(&[frame(0x01, b"x"), frame(0x81, b"y")].concat(), 1002); // interleaved
    refused(&frame(0x82, b"x"), 1003); // binary where text was agreed
    refused(&frame(0x81, &[0xff, 0xfe]), 1007);
    refused(&frame(0x88, &[0x03]), 1002);
    refused(&frame(0x88, &[0x03, 0xed]), 1002); // 1005 is never sent
    refused(&frame(0x88, &[0x03, 0xe8, 0xff]), 1007);
}

#[test]
fn a_declared_length_is_judged_before_its_bytes_come() {
    let mut gigabyte = vec![0x81, 0x80 | 127];
    gigabyte.extend_from_slice(&(1_u64 << 30).to_be_bytes());
    gigabyte.extend_from_slice(&MASK);
    refused(&gigabyte, 1009);
    let halves = [frame(0x01, &[b'x'; 5_000]), frame(0x80, &[b'x'; 5_000])].concat();
    refused(&halves, 1009);
}

#[test]
fn a_session_that_signed_in_may_send_more() {
    let bytes = frame(0x81, &[b'x'; 20_000]);
    let mut reader = text_reader();
    reader.allow(64 * 1024);
    assert_eq!(read_in_pieces(&mut reader, &bytes, 1_000).unwrap().len(), 1);
}

#[test]
fn too_many_fragments_or_pings_end_it() {
    let mut bytes = frame(0x01, b"x");
    for _ in 0..FRAGMENTS_MAX {
        bytes.extend(frame(0x00, b""));
    }
    refused(&bytes, 1008);
    refused(&frame(0x89, b"").repeat(PINGS_MAX as usize + 1), 1008);
}

#[test]
fn fragments_that_take_too_long_end_it() {
    let mut reader = text_reader();
    let start = Instant::now();
    reader.handle_bytes(start, &mut frame(0x01, b"x"), &mut |_, _| {}).unwrap();
    let late = start + FRAGMENTS_TIME_MAX + Duration::from_secs(1);
    let refusal = reader.handle_bytes(late, &mut frame(0x80, b"y"), &mut |_, _| {}).unwrap_err();
    assert_eq!(refusal.code, 1008);
}
