//! The Rust client of Chappe.
//!
//! [`Client`] signs in over WebSocket or QUIC, connects again when the connection is lost,
//! resumes every channel where it stopped, and retries commands by their nonce, so that what it
//! says once happens once. [`Events`] gives every channel's revisions in order and without a gap.
//!
//! ```no_run
//! use chappe_client::{Client, Options, Update};
//! use chappe_protocol::{ChannelName, Text, command::ChannelFrom};
//!
//! # async fn example() -> Result<(), Box<dyn std::error::Error>> {
//! let options = Options::new("ws://127.0.0.1:7400", std::env::var("CHAPPE_TOKEN")?)?;
//! let (client, mut events) = Client::connect(options).await?;
//!
//! let general = client.find_channel(ChannelName::parse("general")?).await?.channel.id;
//! client.join(general).await?;
//! client.subscribe_to(ChannelFrom { id: general, from: None }).await?;
//! client.send_text(general, Text::parse("hello")?).await?;
//!
//! while let Some(update) = events.next().await {
//!     if let Update::Event(event) = update
//!         && let Some(text) = event.message().and_then(|message| message.text.as_ref())
//!     {
//!         println!("{text}");
//!         break;
//!     }
//! }
//! client.close().await;
//! # Ok(())
//! # }
//! ```
//!
//! Underneath, [`Session`] is the same without a task of its own, for programs that drive
//! thousands of them, and [`Connection`] is one signed-in link that remembers nothing, for tests.
#![warn(missing_docs)]

mod ask;
mod client;
mod clock;
mod connection;
mod dial;
mod error;
mod link;
mod options;
mod session;
mod target;
mod token;
mod trust;

pub use ask::Ask;
pub use client::{Client, Events};
pub use connection::{Connection, Frame};
pub use dial::Dialer;
pub use error::{Closed, Error};
pub use options::Options;
pub use session::{Anomaly, Answer, Backoff, Connected, Next, Session, Ticket, Update};
pub use target::{Scheme, Target};
pub use token::{Token, TokenSource};
pub use trust::{Fingerprint, Trust};
