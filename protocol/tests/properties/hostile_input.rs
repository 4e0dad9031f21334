//! Whatever arrives, decoding gives a frame or a coded refusal: it does not panic, allocate what a
//! length promises, recurse without end, or repeat what was sent.

use chappe_protocol::{DecodeError, Encoding, ErrorCode, limits};
use proptest::{collection::vec, prelude::*, sample::Index};

use crate::arbitrary::command;

const BOTH: [Encoding; 2] = [Encoding::Json, Encoding::MessagePack];
const HOSTILE_BYTES_SHOWN_MAX: usize = 8;

/// Reads `bytes` in every way there is. A frame that is taken has one canonical form.
fn read_all_ways(encoding: Encoding, bytes: &[u8]) -> Option<DecodeError> {
    let _ = encoding.decode_server(bytes);
    let _ = encoding.decode_ok::<chappe_protocol::reply::HistoryReply>(bytes);
    if let Ok((frame, rest)) = encoding.split_frame(bytes) {
        assert!(frame.len() + rest.len() <= bytes.len());
    }
    match encoding.decode_client(bytes) {
        Ok(frame) => {
            let mut canonical = Vec::new();
            encoding.encode(&frame, &mut canonical);
            assert_eq!(encoding.decode_client(&canonical), Ok(frame));
            None
        }
        Err(error) => {
            assert!((1000..5000).contains(&error.code.number()));
            Some(error)
        }
    }
}

/// One change to a valid frame.
#[derive(Debug, Clone)]
enum Change {
    Flip(Index, u8),
    Insert(Index, Vec<u8>),
    Remove(Index, Index),
    Repeat(Index, Index),
    Truncate(Index),
}

fn change() -> impl Strategy<Value = Change> {
    prop_oneof![
        (any::<Index>(), 1..=255u8).prop_map(|(at, mask)| Change::Flip(at, mask)),
        (any::<Index>(), vec(any::<u8>(), 1..6)).prop_map(|(at, bytes)| Change::Insert(at, bytes)),
        any::<(Index, Index)>().prop_map(|(a, b)| Change::Remove(a, b)),
        any::<(Index, Index)>().prop_map(|(a, b)| Change::Repeat(a, b)),
        any::<Index>().prop_map(Change::Truncate),
    ]
}

