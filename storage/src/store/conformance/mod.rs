//! The promises of the store port, each as a test that a backend passes.
//!
//! [`store_conformance!`](crate::store_conformance) makes them tests of one backend. They panic
//! where a promise is broken. A backend's own errors, formats and limits are its own tests' affair.
#![allow(clippy::unwrap_used)] // what fails here fails a test

mod claims;
mod dump;
mod expiry;
mod model;
#[cfg(test)]
pub(crate) mod random;
mod rows;
mod scans;
mod stamps;

use std::future::Future;

use bytes::Bytes;
use chappe_protocol::{ChannelId, Incarnation, PartitionId, Rev, Seq, UserId};

use super::{Key, Mutation, Row, Scan, Stamp, Store};

pub use claims::*;
pub use dump::*;
pub use expiry::*;
pub use model::*;
pub use rows::*;
pub use scans::*;
pub use stamps::*;

/// A backend under test: a place for one store, empty at first.
pub trait Subject: Sized {
    /// The backend.
    type Store: Store;

    /// A new place.
    fn new() -> impl Future<Output = Self>;

    /// Opens the store of this place. Called again only after the one before was dropped.
    fn open(&self) -> impl Future<Output = Self::Store>;
}

/// Makes the suite tests of a backend, given its [`Subject`](crate::store::conformance::Subject).
#[macro_export]
macro_rules! store_conformance {
    ($subject:ty) => {
        $crate::store_conformance! { $subject:
            an_older_stamp_changes_nothing,
            an_older_stamp_in_the_same_batch_changes_nothing,
            an_equal_stamp_is_idempotent,
            a_later_incarnation_beats_any_revision,
            replaying_an_old_range_changes_nothing,
            the_newest_of_concurrent_writes_stays,
            a_row_is_removed_at_its_own_stamp_and_not_at_an_older_one,
            a_batch_spans_every_table,
            get_many_answers_in_the_order_asked,
            what_was_written_outlives_a_reopen,
            the_largest_row_comes_back_whole,
            a_write_is_read_at_once,
            a_dropped_write_harms_no_other,
            concurrent_batches_all_arrive,
            messages_before_come_highest_first_without_the_bound,
            messages_after_come_lowest_first_without_the_bound,
            events_after_leave_the_bound_out_and_events_up_to_take_it_in,
            members_and_channels_come_in_order_after_the_bound,
            mentions_are_those_of_one_user_in_one_channel,
            an_outbox_comes_in_the_order_of_source_target_and_revision,
            a_scan_keeps_to_its_limit,
            a_scan_never_shows_a_neighbours_rows,
            one_of_many_claims_wins_and_the_others_see_its_value,
            a_claim_with_the_same_value_succeeds_again,
            a_claim_is_released_only_by_its_value,
            a_claim_excludes_until_it_is_released,
            claims_outlive_a_reopen,
            expiry_drops_whole_buckets_only,
            expiry_leaves_other_channels_and_tables_alone,
            a_long_past_expires_and_is_gone_after_a_reopen,
        }
    };
    ($subject:ty: $($promise:ident,)*) => {
        $(
            #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $promise() {
                let subject = <$subject as $crate::store::conformance::Subject>::new().await;
                $crate::store::conformance::$promise(subject).await;
            }
        )*
    };
}

/// Makes the part of the suite that goes through whole tables tests of one backend. Each store must
/// be all its subject's own, which in shared tables the others' need not be.
#[macro_export]
macro_rules! store_dump_conformance {
    ($subject:ty) => {
        $crate::store_conformance! { $subject:
            a_dump_brings_every_row_of_a_table_once,
            a_dump_goes_on_behind_any_row_after_a_reopen,
            a_long_dump_has_no_removed_rows,
            a_dump_brings_every_name_once,
        }
    };
}

const CHANNEL: ChannelId = ChannelId::new(0x1234);
const USER: UserId = UserId::new(0x77);

fn stamp(rev: u64) -> Stamp {
    Stamp::of(Incarnation(1), Rev::new(rev))
}

/// A write whose bytes follow from key and stamp, as a projection's do.
fn put(key: Key, stamp: Stamp) -> Mutation {
    Mutation { key, stamp, value: Some(value(key, stamp)) }
}

fn remove(key: Key, stamp: Stamp) -> Mutation {
    Mutation { key, stamp, value: None }
}

fn value(key: Key, stamp: Stamp) -> Bytes {
    Bytes::from(format!("{key:?} at {}", stamp.0))
}

fn row(key: Key, stamp: Stamp) -> Row {
    Row { stamp, value: value(key, stamp) }
}

fn message(seq: u64) -> Key {
    Key::Message(CHANNEL, Seq::new(seq))
}

fn event(rev: u64) -> Key {
    Key::Event(CHANNEL, Rev::new(rev))
}

fn outbox(partition: u32, source: u64, target: u64, rev: u64) -> Key {
    Key::Outbox {
        partition: PartitionId(partition),
        source: ChannelId::new(source),
        target: ChannelId::new(target),
        rev: Rev::new(rev),
    }
}

/// The keys that a scan brings, whose rows must be theirs.
async fn scanned(store: &impl Store, scan: Scan, limit: usize) -> Vec<Key> {
    let rows = store.scan(scan, limit).await.unwrap();
    for (key, found) in &rows {
        assert_eq!(*found, row(*key, found.stamp), "the row of {key:?}");
    }
    rows.into_iter().map(|(key, _)| key).collect()
}
