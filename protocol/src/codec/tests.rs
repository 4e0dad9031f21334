use super::*;
use crate::{command::*, id::*, value::*};

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

#[test]
fn a_frame_reads_back_in_both_encodings() {
    for encoding in [Encoding::Json, Encoding::MessagePack] {
        let mut bytes = Vec::new();
        encoding.encode(&publish(), &mut bytes);
        assert_eq!(encoding.decode_client(&bytes), Ok(publish()), "{encoding:?}");
    }
}

#[test]
fn ids_are_strings_in_json() {
    let mut bytes = Vec::new();
    Encoding::Json.encode(&publish(), &mut bytes);
    let text = String::from_utf8(bytes).unwrap();
    assert!(text.contains(r#""channel":"9223372036854775807""#), "{text}");
}

#[test]
fn several_frames_share_a_message() {
    for encoding in [Encoding::Json, Encoding::MessagePack] {
        let mut bytes = Vec::new();
        encoding.encode(&publish(), &mut bytes);
        let length = bytes.len();
        if encoding == Encoding::Json {
            bytes.push(b'\n');
        }
        encoding.encode(&publish(), &mut bytes);
        let (first, rest) = encoding.split_frame(&bytes).unwrap();
        assert_eq!(first.len(), length);
        assert_eq!(encoding.decode_client(rest), Ok(publish()));
        assert_eq!(encoding.decode_client(&bytes).unwrap_err().code, ErrorCode::Malformed);
    }
}

#[track_caller]
fn refused(json: &str, code: ErrorCode, id: Option<u32>) {
    let error = Encoding::Json.decode_client(json.as_bytes()).unwrap_err();
    assert_eq!((error.code, error.id), (code, id), "{json}: {error}");
}

#[test]
fn refusals_have_their_code_and_the_id() {
    refused("", ErrorCode::Malformed, None);
    refused("[]", ErrorCode::Malformed, None);
    refused("{\"id\":1", ErrorCode::Malformed, None);
    refused("{\"id\":1,\"dance\":{}}", ErrorCode::UnknownCommand, Some(1));
    refused("{\"id\":1}", ErrorCode::UnknownCommand, Some(1));
    refused("{\"ping\":{}}", ErrorCode::Invalid, None);
    refused("{\"id\":1,\"ping\":[]}", ErrorCode::Invalid, None);
    refused("{\"id\":1,\"ping\":{},\"join\":{\"channel\":\"1\"}}", ErrorCode::Invalid, Some(1));
    refused("{\"id\":1,\"join\":{\"channel\":1}}", ErrorCode::Invalid, Some(1));
    refused("{\"id\":1,\"join\":{}}", ErrorCode::Invalid, Some(1));
    refused(
        "{\"id\":1,\"publish\":{\"channel\":\"1\",\"text\":\" \"}}",
        ErrorCode::TextInvalid,
        Some(1),
    );
    let deep = format!("{{\"id\":1,\"ping\":{}", "{\"a\":".repeat(40));
    refused(&deep, ErrorCode::TooDeep, None);
}
