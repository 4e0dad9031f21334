//! An echo server over the gateway's WebSocket link, for conformance suites: what passes there is
//! what clients meet.
//!
//! `echo ADDRESS` listens there and prints the address that it got.

use std::{future::poll_fn, io, net::SocketAddr, task::Poll};

use chappe_gateway::link::{Framing, Lane, Link, LinkEnd};
use chappe_gateway_ws::WsLink;
use tokio::{
    net::{TcpListener, TcpStream},
    task::{LocalSet, spawn_local},
};

/// What a suite may send in one message: Autobahn goes to 16 MiB.
const MESSAGE_BYTES_MAX: usize = 64 << 20;

#[tokio::main(flavor = "current_thread")]
async fn main() -> io::Result<()> {
    let address = std::env::args().nth(1).unwrap_or_else(|| "127.0.0.1:0".to_owned());
    let listener = TcpListener::bind(address).await?;
    println!("{}", listener.local_addr()?);
    LocalSet::new()
        .run_until(async {
            loop {
                let (socket, peer) = listener.accept().await?;
                spawn_local(serve(socket, peer));
            }
        })
        .await
}

async fn serve(socket: TcpStream, peer: SocketAddr) {
    // The suite waits for the answer to its request, so nothing is read behind it.
    let Ok(upgraded) = tokio_tungstenite::accept_async(socket).await else { return };
    let Ok(mut link) = WsLink::for_echo(upgraded.into_inner(), peer, MESSAGE_BYTES_MAX) else {
        return;
    };
    let (mut scratch, mut out) = (Vec::new(), Vec::new());
    loop {
        let received = poll_fn(|cx| {
            let received = link.poll_recv(cx, &mut scratch, &mut |message| {
                let Some((opcode, payload)) = message.split_first() else { return };
                let text = *opcode == 1;
                let framing = if text { Framing::WebSocketText } else { Framing::WebSocketBinary };
                framing.write(payload, &mut out);
            });
            // Nothing more to read, but something to send.
            if received.is_pending() && !out.is_empty() { Poll::Ready(Ok(())) } else { received }
        });
        let received = received.await;
        if send(&mut link, &mut out).await.is_err() || received.is_err() {
            return;
        }
    }
}

async fn send(link: &mut WsLink<TcpStream>, out: &mut Vec<u8>) -> Result<(), LinkEnd> {
    let mut sent = 0;
    while sent < out.len() {
        sent += link.send(Lane::Control, &out[sent..])?;
        if sent < out.len() {
            poll_fn(|cx| link.poll_writable(cx, Lane::Control)).await?;
        }
    }
    out.clear();
    Ok(())
}
