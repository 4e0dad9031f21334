//! The way out of HTTP: what may leave it, and with what.

use std::sync::{Arc, Mutex};

use chappe_gateway_http::{
    Config, Plaintext, Upgrade,
    upgrade::{Accepted, Socket, Switched},
};
use http::{HeaderMap, HeaderValue, Response};
use rustls::pki_types::ServerName;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    sync::{mpsc, watch},
};
use tokio_rustls::TlsConnector;

use crate::{Server, client::Client, kernel::FakeKernel, quick};

const UPGRADE: &str = "GET /v1/ws HTTP/1.1\r\nhost: localhost\r\nconnection: upgrade\r\n\
                       upgrade: websocket\r\n\r\n";

/// An upgrade that takes everybody, and the sockets that it took.
fn taking() -> (Upgrade, mpsc::Receiver<Switched>) {
    let (sender, taken) = mpsc::channel(8);
    let upgrade: Upgrade = Arc::new(move |parts, _| {
        if parts.headers.contains_key("x-refuse") {
            let refusal = Response::builder().status(426).header("sec-websocket-version", "13");
            return Err(Box::new(refusal.body("later".into()).unwrap()));
        }
        let mut headers = HeaderMap::new();
        headers.insert("connection", HeaderValue::from_static("upgrade"));
        headers.insert("upgrade", HeaderValue::from_static("websocket"));
        headers.insert("sec-websocket-accept", HeaderValue::from_static("yes"));
        let sender = sender.clone();
        let take = Box::new(move |switched| sender.try_send(switched).ok().unwrap());
        Ok(Accepted { headers, take })
    });
    (upgrade, taken)
}

#[tokio::test]
async fn an_upgraded_socket_leaves_http_with_what_was_read_ahead() {
    let (kernel, _sessions) = FakeKernel::start();
    let (upgrade, mut taken) = taking();
    let server = Server::with(&kernel, quick(), None, Some(upgrade));
    let mut client = server.client().await;
    // A request before it on the same connection, and the first frame in the same packet.
    client.write(format!("GET / HTTP/1.1\r\nhost: x\r\n\r\n{UPGRADE}first").as_bytes()).await;
    assert_eq!(client.response().await.status, 200);
    let response = client.head().await;
    assert_eq!(response.status, 101);
    assert_eq!(response.header("sec-websocket-accept"), Some("yes"));

    let switched = taken.recv().await.unwrap();
    assert_eq!(&switched.read_ahead[..], b"first");
    let Socket::Plain(socket) = switched.socket else { panic!("a plain socket") };
    assert!(socket.nodelay().unwrap());
    let mut socket = TcpStream::from_std(socket).unwrap();
    client.write(b"second").await;
    let mut second = [0; 6];
    socket.read_exact(&mut second).await.unwrap();
    assert_eq!(&second, b"second");
    socket.write_all(b"third").await.unwrap();
    assert_eq!(client.take(5).await, b"third");
    // What was upgraded is no longer HTTP's: it does not hold up the end of the server.
    server.stop().await;
    socket.write_all(b"fourth").await.unwrap();
    assert_eq!(client.take(6).await, b"fourth");
}

#[tokio::test]
async fn an_upgrade_is_the_same_however_its_request_arrives() {
    let (kernel, _sessions) = FakeKernel::start();
    let (upgrade, mut taken) = taking();
    let server = Server::with(&kernel, quick(), None, Some(upgrade));
    // Whole and at once, late, in two pieces, and with more than the short way takes.
    let long = UPGRADE.replace("\r\n\r\n", &format!("\r\nx-long: {}\r\n\r\n", "x".repeat(6_000)));
    let cases = [("", UPGRADE), ("late", UPGRADE), (&UPGRADE[..30], &UPGRADE[30..]), ("", &long)];
    for (first, rest) in cases {
        let mut client = server.client().await;
        if !first.is_empty() {
            // Another connection's answer shows that this one was accepted before its request.
            if first != "late" {
                client.write(first.as_bytes()).await;
            }
            assert_eq!(server.request("GET / HTTP/1.1\r\nhost: x\r\n\r\n").await.status, 200);
        }
        client.write(format!("{rest}first").as_bytes()).await;
        let response = client.head().await;
        assert_eq!((response.status, response.header("upgrade")), (101, Some("websocket")));
        let switched = taken.recv().await.unwrap();
        let Socket::Plain(socket) = switched.socket else { panic!("a plain socket") };
        let mut socket = TcpStream::from_std(socket).unwrap();
        let mut heard = switched.read_ahead.to_vec();
        while heard.len() < 5 {
            assert!(socket.read_buf(&mut heard).await.unwrap() > 0);
        }
        assert_eq!(heard, b"first");
    }
}

#[tokio::test]
async fn a_refused_upgrade_is_an_answer_and_the_connection_goes_on() {
    let (kernel, _sessions) = FakeKernel::start();
    let (upgrade, _taken) = taking();
    let server = Server::with(&kernel, quick(), None, Some(upgrade));
    let mut client = server.client().await;
    let refused = UPGRADE.replace("\r\n\r\n", "\r\nx-refuse: 1\r\n\r\n");
    let response = client.request(&refused).await;
    assert_eq!((response.status, response.header("sec-websocket-version")), (426, Some("13")));
    assert_eq!(client.request("GET / HTTP/1.1\r\nhost: x\r\n\r\n").await.status, 200);
}

