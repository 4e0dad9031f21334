//! How a broker is connected to.

use std::{io, net::SocketAddr, sync::Arc, time::Duration};

use rustls::{ClientConfig, pki_types::ServerName};
use tokio::{net::TcpStream, time::timeout};
use tokio_rustls::{TlsConnector, client::TlsStream};

use super::{
    Patience, TlsError, TlsFiles,
    tls::{self, Renewed},
};

/// Opens connections to brokers.
pub(super) struct Dialler {
    tls: Option<Arc<Renewed<ClientConfig>>>,
    pub(super) patience: Patience,
}

/// An open connection, on which nothing was said yet.
pub(super) enum Connection {
    Plain(TcpStream),
    Tls(Box<TlsStream<TcpStream>>),
}

impl Dialler {
    pub(super) fn new(tls: Option<&TlsFiles>, patience: Patience) -> Result<Self, TlsError> {
        let tls = tls.map(|files| Renewed::new(files, TlsFiles::client)).transpose()?;
        Ok(Self { tls, patience })
    }

    /// Connects to a broker that was found under the name `host`, which its certificate must
    /// carry.
    pub(super) async fn connect(&self, address: SocketAddr, host: &str) -> io::Result<Connection> {
        let late = || io::Error::new(io::ErrorKind::TimedOut, "no answer in time");
        let connecting = async {
            let stream = TcpStream::connect(address).await?;
            stream.set_nodelay(true)?;
            Ok::<_, io::Error>(stream)
        };
        let stream = timeout(CONNECT_TIMEOUT, connecting).await.map_err(|_| late())??;
        let Some(tls) = &self.tls else { return Ok(Connection::Plain(stream)) };
        let name = ServerName::try_from(host.to_owned())
            .map_err(|error| io::Error::new(io::ErrorKind::InvalidInput, error))?;
        let shaking = async { TlsConnector::from(tls.current().await).connect(name, stream).await };
        let shaken = timeout(CONNECT_TIMEOUT, shaking).await;
        let stream = shaken.map_err(|_| late())?.map_err(tls::refused)?;
        Ok(Connection::Tls(Box::new(stream)))
    }
}

const CONNECT_TIMEOUT: Duration = Duration::from_secs(3);
