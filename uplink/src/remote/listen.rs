//! The broker's side: every connection of a gateway is a pipe of the broker in this process. Who
//! asks how the broker stands is told.

use std::{io, net::SocketAddr, sync::Arc, time::Duration};

use rustls::ServerConfig;
use tokio::{
    io::{AsyncRead, AsyncWrite, split},
    net::{TcpListener, TcpStream},
    sync::Semaphore,
    time::timeout,
};
use tokio_rustls::TlsAcceptor;

use super::{
    Patience, TlsError, TlsFiles,
    register::Register,
    tls::{self, Renewed},
    wire::{self, Word},
};
use crate::{Overview, status::BrokerStatus};

/// Serves gateways until the future is dropped; it never ends by itself.
///
/// Without `tls` whoever can connect speaks for any user: only where nobody else can. Fails if its
/// files cannot be used.
pub fn listen<B: Overview>(
    listener: TcpListener,
    broker: Arc<B>,
    tls: Option<&TlsFiles>,
    patience: Patience,
) -> Result<impl Future<Output = ()> + use<B>, TlsError> {
    let tls = tls.map(|files| Renewed::new(files, TlsFiles::server)).transpose()?;
    Ok(serve(listener, broker, tls, patience))
}

async fn serve<B: Overview>(
    listener: TcpListener,
    broker: Arc<B>,
    tls: Option<Arc<Renewed<ServerConfig>>>,
    patience: Patience,
) {
    let places = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    let register = Arc::new(Register::default());
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
        let carrier = Carrier { broker, register: Arc::clone(&register), address, patience };
        tasks.spawn(async move {
            let _place = place;
            let ended = carrier.serve(stream, tls).await;
            let why = ended.map_or_else(|error| error.to_string(), |()| "it was closed".to_owned());
            tracing::info!(%address, why, "an uplink ended");
        });
    }
}

/// What one connection needs.
struct Carrier<B> {
    broker: Arc<B>,
    register: Arc<Register>,
    address: SocketAddr,
    patience: Patience,
}

impl<B: Overview> Carrier<B> {
    async fn serve(
        self,
        stream: TcpStream,
        tls: Option<Arc<Renewed<ServerConfig>>>,
    ) -> io::Result<()> {
        stream.set_nodelay(true)?;
        let Some(tls) = tls else { return self.carry(stream).await };
        let late = || io::Error::new(io::ErrorKind::TimedOut, "TLS: no handshake in time");
        let shaking = async { TlsAcceptor::from(tls.current().await).accept(stream).await };
        let shaken = timeout(self.patience.silence, shaking).await;
        let stream = shaken.map_err(|_| late())?.map_err(tls::refused)?;
        self.carry(stream).await
    }

    async fn carry<S: AsyncRead + AsyncWrite + Unpin>(self, mut stream: S) -> io::Result<()> {
        let Self { broker, register, address, patience } = self;
        wire::greet(&mut stream, patience).await?;
        let about = match wire::hear(&mut stream, wire::WORD_BYTES_MAX, patience).await? {
            Word::Gateway(about) if about.is_sound() => about,
            Word::Gateway(_) => return Err(wire::broken(UNSOUND)),
            Word::Status => {
                let late = |_| io::Error::new(io::ErrorKind::TimedOut, "a thread does not answer");
                let status = timeout(patience.silence, broker.status()).await.map_err(late)?;
                let status = BrokerStatus { gateways: register.gateways(), ..status };
                return wire::say(&mut stream, &status, patience).await;
            }
        };
        let entry = register.enter(address, about);
        let told = |word| match word {
            Word::Gateway(about) if about.is_sound() => {
                entry.update(about);
                Ok(())
            }
            _ => Err(wire::broken(UNSOUND)),
        };
        let (from_gateway, to_gateway) = split(stream);
        let (requests, responses) = broker.open();
        tokio::select! {
            read = wire::read(from_gateway, requests, patience, told) => read,
            written = wire::write(responses, to_gateway, patience, || None) => written,
        }
    }
}

const UNSOUND: &str = "a gateway described itself beyond what is taken";
/// Every shard of every gateway has one to each broker.
const CONNECTIONS_MAX: usize = 4_096;
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);
