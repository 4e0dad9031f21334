//! Relayed facts on their way to the leaders of inboxes, through a pipe like a gateway's.

use std::{cell::RefCell, collections::HashMap, rc::Rc, sync::Arc};

use chappe_partition::Outcome;
use chappe_protocol::{PartitionId, Retry};
use chappe_uplink::{Broker, Command, Receiver, Refusal, Request, Response, Sender};
use tokio::task::{JoinHandle, spawn_local};

use super::inbox::{Inbox, Input};

/// What a command weighs on the pipe: it carries ids alone.
const COMMAND_WEIGHT: usize = 256;
const BATCH: usize = 256;

/// The way to the inboxes.
pub(super) struct Relays {
    broker: Arc<dyn Broker>,
    inbox: Inbox,
    line: Option<Line>,
    next: u64,
}

/// One pipe and what is under way on it.
struct Line {
    requests: Sender<Request>,
    open: Open,
    /// Takes the answers. Without it nothing that is sent here would be heard of again.
    listener: JoinHandle<()>,
}

/// By the token on the pipe: whose it is, and the token there.
type Open = Rc<RefCell<HashMap<u64, (PartitionId, u64)>>>;

impl Relays {
    pub(super) const fn new(broker: Arc<dyn Broker>, inbox: Inbox) -> Self {
        Self { broker, inbox, line: None, next: 0 }
    }

    /// Sends a command; its outcome is an input later.
    pub(super) fn send(&mut self, partition: PartitionId, token: u64, mut command: Box<Command>) {
        self.next += 1;
        command.token = self.next;
        let line = self.line();
        line.open.borrow_mut().insert(command.token, (partition, token));
        let key = command.token;
        if line.requests.send(Request::Command(command), COMMAND_WEIGHT).is_err() {
            line.open.borrow_mut().remove(&key);
            self.inbox.push(Input::Relayed(partition, token, Outcome::Again));
        }
    }

    fn line(&mut self) -> &Line {
        let ended = self
            .line
            .as_ref()
            .is_none_or(|line| line.requests.is_closed() || line.listener.is_finished());
        if ended {
            self.line = None;
        }
        self.line.get_or_insert_with(|| {
            let (requests, responses) = self.broker.open();
            let open = Open::default();
            let listener = spawn_local(listen(responses, Rc::clone(&open), self.inbox.clone()));
            Line { requests, open, listener }
        })
    }
}

/// Takes answers until the pipe ends; what has none then is to be sent again.
async fn listen(mut responses: Receiver<Response>, open: Open, inbox: Inbox) {
    let mut batch = Vec::new();
    while responses.recv(&mut batch, BATCH).await.is_ok() {
        for response in batch.drain(..) {
            let Response::Answer { token, result, .. } = response else { continue };
            let Some((partition, token)) = open.borrow_mut().remove(&token) else { continue };
            inbox.push(Input::Relayed(partition, token, outcome(result.err())));
        }
    }
    for (_, (partition, token)) in open.borrow_mut().drain() {
        inbox.push(Input::Relayed(partition, token, Outcome::Again));
    }
}

fn outcome(refusal: Option<Refusal>) -> Outcome {
    let Some(refusal) = refusal else { return Outcome::Taken };
    if refusal.code.retry() != Retry::Again {
        // An inbox has no reason to refuse one. It is not dropped: the user's list would be wrong.
        tracing::error!(code = refusal.code.number(), "an inbox refused a relayed fact");
    }
    Outcome::Again
}

#[cfg(test)]
mod tests {
    use std::{
        collections::VecDeque,
        sync::{Arc, atomic::AtomicU64},
    };

    use chappe_protocol::{ChannelId, Incarnation, Nonce, Rev, SessionId, UserId};
    use chappe_uplink::{Action, Caller, Relay, RelayKind, Standing};
    use tokio::{sync::mpsc, task::LocalSet};

    use super::*;
    use crate::{
        leading::Leading,
        local::{LocalBroker, Mail, Shared},
        sealing::Sealings,
    };

    fn command() -> Box<Command> {
        let (user, source) = (UserId::new(1), ChannelId::new(2));
        let (incarnation, rev, kind) = (Incarnation(1), Rev::new(1), RelayKind::Removed);
        Box::new(Command {
            token: 0,
            caller: Caller { user, name: None, standing: Standing::Service },
            session: SessionId::new(0),
            attempt: 0,
            position: 0,
            channel: ChannelId::inbox(user),
            nonce: Nonce::parse("2/1/1").unwrap(),
            client_nonce: false,
            age_ms: 0,
            action: Action::Relay(Relay { source, incarnation, rev, by: user, kind }),
        })
    }

    #[tokio::test]
    async fn after_the_answers_ended_facts_go_out_on_another_pipe() {
        let (mailbox, mut mail) = mpsc::channel(4);
        let shared = Arc::new(Shared {
            partitions: 1,
            pipe_bytes_max: 1 << 20,
            mailboxes: vec![mailbox],
            leading: Leading::new(1),
            sealings: Sealings::new(1),
            next_pipe: AtomicU64::new(1),
            address: String::new(),
            started: std::time::Instant::now(),
            unprojected_bytes_max: 0,
            unprojected_age_ms_max: 0,
        });
        let inbox = Inbox::default();
        let mut relays = Relays::new(Arc::new(LocalBroker::new(shared)), inbox.clone());
        let script = async {
            relays.send(PartitionId(0), 1, command());
            let Ok(Mail::Opened { responses, requests, .. }) = mail.try_recv() else {
                panic!("no pipe")
            };
            responses.close(); // the requests' half stays open
            inbox.filled().await;
            let mut inputs = VecDeque::new();
            inbox.take(&mut inputs);
            let ended = inputs.pop_front();
            assert!(matches!(ended, Some(Input::Relayed(_, 1, Outcome::Again))));
            relays.send(PartitionId(0), 2, command());
            assert!(matches!(mail.try_recv(), Ok(Mail::Opened { .. })), "another pipe");
            drop(requests);
        };
        LocalSet::new().run_until(script).await;
    }
}
