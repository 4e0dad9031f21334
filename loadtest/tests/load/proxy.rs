//! A proxy between generator and server that spoils one delivery.

use std::sync::{
    Arc,
    atomic::{AtomicU32, Ordering},
};

use bytes::Bytes;
use chappe_protocol::{ChannelId, Encoding, EventBody, frame::Incoming};
use futures_util::{SinkExt, StreamExt};
use tokio::net::{TcpListener, TcpStream};
use tokio_tungstenite::{
    accept_hdr_async, client_async,
    tungstenite::{
        Message,
        client::IntoClientRequest,
        handshake::server::{Request, Response},
    },
};

/// What is done to one delivery.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Spoil {
    Drop,
    Repeat,
    /// With the next one of its channel.
    Swap,
}

/// Starts a proxy that spoils the delivery of this number, counted over all connections.
/// Gives its URL.
pub(crate) async fn start(server: String, spoil: Spoil, number: u32) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("ws://{}", listener.local_addr().unwrap());
    let count = Arc::new(AtomicU32::new(0));
    tokio::spawn(async move {
        loop {
            let (stream, _) = listener.accept().await.unwrap();
            let spoiler = Spoiler { spoil, number, count: Arc::clone(&count), kept: None };
            tokio::spawn(carry(stream, server.clone(), spoiler));
        }
    });
    url
}

async fn carry(stream: TcpStream, server: String, mut spoiler: Spoiler) {
    stream.set_nodelay(true).unwrap();
    let mut protocol = None;
    // The signature is the library's.
    #[allow(clippy::result_large_err)]
    let copy = |request: &Request, mut response: Response| {
        let asked = request.headers().get("sec-websocket-protocol").cloned().unwrap();
        response.headers_mut().insert("sec-websocket-protocol", asked.clone());
        protocol = Some(asked);
        Ok(response)
    };
    let Ok(mut client) = accept_hdr_async(stream, copy).await else { return };
    let address = server.strip_prefix("ws://").unwrap();
    let mut request = format!("{server}/v1/ws").into_client_request().unwrap();
    request.headers_mut().insert("sec-websocket-protocol", protocol.unwrap());
    let upstream = TcpStream::connect(address).await.unwrap();
    upstream.set_nodelay(true).unwrap();
    let (mut server, _) = client_async(request, upstream).await.unwrap();
    loop {
        let sent = tokio::select! {
            message = client.next() => match message {
                Some(Ok(message)) => server.send(message).await,
                _ => return,
            },
            message = server.next() => match message {
                Some(Ok(Message::Binary(bytes))) => {
                    let mut sent = Ok(());
                    for frame in spoiler.pass(&bytes) {
                        sent = client.send(Message::Binary(frame)).await;
                    }
                    sent
                }
                Some(Ok(message)) => client.send(message).await,
                _ => return,
            },
        };
        if sent.is_err() {
            return;
        }
    }
}

struct Spoiler {
    spoil: Spoil,
    number: u32,
    count: Arc<AtomicU32>,
    /// The delivery that waits for the next one of its channel.
    kept: Option<(ChannelId, Bytes)>,
}

impl Spoiler {
    /// The frames to send for one message of the server's.
    fn pass(&mut self, message: &Bytes) -> Vec<Bytes> {
        let mut frames = Vec::new();
        let mut rest = &message[..];
        while !rest.is_empty() {
            let (frame, after) = Encoding::MessagePack.split_frame(rest).unwrap();
            self.pass_frame(message.slice_ref(frame), &mut frames);
            rest = after;
        }
        frames
    }

    fn pass_frame(&mut self, frame: Bytes, out: &mut Vec<Bytes>) {
        let Ok(Incoming::Event(event)) = Encoding::MessagePack.decode_server(&frame) else {
            return out.push(frame);
        };
        if !matches!(event.body, EventBody::MessageCreated(_)) {
            return out.push(frame);
        }
        if let Some((_, kept)) = self.kept.take_if(|(channel, _)| *channel == event.channel) {
            return out.extend([frame, kept]);
        }
        if self.count.fetch_add(1, Ordering::Relaxed) + 1 != self.number {
            return out.push(frame);
        }
        match self.spoil {
            Spoil::Drop => {}
            Spoil::Repeat => out.extend([frame.clone(), frame]),
            Spoil::Swap => self.kept = Some((event.channel, frame)),
        }
    }
}