fn apply(change: &Change, bytes: &mut Vec<u8>) {
    if bytes.is_empty() {
        return;
    }
    let range = |a: &Index, b: &Index| {
        let (a, b) = (a.index(bytes.len()), b.index(bytes.len()));
        a.min(b)..a.max(b)
    };
    match change {
        Change::Flip(at, mask) => {
            let at = at.index(bytes.len());
            bytes[at] ^= mask;
        }
        Change::Insert(at, inserted) => {
            let at = at.index(bytes.len());
            bytes.splice(at..at, inserted.iter().copied());
        }
        Change::Remove(a, b) => drop(bytes.drain(range(a, b))),
        Change::Repeat(a, b) => {
            let repeated = bytes[range(a, b)].to_vec();
            bytes.extend(repeated);
        }
        Change::Truncate(at) => bytes.truncate(at.index(bytes.len())),
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2_000))]

    #[test]
    fn arbitrary_bytes_are_refused_or_read(bytes in vec(any::<u8>(), 0..200)) {
        for encoding in BOTH {
            read_all_ways(encoding, &bytes);
        }
    }

    #[test]
    fn bytes_made_of_structure_are_refused_or_read(
        json in "[\\[\\]{}:,\"\\\\ue0-9a\\.\\- ]{0,60}",
        msgpack in vec(prop_oneof![0x80..=0x9fu8, 0xa0..=0xa3u8, 0xc0..=0xdfu8, 0..4u8], 0..60),
    ) {
        read_all_ways(Encoding::Json, json.as_bytes());
        read_all_ways(Encoding::Json, format!("{{{json}}}").as_bytes());
        read_all_ways(Encoding::MessagePack, &msgpack);
    }

    #[test]
    fn changed_frames_are_refused_or_read(
        frame in command::client_frame(),
        changes in vec(change(), 1..4),
    ) {
        for encoding in BOTH {
            let mut bytes = Vec::new();
            encoding.encode(&frame, &mut bytes);
            changes.iter().for_each(|change| apply(change, &mut bytes));
            read_all_ways(encoding, &bytes);
        }
    }

    #[test]
    fn a_frame_cut_short_is_malformed(frame in command::client_frame(), cut in any::<Index>()) {
        for encoding in BOTH {
            let mut bytes = Vec::new();
            encoding.encode(&frame, &mut bytes);
            let cut = cut.index(bytes.len());
            let error = encoding.decode_client(&bytes[..cut]).unwrap_err();
            prop_assert_eq!((error.code, error.id), (ErrorCode::Malformed, None));
        }
    }

    /// Puts a hostile string in the place of each field, key and value of a frame.
    #[test]
    fn a_refusal_never_repeats_what_was_sent(
        hostile in "[ -~äß🐍]{8,80}",
        frame in command::client_frame(),
        place in any::<Index>(),
    ) {
        let mut value = serde_json::to_value(&frame).unwrap();
        let places = count_places(&value);
        replace_place(&mut value, &mut place.index(places), &hostile);
        for (encoding, bytes) in [
            (Encoding::Json, serde_json::to_vec(&value).unwrap()),
            (Encoding::MessagePack, rmp_serde::to_vec(&value).unwrap()),
        ] {
            if let Some(error) = read_all_ways(encoding, &bytes) {
                let shown: Vec<char> = hostile.chars().collect();
                for piece in shown.windows(HOSTILE_BYTES_SHOWN_MAX) {
                    let piece: String = piece.iter().collect();
                    prop_assert!(!error.message.contains(&piece), "{}", error.message);
                }
            }
        }
    }

    /// The words of serde and of our own rules, sent as values, do not make another code.
    #[test]
    fn a_value_cannot_choose_its_code(index in any::<Index>()) {
        let words = [
            "a nonce has 1 to 64 bytes",
            "the frame names no command that this server knows",
            "missing field `channel`",
            "data is larger than 8 KiB of MessagePack",
            ", expected `nothing`",
        ];
        let word = words[index.index(words.len())];
        let frame = serde_json::json!({"id": 1, "publish": {"channel": "1", "text": "a", "reply_to": word}});
        let error = Encoding::Json.decode_client(&serde_json::to_vec(&frame).unwrap()).unwrap_err();
        prop_assert_eq!(error.code, ErrorCode::Invalid);
        prop_assert_eq!(error.message, "publish.reply_to: expected a whole number of 64 bits");
    }
}

fn count_places(value: &serde_json::Value) -> usize {
    1 + match value {
        serde_json::Value::Array(items) => items.iter().map(count_places).sum(),
        serde_json::Value::Object(map) => map.values().map(|value| 1 + count_places(value)).sum(),
        _ => 0,
    }
}

/// Replaces the value or key that `left` counts down to.
fn replace_place(value: &mut serde_json::Value, left: &mut usize, hostile: &str) -> bool {
    if *left == 0 {
        *value = hostile.into();
        return true;
    }
    *left -= 1;
    match value {
        serde_json::Value::Array(items) => {
            items.iter_mut().any(|item| replace_place(item, left, hostile))
        }
        serde_json::Value::Object(map) => {
            for key in map.keys().cloned().collect::<Vec<_>>() {
                if *left == 0 {
                    let inner = map.remove(&key).unwrap_or_default();
                    map.insert(hostile.to_owned(), inner);
                    return true;
                }
                *left -= 1;
                if replace_place(&mut map[&key], left, hostile) {
                    return true;
                }
            }
            false
        }
        _ => false,
    }
}

/// Nested as deep as a frame is long, on a stack that would not survive recursion.
#[test]
fn depth_is_refused_without_recursion() {
    let levels = limits::FRAME_BYTES_MAX;
    let frames = [
        (Encoding::Json, [b"{\"a\":".to_vec(), b"[".repeat(levels)].concat()),
        (Encoding::Json, b"{\"a\":".repeat(levels / 5)),
        (Encoding::MessagePack, [b"\x81\xa1a".to_vec(), b"\x91".repeat(levels)].concat()),
        (Encoding::MessagePack, b"\x81\xa1a".repeat(levels / 3)),
    ];
    let small = std::thread::Builder::new().stack_size(64 * 1024);
    let thread = small.spawn(move || {
        for (encoding, bytes) in frames {
            let error = encoding.decode_client(&bytes).unwrap_err();
            assert_eq!(error.code, ErrorCode::TooDeep, "{encoding:?}");
        }
    });
    thread.unwrap().join().unwrap();
}
