//! The one connection to the server, shared by all calls, and made again when it fails.
//!
//! A call that does not come back in its time gives the connection up, too: behind a network that
//! swallows everything it would look alive for minutes. While the server is gone, calls fail at
//! once but for one every [`PAUSE`], which tries to connect.

use std::fmt;
use std::future::Future;
use std::sync::Mutex;
use std::time::Duration;

use redis::aio::MultiplexedConnection;
use redis::{AsyncConnectionConfig, Client, RedisResult};
use tokio::sync::Mutex as AsyncMutex;
use tokio::time::{Instant, timeout_at};

use super::super::PresenceError;
use super::{RedisOptionsError, lock};

pub(super) struct Server {
    client: Client,
    call: Duration,
    link: Mutex<Link>,
    /// Held by the call that connects; not to be tried again before this time.
    next_try: AsyncMutex<Instant>,
}

#[derive(Default)]
struct Link {
    connection: Option<MultiplexedConnection>,
    /// How many connections there were, so that a late failure does not end the next one.
    number: u64,
}

impl Server {
    pub(super) fn at(url: String, call: Duration) -> Result<Self, RedisOptionsError> {
        // TLS takes what the process has.
        let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
        let client = Client::open(url).map_err(|_| RedisOptionsError::Url)?;
        Ok(Self { client, call, link: Mutex::default(), next_try: AsyncMutex::new(Instant::now()) })
    }

    /// Does something with the connection, in the time of a call.
    pub(super) async fn call<T, A, F>(&self, ask: A) -> Result<T, PresenceError>
    where
        A: FnOnce(MultiplexedConnection) -> F,
        F: Future<Output = RedisResult<T>>,
    {
        let end = Instant::now() + self.call;
        let connected = timeout_at(end, self.connected()).await;
        let (connection, number) = connected.map_err(|_| silent())??;
        match timeout_at(end, ask(connection)).await {
            Ok(Ok(answer)) => Ok(answer),
            Ok(Err(error)) => {
                if error.is_unrecoverable_error() {
                    self.give_up(number);
                }
                Err(PresenceError(error.to_string()))
            }
            Err(_) => {
                self.give_up(number);
                Err(silent())
            }
        }
    }

    async fn connected(&self) -> Result<(MultiplexedConnection, u64), PresenceError> {
        if let Some(found) = self.connection() {
            return Ok(found);
        }
        let mut next_try = self.next_try.lock().await;
        if let Some(found) = self.connection() {
            return Ok(found);
        }
        if Instant::now() < *next_try {
            return Err(PresenceError("the server was not to be reached just now".to_owned()));
        }
        *next_try = Instant::now() + PAUSE; // before the try, which may be dropped
        // Ours is the time that counts.
        let config =
            AsyncConnectionConfig::new().set_connection_timeout(None).set_response_timeout(None);
        let made = self.client.get_multiplexed_async_connection_with_config(&config).await;
        let connection = made.map_err(|error| PresenceError(error.to_string()))?;
        let mut link = lock(&self.link);
        link.number += 1;
        link.connection = Some(connection.clone());
        Ok((connection, link.number))
    }

    fn connection(&self) -> Option<(MultiplexedConnection, u64)> {
        let link = lock(&self.link);
        link.connection.clone().map(|connection| (connection, link.number))
    }

    fn give_up(&self, number: u64) {
        let mut link = lock(&self.link);
        if link.number == number {
            link.connection = None;
        }
    }
}

impl fmt::Debug for Server {
    /// Without the client, which holds the password.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Server").field("call", &self.call).finish_non_exhaustive()
    }
}

fn silent() -> PresenceError {
    PresenceError("the server did not answer in time".to_owned())
}

/// Between two tries to connect.
const PAUSE: Duration = Duration::from_millis(250);
