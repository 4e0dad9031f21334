//! `chappe serve`: puts the parts together, starts them from the bottom up and stops them from
//! the top down.

mod auth;
mod frontends;
mod welcome;

use std::{io, path::Path, sync::Arc, thread, time::Duration};

use anyhow::Context;
use chappe_broker::{LocalBroker, Running};
use chappe_gateway::Gateway;
use chappe_storage::{
    log::segment::{SegmentConfig, SegmentLog},
    presence::memory::MemoryPresence,
    store::lsm::LsmStore,
};
use chappe_uplink::{
    Broker,
    strain::{Strain, Strained},
};
use tokio::{
    net::TcpListener,
    runtime, select,
    signal::unix::{SignalKind, signal},
    sync::watch,
};

use self::frontends::{Frontends, Sockets};
use crate::{
    admin::{self, Readiness},
    args,
    certificate::Certificate,
    command::Failure,
    config::Config,
    data_dir::{DataDir, Run},
    telemetry,
};

/// Files that are open beside connections: segments, tables, listeners.
const FILES_RESERVED: u64 = 256;
/// How often the gauges that nobody counts are read.
const GAUGES_EVERY: Duration = Duration::from_secs(5);

/// Runs the server until it is told to stop.
pub(crate) fn run(flags: &args::Serve) -> Result<(), Failure> {
    let config = Config::for_serve(flags).map_err(|error| Failure::Usage(error.into()))?;
    let metrics = telemetry::start(&config.telemetry)?;
    let threads = thread::available_parallelism().map_or(1, usize::from);
    let runtime =
        runtime::Builder::new_multi_thread().worker_threads(threads).enable_all().build()?;
    let served = runtime.block_on(async {
        let server = Server::start(config, flags).await?;
        server.run(metrics).await
    });
    runtime.shutdown_timeout(Duration::from_secs(1));
    Ok(served?)
}

/// Everything that runs.
struct Server {
    config: Config,
    channels: Vec<String>,
    data: DataDir,
    certificate: Certificate,
    running: Running,
    gateway: Gateway,
    auth: auth::Built,
    sockets: Sockets,
    admin: TcpListener,
}

impl Server {
    async fn start(config: Config, flags: &args::Serve) -> anyhow::Result<Self> {
        let data = DataDir::open(&config.data)?;
        let (certificate, reload) = Certificate::load(&config.tls, &data.join("tls"))?;
        tokio::spawn(reload);
        let sockets = Sockets::bind(&config)?;
        let admin = TcpListener::bind(config.listen.admin)
            .await
            .with_context(|| format!("cannot listen on {}", config.listen.admin))?;
        let auth = auth::build(&config, &data)?;
        let (broker, running) = start_broker(&config, &data).await?;
        let own_port = sockets.tcp.local_addr()?.port();
        let gateway = Gateway::start(
            gateway_config(&config, own_port),
            strained(broker)?,
            Arc::clone(&auth.authenticator),
        )
        .context("the gateway cannot start")?;
        let channels = flags.channels.clone();
        Ok(Self { config, channels, data, certificate, running, gateway, auth, sockets, admin })
    }

    async fn run(
        self,
        metrics: metrics_exporter_prometheus::PrometheusHandle,
    ) -> anyhow::Result<()> {
        let mut signals = Signals::new()?;
        let ready = Readiness::default();
        let run = Run {
            tcp: self.sockets.tcp.local_addr()?,
            quic: self.sockets.quic.local_addr()?,
            admin: self.admin.local_addr()?,
            tls: !self.certificate.made_for_localhost(),
            fingerprint: self.certificate.fingerprint(),
            pid: std::process::id(),
        };
        let (stop, stopping) = watch::channel(false);
        let admin = tokio::spawn(admin::serve(self.admin, metrics, ready.clone()));
        let (certificate, gateway) = (&self.certificate, &self.gateway);
        // Its own derivation: what QUIC's packets show must say nothing of tokens.
        let reset_key = self.data.derived_key("quic reset")?;
        let frontends = Frontends::start(
            self.sockets,
            certificate,
            gateway,
            &self.config,
            reset_key,
            stopping,
        )?;
        let gauges = tokio::spawn(keep_gauges(self.gateway.clone()));
        let presence = tokio::spawn(keep_presence(self.gateway.clone()));
        self.data.write_run(&run)?;
        let prepared = async {
            self.running.leads_all().await;
            welcome::make_channels(&self.gateway, &self.auth.own_key, &self.channels).await
        };
        let mut stopped_early = false;
        select! {
            prepared = prepared => prepared?,
            () = signals.stop() => stopped_early = true,
        }
        if !stopped_early {
            ready.set(true);
            tracing::info!(tcp = %run.tcp, quic = %run.quic, admin = %run.admin, "ready");
            welcome::print(&self.config, &run, self.auth.development_secret.as_deref())?;
            signals.stop().await;
        }
        tracing::info!(drain = ?self.config.gateway.drain, "stopping; a second signal ends it at once");
        ready.set(false);
        let down = async {
            self.gateway.drain(self.config.gateway.drain).await;
            stop.send_replace(true);
            frontends.ended().await;
        };
        select! {
            () = down => {}
            () = signals.stop() => tracing::warn!("ended without draining"),
        }
        presence.abort();
        gauges.abort();
        admin.abort();
        let (gateway, running) = (self.gateway, self.running);
        tokio::task::spawn_blocking(move || {
            gateway.stop();
            running.stop();
        })
        .await?;
        self.data.remove_run();
        Ok(())
    }
}

