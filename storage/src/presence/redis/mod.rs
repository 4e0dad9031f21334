//! The presence of a cluster: leases and users in Redis.
//!
//! ```text
//!   {PREFIX}:leases       sorted set   gateway -> when its lease ends, in ms of the server's clock;
//!                                      ends with the last of them
//!   {PREFIX}:lease:G      string       the lease's token; ends with it
//!   {PREFIX}:users:G      set          the gateway's users; ends with it
//! ```
//!
//! All that a gateway wrote ends with its lease, by itself; there is nothing to reap. A user is
//! online while he is in the set of any gateway, so a question costs the server one look for each
//! gateway. What a gateway watches it remembers here, in its own process.
//!
//! The server is Redis 6.2 or newer, or Valkey, and must not evict keys (`noeviction`): users would
//! be offline until their gateway's next lease.
//!
//! A lease has a token, drawn anew whenever one is begun, so that one begun by a call whose answer
//! was lost is not taken for the one before it. Redis gone is an error within the time of a call;
//! connections are made again by the calls that find none.

mod connection;

#[cfg(test)]
mod tests;

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use chappe_protocol::UserId;
use redis::aio::MultiplexedConnection;
use redis::{FromRedisValue, RedisResult, Script, Value};

use super::memory::PresenceLimits;
use super::{GatewayId, Presence, PresenceChange, PresenceError};
use connection::Server;

/// Presence in a Redis server, shared by all processes that use the same prefix.
#[derive(Debug)]
pub struct RedisPresence {
    server: Server,
    prefix: String,
    limits: PresenceLimits,
    scripts: Scripts,
    /// The leases that this process holds.
    leases: Mutex<HashMap<GatewayId, Lease>>,
    /// The gateways that had a lease when last asked.
    gateways: Mutex<Vec<u64>>,
}

/// Where Redis is, and how it is used.
#[derive(Clone)]
pub struct RedisOptions {
    /// `redis://[user:password@]host:port[/database]`, or `rediss://…` over TLS, which trusts the
    /// machine's authorities or those in the file that `SSL_CERT_FILE` names.
    pub url: String,
    /// What all keys begin with.
    pub prefix: String,
    /// A call fails after this time.
    pub call: Duration,
    /// How much may be held.
    pub limits: PresenceLimits,
}

impl RedisOptions {
    /// The server at `url` with the default prefix and limits.
    pub fn at(url: impl Into<String>) -> Self {
        Self {
            url: url.into(),
            prefix: "chappe".to_owned(),
            call: Duration::from_secs(2),
            limits: PresenceLimits::default(),
        }
    }
}

/// What is wrong with the options.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum RedisOptionsError {
    /// Not an address of a Redis server.
    #[error("the url is not redis://host:port or rediss://host:port")]
    Url,
}

impl RedisPresence {
    /// Presence in a server, which is not connected to yet.
    pub fn new(options: RedisOptions) -> Result<Self, RedisOptionsError> {
        // Leases and users of one prefix are asked for together: the braces keep them together in a
        // server that shards by key.
        Ok(Self {
            server: Server::at(options.url, options.call)?,
            prefix: format!("{{{}}}", options.prefix),
            limits: options.limits,
            scripts: Scripts::default(),
            leases: Mutex::default(),
            gateways: Mutex::default(),
        })
    }

    /// Whether the server answers.
    pub async fn check(&self) -> Result<(), PresenceError> {
        let ping = |mut server| async move { redis::cmd("PING").query_async(&mut server).await };
        self.server.call(ping).await
    }

    fn leases_key(&self) -> String {
        format!("{}:leases", self.prefix)
    }

    fn lease_key(&self, gateway: GatewayId) -> String {
        format!("{}:lease:{}", self.prefix, gateway.0)
    }

    fn users_key(&self, gateway: u64) -> String {
        format!("{}:users:{gateway}", self.prefix)
    }

    /// The token of the lease that this process holds for a gateway, if it ever began one.
    fn token(&self, gateway: GatewayId) -> Result<u64, PresenceError> {
        lock(&self.leases).get(&gateway).map(|lease| lease.token).ok_or_else(no_lease)
    }

    /// Whether each user is online, in the order asked.
    async fn ask(
        &self,
        mut server: MultiplexedConnection,
        users: &[UserId],
    ) -> RedisResult<Vec<bool>> {
        let mut online = Vec::with_capacity(users.len());
        for part in users.chunks(USERS_ASKED) {
            online.extend(self.ask_part(&mut server, part).await?);
        }
        Ok(online)
    }

    async fn ask_part(
        &self,
        server: &mut MultiplexedConnection,
        users: &[UserId],
    ) -> RedisResult<Vec<bool>> {
        for _ in 0..ASKED_AGAIN_MAX {
            let gateways = lock(&self.gateways).clone();
            let mut script = self.scripts.online.prepare_invoke();
            script.key(self.leases_key());
            for gateway in gateways {
                script.key(self.users_key(gateway)).arg(gateway);
            }
            for user in users {
                script.arg(user.get());
            }
            match script.invoke_async(server).await? {
                Value::Array(gateways) => {
                    *lock(&self.gateways) = u64::from_redis_values(gateways)?;
                }
                answer => {
                    let online: Vec<u8> = FromRedisValue::from_redis_value(answer)?;
                    return Ok(online.into_iter().map(|is| is == b'1').collect());
                }
            }
        }
        Err((redis::ErrorKind::Client, "gateways come faster than they can be asked about").into())
    }
}

