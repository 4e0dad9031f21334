//! The link on a pipe: both directions, control frames, closes.

use std::{future::poll_fn, task::Wake};

use futures_util::{SinkExt, StreamExt};
use tokio::io::{AsyncReadExt, DuplexStream, duplex};
use tokio_tungstenite::{
    WebSocketStream,
    tungstenite::{Message, protocol::Role},
};

use super::*;

fn opened(read_ahead: &[u8]) -> Opened {
    Opened {
        transport: "ws",
        peer: SocketAddr::from(([127, 0, 0, 1], 1)),
        encoding: Encoding::Json,
        token: None,
        read_ahead: Bytes::copy_from_slice(read_ahead),
    }
}

/// A link and the other end of its socket, which holds `bytes_max` unread bytes.
fn pair(bytes_max: usize) -> (WebSocketLink<DuplexStream>, DuplexStream) {
    let (ours, theirs) = duplex(bytes_max);
    (WebSocketLink::new(ours, opened(&[])), theirs)
}

async fn client(socket: DuplexStream) -> WebSocketStream<DuplexStream> {
    WebSocketStream::from_raw_socket(socket, Role::Client, None).await
}

/// Reads until something was said or the link ended.
async fn recv(link: &mut WebSocketLink<DuplexStream>) -> Result<Vec<String>, LinkEnd> {
    let (mut scratch, mut said) = (Vec::new(), Vec::new());
    poll_fn(|cx| {
        let received = link.poll_recv(cx, &mut scratch, &mut |payload| {
            said.push(String::from_utf8_lossy(payload).into_owned());
        });
        if received.is_pending() && !said.is_empty() { Poll::Ready(Ok(())) } else { received }
    })
    .await
    .map(|()| said)
}

fn text(payload: &str) -> Vec<u8> {
    let mut frame = Vec::new();
    Framing::WebSocketText.write(payload.as_bytes(), &mut frame);
    frame
}

#[tokio::test]
async fn messages_go_both_ways() {
    let (mut link, socket) = pair(64 * 1024);
    let mut client = client(socket).await;
    client.send(Message::text("hello")).await.unwrap();
    assert_eq!(recv(&mut link).await.unwrap(), ["hello"]);
    for payload in ["short", &"x".repeat(300), &"y".repeat(70_000)] {
        let frame = text(payload);
        let mut sent = 0;
        let reading = async { client.next().await.unwrap().unwrap() };
        let sending = async {
            while sent < frame.len() {
                sent += link.send(Lane::Control, &frame[sent..]).unwrap();
                poll_fn(|cx| link.poll_writable(cx, Lane::Control)).await.unwrap();
            }
        };
        let (message, ()) = tokio::join!(reading, sending);
        assert_eq!(message, Message::text(payload));
    }
}

#[tokio::test]
async fn a_ping_is_answered_and_is_a_sign_of_life() {
    let (mut link, socket) = pair(1024);
    let mut client = client(socket).await;
    client.send(Message::Ping("here?".into())).await.unwrap();
    assert_eq!(recv(&mut link).await.unwrap(), [""]);
    poll_fn(|cx| link.poll_control(cx)).await.unwrap();
    assert_eq!(client.next().await.unwrap().unwrap(), Message::Pong("here?".into()));
}

#[tokio::test]
async fn a_pong_never_lands_inside_a_frame_that_was_cut() {
    let (mut link, socket) = pair(100);
    let mut client = client(socket).await;
    client.send(Message::Ping("p".into())).await.unwrap();
    let frame = text(&"x".repeat(200));
    let sent = link.send(Lane::Control, &frame).unwrap();
    assert!(sent < frame.len());
    assert_eq!(recv(&mut link).await.unwrap(), [""]);
    let sending = async {
        let mut sent = sent;
        while sent < frame.len() {
            tokio::task::yield_now().await;
            sent += link.send(Lane::Control, &frame[sent..]).unwrap();
        }
        poll_fn(|cx| link.poll_writable(cx, Lane::Control)).await.unwrap();
    };
    let reading =
        async { [client.next().await.unwrap().unwrap(), client.next().await.unwrap().unwrap()] };
    let ((), received) = tokio::join!(sending, reading);
    assert_eq!(received, [Message::text("x".repeat(200)), Message::Pong("p".into())]);
}

