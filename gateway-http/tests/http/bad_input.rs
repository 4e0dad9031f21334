//! What a broken or hostile client sends, and what it gets. Whatever it is, the next client is
//! served.

use std::time::{Duration, Instant};

use chappe_gateway_http::Config;
use chappe_protocol::ErrorCode;

use crate::{Server, kernel::FakeKernel, quick, request};

/// What a client gets.
#[derive(Debug, Clone, Copy)]
enum Expect {
    /// A problem with this code, and with its status or another one.
    Problem(ErrorCode, u16),
    /// A status without a body, from the parser of HTTP, and the connection closes.
    Parser(u16),
    /// The connection closes without a word.
    Closed,
}
use Expect::{Closed, Parser, Problem};

const POST: &str = "POST /v1/channels/7/messages HTTP/1.1\r\nhost: x\r\n\
                    authorization: Bearer good\r\ncontent-type: application/json\r\n";
const GET: &str = "GET /v1/channels HTTP/1.1\r\nhost: x\r\nauthorization: Bearer good\r\n";

/// A request that ends behind its headers.
fn head(start: &str, headers: &str) -> Vec<u8> {
    format!("{start}{headers}\r\n").into_bytes()
}

/// A publish with this body.
fn body(body: &[u8]) -> Vec<u8> {
    let mut request = head(POST, &format!("content-length: {}\r\n", body.len()));
    request.extend_from_slice(body);
    request
}

fn get(path: &str) -> Vec<u8> {
    request("GET", path, None).into_bytes()
}

fn framing_cases() -> Vec<(&'static str, Vec<u8>, Expect)> {
    let malformed = Problem(ErrorCode::Malformed, 400);
    let no_length = Problem(ErrorCode::Invalid, 411);
    vec![
        ("bytes that are no HTTP", b"\x00\x01\x02\x03 hello\r\n\r\n".to_vec(), Parser(400)),
        ("a TLS handshake on a plain port", b"\x16\x03\x01\x02\x00\x01\r\n".to_vec(), Parser(400)),
        ("HTTP/2 with prior knowledge", b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_vec(), Closed),
        ("HTTP/0.9", b"GET /\r\n\r\n".to_vec(), Parser(400)),
        ("a version to come", b"GET / HTTP/9.9\r\nhost: x\r\n\r\n".to_vec(), Parser(400)),
        ("a folded header", head(GET, "x-a: 1\r\n  folded\r\n"), Parser(400)),
        ("a space before the colon", head(GET, "x-a : 1\r\n"), Parser(400)),
        ("a NUL in a header", head(GET, "x-a: a\0b\r\n"), Parser(400)),
        ("two lengths", head(POST, "content-length: 3\r\ncontent-length: 4\r\n"), Parser(400)),
        ("a negative length", head(POST, "content-length: -1\r\n"), Parser(400)),
        ("a length that is no number", head(POST, "content-length: 1e3\r\n"), Parser(400)),
        (
            "a length beyond counting",
            head(POST, &format!("content-length: {}\r\n", u128::MAX)),
            Parser(400),
        ),
        ("chunks", head(POST, "transfer-encoding: chunked\r\n"), no_length),
        (
            "a length and chunks",
            head(POST, "content-length: 5\r\ntransfer-encoding: chunked\r\n"),
            no_length,
        ),
        (
            "chunks and a length",
            head(POST, "transfer-encoding: chunked\r\ncontent-length: 5\r\n"),
            no_length,
        ),
        ("an encoding of its own", head(POST, "transfer-encoding: snail\r\n"), Parser(400)),
        ("no host", b"GET / HTTP/1.1\r\n\r\n".to_vec(), malformed),
        ("two hosts", b"GET / HTTP/1.1\r\nhost: x\r\nhost: y\r\n\r\n".to_vec(), malformed),
        ("a URL of another host", b"GET http://y/ HTTP/1.1\r\nhost: x\r\n\r\n".to_vec(), malformed),
        (
            "a tunnel",
            b"CONNECT x:80 HTTP/1.1\r\nhost: x:80\r\n\r\n".to_vec(),
            Problem(ErrorCode::NotFound, 404),
        ),
        ("a path that is not UTF-8", get("/v1/channels/%ff"), malformed),
    ]
}

