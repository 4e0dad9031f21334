//! The embedded presence: maps in memory, gone with the process, as the connections are.
//!
//! Leases end by the clock of the runtime (`tokio::time`), looked at in every call; nothing runs
//! in the background. Every map has a limit, beyond which a call is refused and changes nothing.

use std::collections::{HashMap, HashSet};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use chappe_protocol::UserId;
use tokio::time::Instant;

use super::{GatewayId, Presence, PresenceChange, PresenceError};

/// Presence within one process.
#[derive(Debug, Default)]
pub struct MemoryPresence {
    limits: PresenceLimits,
    state: Mutex<State>,
}

/// How much may be held.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PresenceLimits {
    /// Gateways with a lease.
    pub gateways_max: usize,
    /// Users of one gateway.
    pub users_per_gateway_max: usize,
    /// Users that one gateway watches.
    pub watched_per_gateway_max: usize,
}

impl Default for PresenceLimits {
    /// Room for every connection that one process can hold.
    fn default() -> Self {
        Self {
            gateways_max: 1024,
            users_per_gateway_max: 1 << 20,
            watched_per_gateway_max: 1 << 20,
        }
    }
}

impl MemoryPresence {
    /// Nobody is connected.
    pub fn new() -> Self {
        Self::default()
    }

    /// The same with other limits.
    pub fn with_limits(limits: PresenceLimits) -> Self {
        Self { limits, state: Mutex::default() }
    }

    /// The state as it is now: without the leases that have ended.
    fn now(&self) -> (MutexGuard<'_, State>, Instant) {
        let now = Instant::now();
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        state.end_leases(now);
        (state, now)
    }
}

#[async_trait]
impl Presence for MemoryPresence {
    async fn renew(&self, gateway: GatewayId, ttl: Duration) -> Result<bool, PresenceError> {
        let (mut state, now) = self.now();
        let ends = now + ttl.min(LEASE_MAX);
        if let Some(lease) = state.leases.get_mut(&gateway) {
            lease.ends = ends;
            return Ok(true);
        }
        within(state.leases.len() + 1, self.limits.gateways_max, "gateways")?;
        state.leases.insert(gateway, Lease::until(ends));
        Ok(false)
    }

    async fn update(
        &self,
        gateway: GatewayId,
        entered: &[UserId],
        left: &[UserId],
    ) -> Result<(), PresenceError> {
        let (mut state, _) = self.now();
        let State { leases, holders } = &mut *state;
        let lease = leases.get_mut(&gateway).ok_or_else(no_lease)?;
        let new: HashSet<_> = entered.iter().filter(|user| !lease.users.contains(user)).collect();
        let gone: HashSet<_> = left.iter().filter(|user| lease.users.contains(user)).collect();
        let users = lease.users.len() + new.len() - gone.len();
        within(users, self.limits.users_per_gateway_max, "users of one gateway")?;
        for user in new {
            lease.users.insert(*user);
            *holders.entry(*user).or_default() += 1;
        }
        for user in gone {
            lease.users.remove(user);
            let_go(holders, *user);
        }
        Ok(())
    }

    async fn end(&self, gateway: GatewayId) -> Result<(), PresenceError> {
        let (mut state, _) = self.now();
        state.end_lease(gateway);
        Ok(())
    }

    async fn online(&self, users: &[UserId]) -> Result<Vec<bool>, PresenceError> {
        let (state, _) = self.now();
        Ok(users.iter().map(|user| state.holders.contains_key(user)).collect())
    }

    async fn changes(
        &self,
        gateway: GatewayId,
        users: &[UserId],
    ) -> Result<Vec<PresenceChange>, PresenceError> {
        let (mut state, _) = self.now();
        let State { leases, holders } = &mut *state;
        let lease = leases.get_mut(&gateway).ok_or_else(no_lease)?;
        within(users.len(), self.limits.watched_per_gateway_max, "watched users of one gateway")?;
        let seen: HashMap<_, _> =
            users.iter().map(|user| (*user, holders.contains_key(user))).collect();
        let before = std::mem::replace(&mut lease.seen, seen);
        let changed = lease
            .seen
            .iter()
            .filter(|(user, online)| before.get(*user).is_some_and(|before| before != *online));
        Ok(changed.map(|(user, online)| PresenceChange { user: *user, online: *online }).collect())
    }
}

#[derive(Debug, Default)]
struct State {
    leases: HashMap<GatewayId, Lease>,
    /// How many gateways hold each user; only those that one does.
    holders: HashMap<UserId, u32>,
}

#[derive(Debug)]
struct Lease {
    ends: Instant,
    users: HashSet<UserId>,
    /// The watched users, and whether each was online at the last call.
    seen: HashMap<UserId, bool>,
}

impl Lease {
    fn until(ends: Instant) -> Self {
        Self { ends, users: HashSet::new(), seen: HashMap::new() }
    }
}

