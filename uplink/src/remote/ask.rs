//! Asks every broker how it stands: what people see of a cluster.

use std::{collections::BTreeMap, io, net::SocketAddr, time::Duration};

use futures_util::future::join_all;
use tokio::{
    io::{AsyncRead, AsyncWrite},
    time::timeout,
};

use super::{
    Patience, TlsError, TlsFiles,
    dial::{Connection, Dialler},
    name::host_of,
    wire::{self, Word},
};
use crate::status::BrokerStatus;

/// What became of asking one broker.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Asked {
    /// Where it was asked; the name as it was given, if that was not found.
    pub address: String,
    /// How it stands, or why it did not say so.
    pub answer: Result<BrokerStatus, String>,
}

/// Asks all of `brokers`, each `host:port`, at once; a host with several addresses is several
/// brokers. The answers come in the order of their addresses; each is there, or given up, within
/// some seconds.
pub async fn ask(
    brokers: &[String],
    tls: Option<&TlsFiles>,
    patience: Patience,
) -> Result<Vec<Asked>, TlsError> {
    let dialler = Dialler::new(tls, patience)?;
    let found = join_all(brokers.iter().map(|broker| look_up(broker))).await;
    let mut wanted = BTreeMap::new();
    let mut lost = Vec::new();
    for (broker, found) in brokers.iter().zip(found) {
        match found {
            Ok(addresses) => {
                wanted.extend(addresses.into_iter().map(|address| (address, host_of(broker))));
            }
            Err(error) => {
                let answer = Err(format!("the name is not found: {error}"));
                lost.push(Asked { address: broker.clone(), answer });
            }
        }
    }
    let asking = wanted.iter().take(BROKERS_MAX).map(async |(address, host)| {
        let answer = ask_one(&dialler, *address, host).await.map_err(|error| error.to_string());
        Asked { address: address.to_string(), answer }
    });
    let mut asked = join_all(asking).await;
    asked.extend(lost);
    Ok(asked)
}

async fn look_up(broker: &str) -> io::Result<Vec<SocketAddr>> {
    let late = |_| io::Error::new(io::ErrorKind::TimedOut, "no answer in time");
    let found = timeout(LOOK_UP_TIMEOUT, tokio::net::lookup_host(broker)).await.map_err(late)??;
    Ok(found.collect())
}

async fn ask_one(dialler: &Dialler, address: SocketAddr, host: &str) -> io::Result<BrokerStatus> {
    match dialler.connect(address, host).await? {
        Connection::Plain(stream) => hear_status(stream, dialler.patience).await,
        Connection::Tls(stream) => hear_status(stream, dialler.patience).await,
    }
}

async fn hear_status<S>(mut stream: S, patience: Patience) -> io::Result<BrokerStatus>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    wire::greet(&mut stream, patience).await?;
    wire::say(&mut stream, &Word::Status, patience).await?;
    wire::hear(&mut stream, wire::STATUS_BYTES_MAX, patience).await
}

const LOOK_UP_TIMEOUT: Duration = Duration::from_secs(3);
/// Connections that are opened at once.
const BROKERS_MAX: usize = 1_024;
