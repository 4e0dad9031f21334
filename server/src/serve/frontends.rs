//! The sockets and the frontends that serve them.

use std::{io, net::SocketAddr, sync::Arc};

use anyhow::Context;
use chappe_gateway::Gateway;
use chappe_gateway_http as http;
use chappe_gateway_quic as quic;
use tokio::{sync::watch, task::JoinHandle};

use crate::{
    certificate::Certificate,
    config::{Config, cluster::Role},
};

/// The sockets that clients connect to.
pub(super) struct Sockets {
    pub(super) tcp: std::net::TcpListener,
    pub(super) quic: std::net::UdpSocket,
}

impl Sockets {
    /// Opens them. With port 0, QUIC takes the number that TCP got where it is free: one number
    /// to remember.
    pub(super) fn bind(config: &Config) -> anyhow::Result<Self> {
        let cannot_listen = |address: SocketAddr| format!("cannot listen on {address}");
        let wanted = config.listen.tcp;
        let tcp = http::bind(wanted).with_context(|| cannot_listen(wanted))?;
        let wanted = match config.listen.quic {
            Some(quic) => quic,
            None => tcp.local_addr()?,
        };
        let quic = match quic::bind(wanted) {
            Err(_) if config.listen.tcp.port() == 0 => quic::bind(SocketAddr::new(wanted.ip(), 0)),
            bound => bound,
        };
        Ok(Self { tcp, quic: quic.with_context(|| cannot_listen(wanted))? })
    }
}

/// The tasks that take connections.
pub(super) struct Frontends {
    running: Vec<(&'static str, JoinHandle<io::Result<()>>)>,
}

impl Frontends {
    /// Starts them; they run until `stopping`.
    pub(super) fn start(
        sockets: Sockets,
        certificate: &Certificate,
        gateway: &Gateway,
        config: &Config,
        reset_key: [u8; 32],
        stopping: watch::Receiver<bool>,
    ) -> anyhow::Result<Self> {
        let mut settings = http::Config::default();
        for network in &config.http.trusted_proxies {
            settings.trusted_proxies.push(network.parse().context("http.trusted_proxies")?);
        }
        // The certificate itself is looked up at each handshake, so these never change.
        let tls = (!certificate.made_for_localhost())
            .then(|| watch::channel(certificate.server_config(&[b"http/1.1"])).1);
        let quic_tls = watch::channel(certificate.server_config(&[quic::ALPN])).1;
        if !config.runs(Role::GatewayHttp) {
            settings.rest = http::Rest::Absent;
        }
        let mut running = Vec::new();
        if config.runs(Role::GatewayWs) || config.runs(Role::GatewayHttp) {
            let upgrade = config.runs(Role::GatewayWs).then(|| websocket(gateway.clone()));
            let stopped = stopped(stopping.clone());
            let http = http::serve(sockets.tcp, tls, gateway.clone(), upgrade, settings, stopped);
            running.push(("http", tokio::spawn(http)));
        }
        if config.runs(Role::GatewayQuic) {
            let settings = quic::Config { reset_key: Some(reset_key), ..quic::Config::default() };
            let stopped = stopped(stopping);
            let quic = quic::serve(sockets.quic, quic_tls, gateway.clone(), settings, stopped);
            running.push(("quic", tokio::spawn(quic)));
        }
        Ok(Self { running })
    }

    /// Waits until all have ended.
    pub(super) async fn ended(&mut self) {
        for (name, frontend) in self.running.drain(..) {
            match frontend.await {
                Ok(Ok(())) => {}
                Ok(Err(error)) => tracing::error!(%error, "the {name} frontend failed"),
                Err(error) => tracing::error!(%error, "the {name} frontend panicked"),
            }
        }
    }
}

async fn stopped(mut stopping: watch::Receiver<bool>) {
    // A dropped sender stops as well.
    drop(stopping.wait_for(|stop| *stop).await);
}

/// What stands behind `/v1/ws`: the WebSocket frontend, which HTTP does not know.
fn websocket(gateway: Gateway) -> http::Upgrade {
    use http::upgrade::{Accepted, Socket};
    Arc::new(move |parts, peer| {
        let upgrade =
            chappe_gateway_ws::upgrade(&gateway, parts, peer).map_err(|refusal| *refusal)?;
        let gateway = gateway.clone();
        let headers = upgrade.headers.clone();
        let take = Box::new(move |switched: http::upgrade::Switched| {
            let read_ahead = switched.read_ahead;
            let handed = match switched.socket {
                Socket::Plain(socket) => upgrade.hand_over(&gateway, socket, read_ahead, "ws"),
                Socket::Tls(socket) => upgrade.hand_over(&gateway, *socket, read_ahead, "wss"),
            };
            if let Err(refused) = handed {
                tracing::debug!(%refused, "a WebSocket was closed right after its handshake");
            }
        });
        Ok(Accepted { headers, take })
    })
}
