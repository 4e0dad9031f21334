//! The toy leader behind real pipes.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use chappe_uplink::{Broker, Receiver, Request, Response, Sender, pipe};

use super::ToyLeader;

/// A broker whose leader is a [`ToyLeader`]. Clones are the same broker. One pipe at a time.
#[derive(Clone, Default)]
pub struct ToyBroker {
    leader: Arc<Mutex<ToyLeader>>,
    pipe: Arc<Mutex<Option<Sender<Response>>>>,
}

impl ToyBroker {
    /// Looks at the leader, or tells it something; what it says goes to the gateway.
    pub fn with(&self, act: impl FnOnce(&mut ToyLeader) -> Vec<Response>) {
        let mut leader = lock(&self.leader);
        let responses = act(&mut leader);
        self.say(responses);
    }

    /// Asks the leader something.
    pub fn ask<T>(&self, about: impl FnOnce(&mut ToyLeader) -> T) -> T {
        about(&mut lock(&self.leader))
    }

    /// Cuts the pipe.
    pub fn cut(&self) {
        if let Some(pipe) = lock(&self.pipe).take() {
            pipe.close();
        }
    }

    fn say(&self, responses: Vec<Response>) {
        let pipe = lock(&self.pipe);
        let Some(pipe) = &*pipe else { return };
        for response in responses {
            if pipe.send(response, RESPONSE_WEIGHT).is_err() {
                pipe.close(); // nothing is ever skipped
                return;
            }
        }
    }
}

impl Broker for ToyBroker {
    fn open(&self) -> (Sender<Request>, Receiver<Response>) {
        let (to_leader, mut requests) = pipe(PIPE_WEIGHT_MAX);
        let (responses, to_gateway) = pipe(PIPE_WEIGHT_MAX);
        *lock(&self.pipe) = Some(responses.clone());
        self.with(ToyLeader::handle_open);
        let broker = self.clone();
        tokio::task::spawn_local(async move {
            let mut batch = Vec::new();
            while requests.recv(&mut batch, BATCH).await.is_ok() && !responses.is_closed() {
                for request in batch.drain(..) {
                    broker.with(|leader| leader.handle(request));
                }
            }
            responses.close();
        });
        (to_leader, to_gateway)
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

const PIPE_WEIGHT_MAX: usize = 8 << 20;
const RESPONSE_WEIGHT: usize = 256;
const BATCH: usize = 256;
