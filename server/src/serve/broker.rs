//! The broker of this process, and how it is reached: directly, over its own uplink, or over the
//! uplinks of others.

use std::{sync::Arc, time::Duration};

use anyhow::Context;
use chappe_broker::{
    Leadership, LocalBroker, Running, WhenEmpty,
    adoption::{self, Adoption},
};
use chappe_storage::{log::Log, store::Store};
use chappe_uplink::{
    About, Broker,
    remote::{Patience, Remote, listen},
    strain::{Strain, Strained},
};
use tokio::{net::TcpListener, sync::watch};

use super::backends;
use crate::{config::Config, data_dir::DataDir};

/// Starts the broker of this process.
pub(super) async fn start(
    config: &Config,
    data: &DataDir,
    about: &watch::Receiver<About>,
) -> anyhow::Result<(LocalBroker, Running)> {
    let (mut parts, leadership) = backends::open(config, data).await?;
    if !config.uplink.brokers.is_empty() {
        parts.inboxes = Some(remote(config, about)?);
    }
    let address = about.borrow().name.clone();
    Ok(chappe_broker::start(settings(config, leadership, address), parts).await?)
}

/// Starts a broker that nobody can reach, for a tool that leads everything.
pub(crate) async fn start_alone(
    config: &Config,
    data: &DataDir,
) -> anyhow::Result<(Running, Arc<dyn Store>)> {
    let (mut parts, leadership) = backends::open(config, data).await?;
    parts.when_empty = WhenEmpty::Refuse;
    let store = Arc::clone(&parts.store);
    let settings = settings(config, leadership, "export".to_owned());
    let (_, running) = chappe_broker::start(settings, parts).await?;
    Ok((running, store))
}

/// Starts a broker that nobody can reach and that leads everything, for an adoption.
pub(crate) async fn start_adopting(
    config: &Config,
    log: Arc<dyn Log>,
    store: &Arc<dyn Store>,
    adoption: &Adoption,
) -> anyhow::Result<(LocalBroker, Running)> {
    let (parts, leadership) = backends::parts(config, log, Arc::clone(store))?;
    let settings = settings(config, leadership, "log adopt".to_owned());
    Ok(adoption::start(settings, parts, adoption).await?)
}

fn settings(config: &Config, leadership: Leadership, address: String) -> chappe_broker::Config {
    // Often enough that an idle partition delays no trimming by much, and rarely enough to cost
    // nothing.
    let refresh = (config.log.keep / 8).clamp(Duration::from_secs(1), Duration::from_secs(3_600));
    let refresh_ms = refresh.as_millis() as u64;
    let bounds = chappe_broker::Bounds {
        trim_ms: refresh_ms.min(10_000),
        refresh_ms,
        events_keep_ms: config.store.keep_events.as_millis() as u64,
        heads_ms: config.broker.beacon.as_millis() as u64,
        ..chappe_broker::Bounds::default()
    };
    chappe_broker::Config {
        bounds,
        leadership,
        threads: config.broker.threads,
        address,
        unprojected_bytes_max: config.broker.unprojected_bytes_max.as_u64() as usize,
        unprojected_age_ms_max: config.broker.unprojected_age_max.as_millis() as u64,
        ..chappe_broker::Config::default()
    }
}

/// The brokers of other processes, as one.
pub(super) fn remote(
    config: &Config,
    about: &watch::Receiver<About>,
) -> anyhow::Result<Arc<dyn Broker>> {
    let brokers = config.uplink.brokers.clone();
    let tls = config.uplink.tls.files();
    let remote = Remote::new(brokers, tls.as_ref(), Patience::default(), about.clone());
    Ok(Arc::new(remote.context("uplink.tls")?))
}

/// Takes gateways of other processes until the future is dropped.
pub(super) fn serve_uplink(
    config: &Config,
    listener: TcpListener,
    broker: LocalBroker,
) -> anyhow::Result<impl Future<Output = ()> + use<>> {
    let tls = config.uplink.tls.files();
    let address = listener.local_addr()?;
    if tls.is_none() && !address.ip().is_loopback() {
        tracing::warn!(
            %address,
            "the uplink has no certificates: whoever reaches it speaks for every user"
        );
    }
    listen(listener, Arc::new(broker), tls.as_ref(), Patience::default()).context("uplink.tls")
}

/// The broker as the gateway reaches it: as it is, or for tests behind a bad line.
pub(super) fn strained(broker: Arc<dyn Broker>) -> anyhow::Result<Arc<dyn Broker>> {
    let Ok(strain) = std::env::var("CHAPPE_TEST_UPLINK") else { return Ok(broker) };
    let strain: Strain = strain.parse().context("CHAPPE_TEST_UPLINK")?;
    tracing::warn!(?strain, "the uplink is behind a bad line, on purpose");
    Ok(Arc::new(Strained::new(broker, strain)))
}
