//! Between one broker and Kafka: forwards, and can be cut.

use std::net::SocketAddr;

use tokio::{
    io::copy_bidirectional,
    net::{TcpListener, TcpStream},
    sync::watch,
};

use crate::services;

/// A listener for each node of Kafka that advertises the relay's own address.
pub struct Relay {
    addresses: Vec<SocketAddr>,
    cut: watch::Sender<bool>,
}

impl Relay {
    /// Takes the relays' ports of `CHAPPE_TEST_KAFKA_RELAYS`: one at a time on a machine.
    pub async fn start() -> Self {
        let (cut, _) = watch::channel(false);
        let mut addresses = Vec::new();
        for pair in services::given("KAFKA_RELAYS").split(',') {
            let (here, there) = pair.split_once('=').unwrap();
            let (here, there): (SocketAddr, SocketAddr) =
                (here.parse().unwrap(), there.parse().unwrap());
            let listener = TcpListener::bind(here).await.unwrap();
            addresses.push(here);
            tokio::spawn(forward(listener, there, cut.subscribe()));
        }
        Self { addresses, cut }
    }

    /// What a client of Kafka behind it is configured with.
    pub fn addresses(&self) -> String {
        self.addresses.iter().map(ToString::to_string).collect::<Vec<_>>().join(",")
    }

    /// Ends all connections, and lets none through; or lets them through again.
    pub fn set_cut(&self, cut: bool) {
        self.cut.send_replace(cut);
    }
}

async fn forward(listener: TcpListener, there: SocketAddr, cut: watch::Receiver<bool>) {
    loop {
        let Ok((mut client, _)) = listener.accept().await else { continue };
        let mut cut = cut.clone();
        if *cut.borrow() {
            continue; // accepted and closed: as near to a network without a way as a process gets
        }
        tokio::spawn(async move {
            let Ok(mut server) = TcpStream::connect(there).await else { return };
            tokio::select! {
                _ = copy_bidirectional(&mut client, &mut server) => {}
                _ = cut.wait_for(|cut| *cut) => {}
            }
        });
    }
}
