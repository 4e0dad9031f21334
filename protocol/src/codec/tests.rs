//! The codec's refusals, one by one: their codes, their words, and what is not repeated.

use super::*;
use crate::{command::*, id::*, limits, value::*};

const BOTH: [Encoding; 2] = [Encoding::Json, Encoding::MessagePack];

fn publish() -> ClientFrame {
    ClientFrame {
        id: 7,
        nonce: Some(Nonce::parse("n-1").unwrap()),
        age_ms: 0,
        command: Command::Publish(Publish {
            channel: ChannelId::new(u64::MAX >> 1),
            text: Some(Text::parse("hello").unwrap()),
            data: Some(Data::new(serde_json::json!({"a": [1, 2.5, null]})).unwrap()),
            reply_to: None,
            mentions: vec![UserId::new(1)],
        }),
    }
}

fn encoded(encoding: Encoding) -> Vec<u8> {
    let mut bytes = Vec::new();
    encoding.encode(&publish(), &mut bytes);
    bytes
}

#[test]
fn a_frame_reads_back_in_both_encodings() {
    for encoding in BOTH {
        assert_eq!(encoding.decode_client(&encoded(encoding)), Ok(publish()), "{encoding:?}");
    }
}

#[test]
fn ids_are_strings_in_json() {
    let text = String::from_utf8(encoded(Encoding::Json)).unwrap();
    assert!(text.contains(r#""channel":"9223372036854775807""#), "{text}");
}

#[test]
fn several_frames_share_a_message() {
    for encoding in BOTH {
        let mut bytes = encoded(encoding);
        let length = bytes.len();
        if encoding == Encoding::Json {
            bytes.push(b'\n');
        }
        bytes.extend(encoded(encoding));
        let (first, _) = encoding.split_frame(&bytes).unwrap();
        assert_eq!(first.len(), length);

        let mut rest = &*bytes;
        assert_eq!(encoding.take_client(&mut rest), Ok(publish()));
        assert_eq!(encoding.take_client(&mut rest), Ok(publish()));
        assert!(rest.is_empty());
        assert_eq!(encoding.decode_client(&bytes).unwrap_err().code, ErrorCode::Malformed);
    }
}

#[test]
fn a_refused_frame_leaves_the_next_one_and_a_broken_one_leaves_nothing() {
    let mut bytes = &br#"{"id":1,"dance":{}}{"id":2,"ping":{}}"#[..];
    assert_eq!(Encoding::Json.take_client(&mut bytes).unwrap_err().id, Some(1));
    assert_eq!(Encoding::Json.take_client(&mut bytes).unwrap().id, 2);
    let mut bytes = &br#"{"id":1,}{"id":2,"ping":{}}"#[..];
    assert_eq!(Encoding::Json.take_client(&mut bytes).unwrap_err().code, ErrorCode::Malformed);
    assert!(bytes.is_empty());
}

#[track_caller]
fn refused(json: &str, code: ErrorCode, id: Option<u32>, message: &str) {
    let error = Encoding::Json.decode_client(json.as_bytes()).unwrap_err();
    assert_eq!((error.code, error.id, &*error.message), (code, id, message), "{json}");
    // Whatever is JSON is also MessagePack, but for the spelling of ids.
    let ids_as_numbers = json.replace(r#""1""#, "1");
    if let Ok(value) = serde_json::from_str::<serde_json::Value>(&ids_as_numbers) {
        let bytes = rmp_serde::to_vec(&value).unwrap();
        let same = Encoding::MessagePack.decode_client(&bytes).unwrap_err();
        assert_eq!((same.code, same.id), (code, id), "{json}");
    }
}

#[test]
fn what_is_no_frame_is_malformed() {
    let words = ErrorCode::Malformed.message();
    for json in [
        "",
        " ",
        "[]",
        "null",
        "{",
        "{}}",
        "{]",
        "{,}",
        "{\"a\"}",
        "{\"a\":}",
        "{\"a\":1,}",
        "{\"a\":[1,]}",
        "{\"id\":1",
        "{\"id\":1,\"ping\":{}} x",
        "{id:1,\"ping\":{}}",
        "{\"id\":01,\"ping\":{}}",
        "{\"id\":1,\"ping\":{},\"x\":tru}",
        "{\"id\":1,\"ping\":{},\"x\":NaN}",
        "{\"id\":1,\"ping\":{},\"x\":1e}",
        "{\"id\":1,\"ping\":{},\"x\":\"\n\"}",
        "{\"id\":1,\"ping\":{},\"x\":\"\\x\"}",
        "{\"id\":1,\"ping\":{},\"x\":\"\\u12g4\"}",
        "{\"id\":1,\"signal\":{\"channel\":\"1\",\"data\":1e999}}",
    ] {
        let error = Encoding::Json.decode_client(json.as_bytes()).unwrap_err();
        assert_eq!(error.code, ErrorCode::Malformed, "{json}");
        assert!(error.message.ends_with(words), "{json}: {error}");
    }
    for json in [r#""\ud800""#, r#""\ud800\u0041""#, r#""\udc00""#, r#""\udc00\ud800""#] {
        let frame = format!(r#"{{"id":1,"ping":{{}},"x":{json}}}"#);
        refused(&frame, ErrorCode::Malformed, None, words);
    }
    assert_eq!(
        Encoding::Json.decode_client(b"{\"id\":1,\"ping\":{},\"x\":\"\xff\"}").unwrap_err().code,
        ErrorCode::Malformed
    );
}

#[test]
fn no_map_has_a_key_twice() {
    let twice = "a map has the same key twice";
    for json in [
        r#"{"id":1,"id":2,"ping":{}}"#,
        r#"{"id":1,"ping":{},"ping":{}}"#,
        r#"{"id":1,"ping":{},"x":1,"\u0078":1}"#,
        r#"{"id":1,"join":{"channel":"1","channel":"2"}}"#,
        r#"{"id":1,"signal":{"channel":"1","data":{"a":[{"b":{},"c":{"b":1},"b":2}]}}}"#,
    ] {
        let error = Encoding::Json.decode_client(json.as_bytes()).unwrap_err();
        assert_eq!((error.code, &*error.message), (ErrorCode::Malformed, twice), "{json}");
    }
    let bytes = b"\x83\xa2id\x01\xa4ping\x80\xd9\x02id\x02"; // one key in two widths
    let error = Encoding::MessagePack.decode_client(bytes).unwrap_err();
    assert_eq!((error.code, &*error.message), (ErrorCode::Malformed, twice));
    // The same key in different maps is no repetition.
    let fine = br#"{"id":1,"signal":{"channel":"1","data":[{"id":1},{"id":{"id":2}}]}}"#;
    assert!(Encoding::Json.decode_client(fine).is_ok());
}

/// Frames with id 1 whose rest is refused: the rest, the code, the words.
const REFUSED_BODIES: &[(&str, ErrorCode, &str)] = &[
    (
        r#""dance":{}"#,
        ErrorCode::UnknownCommand,
        "the frame names no command that this server knows",
    ),
    (
        r#""dance":[]"#,
        ErrorCode::UnknownCommand,
        "the frame names no command that this server knows",
    ),
    (r#""x":1"#, ErrorCode::UnknownCommand, "the frame names no command that this server knows"),
    (r#""ping":[]"#, ErrorCode::Invalid, "ping: expected a map"),
    (r#""ping":null"#, ErrorCode::Invalid, "ping: expected a map"),
    (
        r#""ping":{},"join":{"channel":"1"}"#,
        ErrorCode::Invalid,
        "the frame names more than one command",
    ),
    (r#""nonce":"","ping":{}"#, ErrorCode::NonceInvalid, "nonce: a nonce has 1 to 64 bytes"),
    (r#""age_ms":-1,"ping":{}"#, ErrorCode::Invalid, "age_ms: expected a whole number of 64 bits"),
    (r#""join":{}"#, ErrorCode::Invalid, "join: channel is missing"),
    (r#""join":["1"]"#, ErrorCode::Invalid, "join: expected a map"),
    (
        r#""join":{"channel":"x"}"#,
        ErrorCode::Invalid,
        "join.channel: an id is a decimal number of at most 64 bits, 63 for a user's",
    ),
    (
        r#""publish":{"channel":"1","text":"\n"}"#,
        ErrorCode::TextInvalid,
        "publish.text: a text is not empty and not white space alone",
    ),
    (
        r#""publish":{"channel":"1","text":"a","reply_to":"a nonce has 1 to 64 bytes"}"#,
        ErrorCode::Invalid,
        "publish.reply_to: expected a whole number of 64 bits",
    ),
    (
        r#""publish":{"channel":"1","text":"a","reply_to":1099511627776}"#,
        ErrorCode::Invalid,
        "publish.reply_to: a revision or message number stays below 2^40",
    ),
    (
        r#""publish":{"channel":"1"}"#,
        ErrorCode::EmptyMessage,
        "publish: a message has text, data or both",
    ),
    (
        r#""subscribe":{"channels":[["1",2]]}"#,
        ErrorCode::Invalid,
        "subscribe.channels: expected a map",
    ),
    (
        r#""subscribe":{"channels":"all"}"#,
        ErrorCode::Invalid,
        "subscribe.channels: channels is the string `mine` or a list",
    ),
    (
        r#""hello":{"token":"t","resume":[1,[]]}"#,
        ErrorCode::Invalid,
        "hello.resume: expected a map",
    ),
    (
        r#""hello":{"token":"t","resume":{"incarnation":1,"channels":[["1",2,3]]}}"#,
        ErrorCode::Invalid,
        "hello.resume.channels: expected a shorter array",
    ),
    (
        r#""set_role":{"channel":"1","user":"1","role":"king"}"#,
        ErrorCode::Invalid,
        "set_role.role: expected one of owner, admin, moderator, member",
    ),
    (
        r#""set_role":{"channel":"1","user":"1","role":5}"#,
        ErrorCode::Invalid,
        "set_role.role: expected one of owner, admin, moderator, member",
    ),
    (
        r#""get_channel":{"channel":{}}"#,
        ErrorCode::Invalid,
        "get_channel.channel: expected a map with one key",
    ),
    (
        r#""get_channel":{"channel":{"name":"a","x":1}}"#,
        ErrorCode::Invalid,
        "get_channel.channel: expected a map with one key",
    ),
    (
        r#""get_channel":{"channel":{"name":"12"}}"#,
        ErrorCode::NameInvalid,
        "get_channel.channel.name: a channel name is not a number, which would read as an id",
    ),
];

#[test]
fn refusals_have_their_code_and_name_the_field() {
    for (body, code, words) in REFUSED_BODIES {
        refused(&format!("{{\"id\":1,{body}}}"), *code, Some(1), words);
    }
    let invalid = ErrorCode::Invalid;
    refused(r#"{"ping":{}}"#, invalid, None, "the frame has no id");
    refused(r#"{"id":-1,"ping":{}}"#, invalid, None, "id: expected a whole number of 32 bits");
    refused(
        r#"{"id":4294967296,"ping":{}}"#,
        invalid,
        None,
        "id: expected a whole number of 32 bits",
    );
}

/// A JSON id is a string; in MessagePack the same is refused, as a number is in JSON.
#[test]
fn each_encoding_has_its_own_spelling_of_an_id() {
    let number = br#"{"id":1,"join":{"channel":1}}"#;
    assert_eq!(Encoding::Json.decode_client(number).unwrap_err().code, ErrorCode::Invalid);
    let value = serde_json::json!({"id": 1, "join": {"channel": "1"}});
    let text = rmp_serde::to_vec(&value).unwrap();
    assert_eq!(Encoding::MessagePack.decode_client(&text).unwrap_err().code, ErrorCode::Invalid);
}

#[test]
fn what_only_messagepack_can_say_is_malformed() {
    let frame = |value: &[u8]| [b"\x83\xa2id\x01\xa4ping\x80\xa1x", value].concat();
    assert!(Encoding::MessagePack.decode_client(&frame(b"\xc0")).is_ok());
    for (value, words) in [
        (&b"\xc4\x01a"[..], "binary and extension values are not used"),
        (b"\xd4\x01a", "binary and extension values are not used"),
        (b"\xc1", "binary and extension values are not used"),
        (b"\xca\x7f\xc0\x00\x00", "a number is not finite"),
        (b"\xcb\x7f\xf0\x00\x00\x00\x00\x00\x00", "a number is not finite"),
        (b"\xa1\xff", "a string is not UTF-8"),
        (b"\x81\x01\x01", "a key is a string"),
        (b"\x81\xa1\xff\x01", "a string is not UTF-8"),
    ] {
        let error = Encoding::MessagePack.decode_client(&frame(value)).unwrap_err();
        assert_eq!((error.code, &*error.message), (ErrorCode::Malformed, words), "{value:x?}");
    }
}

#[test]
fn depth_and_keys_are_limited_in_what_is_ignored_too() {
    let deep = |levels: usize| {
        let (open, close) = ("[".repeat(levels - 1), "]".repeat(levels - 1));
        format!(r#"{{"id":1,"ping":{{}},"x":{open}{close}}}"#)
    };
    assert!(Encoding::Json.decode_client(deep(limits::DEPTH_MAX).as_bytes()).is_ok());
    refused(&deep(limits::DEPTH_MAX + 1), ErrorCode::TooDeep, None, ErrorCode::TooDeep.message());

    let wide = |keys: usize| {
        let map = (0..keys).map(|key| format!("\"k{key}\":0")).collect::<Vec<_>>().join(",");
        format!(r#"{{"id":1,"ping":{{}},"x":{{{map}}}}}"#)
    };
    assert!(Encoding::Json.decode_client(wide(limits::KEYS_MAX).as_bytes()).is_ok());
    refused(&wide(limits::KEYS_MAX + 1), ErrorCode::TooDeep, None, ErrorCode::TooDeep.message());
}

#[test]
fn an_event_of_a_later_version_still_tells_its_place() {
    let json =
        br#"{"event":{"channel":"5","rev":9,"by":"1","at":1,"kind":"poll.closed","body":[]}}"#;
    let place = crate::event::EventPlace { channel: ChannelId::new(5), rev: Rev::new(9) };
    assert_eq!(Encoding::Json.decode_server(json), Ok(Incoming::UnknownEvent(place)));
    assert_eq!(Encoding::Json.decode_server(br#"{"poll":{}}"#), Ok(Incoming::Unknown));
}
