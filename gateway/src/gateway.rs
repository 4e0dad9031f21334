//! The gateway: its shards, and the way in to them.

use std::{
    io,
    net::IpAddr,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    thread,
    time::Duration,
};

use chappe_protocol::{ErrorCode, UserId, WireError, reply::Reply};
use chappe_storage::presence::{GatewayId, Presence};
use chappe_uplink::Broker;
use tokio::sync::{Notify, mpsc, oneshot};

use crate::{
    auth::Authenticator,
    clock::Now,
    config::Config,
    frontend::{Call, ConnectRefused, Kernel, MakeLink},
    limits::{Address, Gate},
    presence::{self, Lookup},
    session::Errand,
    shard::driver::{self, Job, Setup},
};

/// A running gateway. Clones are the same gateway.
///
/// It runs until [`Gateway::drain`] or [`Gateway::stop`]; a gateway that every clone of was
/// dropped stops too.
#[derive(Clone, Debug)]
pub struct Gateway {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    id: GatewayId,
    config: Arc<Config>,
    gate: Arc<Gate>,
    presence: Arc<Lookup>,
    shards: Vec<Handle>,
    /// Which shard a call goes to next.
    next: AtomicUsize,
}

/// The way in to a shard.
#[derive(Debug)]
struct Handle {
    jobs: mpsc::Sender<Job>,
    load: Arc<AtomicUsize>,
    stop: Arc<Notify>,
    thread: std::sync::Mutex<Option<thread::JoinHandle<()>>>,
}

impl Gateway {
    /// Starts the shards, each on a thread of its own with its own pipe to the leaders.
    ///
    /// Metrics go to the recorder that is installed now.
    pub fn start(
        config: Config,
        broker: Arc<dyn Broker>,
        auth: Arc<Authenticator>,
    ) -> io::Result<Self> {
        let config = Arc::new(config);
        let gate = Arc::new(Gate::new(config.limits.clone()));
        let presence = Arc::new(Lookup::new());
        let count = match config.shards {
            0 => thread::available_parallelism().map_or(1, usize::from),
            count => count,
        };
        let mut shards = Vec::with_capacity(count);
        for number in 0..count {
            let (sender, jobs) = mpsc::channel(JOBS_MAX);
            let load = Arc::new(AtomicUsize::new(0));
            let stop = Arc::new(Notify::new());
            let setup = Setup {
                config: Arc::clone(&config),
                auth: Arc::clone(&auth),
                gate: Arc::clone(&gate),
                presence: Arc::clone(&presence),
                broker: Arc::clone(&broker),
                jobs,
                load: Arc::clone(&load),
                stop: Arc::clone(&stop),
                seed: draw()?,
                keeps_keys: number == 0,
            };
            let thread =
                thread::Builder::new().name(format!("shard-{number}")).spawn(move || {
                    if let Err(error) = driver::run(setup) {
                        tracing::error!(%error, "a shard could not start");
                    }
                })?;
            let thread = std::sync::Mutex::new(Some(thread));
            shards.push(Handle { jobs: sender, load, stop, thread });
        }
        let id = GatewayId(draw()?);
        let shared = Shared { id, config, gate, presence, shards, next: AtomicUsize::new(0) };
        Ok(Self { shared: Arc::new(shared) })
    }

    /// Connections that it holds.
    pub fn connections(&self) -> usize {
        self.shared.gate.connections()
    }

    /// Answers from `presence` who is connected, from now on; nobody knows before. Keeps this
    /// gateway's users in it, until the future is dropped: to be run beside the gateway, it ends
    /// its lease by letting it run out.
    ///
    /// Must be called within a tokio runtime that outlives the gateway: questions run there.
    pub fn keep_presence(
        &self,
        presence: Arc<dyn Presence>,
    ) -> impl Future<Output = ()> + Send + use<> {
        self.shared.presence.ask_of(Arc::clone(&presence));
        let gateway = self.clone();
        async move { presence::keep(gateway.shared.id, &gateway.shared.gate, presence).await }
    }

