//! What an appender has in flight: each record is answered once, and those of a partition in the
//! order of their appends, whatever the client library says first.
//!
//! Does no I/O. The limits are those of the appender: what it does not take here is not handed to
//! the library at all.

use std::collections::{HashMap, VecDeque};

use chappe_protocol::PartitionId;

use super::config::IN_FLIGHT_OVERHEAD_BYTES;
use crate::log::{Acked, AppendError, Offset};

/// The records of one appender that wait for their outcome.
#[derive(Debug)]
pub(super) struct Ledger {
    lanes: HashMap<PartitionId, Lane>,
    bytes: usize,
    records: usize,
    bytes_max: usize,
    records_max: usize,
    /// Outcomes to be told, in order.
    outcomes: Vec<Acked>,
}

/// The records of one partition.
#[derive(Debug, Default)]
struct Lane {
    /// The number of the first that waits.
    first: u64,
    waiting: VecDeque<Waiting>,
}

#[derive(Debug)]
struct Waiting {
    token: u64,
    bytes: usize,
    /// The producer that it was handed to.
    producer: u64,
    /// Known already, but not for one before it.
    outcome: Option<Result<Offset, AppendError>>,
}

impl Ledger {
    pub(super) fn new(bytes_max: usize, records_max: usize) -> Self {
        let (lanes, outcomes) = <_>::default();
        Self { lanes, bytes: 0, records: 0, bytes_max, records_max, outcomes }
    }

    /// Takes a record in, and gives it a number within its partition; or there is no room.
    /// `unread` outcomes were told and nobody took them.
    pub(super) fn accept(
        &mut self,
        partition: PartitionId,
        token: u64,
        record_bytes: usize,
        producer: u64,
        unread: usize,
    ) -> Option<u64> {
        let bytes = record_bytes + IN_FLIGHT_OVERHEAD_BYTES;
        if self.bytes + bytes > self.bytes_max || self.records + unread >= self.records_max {
            return None;
        }
        self.bytes += bytes;
        self.records += 1;
        let lane = self.lanes.entry(partition).or_default();
        lane.waiting.push_back(Waiting { token, bytes, producer, outcome: None });
        Some(lane.first + lane.waiting.len() as u64 - 1)
    }

    /// Takes the newest record of a partition back: it was refused after all.
    pub(super) fn withdraw(&mut self, partition: PartitionId) {
        let newest = self.lanes.get_mut(&partition).and_then(|lane| lane.waiting.pop_back());
        assert!(newest.is_some(), "what is withdrawn was accepted");
        self.forget(newest.map_or(0, |record| record.bytes));
    }

    /// Takes note of an outcome. One that is told a second time, or after its record was given up,
    /// changes nothing.
    pub(super) fn settle(
        &mut self,
        partition: PartitionId,
        number: u64,
        outcome: Result<Offset, AppendError>,
    ) {
        let Some(lane) = self.lanes.get_mut(&partition) else { return };
        let Some(index) = number.checked_sub(lane.first) else { return };
        let Some(record) = lane.waiting.get_mut(index as usize) else { return };
        record.outcome.get_or_insert(outcome);
        self.collect(partition);
    }

    /// Gives up what a producer has not answered.
    pub(super) fn give_up(&mut self, producer: u64, why: &AppendError) {
        for lane in self.lanes.values_mut() {
            for record in lane.waiting.iter_mut().filter(|record| record.producer == producer) {
                record.outcome.get_or_insert_with(|| Err(why.clone()));
            }
        }
        let partitions: Vec<_> = self.lanes.keys().copied().collect();
        for partition in partitions {
            self.collect(partition);
        }
    }

    /// The outcomes that can be told. They count as taken from now on.
    pub(super) fn take(&mut self) -> Vec<Acked> {
        std::mem::take(&mut self.outcomes)
    }

    pub(super) const fn has_outcomes(&self) -> bool {
        !self.outcomes.is_empty()
    }

    /// Moves what is known at the front of a partition to the outcomes. There it no longer counts:
    /// whoever waited because there was no room must find some when the last outcome comes.
    fn collect(&mut self, partition: PartitionId) {
        let Some(lane) = self.lanes.get_mut(&partition) else { return };
        let (mut bytes, mut records) = (0, 0);
        while let Some(record) = lane.waiting.front_mut() {
            let Some(result) = record.outcome.take() else { break };
            self.outcomes.push(Acked { partition, token: record.token, result });
            bytes += record.bytes;
            records += 1;
            lane.first += 1;
            lane.waiting.pop_front();
        }
        self.bytes -= bytes;
        self.records -= records;
    }

