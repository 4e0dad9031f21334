//! `chappe serve`: puts the parts together, starts them from the bottom up and stops them from
//! the top down.

mod auth;
pub(crate) mod backends;
pub(crate) mod broker;
mod frontends;
mod welcome;

use std::{io, net::SocketAddr, sync::Arc, thread, time::Duration};

use anyhow::Context;
use chappe_broker::Running;
use chappe_gateway::Gateway;
use chappe_storage::{
    blobs::Blobs,
    presence::{Presence, memory::MemoryPresence},
};
use chappe_uplink::{About, Broker};
use tokio::{
    net::TcpListener,
    runtime, select,
    signal::unix::{SignalKind, signal},
    sync::watch,
    task::JoinHandle,
};

use self::frontends::{Frontends, Sockets};
use crate::{
    admin::{self, Dependencies, Readiness},
    args,
    certificate::Certificate,
    cluster::{self, View},
    command::Failure,
    config::{
        Config,
        cluster::{LogKind, PresenceKind, Role},
    },
    data_dir::{DataDir, Run},
    dependencies, telemetry,
};

/// Files that are open beside connections: segments, tables, listeners.
const FILES_RESERVED: u64 = 256;
/// How often the gauges that nobody counts are read.
const GAUGES_EVERY: Duration = Duration::from_secs(1);

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
    broker: Option<BrokerPart>,
    gateway: Option<GatewayPart>,
    admin: TcpListener,
    view: View,
    about: watch::Sender<About>,
    blobs: Option<Arc<dyn Blobs>>,
}

/// What leads partitions.
struct BrokerPart {
    running: Running,
    /// Where gateways of other processes come in, if it runs by itself.
    uplink: Option<(SocketAddr, JoinHandle<()>)>,
}

/// What holds connections.
struct GatewayPart {
    gateway: Gateway,
    certificate: Certificate,
    auth: auth::Built,
    sockets: Sockets,
}

impl Server {
    async fn start(config: Config, flags: &args::Serve) -> anyhow::Result<Self> {
        let data = DataDir::open(&config.data)?.with_secret(config.auth.secret_file.clone());
        // Everything is bound before anything is opened: a port that is taken is found at once.
        let sockets = config.runs_gateway().then(|| Sockets::bind(&config)).transpose()?;
        let admin = bind(config.listen.admin).await?;
        let takes_gateways = config.runs(Role::Broker) && !config.roles.is_empty();
        let uplink = if takes_gateways { Some(bind(config.listen.uplink).await?) } else { None };
        let at = listens_at(&config, sockets.as_ref(), uplink.as_ref())?;
        let (about, told) = watch::channel(cluster::about(&config, at)?);
        // Files come and go over HTTP alone.
        let blobs = match config.runs(Role::GatewayHttp) {
            true => Some(dependencies::open_blobs(&config, &config.data).await?),
            false => None,
        };
        let mut local = None;
        let mut broker_part = None;
        if config.runs(Role::Broker) {
            let (broker, running) = broker::start(&config, &data, &told).await?;
            let uplink = uplink.map(|listener| -> anyhow::Result<_> {
                let address = listener.local_addr()?;
                let serving = broker::serve_uplink(&config, listener, broker.clone())?;
                Ok((address, tokio::spawn(serving)))
            });
            broker_part = Some(BrokerPart { running, uplink: uplink.transpose()? });
            local = Some(broker);
        }
        let mut gateway_part = None;
        if let Some(sockets) = sockets {
            let broker: Arc<dyn Broker> = match &local {
                Some(local) if config.uplink.brokers.is_empty() => Arc::new(local.clone()),
                _ => broker::remote(&config, &told)?,
            };
            gateway_part = Some(GatewayPart::start(&config, &data, sockets, broker)?);
        }
        let view = match local {
            Some(local) if config.uplink.brokers.is_empty() => View::Alone(local, told),
            _ => View::Of(config.uplink.brokers.clone(), config.uplink.tls.files()),
        };
        let channels = flags.channels.clone();
        let (broker, gateway) = (broker_part, gateway_part);
        Ok(Self { config, channels, data, broker, gateway, admin, view, about, blobs })
    }

