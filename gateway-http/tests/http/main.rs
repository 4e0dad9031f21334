//! The HTTP frontend over real sockets, with a kernel that answers by the book.
#![allow(clippy::unwrap_used)] // a test's helpers may panic as its tests may

mod bad_input;
mod client;
mod events;
#[allow(dead_code)] // the QUIC frontend's tests use it as well
mod kernel;
mod rest;
mod upgrade;

use std::{net::SocketAddr, time::Duration};

use chappe_gateway_http::{Config, TlsConfig, Upgrade, bind, serve};
use tokio::{sync::oneshot, task::JoinHandle};

use self::{
    client::{Client, Response},
    kernel::FakeKernel,
};

/// A frontend that serves until it is dropped or stopped.
struct Server {
    address: SocketAddr,
    stop: oneshot::Sender<()>,
    serving: JoinHandle<std::io::Result<()>>,
}

impl Server {
    fn start(kernel: &FakeKernel) -> Self {
        Self::with(kernel, quick(), None, None)
    }

    fn with(
        kernel: &FakeKernel,
        config: Config,
        tls: Option<TlsConfig>,
        upgrade: Option<Upgrade>,
    ) -> Self {
        drop(rustls::crypto::aws_lc_rs::default_provider().install_default());
        let listener = bind(([127, 0, 0, 1], 0).into()).unwrap();
        let address = listener.local_addr().unwrap();
        let (stop, stopped) = oneshot::channel();
        let serving = tokio::spawn(serve(listener, tls, kernel.clone(), upgrade, config, async {
            drop(stopped.await);
        }));
        Self { address, stop, serving }
    }

    async fn client(&self) -> Client {
        Client::connect(self.address).await
    }

    /// One request on a connection of its own.
    async fn request(&self, request: &str) -> Response {
        self.client().await.request(request).await
    }

    async fn stop(self) {
        drop(self.stop);
        self.serving.await.unwrap().unwrap();
    }
}

/// Time limits that a test can wait for.
fn quick() -> Config {
    Config {
        head_timeout: Duration::from_millis(400),
        body_timeout: Duration::from_millis(400),
        tls_timeout: Duration::from_millis(400),
        stop_timeout: Duration::from_millis(400),
        ..Config::default()
    }
}

/// A request with the usual headers.
fn request(method: &str, path: &str, body: Option<&str>) -> String {
    let mut request =
        format!("{method} {path} HTTP/1.1\r\nhost: localhost\r\nauthorization: Bearer good\r\n");
    if let Some(body) = body {
        request += &format!("content-type: application/json\r\ncontent-length: {}\r\n", body.len());
    }
    request += "\r\n";
    request + body.unwrap_or("")
}
