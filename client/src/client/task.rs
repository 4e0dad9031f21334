//! The task behind a client: it moves requests, answers and updates and decides nothing but what
//! to do when the application takes no updates.

use std::collections::{HashMap, VecDeque};

use tokio::sync::{mpsc, oneshot};

use super::Request;
use crate::{
    connection::Frame,
    error::Error,
    session::{Answer, Connected, Next, Session, Ticket, Update},
};

/// Updates other than events that may wait while the application takes none; beyond them those
/// that only inform are dropped.
const NEWS_MAX: usize = 64;

pub(super) struct Task {
    session: Session,
    requests: mpsc::Receiver<Request>,
    updates: mpsc::Sender<Update>,
    /// Updates that found no room yet.
    held: VecDeque<Update>,
    /// A channel was put aside.
    aside: bool,
    answers: HashMap<Ticket, oneshot::Sender<Result<Frame, Error>>>,
    closed: Vec<oneshot::Sender<()>>,
    /// All handles are gone.
    unasked: bool,
    /// The application's end is gone.
    unheard: bool,
}

/// What happened first.
enum Step {
    Delivered,
    Unheard,
    Request(Option<Request>),
    Next(Next),
}

impl Task {
    pub(super) fn new(
        session: Session,
        requests: mpsc::Receiver<Request>,
        updates: mpsc::Sender<Update>,
        connected: Connected,
    ) -> Self {
        Self {
            session,
            requests,
            updates,
            held: VecDeque::from([Update::Connected(connected)]),
            aside: false,
            answers: HashMap::new(),
            closed: Vec::new(),
            unasked: false,
            unheard: false,
        }
    }

    pub(super) async fn run(mut self) {
        loop {
            // Reading goes on while something waits for an answer, or an application that asks
            // from within its loop over the updates would wait for itself.
            let reads = self.held.is_empty() || self.session.unanswered() > 0;
            let asks = !self.unasked;
            let step = tokio::select! {
                room = self.updates.reserve(), if !self.held.is_empty() => match room {
                    Ok(room) => {
                        if let Some(update) = self.held.pop_front() {
                            room.send(update);
                        }
                        Step::Delivered
                    }
                    Err(_) => Step::Unheard,
                },
                () = self.updates.closed(), if !self.unheard => Step::Unheard,
                request = self.requests.recv(), if asks => Step::Request(request),
                next = self.session.next(), if reads => Step::Next(next),
            };
            match step {
                Step::Delivered => {}
                Step::Unheard => self.handle_unheard(),
                Step::Request(request) => self.handle_request(request),
                Step::Next(Next::Update(update)) => self.handle_update(update),
                Step::Next(Next::Answer(answer)) => self.handle_answer(answer),
                Step::Next(Next::Finished(error)) => return self.finish(error).await,
            }
            if self.held.is_empty() && std::mem::take(&mut self.aside) {
                self.session.take_up();
            }
        }
    }

    fn handle_request(&mut self, request: Option<Request>) {
        match request {
            Some(Request::Command { command, nonce, answer }) => {
                match self.session.submit(command, nonce) {
                    Ok(ticket) => drop(self.answers.insert(ticket, answer)),
                    // The asker may have stopped waiting: then nobody is to be told.
                    Err(error) => drop(answer.send(Err(error))),
                }
            }
            Some(Request::Close { closed }) => {
                self.closed.push(closed);
                self.session.close();
                self.held.clear();
            }
            None => {
                self.unasked = true;
                self.close_if_unused();
            }
        }
    }

    fn handle_unheard(&mut self) {
        self.unheard = true;
        self.held.clear();
        self.close_if_unused();
    }

    fn close_if_unused(&mut self) {
        if self.unasked && self.unheard {
            self.session.close();
        }
    }

    fn handle_update(&mut self, update: Update) {
        if self.unheard {
            return;
        }
        if self.held.is_empty() {
            match self.updates.try_send(update) {
                Ok(()) => {}
                Err(mpsc::error::TrySendError::Full(update)) => self.held.push_back(update),
                Err(mpsc::error::TrySendError::Closed(_)) => self.handle_unheard(),
            }
            return;
        }
        match &update {
            Update::Event(event) => {
                self.session.put_aside(event.channel, event.rev);
                self.aside = true;
            }
            Update::Unknown(event) => {
                self.session.put_aside(event.channel, event.rev);
                self.aside = true;
            }
            Update::Signal(_) => {} // at most once, and now not at all
            Update::Reset(_) | Update::Ended { .. } | Update::Subscribed(_) => {
                self.held.push_back(update);
            }
            Update::Connected(_)
            | Update::Closed(_)
            | Update::Disconnected(_)
            | Update::Live(_)
            | Update::Anomaly(_) => {
                if self.held.len() < NEWS_MAX {
                    self.held.push_back(update);
                }
            }
        }
    }

    fn handle_answer(&mut self, answer: Answer) {
        if let Some(asker) = self.answers.remove(&answer.ticket) {
            // The asker may have stopped waiting.
            let _ = asker.send(answer.outcome);
        }
    }

    async fn finish(mut self, error: Error) {
        for (_, asker) in self.answers.drain() {
            let _ = asker.send(Err(error.clone()));
        }
        self.requests.close();
        while let Ok(request) = self.requests.try_recv() {
            match request {
                Request::Command { answer, .. } => drop(answer.send(Err(error.clone()))),
                Request::Close { closed } => drop(closed.send(())),
            }
        }
        if self.closed.is_empty() && !self.unheard {
            // As long as the application may read them: an error means that it has gone.
            for update in self.held.drain(..).chain([Update::Closed(error)]) {
                if self.updates.send(update).await.is_err() {
                    break;
                }
            }
        }
        for closed in self.closed {
            let _ = closed.send(());
        }
    }
}
