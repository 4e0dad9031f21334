//! A line between a client and the server that a test can cut, and that counts what passes.

use std::{
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
};

use tokio::net::UdpSocket;

pub(crate) struct Relay {
    pub(crate) address: SocketAddr,
    line: Arc<Line>,
}

#[derive(Default)]
struct Line {
    deaf: AtomicBool,
    mute: AtomicBool,
    bytes_up: AtomicUsize,
    bytes_down: AtomicUsize,
}

impl Relay {
    pub(crate) async fn to(server: SocketAddr) -> Self {
        let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
        let address = socket.local_addr().unwrap();
        let line = Arc::new(Line::default());
        tokio::spawn(pass(socket, server, Arc::clone(&line)));
        Self { address, line }
    }

    /// The client hears nothing of the server any more.
    pub(crate) fn deafen_client(&self) {
        self.line.deaf.store(true, Ordering::Relaxed);
    }

    /// The server hears nothing of the client any more.
    pub(crate) fn mute_client(&self) {
        self.line.mute.store(true, Ordering::Relaxed);
    }

    /// Bytes from the client and from the server.
    pub(crate) fn bytes(&self) -> (usize, usize) {
        let Line { bytes_up, bytes_down, .. } = &*self.line;
        (bytes_up.load(Ordering::Relaxed), bytes_down.load(Ordering::Relaxed))
    }
}

async fn pass(client_side: UdpSocket, server: SocketAddr, line: Arc<Line>) {
    let server_side = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    server_side.connect(server).await.unwrap();
    let (mut up, mut down) = ([0; 2048], [0; 2048]);
    let mut client = None;
    loop {
        tokio::select! {
            Ok((length, from)) = client_side.recv_from(&mut up) => {
                client = Some(from);
                if !line.mute.load(Ordering::Relaxed) {
                    line.bytes_up.fetch_add(length, Ordering::Relaxed);
                    drop(server_side.send(&up[..length]).await);
                }
            }
            Ok(length) = server_side.recv(&mut down) => {
                line.bytes_down.fetch_add(length, Ordering::Relaxed);
                if let (Some(client), false) = (client, line.deaf.load(Ordering::Relaxed)) {
                    drop(client_side.send_to(&down[..length], client).await);
                }
            }
            else => return,
        }
    }
}
