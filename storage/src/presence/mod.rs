//! The presence port: which users are connected, by the leases of the gateways that hold them.
//!
//! Presence is lossy by design: it says what was true a lease ago at worst. A backend promises
//! that a user whom a gateway entered is online until the gateway takes him out or its lease ends,
//! and that a gateway's end needs no reaper in callers.

#[cfg(any(test, feature = "conformance"))]
pub mod conformance;
#[cfg(feature = "runtime")]
pub mod memory;
#[cfg(feature = "redis")]
pub mod redis;

use std::time::Duration;

use async_trait::async_trait;
use chappe_protocol::UserId;

/// A gateway process, drawn at random when it starts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct GatewayId(pub u64);

/// The backend did not answer: presence is unknown, and nothing else is affected.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("presence is unavailable: {0}")]
pub struct PresenceError(pub String);

/// A user went online or offline.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PresenceChange {
    /// Who.
    pub user: UserId,
    /// Whether any gateway holds him now.
    pub online: bool,
}

/// Who is connected.
#[async_trait]
pub trait Presence: Send + Sync + 'static {
    /// Renews the gateway's lease for `ttl`, and with it all its users'. One call per gateway,
    /// not one per user. A lease that had ended starts again without users.
    ///
    /// Returns whether it was still held: if not, the caller enters its users again.
    async fn renew(&self, gateway: GatewayId, ttl: Duration) -> Result<bool, PresenceError>;

    /// Adds and removes users of a gateway; nobody is in both lists. Fails if the gateway has no
    /// lease. On `Err` nothing or all of it was done; it may be done again.
    async fn update(
        &self,
        gateway: GatewayId,
        entered: &[UserId],
        left: &[UserId],
    ) -> Result<(), PresenceError>;

    /// Ends a gateway's lease, and with it all its users'.
    async fn end(&self, gateway: GatewayId) -> Result<(), PresenceError>;

    /// For each user, whether any gateway with a lease holds him.
    async fn online(&self, users: &[UserId]) -> Result<Vec<bool>, PresenceError>;

    /// The changes of `users` since the last call, or since they were first watched by `gateway`.
    /// A change that was undone in between may be left out.
    ///
    /// Whoever is not among `users` is no longer watched. Fails if the gateway has no lease, with
    /// which all it watched is forgotten: after [`renew`](Self::renew) said so, it asks who is
    /// [`online`](Self::online). To begin, it watches first and asks then.
    async fn changes(
        &self,
        gateway: GatewayId,
        users: &[UserId],
    ) -> Result<Vec<PresenceChange>, PresenceError>;
}