    async fn run(
        self,
        metrics: metrics_exporter_prometheus::PrometheusHandle,
    ) -> anyhow::Result<()> {
        let mut signals = Signals::new()?;
        let ready = Readiness::default();
        let run = self.describe()?;
        let (stop, stopping) = watch::channel(false);
        let Self { config, channels, data, broker, gateway, admin, view, about, blobs } = self;
        let dependencies = Dependencies::new(config.clone(), blobs);
        let serving = admin::serve(admin, metrics, ready.clone(), view, dependencies);
        let admin = tokio::spawn(serving);
        let held = gateway.map(|part| part.serve(&config, &data, about, stopping)).transpose()?;
        data.write_run(&run)?;
        let mut up = Up { config, broker, held, admin, stop };
        let mut stopped_early = false;
        select! {
            prepared = up.prepare(&channels) => prepared?,
            () = signals.stop() => stopped_early = true,
        }
        if !stopped_early {
            ready.set(true);
            tracing::info!(
                tcp = run.tcp.map(tracing::field::display),
                quic = run.quic.map(tracing::field::display),
                uplink = run.uplink.map(tracing::field::display),
                admin = %run.admin,
                "ready"
            );
            welcome::print(&up.config, &run, up.development_secret())?;
            signals.stop().await;
        }
        tracing::info!(
            drain = ?up.config.gateway.drain,
            "stopping; a second signal ends it at once"
        );
        ready.set(false);
        select! {
            () = up.drain() => {}
            () = signals.stop() => tracing::warn!("ended without draining"),
        }
        tokio::task::spawn_blocking(move || up.end()).await?;
        data.remove_run();
        Ok(())
    }

    /// What tools are told.
    fn describe(&self) -> anyhow::Result<Run> {
        let gateway = self.gateway.as_ref();
        let address = |of: fn(&Sockets) -> io::Result<SocketAddr>| {
            gateway.map(|part| of(&part.sockets)).transpose()
        };
        let roles = |role| self.config.runs(role);
        let serves_tcp = roles(Role::GatewayWs) || roles(Role::GatewayHttp);
        Ok(Run {
            tcp: address(|sockets| sockets.tcp.local_addr())?.filter(|_| serves_tcp),
            quic: address(|sockets| sockets.quic.local_addr())?
                .filter(|_| roles(Role::GatewayQuic)),
            admin: self.admin.local_addr()?,
            uplink: self.broker.as_ref().and_then(|part| part.uplink.as_ref()).map(|(at, _)| *at),
            tls: gateway.is_some_and(|part| !part.certificate.made_for_localhost()),
            fingerprint: gateway.map(|part| part.certificate.fingerprint()),
            pid: std::process::id(),
        })
    }
}

/// Everything that is to be stopped, in this order: connections, partitions, the uplink.
struct Up {
    config: Config,
    broker: Option<BrokerPart>,
    held: Option<Held>,
    admin: JoinHandle<io::Result<()>>,
    stop: watch::Sender<bool>,
}

impl Up {
    /// Returns when it is ready. A process with the log to itself is when it leads all; one of
    /// several when it can lead.
    async fn prepare(&self, channels: &[String]) -> anyhow::Result<()> {
        if let Some(part) = &self.broker
            && self.config.log.kind == LogKind::Segment
        {
            part.running.leads_all().await;
        }
        match &self.held {
            Some(held) => welcome::make_channels(&held.gateway, &held.own_key, channels).await,
            None => Ok(()),
        }
    }

    fn development_secret(&self) -> Option<&[u8]> {
        self.held.as_ref()?.development_secret.as_deref()
    }

    /// Closes connections evenly, and hands partitions over.
    async fn drain(&mut self) {
        if let Some(held) = &mut self.held {
            held.gateway.drain(self.config.gateway.drain).await;
            self.stop.send_replace(true);
            held.frontends.ended().await;
        }
        if let Some(part) = &self.broker {
            part.running.leave().await;
        }
    }

