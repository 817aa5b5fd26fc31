//! A table to be copied, on a server of its own.

use forebay_integration::bench::{MAJOR, ROW, SETTINGS, TABLE};
use forebay_integration::{Database, Postgres};

/// How long a large value is.
pub(crate) const LARGE_BYTES: u32 = 100_000_000;

/// The publication that the daemon copies.
pub(crate) const PUBLICATION: &str = "copied";

/// A table that nobody writes to any more; all of them have a key `id` of 1, 2, 3, …
pub(crate) struct Table {
    /// Its name, with the schema.
    pub(crate) name: &'static str,
    /// How many rows it has.
    pub(crate) rows: u32,
    /// Where it is.
    pub(crate) database: Database,
    /// The table goes with it.
    _server: Postgres,
}

impl Table {
    /// The rows of all benches.
    pub(crate) async fn usual(rows: u32) -> Table {
        let insert = format!("insert into public.changes select {ROW} from generate_series(1, {rows}) as i");
        Table::filled("public.changes", rows, &[TABLE, &insert]).await
    }

    /// Rows of one large value each, which the server neither compresses nor keeps in the row.
    pub(crate) async fn large(rows: u32) -> Table {
        let create = "create table public.large (id integer primary key, body text not null);
             alter table public.large alter body set storage external";
        let insert = format!(
            "insert into public.large select i, repeat(md5(i::text), {LARGE_BYTES} / 32) from generate_series(1, {rows}) as i"
        );
        Table::filled("public.large", rows, &[create, &insert]).await
    }

    async fn filled(name: &'static str, rows: u32, statements: &[&str]) -> Table {
        let server = Postgres::start(MAJOR, &SETTINGS).await;
        let database = server.database("copied").await;
        for statement in statements {
            database.execute(statement).await;
        }
        // What a first reader would otherwise do for all who come later: to mark each row as committed.
        database.execute(&format!("vacuum analyze {name}")).await;
        database.execute(&format!("create publication {PUBLICATION} for table {name}")).await;
        database.execute("checkpoint").await;
        Table { name, rows, database, _server: server }
    }
}
