//! The tables: what each is keyed by, how it is kept and why. All CQL that defines something is
//! made here.
//!
//! A version only adds. What an older process reads and writes stays as it is, so that the schema
//! is brought up to date before the processes are.

use super::super::Table;
use super::super::key::BUCKET;

/// The version of the schema that this process needs.
pub const VERSION: u32 = 1;

/// A table: its key, and how it is kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Layout {
    pub(super) name: &'static str,
    /// The columns that place a row in the cluster.
    pub(super) partition: &'static [Column],
    /// The columns that order the rows of a partition.
    pub(super) clustering: &'static [Column],
    pub(super) order: Order,
    pub(super) compaction: Compaction,
    pub(super) gc_grace_s: u32,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Column(pub(super) &'static str, pub(super) Type);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Type {
    /// An id. CQL's integers of eight bytes have a sign, and these have not; a `varint` is ordered
    /// as they are, and reads as they do everywhere else.
    Id,
    /// A number below 2^40.
    Number,
    Text,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Order {
    LowestFirst,
    HighestFirst,
}

/// How a table's files are merged. Never by time windows: they go by the stamps' time, and stamps
/// are none.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Compaction {
    /// Few rows are written twice: what merges least is cheapest.
    SizeTiered,
    /// Rows are written again and again and read one by one: few files, and one version of each.
    Leveled,
}

impl Layout {
    const fn new(
        name: &'static str,
        partition: &'static [Column],
        clustering: &'static [Column],
    ) -> Self {
        Self {
            name,
            partition,
            clustering,
            order: Order::LowestFirst,
            compaction: Compaction::Leveled,
            gc_grace_s: GC_GRACE_S,
        }
    }

    /// The columns of the key, in the order in which a row's fields are bound.
    pub(super) fn key(&self) -> impl Iterator<Item = &'static Column> {
        self.partition.iter().chain(self.clustering)
    }

    fn create(&self, keyspace: &str) -> String {
        let columns = self.key().map(|Column(name, is)| format!("{name} {}", is.cql()));
        let columns = columns.collect::<Vec<_>>().join(", ");
        let names =
            |of: &[Column]| of.iter().map(|Column(name, _)| *name).collect::<Vec<_>>().join(", ");
        let (partition, clustering) = (names(self.partition), names(self.clustering));
        let separator = if clustering.is_empty() { "" } else { ", " };
        let order = match self.order {
            Order::LowestFirst => String::new(),
            Order::HighestFirst => format!("CLUSTERING ORDER BY ({clustering} DESC) AND "),
        };
        format!(
            "CREATE TABLE IF NOT EXISTS {keyspace}.{} ({columns}, value {}, \
             PRIMARY KEY (({partition}){separator}{clustering})) \
             WITH {order}compaction = {{'class': '{}'}} AND gc_grace_seconds = {}",
            self.name,
            Type::VALUE,
            self.compaction.class(),
            self.gc_grace_s,
        )
    }
}

impl Type {
    /// What every row holds beside its key.
    pub(super) const VALUE: &'static str = "blob";

    pub(super) const fn cql(self) -> &'static str {
        match self {
            Self::Id => "varint",
            Self::Number => "bigint",
            Self::Text => "text",
        }
    }
}

impl Compaction {
    pub(super) const fn class(self) -> &'static str {
        match self {
            Self::SizeTiered => "SizeTieredCompactionStrategy",
            Self::Leveled => "LeveledCompactionStrategy",
        }
    }
}

const CHANNEL: Column = Column("channel", Type::Id);
const USER: Column = Column("user", Type::Id);
const SEQ: Column = Column("seq", Type::Number);
const BUCKET_NUMBER: Column = Column("bucket", Type::Number);

