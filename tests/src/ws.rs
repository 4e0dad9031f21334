//! A WebSocket, as a browser would open it.

use futures_util::{SinkExt, StreamExt};
use tokio::net::TcpStream;
use tokio_tungstenite::{
    WebSocketStream, client_async_with_config,
    tungstenite::{
        ClientRequestBuilder, Error, Message,
        protocol::{CloseFrame, WebSocketConfig, frame::coding::CloseCode},
    },
};

use crate::{Encoding, client::Received, server::Run};

pub(crate) struct Socket {
    stream: WebSocketStream<TcpStream>,
    encoding: Encoding,
}

impl Socket {
    pub(crate) async fn connect(run: &Run, encoding: Encoding) -> Self {
        let tcp = TcpStream::connect(run.tcp).await.unwrap();
        tcp.set_nodelay(true).unwrap();
        let protocol = match encoding {
            Encoding::Json => "chappe.v1.json",
            Encoding::MessagePack => "chappe.v1.msgpack",
        };
        let uri = format!("ws://{}/v1/ws", run.tcp).parse().unwrap();
        let request = ClientRequestBuilder::new(uri).with_sub_protocol(protocol);
        // The library's own 128 KiB a connection are too much for thousands of them.
        let config = WebSocketConfig::default().read_buffer_size(READ_BUFFER_BYTES);
        let connecting = client_async_with_config(request, tcp, Some(config));
        let (stream, response) = connecting.await.unwrap();
        let chosen = response.headers().get("sec-websocket-protocol").unwrap();
        assert_eq!(chosen, protocol);
        Self { stream, encoding }
    }

    /// Sends a message. That the server has closed the connection shows when it is read.
    pub(crate) async fn send(&mut self, bytes: Vec<u8>) {
        let message = match self.encoding {
            Encoding::MessagePack => Message::binary(bytes),
            Encoding::Json => match String::from_utf8(bytes) {
                Ok(text) => Message::text(text),
                Err(error) => Message::binary(error.into_bytes()),
            },
        };
        let _ = self.stream.send(message).await;
    }

    pub(crate) async fn recv(&mut self) -> Received<Vec<u8>> {
        loop {
            let message = match self.stream.next().await {
                Some(Ok(message)) => message,
                None | Some(Err(Error::ConnectionClosed | Error::Io(_) | Error::Protocol(_))) => {
                    return Received::Closed(None);
                }
                Some(Err(error)) => panic!("the server breaks WebSocket: {error}"),
            };
            match message {
                Message::Text(text) => {
                    assert_eq!(self.encoding, Encoding::Json);
                    return Received::Frame(text.as_bytes().to_vec());
                }
                Message::Binary(bytes) => {
                    assert_eq!(self.encoding, Encoding::MessagePack);
                    return Received::Frame(bytes.to_vec());
                }
                Message::Close(frame) => {
                    // The answer to it goes out, so that the server need not wait.
                    let _ = self.stream.flush().await;
                    return Received::Closed(frame.map(|frame| frame.code.into()));
                }
                Message::Ping(_) | Message::Pong(_) | Message::Frame(_) => {}
            }
        }
    }

    pub(crate) async fn close(&mut self, code: u16) {
        let frame = CloseFrame { code: CloseCode::from(code), reason: "".into() };
        let _ = self.stream.close(Some(frame)).await;
    }
}

const READ_BUFFER_BYTES: usize = 8 * 1024;
