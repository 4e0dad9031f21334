//! The gateway's side: one pipe to the gateway, a connection to each broker.

use std::{
    collections::{BTreeMap, VecDeque},
    future::poll_fn,
    io,
    net::SocketAddr,
    ops::Bound::{Excluded, Included, Unbounded},
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use tokio::{
    io::{AsyncRead, AsyncWrite, split},
    runtime::Handle,
    sync::{mpsc, watch},
    task::JoinHandle,
    time::Instant,
};

use super::{
    Patience, TlsError, TlsFiles,
    dial::{Connection, Dialler},
    name::{Addresses, keep_resolved},
    routes::{Node, Routes},
    wire::{self, Word},
};
use crate::{About, Broker, Receiver, Request, Response, SendError, Sender, pipe};

/// The brokers of a cluster, as one.
pub struct Remote {
    /// Where its tasks run: whoever opens a pipe may have a runtime without sockets.
    runtime: Handle,
    addresses: watch::Receiver<Addresses>,
    keeper: Arc<Keeper>,
}

impl Remote {
    /// Connects to `brokers`, each `host:port`; a host may have several addresses, which may
    /// change. They are told `about` this process, now and when it changes. Must be called within
    /// a tokio runtime that outlives it.
    pub fn new(
        brokers: Vec<String>,
        tls: Option<&TlsFiles>,
        patience: Patience,
        about: watch::Receiver<About>,
    ) -> Result<Self, TlsError> {
        let dialler = Dialler::new(tls, patience)?;
        let (found, addresses) = watch::channel(Addresses::new());
        let runtime = Handle::current();
        runtime.spawn(keep_resolved(brokers, found));
        Ok(Self { runtime, addresses, keeper: Arc::new(Keeper { dialler, about }) })
    }
}

impl Broker for Remote {
    fn open(&self) -> (Sender<Request>, Receiver<Response>) {
        let (to_router, requests) = pipe(PIPE_BYTES_MAX);
        let (responses, from_router) = pipe(PIPE_BYTES_MAX);
        let (news, heard) = mpsc::channel(NEWS);
        let router = Router {
            addresses: self.addresses.clone(),
            keeper: Arc::clone(&self.keeper),
            routes: Routes::default(),
            brokers: BTreeMap::new(),
            next_node: 0,
            turn: Turn::default(),
            passing: VecDeque::new(),
            requests,
            responses,
            news,
            heard,
            started: Instant::now(),
        };
        self.runtime.spawn(router.run());
        (to_router, from_router)
    }
}

/// Carries one gateway's pipe.
struct Router {
    addresses: watch::Receiver<Addresses>,
    keeper: Arc<Keeper>,
    routes: Routes,
    brokers: BTreeMap<Node, BrokerAt>,
    next_node: Node,
    turn: Turn,
    /// On their way to the gateway, with their weights.
    passing: VecDeque<(usize, Response)>,
    requests: Receiver<Request>,
    responses: Sender<Response>,
    news: mpsc::Sender<(Node, Opened)>,
    heard: mpsc::Receiver<(Node, Opened)>,
    started: Instant,
}

/// A broker that is connected to, or tried.
struct BrokerAt {
    address: SocketAddr,
    open: Option<Opened>,
    keeper: JoinHandle<()>,
}

/// The pipe of one connection.
struct Opened {
    requests: Sender<Request>,
    responses: Receiver<Response>,
}

/// Whose turn it was. Every other one is the gateway's, the rest go around among the brokers:
/// none that always has something keeps the others waiting.
#[derive(Debug, Default)]
struct Turn {
    was_gateways: bool,
    /// The broker that had the last one of theirs.
    broker: Node,
}

/// What a router wakes for.
enum Wake {
    /// The gateway asked something.
    Requests,
    /// A broker said something, or its connection ended.
    Broker(Node, bool),
    /// The gateway is gone.
    End,
}

impl Router {
    async fn run(mut self) {
        self.follow_addresses();
        let (mut requests, mut responses) = (Vec::new(), Vec::new());
        loop {
            tokio::select! {
                biased;
                changed = self.addresses.changed() => match changed {
                    Ok(()) => self.follow_addresses(),
                    Err(_) => return,
                },
                Some((node, opened)) = self.heard.recv() => self.take_up(node, opened),
                wake = poll_fn(|cx| {
                    let (turn, from_gateway) = (&mut self.turn, &mut self.requests);
                    poll(turn, from_gateway, &mut self.brokers, cx, &mut requests, &mut responses)
                }) => {
                    match wake {
                        Wake::Requests => self.send(&mut requests),
                        Wake::Broker(node, true) => self.take(node, &mut responses),
                        Wake::Broker(node, false) => self.lose(node),
                        Wake::End => return,
                    }
                }
            }
            self.pass(OWN_WEIGHT);
            while let Some((weight, response)) = self.passing.pop_front() {
                if self.responses.send_when_room(response, weight).await.is_err() {
                    return;
                }
            }
        }
    }

    /// Connects to brokers that are new, and leaves those that are gone from the list and out of
    /// reach. One that is gone from the list and answers is kept: it may be handing over.
    fn follow_addresses(&mut self) {
        let wanted = self.addresses.borrow_and_update().clone();
        self.brokers
            .retain(|_, broker| broker.open.is_some() || wanted.contains_key(&broker.address));
        for (address, host) in wanted {
            if self.brokers.values().any(|broker| broker.address == address) {
                continue;
            }
            let node = self.next_node;
            self.next_node += 1;
            let keeper = Arc::clone(&self.keeper);
            let keeper = tokio::spawn(keeper.keep_open(node, address, host, self.news.clone()));
            self.brokers.insert(node, BrokerAt { address, open: None, keeper });
        }
    }

    /// Goes on over a new connection.
    fn take_up(&mut self, node: Node, opened: Opened) {
        // The end of the one before may not have been heard yet. It has to be told first: the
        // broker says the same of itself as before, but knows nothing of what was attached.
        if self.brokers.get(&node).is_some_and(|broker| broker.open.is_some()) {
            self.lose(node);
        }
        let Some(broker) = self.brokers.get_mut(&node) else { return };
        tracing::info!(address = %broker.address, "connected to a broker");
        broker.open = Some(opened);
    }

    fn send(&mut self, requests: &mut Vec<(usize, Request)>) {
        let mut touched = Vec::new();
        for (weight, request) in requests.drain(..) {
            let Some(node) = self.routes.route(self.now_ms(), &request) else { continue };
            let Some(open) = self.brokers.get(&node).and_then(|broker| broker.open.as_ref()) else {
                continue; // answered when its end is heard
            };
            match open.requests.send_quietly(request, weight) {
                Ok(()) if touched.last() != Some(&node) => touched.push(node),
                Ok(()) => {}
                // A broker that takes nothing for so long is as good as gone.
                Err(SendError::Full(_) | SendError::Closed(_)) => open.requests.close(),
            }
        }
        for node in touched {
            if let Some(open) = self.brokers.get(&node).and_then(|broker| broker.open.as_ref()) {
                open.requests.wake();
            }
        }
    }

    fn take(&mut self, node: Node, responses: &mut Vec<(usize, Response)>) {
        let now_ms = self.now_ms();
        for (weight, response) in responses.drain(..) {
            self.routes.handle_response(now_ms, node, response);
            self.pass(weight);
        }
    }

    /// What the routes have for the gateway weighs as much.
    fn pass(&mut self, weight: usize) {
        let routes = &mut self.routes;
        let responses = std::iter::from_fn(|| routes.poll_response());
        self.passing.extend(responses.map(|response| (weight, response)));
    }

    fn lose(&mut self, node: Node) {
        let Some(broker) = self.brokers.get_mut(&node) else { return };
        tracing::warn!(address = %broker.address, "the connection to a broker ended");
        broker.open = None;
        let is_wanted = self.addresses.borrow().contains_key(&broker.address);
        if !is_wanted {
            self.brokers.remove(&node);
        }
        self.routes.handle_ended(self.now_ms(), node);
    }

    fn now_ms(&self) -> u64 {
        self.started.elapsed().as_millis() as u64
    }
}

impl Drop for BrokerAt {
    fn drop(&mut self) {
        self.keeper.abort();
    }
}

/// Looks at the gateway's pipe and at each broker's, and takes from the first that has something,
/// beginning with the one whose turn it is.
fn poll(
    turn: &mut Turn,
    from_gateway: &mut Receiver<Request>,
    brokers: &mut BTreeMap<Node, BrokerAt>,
    cx: &mut Context<'_>,
    requests: &mut Vec<(usize, Request)>,
    responses: &mut Vec<(usize, Response)>,
) -> Poll<Wake> {
    let is_gateways = !turn.was_gateways;
    turn.was_gateways = true;
    if is_gateways && let Poll::Ready(wake) = poll_gateway(from_gateway, cx, requests) {
        return Poll::Ready(wake);
    }
    let behind = (Excluded(turn.broker), Unbounded);
    for range in [behind, (Unbounded, Included(turn.broker))] {
        for (node, broker) in brokers.range_mut(range) {
            let Some(open) = &mut broker.open else { continue };
            let Poll::Ready(taken) = open.responses.poll_recv_weighed(cx, responses, BATCH) else {
                continue;
            };
            *turn = Turn { was_gateways: false, broker: *node };
            return Poll::Ready(Wake::Broker(*node, taken.is_ok()));
        }
    }
    if is_gateways { Poll::Pending } else { poll_gateway(from_gateway, cx, requests) }
}

fn poll_gateway(
    from_gateway: &mut Receiver<Request>,
    cx: &mut Context<'_>,
    requests: &mut Vec<(usize, Request)>,
) -> Poll<Wake> {
    let taken = from_gateway.poll_recv_weighed(cx, requests, BATCH);
    taken.map(|taken| if taken.is_ok() { Wake::Requests } else { Wake::End })
}

/// Keeps connections to brokers open.
struct Keeper {
    dialler: Dialler,
    about: watch::Receiver<About>,
}

impl Keeper {
    /// Keeps a connection to one broker open, and hands over the pipe of each new one.
    async fn keep_open(
        self: Arc<Self>,
        node: Node,
        address: SocketAddr,
        host: String,
        news: mpsc::Sender<(Node, Opened)>,
    ) {
        let mut pause = PAUSE_MIN;
        let mut told = String::new();
        loop {
            let began = Instant::now();
            match self.connect_and_carry(node, address, &host, &news).await {
                Ok(()) if began.elapsed() >= STEADY => pause = PAUSE_MIN,
                // A broker that lets nobody stay is not asked twenty times a second.
                Ok(()) => pause = (2 * pause).min(PAUSE_MAX),
                Err(error) => {
                    // Said once, and again when the reason is another.
                    let why = error.to_string();
                    if why != told {
                        tracing::warn!(%address, why, "no connection to a broker; trying on");
                        told = why;
                    }
                    pause = (2 * pause).min(PAUSE_MAX);
                }
            }
            tokio::time::sleep(pause).await;
        }
    }

    /// Ok once a connection was there and ended.
    async fn connect_and_carry(
        &self,
        node: Node,
        address: SocketAddr,
        host: &str,
        news: &mpsc::Sender<(Node, Opened)>,
    ) -> io::Result<()> {
        match self.dialler.connect(address, host).await? {
            Connection::Plain(stream) => self.carry(stream, node, news).await,
            Connection::Tls(stream) => self.carry(stream, node, news).await,
        }
    }

    async fn carry<S>(
        &self,
        mut stream: S,
        node: Node,
        news: &mpsc::Sender<(Node, Opened)>,
    ) -> io::Result<()>
    where
        S: AsyncRead + AsyncWrite + Unpin,
    {
        let patience = self.dialler.patience;
        let mut about = self.about.clone();
        wire::greet(&mut stream, patience).await?;
        let own = Word::Gateway(about.borrow_and_update().clone());
        wire::say(&mut stream, &own, patience).await?;
        let (from_broker, to_broker) = split(stream);
        let (requests, outgoing) = pipe(PIPE_BYTES_MAX);
        let (incoming, responses) = pipe(PIPE_BYTES_MAX);
        if news.send((node, Opened { requests, responses })).await.is_err() {
            return Ok(());
        }
        let changed = || {
            let is_news = about.has_changed().unwrap_or(false); // an error: it is final
            is_news.then(|| Word::Gateway(about.borrow_and_update().clone()))
        };
        let ended = tokio::select! {
            read = wire::read(from_broker, incoming, patience, wire::no_words) => read,
            written = wire::write(outgoing, to_broker, patience, changed) => written,
        };
        if let Err(error) = ended {
            tracing::info!(%error, "an uplink ended");
        }
        Ok(())
    }
}

/// What may wait in each of a router's pipes.
const PIPE_BYTES_MAX: usize = 8 << 20;
/// What a response weighs that begins here: a refusal, or who leads what.
const OWN_WEIGHT: usize = 512;
/// Requests or responses taken at once.
const BATCH: usize = 256;
/// New connections that wait to be taken up.
const NEWS: usize = 16;
const PAUSE_MIN: Duration = Duration::from_millis(50);
const PAUSE_MAX: Duration = Duration::from_secs(1);
/// A connection that lasted so long was one.
const STEADY: Duration = Duration::from_secs(5);

#[cfg(test)]
mod tests;
