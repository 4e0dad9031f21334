//! Reading rows: one, several, and ranges of them through the buckets.

use std::collections::HashMap;
use std::ops::ControlFlow;

use chappe_protocol::ChannelId;
use chappe_protocol::id::POSITION_MAX;
use futures_util::stream::{self, StreamExt as _, TryStreamExt as _};
use scylla::response::PagingState;
use scylla::response::query_result::QueryRowsResult;
use scylla::statement::prepared::PreparedStatement;
use tokio::time::Instant;

use super::super::key::BUCKET;
use super::super::{Key, Row, Scan, Stamp, StoreError, Table};
use super::ScyllaStore;
use super::buckets::index_of;
use super::link::Link;
use super::row::{self, Field, Listed, Partition, key_fields, number, stamp, strange};
use super::schema::bucket;
use super::statements::Walk;

impl ScyllaStore {
    pub(super) async fn read_row(&self, key: Key) -> Result<Option<Row>, StoreError> {
        let end = self.cluster.end_of_call();
        let link = self.cluster.link(end).await?;
        self.one(&link, end, key).await
    }

    /// Several rows. Those of one bucket come together, as a page of history asks for them.
    pub(super) async fn read_rows(&self, keys: Vec<Key>) -> Result<Vec<Option<Row>>, StoreError> {
        if keys.is_empty() {
            return Ok(Vec::new());
        }
        let end = self.cluster.end_of_call();
        let link = &*self.cluster.link(end).await?;
        let mut parts = HashMap::<Partition, Vec<Key>>::new();
        let mut asks = Vec::new();
        for key in &keys {
            match Partition::of(key) {
                bucket if bucket.is_bucket() => parts.entry(bucket).or_default().push(*key),
                _ => asks.push(vec![*key]),
            }
        }
        for (_, mut keys) in parts {
            keys.sort_unstable();
            keys.dedup();
            asks.extend(keys.chunks(KEYS_ASKED).map(<[Key]>::to_vec));
        }
        let found = stream::iter(asks).map(|keys| self.some(link, end, keys));
        let found = found.buffer_unordered(READS_OF_ONE_CALL).try_concat().await?;
        let found: HashMap<Key, Row> = found.into_iter().collect();
        Ok(keys.iter().map(|key| found.get(key).cloned()).collect())
    }

    async fn one(&self, link: &Link, end: Instant, key: Key) -> Result<Option<Row>, StoreError> {
        let statement = &link.statements.of(key.table()).get;
        let answer = self.all(link, end, statement, &key_fields(&key)).await?;
        let found = answer.maybe_first_row::<row::Cell<'_>>().map_err(strange)?;
        found.map(row::row).transpose()
    }

    /// The rows of keys of one bucket, or of a single key.
    async fn some(
        &self,
        link: &Link,
        end: Instant,
        keys: Vec<Key>,
    ) -> Result<Vec<(Key, Row)>, StoreError> {
        let (listed, walk, numbers): (_, _, Vec<_>) = match keys[..] {
            [Key::Message(channel, _), _, ..] => {
                let seqs = keys.iter().filter_map(|key| match key {
                    Key::Message(_, seq) => Some(seq.get() as i64),
                    _ => None,
                });
                (Listed::Messages(channel), &link.statements.messages, seqs.collect())
            }
            [Key::Event(channel, _), _, ..] => {
                let revs = keys.iter().filter_map(|key| match key {
                    Key::Event(_, rev) => Some(rev.get() as i64),
                    _ => None,
                });
                (Listed::Events(channel), &link.statements.events, revs.collect())
            }
            [key] => {
                let row = self.one(link, end, key).await?;
                return Ok(row.map(|row| (key, row)).into_iter().collect());
            }
            _ => unreachable!("only keys of one bucket are read together"),
        };
        let Partition { of, bucket, .. } = Partition::of(&keys[0]);
        let values = [Field::Id(of), Field::Number(bucket), Field::Numbers(numbers)];
        self.list(link, end, &walk.several, &values, listed, usize::MAX).await
    }