fn size_cases() -> Vec<(&'static str, Vec<u8>, Expect)> {
    let large = |status| Problem(ErrorCode::FrameTooLarge, status);
    let many = |count: usize| (0..count).map(|n| format!("x-{n}: 1\r\n")).collect::<String>();
    let long = |bytes: usize| format!("x-long: {}\r\n", "x".repeat(bytes));
    vec![
        ("a head of 17 KiB", head(GET, &long(17 * 1024)), large(431)),
        ("a head without end", head(GET, &long(200 * 1024)), Parser(431)),
        ("101 headers", head(GET, &many(99)), large(431)),
        ("300 headers", head(GET, &many(300)), Parser(431)),
        ("a URL of 20 KiB", get(&format!("/{}", "x".repeat(20 * 1024))), large(431)),
        ("a URL of 70 KiB", get(&format!("/{}", "x".repeat(70 * 1024))), Parser(414)),
        ("a body of 64 KiB and one byte", body(&vec![b' '; 64 * 1024 + 1]), large(413)),
        ("a body of 1 GiB, announced", head(POST, "content-length: 1073741824\r\n"), large(413)),
        (
            "1 GiB, announced and waiting to be asked for",
            head(POST, "content-length: 1073741824\r\nexpect: 100-continue\r\n"),
            large(413),
        ),
    ]
}

fn meaning_cases() -> Vec<(&'static str, Vec<u8>, Expect)> {
    let malformed = Problem(ErrorCode::Malformed, 400);
    let deep = format!("{{\"data\":{}{}}}", "[".repeat(20), "]".repeat(20));
    let token = Problem(ErrorCode::TokenInvalid, 401);
    let in_url = Problem(ErrorCode::TokenInUrl, 400);
    let encoding = Problem(ErrorCode::UnsupportedEncoding, 415);
    let no_auth = "GET /v1/channels HTTP/1.1\r\nhost: x\r\n";
    let form = POST.replace("application/json", "text/plain");
    let latin = POST.replace("application/json", "application/json; charset=latin1");
    vec![
        ("no such route", get("/v1/rooms"), Problem(ErrorCode::NotFound, 404)),
        (
            "no such method",
            request("POST", "/v1/events", None).into_bytes(),
            Problem(ErrorCode::MethodNotAllowed, 405),
        ),
        (
            "another media type",
            [head(&form, "content-length: 2\r\n"), b"{}".to_vec()].concat(),
            encoding,
        ),
        (
            "another character set",
            [head(&latin, "content-length: 2\r\n"), b"{}".to_vec()].concat(),
            encoding,
        ),
        ("a token in the URL", get("/v1/channels?access_token=x"), in_url),
        ("a JWT in the URL, whatever its name", get("/v1/channels?after=eyJhbGciOi.e30.x"), in_url),
        ("no token", head(no_auth, ""), token),
        ("another scheme", head(no_auth, "authorization: Basic eDp5\r\n"), token),
        ("two tokens", head(GET, "authorization: Bearer good\r\n"), token),
        ("an empty token", head(no_auth, "authorization: Bearer  \r\n"), token),
        ("a body that is no JSON", body(b"text=x"), malformed),
        ("a body that is not UTF-8", body(b"{\"text\":\"\xff\"}"), malformed),
        ("a body with a byte order mark", body("\u{feff}{}".as_bytes()), malformed),
        ("a body cut short inside", body(b"{\"text\":\"x"), malformed),
        ("two bodies", body(b"{\"text\":\"x\"}{}"), malformed),
        ("a body that is a list", body(b"[]"), Problem(ErrorCode::Invalid, 422)),
        ("a body that repeats a key", body(b"{\"text\":\"x\",\"text\":\"y\"}"), malformed),
        ("a body nested too deep", body(deep.as_bytes()), Problem(ErrorCode::TooDeep, 400)),
        (
            "a nonce too long",
            head(GET, &format!("idempotency-key: {}\r\n", "n".repeat(65))),
            Problem(ErrorCode::NonceInvalid, 422),
        ),
        (
            "two nonces",
            head(GET, "idempotency-key: a\r\nidempotency-key: b\r\n"),
            Problem(ErrorCode::Invalid, 422),
        ),
        (
            "an age that is none",
            head(GET, "idempotency-key: a\r\nidempotency-age-ms: -1\r\n"),
            Problem(ErrorCode::Invalid, 422),
        ),
        (
            "a foreign page",
            head(GET, "origin: https://evil.test\r\n"),
            Problem(ErrorCode::OriginForbidden, 403),
        ),
        ("a channel that is no id", get("/v1/channels/general"), Problem(ErrorCode::Invalid, 422)),
        (
            "a number that is none",
            get("/v1/channels/7/messages?limit=many"),
            Problem(ErrorCode::Invalid, 422),
        ),
    ]
}

