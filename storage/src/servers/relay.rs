//! A relay between a client and a server, which a test can cut, freeze and restore.

use std::net::SocketAddr;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinHandle;

/// Relays connections to a server while it lives.
pub(crate) struct Relay {
    address: SocketAddr,
    mode: watch::Sender<Mode>,
    accepting: JoinHandle<()>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Mode {
    Open,
    /// Connections end, and new ones end at once.
    Cut,
    /// Connections stay, and nothing goes through.
    Frozen,
    /// What the client says reaches the server, and no answer comes back.
    Mute,
}

impl Relay {
    /// A relay to `target` (`host:port`) at an address of its own.
    pub(crate) async fn to(target: &str) -> Self {
        Self::between("127.0.0.1:0", target).await
    }

    /// A relay to `target` that listens at `here`.
    pub(crate) async fn between(here: &str, target: &str) -> Self {
        let listener = TcpListener::bind(here).await.unwrap();
        let address = listener.local_addr().unwrap();
        let (mode, seen) = watch::channel(Mode::Open);
        let accepting = tokio::spawn(accept(listener, target.to_owned(), seen));
        Self { address, mode, accepting }
    }

    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    pub(crate) fn cut(&self) {
        self.mode.send_replace(Mode::Cut);
    }

    pub(crate) fn freeze(&self) {
        self.mode.send_replace(Mode::Frozen);
    }

    pub(crate) fn mute(&self) {
        self.mode.send_replace(Mode::Mute);
    }

    pub(crate) fn restore(&self) {
        self.mode.send_replace(Mode::Open);
    }
}

impl Drop for Relay {
    fn drop(&mut self) {
        self.accepting.abort(); // the connections end with the sender of the mode
    }
}

async fn accept(listener: TcpListener, target: String, mode: watch::Receiver<Mode>) {
    while let Ok((client, _)) = listener.accept().await {
        if *mode.borrow() != Mode::Cut {
            tokio::spawn(relay(client, target.clone(), mode.clone()));
        }
    }
}

async fn relay(client: TcpStream, target: String, mode: watch::Receiver<Mode>) {
    let Ok(server) = TcpStream::connect(target).await else { return };
    let (from_client, to_client) = client.into_split();
    let (from_server, to_server) = server.into_split();
    // Both end with the first.
    tokio::select! {
        () = forward(from_client, to_server, mode.clone(), &[Mode::Open, Mode::Mute]) => {}
        () = forward(from_server, to_client, mode, &[Mode::Open]) => {}
    }
}

/// Forwards one direction in those modes in which it is `open`, until it ends or is cut.
async fn forward(
    mut from: OwnedReadHalf,
    mut to: OwnedWriteHalf,
    mut mode: watch::Receiver<Mode>,
    open: &[Mode],
) {
    let mut buffer = vec![0; 16 * 1024];
    loop {
        let now = *mode.borrow_and_update();
        if now == Mode::Cut {
            return;
        }
        tokio::select! {
            biased;
            changed = mode.changed() => if changed.is_err() { return },
            read = from.read(&mut buffer), if open.contains(&now) => match read {
                Ok(bytes) if bytes > 0 && to.write_all(&buffer[..bytes]).await.is_ok() => {}
                _ => return,
            },
        }
    }
}
