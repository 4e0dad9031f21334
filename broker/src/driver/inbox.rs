//! What waits for a driver: everything that its own thread's tasks found out.

use std::{cell::RefCell, collections::VecDeque, rc::Rc};

use chappe_partition::{Outcome, PipeId, StoreFound};
use chappe_protocol::PartitionId;
use chappe_storage::{
    log::{Bounds, Entry, Offset, ReadError},
    ownership::{Change, CommitError},
    store::{Claimed, StoreError},
};
use chappe_uplink::{Receiver, Request, Response, Sender};
use tokio::sync::{Notify, oneshot};

use crate::overview::Told;

/// Something for a driver.
pub(super) enum Input {
    /// A pipe was opened.
    Opened(PipeId, Sender<Response>, Option<Receiver<Request>>),
    /// A pipe has ended.
    Closed(PipeId),
    /// A request of a pipe.
    Request(PipeId, Request),
    /// Where a partition's log begins and ends.
    Bounds(PartitionId, u64, Result<Bounds, ReadError>),
    /// Records of a partition's log.
    Log(PartitionId, u64, Result<Vec<Entry>, ReadError>),
    /// What the store found.
    Found(PartitionId, u64, Result<StoreFound, StoreError>),
    /// What became of a write.
    Written(PartitionId, u64, Result<(), StoreError>),
    /// What became of a name.
    NameClaimed(PartitionId, u64, Result<Claimed, StoreError>),
    /// What became of the ownership of a partition.
    Ownership(Change),
    /// The partitions are to be sealed so far.
    Seal(u8),
    /// What became of a commit of the offset.
    Committed(PartitionId, Result<Offset, CommitError>),
    /// What became of a relayed fact.
    Relayed(PartitionId, u64, Outcome),
    /// Somebody wants to know how the partitions stand.
    Tell(oneshot::Sender<Told>),
}

/// The queue of one driver. It is filled by tasks of the driver's own thread: one for each pipe,
/// which stops at [`FULL`], and one for each call under way, which the cores bound.
#[derive(Clone, Default)]
pub(super) struct Inbox(Rc<Shared>);

#[derive(Default)]
struct Shared {
    inputs: RefCell<VecDeque<Input>>,
    filled: Notify,
    drained: Notify,
}

/// Pipes are not read while so much waits.
const FULL: usize = 8_192;

impl Inbox {
    pub(super) fn push(&self, input: Input) {
        self.0.inputs.borrow_mut().push_back(input);
        self.0.filled.notify_one();
    }

    /// Adds a pipe's requests, and waits while the driver is behind.
    pub(super) async fn push_requests(
        &self,
        pipe: PipeId,
        requests: impl Iterator<Item = Request>,
    ) {
        self.0.inputs.borrow_mut().extend(requests.map(|request| Input::Request(pipe, request)));
        self.0.filled.notify_one();
        while self.0.inputs.borrow().len() > FULL {
            self.0.drained.notified().await;
        }
    }

    /// Waits until there is something.
    pub(super) async fn filled(&self) {
        self.0.filled.notified().await;
    }

    pub(super) fn take(&self, into: &mut VecDeque<Input>) {
        std::mem::swap(&mut *self.0.inputs.borrow_mut(), into);
        self.0.drained.notify_waiters();
    }
}