#[tokio::test]
async fn nothing_is_upgraded_from_a_foreign_page_or_with_a_token_in_its_url() {
    let (kernel, _sessions) = FakeKernel::start();
    let called = Arc::new(Mutex::new(0));
    let count = Arc::clone(&called);
    let upgrade: Upgrade = Arc::new(move |_, _| {
        *count.lock().unwrap() += 1;
        Err(Box::new(Response::new("".into())))
    });
    let server = Server::with(&kernel, quick(), None, Some(upgrade));
    for (change, status, code) in [
        ("GET /v1/ws?token=x ", 400, 4104),
        ("GET /v1/ws?x=eyJhbGciOiJub25lIn0.e30. ", 400, 4104),
        ("POST /v1/ws ", 405, 4105),
    ] {
        let response = server.request(&UPGRADE.replace("GET /v1/ws ", change)).await;
        assert_eq!((response.status, response.code()), (status, code), "{change}");
    }
    for header in ["origin: https://evil.test", "origin: null", "content-length: 5"] {
        let request = UPGRADE.replace("\r\n\r\n", &format!("\r\n{header}\r\n\r\n"));
        let response = server.request(&request).await;
        assert!(matches!(response.status, 400 | 403), "{header}: {response:?}");
    }
    assert_eq!(*called.lock().unwrap(), 0);
}

#[tokio::test]
async fn our_own_page_is_not_held_against_the_list_of_origins() {
    let (kernel, _sessions) = FakeKernel::start();
    let upgrade: Upgrade = Arc::new(|parts, _| {
        let origin = parts.headers.contains_key("origin");
        Err(Box::new(
            Response::builder().status(if origin { 403 } else { 204 }).body("".into()).unwrap(),
        ))
    });
    let server = Server::with(&kernel, quick(), None, Some(upgrade));
    for (origin, status) in [("http://localhost", 204), ("https://app.example.com", 403)] {
        let request = UPGRADE.replace("\r\n\r\n", &format!("\r\norigin: {origin}\r\n\r\n"));
        assert_eq!(server.request(&request).await.status, status, "{origin}");
    }
}

#[tokio::test]
async fn without_a_websocket_frontend_there_is_no_such_route() {
    let (kernel, _sessions) = FakeKernel::start();
    let server = Server::start(&kernel);
    assert_eq!(server.request(UPGRADE).await.status, 404);
}

#[tokio::test]
async fn tls_and_plain_share_a_port_where_that_is_allowed() {
    let (kernel, _sessions) = FakeKernel::start();
    let (upgrade, mut taken) = taking();
    let (first, mine) = certificate();
    let (swap, tls) = watch::channel(first);
    let config = Config { plaintext: Plaintext::Served, ..quick() };
    let server = Server::with(&kernel, config, Some(tls.clone()), Some(upgrade));

    assert_eq!(server.request("GET / HTTP/1.1\r\nhost: x\r\n\r\n").await.status, 200);
    let stream = connect_tls(&server, &mine).await.unwrap();
    let mut client = Client::over(stream);
    client.write(format!("{UPGRADE}first").as_bytes()).await;
    assert_eq!(client.head().await.status, 101);
    let switched = taken.recv().await.unwrap();
    assert_eq!(&switched.read_ahead[..], b"first");
    let Socket::Tls(mut socket) = switched.socket else { panic!("a socket with TLS") };
    socket.write_all(b"second").await.unwrap();
    assert_eq!(client.take(6).await, b"second");

    // Another certificate: the open connection stays, new ones get it.
    let (second, other) = certificate();
    swap.send_replace(second);
    assert!(connect_tls(&server, &mine).await.is_err());
    assert!(connect_tls(&server, &other).await.is_ok());
    socket.write_all(b"third").await.unwrap();
    assert_eq!(client.take(5).await, b"third");

    let server = Server::with(&kernel, quick(), Some(tls), None);
    let mut client = server.client().await;
    client.write(b"GET / HTTP/1.1\r\nhost: x\r\n\r\n").await;
    let answer = client.rest().await;
    assert!(!answer.starts_with(b"HTTP"), "plain HTTP is refused unless it is allowed");
}

/// A configuration with a fresh certificate for localhost, and the certificate.
pub(crate) fn certificate()
-> (Arc<rustls::ServerConfig>, rustls::pki_types::CertificateDer<'static>) {
    drop(rustls::crypto::aws_lc_rs::default_provider().install_default());
    let made = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
    let key = rustls::pki_types::PrivateKeyDer::try_from(made.signing_key.serialize_der()).unwrap();
    let certificate = made.cert.der().clone();
    let config = rustls::ServerConfig::builder()
        .with_no_client_auth()
        .with_single_cert(vec![certificate.clone()], key)
        .unwrap();
    (Arc::new(config), certificate)
}

async fn connect_tls(
    server: &Server,
    certificate: &rustls::pki_types::CertificateDer<'static>,
) -> std::io::Result<tokio_rustls::client::TlsStream<TcpStream>> {
    let mut roots = rustls::RootCertStore::empty();
    roots.add(certificate.clone()).unwrap();
    let config =
        rustls::ClientConfig::builder().with_root_certificates(roots).with_no_client_auth();
    let stream = TcpStream::connect(server.address).await?;
    let name = ServerName::try_from("localhost").unwrap();
    TlsConnector::from(Arc::new(config)).connect(name, stream).await
}
