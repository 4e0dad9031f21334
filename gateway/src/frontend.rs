//! What the kernel gives a frontend: the way in.

use std::{fmt, future::Future, io, net::IpAddr};

use chappe_protocol::{Command, Nonce, WireError, reply::Reply};

use crate::link::Link;

/// Makes a link on the thread of the shard that will own it, so that its socket is registered
/// with that shard's own driver.
pub type MakeLink = Box<dyn FnOnce() -> io::Result<Box<dyn Link>> + Send>;

/// The kernel would not take a connection. The frontend says so in its transport's words.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum ConnectRefused {
    /// It is about to stop.
    #[error("the gateway is draining")]
    Draining,
    /// It has as many connections as it may, in all or from this address, or they come too fast.
    #[error("too many connections")]
    TooMany,
}

/// One command without a connection, as REST brings it.
#[derive(Clone)]
pub struct Call {
    /// The bearer token or API key.
    pub token: String,
    /// Where it comes from.
    pub peer: IpAddr,
    /// The `Idempotency-Key`.
    pub nonce: Option<Nonce>,
    /// How long ago the first attempt was made, in milliseconds.
    pub age_ms: u64,
    /// What is asked. Sessions' own commands (`hello`, `subscribe`, …) are refused.
    pub command: Command,
}

impl fmt::Debug for Call {
    /// Without the token, which belongs into no log.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { token: _, peer, nonce: _, age_ms, command } = self;
        f.debug_struct("Call")
            .field("peer", peer)
            .field("age_ms", age_ms)
            .field("command", &command.name())
            .finish_non_exhaustive()
    }
}

/// The kernel, as a frontend sees it. Cheap to clone.
pub trait Kernel: Clone + Send + Sync + 'static {
    /// Whether a handshake from this address may begin. A frontend asks as soon as it knows the
    /// address, before it spends anything on TLS or HTTP; each call counts towards the address's
    /// rate of handshakes.
    fn admit(&self, peer: IpAddr) -> Result<(), ConnectRefused> {
        let _ = peer;
        Ok(())
    }

    /// Hands a connection over to a shard, which drives it to its end.
    ///
    /// `peer` counts towards its address's limits.
    fn connect(&self, peer: IpAddr, make: MakeLink) -> Result<(), ConnectRefused>;

    /// Carries out one command.
    fn call(&self, call: Call) -> impl Future<Output = Result<Reply, WireError>> + Send;

    /// Closes a user's sessions on every gateway. For back ends with an API key.
    fn close_sessions(
        &self,
        token: String,
        user: chappe_protocol::UserId,
    ) -> impl Future<Output = Result<Reply, WireError>> + Send;

    /// Whether a browser page of this `Origin` may connect.
    fn origin_allowed(&self, origin: &str) -> bool;
}
