//! The versions of the schema that were applied, as the keyspace remembers them.

use scylla::client::session::Session;
use scylla::errors::{DbError, ExecutionError, RequestAttemptError};
use scylla::statement::unprepared::Statement;

use super::super::StoreError;
use super::cluster::failure;
use super::row::strange;
use super::schema::{PART, VERSIONS};

/// The newest version, or none where there is no table of them.
pub(super) async fn newest(session: &Session, keyspace: &str) -> Result<Option<u32>, StoreError> {
    let text = format!("SELECT version FROM {keyspace}.{} WHERE part = '{PART}'", VERSIONS.name);
    let mut statement = Statement::new(text);
    statement.set_is_idempotent(true);
    let answer = match session.query_unpaged(statement, ()).await {
        Ok(answer) => answer.into_rows_result().map_err(strange)?,
        Err(error) if is_missing(&error) => return Ok(None),
        Err(error) => return Err(failure(&error)),
    };
    let mut newest = None;
    for row in answer.rows::<(i64,)>().map_err(strange)? {
        let (version,) = row.map_err(strange)?;
        newest = newest.max(Some(u32::try_from(version).map_err(strange)?));
    }
    Ok(newest)
}

/// Remembers that a version was applied.
pub(super) async fn remember(
    session: &Session,
    keyspace: &str,
    version: u32,
) -> Result<(), ExecutionError> {
    let text = format!(
        "INSERT INTO {keyspace}.{} (part, version) VALUES ('{PART}', {version})",
        VERSIONS.name
    );
    let mut statement = Statement::new(text);
    statement.set_is_idempotent(true);
    session.query_unpaged(statement, ()).await.map(drop)
}

/// Whether the keyspace or the table is not there, which the servers call invalid.
fn is_missing(error: &ExecutionError) -> bool {
    matches!(
        error,
        ExecutionError::LastAttemptError(RequestAttemptError::DbError(DbError::Invalid, _))
    )
}