    /// Ends all threads. Blocks for some seconds at worst.
    fn end(self) {
        self.admin.abort();
        if let Some(held) = self.held {
            held.tasks.iter().for_each(JoinHandle::abort);
            held.gateway.stop();
        }
        if let Some(BrokerPart { running, uplink }) = self.broker {
            running.stop();
            // Last: what was handed over has been told on it.
            uplink.into_iter().for_each(|(_, task)| task.abort());
        }
    }
}

/// A gateway that takes connections.
struct Held {
    gateway: Gateway,
    frontends: Frontends,
    tasks: Vec<JoinHandle<()>>,
    own_key: String,
    development_secret: Option<Vec<u8>>,
}

impl GatewayPart {
    fn start(
        config: &Config,
        data: &DataDir,
        sockets: Sockets,
        broker: Arc<dyn Broker>,
    ) -> anyhow::Result<Self> {
        let (certificate, reload) = Certificate::load(&config.tls, &data.join("tls"))?;
        tokio::spawn(reload);
        let auth = auth::build(config, data)?;
        let own_port = sockets.tcp.local_addr()?.port();
        let gateway = Gateway::start(
            gateway_config(config, own_port),
            broker::strained(broker)?,
            Arc::clone(&auth.authenticator),
        )
        .context("the gateway cannot start")?;
        Ok(Self { gateway, certificate, auth, sockets })
    }

    fn serve(
        self,
        config: &Config,
        data: &DataDir,
        about: watch::Sender<About>,
        stopping: watch::Receiver<bool>,
    ) -> anyhow::Result<Held> {
        let Self { gateway, certificate, auth, sockets } = self;
        // Its own derivation: what QUIC's packets show must say nothing of tokens.
        let reset_key = data.derived_key("quic reset")?;
        // Before anybody can ask who is connected.
        let keeper = gateway.keep_presence(presence(config)?);
        let frontends =
            Frontends::start(sockets, &certificate, &gateway, config, reset_key, stopping)?;
        let tasks = vec![tokio::spawn(keep_gauges(gateway.clone(), about)), tokio::spawn(keeper)];
        let auth::Built { own_key, development_secret, .. } = auth;
        Ok(Held { gateway, frontends, tasks, own_key, development_secret })
    }
}

/// The address that this process is known by: its clients', else its gateways'.
fn listens_at(
    config: &Config,
    sockets: Option<&Sockets>,
    uplink: Option<&TcpListener>,
) -> io::Result<Option<SocketAddr>> {
    let only_quic = !config.runs(Role::GatewayWs) && !config.runs(Role::GatewayHttp);
    match (sockets, uplink) {
        (Some(sockets), _) if only_quic => sockets.quic.local_addr().map(Some),
        (Some(sockets), _) => sockets.tcp.local_addr().map(Some),
        (None, uplink) => uplink.map(TcpListener::local_addr).transpose(),
    }
}

async fn bind(address: SocketAddr) -> anyhow::Result<TcpListener> {
    TcpListener::bind(address).await.with_context(|| format!("cannot listen on {address}"))
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

fn presence(config: &Config) -> anyhow::Result<Arc<dyn Presence>> {
    match (config.presence.kind, &config.presence.url) {
        #[cfg(feature = "clustered")]
        (PresenceKind::Redis, Some(url)) => {
            use chappe_storage::presence::redis::{RedisOptions, RedisPresence};
            let redis = RedisPresence::new(RedisOptions::at(url.reveal()));
            Ok(Arc::new(redis.context("presence.url")?))
        }
        (PresenceKind::Redis, _) => {
            anyhow::bail!("this build has no Redis: it was made without `clustered`")
        }
        (PresenceKind::Memory, _) => Ok(Arc::new(MemoryPresence::new())),
    }
}

/// Tells the metrics and the brokers how many connections there are.
async fn keep_gauges(gateway: Gateway, about: watch::Sender<About>) {
    loop {
        let connections = gateway.connections();
        metrics::gauge!("chappe_gateway_connections").set(connections as f64);
        about.send_if_modified(|about| {
            let before = std::mem::replace(&mut about.connections, connections as u64);
            before != connections as u64
        });
        tokio::time::sleep(GAUGES_EVERY).await;
    }
}
