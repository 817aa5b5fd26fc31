//! [`Session`]: a connection on which everything is ready for deliveries.
//!
//! Invariant: a session that is kept for reuse is outside any transaction. Whoever uses one takes it and gives it back
//! only when all went well; one that is dropped, for whatever reason, ends its connection, and the server rolls back.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use forebay_api::Fault;
use tokio_postgres::{Error, Statement};

use super::fault;
use super::name::TableName;
use super::rows;
use super::tables::{self, Tables};
use crate::connect::{Server, Sql};
use crate::url::Url;

/// No statement of ours takes this long; one that does is ended by the server even when we are gone.
const STATEMENT_TIMEOUT: Duration = Duration::from_secs(120);

/// Waiting for a lock (of a transaction that was cut off, of an `ALTER TABLE`) is an attempt that failed, not a hang.
const LOCK_TIMEOUT: Duration = Duration::from_secs(5);

/// A daemon that stands still in the middle of a transaction does not keep its locks for longer.
const IDLE_TIMEOUT: Duration = Duration::from_secs(30);

/// Making a session ready takes some statements; a server that answers none of them within this is not reachable.
const READY_WITHIN: Duration = Duration::from_secs(10);

/// Where each delivery is copied to before it is inserted; the session's own, and emptied by every commit.
const STAGING: &str = "pg_temp.forebay_staging";

/// A connection with its statements. See the module.
pub(super) struct Session {
    /// The connection.
    pub(super) sql: Sql,
    /// The names that its statements use.
    pub(super) tables: Tables,
    /// Copies rows into the staging table.
    pub(super) copy: Statement,
    /// Moves them on to the events that are not there yet.
    pub(super) insert: Statement,
    /// Counts those that are there with another digest.
    pub(super) conflicts: Statement,
    /// Moves a stream's mark.
    pub(super) advance: Statement,
}

impl Session {
    /// Begins a transaction. At this level an update that waited for another daemon's sees what that one wrote, so a
    /// lease that was lost meanwhile is noticed.
    pub(super) async fn begin(&self) -> Result<(), Error> {
        self.sql.batch_execute("BEGIN ISOLATION LEVEL READ COMMITTED").await
    }

    /// Makes the transaction durable. When the connection is lost meanwhile, nobody knows whether it is.
    pub(super) async fn commit(&self) -> Result<(), Error> {
        self.sql.batch_execute("COMMIT").await
    }

    /// Ends a transaction that failed.
    pub(super) async fn rollback(&self) -> Result<(), Error> {
        self.sql.batch_execute("ROLLBACK").await
    }

    /// Whether the server still does.
    pub(super) async fn answers(&self) -> Result<(), Fault> {
        self.sql
            .batch_execute("")
            .await
            .map_err(|error| fault::judge("looking whether the server answers", error))
    }
}

/// The server, and sessions that nobody uses just now: never more than there are lanes.
#[derive(Debug)]
pub(super) struct Sessions {
    url: Url,
    table: TableName,
    idle: Mutex<Vec<Session>>,
}

impl Sessions {
    /// No session yet.
    pub(super) fn new(url: Url, table: TableName) -> Sessions {
        Sessions { url, table, idle: Mutex::default() }
    }

    /// The table as the configuration names it.
    pub(super) fn table(&self) -> &TableName {
        &self.table
    }

    /// A session, of those that are kept if one is alive.
    pub(super) async fn take(&self) -> Result<Session, Fault> {
        loop {
            let kept = self.idle.lock().unwrap_or_else(PoisonError::into_inner).pop();
            match kept {
                Some(session) if session.sql.is_closed() => {}
                Some(session) => return Ok(session),
                None => return self.connect().await,
            }
        }
    }

    /// Keeps a session with which all went well.
    pub(super) fn give_back(&self, session: Session) {
        self.idle.lock().unwrap_or_else(PoisonError::into_inner).push(session);
    }

    /// Ends all that are kept.
    pub(super) fn clear(&self) {
        self.idle.lock().unwrap_or_else(PoisonError::into_inner).clear();
    }

    async fn connect(&self) -> Result<Session, Fault> {
        let sql = connect(&self.url).await?;
        within("preparing a session", make_ready(sql, &self.table)).await
    }
}