    /// Takes nobody in any more, and closes everybody evenly over this time, each with a moment
    /// to come back. Returns when nobody is left, or some time after that was to be so.
    pub async fn drain(&self, over: Duration) {
        self.shared.gate.drain();
        let over_ms = over.as_millis() as u64;
        let mut left = Vec::new();
        for shard in &self.shared.shards {
            let (sender, drained) = oneshot::channel();
            // A shard that is gone has nobody left.
            if shard.jobs.send(Job::Drain(over_ms, sender)).await.is_ok() {
                left.push(drained);
            }
        }
        let linger = Duration::from_millis(2 * self.shared.config.timing.linger_ms);
        let everybody = async {
            for drained in left {
                let _ = drained.await; // it ends by being dropped
            }
        };
        let _ = tokio::time::timeout(over + linger + SLACK, everybody).await;
    }

    /// Ends the shards at once. Blocks until their threads ended.
    pub fn stop(&self) {
        self.shared.gate.drain();
        for shard in &self.shared.shards {
            shard.stop();
        }
    }

    fn hand_over(
        &self,
        shard: &Handle,
        peer: IpAddr,
        make: MakeLink,
    ) -> Result<(), ConnectRefused> {
        shard.load.fetch_add(1, Ordering::Relaxed);
        shard.jobs.try_send(Job::Connect(peer, make)).map_err(|_| {
            shard.load.fetch_sub(1, Ordering::Relaxed);
            ConnectRefused::TooMany
        })
    }

    async fn run(&self, peer: IpAddr, errand: Errand) -> Result<Reply, WireError> {
        let turn = self.shared.next.fetch_add(1, Ordering::Relaxed);
        let shard = &self.shared.shards[turn % self.shared.shards.len()];
        let (sender, answer) = oneshot::channel();
        let overloaded = || WireError::new(ErrorCode::Overloaded);
        shard.jobs.try_send(Job::Call(peer, errand, sender)).map_err(|_| overloaded())?;
        match answer.await {
            Ok(result) => result,
            // The shard ended with the call: it may have happened.
            Err(_) => Err(WireError::new(ErrorCode::Unknown)),
        }
    }
}

impl Kernel for Gateway {
    fn admit(&self, peer: IpAddr) -> Result<(), ConnectRefused> {
        self.shared.gate.admit(Address::from(peer), Now::read().boot_ms)
    }

    fn connect(&self, peer: IpAddr, make: MakeLink) -> Result<(), ConnectRefused> {
        let address = Address::from(peer);
        self.shared.gate.connect(address)?;
        let least =
            self.shared.shards.iter().min_by_key(|shard| shard.load.load(Ordering::Relaxed));
        let refused =
            least.map_or(Err(ConnectRefused::Draining), |shard| self.hand_over(shard, peer, make));
        if refused.is_err() {
            self.shared.gate.disconnect(address);
        }
        refused
    }

    async fn call(&self, call: Call) -> Result<Reply, WireError> {
        self.run(call.peer, Errand::Command(Box::new(call))).await
    }

    async fn close_sessions(&self, token: String, user: UserId) -> Result<Reply, WireError> {
        let nowhere = IpAddr::from([127, 0, 0, 1]);
        self.run(nowhere, Errand::CloseSessions { token, user }).await
    }

    fn origin_allowed(&self, origin: &str) -> bool {
        // Byte for byte: a browser writes an origin in one way, and everything else is a trick.
        self.shared.config.origins.iter().any(|allowed| allowed == origin)
    }
}

impl Handle {
    fn stop(&self) {
        self.stop.notify_one();
        let mut thread = self.thread.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        if let Some(thread) = thread.take()
            && thread.thread().id() != thread::current().id()
        {
            let _ = thread.join();
        }
    }
}

fn draw() -> io::Result<u64> {
    getrandom::u64().map_err(|error| io::Error::other(error.to_string()))
}

/// Connections and calls that wait for a shard.
const JOBS_MAX: usize = 8_192;
const SLACK: Duration = Duration::from_secs(1);
