//! Many QUIC connections of one client, for the measurement of an idle one.

use std::{net::SocketAddr, sync::Arc, time::Duration};

use anyhow::{Context, Result, bail, ensure};
use chappe_protocol::{ClientFrame, Command, frame::Incoming};
use quinn::{
    ClientConfig, Connection, Endpoint, RecvStream, SendStream, crypto::rustls::QuicClientConfig,
};
use tokio::{runtime::Runtime, task::JoinSet};

use super::session::WINDOW;
use crate::{floor::quic, wire::ENCODING};

const FRAME_BYTES_MAX: usize = 64 * 1024;

/// What a new connection says, and what it waits for.
#[derive(Debug, Clone)]
pub(crate) enum First {
    /// Anything; one byte back. The floor's.
    Byte,
    /// Commands, numbered from 1, and the reply to each.
    Commands(Vec<Command>),
}

/// Connections to one server, all alive for as long as [`QuicLoad::idle`] runs often enough.
pub(crate) struct QuicLoad {
    runtime: Runtime,
    endpoint: Endpoint,
    server: SocketAddr,
    held: Vec<Held>,
}

/// A connection ends when the last of these is dropped.
type Held = (Connection, SendStream, RecvStream);

impl QuicLoad {
    /// A client that trusts `tls`.
    pub(crate) fn new(server: SocketAddr, tls: &rustls::ClientConfig) -> Result<Self> {
        let mut tls = tls.clone();
        tls.alpn_protocols = vec![quic::ALPN.to_vec()];
        let mut config = ClientConfig::new(Arc::new(QuicClientConfig::try_from(tls)?));
        let mut transport = quic::trimmed();
        transport.keep_alive_interval(Some(quic::KEEP_ALIVE));
        config.transport_config(Arc::new(transport));
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let mut endpoint = {
            let _inside = runtime.enter();
            Endpoint::client(([127, 0, 0, 1], 0).into())?
        };
        endpoint.set_default_client_config(config);
        Ok(Self { runtime, endpoint, server, held: Vec::new() })
    }

    /// Opens a connection for each of `firsts`, a few at a time.
    pub(crate) fn open(&mut self, firsts: Vec<First>) -> Result<()> {
        let Self { runtime, endpoint, server, held } = self;
        runtime.block_on(async {
            let mut opening = JoinSet::new();
            for first in firsts {
                if opening.len() == WINDOW {
                    held.push(opening.join_next().await.context("none is opening")???);
                }
                opening.spawn(open(endpoint.clone(), *server, first));
            }
            while let Some(opened) = opening.join_next().await {
                held.push(opened??);
            }
            Ok(())
        })
    }

    /// Lets the connections live, as an idle client does, and finds those that do not.
    pub(crate) fn idle(&self, time: Duration) -> Result<()> {
        self.runtime.block_on(async { tokio::time::sleep(time).await });
        match self.held.iter().find_map(|(connection, ..)| connection.close_reason()) {
            Some(reason) => bail!("an idle connection ended: {reason}"),
            None => Ok(()),
        }
    }
}

async fn open(endpoint: Endpoint, server: SocketAddr, first: First) -> Result<Held> {
    let connection = endpoint.connect(server, "localhost")?.await.context("QUIC connect")?;
    let (mut send, mut recv) = connection.open_bi().await?;
    match first {
        First::Byte => {
            send.write_all(&[1; 64]).await?;
            recv.read_exact(&mut [0]).await?;
        }
        First::Commands(commands) => {
            for (id, command) in (1..).zip(commands) {
                let frame = ClientFrame { id, nonce: None, age_ms: 0, command };
                ask(&mut send, &mut recv, frame).await?;
            }
        }
    }
    Ok((connection, send, recv))
}

async fn ask(send: &mut SendStream, recv: &mut RecvStream, frame: ClientFrame) -> Result<()> {
    let mut payload = Vec::new();
    ENCODING.encode(&frame, &mut payload);
    let length = u32::try_from(payload.len())?;
    send.write_all(&[&length.to_le_bytes(), &*payload].concat()).await?;
    loop {
        let mut length = [0; 4];
        recv.read_exact(&mut length).await?;
        let length = u32::from_le_bytes(length) as usize;
        ensure!(length <= FRAME_BYTES_MAX, "a frame of {length} B");
        let mut payload = vec![0; length];
        recv.read_exact(&mut payload).await?;
        match ENCODING.decode_server(&payload)? {
            Incoming::Ok { id } if id == frame.id => return Ok(()),
            Incoming::Error { error, .. } => bail!("{} {}", error.code, error.name),
            _ => {}
        }
    }
}