    pub(super) async fn read_range(
        &self,
        scan: Scan,
        limit: usize,
    ) -> Result<Vec<(Key, Row)>, StoreError> {
        if limit == 0 {
            return Ok(Vec::new());
        }
        let end = self.cluster.end_of_call();
        let link = &*self.cluster.link(end).await?;
        let statements = &link.statements;
        let above = |id: Option<u64>| id.map_or(Field::NoId, Field::Id);
        let (statement, mut values, listed) = match scan {
            Scan::MessagesBefore(..)
            | Scan::MessagesAfter(..)
            | Scan::EventsAfter(..)
            | Scan::EventsUpTo(..) => {
                let Some(course) = Course::of(scan) else { return Ok(Vec::new()) };
                return self.walk(link, end, course, limit).await;
            }
            Scan::Members(channel, after) => (
                &statements.members,
                vec![Field::Id(channel.get()), above(after.map(|user| user.get()))],
                Listed::Members(channel),
            ),
            Scan::ChannelsByUser(user, after) => (
                &statements.channels_by_user,
                vec![Field::Id(user.get()), above(after.map(|channel| channel.get()))],
                Listed::ChannelsOf(user),
            ),
            Scan::Mentions(user, channel, seq) => (
                &statements.mentions,
                vec![Field::Id(user.get()), Field::Id(channel.get()), number(seq.get())],
                Listed::Mentions(user, channel),
            ),
            Scan::Outbox(partition) => {
                (&statements.outbox, vec![number(partition.0.into())], Listed::Outbox(partition))
            }
        };
        values.push(limit_field(limit));
        self.list(link, end, statement, &values, listed, limit).await
    }

    /// Goes from bucket to bucket until there are rows enough or no more.
    async fn walk(
        &self,
        link: &Link,
        end: Instant,
        course: Course,
        limit: usize,
    ) -> Result<Vec<(Key, Row)>, StoreError> {
        let Course { table, channel, way, from } = course;
        let (walk, listed): (&Walk, _) = match table {
            Table::Messages => (&link.statements.messages, Listed::Messages(channel)),
            _ => (&link.statements.events, Listed::Events(channel)),
        };
        let index = &link.statements.buckets;
        let (statement, next) = match way {
            Way::Up => (&walk.up, &index.above),
            Way::Down => (&walk.down, &index.below),
        };
        let mut rows = Vec::new();
        let (mut bucket, mut bound) = (bucket(from), from);
        loop {
            let wanted = limit - rows.len();
            let place = vec![Field::Id(channel.get()), Field::Number(bucket)];
            let values = [place, vec![number(bound), limit_field(wanted)]].concat();
            rows.extend(self.list(link, end, statement, &values, listed, wanted).await?);
            let is_last = matches!(way, Way::Down) && bucket == 0;
            if rows.len() >= limit || is_last {
                return Ok(rows);
            }
            let mut values = index_of(channel, table);
            values.push(Field::Number(bucket));
            let answer = self.all(link, end, next, &values).await?;
            let Some((found,)) = answer.maybe_first_row::<(i64,)>().map_err(strange)? else {
                return Ok(rows);
            };
            bucket = found;
            let first = row::position(bucket)? * BUCKET;
            bound = match way {
                Way::Up => first,
                Way::Down => first + BUCKET - 1,
            };
        }
    }

    /// The lowest buckets of a channel's events below a bound, and the stamps of their rows in the
    /// index.
    pub(super) async fn lowest_buckets(
        &self,
        link: &Link,
        end: Instant,
        channel: ChannelId,
        below: i64,
    ) -> Result<Vec<(i64, Stamp)>, StoreError> {
        let mut values = index_of(channel, Table::Events);
        values.extend([Field::Number(below), limit_field(BUCKETS_LISTED)]);
        let answer = self.all(link, end, &link.statements.buckets.lowest, &values).await?;
        let rows = answer.rows::<(i64, Option<i64>)>().map_err(strange)?;
        rows.map(|found| {
            let (bucket, written) = found.map_err(strange)?;
            Ok((bucket, stamp(written)?))
        })
        .collect()
    }

