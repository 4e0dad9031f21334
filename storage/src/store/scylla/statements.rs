//! The statements, prepared once for each session.

use futures_util::future::try_join_all;
use scylla::client::execution_profile::ExecutionProfileHandle;
use scylla::client::session::Session;
use scylla::errors::PrepareError;
use scylla::statement::prepared::PreparedStatement;
use scylla::statement::unprepared::Statement;

use super::super::Table;
use super::schema::{self, Column, Layout};

pub(super) struct Statements {
    /// By the table's number.
    rows: Vec<RowStatements>,
    pub(super) messages: Walk,
    pub(super) events: Walk,
    pub(super) members: PreparedStatement,
    pub(super) channels_by_user: PreparedStatement,
    pub(super) mentions: PreparedStatement,
    pub(super) outbox: PreparedStatement,
    pub(super) buckets: BucketStatements,
    pub(super) claims: ClaimStatements,
    /// The write times of a bucket of events.
    pub(super) event_stamps: PreparedStatement,
    pub(super) drop_events: PreparedStatement,
}

/// Those of a stamped table.
pub(super) struct RowStatements {
    /// Stamp, value, key.
    pub(super) put: PreparedStatement,
    /// Stamp, key.
    pub(super) remove: PreparedStatement,
    /// Key.
    pub(super) get: PreparedStatement,
}

/// Those of a table of buckets. Each takes channel, bucket and a bound, which is taken in.
pub(super) struct Walk {
    pub(super) up: PreparedStatement,
    pub(super) down: PreparedStatement,
    /// Channel, bucket and a list of numbers.
    pub(super) several: PreparedStatement,
}

/// Those of the index of buckets.
pub(super) struct BucketStatements {
    pub(super) put: PreparedStatement,
    pub(super) remove: PreparedStatement,
    /// The next one above a bucket, or below.
    pub(super) above: PreparedStatement,
    pub(super) below: PreparedStatement,
    /// The lowest ones below a bucket, with the times that they were written.
    pub(super) lowest: PreparedStatement,
}

/// Those of the unique keys, which are conditional and never sent twice by the driver.
pub(super) struct ClaimStatements {
    /// Key, value.
    pub(super) claim: PreparedStatement,
    /// Key.
    pub(super) claimed: PreparedStatement,
    /// Key, value.
    pub(super) release: PreparedStatement,
}

impl Statements {
    pub(super) async fn prepare(
        session: &Session,
        keyspace: &str,
        reads: &ExecutionProfileHandle,
        claims: scylla::statement::Consistency,
    ) -> Result<Self, PrepareError> {
        let prepare = Prepare { session, keyspace, reads };
        let tables = schema::STAMPED.map(schema::stamped);
        let rows = try_join_all(tables.iter().map(|table| prepare.rows(table))).await?;
        let listed = |table, columns, rest| prepare.listed(schema::stamped(table), columns, rest);
        let members = listed(Table::Members, "user", "channel = ? AND user > ? LIMIT ?");
        let channels = listed(Table::ChannelsByUser, "channel", "user = ? AND channel > ? LIMIT ?");
        let mentions = "user = ? AND channel = ? AND seq > ? LIMIT ?";
        let mentions = listed(Table::Mentions, "seq", mentions);
        let outbox = listed(Table::Outbox, "source, target, rev", "partition = ? LIMIT ?");
        let stamps = "SELECT WRITETIME(value) FROM {} WHERE channel = ? AND bucket = ?";
        let drop = "DELETE FROM {} USING TIMESTAMP ? WHERE channel = ? AND bucket = ?";
        let events = schema::stamped(Table::Events);
        Ok(Self {
            rows,
            messages: prepare.walk(schema::stamped(Table::Messages)).await?,
            events: prepare.walk(events).await?,
            members: members.await?,
            channels_by_user: channels.await?,
            mentions: mentions.await?,
            outbox: outbox.await?,
            buckets: prepare.buckets().await?,
            claims: prepare.claims(claims).await?,
            event_stamps: prepare.read(&events, stamps).await?,
            drop_events: prepare.write(&events, drop).await?,
        })
    }

    pub(super) fn of(&self, table: Table) -> &RowStatements {
        &self.rows[table as usize]
    }
}

pub(super) struct Prepare<'a> {
    pub(super) session: &'a Session,
    pub(super) keyspace: &'a str,
    pub(super) reads: &'a ExecutionProfileHandle,
}

