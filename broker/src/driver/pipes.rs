//! The gateways' pipes, as one driver sees them: it sends to all, and reads those whose home it is.

use std::{collections::HashMap, sync::Arc};

use chappe_partition::PipeId;
use chappe_uplink::{Receiver, Request, Response, Sender};
use tokio::{sync::mpsc, task::spawn_local};

use super::inbox::{Inbox, Input};
use crate::{
    local::{Mail, Shared},
    weight,
};

/// Requests that are taken from a pipe at once.
const BATCH: usize = 256;

pub(super) struct Pipes {
    driver: usize,
    shared: Arc<Shared>,
    inbox: Inbox,
    open: HashMap<PipeId, Sender<Response>>,
    /// Those whose readers were not woken yet for what was sent in this round.
    unwoken: Vec<PipeId>,
}

impl Pipes {
    pub(super) fn new(driver: usize, shared: Arc<Shared>, inbox: Inbox) -> Self {
        Self { driver, shared, inbox, open: HashMap::new(), unwoken: Vec::new() }
    }

    pub(super) fn opened(
        &mut self,
        pipe: PipeId,
        responses: Sender<Response>,
        requests: Option<Receiver<Request>>,
    ) {
        // Each driver, not the home one alone: what another began to lead since the home driver
        // told it was told to the pipes that the other knew.
        self.shared.leading.tell(&responses);
        if let Some(requests) = requests {
            let (shared, inbox) = (Arc::clone(&self.shared), self.inbox.clone());
            spawn_local(read_requests(self.driver, pipe, requests, shared, inbox));
        }
        self.open.insert(pipe, responses);
    }

    pub(super) fn len(&self) -> usize {
        self.open.len()
    }

    /// Ends a pipe at both ends. False if it had ended already.
    pub(super) fn close(&mut self, pipe: PipeId) -> bool {
        let Some(responses) = self.open.remove(&pipe) else { return false };
        responses.close();
        true
    }

    /// Sends a response; false if the pipe cannot take it, and so has to end: nothing is skipped.
    /// Its reader is woken by [`Pipes::wake`].
    pub(super) fn send(&mut self, pipe: PipeId, response: Response) -> bool {
        let Some(responses) = self.open.get(&pipe) else { return true };
        let weight = weight::of(&response);
        let sent = responses.send_quietly(response, weight).is_ok();
        if self.unwoken.last() != Some(&pipe) {
            self.unwoken.push(pipe);
        }
        if !sent && !responses.is_closed() {
            metrics::counter!("chappe_broker_pipes_overflowed_total").increment(1);
            tracing::warn!(pipe = pipe.0, "a gateway does not take its events; its pipe ends");
        }
        sent
    }

    /// Wakes the readers of what was sent in this round: a reader on the same core that was woken
    /// by the first of many would run for that one alone.
    pub(super) fn wake(&mut self) {
        for pipe in self.unwoken.drain(..) {
            if let Some(responses) = self.open.get(&pipe) {
                responses.wake();
            }
        }
    }

    pub(super) fn tell_leading(&self) {
        for responses in self.open.values() {
            self.shared.leading.tell(responses);
        }
    }
}

/// Takes what other threads sent.
pub(super) async fn read_mail(mut mail: mpsc::Receiver<Mail>, inbox: Inbox) {
    while let Some(mail) = mail.recv().await {
        match mail {
            Mail::Opened { pipe, responses, requests } => {
                inbox.push(Input::Opened(pipe, responses, requests));
            }
            Mail::Closed(pipe) => inbox.push(Input::Closed(pipe)),
            Mail::Ownership(change) => inbox.push(Input::Ownership(change)),
            Mail::Tell(whom) => inbox.push(Input::Tell(whom)),
            Mail::Seal(stage) => inbox.push(Input::Seal(stage)),
            Mail::Requests(pipe, requests) => {
                inbox.push_requests(pipe, requests.into_iter()).await;
            }
        }
    }
}

/// Reads a pipe to its end and spreads its requests over the drivers that lead their partitions.
async fn read_requests(
    driver: usize,
    pipe: PipeId,
    mut requests: Receiver<Request>,
    shared: Arc<Shared>,
    inbox: Inbox,
) {
    let drivers = shared.mailboxes.len();
    let mut batch = Vec::new();
    while requests.recv(&mut batch, BATCH).await.is_ok() {
        if drivers == 1 {
            inbox.push_requests(pipe, batch.drain(..)).await;
            continue;
        }
        let mut spread: Vec<Vec<Request>> = (0..drivers).map(|_| Vec::new()).collect();
        for request in batch.drain(..) {
            spread[shared.driver_of(&request)].push(request);
        }
        for (index, requests) in spread.into_iter().enumerate().filter(|(_, r)| !r.is_empty()) {
            if index == driver {
                inbox.push_requests(pipe, requests.into_iter()).await;
            } else {
                // Fails only when that driver is gone, and then so is the process.
                drop(shared.mailboxes[index].send(Mail::Requests(pipe, requests)).await);
            }
        }
    }
    for mailbox in &shared.mailboxes {
        drop(mailbox.send(Mail::Closed(pipe)).await);
    }
}
