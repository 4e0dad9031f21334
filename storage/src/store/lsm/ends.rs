//! Where each channel's messages and events end: a row beyond its end is new, and needs no look
//! into the tree for the stamp of the row before it.
//!
//! Nearly every row that a projection writes is of this kind, and looking for what is not there
//! was a tenth of what a publish cost. An end is an upper bound: it is raised before the row is
//! written, and stays when the row was not written after all or expires.

use std::cell::RefCell;
use std::collections::HashMap;
use std::mem;

use fjall::{UserKey, UserValue};
use foldhash::fast::RandomState;

use super::super::StoreError;
use super::super::key::Sequence;
use super::group::Rows;

/// The committed rows of the one thread that writes them.
pub(super) struct Ends<'a, R> {
    rows: &'a R,
    known: RefCell<Known>,
}

/// The ends that were needed of late: those of the present generation and the one before it.
#[derive(Default)]
struct Known {
    young: HashMap<Sequence, u64, RandomState>,
    old: HashMap<Sequence, u64, RandomState>,
}

impl<'a, R: Rows> Ends<'a, R> {
    pub(super) fn new(rows: &'a R) -> Self {
        Self { rows, known: RefCell::default() }
    }

    /// Whether nothing was ever written here or beyond. From now on something was.
    fn is_new(&self, sequence: Sequence, position: u64) -> Result<bool, StoreError> {
        let known = &mut *self.known.borrow_mut();
        let end = match known.get(&sequence) {
            Some(end) => end,
            None => self.rows.end(sequence)?.unwrap_or(0),
        };
        known.set(sequence, end.max(position));
        Ok(position > end)
    }
}

impl<R: Rows> Rows for Ends<'_, R> {
    fn get(&self, key: &[u8]) -> Result<Option<UserValue>, StoreError> {
        if let Some((sequence, position)) = Sequence::of(key)
            && self.is_new(sequence, position)?
        {
            return Ok(None);
        }
        self.rows.get(key)
    }

    fn end(&self, sequence: Sequence) -> Result<Option<u64>, StoreError> {
        self.rows.end(sequence)
    }

    fn commit(
        &self,
        changes: impl Iterator<Item = (UserKey, Option<UserValue>)>,
    ) -> Result<(), StoreError> {
        self.rows.commit(changes)
    }
}

impl Known {
    fn get(&self, sequence: &Sequence) -> Option<u64> {
        self.young.get(sequence).or_else(|| self.old.get(sequence)).copied()
    }

    fn set(&mut self, sequence: Sequence, end: u64) {
        self.young.insert(sequence, end);
        if self.young.len() >= GENERATION_MAX {
            self.old = mem::take(&mut self.young);
        }
    }
}

/// Ends of a generation. Two generations are some 2 MiB.
const GENERATION_MAX: usize = 16_384;

#[cfg(test)]
mod tests {
    use std::cell::Cell;
    use std::collections::BTreeMap;

    use chappe_protocol::{ChannelId, Rev, Seq};

    use super::*;
    use crate::store::Key;

    /// Committed rows, and how often they were looked into.
    #[derive(Default)]
    struct Map {
        rows: RefCell<BTreeMap<Vec<u8>, UserValue>>,
        looks: Cell<usize>,
    }

    impl Rows for Map {
        fn get(&self, key: &[u8]) -> Result<Option<UserValue>, StoreError> {
            self.looks.set(self.looks.get() + 1);
            Ok(self.rows.borrow().get(key).cloned())
        }

        fn end(&self, sequence: Sequence) -> Result<Option<u64>, StoreError> {
            let positions = self.rows.borrow();
            let positions = positions.keys().filter_map(|key| Sequence::of(key));
            Ok(positions.filter(|(of, _)| *of == sequence).map(|(_, position)| position).max())
        }

        fn commit(
            &self,
            changes: impl Iterator<Item = (UserKey, Option<UserValue>)>,
        ) -> Result<(), StoreError> {
            for (key, value) in changes {
                self.rows.borrow_mut().insert(key.to_vec(), value.unwrap());
            }
            Ok(())
        }
    }

    impl Map {
        fn with(keys: impl IntoIterator<Item = Key>) -> Self {
            let rows = keys.into_iter().map(|key| (bytes(key), "stored".into()));
            Self { rows: RefCell::new(rows.collect()), looks: Cell::new(0) }
        }
    }

    fn bytes(key: Key) -> Vec<u8> {
        key.to_bytes().as_ref().to_vec()
    }

    fn message(channel: u64, seq: u64) -> Key {
        Key::Message(ChannelId::new(channel), Seq::new(seq))
    }

    fn event(channel: u64, rev: u64) -> Key {
        Key::Event(ChannelId::new(channel), Rev::new(rev))
    }

    #[test]
    fn only_what_lies_beyond_the_end_is_taken_for_new() {
        let map = Map::with([message(1, 5), event(1, 9), message(2, 7)]);
        let ends = Ends::new(&map);
        let is_stored = |key| ends.get(&bytes(key)).unwrap().is_some();
        assert!(!is_stored(message(1, 6)));
        assert_eq!(map.looks.get(), 0);
        assert!(is_stored(message(1, 5)));
        assert!(is_stored(event(1, 9)) && is_stored(message(2, 7)));
        assert_eq!(map.looks.get(), 3);
        assert!(!is_stored(event(1, 3)), "below the end it may be there, and is looked for");
        assert_eq!(map.looks.get(), 4);
    }

    #[test]
    fn what_was_written_is_looked_for_from_then_on() {
        let map = Map::default();
        let ends = Ends::new(&map);
        for seq in [3, 1, 2, 3] {
            let key = bytes(message(1, seq));
            if ends.get(&key).unwrap().is_none() {
                ends.commit([(key.as_slice().into(), Some("new".into()))].into_iter()).unwrap();
            } else {
                assert_eq!(seq, 3);
            }
        }
        assert_eq!(map.looks.get(), 3, "for 1, 2 and the second 3");
    }

    #[test]
    fn an_end_that_was_forgotten_is_found_again() {
        let channels = 0..3 * GENERATION_MAX as u64;
        let map = Map::default();
        let ends = Ends::new(&map);
        for channel in channels.clone() {
            assert_eq!(ends.get(&bytes(message(channel, 5))), Ok(None));
        }
        assert!(ends.known.borrow().young.len() + ends.known.borrow().old.len() < channels.count());
        let kept = bytes(message(0, 5));
        map.rows.borrow_mut().insert(kept.clone(), "stored".into());
        assert_eq!(ends.get(&kept), Ok(Some("stored".into())));
    }

    #[test]
    fn rows_that_do_not_end_in_a_number_are_always_looked_for() {
        let map = Map::default();
        let ends = Ends::new(&map);
        assert_eq!(ends.get(&bytes(Key::Head(ChannelId::new(1)))), Ok(None));
        assert_eq!(ends.get(b"\x80name"), Ok(None));
        assert_eq!(map.looks.get(), 2);
    }
}
