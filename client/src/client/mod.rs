//! The client as applications use it: a handle for commands and a stream of updates, with a
//! [`Session`] in a task behind them.

mod commands;
mod events;
mod task;

use chappe_protocol::{Command, Nonce, UserId};
use tokio::sync::{mpsc, oneshot};

pub use self::events::Events;
use crate::{
    ask::Ask,
    connection::Frame,
    error::Error,
    options::Options,
    session::{Next, Session, Update},
};

/// Commands that wait for the task to take them, beyond those that it holds.
const REQUESTS_MAX: usize = 64;

/// A handle on a connected client. Cheap to clone; commands may be under way from many tasks.
///
/// The session ends with [`Client::close`], or when all handles and the [`Events`] are gone.
#[derive(Clone, Debug)]
pub struct Client {
    requests: mpsc::Sender<Request>,
    user: UserId,
}

/// What a handle asks of the task.
#[derive(Debug)]
enum Request {
    Command {
        command: Command,
        nonce: Option<Nonce>,
        answer: oneshot::Sender<Result<Frame, Error>>,
    },
    Close {
        closed: oneshot::Sender<()>,
    },
}

impl Client {
    /// Connects and signs in. The returned [`Events`] must be read, or dropped if nothing is
    /// subscribed to.
    ///
    /// Fails if the first attempt fails, unless [`Options::keep_trying`] was set. Later losses
    /// are mended without a word but [`Update::Disconnected`].
    pub async fn connect(options: Options) -> Result<(Self, Events), Error> {
        let mut session = Session::new(&options)?;
        let connected = loop {
            match session.next().await {
                Next::Update(Update::Connected(connected)) => break connected,
                Next::Update(_) | Next::Answer(_) => {}
                Next::Finished(error) => return Err(error),
            }
        };
        let (requests, receiver) = mpsc::channel(REQUESTS_MAX);
        let (updates, events) = mpsc::channel(options.updates_max);
        let task = task::Task::new(session, receiver, updates, connected);
        tokio::spawn(task.run());
        Ok((Self { requests, user: connected.user }, Events::new(events)))
    }

    /// Who is signed in.
    pub fn user(&self) -> UserId {
        self.user
    }

    /// Asks anything, with a nonce of the client's own making.
    ///
    /// It is retried with the same nonce, over new connections too, until it is answered or its
    /// deadline passes. Dropping the future does not undo what was asked.
    pub async fn ask<A: Ask>(&self, command: A) -> Result<A::Reply, Error> {
        self.call(command.into(), None).await?.body()
    }

    /// Asks with the caller's nonce: asked again with the same one, also by another process, it
    /// gets the first result.
    pub async fn ask_as<A: Ask>(&self, nonce: Nonce, command: A) -> Result<A::Reply, Error> {
        self.call(command.into(), Some(nonce)).await?.body()
    }

    async fn call(&self, command: Command, nonce: Option<Nonce>) -> Result<Frame, Error> {
        let (answer, answered) = oneshot::channel();
        let request = Request::Command { command, nonce, answer };
        self.requests.send(request).await.map_err(|_| Error::Ended { in_doubt: false })?;
        answered.await.unwrap_or(Err(Error::Ended { in_doubt: true }))
    }

    /// Ends the session for all handles and tells the server. Unanswered commands fail.
    pub async fn close(self) {
        let (closed, done) = oneshot::channel();
        if self.requests.send(Request::Close { closed }).await.is_ok() {
            // An error means that the task is gone already, which is as good.
            let _ = done.await;
        }
    }
}