    fn forget(&mut self, bytes: usize) {
        self.bytes -= bytes;
        self.records -= 1;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const P0: PartitionId = PartitionId(0);
    const P1: PartitionId = PartitionId(1);

    fn ledger() -> Ledger {
        Ledger::new(1000, 8)
    }

    fn accept(ledger: &mut Ledger, partition: PartitionId, token: u64) -> u64 {
        ledger.accept(partition, token, 10, 1, 0).unwrap()
    }

    fn told(ledger: &mut Ledger) -> Vec<(PartitionId, u64, Option<u64>)> {
        let told = |acked: Acked| (acked.partition, acked.token, acked.result.ok().map(|o| o.0));
        ledger.take().into_iter().map(told).collect()
    }

    fn doubt() -> AppendError {
        AppendError("doubt".to_owned())
    }

    #[test]
    fn outcomes_out_of_order_wait_for_those_before_them() {
        let mut ledger = ledger();
        for token in 10..13 {
            accept(&mut ledger, P0, token);
        }
        assert_eq!(accept(&mut ledger, P1, 20), 0);
        ledger.settle(P0, 2, Ok(Offset(7)));
        ledger.settle(P0, 1, Err(doubt()));
        assert!(!ledger.has_outcomes());
        ledger.settle(P1, 0, Ok(Offset(1)));
        ledger.settle(P0, 0, Ok(Offset(5)));
        let expected = [(P1, 20, Some(1)), (P0, 10, Some(5)), (P0, 11, None), (P0, 12, Some(7))];
        assert_eq!(told(&mut ledger), expected);
        assert_eq!((ledger.bytes, ledger.records), (0, 0));
    }

    #[test]
    fn an_outcome_is_told_once() {
        let mut ledger = ledger();
        accept(&mut ledger, P0, 10);
        accept(&mut ledger, P0, 11);
        ledger.settle(P0, 1, Err(doubt()));
        ledger.settle(P0, 1, Ok(Offset(9)));
        ledger.settle(P0, 0, Ok(Offset(5)));
        ledger.settle(P0, 0, Ok(Offset(6)));
        ledger.settle(P0, 2, Ok(Offset(6)));
        ledger.settle(P1, 0, Ok(Offset(6)));
        assert_eq!(told(&mut ledger), [(P0, 10, Some(5)), (P0, 11, None)]);
    }

    #[test]
    fn what_is_given_up_is_of_one_producer() {
        let mut ledger = ledger();
        ledger.accept(P0, 10, 1, 1, 0).unwrap();
        ledger.accept(P0, 11, 1, 1, 0).unwrap();
        ledger.accept(P0, 12, 1, 2, 0).unwrap();
        ledger.settle(P0, 2, Ok(Offset(3)));
        ledger.settle(P0, 0, Ok(Offset(0)));
        ledger.give_up(1, &doubt());
        // The library comes late with what it was thought to have lost.
        ledger.settle(P0, 1, Ok(Offset(1)));
        let expected = [(P0, 10, Some(0)), (P0, 11, None), (P0, 12, Some(3))];
        assert_eq!(told(&mut ledger), expected);
    }

    #[test]
    fn a_withdrawn_record_leaves_its_number_and_its_room() {
        let mut ledger = ledger();
        accept(&mut ledger, P0, 10);
        assert_eq!(accept(&mut ledger, P0, 11), 1);
        ledger.withdraw(P0);
        assert_eq!(accept(&mut ledger, P0, 12), 1);
        ledger.settle(P0, 0, Ok(Offset(0)));
        ledger.settle(P0, 1, Ok(Offset(1)));
        assert_eq!(told(&mut ledger), [(P0, 10, Some(0)), (P0, 12, Some(1))]);
    }

    #[test]
    fn bytes_records_and_unread_outcomes_have_a_limit() {
        let mut ledger = ledger();
        assert_eq!(ledger.accept(P0, 0, 1000, 1, 0), None);
        assert_eq!(ledger.accept(P0, 0, 1000 - IN_FLIGHT_OVERHEAD_BYTES, 1, 0), Some(0));
        assert_eq!(ledger.accept(P0, 0, 0, 1, 0), None);
        ledger.settle(P0, 0, Ok(Offset(0)));
        for number in 1..=8 {
            assert_eq!(ledger.accept(P0, 0, 0, 1, 0), Some(number));
        }
        assert_eq!(ledger.accept(P0, 0, 0, 1, 0), None);
        ledger.settle(P0, 1, Ok(Offset(1)));
        assert_eq!(ledger.accept(P0, 0, 0, 1, 1), None);
        assert_eq!(ledger.accept(P0, 0, 0, 1, 0), Some(9));
    }
}