#[async_trait]
impl Presence for RedisPresence {
    async fn renew(&self, gateway: GatewayId, ttl: Duration) -> Result<bool, PresenceError> {
        let next = random()?;
        // Where none is held, the new one is surely not the one that is stored.
        let held = self.token(gateway).unwrap_or(next);
        let mut script = self.scripts.renew.prepare_invoke();
        script.key(self.leases_key()).key(self.lease_key(gateway)).key(self.users_key(gateway.0));
        script.arg(gateway.0).arg(held).arg(next);
        script.arg(ttl.min(LEASE_MAX).as_millis().max(1) as u64).arg(self.limits.gateways_max);
        let renew = |mut server| async move { script.invoke_async(&mut server).await };
        match self.server.call::<i64, _, _>(renew).await? {
            1 => Ok(true),
            0 => {
                lock(&self.leases).insert(gateway, Lease { token: next, seen: HashMap::new() });
                Ok(false)
            }
            _ => Err(too_many(self.limits.gateways_max, "gateways")),
        }
    }

    async fn update(
        &self,
        gateway: GatewayId,
        entered: &[UserId],
        left: &[UserId],
    ) -> Result<(), PresenceError> {
        let token = self.token(gateway)?;
        if entered.len() + left.len() > UPDATED_MAX {
            return Err(too_many(UPDATED_MAX, "users in one update"));
        }
        let max = self.limits.users_per_gateway_max;
        let mut script = self.scripts.update.prepare_invoke();
        script.key(self.lease_key(gateway)).key(self.users_key(gateway.0));
        script.arg(token).arg(max).arg(entered.len());
        for user in entered.iter().chain(left) {
            script.arg(user.get());
        }
        let update = |mut server| async move { script.invoke_async(&mut server).await };
        match self.server.call::<i64, _, _>(update).await? {
            1 => Ok(()),
            0 => Err(no_lease()),
            _ => Err(too_many(max, "users of one gateway")),
        }
    }

    async fn end(&self, gateway: GatewayId) -> Result<(), PresenceError> {
        let mut end = redis::pipe();
        end.atomic().zrem(self.leases_key(), gateway.0).ignore();
        end.del(&[self.lease_key(gateway), self.users_key(gateway.0)]).ignore();
        self.server.call(|mut server| async move { end.exec_async(&mut server).await }).await?;
        lock(&self.leases).remove(&gateway);
        Ok(())
    }

    async fn online(&self, users: &[UserId]) -> Result<Vec<bool>, PresenceError> {
        self.server.call(|server| self.ask(server, users)).await
    }

    async fn changes(
        &self,
        gateway: GatewayId,
        users: &[UserId],
    ) -> Result<Vec<PresenceChange>, PresenceError> {
        let token = self.token(gateway)?;
        let max = self.limits.watched_per_gateway_max;
        if users.len() > max {
            return Err(too_many(max, "watched users of one gateway"));
        }
        let lease = self.lease_key(gateway);
        let ask = |mut server: MultiplexedConnection| async move {
            let held: Option<u64> = redis::cmd("GET").arg(lease).query_async(&mut server).await?;
            if held == Some(token) { self.ask(server, users).await.map(Some) } else { Ok(None) }
        };
        let online = self.server.call(ask).await?.ok_or_else(no_lease)?;
        let mut leases = lock(&self.leases);
        // It may have begun anew meanwhile, and then it watched nobody.
        let lease = leases.get_mut(&gateway).filter(|lease| lease.token == token);
        let lease = lease.ok_or_else(no_lease)?;
        let seen = users.iter().copied().zip(online).collect();
        let before = std::mem::replace(&mut lease.seen, seen);
        let changed = lease
            .seen
            .iter()
            .filter(|(user, online)| before.get(*user).is_some_and(|before| before != *online));
        Ok(changed.map(|(user, online)| PresenceChange { user: *user, online: *online }).collect())
    }
}

#[derive(Debug)]
struct Lease {
    token: u64,
    /// The watched users, and whether each was online at the last call.
    seen: HashMap<UserId, bool>,
}

#[derive(Debug)]
struct Scripts {
    renew: Script,
    update: Script,
    online: Script,
}

impl Default for Scripts {
    fn default() -> Self {
        Self {
            renew: Script::new(include_str!("renew.lua")),
            update: Script::new(include_str!("update.lua")),
            online: Script::new(include_str!("online.lua")),
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn random() -> Result<u64, PresenceError> {
    getrandom::u64().map_err(|error| PresenceError(error.to_string()))
}

fn too_many(max: usize, what: &str) -> PresenceError {
    PresenceError(format!("more than {max} {what}"))
}

fn no_lease() -> PresenceError {
    PresenceError("the gateway has no lease".to_owned())
}

/// Longer leases are cut to this: they would hide a dead gateway for too long.
const LEASE_MAX: Duration = Duration::from_secs(24 * 60 * 60);
/// Users in one question: the server does nothing else while it answers.
const USERS_ASKED: usize = 1000;
/// Users in one update, which is done as a whole.
const UPDATED_MAX: usize = 1 << 17;
/// How often gateways may appear between a question and its repetition.
const ASKED_AGAIN_MAX: u32 = 5;
