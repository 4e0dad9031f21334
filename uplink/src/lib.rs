//! The pipe between a gateway and the leaders: what a gateway may ask, and what it hears.
//!
//! A gateway opens pipes; on each, requests go one way and answers, events and heads come the
//! other way. Nothing here says where the leader is: the broker in the same process, one behind a
//! TCP connection and a test's pipe that delays and cuts are all a [`Broker`].
//!
//! A pipe promises:
//!
//! - **Order.** What comes from one partition comes in its order: an answer that shows revision
//!   *n* comes after every attached channel's events up to what that answer rests on.
//! - **At most once.** A request is answered at most once. When the pipe ends, requests without an
//!   answer may or may not have been executed; commands are sent again with their nonces.
//! - **No silent loss.** When events cannot be delivered the pipe ends ([`Receiver::recv`] gives
//!   `None`); it never skips one.
#![warn(missing_docs)]

mod answer;
pub mod codec;
#[cfg(feature = "runtime")]
mod pipe;
#[cfg(feature = "runtime")]
pub mod remote;
mod request;
pub mod status;
#[cfg(feature = "runtime")]
pub mod strain;

pub use answer::{
    Answer, Attached, EventsPage, Generation, Heads, Leading, Refusal, Resolved, Response,
    SignalTo, Start,
};
#[cfg(feature = "runtime")]
pub use pipe::{Broker, Closed, Overview, Receiver, SendError, Sender, pipe};
pub use request::{
    Action, Attach, Caller, Command, Detach, Read, ReadQuery, Relay, RelayKind, Request, Signal,
    Standing,
};
pub use status::{About, GatewayStatus};
