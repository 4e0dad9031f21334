//! The way from a link, which lives on its shard's thread, to the response's body, which lives on
//! HTTP's: a text that grows at one end and is taken whole at the other, and has a limit.

use std::{
    future::poll_fn,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    task::{Context, Poll, Waker},
};

use bytes::Bytes;
use chappe_protocol::{ErrorCode, WireError};

/// Both ends of a new pipe.
pub(super) fn pipe() -> (Writer, Reader) {
    let shared = Arc::default();
    (Writer(Arc::clone(&shared)), Reader(shared))
}

/// The link's end. Dropping it ends the text.
pub(super) struct Writer(Arc<Mutex<State>>);

/// The response's end. Dropping it tells the link that nobody reads any more.
pub(super) struct Reader(Arc<Mutex<State>>);

#[derive(Default)]
struct State {
    text: Vec<u8>,
    opened: Option<Result<(), WireError>>,
    ended: bool,
    abandoned: bool,
    reader: Option<Waker>,
    writer: Option<Waker>,
}

/// What a link may learn of the other end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Progress {
    /// Some of the text was not taken yet.
    Waiting,
    /// All was taken.
    Drained,
    /// Nobody reads any more.
    Abandoned,
}

impl Writer {
    /// Whether the text may grow: it may exceed its limit by what is written then.
    pub(super) fn has_room(&self) -> bool {
        lock(&self.0).text.len() < TEXT_BYTES_MAX
    }

    pub(super) fn write(&self, text: &[u8]) {
        let mut state = lock(&self.0);
        if !state.abandoned {
            state.text.extend_from_slice(text);
            wake(&mut state.reader);
        }
    }

    /// Says how the stream began. Only the first word counts.
    pub(super) fn open(&self, outcome: Result<(), WireError>) {
        let mut state = lock(&self.0);
        if state.opened.is_none() {
            state.opened = Some(outcome);
            wake(&mut state.reader);
        }
    }

    /// Nothing more will be written.
    pub(super) fn end(&self) {
        let mut state = lock(&self.0);
        state.ended = true;
        state.opened.get_or_insert_with(|| Err(WireError::new(ErrorCode::Unavailable)));
        wake(&mut state.reader);
    }

    /// How far the other end is; the waker is kept for the next change.
    pub(super) fn progress(&self, cx: &Context<'_>) -> Progress {
        let mut state = lock(&self.0);
        keep(&mut state.writer, cx);
        match state.text.is_empty() {
            _ if state.abandoned => Progress::Abandoned,
            true => Progress::Drained,
            false => Progress::Waiting,
        }
    }

    /// Has the link's task poll again.
    pub(super) fn poll_again(&self) {
        wake(&mut lock(&self.0).writer);
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        self.end();
    }
}

impl Reader {
    /// Waits until the stream began, or did not.
    pub(super) async fn opened(&mut self) -> Result<(), WireError> {
        poll_fn(|cx| {
            let mut state = lock(&self.0);
            if let Some(outcome) = state.opened.clone() {
                return Poll::Ready(outcome);
            }
            keep(&mut state.reader, cx);
            Poll::Pending
        })
        .await
    }

    /// Takes all of the text, or nothing once it has ended.
    pub(super) fn poll_text(&mut self, cx: &Context<'_>) -> Poll<Option<Bytes>> {
        let mut state = lock(&self.0);
        if !state.text.is_empty() {
            let text = std::mem::take(&mut state.text);
            wake(&mut state.writer);
            return Poll::Ready(Some(text.into()));
        }
        if state.ended {
            return Poll::Ready(None);
        }
        keep(&mut state.reader, cx);
        Poll::Pending
    }
}

impl Drop for Reader {
    fn drop(&mut self) {
        let mut state = lock(&self.0);
        state.abandoned = true;
        state.text = Vec::new();
        wake(&mut state.writer);
    }
}

fn lock(state: &Mutex<State>) -> MutexGuard<'_, State> {
    state.lock().unwrap_or_else(PoisonError::into_inner)
}

fn keep(slot: &mut Option<Waker>, cx: &Context<'_>) {
    match slot {
        Some(waker) => waker.clone_from(cx.waker()),
        None => *slot = Some(cx.waker().clone()),
    }
}

fn wake(slot: &mut Option<Waker>) {
    if let Some(waker) = slot.take() {
        waker.wake();
    }
}

/// How much text may wait for a reader that is slower than its events.
const TEXT_BYTES_MAX: usize = 64 * 1024;