/// The table of some of the port's rows.
pub(super) const fn stamped(table: Table) -> Layout {
    match table {
        // Written about once, read by pages of neighbours, newest first.
        Table::Messages => Layout {
            order: Order::HighestFirst,
            compaction: Compaction::SizeTiered,
            ..Layout::new("messages", &[CHANNEL, BUCKET_NUMBER], &[SEQ])
        },
        // Written once and dropped by whole partitions.
        Table::Events => Layout {
            compaction: Compaction::SizeTiered,
            ..Layout::new("events", &[CHANNEL, BUCKET_NUMBER], &[Column("rev", Type::Number)])
        },
        Table::Heads => Layout::new("heads", &[CHANNEL], &[]),
        Table::Channels => Layout::new("channels", &[CHANNEL], &[]),
        Table::Members => Layout::new("members", &[CHANNEL], &[USER]),
        Table::ChannelsByUser => Layout::new("channels_by_user", &[USER], &[CHANNEL]),
        Table::ReadMarkers => Layout::new("read_markers", &[USER], &[CHANNEL]),
        Table::Mentions => Layout::new("mentions", &[USER], &[CHANNEL, SEQ]),
        Table::Relayed => {
            Layout::new("relayed", &[Column("inbox", Type::Id)], &[Column("source", Type::Id)])
        }
        // A queue: each row leaves a tombstone, and the next read walks over all that are kept. A
        // row that comes back is relayed once more and ignored there, so they need not be kept for
        // long.
        Table::Outbox => Layout {
            gc_grace_s: OUTBOX_GC_GRACE_S,
            ..Layout::new(
                "outbox",
                &[Column("partition", Type::Number)],
                &[
                    Column("source", Type::Id),
                    Column("target", Type::Id),
                    Column("rev", Type::Number),
                ],
            )
        },
        Table::Checkpoints => Layout::new("checkpoints", &[Column("partition", Type::Number)], &[]),
    }
}

/// In the order of their numbers as enumerated.
pub(super) const STAMPED: [Table; 11] = Table::ALL;

/// Which buckets of a channel's messages and events have rows, so that a walk through them never
/// looks into an empty one. A row has the stamp of a row that is in the bucket.
pub(super) const BUCKETS: Layout =
    Layout::new("buckets", &[CHANNEL, Column("kind", Type::Text)], &[BUCKET_NUMBER]);

/// The unique keys. Changed by conditions alone, which stamp by the time: never a stamped table.
pub(super) const CLAIMS: Layout = Layout::new(
    "claims",
    // A name may be empty, and a partition key of one part may not.
    &[Column("kind", Type::Text), Column("name", Type::Text)],
    &[],
);

/// The versions that were applied.
pub(super) const VERSIONS: Layout = Layout::new(
    "schema_versions",
    &[Column("part", Type::Text)],
    &[Column("version", Type::Number)],
);

/// What `part` of the schema this is: others may come to the keyspace.
pub(super) const PART: &str = "store";

/// All tables of this version. That of the versions is the first.
pub(super) fn tables() -> impl Iterator<Item = Layout> {
    [VERSIONS, BUCKETS, CLAIMS].into_iter().chain(STAMPED.map(stamped))
}

/// A change of the schema.
pub(super) struct Step {
    /// The version that it is a part of.
    pub(super) version: u32,
    pub(super) table: &'static str,
    /// Changes nothing when it was run before.
    pub(super) statement: String,
}

/// All steps from nothing to this version, in their order.
pub(super) fn steps(keyspace: &str) -> Vec<Step> {
    let create =
        |table: Layout| Step { version: 1, table: table.name, statement: table.create(keyspace) };
    tables().map(create).collect()
}

/// The bucket of a number.
pub(super) const fn bucket(number: u64) -> i64 {
    (number / BUCKET) as i64
}

/// Days for a replica that was down to learn of a removal before its tombstone goes: the servers'
/// own default, within which they want to be repaired.
const GC_GRACE_S: u32 = 10 * 24 * 60 * 60;
/// Cassandra refuses a read that meets 100,000 tombstones: at 160 relayed rows per second and
/// partition for all of this time.
const OUTBOX_GC_GRACE_S: u32 = 600;