impl State {
    fn end_leases(&mut self, now: Instant) {
        // Gateways are few: a look at each costs less than an index of their ends.
        let ended =
            |(gateway, lease): (&GatewayId, &Lease)| (lease.ends <= now).then_some(*gateway);
        for gateway in self.leases.iter().filter_map(ended).collect::<Vec<_>>() {
            self.end_lease(gateway);
        }
    }

    fn end_lease(&mut self, gateway: GatewayId) {
        let users = self.leases.remove(&gateway).map(|lease| lease.users);
        for user in users.into_iter().flatten() {
            let_go(&mut self.holders, user);
        }
    }
}

fn let_go(holders: &mut HashMap<UserId, u32>, user: UserId) {
    let count = holders.get_mut(&user);
    let count = count.expect("a gateway that has a user is among his holders");
    *count -= 1;
    if *count == 0 {
        holders.remove(&user);
    }
}

fn within(count: usize, max: usize, what: &str) -> Result<(), PresenceError> {
    if count <= max { Ok(()) } else { Err(PresenceError(format!("more than {max} {what}"))) }
}

fn no_lease() -> PresenceError {
    PresenceError("the gateway has no lease".to_owned())
}

/// Longer leases are cut to this: they would hide a dead gateway for too long.
const LEASE_MAX: Duration = Duration::from_secs(24 * 60 * 60);

#[cfg(test)]
mod tests {
    use super::*;
    use crate::presence::conformance::Subject;

    struct MemorySubject(MemoryPresence);

    impl Subject for MemorySubject {
        type Presence = MemoryPresence;

        const TTL: Duration = Duration::from_secs(10);

        async fn new() -> Self {
            tokio::time::pause();
            Self(MemoryPresence::new())
        }

        fn presence(&self) -> &MemoryPresence {
            &self.0
        }

        async fn pass(&self, time: Duration) {
            tokio::time::advance(time).await;
        }
    }

    crate::presence_conformance!(MemorySubject);

    const GATEWAY: GatewayId = GatewayId(1);

    fn users(ids: std::ops::Range<u64>) -> Vec<UserId> {
        ids.map(UserId::new).collect()
    }

    async fn limited() -> MemoryPresence {
        let limits = PresenceLimits {
            gateways_max: 2,
            users_per_gateway_max: 3,
            watched_per_gateway_max: 3,
        };
        let presence = MemoryPresence::with_limits(limits);
        presence.renew(GATEWAY, Duration::from_secs(10)).await.unwrap();
        presence
    }

    #[tokio::test]
    async fn an_update_beyond_the_limit_is_refused_and_changes_nothing() {
        let presence = limited().await;
        presence.update(GATEWAY, &users(0..2), &[]).await.unwrap();
        let refused = presence.update(GATEWAY, &users(2..5), &users(0..1)).await;
        assert_eq!(refused, Err(PresenceError("more than 3 users of one gateway".to_owned())));
        let online = presence.online(&users(0..5)).await.unwrap();
        assert_eq!(online, [true, true, false, false, false]);
        // What leaves makes room, and who is there already takes none.
        presence.update(GATEWAY, &users(1..4), &users(0..1)).await.unwrap();
        let online = presence.online(&users(0..5)).await.unwrap();
        assert_eq!(online, [false, true, true, true, false]);
    }

    #[tokio::test]
    async fn gateways_beyond_the_limit_are_refused_until_one_ends() {
        let presence = limited().await;
        let ttl = Duration::from_secs(10);
        presence.renew(GatewayId(2), ttl).await.unwrap();
        let refused = presence.renew(GatewayId(3), ttl).await;
        assert_eq!(refused, Err(PresenceError("more than 2 gateways".to_owned())));
        presence.end(GatewayId(2)).await.unwrap();
        assert_eq!(presence.renew(GatewayId(3), ttl).await, Ok(false));
    }

    #[tokio::test]
    async fn watching_beyond_the_limit_is_refused() {
        let presence = limited().await;
        assert_eq!(presence.changes(GATEWAY, &users(0..3)).await, Ok(Vec::new()));
        assert!(presence.changes(GATEWAY, &users(0..4)).await.is_err());
    }

    #[tokio::test(start_paused = true)]
    async fn nothing_is_kept_of_a_lease_that_ended() {
        let presence = limited().await;
        presence.update(GATEWAY, &users(0..3), &[]).await.unwrap();
        presence.changes(GATEWAY, &users(0..3)).await.unwrap();
        tokio::time::advance(Duration::from_secs(10)).await;
        assert_eq!(presence.online(&users(0..1)).await, Ok(vec![false]));
        let state = presence.state.lock().unwrap();
        assert_eq!((state.leases.len(), state.holders.len()), (0, 0));
    }
}
