//! The QUIC frontend over real sockets, with quinn as its client and a kernel that answers by the
//! book.
#![allow(clippy::unwrap_used)] // a test's helpers may panic as its tests may

mod bad_input;
mod client;
#[allow(dead_code)] // the HTTP frontend's tests use it as well
#[path = "../../../gateway-http/tests/http/kernel.rs"]
mod kernel;
mod lanes;
mod life;
mod relay;

use std::{net::SocketAddr, sync::Arc, time::Duration};

use chappe_gateway_quic::{Config, bind, serve};
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio::{
    sync::{mpsc, oneshot, watch},
    task::JoinHandle,
};

use self::{
    client::Client,
    kernel::{FakeKernel, Session},
};

/// A frontend that serves until it is dropped or stopped.
struct Server {
    address: SocketAddr,
    certificate: CertificateDer<'static>,
    swap: watch::Sender<Arc<rustls::ServerConfig>>,
    kernel: FakeKernel,
    sessions: mpsc::Receiver<Session>,
    stop: oneshot::Sender<()>,
    serving: JoinHandle<std::io::Result<()>>,
}

impl Server {
    fn start() -> Self {
        Self::with(Config::default())
    }

    fn with(config: Config) -> Self {
        let (kernel, sessions) = FakeKernel::start();
        let (tls, certificate) = certificate();
        let socket = bind(([127, 0, 0, 1], 0).into()).unwrap();
        let address = socket.local_addr().unwrap();
        let (swap, tls) = watch::channel(tls);
        let (stop, stopped) = oneshot::channel();
        let serving = tokio::spawn(serve(socket, tls, kernel.clone(), config, async {
            drop(stopped.await);
        }));
        Self { address, certificate, swap, kernel, sessions, stop, serving }
    }

    /// A client that has not said anything yet.
    async fn client(&self) -> Client {
        Client::connect(self.address, &self.certificate).await.unwrap()
    }

    /// A client that is signed in, and its session.
    async fn signed_in(&mut self) -> (Client, Session) {
        let mut client = self.client().await;
        client.hello().await;
        let mut session = self.sessions.recv().await.unwrap();
        session.next().await;
        (client, session)
    }
}

/// A configuration with a fresh certificate for localhost, and the certificate.
fn certificate() -> (Arc<rustls::ServerConfig>, CertificateDer<'static>) {
    drop(rustls::crypto::aws_lc_rs::default_provider().install_default());
    let made = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
    let key = PrivateKeyDer::try_from(made.signing_key.serialize_der()).unwrap();
    let certificate = made.cert.der().clone();
    let config = rustls::ServerConfig::builder()
        .with_no_client_auth()
        .with_single_cert(vec![certificate.clone()], key)
        .unwrap();
    (Arc::new(config), certificate)
}

/// Waits for what has to come, and fails where it does not.
async fn soon<T>(what: impl Future<Output = T>) -> T {
    tokio::time::timeout(Duration::from_secs(20), what).await.expect("it comes in time")
}
