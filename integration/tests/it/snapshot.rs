//! The copy of what is already there, as its user meets it: a real server, the real daemon, and the lines it writes.
//!
//! Each test holds what came against the tables by [`Replica`], which knows nothing of how rows are copied.

mod columns;
mod commands;
mod keys;
mod kill;
mod late;
mod modes;
mod partitions;
mod shapes;
mod workload;
mod writers;
mod writes;

use std::num::NonZeroU64;
use std::path::PathBuf;

use forebay_integration::{Daemon, Database, PATIENCE, Postgres, Proxy, Replica};
use serde_json::Value;
use tokio::time::{Duration, Instant, sleep};

/// The daemon's program.
const FOREBAY: &str = env!("CARGO_BIN_EXE_forebay-under-test");

/// How often a condition is asked for that only the written lines show.
const ASK_PAUSE: Duration = Duration::from_millis(20);

/// So slow that a table of some megabytes is copied for seconds.
const SLOW_BYTES_PER_SECOND: u64 = 1024 * 1024;

/// A daemon that copies tables of a database to `out.ndjson` and goes on with their changes.
struct Copying {
    daemon: Daemon,
    slot: String,
    url: String,
    tables: String,
    more: String,
}

impl Copying {
    /// Copies `tables` of `db`; `more` are further lines of the source, each indented by four.
    fn of(db: &Database, tables: &str, more: &str) -> Copying {
        Copying::through(db.url(), db, tables, more)
    }

    /// The same by another URL of that database.
    fn through(url: &str, db: &Database, tables: &str, more: &str) -> Copying {
        let copying = Copying {
            daemon: Daemon::new(FOREBAY, ""),
            slot: db.name().to_owned(),
            url: url.to_owned(),
            tables: tables.to_owned(),
            more: more.to_owned(),
        };
        copying.configure();
        copying
    }

    /// The same on a line so slow that a copy of many rows does not end before [`Proxy::limit`] lifts that.
    async fn slowly(server: &Postgres, db: &Database, tables: &str, more: &str) -> (Proxy, Copying) {
        let line = Proxy::to(server.server.port()).await;
        line.limit(NonZeroU64::new(SLOW_BYTES_PER_SECOND));
        let url = db.url().replace(&format!(":{}/", server.server.port()), &format!(":{}/", line.port()));
        let copying = Copying::through(&url, db, tables, more);
        (line, copying)
    }

    /// Changes the tables for the next start.
    fn set_tables(&mut self, tables: &str) {
        self.tables = tables.to_owned();
        self.configure();
    }

    fn configure(&self) {
        self.daemon.configure(&format!(
            "sources:
  db:
    type: postgres
    url: {url}
    tables: [{tables}]
    publication: {name}
    slot: {name}
    heartbeat: 200ms
{more}
destinations:
  out:
    type: file
    path: out.ndjson
",
            url = self.url,
            tables = self.tables,
            name = self.slot,
            more = self.more,
        ));
    }

    /// Starts and returns when it reads the stream.
    async fn start(&mut self) {
        self.daemon.start().await;
        self.daemon
            .wait_until("the source is connected", |status| status["sources"][0]["connected"] == true)
            .await;
    }

    /// Starts and returns when it reads the stream or has died.
    async fn start_or_die(&mut self) {
        self.daemon.spawn();
        while self.daemon.is_running() {
            if let Some((200, status)) = self.daemon.get("/status").await
                && serde_json::from_str::<Value>(&status).unwrap()["sources"][0]["connected"] == true
            {
                return;
            }
            sleep(ASK_PAUSE).await;
        }
    }

    /// Waits until nothing is left to copy.
    async fn copied(&mut self) -> Value {
        self.daemon.wait_until("all is copied", is_over).await
    }

    /// Waits until one more table is copied, which the daemon may not have looked at yet.
    async fn copied_too(&mut self, table: &str) {
        let done =
            |status: &Value| tables(status).iter().any(|one| one["name"] == table && one["state"] == "done");
        self.daemon.wait_until(&format!("{table} is copied"), done).await;
    }

    /// Waits until everything that is committed by now is stored and the server knows it.
    async fn caught_up(&self, db: &Database) {
        let end: String = db.value("SELECT pg_current_wal_lsn()::text").await;
        db.wait_until(&format!(
            "SELECT confirmed_flush_lsn >= '{end}'::pg_lsn FROM pg_replication_slots WHERE slot_name = '{}'",
            self.slot
        ))
        .await;
    }

    /// Waits until all is copied and all changes are stored, and reads what came.
    async fn finished(&mut self, db: &Database) -> Replica {
        self.copied().await;
        self.caught_up(db).await;
        self.replica()
    }

    /// Where the events are.
    fn output(&self) -> PathBuf {
        self.daemon.path("out.ndjson")
    }

    /// The tables as they are told by now.
    fn replica(&self) -> Replica {
        Replica::read(&self.output())
    }

    /// Every whole line that came.
    fn events(&self) -> Vec<Value> {
        let text = std::fs::read_to_string(self.output()).unwrap_or_default();
        let whole = text.rfind('\n').map_or("", |end| &text[..end]);
        let read =
            |line: &str| serde_json::from_str(line).unwrap_or_else(|error| panic!("{error} in {line}"));
        whole.lines().map(read).collect()
    }

    /// Waits until so many events came that are as wanted. `what` is for the message.
    async fn wait_for(&mut self, count: usize, what: &str, wanted: impl Fn(&Value) -> bool) {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let found = self.events().iter().filter(|event| wanted(event)).count();
            if found >= count {
                return;
            }
            assert!(self.daemon.is_running(), "the daemon ended by itself\n{}", self.daemon.stderr());
            if Instant::now() > deadline {
                panic!("after {PATIENCE:?} {found} of {count} events: {what}\n{}", self.daemon.stderr());
            }
            sleep(ASK_PAUSE).await;
        }
    }

    /// Runs `forebay snapshot` with these arguments, which shall succeed, and gives what it printed.
    async fn command(&self, arguments: &[&str]) -> String {
        let all: Vec<&str> = [&["snapshot"], arguments, &["-c", "forebay.yaml"]].concat();
        let output = self.daemon.command(&all).await;
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{all:?}: {said}\n{}", self.daemon.stderr());
        String::from_utf8(output.stdout).unwrap()
    }
}

/// What `/status` says of each table's copy.
fn tables(status: &Value) -> &[Value] {
    status["sources"][0]["snapshot"]["tables"].as_array().map_or(&[], Vec::as_slice)
}

/// What all copies together are at.
fn state(status: &Value) -> &str {
    status["sources"][0]["snapshot"]["state"].as_str().unwrap_or("none yet")
}

/// Whether it was decided what is copied, and nothing of it is left.
fn is_over(status: &Value) -> bool {
    state(status) == "idle" && !tables(status).is_empty()
}

/// Whether an event is a copied row.
fn is_copied(event: &Value) -> bool {
    event["op"] == "snapshot"
}

/// A table of `rows` rows of a kilobyte: `version` grows with each change of a key, every tenth `body` is stored out of
/// line. A chunk is some megabytes, so that 20,000 rows are several.
async fn items(db: &Database, rows: u32) {
    db.execute(&format!(
        "CREATE TABLE items (id int PRIMARY KEY, version bigint NOT NULL, label text, body text);
         ALTER TABLE items ALTER body SET STORAGE EXTERNAL;
         INSERT INTO items SELECT n, 0, rpad('label ' || n, 800, '.'),
             CASE WHEN n % 10 = 0 THEN repeat(chr(97 + n % 26), 3000) END
         FROM generate_series(1, {rows}) n"
    ))
    .await;
}
