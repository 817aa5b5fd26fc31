//! WAL to be read: a server of its own, a table of eight columns, and a slot that stands before the first change.

use std::fmt;

use forebay_integration::bench::{MAJOR, ROW, SETTINGS, TABLE};
use forebay_integration::{Database, Postgres, unique};

/// The slot that every reader gets a copy of.
const SLOT: &str = "wal";

/// The publication that every reader reads.
pub(crate) const PUBLICATION: &str = "wal";

/// How the changes are cut into transactions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Shape {
    /// The most messages at once.
    OneTransaction,
    /// The most work for each row: Begin and Commit too.
    RowPerTransaction,
}

impl fmt::Display for Shape {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Shape::OneTransaction => "one large transaction",
            Shape::RowPerTransaction => "one row per transaction",
        })
    }
}

/// A server whose log is written and waits for readers.
pub(crate) struct Wal {
    /// How many changes are in it.
    pub(crate) changes: u32,
    /// Where it ends.
    pub(crate) end: String,
    /// The database that the changes are in.
    pub(crate) database: Database,
    /// The WAL goes with it.
    _server: Postgres,
}

impl Wal {
    /// Writes it.
    pub(crate) async fn write(shape: Shape, changes: u32) -> Wal {
        let (server, database) = empty().await;
        database.execute(&format!("select pg_create_logical_replication_slot('{SLOT}', 'pgoutput')")).await;
        database.execute("set synchronous_commit = off").await;
        let statement = match shape {
            Shape::OneTransaction => {
                format!("insert into public.changes select {ROW} from generate_series(1, {changes}) as i")
            }
            Shape::RowPerTransaction => format!(
                "do $$ begin for i in 1..{changes} loop insert into public.changes select {ROW}; commit; end loop; end $$"
            ),
        };
        database.execute(&statement).await;
        database.execute("checkpoint").await;
        let end = database.value("select pg_current_wal_flush_lsn()::text").await;
        Wal { changes, end, database, _server: server }
    }

    /// A slot of a reader's own that stands where all of them begin.
    pub(crate) async fn slot(&self) -> String {
        let slot = unique("reader");
        let copy = format!("select pg_copy_logical_replication_slot('{SLOT}', '{slot}')");
        self.database.execute(&copy).await;
        slot
    }

    /// The process that serves a slot, while one does.
    pub(crate) async fn walsender(&self, slot: &str) -> Option<u32> {
        let ask = "select active_pid from pg_replication_slots where slot_name = $1";
        let rows = self.database.query(ask, &[&slot]).await;
        let pid: Option<i32> = rows.first().and_then(|row| row.get(0));
        pid.and_then(|pid| u32::try_from(pid).ok())
    }
}

/// A server with the table and its publication, and nothing in it yet.
pub(crate) async fn empty() -> (Postgres, Database) {
    let server = Postgres::start(MAJOR, &SETTINGS).await;
    let database = server.database("wal").await;
    database.execute(TABLE).await;
    database.execute(&format!("create publication {PUBLICATION} for table public.changes")).await;
    (server, database)
}

/// The statement that inserts row `i`, as a parameter.
pub(crate) fn insert() -> String {
    format!("insert into public.changes select {ROW} from (select $1::bigint as i) as given")
}