#[tokio::test]
async fn each_has_its_answer_and_the_next_client_is_served() {
    let (kernel, _sessions) = FakeKernel::start();
    let server = Server::start(&kernel);
    let (transport, meaning) = ([framing_cases(), size_cases()].concat(), meaning_cases());
    assert!(transport.len() >= 20, "{} cases of the transport", transport.len());
    let cases = [transport, meaning].concat();
    for (what, bytes, expect) in cases {
        let mut client = server.client().await;
        eprintln!("case: {what}");
        // The server may answer and close before it has read all.
        drop(tokio::io::AsyncWriteExt::write_all(&mut client.stream, &bytes).await);
        match expect {
            Problem(code, status) => {
                let response = client.response().await;
                assert_eq!(response.code(), u64::from(code.number()), "{what}: {response:?}");
                assert_eq!(response.status, status, "{what}");
                assert_eq!(response.header("content-type"), Some("application/problem+json"));
                // An answer that leaves the body unread cannot leave the connection: what comes
                // next on it would be the body.
                let closes = matches!(status, 411 | 413 | 415);
                assert_eq!(response.header("connection").is_some(), closes, "{what}");
                if closes {
                    assert_eq!(client.rest().await, b"", "{what}: the connection closes");
                } else {
                    let next = client.request("GET / HTTP/1.1\r\nhost: x\r\n\r\n").await;
                    assert_eq!(next.status, 200, "{what}: the connection stays");
                }
            }
            Parser(status) => {
                let response = client.response().await;
                assert_eq!((response.status, response.body.len()), (status, 0), "{what}");
                assert_eq!(client.rest().await, b"", "{what}");
            }
            Closed => assert_eq!(client.rest().await, b"", "{what}"),
        }
        assert_eq!(server.request("GET / HTTP/1.1\r\nhost: x\r\n\r\n").await.status, 200, "{what}");
    }
    assert_eq!(kernel.calls().len(), 0, "nothing of it reached the kernel");
    server.stop().await;
}

#[tokio::test]
async fn a_client_that_is_slow_or_silent_is_closed_in_time() {
    let (kernel, _sessions) = FakeKernel::start();
    let server = Server::start(&kernel);
    let cases: [(&str, Vec<u8>, Option<u16>); 4] = [
        ("silence", Vec::new(), None),
        ("half a head", b"GET / HTTP/1.1\r\nhost:".to_vec(), None),
        (
            "half a body",
            [head(POST, "content-length: 20\r\n"), b"{\"te".to_vec()].concat(),
            Some(408),
        ),
        ("no body at all", head(POST, "content-length: 20\r\n"), Some(408)),
    ];
    for (what, bytes, status) in cases {
        let began = Instant::now();
        let mut client = server.client().await;
        client.write(&bytes).await;
        if let Some(status) = status {
            assert_eq!(client.response().await.status, status, "{what}");
        }
        let rest = client.rest().await;
        assert!(status.is_some() || rest.is_empty() || rest.starts_with(b"HTTP/1.1 408"), "{what}");
        assert!(began.elapsed() < Duration::from_secs(5), "{what}: {:?}", began.elapsed());
    }
}

