//! How far this process's partitions are sealed, for whoever exports them.

use chappe_partition::{Partition, Sealing};
use chappe_protocol::PartitionId;
use tokio::sync::watch;

use crate::{Running, local::Mail};

/// How far partitions are to be sealed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Seal {
    /// They are open.
    Open = 0,
    /// Clients' changes are refused; what is relayed between partitions is taken.
    Clients = 1,
    /// No fact counts any more. For when all outboxes are empty.
    Facts = 2,
}

/// How far each partition is.
pub(crate) struct Sealings(watch::Sender<Vec<Sealing>>);

impl Sealings {
    pub(crate) fn new(partitions: u32) -> Self {
        Self(watch::Sender::new(vec![Sealing::default(); partitions as usize]))
    }

    /// Tells how far these are.
    pub(crate) fn tell(&self, partitions: &[Partition]) {
        self.0.send_if_modified(|sealings| {
            let mut changed = false;
            for partition in partitions {
                let at = &mut sealings[partition.id().0 as usize];
                let sealing = partition.sealing();
                changed |= *at != sealing;
                *at = sealing;
            }
            changed
        });
    }

    pub(crate) fn watch(&self) -> watch::Receiver<Vec<Sealing>> {
        self.0.subscribe()
    }
}

impl Running {
    /// The partitions that it does not lead.
    pub fn not_led(&self) -> Vec<PartitionId> {
        self.shared.leading.missing()
    }

    /// Seals every partition that it leads or comes to lead, or opens it again. What comes of it
    /// is seen in [`Running::sealings`].
    pub async fn seal(&self, seal: Seal) {
        for mailbox in &self.shared.mailboxes {
            // Fails only when that thread is gone, and then nothing comes of it.
            drop(mailbox.send(Mail::Seal(seal as u8)).await);
        }
    }

    /// How far each partition is sealed, in their order, as it changes. Told from the first
    /// [`Running::seal`] on.
    pub fn sealings(&self) -> watch::Receiver<Vec<Sealing>> {
        self.shared.sealings.watch()
    }
}
