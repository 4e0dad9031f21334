//! How the brokers stand, whoever asks: the admin listener of a process, or `chappe cluster`.

pub(crate) mod report;
mod table;

use std::{io, net::SocketAddr};

use chappe_broker::LocalBroker;
use chappe_uplink::{
    About, GatewayStatus, Overview,
    remote::{Asked, Patience, TlsError, TlsFiles, ask},
};
use tokio::sync::watch;

use self::report::Report;
use crate::config::{Config, cluster::Role};

/// Where a process looks.
#[derive(Clone)]
pub(crate) enum View {
    /// At its own broker, which no other process has to do with.
    Alone(LocalBroker, watch::Receiver<About>),
    /// At all brokers of its cluster.
    Of(Vec<String>, Option<TlsFiles>),
}

impl View {
    /// Looks now.
    pub(crate) async fn report(&self) -> Result<Report, TlsError> {
        let asked = match self {
            Self::Of(brokers, tls) => ask(brokers, tls.as_ref(), Patience::default()).await?,
            Self::Alone(broker, about) => {
                let mut status = broker.status().await;
                let about = about.borrow().clone();
                let address = status.name.clone();
                status.gateways = vec![GatewayStatus { about, address: String::new(), pipes: 0 }];
                vec![Asked { address, answer: Ok(status) }]
            }
        };
        Ok(Report::new(asked))
    }
}

/// What this process says of itself on its uplinks: its name is that of its machine, or pod, and
/// the port at which it is found.
pub(crate) fn about(config: &Config, at: Option<SocketAddr>) -> io::Result<About> {
    let system = rustix::system::uname();
    let host = system.nodename().to_string_lossy();
    let fits = |c: &char| !c.is_control();
    let mut name: String = host.chars().filter(fits).take(HOST_CHARS_MAX).collect();
    if let Some(at) = at {
        name = format!("{name}:{}", at.port());
    }
    let process = getrandom::u64().map_err(|error| io::Error::other(error.to_string()))?;
    let roles = Role::ALL.iter().filter(|role| config.runs(**role));
    let roles = roles.map(|role| role.name().to_owned()).collect();
    Ok(About { process, name, roles, connections: 0 })
}

/// Of a machine's name; a label of DNS has at most 63, of one byte each.
const HOST_CHARS_MAX: usize = 63;
