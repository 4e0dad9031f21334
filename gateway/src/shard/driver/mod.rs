//! Drives a shard on a thread of its own: a runtime, a task per connection, one that flushes, one
//! for the time, one for the pipe. It moves what arrives into the shard and does what that asks
//! for; it decides nothing.

mod connection;
mod tasks;

use std::{
    cell::{Cell, RefCell},
    collections::HashMap,
    io,
    net::IpAddr,
    rc::Rc,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    task::Waker,
};

use chappe_protocol::UserId;
use chappe_uplink::{Broker, Request, SendError, Sender};
use tokio::{
    runtime::{Builder, LocalOptions},
    sync::{Notify, mpsc, oneshot},
    task::{spawn_local, unconstrained},
};

use self::connection::Connection;
use super::Shard;
use crate::{
    auth::Authenticator,
    clock::Now,
    config::Config,
    desk::Effect,
    frontend::MakeLink,
    hub::Sockets,
    limits::{Address, Gate},
    link::{Lane, Link},
    presence::{Begun, Found, Lookup},
    session::{Answered, Errand},
    weight,
};

/// What a shard's thread is handed.
pub(crate) enum Job {
    /// A connection that was counted.
    Connect(IpAddr, MakeLink),
    /// A call.
    Call(IpAddr, Errand, oneshot::Sender<Answered>),
    /// Close everything over this time; what is dropped tells that nothing is left.
    Drain(u64, oneshot::Sender<()>),
}

/// What a shard's thread begins with.
pub(crate) struct Setup {
    pub(crate) config: Arc<Config>,
    pub(crate) auth: Arc<Authenticator>,
    pub(crate) gate: Arc<Gate>,
    pub(crate) presence: Arc<Lookup>,
    pub(crate) broker: Arc<dyn Broker>,
    pub(crate) jobs: mpsc::Receiver<Job>,
    /// Connections of this shard.
    pub(crate) load: Arc<AtomicUsize>,
    /// Notified when it is to end at once.
    pub(crate) stop: Arc<Notify>,
    pub(crate) seed: u64,
    /// It also keeps the issuer's keys fresh.
    pub(crate) keeps_keys: bool,
}

/// Runs a shard until it is told to stop.
pub(crate) fn run(setup: Setup) -> io::Result<()> {
    let runtime = Builder::new_current_thread()
        .enable_all()
        .event_interval(EVENT_INTERVAL)
        .build_local(LocalOptions::default())?;
    runtime.block_on(Driver::new(&setup).serve(setup));
    Ok(())
}

struct Driver {
    shard: RefCell<Shard>,
    links: RefCell<Links>,
    /// The read buffer that all links of the shard share.
    scratch: RefCell<Vec<u8>>,
    pipe: RefCell<Option<Sender<Request>>>,
    calls: RefCell<HashMap<u64, oneshot::Sender<Answered>>>,
    next_call: Cell<u64>,
    auth: Arc<Authenticator>,
    gate: Arc<Gate>,
    presence: Arc<Lookup>,
    load: Arc<AtomicUsize>,
    flush: Notify,
    timer: Notify,
    /// When the timer goes off.
    wakes_ms: Cell<u64>,
    pipe_full: Cell<bool>,
    drained: RefCell<Option<oneshot::Sender<()>>>,
    delivered: metrics::Counter,
    received: metrics::Counter,
}

/// The links of a shard, by the index of their connection.
#[derive(Default)]
struct Links {
    /// Apart from the rest, because the fan-out needs nothing else of them.
    links: Vec<Option<Box<dyn Link>>>,
    entries: Vec<Option<Entry>>,
    /// Links that failed while something was sent.
    failed: Vec<u32>,
}

struct Entry {
    waker: Option<Waker>,
    address: Address,
    over: bool,
}

impl Sockets for Links {
    fn send(&mut self, peer: u32, lane: Lane, frames: &[u8]) -> usize {
        let Some(Some(link)) = self.links.get_mut(peer as usize) else { return frames.len() };
        match link.send(lane, frames) {
            Ok(taken) => taken,
            Err(_) => {
                self.failed.push(peer);
                frames.len()
            }
        }
    }
}

impl Links {
    fn get(&mut self, peer: u32) -> Option<&mut Entry> {
        self.entries.get_mut(peer as usize)?.as_mut()
    }