impl Prepare<'_> {
    async fn rows(&self, table: &Layout) -> Result<RowStatements, PrepareError> {
        let key = table.key().map(|Column(name, _)| format!("{name} = ?"));
        let key = key.collect::<Vec<_>>().join(" AND ");
        // Not INSERT, which would leave a marker beside the cell: the row is its cell.
        let put = format!("UPDATE {{}} USING TIMESTAMP ? SET value = ? WHERE {key}");
        let remove = format!("DELETE FROM {{}} USING TIMESTAMP ? WHERE {key}");
        let get = format!("SELECT value, WRITETIME(value) FROM {{}} WHERE {key}");
        Ok(RowStatements {
            put: self.write(table, &put).await?,
            remove: self.write(table, &remove).await?,
            get: self.read(table, &get).await?,
        })
    }

    async fn walk(&self, table: Layout) -> Result<Walk, PrepareError> {
        let number = table.clustering[0].0;
        let bounded = |by: &str, order: &str| {
            format!(
                "channel = ? AND bucket = ? AND {number} {by} ? ORDER BY {number} {order} LIMIT ?"
            )
        };
        let several = format!("channel = ? AND bucket = ? AND {number} IN ?");
        Ok(Walk {
            up: self.listed(table, number, &bounded(">=", "ASC")).await?,
            down: self.listed(table, number, &bounded("<=", "DESC")).await?,
            several: self.listed(table, number, &several).await?,
        })
    }

    async fn buckets(&self) -> Result<BucketStatements, PrepareError> {
        let table = schema::BUCKETS;
        let RowStatements { put, remove, .. } = self.rows(&table).await?;
        let next = |by: &str, order: &str| {
            format!(
                "SELECT bucket FROM {{}} WHERE channel = ? AND kind = ? AND bucket {by} ? \
                 ORDER BY bucket {order} LIMIT 1"
            )
        };
        let lowest = "SELECT bucket, WRITETIME(value) FROM {} \
                      WHERE channel = ? AND kind = ? AND bucket < ? LIMIT ?";
        Ok(BucketStatements {
            put,
            remove,
            above: self.read(&table, &next(">", "ASC")).await?,
            below: self.read(&table, &next("<", "DESC")).await?,
            lowest: self.read(&table, lowest).await?,
        })
    }

    async fn claims(
        &self,
        claimed: scylla::statement::Consistency,
    ) -> Result<ClaimStatements, PrepareError> {
        let table = schema::CLAIMS;
        let claim = "INSERT INTO {} (kind, name, value) VALUES (?, ?, ?) IF NOT EXISTS";
        let release = "DELETE FROM {} WHERE kind = ? AND name = ? IF value = ?";
        let read = "SELECT value FROM {} WHERE kind = ? AND name = ?";
        let mut read = self.prepare(&table, read).await?;
        read.set_consistency(claimed);
        Ok(ClaimStatements {
            claim: self.prepare(&table, claim).await?,
            claimed: read,
            release: self.prepare(&table, release).await?,
        })
    }

    /// Rows by their order in a partition: `columns` of the key beside value and stamp.
    async fn listed(
        &self,
        table: Layout,
        columns: &str,
        condition: &str,
    ) -> Result<PreparedStatement, PrepareError> {
        let text = format!("SELECT {columns}, value, WRITETIME(value) FROM {{}} WHERE {condition}");
        self.read(&table, &text).await
    }

    pub(super) async fn read(
        &self,
        table: &Layout,
        text: &str,
    ) -> Result<PreparedStatement, PrepareError> {
        let mut statement = self.prepare(table, text).await?;
        statement.set_execution_profile_handle(Some(self.reads.clone()));
        statement.set_is_idempotent(true);
        Ok(statement)
    }

    /// A write with a stamp: twice is the same as once.
    async fn write(&self, table: &Layout, text: &str) -> Result<PreparedStatement, PrepareError> {
        assert!(text.contains("USING TIMESTAMP ?"), "a stamped table is written with stamps");
        let mut statement = self.prepare(table, text).await?;
        statement.set_is_idempotent(true);
        Ok(statement)
    }

    /// `{}` in the text is the table.
    async fn prepare(&self, table: &Layout, text: &str) -> Result<PreparedStatement, PrepareError> {
        let text = text.replace("{}", &format!("{}.{}", self.keyspace, table.name));
        self.session.prepare(Statement::new(text).with_page_size(PAGE_ROWS)).await
    }
}

/// Rows of one answer. The largest messages are some 64 KiB, so an answer stays below 16 MiB.
const PAGE_ROWS: i32 = 256;