#[tokio::test]
async fn a_close_carries_code_and_reason_and_is_answered() {
    let (mut link, socket) = pair(1024);
    let mut client = client(socket).await;
    link.close(CloseCode::Drain, "the server is about to stop");
    let Message::Close(Some(close)) = client.next().await.unwrap().unwrap() else {
        panic!("not a close");
    };
    assert_eq!((u16::from(close.code), &*close.reason), (1012, "the server is about to stop"));
    client.close(None).await.ok();
    assert!(matches!(recv(&mut link).await, Err(LinkEnd::Closed(Some(1012)))));
}

#[tokio::test]
async fn a_broken_rule_is_answered_with_its_code() {
    let (mut link, socket) = pair(1024);
    let mut client = client(socket).await;
    client.send(Message::binary(vec![1])).await.unwrap();
    assert!(matches!(recv(&mut link).await, Err(LinkEnd::Broken(_))));
    let Message::Close(Some(close)) = client.next().await.unwrap().unwrap() else {
        panic!("not a close");
    };
    assert_eq!(u16::from(close.code), 1003);
}

#[tokio::test]
async fn what_was_read_behind_the_request_comes_first() {
    let (ours, theirs) = duplex(1024);
    let mut bytes = vec![0x81, 0x82, 0, 0, 0, 0];
    bytes.extend_from_slice(b"hi");
    let mut link = WebSocketLink::new(ours, opened(&bytes));
    assert_eq!(recv(&mut link).await.unwrap(), ["hi"]);
    drop(theirs);
    assert!(matches!(recv(&mut link).await, Err(LinkEnd::Closed(None))));
}

/// Counts wake-ups.
struct Woken(std::sync::atomic::AtomicUsize);

impl Wake for Woken {
    fn wake(self: std::sync::Arc<Self>) {
        self.0.fetch_add(1, std::sync::atomic::Ordering::SeqCst);
    }
}

#[tokio::test]
async fn a_full_socket_wakes_who_waits_for_it() {
    let (mut link, mut socket) = pair(64);
    let frame = text(&"x".repeat(200));
    assert!(link.send(Lane::Control, &frame).unwrap() < frame.len());
    let woken = std::sync::Arc::new(Woken(0.into()));
    let waker = Waker::from(std::sync::Arc::clone(&woken));
    let mut cx = Context::from_waker(&waker);
    // A duplex takes an empty write at any time, so the rest of the frame asks here.
    assert!(Pin::new(&mut link.socket).poll_write(&mut cx, b"x").is_pending());
    socket.read_exact(&mut [0; 64]).await.unwrap();
    assert_eq!(woken.0.load(std::sync::atomic::Ordering::SeqCst), 1);
}

#[test]
fn the_rest_of_a_cut_frame_is_known() {
    let frames = [text("abc"), text(&"x".repeat(300)), text(&"y".repeat(70_000))].concat();
    let ends = [5, 5 + 304, 5 + 304 + 70_010];
    for sent in 0..=frames.len() {
        let next = ends.iter().find(|end| **end >= sent).copied().unwrap_or_default();
        let expected = if sent == 0 { 0 } else { next - sent };
        assert_eq!(cut_bytes(&frames, 0, sent), expected, "{sent}");
    }
    assert_eq!(cut_bytes(&frames[3..], 2, 1), 1, "still inside the earlier one");
}

#[test]
fn an_idle_link_is_small() {
    assert!(size_of::<WebSocketLink<tokio::net::TcpStream>>() <= 384);
}
