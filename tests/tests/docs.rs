//! Runs the examples of `docs/protocol.md` and writes its tables: `UPDATE=1` rewrites them.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on says where")]

use std::{fmt::Write, fs, path::PathBuf};

use chappe_protocol::{
    ClientFrame, CloseCode, Encoding, ErrorCode, Retry,
    frame::Incoming,
    limits,
    reply::{
        Change, ChannelReply, HelloReply, HistoryReply, PresenceReply, RefreshReply, SubscribeReply,
    },
};
use serde::{Serialize, de::DeserializeOwned};
use serde_json::Value;

const JSON: Encoding = Encoding::Json;
const MSGPACK: Encoding = Encoding::MessagePack;

fn path() -> PathBuf {
    PathBuf::from("../docs/protocol.md")
}

fn document() -> String {
    fs::read_to_string(path()).unwrap()
}

/// A fenced example: what it says it is, and its text.
struct Example {
    info: String,
    text: String,
}

fn examples() -> Vec<Example> {
    let document = document();
    let mut examples = Vec::new();
    let mut blocks = document.split("```");
    blocks.next();
    while let Some(block) = blocks.next() {
        let (info, text) = block.split_once('\n').unwrap();
        examples.push(Example { info: info.to_owned(), text: text.to_owned() });
        blocks.next();
    }
    examples
}

/// The frames of an example, each as it stands there and as a value.
fn frames(example: &Example) -> Vec<(&str, Value)> {
    let mut stream = serde_json::Deserializer::from_str(&example.text).into_iter();
    let mut frames = Vec::new();
    let mut start = 0;
    while let Some(frame) = stream.next() {
        let frame = frame.unwrap_or_else(|e| panic!("{e} in {}", example.text));
        frames.push((&example.text[start..stream.byte_offset()], frame));
        start = stream.byte_offset();
    }
    frames
}

#[test]
fn every_example_is_of_a_kind_that_is_run() {
    let mut count = 0;
    for example in examples() {
        let known = ["json client", "json server", "hex client"].contains(&&*example.info)
            || example.info.starts_with("json ok ");
        assert!(known, "nobody runs `{}`", example.info);
        count += 1;
    }
    assert!(count > 20, "the examples are found");
}

#[test]
fn examples_of_client_frames_decode_in_both_encodings() {
    for example in examples().iter().filter(|example| example.info == "json client") {
        for (text, written) in frames(example) {
            let frame = JSON.decode_client(text.as_bytes());
            let frame = frame.unwrap_or_else(|e| panic!("{e}: {text}"));
            let mut bytes = Vec::new();
            MSGPACK.encode(&frame, &mut bytes);
            assert_eq!(MSGPACK.decode_client(&bytes).as_ref(), Ok(&frame));
            let mut again = serde_json::to_value(&frame).unwrap();
            if written.get("id").is_none() {
                again.as_object_mut().unwrap().remove("id"); // a pong needs none
            }
            assert_eq!(again, written, "a field of the example is not the protocol's");
        }
    }
}

#[test]
fn examples_in_hexadecimal_are_the_first_json_example() {
    let examples = examples();
    let find = |info| examples.iter().find(|example| example.info == info).unwrap();
    let hex: String = find("hex client").text.split_whitespace().collect();
    let digits = hex.as_bytes().chunks(2).map(|pair| std::str::from_utf8(pair).unwrap());
    let bytes: Vec<u8> = digits.map(|pair| u8::from_str_radix(pair, 16).unwrap()).collect();
    let first: ClientFrame =
        JSON.decode_client(find("json client").text.trim().as_bytes()).unwrap();
    assert_eq!(MSGPACK.decode_client(&bytes), Ok(first));
}

#[test]
fn examples_of_server_frames_are_known() {
    for example in examples().iter().filter(|example| example.info == "json server") {
        for (text, _) in frames(example) {
            let frame = JSON.decode_server(text.as_bytes()).unwrap();
            assert_ne!(frame, Incoming::Unknown, "{text}");
            if let Incoming::Error { error, .. } = frame {
                let code = ErrorCode::from_number(error.code).unwrap();
                assert_eq!(error.name, code.name());
            }
        }
    }
}

