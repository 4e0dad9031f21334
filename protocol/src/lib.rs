//! The wire contract between Chappe and its clients.
//!
//! Ids, frames, their two encodings, the numbered error and close codes and the limits.
//! Everything here is plain data: no I/O, no clock, no runtime, so that a client, a gateway
//! and a test share one definition of every byte.
#![warn(missing_docs)]

pub mod code;
pub mod codec;
pub mod command;
pub mod cursor;
pub mod event;
pub mod frame;
pub mod id;
pub mod limits;
pub mod message;
pub mod reply;
mod rule;
pub mod value;

pub use code::{CloseCode, ErrorCode, Retry};
pub use codec::{DecodeError, Encoding};
pub use command::Command;
pub use cursor::Cursor;
pub use event::{Event, EventBody};
pub use frame::{ClientFrame, ServerFrame, WireError};
pub use id::{ChannelId, Incarnation, PartitionId, Rev, Seq, SessionId, UserId};
pub use message::Message;
pub use value::{ChannelName, Data, Emoji, Nonce, Text, Topic};
