//! An echo server over the gateway's WebSocket link, for conformance suites.
//!
//! `echo ADDRESS` listens there and prints the address that it got.

use std::net::SocketAddr;

use tokio::{net::TcpListener, task::LocalSet};

#[tokio::main(flavor = "current_thread")]
async fn main() -> std::io::Result<()> {
    let address = std::env::args().nth(1).unwrap_or_else(|| "127.0.0.1:0".to_owned());
    let listener = TcpListener::bind(address).await?;
    println!("{}", listener.local_addr()?);
    LocalSet::new()
        .run_until(async {
            loop {
                let (socket, peer) = listener.accept().await?;
                tokio::task::spawn_local(serve(socket, peer));
            }
        })
        .await
}

async fn serve(socket: tokio::net::TcpStream, peer: SocketAddr) {
    // The suite waits for the answer to its request, so nothing is read behind it.
    let Ok(upgraded) = tokio_tungstenite::accept_async(socket).await else { return };
    chappe_gateway_ws::conformance::echo(upgraded.into_inner(), peer).await;
}
