//! Relays between one client and the nodes, which a test cuts: that client is then alone, and
//! nobody else notices. The nodes tell this client no other way.

use std::time::{Duration, Instant};

use tokio::io::copy_bidirectional;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Mutex, MutexGuard, watch};

use super::var;
use crate::log::kafka::Connection;

/// The relays of all nodes. One test at a time has them.
pub(crate) struct Relays {
    addresses: String,
    is_open: watch::Sender<bool>,
    _turn: MutexGuard<'static, ()>,
}

impl Relays {
    pub(crate) async fn new() -> Self {
        static TURN: Mutex<()> = Mutex::const_new(());
        let turn = TURN.lock().await;
        let is_open = watch::Sender::new(true);
        let mut addresses = Vec::new();
        for pair in var("CHAPPE_TEST_KAFKA_RELAYS").split(',') {
            let (relay, target) = pair.split_once('=').unwrap();
            let listener = listen(relay).await;
            tokio::spawn(relays(listener, target.to_owned(), is_open.subscribe()));
            addresses.push(relay.to_owned());
        }
        Self { addresses: addresses.join(","), is_open, _turn: turn }
    }

    /// The way through the relays.
    pub(crate) fn connection(&self) -> Connection {
        Connection::to(&self.addresses)
    }

    /// Breaks what is connected, and lets nobody through.
    pub(crate) fn cut(&self) {
        self.is_open.send_replace(false);
    }

    pub(crate) fn mend(&self) {
        self.is_open.send_replace(true);
    }
}

/// Another test process may have the relays.
async fn listen(address: &str) -> TcpListener {
    let begin = Instant::now();
    loop {
        match TcpListener::bind(address).await {
            Ok(listener) => return listener,
            Err(error) => assert!(begin.elapsed() < Duration::from_secs(60), "{address}: {error}"),
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

/// Ends with its [`Relays`].
async fn relays(listener: TcpListener, target: String, mut is_open: watch::Receiver<bool>) {
    loop {
        let mut client = tokio::select! {
            accepted = listener.accept() => match accepted {
                Ok((client, _)) => client,
                Err(_) => continue,
            },
            changed = is_open.changed() => match changed {
                Ok(()) => continue,
                Err(_) => return,
            },
        };
        if !*is_open.borrow() {
            continue;
        }
        let (target, mut is_open) = (target.clone(), is_open.clone());
        tokio::spawn(async move {
            let Ok(mut node) = TcpStream::connect(&target).await else { return };
            tokio::select! {
                _ = copy_bidirectional(&mut client, &mut node) => {}
                _ = is_open.wait_for(|is_open| !is_open) => {}
            }
        });
    }
}
