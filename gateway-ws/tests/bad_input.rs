//! What a broken or hostile client sends after its handshake, what it is told, and whether its
//! connection stays. Whatever it is, the next client is served.
#![allow(clippy::unwrap_used, reason = "for tests")]

mod support;

use chappe_protocol::{Encoding, ErrorCode, limits};
use support::{Client, Server};

struct Case {
    what: &'static str,
    encoding: Encoding,
    signed_in: bool,
    bytes: Vec<u8>,
    expect: Expect,
}

#[derive(Clone, Copy)]
enum Expect {
    /// WebSocket's own close code (RFC 6455 §7.4), without a word of ours.
    Close(u16),
    /// This error, and what the table says of the connection.
    Error(ErrorCode),
}
use Expect::{Close, Error};

/// A masked frame: its first byte, its payload, and the length that it declares.
fn declaring(first: u8, length: u64, payload: &[u8]) -> Vec<u8> {
    let mut bytes = vec![first];
    match length {
        0..=125 => bytes.push(0x80 | length as u8),
        126..=0xffff => {
            bytes.push(0x80 | 126);
            bytes.extend_from_slice(&(length as u16).to_be_bytes());
        }
        _ => {
            bytes.push(0x80 | 127);
            bytes.extend_from_slice(&length.to_be_bytes());
        }
    }
    let mask = [1, 2, 3, 4];
    bytes.extend_from_slice(&mask);
    bytes.extend(payload.iter().zip(mask.iter().cycle()).map(|(byte, mask)| byte ^ mask));
    bytes
}

fn frame(first: u8, payload: &[u8]) -> Vec<u8> {
    declaring(first, payload.len() as u64, payload)
}

const TEXT: u8 = 0x81;
const BINARY: u8 = 0x82;
const CLOSE: u8 = 0x88;
const PING: u8 = 0x89;
const BEGIN_TEXT: u8 = 0x01;
const MORE: u8 = 0x00;
const LAST: u8 = 0x80;

fn json(what: &'static str, bytes: Vec<u8>, expect: Expect) -> Case {
    Case { what, encoding: Encoding::Json, signed_in: true, bytes, expect }
}

fn msgpack(what: &'static str, bytes: Vec<u8>, expect: Expect) -> Case {
    Case { what, encoding: Encoding::MessagePack, signed_in: true, bytes, expect }
}

fn fresh(what: &'static str, bytes: Vec<u8>, expect: Expect) -> Case {
    Case { what, encoding: Encoding::Json, signed_in: false, bytes, expect }
}

/// WebSocket's own rules.
fn transport_cases() -> Vec<Case> {
    let unmasked = vec![TEXT, 2, b'{', b'}'];
    let long_form = [&[TEXT, 0x80 | 126, 0, 2][..], &[0; 4], b"{}"].concat();
    let longest_form = [&[TEXT, 0x80 | 127, 0, 0, 0, 0, 0, 0, 0, 2][..], &[0; 4], b"{}"].concat();
    let with_code =
        |code: u16, reason: &[u8]| frame(CLOSE, &[&code.to_be_bytes()[..], reason].concat());
    let fragments = [frame(BEGIN_TEXT, b" "), frame(MORE, b" ").repeat(128)].concat();
    let broken_later = [frame(BEGIN_TEXT, b"\"\xc3"), frame(MORE, b"("), frame(LAST, b"\"")];
    vec![
        json("a frame without a mask", unmasked, Close(1002)),
        json("a first reserved bit", frame(TEXT | 0x40, b"{}"), Close(1002)),
        json("a last reserved bit", frame(TEXT | 0x10, b"{}"), Close(1002)),
        json("a reserved opcode", frame(0x83, b"{}"), Close(1002)),
        json("a reserved opcode of control", frame(0x8b, b""), Close(1002)),
        json("a ping in fragments", frame(0x09, b"x"), Close(1002)),
        json("a ping of 126 bytes", frame(PING, &[b'x'; 126]), Close(1002)),
        json("a continuation of nothing", frame(LAST, b"{}"), Close(1002)),
        json(
            "a message inside another",
            [frame(BEGIN_TEXT, b"{"), frame(TEXT, b"}")].concat(),
            Close(1002),
        ),
        json("a length longer than need be", long_form, Close(1002)),
        json("a length as long as can be", longest_form, Close(1002)),
        json("a close of one byte", frame(CLOSE, &[3]), Close(1002)),
        json("a close with a code that is never sent", with_code(1005, b""), Close(1002)),
        json("a close with a code below all", with_code(999, b""), Close(1002)),
        json("a close with a reason that is no text", with_code(1000, b"\xff"), Close(1007)),
        json("binary on JSON", frame(BINARY, &[0x80]), Close(1003)),
        msgpack("text on MessagePack", frame(TEXT, b"{}"), Close(1003)),
        json("text that is not UTF-8", frame(TEXT, b"\xff\xfe"), Close(1007)),
        json("fragments that cannot become UTF-8", broken_later.concat(), Close(1007)),
        json("129 fragments", fragments, Close(1008)),
        json("21 pings at once", frame(PING, b"").repeat(21), Close(1008)),
    ]
}