    fn link(&mut self, peer: u32) -> Option<&mut dyn Link> {
        Some(&mut **self.links.get_mut(peer as usize)?.as_mut()?)
    }

    fn insert(&mut self, peer: u32, link: Box<dyn Link>, address: Address) {
        let index = peer as usize;
        if self.entries.len() <= index {
            self.entries.resize_with(index + 1, || None);
            self.links.resize_with(index + 1, || None);
        }
        self.links[index] = Some(link);
        self.entries[index] = Some(Entry { waker: None, address, over: false });
    }

    fn remove(&mut self, peer: u32) -> Option<Entry> {
        self.links.get_mut(peer as usize)?.take();
        self.entries.get_mut(peer as usize)?.take()
    }

    fn wake(&mut self, peer: u32) {
        if let Some(waker) = self.get(peer).and_then(|entry| entry.waker.as_ref()) {
            waker.wake_by_ref();
        }
    }
}

impl Driver {
    fn new(setup: &Setup) -> Rc<Self> {
        let shard = Shard::new(
            Arc::clone(&setup.config),
            Arc::clone(&setup.auth),
            Arc::clone(&setup.gate),
            setup.seed,
            Now::read(),
        );
        Rc::new(Self {
            shard: RefCell::new(shard),
            links: RefCell::default(),
            scratch: RefCell::default(),
            pipe: RefCell::default(),
            calls: RefCell::default(),
            next_call: Cell::new(0),
            auth: Arc::clone(&setup.auth),
            gate: Arc::clone(&setup.gate),
            presence: Arc::clone(&setup.presence),
            load: Arc::clone(&setup.load),
            flush: Notify::new(),
            timer: Notify::new(),
            wakes_ms: Cell::new(u64::MAX),
            pipe_full: Cell::new(false),
            drained: RefCell::default(),
            delivered: metrics::counter!("chappe_gateway_deliveries_total"),
            received: metrics::counter!("chappe_gateway_messages_received_total"),
        })
    }

    async fn serve(self: Rc<Self>, setup: Setup) {
        let Setup { broker, mut jobs, stop, keeps_keys, auth, .. } = setup;
        spawn_local(Rc::clone(&self).keep_pipe(broker));
        // A flush touches thousands of sockets: tokio's budget would stop it in the middle.
        spawn_local(unconstrained(Rc::clone(&self).keep_flushing()));
        spawn_local(Rc::clone(&self).keep_time());
        if keeps_keys {
            spawn_local(async move { auth.keep_fresh().await });
        }
        loop {
            tokio::select! {
                biased;
                () = stop.notified() => return,
                job = jobs.recv() => match job {
                    Some(job) => self.take(job),
                    None => return, // nobody can hand anything over any more
                },
            }
        }
    }

    fn take(self: &Rc<Self>, job: Job) {
        match job {
            Job::Connect(peer, make) => self.connect(peer, make),
            Job::Call(peer, errand, answer) => self.call(peer, errand, answer),
            Job::Drain(over_ms, drained) => {
                *self.drained.borrow_mut() = Some(drained);
                self.feed(|shard, _| shard.drain(over_ms));
            }
        }
    }

    fn connect(self: &Rc<Self>, address: IpAddr, make: MakeLink) {
        let address = Address::from(address);
        let link = match make() {
            Ok(link) => link,
            Err(error) => {
                tracing::debug!(%error, "a connection was over before it began");
                self.gate.disconnect(address);
                self.load.fetch_sub(1, Ordering::Relaxed);
                return;
            }
        };
        let about = link.describe();
        let (encoding, framing) = (about.encoding, about.framing);
        let (lanes, token) = (about.channel_lanes, about.token.clone());
        let mut link = Some(link);
        let mut index = 0;
        self.feed(|shard, links| {
            index = shard.handle_connect(address, encoding, framing, lanes, token);
            if let Some(link) = link.take() {
                links.insert(index, link, address);
            }
        });
        spawn_local(Connection { driver: Rc::clone(self), peer: index });
    }

    fn call(self: &Rc<Self>, address: IpAddr, errand: Errand, answer: oneshot::Sender<Answered>) {
        let call = self.next_call.get();
        self.next_call.set(call + 1);
        self.calls.borrow_mut().insert(call, answer);
        self.feed(|shard, _| shard.handle_call(call, Address::from(address), errand));
    }