    /// The newest stamp in a bucket of events.
    pub(super) async fn newest_event(
        &self,
        link: &Link,
        end: Instant,
        place: &[Field],
    ) -> Result<Option<Stamp>, StoreError> {
        let mut newest = None;
        let mut page = PagingState::start();
        loop {
            let statement = &link.statements.event_stamps;
            let (answer, next) = self.page(link, end, statement, place, page).await?;
            for found in answer.rows::<(Option<i64>,)>().map_err(strange)? {
                newest = newest.max(Some(stamp(found.map_err(strange)?.0)?));
            }
            match next {
                Some(next) => page = next,
                None => return Ok(newest),
            }
        }
    }

    /// The rows that a statement brings, page by page, up to a limit.
    async fn list(
        &self,
        link: &Link,
        end: Instant,
        statement: &PreparedStatement,
        values: &[Field],
        listed: Listed,
        limit: usize,
    ) -> Result<Vec<(Key, Row)>, StoreError> {
        let mut rows = Vec::new();
        let mut page = PagingState::start();
        loop {
            let (answer, next) = self.page(link, end, statement, values, page).await?;
            rows.extend(listed.rows(&answer)?);
            match next {
                Some(next) if rows.len() < limit => page = next,
                _ => return Ok(rows),
            }
        }
    }

    /// An answer that fits one page.
    pub(super) async fn all(
        &self,
        link: &Link,
        end: Instant,
        statement: &PreparedStatement,
        values: &[Field],
    ) -> Result<QueryRowsResult, StoreError> {
        let (answer, _) = self.page(link, end, statement, values, PagingState::start()).await?;
        Ok(answer)
    }

    pub(super) async fn page(
        &self,
        link: &Link,
        end: Instant,
        statement: &PreparedStatement,
        values: &[Field],
        page: PagingState,
    ) -> Result<(QueryRowsResult, Option<PagingState>), StoreError> {
        let ask = || link.session.execute_single_page(statement, values, page.clone());
        let (answer, next) = self.cluster.ask(end, ask).await?;
        let next = match next.into_paging_control_flow() {
            ControlFlow::Continue(next) => Some(next),
            ControlFlow::Break(()) => None,
        };
        Ok((answer.into_rows_result().map_err(strange)?, next))
    }
}

/// A walk through the rows of a channel, from a number on that is taken in.
struct Course {
    table: Table,
    channel: ChannelId,
    way: Way,
    from: u64,
}

#[derive(Clone, Copy)]
enum Way {
    Up,
    Down,
}

impl Course {
    /// None for one that no row can be on.
    fn of(scan: Scan) -> Option<Self> {
        let above = |number: u64| Some(number + 1).filter(|next| *next < POSITION_MAX);
        let course = |table, channel, way, from| Self { table, channel, way, from };
        Some(match scan {
            Scan::MessagesBefore(channel, seq) => {
                course(Table::Messages, channel, Way::Down, seq.get().checked_sub(1)?)
            }
            Scan::MessagesAfter(channel, seq) => {
                course(Table::Messages, channel, Way::Up, above(seq.get())?)
            }
            Scan::EventsAfter(channel, rev) => {
                course(Table::Events, channel, Way::Up, above(rev.get())?)
            }
            Scan::EventsUpTo(channel, rev) => course(Table::Events, channel, Way::Down, rev.get()),
            _ => return None,
        })
    }
}

/// CQL counts with 31 bits.
pub(super) fn limit_field(limit: usize) -> Field {
    Field::Limit(i32::try_from(limit).unwrap_or(i32::MAX))
}

/// Keys of one request: ScyllaDB takes 100.
const KEYS_ASKED: usize = 64;
/// Requests of one call that are on their way at once.
const READS_OF_ONE_CALL: usize = 32;
/// Buckets of the index that are read at once to be removed; they fit one page.
pub(super) const BUCKETS_LISTED: usize = 128;
