//! WAL to be read: a server of its own, a table of eight columns, and a slot that stands before the first change.

use std::fmt;

use forebay_integration::{Database, Postgres, unique};

/// What the figures of the design were measured with.
const MAJOR: u16 = 15;

/// Nothing of the server's own may compete with what is measured: it has two cores in all.
const SETTINGS: [(&str, &str); 3] =
    [("autovacuum", "off"), ("max_wal_size", "16GB"), ("checkpoint_timeout", "1h")];

/// Values of usual kinds and lengths: an envelope has some 730 bytes.
const TABLE: &str = "create table public.changes (
    id bigint primary key, customer integer not null, product text not null, quantity smallint not null,
    price numeric(10, 2) not null, paid boolean not null, note text, changed timestamptz not null)";

/// The values of row `i`.
const ROW: &str =
    "i, (i::bigint * 7919) % 100000, 'turbine ' || i % 500, i % 40, (i % 1000000) / 100.0, i % 3 = 0,
    case when i % 10 > 0 then 'a \"short\" note' end, clock_timestamp()";

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

    /// Drops a reader's slot, once its walsender has noticed that the reader is gone.
    pub(crate) async fn drop_slot(&self, slot: &str) {
        let left = format!("select active_pid is null from pg_replication_slots where slot_name = '{slot}'");
        self.database.wait_until(&left).await;
        self.database.execute(&format!("select pg_drop_replication_slot('{slot}')")).await;
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
