//! Whoever declares a gigabyte is refused by what he declares: nothing of it is awaited, and no
//! memory is made ready for it.

use std::time::{Duration, Instant};

use chappe_tests::{Client, Server, Transport, http, soon};
use futures_util::future::join_all;
use serde_json::json;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

use crate::{
    healthy::Healthy,
    make_channel,
    memory::{Held, MemoryWatch},
};

const GIB: u64 = 1 << 30;
/// The mask that changes nothing.
const NO_MASK: &[u8] = &[0; 4];
/// Connections that declare it at the same time.
const AT_ONCE: usize = 100;
/// A server that waited for the bytes would wait longer than this.
const AT_ONCE_MEANS: Duration = Duration::from_secs(5);

#[tokio::test(flavor = "multi_thread")]
async fn a_gigabyte_in_a_header_is_refused_at_once_and_never_allocated() {
    let server = Server::start().await;
    let channel = make_channel(&server).await;
    let healthy = Healthy::begin(&server, &channel).await;
    let memory = MemoryWatch::begin(&server);
    let began = Instant::now();
    join_all((0..AT_ONCE).map(|_| websocket(&server, None))).await;
    let token = server.token("large");
    join_all((0..AT_ONCE).map(|_| websocket(&server, Some(&token)))).await;
    join_all((0..AT_ONCE).map(|number| quic(&server, number))).await;
    join_all((0..AT_ONCE).map(|_| rest(&server, &channel))).await;
    println!("{} declarations of a gigabyte were refused in {:?}", 4 * AT_ONCE, began.elapsed());

    let outcome = healthy.end().await;
    let pid = server.run().pid;
    let (idle, _) = memory.end("a gigabyte in a header");
    let mapped_kib = Held::read(pid).mapped_peak_kib - idle.mapped_peak_kib;
    assert!(mapped_kib < GIB / 1024, "{mapped_kib} KiB were mapped: not even one of them");
    assert!(outcome.published > 0);
}

/// A masked text frame whose 64-bit length says a gigabyte, signed in and not.
async fn websocket(server: &Server, token: Option<&str>) {
    let mut stream = TcpStream::connect(server.run().tcp).await.unwrap();
    let request = format!(
        "GET /v1/ws HTTP/1.1\r\nhost: {}\r\nconnection: upgrade\r\nupgrade: websocket\r\n\
         sec-websocket-version: 13\r\nsec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n",
        server.run().tcp
    );
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut heard = Vec::new();
    read_until(&mut stream, &mut heard, b"\r\n\r\n").await;
    if let Some(token) = token {
        let hello = json!({"id": 1, "hello": {"token": token, "client": "tests", "version": "1"}});
        let hello = hello.to_string();
        let mut frame = vec![0x81, 0xfe];
        frame.extend_from_slice(&(hello.len() as u16).to_be_bytes());
        frame.extend_from_slice(NO_MASK);
        frame.extend_from_slice(hello.as_bytes());
        stream.write_all(&frame).await.unwrap();
        // The limit is another one once it is signed in.
        read_until(&mut stream, &mut heard, br#""user":"#).await;
    }
    heard.clear();
    let began = Instant::now();
    let mut frame = vec![0x81, 0xff];
    frame.extend_from_slice(&GIB.to_be_bytes());
    frame.extend_from_slice(NO_MASK);
    frame.extend_from_slice(&[b'x'; 1000]);
    stream.write_all(&frame).await.unwrap();
    // What it did, and then the header of a close frame with the code behind it.
    read_until(&mut stream, &mut heard, br#""code":2003,"name":"frame_too_large""#).await;
    read_until(&mut stream, &mut heard, br#""code":4012,"name":"protocol_error""#).await;
    let code = 4012_u16.to_be_bytes();
    read_until(&mut stream, &mut heard, &code).await;
    let close = heard.windows(4).find(|bytes| bytes[0] == 0x88 && bytes[2..] == code);
    assert!(close.is_some(), "a close frame with 4012: {heard:?}");
    assert!(began.elapsed() < AT_ONCE_MEANS, "{:?}", began.elapsed());
}

async fn read_until(stream: &mut TcpStream, heard: &mut Vec<u8>, wanted: &[u8]) {
    soon("the server's word", async {
        while !heard.windows(wanted.len()).any(|bytes| bytes == wanted) {
            let read = stream.read_buf(heard).await.unwrap();
            assert!(read > 0, "ended after {:?}", String::from_utf8_lossy(heard));
        }
    })
    .await;
}

/// A length on the control stream that says a gigabyte, signed in and not.
async fn quic(server: &Server, number: usize) {
    let mut client = Client::connect(server, Transport::Quic).await;
    if number.is_multiple_of(2) {
        client.sign_in(&server.token("large"), None).await;
    }
    let began = Instant::now();
    client.quic().send_bytes(&(GIB as u32).to_le_bytes()).await;
    client.quic().send_bytes(&[0; 1000]).await;
    let error = client.frame().await;
    assert_eq!(
        (&error["error"]["code"], &error["error"]["name"]),
        (&json!(2003), &json!("frame_too_large"))
    );
    assert_eq!(client.closed().await, Some(4012));
    assert!(began.elapsed() < AT_ONCE_MEANS, "{:?}", began.elapsed());
}

/// A body whose length says a gigabyte.
async fn rest(server: &Server, channel: &str) {
    let began = Instant::now();
    let request = format!(
        "POST /v1/channels/{channel}/messages HTTP/1.1\r\nhost: {}\r\nauthorization: Bearer {}\r\n\
         content-type: application/json\r\ncontent-length: {GIB}\r\n\r\n{{\"text\":\"",
        server.run().tcp,
        server.token("large")
    );
    let refused = http::send(server.run().tcp, request.as_bytes()).await;
    assert_eq!(refused.status, 413, "{}", refused.text());
    assert_eq!(
        (&refused.json()["code"], &refused.json()["name"]),
        (&json!(2003), &json!("frame_too_large"))
    );
    assert!(began.elapsed() < AT_ONCE_MEANS, "{:?}", began.elapsed());
}