/// SIGINT and SIGTERM.
struct Signals {
    interrupt: tokio::signal::unix::Signal,
    terminate: tokio::signal::unix::Signal,
}

impl Signals {
    fn new() -> io::Result<Self> {
        let interrupt = signal(SignalKind::interrupt())?;
        Ok(Self { interrupt, terminate: signal(SignalKind::terminate())? })
    }

    async fn stop(&mut self) {
        select! {
            _ = self.interrupt.recv() => {}
            _ = self.terminate.recv() => {}
        }
    }
}

async fn start_broker(config: &Config, data: &DataDir) -> anyhow::Result<(LocalBroker, Running)> {
    let segments = SegmentConfig {
        segment_bytes: u32::try_from(config.log.segment_bytes.as_u64())
            .context("log.segment_bytes is at most 1 GiB")?,
        keep: config.log.keep,
        keep_bytes: Some(config.log.keep_bytes.as_u64()),
        ..SegmentConfig::default()
    };
    let (log_dir, store_dir) = (data.join("log"), data.join("store"));
    let partitions = config.log.partitions;
    // Opening reads and checks the newest part of the log.
    let opened = tokio::task::spawn_blocking(move || -> anyhow::Result<_> {
        let log = SegmentLog::open(&log_dir, partitions, segments)
            .with_context(|| cannot_open("log", &log_dir))?;
        let store = LsmStore::open(&store_dir).with_context(|| cannot_open("store", &store_dir))?;
        Ok((log, store))
    });
    let (log, store) = opened.await??;
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
    let broker = chappe_broker::Config {
        bounds,
        threads: config.broker.threads,
        unprojected_bytes_max: config.broker.unprojected_bytes_max.as_u64() as usize,
        unprojected_age_ms_max: config.broker.unprojected_age_max.as_millis() as u64,
        ..chappe_broker::Config::default()
    };
    let parts = chappe_broker::Parts::alone(Arc::new(log), Arc::new(store));
    Ok(chappe_broker::start(broker, parts).await?)
}

/// The broker as the gateway reaches it: directly, or for tests behind a bad line.
fn strained(broker: LocalBroker) -> anyhow::Result<Arc<dyn Broker>> {
    let broker: Arc<dyn Broker> = Arc::new(broker);
    let Ok(strain) = std::env::var("CHAPPE_TEST_UPLINK") else { return Ok(broker) };
    let strain: Strain = strain.parse().context("CHAPPE_TEST_UPLINK")?;
    tracing::warn!(?strain, "the uplink is behind a bad line, on purpose");
    Ok(Arc::new(Strained::new(broker, strain)))
}

fn gateway_config(config: &Config, own_port: u16) -> chappe_gateway::Config {
    let scheme = if config.tls.cert.is_some() { "https" } else { "http" };
    let own =
        ["localhost", "127.0.0.1", "[::1]"].map(|host| format!("{scheme}://{host}:{own_port}"));
    let limits = &config.limits;
    let mut gateway = chappe_gateway::Config {
        shards: config.gateway.shards,
        origins: config.http.origins.iter().cloned().chain(own).collect(),
        ..chappe_gateway::Config::default()
    };
    gateway.timing.ping_ms = config.gateway.ping.as_millis() as u64;
    gateway.timing.slow_ms = config.gateway.slow.as_millis() as u64;
    gateway.limits.connections = match limits.connections {
        0 => open_files().saturating_sub(FILES_RESERVED) as usize,
        limit => limit,
    };
    gateway.limits.connections_per_address = limits.connections_per_address;
    gateway.limits.connections_per_user = limits.connections_per_user;
    gateway.limits.outbox_bytes = limits.outbox_bytes.as_u64() as usize;
    limits.rates.apply(&mut gateway.limits);
    gateway
}

fn open_files() -> u64 {
    rustix::process::getrlimit(rustix::process::Resource::Nofile).current.unwrap_or(1 << 20)
}

async fn keep_presence(gateway: Gateway) {
    gateway.keep_presence(Arc::new(MemoryPresence::new())).await;
}

async fn keep_gauges(gateway: Gateway) {
    loop {
        metrics::gauge!("chappe_gateway_connections").set(gateway.connections() as f64);
        tokio::time::sleep(GAUGES_EVERY).await;
    }
}

fn cannot_open(what: &str, path: &Path) -> String {
    format!("cannot open the {what} in {}", path.display())
}
