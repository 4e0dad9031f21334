//! Ticks of all partitions in one frame.
//!
//! A tick counts a partition's milliseconds of leadership, so that partitions' ticks drift apart;
//! and a channel comes into another partition where there are more or fewer of them. Rows that hold
//! ticks are therefore moved by what their partition lacks to the one that is furthest: windows of
//! nonces and slow mode go on for every channel as they would have.

use chappe_partition::row::{RowError, RowValue};
use chappe_storage::store::{Key, Row};

use crate::manifest::Source;

/// The row as it is exported.
pub(crate) fn framed(key: &Key, row: Row, source: &Source) -> Result<Row, RowError> {
    let (Key::Event(channel, _) | Key::Member(channel, _)) = key else { return Ok(row) };
    let shift = source.shift(channel.partition(source.partitions()));
    if shift == 0 {
        return Ok(row);
    }
    let mut value = RowValue::decode(key, &row.value)?;
    match &mut value {
        RowValue::Event(event) => event.tick += shift,
        RowValue::Member(member) => match &mut member.published_tick {
            Some(tick) => *tick += shift,
            None => return Ok(row),
        },
        _ => return Ok(row),
    }
    Ok(Row { stamp: row.stamp, value: value.encode() })
}
