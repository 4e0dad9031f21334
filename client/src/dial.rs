//! Makes links: resolves the host, connects, does TLS and the transport's handshake.

use std::{net::SocketAddr, sync::Arc, time::Duration};

use chappe_protocol::Encoding;
use rustls_pki_types::ServerName;
use tokio::{
    net::{TcpStream, lookup_host},
    sync::OnceCell,
    time::timeout,
};
use tokio_rustls::TlsConnector;

use crate::{
    error::Error,
    link::{Link, QuicLink, WsLink},
    target::{Scheme, Target},
    trust::Trust,
};

/// The longest that connecting and signing in may take.
pub(crate) const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// QUIC's application protocol.
const QUIC_ALPN: &[u8] = b"chappe/1";
/// QUIC's keep-alive: below the idle time of common address translators.
const QUIC_KEEP_ALIVE: Duration = Duration::from_secs(15);

/// Makes connections to one server. Clones share what can be shared: TLS settings, session
/// tickets, and the UDP socket of QUIC.
#[derive(Clone, Debug)]
pub struct Dialer(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    target: Target,
    encoding: Encoding,
    transport: Transport,
}

#[derive(Debug)]
enum Transport {
    Tcp,
    Tls(Arc<rustls::ClientConfig>),
    /// The endpoint is made with the first connection, inside the runtime that serves it.
    Quic(Box<quinn::ClientConfig>, OnceCell<quinn::Endpoint>),
}

impl Dialer {
    /// Prepares connections to `target`. QUIC speaks MessagePack whatever `encoding` says.
    pub fn new(target: Target, encoding: Encoding, trust: &Trust) -> Result<Self, Error> {
        let transport = match target.scheme {
            Scheme::Ws => Transport::Tcp,
            Scheme::Wss => Transport::Tls(Arc::new(trust.client_config(b"http/1.1")?)),
            Scheme::Quic => {
                let tls = trust.client_config(QUIC_ALPN)?;
                Transport::Quic(Box::new(quic_config(tls)?), OnceCell::new())
            }
        };
        Ok(Self(Arc::new(Inner { target, encoding, transport })))
    }

    /// Where it connects to.
    pub fn target(&self) -> &Target {
        &self.0.target
    }

    /// How frames are encoded on its connections.
    pub fn encoding(&self) -> Encoding {
        match self.0.transport {
            Transport::Quic(..) => Encoding::MessagePack,
            Transport::Tcp | Transport::Tls(_) => self.0.encoding,
        }
    }

    /// Moves QUIC to a fresh UDP socket, as when a device changes its network: connections go on.
    /// Does nothing on other transports.
    pub fn rebind(&self) -> std::io::Result<()> {
        let Transport::Quic(_, endpoint) = &self.0.transport else { return Ok(()) };
        let Some(endpoint) = endpoint.get() else { return Ok(()) };
        let any_port = SocketAddr::new(endpoint.local_addr()?.ip(), 0);
        endpoint.rebind(std::net::UdpSocket::bind(any_port)?)
    }

    pub(crate) async fn open(&self) -> Result<Link, Error> {
        match timeout(CONNECT_TIMEOUT, self.open_unhurried()).await {
            Ok(link) => link,
            Err(_) => Err(Error::Unreachable("no connection in time".to_owned())),
        }
    }

    async fn open_unhurried(&self) -> Result<Link, Error> {
        let Inner { target, encoding, transport } = &*self.0;
        match transport {
            Transport::Tcp => {
                let stream = Box::new(connect_tcp(target).await?);
                Ok(Link::Ws(Box::new(WsLink::open(stream, target, *encoding).await?)))
            }
            Transport::Tls(config) => {
                let stream = connect_tcp(target).await?;
                let name = ServerName::try_from(target.host.clone())
                    .map_err(|_| Error::Config("the host is not a valid name".to_owned()))?;
                let connector = TlsConnector::from(Arc::clone(config));
                let stream = connector.connect(name, stream).await.map_err(tls_refused)?;
                Ok(Link::Ws(Box::new(WsLink::open(Box::new(stream), target, *encoding).await?)))
            }
            Transport::Quic(config, endpoint) => {
                let address = resolve(target).await?;
                let endpoint = endpoint
                    .get_or_try_init(async || quic_endpoint(address))
                    .await
                    .map_err(|error| Error::Unreachable(error.to_string()))?
                    .clone();
                let config = (**config).clone();
                let link = QuicLink::open(endpoint, config, address, &target.host).await?;
                Ok(Link::Quic(Box::new(link)))
            }
        }
    }
}

async fn connect_tcp(target: &Target) -> Result<TcpStream, Error> {
    let stream = TcpStream::connect((target.host.as_str(), target.port))
        .await
        .map_err(|error| Error::Unreachable(format!("{}: {error}", target.authority())))?;
    // A command is small and waits for its answer: never hold it back for more.
    stream.set_nodelay(true).map_err(|error| Error::Unreachable(error.to_string()))?;
    Ok(stream)
}

async fn resolve(target: &Target) -> Result<SocketAddr, Error> {
    let unreachable = |why: String| Error::Unreachable(format!("{}: {why}", target.authority()));
    let mut addresses = lookup_host((target.host.as_str(), target.port))
        .await
        .map_err(|error| unreachable(error.to_string()))?;
    addresses.next().ok_or_else(|| unreachable("the name has no address".to_owned()))
}

fn quic_endpoint(server: SocketAddr) -> std::io::Result<quinn::Endpoint> {
    let any: std::net::IpAddr = if server.is_ipv4() {
        std::net::Ipv4Addr::UNSPECIFIED.into()
    } else {
        std::net::Ipv6Addr::UNSPECIFIED.into()
    };
    quinn::Endpoint::client(SocketAddr::new(any, 0))
}

fn quic_config(tls: rustls::ClientConfig) -> Result<quinn::ClientConfig, Error> {
    let crypto = quinn::crypto::rustls::QuicClientConfig::try_from(tls)
        .map_err(|error| Error::Config(error.to_string()))?;
    let mut config = quinn::ClientConfig::new(Arc::new(crypto));
    let mut transport = quinn::TransportConfig::default();
    transport.keep_alive_interval(Some(QUIC_KEEP_ALIVE));
    transport.max_concurrent_bidi_streams(0u8.into()); // a server opens none
    config.transport_config(Arc::new(transport));
    Ok(config)
}

// By value: this is what `map_err` calls.
#[allow(clippy::needless_pass_by_value)]
fn tls_refused(error: std::io::Error) -> Error {
    let certificate = error
        .get_ref()
        .and_then(|inner| inner.downcast_ref::<rustls::Error>())
        .is_some_and(|inner| matches!(inner, rustls::Error::InvalidCertificate(_)));
    if certificate {
        Error::Untrusted(error.to_string())
    } else {
        Error::Unreachable(error.to_string())
    }
}
