//! The broker's side: every connection is a pipe of the broker in this process.

use std::{io, sync::Arc, time::Duration};

use tokio::{
    io::{AsyncRead, AsyncWrite, split},
    net::{TcpListener, TcpStream},
    sync::Semaphore,
    time::timeout,
};
use tokio_rustls::TlsAcceptor;

use super::{Patience, TlsError, TlsFiles, tls, wire};
use crate::Broker;

/// Serves gateways until dropped.
///
/// Without `tls` whoever can connect speaks for any user: only where nobody else can.
pub async fn listen(
    listener: TcpListener,
    broker: Arc<dyn Broker>,
    tls: Option<&TlsFiles>,
    patience: Patience,
) -> Result<(), TlsError> {
    let tls = tls.map(TlsFiles::server).transpose()?.map(TlsAcceptor::from);
    let places = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    let mut tasks = tokio::task::JoinSet::new();
    loop {
        while tasks.try_join_next().is_some() {}
        let (stream, address) = match listener.accept().await {
            Ok(accepted) => accepted,
            Err(error) => {
                // Of one connection, or of too many open files, which pass.
                tracing::warn!(%error, "an uplink was not accepted");
                tokio::time::sleep(ACCEPT_PAUSE).await;
                continue;
            }
        };
        let Ok(place) = Arc::clone(&places).try_acquire_owned() else {
            tracing::warn!(%address, "an uplink was refused: there are {CONNECTIONS_MAX}");
            continue;
        };
        let (broker, tls) = (Arc::clone(&broker), tls.clone());
        tasks.spawn(async move {
            let _place = place;
            let ended = serve(stream, &*broker, tls, patience).await;
            let why = ended.map_or_else(|error| error.to_string(), |()| "it was closed".to_owned());
            tracing::info!(%address, why, "an uplink ended");
        });
    }
}

async fn serve(
    stream: TcpStream,
    broker: &dyn Broker,
    tls: Option<TlsAcceptor>,
    patience: Patience,
) -> io::Result<()> {
    stream.set_nodelay(true)?;
    let Some(tls) = tls else { return carry(stream, broker, patience).await };
    let late = || io::Error::new(io::ErrorKind::TimedOut, "TLS: no handshake in time");
    let stream = timeout(patience.silence, tls.accept(stream)).await.map_err(|_| late())?;
    carry(stream.map_err(tls::refused)?, broker, patience).await
}

async fn carry<S>(mut stream: S, broker: &dyn Broker, patience: Patience) -> io::Result<()>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    wire::greet(&mut stream, patience).await?;
    let (from_gateway, to_gateway) = split(stream);
    let (requests, responses) = broker.open();
    tokio::select! {
        read = wire::read(from_gateway, requests, patience) => read,
        written = wire::write(responses, to_gateway, patience) => written,
    }
}

/// Every shard of every gateway has one to each broker.
const CONNECTIONS_MAX: usize = 4_096;
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);
