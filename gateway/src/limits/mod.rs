//! What one connection, user, channel, address and process may use.
//!
//! Rates are counted by cost and shared by all shards of the process. They say how long to wait;
//! who does not listen is closed by its session.

mod bucket;

use std::{
    collections::{HashMap, HashSet},
    hash::Hash,
    net::IpAddr,
    sync::{
        Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
};

use chappe_protocol::{ChannelId, Command, UserId, command::Channels};

pub(crate) use self::bucket::Bucket;
use crate::{
    config::{Limits, Rate},
    frontend::ConnectRefused,
};

/// Who counts as one address: an IPv4 address, or a /64 of IPv6, which is what one host has.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct Address(u64);

impl From<IpAddr> for Address {
    fn from(address: IpAddr) -> Self {
        match address.to_canonical() {
            IpAddr::V4(v4) => Self(u64::from(v4.to_bits())),
            // No /64 that is routed begins with 32 zero bits, so the two never meet.
            IpAddr::V6(v6) => Self((v6.to_bits() >> 64) as u64),
        }
    }
}

/// The limits of a process and what is used of them.
#[derive(Debug)]
pub(crate) struct Gate {
    limits: Limits,
    connections: AtomicUsize,
    draining: AtomicBool,
    addresses: Mutex<HashMap<Address, Use>>,
    users: Mutex<Users>,
    channels: Mutex<HashMap<ChannelId, Bucket>>,
}

/// What an address or a user uses.
#[derive(Debug, Clone, Copy, Default)]
struct Use {
    connections: usize,
    handshakes: Bucket,
    commands: Bucket,
}

#[derive(Debug, Default)]
struct Users {
    using: HashMap<UserId, Use>,
    /// Users who came or went since presence was told.
    changed: HashSet<UserId>,
    /// There were more of them than are remembered: presence has to begin anew.
    lost_track: bool,
    presence: bool,
}

impl Users {
    fn note_changed(&mut self, user: UserId) {
        if !self.presence {
            return;
        }
        if self.changed.len() >= TRACKED_MAX {
            self.changed.clear();
            self.lost_track = true;
        }
        self.changed.insert(user);
    }
}

impl Gate {
    pub(crate) fn new(limits: Limits) -> Self {
        Self {
            limits,
            connections: AtomicUsize::new(0),
            draining: AtomicBool::new(false),
            addresses: Mutex::default(),
            users: Mutex::default(),
            channels: Mutex::default(),
        }
    }

    /// Whether a handshake from this address may begin.
    pub(crate) fn admit(&self, address: Address, now_ms: u64) -> Result<(), ConnectRefused> {
        if self.draining.load(Ordering::Acquire) {
            return Err(ConnectRefused::Draining);
        }
        if self.connections.load(Ordering::Relaxed) >= self.limits.connections {
            return Err(ConnectRefused::TooMany);
        }
        let mut addresses = lock(&self.addresses);
        forget_unused(&mut addresses, now_ms);
        let used = addresses.entry(address).or_default();
        if used.connections >= self.limits.connections_per_address {
            return Err(ConnectRefused::TooMany);
        }
        match self.limits.handshakes {
            Some(rate) => {
                used.handshakes.take(rate, 1, now_ms).map_err(|_| ConnectRefused::TooMany)
            }
            None => Ok(()),
        }
    }

    /// Counts a connection.
    pub(crate) fn connect(&self, address: Address) -> Result<(), ConnectRefused> {
        if self.draining.load(Ordering::Acquire) {
            return Err(ConnectRefused::Draining);
        }
        let mut addresses = lock(&self.addresses);
        let used = addresses.entry(address).or_default();
        if used.connections >= self.limits.connections_per_address {
            return Err(ConnectRefused::TooMany);
        }
        if self.connections.fetch_add(1, Ordering::AcqRel) >= self.limits.connections {
            self.connections.fetch_sub(1, Ordering::AcqRel);
            return Err(ConnectRefused::TooMany);
        }
        used.connections += 1;
        Ok(())
    }

    /// A connection that was counted ended.
    pub(crate) fn disconnect(&self, address: Address) {
        self.connections.fetch_sub(1, Ordering::AcqRel);
        if let Some(used) = lock(&self.addresses).get_mut(&address) {
            used.connections -= 1;
        }
    }

    /// Connections that are counted now.
    pub(crate) fn connections(&self) -> usize {
        self.connections.load(Ordering::Acquire)
    }

    /// From now on nobody may connect.
    pub(crate) fn drain(&self) {
        self.draining.store(true, Ordering::Release);
    }

    /// Counts a session of a user. Returns whether he may have one more.
    pub(crate) fn sign_in(&self, user: UserId, now_ms: u64) -> bool {
        let mut users = lock(&self.users);
        forget_unused(&mut users.using, now_ms);
        let used = users.using.entry(user).or_default();
        if used.connections >= self.limits.connections_per_user {
            return false;
        }
        used.connections += 1;
        if used.connections == 1 {
            users.note_changed(user);
        }
        true
    }

    /// A session that was counted ended.
    pub(crate) fn sign_out(&self, user: UserId) {
        let mut users = lock(&self.users);
        let Some(used) = users.using.get_mut(&user) else { return };
        used.connections -= 1;
        if used.connections == 0 {
            users.note_changed(user);
        }
    }

    /// Takes the users who came or went since the last call, each with whether he is here now, and
    /// with `all` those who are here beside them. The first call gives all who are here.
    pub(crate) fn take_changed(&self, all: bool) -> Vec<(UserId, bool)> {
        let mut users = lock(&self.users);
        let mut changed = std::mem::take(&mut users.changed);
        if !std::mem::replace(&mut users.presence, true) || all {
            let here = users.using.iter().filter(|(_, used)| used.connections > 0);
            changed.extend(here.map(|(user, _)| *user));
        }
        let here = |user: &UserId| users.using.get(user).is_some_and(|used| used.connections > 0);
        changed.into_iter().map(|user| (user, here(&user))).collect()
    }

    /// Gives back what was taken and could not be told: the next call takes it again.
    pub(crate) fn return_changed(&self, taken: &[(UserId, bool)]) {
        let users = &mut *lock(&self.users);
        taken.iter().for_each(|(user, _)| users.note_changed(*user));
    }

    /// Whether some who came or went were forgotten, because presence could not be told for so
    /// long. Asked once.
    pub(crate) fn take_lost_track(&self) -> bool {
        std::mem::take(&mut lock(&self.users).lost_track)
    }

    /// What follows from that could not be done.
    pub(crate) fn return_lost_track(&self) {
        lock(&self.users).lost_track = true;
    }

    /// Charges a command to all who may ask too much. Says how long to wait if one of them did.
    pub(crate) fn charge(
        &self,
        connection: &mut Bucket,
        user: UserId,
        address: Address,
        command: &Command,
        now_ms: u64,
    ) -> Result<(), u64> {
        let cost = cost(command);
        let rates = &self.limits.rates;
        if let Some(rate) = rates.connection {
            connection.take(rate, cost, now_ms)?;
        }
        if let Some(rate) = rates.user {
            let mut users = lock(&self.users);
            take(&mut users.using, user, rate, cost, now_ms)?;
        }
        if let Some(rate) = rates.address {
            take(&mut lock(&self.addresses), address, rate, cost, now_ms)?;
        }
        if let Some((rate, channel)) = rates.channel.zip(channel_of(command)) {
            let mut channels = lock(&self.channels);
            if channels.len() >= TRACKED_MAX {
                channels.retain(|_, bucket| !bucket.is_full(now_ms));
            }
            channels.entry(channel).or_default().take(rate, cost, now_ms)?;
        }
        Ok(())
    }
}

/// What a command costs: about what it asks of a leader and of a store.
fn cost(command: &Command) -> u32 {
    match command {
        Command::Pong(_) => 0,
        Command::History(_)
        | Command::ListMembers(_)
        | Command::ListChannels(_)
        | Command::Presence(_) => 10,
        Command::Hello(_) | Command::Refresh(_) | Command::CreateChannel(_) => 5,
        Command::Subscribe(subscribe) => match &subscribe.channels {
            Channels::Mine => 20,
            Channels::These(channels) => channels.len().max(1) as u32,
        },
        _ => 1,
    }
}

/// The channel that a command changes or addresses: what many could flood together.
fn channel_of(command: &Command) -> Option<ChannelId> {
    match command {
        Command::Publish(publish) => Some(publish.channel),
        Command::Edit(edit) => Some(edit.channel),
        Command::Delete(delete) => Some(delete.channel),
        Command::React(react) => Some(react.channel),
        Command::Unreact(unreact) => Some(unreact.channel),
        Command::Typing(typing) => Some(typing.channel),
        Command::Signal(signal) => Some(signal.channel),
        _ => None,
    }
}

fn take<K: Eq + Hash>(
    users: &mut HashMap<K, Use>,
    key: K,
    rate: Rate,
    cost: u32,
    now_ms: u64,
) -> Result<(), u64> {
    users.entry(key).or_default().commands.take(rate, cost, now_ms)
}

/// Forgets those of whom nothing is known any more that could matter, once there are many.
fn forget_unused<K: Eq + Hash>(users: &mut HashMap<K, Use>, now_ms: u64) {
    if users.len() >= TRACKED_MAX && users.len().is_multiple_of(TRACKED_MAX / 16) {
        users.retain(|_, used| {
            let idle = used.handshakes.is_full(now_ms) && used.commands.is_full(now_ms);
            used.connections > 0 || !idle
        });
    }
}

/// A panic elsewhere leaves counters that are at worst one off.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// From this many on, those who use nothing are forgotten.
const TRACKED_MAX: usize = 65_536;
