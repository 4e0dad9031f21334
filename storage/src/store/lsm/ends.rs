//! Where each channel's messages and events end: a row beyond its end is new, and needs no look
//! into the tree for the stamp of the row before it.
//!
//! Nearly every row that a projection writes is of this kind, and looking for what is not there
//! was a tenth of what a publish cost. An end is an upper bound: it is raised before the row is
//! written, and stays when the row was not written after all or expires.

use std::collections::HashMap;
use std::mem;

use foldhash::fast::RandomState;

use super::super::StoreError;
use super::super::key::Sequence;
use super::group::Rows;

/// The ends that were needed of late, of the one thread that writes rows: those of the present
/// generation and the one before it.
#[derive(Default)]
pub(super) struct Ends {
    young: HashMap<Sequence, u64, RandomState>,
    old: HashMap<Sequence, u64, RandomState>,
}

impl Ends {
    /// Whether nothing was ever written here or beyond. From now on something was.
    pub(super) fn is_new(
        &mut self,
        rows: &impl Rows,
        sequence: Sequence,
        position: u64,
    ) -> Result<bool, StoreError> {
        if let Some(end) = self.young.get_mut(&sequence) {
            let is_new = position > *end;
            *end = position.max(*end);
            return Ok(is_new);
        }
        let end = match self.old.get(&sequence) {
            Some(end) => *end,
            None => rows.end(sequence)?.unwrap_or(0),
        };
        self.young.insert(sequence, end.max(position));
        if self.young.len() >= GENERATION_MAX {
            self.old = mem::take(&mut self.young);
        }
        Ok(position > end)
    }
}

/// Ends of a generation. Two generations are some 2 MiB.
const GENERATION_MAX: usize = 16_384;

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use chappe_protocol::{ChannelId, Rev, Seq};
    use fjall::{UserKey, UserValue};

    use super::*;
    use crate::store::Key;

    /// The committed end of every sequence, and how often it was looked for.
    #[derive(Default)]
    struct Committed {
        end: Cell<Option<u64>>,
        looks: Cell<usize>,
    }

    impl Rows for Committed {
        fn get(&self, _: &[u8]) -> Result<Option<UserValue>, StoreError> {
            unreachable!("an end is looked for alone")
        }

        fn end(&self, _: Sequence) -> Result<Option<u64>, StoreError> {
            self.looks.set(self.looks.get() + 1);
            Ok(self.end.get())
        }

        fn bundle(&self, _: Sequence, _: u64) -> Result<Option<(UserKey, UserValue)>, StoreError> {
            unreachable!("an end is looked for alone")
        }

        fn commit(
            &self,
            _: impl Iterator<Item = (UserKey, Option<UserValue>)>,
        ) -> Result<(), StoreError> {
            unreachable!("nothing is written")
        }
    }

    fn is_new(ends: &mut Ends, rows: &Committed, key: Key) -> bool {
        let (sequence, position) = Sequence::of(key.to_bytes().as_ref()).unwrap();
        ends.is_new(rows, sequence, position).unwrap()
    }

    fn message(channel: u64, seq: u64) -> Key {
        Key::Message(ChannelId::new(channel), Seq::new(seq))
    }

    fn event(channel: u64, rev: u64) -> Key {
        Key::Event(ChannelId::new(channel), Rev::new(rev))
    }

    #[test]
    fn only_what_lies_beyond_the_end_is_taken_for_new() {
        let rows = Committed { end: Cell::new(Some(5)), ..Committed::default() };
        let ends = &mut Ends::default();
        assert!(is_new(ends, &rows, message(1, 6)));
        assert!(!is_new(ends, &rows, message(1, 5)));
        assert!(!is_new(ends, &rows, event(1, 5)));
        assert!(!is_new(ends, &rows, message(2, 4)));
        assert!(is_new(ends, &rows, event(1, 9)));
        assert_eq!(rows.looks.get(), 3, "once for each sequence");
    }

    #[test]
    fn what_was_written_is_looked_for_from_then_on() {
        let (rows, ends) = (Committed::default(), &mut Ends::default());
        let new = [3, 1, 2, 3, 4].map(|seq| is_new(ends, &rows, message(1, seq)));
        assert_eq!(new, [true, false, false, false, true]);
    }

    #[test]
    fn an_end_that_was_forgotten_is_found_again() {
        let channels = 3 * GENERATION_MAX as u64;
        let (rows, ends) = (Committed::default(), &mut Ends::default());
        for channel in 0..channels {
            assert!(is_new(ends, &rows, message(channel, 5)));
        }
        assert!(((ends.young.len() + ends.old.len()) as u64) < channels);
        rows.end.set(Some(5));
        assert!(!is_new(ends, &rows, message(0, 5)));
        assert!(is_new(ends, &rows, message(0, 6)));
    }
}
