//! What this process leads, as its gateways are told.

use std::{
    collections::BTreeMap,
    sync::{Mutex, PoisonError},
};

use chappe_protocol::PartitionId;
use chappe_uplink::{Generation, Leading as Led, Response, Sender};
use tokio::sync::watch;

/// Bytes that a list of partitions may weigh on a pipe.
const LIST_WEIGHT: usize = 2_048;

/// The partitions that are led here, and every pipe that wants to know.
#[derive(Debug)]
pub(crate) struct Leading {
    /// How many the log has.
    of: u32,
    partitions: Mutex<BTreeMap<PartitionId, Generation>>,
    count: watch::Sender<usize>,
}

impl Leading {
    pub(crate) fn new(of: u32) -> Self {
        Self { of, partitions: Mutex::default(), count: watch::Sender::new(0) }
    }

    /// A partition is led from now on, or no longer. Whether that is news: who gives up what he
    /// never led says so as well.
    pub(crate) fn set(&self, partition: PartitionId, generation: Option<Generation>) -> bool {
        let mut partitions = self.partitions.lock().unwrap_or_else(PoisonError::into_inner);
        let before = match generation {
            Some(generation) => partitions.insert(partition, generation),
            None => partitions.remove(&partition),
        };
        metrics::gauge!("chappe_broker_leading_count").set(partitions.len() as f64);
        self.count.send_replace(partitions.len());
        before != generation
    }

    /// Tells one pipe. Whoever tells does so after it changed the list, so the last word that a
    /// pipe hears is the truth. A pipe that cannot take it is about to end.
    pub(crate) fn tell(&self, pipe: &Sender<Response>) {
        let partitions = self.partitions.lock().unwrap_or_else(PoisonError::into_inner);
        let leads = partitions.iter().map(|(id, generation)| (*id, *generation)).collect();
        let led = Response::Leading(Led { partitions: self.of, leads });
        drop(pipe.send(led, LIST_WEIGHT));
    }

    /// The partitions that are not led here.
    pub(crate) fn missing(&self) -> Vec<PartitionId> {
        let partitions = self.partitions.lock().unwrap_or_else(PoisonError::into_inner);
        (0..self.of).map(PartitionId).filter(|id| !partitions.contains_key(id)).collect()
    }

    /// How many there are, as it changes.
    pub(crate) fn count(&self) -> watch::Receiver<usize> {
        self.count.subscribe()
    }
}

#[cfg(test)]
mod tests {
    use chappe_protocol::Incarnation;

    use super::*;

    #[test]
    fn only_what_changes_is_news() {
        let leading = Leading::new(2);
        let at = |epoch| Some(Generation { incarnation: Incarnation(1), epoch });
        let said = [None, at(3), at(3), at(7), None, None];
        let news = said.map(|generation| leading.set(PartitionId(1), generation));
        assert_eq!(news, [false, true, false, true, true, false]);
        assert_eq!(leading.missing(), [PartitionId(0), PartitionId(1)]);
    }
}