    /// Feeds the shard something and does what it asks for then.
    fn feed(self: &Rc<Self>, input: impl FnOnce(&mut Shard, &mut Links)) {
        let shard = &mut *self.shard.borrow_mut();
        let links = &mut *self.links.borrow_mut();
        shard.handle_time(Now::read());
        input(shard, links);
        self.carry_out(shard, links);
    }

    fn carry_out(self: &Rc<Self>, shard: &mut Shard, links: &mut Links) {
        loop {
            while let Some(effect) = shard.poll_effect() {
                self.do_one(shard, links, effect);
            }
            while let Some(peer) = shard.poll_blocked() {
                links.wake(peer); // its task asks the link when it takes more
            }
            match links.failed.pop() {
                Some(peer) => self.end(links, peer),
                None => break,
            }
        }
        self.send_requests(shard);
        self.delivered.increment(shard.take_delivered());
        if shard.needs_flush() {
            self.flush.notify_one();
        }
        if shard.next_wake_ms().is_some_and(|at_ms| at_ms < self.wakes_ms.get()) {
            self.timer.notify_one();
        }
        if shard.is_drained() {
            self.drained.borrow_mut().take(); // dropped: nothing is left
        }
    }

    fn do_one(self: &Rc<Self>, shard: &mut Shard, links: &mut Links, effect: Effect) {
        match effect {
            Effect::SignedIn(peer) => {
                if let Some(link) = links.link(peer) {
                    link.signed_in();
                }
            }
            Effect::AwaitKeys(peer) => self.await_keys(peer),
            Effect::Wake(peer) => links.wake(peer),
            Effect::Close(peer, code) => {
                if let Some(link) = links.link(peer) {
                    link.close(code, code.name());
                }
                links.wake(peer);
            }
            Effect::Drop(peer) if links.get(peer).is_some() => self.end(links, peer),
            Effect::Drop(peer) => shard.handle_gone(peer),
            Effect::LookUp { peer, serial, users } => self.look_up(shard, peer, serial, users),
            Effect::Answer(call, result) => {
                if let Some(answer) = self.calls.borrow_mut().remove(&call) {
                    let _ = answer.send(*result); // nobody waits for it any more
                }
            }
        }
    }

    /// Has a connection's task find that it is over.
    fn end(&self, links: &mut Links, peer: u32) {
        if let Some(entry) = links.get(peer) {
            entry.over = true;
        }
        links.wake(peer);
    }

    /// Asks who is connected, elsewhere: this thread does not wait.
    fn look_up(self: &Rc<Self>, shard: &mut Shard, peer: u32, serial: u64, users: Vec<UserId>) {
        let asking = match self.presence.begin(users) {
            Begun::Found(found) => return shard.handle_presence(peer, serial, found),
            Begun::Asking(asking) => asking,
        };
        let driver = Rc::clone(self);
        spawn_local(async move {
            let found = asking.await.unwrap_or(Found::Unknown);
            driver.feed(|shard, _| shard.handle_presence(peer, serial, found));
        });
    }

    fn await_keys(self: &Rc<Self>, peer: u32) {
        let driver = Rc::clone(self);
        spawn_local(async move {
            driver.auth.refresh().await;
            driver.feed(|shard, _| shard.handle_keys(peer));
        });
    }

    /// Sends what the shard asks of the leaders, and wakes them once.
    fn send_requests(&self, shard: &mut Shard) {
        let pipe = self.pipe.borrow();
        let Some(pipe) = &*pipe else { return };
        let mut sent = false;
        self.pipe_full.set(false);
        while let Some(request) = shard.poll_request() {
            let weight = weight::of_request(&request);
            match pipe.send_quietly(request, weight) {
                Ok(()) => sent = true,
                // Sent again with the next event or in a moment; or never, once the end is heard.
                Err(SendError::Full(request) | SendError::Closed(request)) => {
                    shard.return_request(request);
                    self.pipe_full.set(true);
                    self.timer.notify_one();
                    break;
                }
            }
        }
        if sent {
            pipe.wake();
        }
    }
}

/// Tasks run before sockets are looked at again: tokio's own default.
const EVENT_INTERVAL: u32 = 61;

/// What the task of a connection weighs.
#[cfg(test)]
pub(super) const TASK_BYTES: usize = size_of::<Connection>();
/// What a link weighs beside its own.
#[cfg(test)]
pub(super) const LINK_ENTRY_BYTES: usize = size_of::<Option<Entry>>();