/// Connects. Certificates are read each time, for they may have been renewed.
pub(super) async fn connect(url: &Url) -> Result<Sql, Fault> {
    let doing = "connecting to PostgreSQL";
    let server = Server::new(url.clone()).map_err(|error| fault::judge_tls(doing, error))?;
    server.sql().await.map_err(|error| fault::judge_connecting(doing, error))
}

/// Gives up on a server that does not answer: a connection whose other side has vanished says nothing for long.
pub(super) async fn within<T>(
    doing: &str,
    asking: impl Future<Output = Result<T, Fault>>,
) -> Result<T, Fault> {
    match tokio::time::timeout(READY_WITHIN, asking).await {
        Ok(answer) => answer,
        Err(late) => Err(Fault::retryable(format!("{doing} within {READY_WITHIN:?}"), late)),
    }
}

async fn make_ready(mut sql: Sql, table: &TableName) -> Result<Session, Fault> {
    let failed = |error| fault::judge("preparing a session", error);
    sql.batch_execute(&limits()).await.map_err(failed)?;
    let tables = tables::prepare(&mut sql, table).await?;
    sql.batch_execute(&staging()).await.map_err(failed)?;
    let columns = rows::COLUMNS.map(|(name, _)| name).join(", ");
    let events = rows::COLUMNS[1..].iter().map(|(name, _)| *name).collect::<Vec<_>>().join(", ");
    let Tables { events: into, sequence, positions } = &tables;
    let copy = format!("COPY {STAGING} ({columns}) FROM STDIN (FORMAT binary)");
    // Numbered in the order of the stream, then inserted in the order of their ids: all who write the same ids lock
    // them in one order, and so never deadlock. Of two in one delivery under one id, the first stays.
    let insert = format!(
        "INSERT INTO {into} (seq, {events})
         SELECT seq, {events}
         FROM (SELECT nextval({sequence}::regclass) AS seq, staged.* FROM {STAGING} AS staged ORDER BY n) AS arrived
         ORDER BY id, n
         ON CONFLICT (id) DO NOTHING"
    );
    // `LIMIT` keeps the planner from reading all events to find a few
    let conflicts = format!(
        "SELECT count(*), min(staged.id)
         FROM {STAGING} AS staged
              CROSS JOIN LATERAL (SELECT digest FROM {into} AS e WHERE e.id = staged.id LIMIT 1) AS known
         WHERE staged.digest IS NOT NULL AND staged.digest IS DISTINCT FROM known.digest"
    );
    let advance = format!(
        "UPDATE {positions} SET mark = $5, position = $6, stored = now()
         WHERE stream = $1 AND destination = $2 AND table_name = $3 AND lease = $4 AND (mark IS NULL OR mark < $5)"
    );
    let statements = futures::try_join!(
        sql.prepare(&copy),
        sql.prepare(&insert),
        sql.prepare(&conflicts),
        sql.prepare(&advance)
    );
    let (copy, insert, conflicts, advance) = statements.map_err(failed)?;
    Ok(Session { sql, tables, copy, insert, conflicts, advance })
}

/// What holds for the whole session. `jit` costs more than it gains where each row is touched once. A role whose commits
/// are not durable would make us say what is not true, so `synchronous_commit = off` is undone.
fn limits() -> String {
    format!(
        "SET statement_timeout = {};
         SET lock_timeout = {};
         SET idle_in_transaction_session_timeout = {};
         SET jit = off;
         SELECT set_config('synchronous_commit', 'on', false) WHERE current_setting('synchronous_commit') = 'off'",
        STATEMENT_TIMEOUT.as_millis(),
        LOCK_TIMEOUT.as_millis(),
        IDLE_TIMEOUT.as_millis(),
    )
}

/// Makes the staging table.
fn staging() -> String {
    let columns = rows::COLUMNS.map(|(name, ty)| match name {
        "id" => format!("{name} {ty} COLLATE \"C\""), // as that of the events, or the two cannot be compared
        _ => format!("{name} {ty}"),
    });
    format!("CREATE TEMPORARY TABLE forebay_staging ({}) ON COMMIT DELETE ROWS", columns.join(", "))
}

/// Shows the tables and nothing secret.
impl std::fmt::Debug for Session {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Session").field("tables", &self.tables).finish_non_exhaustive()
    }
}
