//! Unique keys, by conditions that the replicas agree on.
//!
//! A condition whose answer was lost may hold, or come to hold: what became of it is read, after
//! all that was decided, and only then is it tried again. It carries its value, and so meets itself.

use bytes::Bytes;
use scylla::response::query_result::QueryRowsResult;
use scylla::statement::prepared::PreparedStatement;
use scylla::value::CqlValue;
use tokio::sync::Mutex;
use tokio::time::{Instant, timeout_at};

use super::super::{Claimed, ROW_BYTES_MAX, StoreError, UniqueKey};
use super::ScyllaStore;
use super::cluster::{Cluster, failure, silent};
use super::link::Link;
use super::retry::may_pass;
use super::row::{Field, strange};

/// Turns of those who change a key: in one process they would only be in each other's way, and
/// each round of that takes the servers a time-out.
pub(super) struct Turns(Vec<Mutex<()>>);

impl Default for Turns {
    fn default() -> Self {
        Self((0..TURNS).map(|_| Mutex::new(())).collect())
    }
}

impl Turns {
    fn of(&self, name: &str) -> &Mutex<()> {
        let hash = name
            .bytes()
            .fold(0, |hash: usize, byte| hash.wrapping_mul(31).wrapping_add(usize::from(byte)));
        &self.0[hash % self.0.len()]
    }
}

impl ScyllaStore {
    pub(super) async fn claim_key(
        &self,
        key: &UniqueKey,
        value: Bytes,
    ) -> Result<Claimed, StoreError> {
        let (kind, name) = fields(key, &value)?;
        let end = self.cluster.end_of_call();
        let _turn = timeout_at(end, self.turns.of(name).lock()).await.map_err(|_| silent())?;
        let link = self.cluster.link(end).await?;
        let key = key_fields(kind, name);
        let values = [key.clone(), vec![Field::Bytes(value.clone())]].concat();
        loop {
            let statement = &link.statements.claims.claim;
            let held = match condition(&self.cluster, &link, end, statement, &values).await? {
                Some(Decided { held: true, .. }) => return Ok(Claimed::Yes),
                Some(Decided { value: Some(value), .. }) => Some(value),
                _ => self.holder(&link, end, &key).await?,
            };
            match held {
                Some(held) if held == value => return Ok(Claimed::Yes),
                Some(held) => return Ok(Claimed::Taken(held)),
                // Freed meanwhile, or not come to hold: once more.
                None => {}
            }
        }
    }

    pub(super) async fn claimed_key(&self, key: &UniqueKey) -> Result<Option<Bytes>, StoreError> {
        let (kind, name) = fields(key, &[])?;
        let end = self.cluster.end_of_call();
        let link = self.cluster.link(end).await?;
        self.holder(&link, end, &key_fields(kind, name)).await
    }

    pub(super) async fn release_key(
        &self,
        key: &UniqueKey,
        value: Bytes,
    ) -> Result<(), StoreError> {
        let (kind, name) = fields(key, &value)?;
        let end = self.cluster.end_of_call();
        let _turn = timeout_at(end, self.turns.of(name).lock()).await.map_err(|_| silent())?;
        let link = self.cluster.link(end).await?;
        let key = key_fields(kind, name);
        let values = [key.clone(), vec![Field::Bytes(value.clone())]].concat();
        loop {
            let statement = &link.statements.claims.release;
            let decided = condition(&self.cluster, &link, end, statement, &values).await?;
            if decided.is_some() || self.holder(&link, end, &key).await?.as_ref() != Some(&value) {
                return Ok(());
            }
        }
    }

    /// The value of a key after all that was decided about it.
    async fn holder(
        &self,
        link: &Link,
        end: Instant,
        key: &[Field],
    ) -> Result<Option<Bytes>, StoreError> {
        let statement = &link.statements.claims.claimed;
        let answer = self.cluster.ask(end, || link.session.execute_unpaged(statement, key)).await?;
        let answer = answer.into_rows_result().map_err(strange)?;
        let found = answer.maybe_first_row::<(Option<&[u8]>,)>().map_err(strange)?;
        Ok(found.and_then(|(value,)| value).map(Bytes::copy_from_slice))
    }
}

/// What the replicas decided.
struct Decided {
    /// Whether the condition held, and the change was made.
    held: bool,
    /// The value there was, where the answer has it.
    value: Option<Bytes>,
}

/// What became of a condition; none if that is unknown.
async fn condition(
    cluster: &Cluster,
    link: &Link,
    end: Instant,
    statement: &PreparedStatement,
    values: &[Field],
) -> Result<Option<Decided>, StoreError> {
    let asked = cluster.once(end, link.session.execute_unpaged(statement, values)).await?;
    match asked {
        Ok(answer) => Decided::read(&answer.into_rows_result().map_err(strange)?).map(Some),
        Err(error) if may_pass(&error) => {
            tracing::debug!(%error, "what became of a condition is read");
            Ok(None)
        }
        Err(error) => Err(failure(&error)),
    }
}

impl Decided {
    /// The first column says whether it held; which others there are differs between the servers.
    fn read(answer: &QueryRowsResult) -> Result<Self, StoreError> {
        let row = answer.first_row::<scylla::value::Row>().map_err(strange)?;
        let names = answer.column_specs().iter().map(|column| column.name());
        let (mut held, mut value) = (None, None);
        for (name, column) in names.zip(row.columns) {
            match (name, column) {
                ("[applied]", Some(is)) => held = is.as_boolean(),
                ("value", Some(CqlValue::Blob(bytes))) => value = Some(Bytes::from(bytes)),
                _ => {}
            }
        }
        let held = held.ok_or_else(|| strange("a condition was not answered"))?;
        Ok(Self { held, value })
    }
}

fn fields<'a>(key: &'a UniqueKey, value: &[u8]) -> Result<(&'static str, &'a str), StoreError> {
    let (kind, name) = match key {
        UniqueKey::ChannelName(name) => (CHANNEL_NAME, name.as_str()),
        UniqueKey::Lineage => ("lineage", ""),
        UniqueKey::Migration => ("migration", ""),
    };
    if name.len() > NAME_BYTES_MAX || value.len() > ROW_BYTES_MAX {
        return Err(StoreError::TooLarge { bytes: name.len().max(value.len()) });
    }
    Ok((kind, name))
}

pub(super) fn key_fields(kind: &str, name: &str) -> Vec<Field> {
    vec![Field::Text(kind.to_owned()), Field::Text(name.to_owned())]
}

/// The kind of channels' names.
pub(super) const CHANNEL_NAME: &str = "channel_name";
/// The servers take keys of up to 65,535 bytes; no name comes near.
const NAME_BYTES_MAX: usize = 4096;
/// Keys that can be changed at once by this process.
const TURNS: usize = 64;