#[tokio::test]
async fn a_head_that_trickles_is_closed_when_its_time_is_up() {
    let (kernel, _sessions) = FakeKernel::start();
    let server = Server::start(&kernel);
    let mut client = server.client().await;
    let began = Instant::now();
    // A byte every 50 ms keeps the line busy; the deadline is for the whole head.
    let mut written = 0;
    while began.elapsed() < Duration::from_secs(10) {
        let byte = [b"GET / HTTP/1.1\r\nx: "[written.min(18)]];
        if tokio::io::AsyncWriteExt::write_all(&mut client.stream, &byte).await.is_err() {
            break;
        }
        written += 1;
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    assert!(began.elapsed() < Duration::from_secs(5), "{:?}", began.elapsed());
}

#[tokio::test]
async fn a_silent_tls_client_is_closed_in_time() {
    let (kernel, _sessions) = FakeKernel::start();
    let (certificate, _) = crate::upgrade::certificate();
    let (_swap, tls) = tokio::sync::watch::channel(certificate);
    for plaintext in [chappe_gateway_http::Plaintext::Served, quick().plaintext] {
        let config = Config { plaintext, ..quick() };
        let server = Server::with(&kernel, config, Some(tls.clone()), None);
        for bytes in [&b""[..], b"\x16\x03\x01"] {
            let mut client = server.client().await;
            client.write(bytes).await;
            assert_eq!(client.rest().await, b"");
        }
    }
}

#[tokio::test]
async fn a_client_that_never_reads_is_given_up() {
    let (kernel, _sessions) = FakeKernel::start();
    let config = Config { stall_timeout: Duration::from_millis(300), ..quick() };
    let server = Server::with(&kernel, config, None, None);
    let mut client = server.client().await;
    // Requests for the page without end, and nobody reads the pages.
    let ask = b"GET / HTTP/1.1\r\nhost: x\r\n\r\n".repeat(100);
    let began = Instant::now();
    while tokio::io::AsyncWriteExt::write_all(&mut client.stream, &ask).await.is_ok() {
        assert!(began.elapsed() < Duration::from_secs(20), "it is never given up");
    }
}

#[tokio::test]
async fn requests_in_one_packet_are_answered_in_their_order() {
    let (kernel, _sessions) = FakeKernel::start();
    let server = Server::start(&kernel);
    let mut client = server.client().await;
    let asked: String =
        (0..100).map(|n| request("GET", &format!("/v1/channels/{n}"), None)).collect();
    client.write(asked.as_bytes()).await;
    for _ in 0..100 {
        assert_eq!(client.response().await.status, 200);
    }
    let called: Vec<_> =
        kernel.calls().into_iter().map(|call| format!("{:?}", call.command)).collect();
    assert_eq!(called.len(), 100);
    assert!(called.iter().enumerate().all(|(n, call)| call.contains(&format!("({n})"))));
}

#[tokio::test]
async fn a_full_server_says_so_and_when_to_come_again() {
    let (kernel, _sessions) = FakeKernel::start();
    let config = Config { connections_max: 2, ..quick() };
    let full = Server::with(&kernel, config, None, None);
    let config = Config { connections_per_address_max: 2, ..quick() };
    let crowded = Server::with(&kernel, config, None, None);
    for (server, status, code) in [(full, 503, 1002), (crowded, 429, 3009)] {
        let mut inside = [server.client().await, server.client().await];
        for client in &mut inside {
            // An answer, so that both are surely inside.
            assert_eq!(client.request("GET / HTTP/1.1\r\nhost: x\r\n\r\n").await.status, 200);
        }
        let mut outside = server.client().await;
        let response = outside.response().await;
        assert_eq!((response.status, response.code()), (status, code));
        assert_eq!(response.header("retry-after"), Some("1"));
        drop(inside);
        server.stop().await;
    }
}

#[tokio::test]
async fn a_stopping_server_finishes_what_is_under_way() {
    let (kernel, _sessions) = FakeKernel::start();
    let config = Config {
        body_timeout: Duration::from_secs(20),
        stop_timeout: Duration::from_secs(20),
        ..quick()
    };
    let server = Server::with(&kernel, config, None, None);
    let mut silent = server.client().await;
    let mut idle = server.client().await;
    assert_eq!(idle.request("GET / HTTP/1.1\r\nhost: x\r\n\r\n").await.status, 200);
    let mut client = server.client().await;
    client
        .write(&[&head(POST, "content-length: 12\r\nexpect: 100-continue\r\n")[..]].concat())
        .await;
    // The server asks for the body: the request is under way.
    assert_eq!(client.head().await.status, 100);
    let address = server.address;
    let stopped = tokio::spawn(server.stop());
    assert_eq!(idle.rest().await, b"", "an idle connection ends at once");
    assert_eq!(silent.rest().await, b"", "so does one that never spoke");
    assert!(tokio::net::TcpStream::connect(address).await.is_err(), "nobody new comes in");
    client.write(b"{\"text\":\"x\"}").await;
    let response = client.response().await;
    assert_eq!(response.status, 201);
    assert_eq!(response.header("connection"), Some("close"));
    stopped.await.unwrap();
}