/// The protocol's limits and frames.
fn frame_cases() -> Vec<Case> {
    let (large, malformed) = (Error(ErrorCode::FrameTooLarge), Error(ErrorCode::Malformed));
    let before_hello = limits::FRAME_BYTES_MAX_BEFORE_HELLO;
    let after_hello = limits::FRAME_BYTES_MAX;
    let half = vec![b' '; after_hello / 2];
    let halves = [frame(BEGIN_TEXT, &half), frame(MORE, &half), frame(LAST, b" ")].concat();
    let deep = format!(r#"{{"id":2,"ping":{}{}}}"#, "[".repeat(20), "]".repeat(20));
    vec![
        fresh("8 KiB and a byte before hello", frame(TEXT, &vec![b' '; before_hello + 1]), large),
        fresh("64 KiB before hello", declaring(TEXT, after_hello as u64, b""), large),
        json("64 KiB and a byte", frame(TEXT, &vec![b' '; after_hello + 1]), large),
        json("64 KiB and a byte in fragments", halves, large),
        json("1 GiB, declared", declaring(TEXT, 1 << 30, b"{"), large),
        msgpack("1 GiB, declared, in MessagePack", declaring(BINARY, 1 << 30, &[0x82]), large),
        json("as much as can be declared", declaring(TEXT, u64::MAX >> 1, b""), large),
        json(
            "1 GiB behind a good frame",
            [frame(TEXT, br#"{"id":2,"ping":{}}"#), declaring(TEXT, 1 << 30, b"")].concat(),
            large,
        ),
        fresh(
            "no hello first",
            frame(TEXT, br#"{"id":1,"list_channels":{}}"#),
            Error(ErrorCode::HelloRequired),
        ),
        fresh(
            "a token that is none",
            frame(TEXT, br#"{"id":1,"hello":{"token":"x"}}"#),
            Error(ErrorCode::TokenInvalid),
        ),
        json("no JSON", frame(TEXT, b"{"), malformed),
        json("an empty message", frame(TEXT, b""), malformed),
        msgpack("an empty binary message", frame(BINARY, b""), malformed),
        msgpack("no MessagePack", frame(BINARY, &[0xc1]), malformed),
        msgpack("a map of four billion", frame(BINARY, &[0xdf, 255, 255, 255, 255]), malformed),
        json("too deep", frame(TEXT, deep.as_bytes()), Error(ErrorCode::TooDeep)),
        json(
            "an unknown command",
            frame(TEXT, br#"{"id":2,"dance":{}}"#),
            Error(ErrorCode::UnknownCommand),
        ),
        json(
            "a field that is wrong",
            frame(TEXT, br#"{"id":2,"ping":1}"#),
            Error(ErrorCode::Invalid),
        ),
        json(
            "a second hello",
            frame(TEXT, br#"{"id":2,"hello":{"token":"x"}}"#),
            Error(ErrorCode::AlreadySignedIn),
        ),
    ]
}

async fn client(server: &Server, case: &Case) -> Client {
    match case.signed_in {
        true => Client::connect(server, case.encoding, "ada").await,
        false => Client::open(server, case.encoding).await,
    }
}

/// Sends a case's bytes, and checks what is heard and what becomes of the connection. Returns
/// whether it stayed.
async fn check(server: &Server, case: &Case) -> bool {
    let what = case.what;
    let mut client = client(server, case).await;
    client.raw(&case.bytes).await;
    let code = match case.expect {
        Close(code) => {
            let (closed, said) = client.closed().await;
            assert_eq!((closed, said), (code, Vec::new()), "{what}");
            assert!(client.ended().await, "{what}: nothing follows the close");
            return false;
        }
        Error(code) => code,
    };
    let Some(close) = code.closes() else {
        let refusal = client.next().await;
        assert_eq!(refusal["error"]["code"], code.number(), "{what}: {refusal}");
        assert_eq!(client.ask(r#"{"id":9,"ping":{}}"#).await["id"], 9, "{what}");
        return true;
    };
    let (closed, said) = client.closed().await;
    let [.., error, closing] = &said[..] else { panic!("{what}: {said:?}") };
    assert_eq!(error["error"]["code"], code.number(), "{what}: {said:?}");
    assert_eq!(error["error"]["name"], code.name(), "{what}: {said:?}");
    assert_eq!(closing["closing"]["code"], close.number(), "{what}: {said:?}");
    assert_eq!(closed, close.number(), "{what}");
    assert!(client.ended().await, "{what}: nothing follows the close");
    false
}

#[tokio::test]
async fn each_is_told_its_code_and_closed_where_that_says_so_and_the_next_client_is_served() {
    let server = Server::start().await;
    let (transport, frames) = (transport_cases(), frame_cases());
    assert!(transport.len() >= 20, "{} cases of the transport", transport.len());
    let mut stayed = 0;
    for case in transport.iter().chain(&frames) {
        stayed += usize::from(check(&server, case).await);
        Client::connect(&server, case.encoding, "bob").await.close().await;
    }
    assert_eq!(stayed, 3, "those whose code leaves the connection");
}
