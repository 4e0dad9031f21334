//! An echo over the link, for conformance suites: what passes there is what clients meet.

use std::{future::poll_fn, net::SocketAddr, task::Poll};

use bytes::Bytes;
use chappe_gateway::link::{Framing, Lane, Link, LinkEnd};
use chappe_protocol::Encoding;
use tokio::io::{AsyncRead, AsyncWrite};

use crate::{
    link::{Inbound, Opened, WebSocketLink},
    message::MessageType,
};

/// What a suite may send in one message: Autobahn goes to 16 MiB.
const MESSAGE_BYTES_MAX: usize = 64 << 20;

/// Sends every message back in kind until the client goes.
pub async fn echo<S: AsyncRead + AsyncWrite + Unpin>(socket: S, peer: SocketAddr) -> LinkEnd {
    let opened = Opened {
        transport: "ws",
        peer,
        encoding: Encoding::Json,
        token: None,
        read_ahead: Bytes::new(),
    };
    let mut link =
        WebSocketLink::with_messages(socket, opened, MessageType::Any, Framing::WebSocketText);
    link.allow(MESSAGE_BYTES_MAX);
    let (mut scratch, mut out) = (Vec::new(), Vec::new());
    loop {
        let received = poll_fn(|cx| {
            let received = link.poll_messages(cx, &mut scratch, &mut |arrived| {
                if let Inbound::Message { is_text, payload } = arrived {
                    let framing =
                        if is_text { Framing::WebSocketText } else { Framing::WebSocketBinary };
                    framing.write(payload, &mut out);
                }
            });
            // Nothing more to read, but something to send.
            if received.is_pending() && !out.is_empty() { Poll::Ready(Ok(())) } else { received }
        });
        let end = received.await.err();
        if let Some(end) = send(&mut link, &mut out).await.or(end) {
            return end;
        }
    }
}

async fn send<S: AsyncRead + AsyncWrite + Unpin>(
    link: &mut WebSocketLink<S>,
    out: &mut Vec<u8>,
) -> Option<LinkEnd> {
    let mut sent = 0;
    while sent < out.len() {
        match link.send(Lane::Control, &out[sent..]) {
            Ok(more) => sent += more,
            Err(end) => return Some(end),
        }
        if sent < out.len()
            && let Err(end) = poll_fn(|cx| link.poll_writable(cx, Lane::Control)).await
        {
            return Some(end);
        }
    }
    out.clear();
    None
}