#[test]
fn examples_of_replies_have_their_commands_fields() {
    for example in examples() {
        let Some(command) = example.info.strip_prefix("json ok ") else { continue };
        match command {
            "hello" => check::<HelloReply>(&example),
            "refresh" => check::<RefreshReply>(&example),
            "get_channel" => check::<ChannelReply>(&example),
            "history" => check::<HistoryReply>(&example),
            "presence" => check::<PresenceReply>(&example),
            "subscribe" => check::<SubscribeReply>(&example),
            "publish" | "create_channel" => check::<Change>(&example),
            other => panic!("no reply is known to {other}"),
        }
    }
}

/// The body reads as `T`, and has nothing that `T` lacks.
fn check<T: Serialize + DeserializeOwned>(example: &Example) {
    for (text, written) in frames(example) {
        let body: T = JSON.decode_ok(text.as_bytes()).unwrap();
        assert_eq!(serde_json::to_value(body).unwrap(), written["ok"], "{}", example.info);
    }
}

#[test]
fn the_documents_numbers_are_the_limits() {
    let document = document();
    for row in [
        format!(
            "| a client's frame | {} KiB; {} KiB before `hello` was answered |",
            limits::FRAME_BYTES_MAX / 1024,
            limits::FRAME_BYTES_MAX_BEFORE_HELLO / 1024
        ),
        format!(
            "| nesting, keys of one map | {} levels, {} keys |",
            limits::DEPTH_MAX,
            limits::KEYS_MAX
        ),
        format!("{} levels, {} keys a map |", limits::DATA_DEPTH_MAX, limits::KEYS_MAX),
        format!(
            "| channel name, topic | {} and {} code points |",
            limits::NAME_CODE_POINTS_MAX,
            limits::TOPIC_CODE_POINTS_MAX
        ),
        format!("| reaction, nonce | {} bytes each |", limits::NONCE_BYTES_MAX),
        format!(
            "| items of a page | {}, {} by default |",
            limits::PAGE_ITEMS_MAX,
            limits::PAGE_ITEMS_DEFAULT
        ),
        format!("| time until `hello` | {} s |", limits::HELLO_TIMEOUT_MS / 1_000),
        format!(
            "| window of a nonce | {} minutes; a retry may be {} minutes old |",
            limits::NONCE_WINDOW_MS / 60_000,
            limits::NONCE_AGE_MS_MAX / 60_000
        ),
    ] {
        assert!(document.contains(&row), "{row}");
    }
}

fn error_table() -> String {
    let mut table =
        String::from("| number | name | HTTP | closes | meaning |\n|---|---|---|---|---|\n");
    for code in ErrorCode::ALL {
        let closes = code.closes().map_or(String::new(), |close| close.number().to_string());
        writeln!(
            table,
            "| {} | `{}` | {} | {closes} | {} |",
            code.number(),
            code.name(),
            code.http_status(),
            code.message()
        )
        .unwrap();
    }
    table
}

fn close_table() -> String {
    let mut table = String::from(
        "| number | name | connects again by itself | its cursor | meaning |\n|---|---|---|---|---|\n",
    );
    for code in CloseCode::ALL {
        let reconnects = if code.reconnects() { "yes, with back-off" } else { "no" };
        let resumes = if code.resumes() { "is good" } else { "is of no use" };
        let (number, name) = (code.number(), code.name());
        let message = code.message();
        writeln!(table, "| {number} | `{name}` | {reconnects} | {resumes} | {message} |").unwrap();
    }
    table
}

#[test]
fn the_tables_of_codes_are_the_sources() {
    let mut document = document();
    for (name, table) in [("errors", error_table()), ("closes", close_table())] {
        let start = format!("<!-- {name}: written by tests/tests/docs.rs -->\n");
        let end = format!("<!-- /{name} -->");
        let (before, rest) = document.split_once(&start).unwrap();
        let (_, after) = rest.split_once(&end).unwrap();
        document = format!("{before}{start}{table}{end}{after}");
    }
    if document != self::document() && std::env::var_os("UPDATE").is_some() {
        fs::write(path(), &document).unwrap();
    }
    assert_eq!(document, self::document(), "run with UPDATE=1");
}

#[test]
fn ranges_of_numbers_are_what_the_document_says() {
    for code in ErrorCode::ALL {
        let expected = match code.number() {
            1000..2000 => Retry::Again,
            2000..3000 => Retry::AfterMending,
            3000..4000 => Retry::AfterSignIn,
            _ => Retry::Never,
        };
        assert_eq!(code.retry(), expected);
    }
}
