//! The PostgreSQL source as its user meets it: a real server, the real daemon, and the lines that it writes.

mod bad_input;
mod restart;
mod values;

use std::path::Path;
use std::time::Duration;

use forebay_integration::{Daemon, Database, PATIENCE, Postgres};
use serde_json::Value;
use tokio::time::{Instant, sleep};

/// The daemon's program.
const FOREBAY: &str = env!("CARGO_BIN_EXE_forebay-under-test");

/// The servers that every promise of the protocol is tested on.
const MAJORS: [u16; 3] = [13, 15, 18];

/// A daemon that writes a database's changes to `out.ndjson`.
struct Reading {
    daemon: Daemon,
    slot: String,
}

impl Reading {
    /// Reads `tables` of `db`; `more` are further lines of the source, each indented by four.
    fn of(db: &Database, tables: &str, more: &str) -> Reading {
        Reading::of_url(db.url(), db.name(), tables, more)
    }

    /// The same through any URL; `name` is what slot and publication are called.
    fn of_url(url: &str, name: &str, tables: &str, more: &str) -> Reading {
        let config = format!(
            "sources:
  db:
    type: postgres
    url: {url}
    tables: [{tables}]
    publication: {name}
    slot: {name}
    snapshot: never
    heartbeat: 200ms
{more}
destinations:
  out:
    type: file
    path: out.ndjson
"
        );
        Reading { daemon: Daemon::new(FOREBAY, &config), slot: name.to_owned() }
    }

    /// Starts and returns when it streams.
    async fn start(&mut self) {
        self.daemon.start().await;
        self.daemon
            .wait_until("the source is connected", |status| status["sources"][0]["connected"] == true)
            .await;
    }

    /// Waits for at least `count` events, then a moment more for surplus ones, and gives all of them.
    async fn events(&self, count: usize) -> Vec<Value> {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let events = lines(&self.daemon.path("out.ndjson"));
            if events.len() >= count {
                sleep(Duration::from_millis(100)).await;
                return lines(&self.daemon.path("out.ndjson"));
            }
            if Instant::now() > deadline {
                panic!("{} of {count} events came\n{}", events.len(), self.daemon.stderr());
            }
            sleep(Duration::from_millis(20)).await;
        }
    }

    /// Exactly `count` events.
    async fn exactly(&self, count: usize) -> Vec<Value> {
        let events = self.events(count).await;
        assert_eq!(events.len(), count, "{events:#?}");
        events
    }

    /// Starts a daemon that shall give up, and gives its exit code and what it said.
    async fn refused(&mut self) -> (i32, String) {
        self.daemon.spawn();
        let code = self.daemon.exit_code().await;
        (code, self.daemon.stderr())
    }

    /// Waits until the server knows that everything so far is stored.
    async fn confirmed(&self, db: &Database) {
        let end: String = db.value("SELECT pg_current_wal_lsn()::text").await;
        let slot = &self.slot;
        db.wait_until(&format!(
            "SELECT confirmed_flush_lsn >= '{end}'::pg_lsn FROM pg_replication_slots WHERE slot_name = '{slot}'"
        ))
        .await;
    }
}

/// Every whole line of a file, but for `schema` events, which have tests of their own.
fn lines(path: &Path) -> Vec<Value> {
    let text = std::fs::read_to_string(path).unwrap_or_default();
    let whole = text.rfind('\n').map_or("", |end| &text[..end]);
    let events = whole
        .lines()
        .map(|line| serde_json::from_str(line).unwrap_or_else(|error| panic!("{error} in {line}")));
    events.filter(|event: &Value| event["op"] != "schema").collect()
}

/// A database on the shared server with a table of orders.
async fn orders(major: u16, name: &str) -> Database {
    let db = Postgres::shared(major).await.database(name).await;
    db.execute("CREATE TABLE orders (id int PRIMARY KEY, item text NOT NULL, total numeric(12,2))").await;
    db
}

#[tokio::test(flavor = "multi_thread")]
async fn the_changes_of_transactions_arrive_in_order_with_key_old_and_new_row() {
    for major in MAJORS {
        let db = orders(major, "parts").await;
        db.execute(
            "CREATE TABLE whole (id int PRIMARY KEY, body text); ALTER TABLE whole REPLICA IDENTITY FULL",
        )
        .await;
        let mut reading = Reading::of(&db, "public.orders, public.whole", "");
        reading.start().await;
        db.execute("INSERT INTO orders VALUES (1, 'cup', 1.10), (2, 'plate', NULL)").await;
        db.execute("BEGIN; UPDATE orders SET total = 2.50 WHERE id = 1; UPDATE orders SET id = 3 WHERE id = 2; DELETE FROM orders WHERE id = 1; COMMIT").await;
        db.execute("BEGIN; INSERT INTO whole VALUES (1, 'a'); UPDATE whole SET body = 'b'; DELETE FROM whole; COMMIT").await;
        db.execute("TRUNCATE orders, whole").await;
        let events = reading.exactly(10).await;
        let ops: Vec<&str> = events.iter().map(|event| event["op"].as_str().unwrap()).collect();
        let expected = [
            "insert", "insert", "update", "update", "delete", "insert", "update", "delete", "truncate",
            "truncate",
        ];
        assert_eq!(ops, expected, "PostgreSQL {major}");
        let [one, plate, raised, moved, gone, ..] = &events[..] else { unreachable!() };
        assert_eq!(one["payload"].to_string(), r#"{"id":1,"item":"cup","total":1.1}"#);
        assert_eq!(plate["payload"]["total"], Value::Null);
        assert_eq!(
            (one["source"]["ordinal"].clone(), plate["source"]["ordinal"].clone()),
            (0.into(), 1.into())
        );
        assert_eq!(one["source"]["commit_lsn"], plate["source"]["commit_lsn"]);
        assert!(raised.get("before").is_none(), "the server gave nothing of the old row");
        assert_eq!(moved["before"]["id"], 2);
        assert_eq!(moved["key"]["id"], 3);
        assert_eq!((gone["key"]["id"].clone(), gone["payload"].clone()), (1.into(), Value::Null));
        assert_eq!(events[6]["before"]["body"], "a");
        assert_eq!(
            events[6]["key"].to_string(),
            r#"{"id":1}"#,
            "the key is the primary key, not the identity"
        );
        assert_eq!(events[8]["source"]["table"], "orders");
        assert_eq!(events[9]["source"]["table"], "whole");
        assert!(events[9]["id"].as_str().unwrap().ends_with(".1"), "{}", events[9]["id"]);
        assert_eq!(one["schema"], "local.db/public.orders/1-0-0");
        assert_eq!(one["valid"], true);
        assert_eq!(reading.daemon.stop().await, 0);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn work_that_is_rolled_back_is_never_seen() {
    let db = orders(15, "rollback").await;
    let mut reading = Reading::of(&db, "public.orders", "");
    reading.start().await;
    db.execute("BEGIN; INSERT INTO orders VALUES (1, 'no'); ROLLBACK").await;
    db.execute("BEGIN; INSERT INTO orders VALUES (2, 'yes'); SAVEPOINT s; INSERT INTO orders VALUES (3, 'no'); ROLLBACK TO s; INSERT INTO orders VALUES (4, 'yes'); COMMIT").await;
    let events = reading.exactly(2).await;
    let ids: Vec<&Value> = events.iter().map(|event| &event["payload"]["id"]).collect();
    assert_eq!(ids, [2, 4]);
    assert_eq!(events[1]["source"]["ordinal"], 1, "what was rolled back takes no ordinal");
}

#[tokio::test(flavor = "multi_thread")]
async fn transactions_arrive_in_the_order_of_their_commits() {
    let db = orders(15, "interleaved").await;
    let mut reading = Reading::of(&db, "public.orders", "");
    reading.start().await;
    let (first, second) = (db.connect().await, db.connect().await);
    first.batch_execute("BEGIN; INSERT INTO orders VALUES (1, 'a')").await.unwrap();
    second.batch_execute("BEGIN; INSERT INTO orders VALUES (2, 'b'); COMMIT").await.unwrap();
    first.batch_execute("INSERT INTO orders VALUES (3, 'c'); COMMIT").await.unwrap();
    let events = reading.exactly(3).await;
    let ids: Vec<&Value> = events.iter().map(|event| &event["payload"]["id"]).collect();
    assert_eq!(ids, [2, 1, 3]);
}

#[tokio::test(flavor = "multi_thread")]
async fn logical_messages_are_delivered_and_heartbeats_are_not() {
    for major in [15, 18] {
        let db = orders(major, "messages").await;
        let mut reading = Reading::of(&db, "public.orders", "    messages: [\"outbox*\"]");
        reading.start().await;
        db.execute("BEGIN; SELECT pg_logical_emit_message(true, 'outbox.order', '{\"id\":1}'); INSERT INTO orders VALUES (1, 'x'); SELECT pg_logical_emit_message(true, 'private', 'no'); COMMIT").await;
        db.execute("SELECT pg_logical_emit_message(false, 'outbox.now', '\\xff'::bytea)").await;
        db.execute("INSERT INTO orders VALUES (2, 'y')").await;
        let events = reading.exactly(4).await;
        assert_eq!(events[0]["op"], "message");
        assert_eq!(events[0]["payload"]["content"], "{\"id\":1}");
        assert_eq!(events[1]["source"]["ordinal"], 1);
        assert_eq!(
            events[2]["payload"].to_string(),
            r#"{"prefix":"outbox.now","encoding":"base64","content":"/w=="}"#
        );
        assert_eq!(events[3]["payload"]["id"], 2);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_slot_of_an_idle_database_moves_on_while_others_write() {
    for major in MAJORS {
        let db = orders(major, "idle").await;
        let mut reading = Reading::of(&db, "public.orders", "");
        reading.start().await;
        let busy = Postgres::shared(major).await.database("busy").await;
        busy.execute("CREATE TABLE t AS SELECT generate_series(1, 20000) AS n").await;
        reading.confirmed(&db).await;
        assert!(lines(&reading.daemon.path("out.ndjson")).is_empty());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dry_run_prints_events_and_leaves_nothing_behind() {
    let db = orders(15, "dryrun").await;
    let reading = Reading::of(&db, "public.orders", "");
    let mut program = tokio::process::Command::new(FOREBAY);
    program.args(["run", "--dry-run", "-c", "forebay.yaml"]).current_dir(reading.daemon.path("."));
    program.stdout(std::process::Stdio::piped()).stderr(std::process::Stdio::piped()).kill_on_drop(true);
    let mut child = program.spawn().unwrap();
    db.wait_until("SELECT count(*) = 1 FROM pg_replication_slots WHERE database = current_database() AND active AND confirmed_flush_lsn IS NOT NULL").await;
    db.execute("INSERT INTO orders VALUES (1, 'x', 1)").await;
    let mut stdout = tokio::io::BufReader::new(child.stdout.take().unwrap());
    let mut events = Vec::new();
    while events.len() < 2 {
        let mut line = String::new();
        let read = tokio::io::AsyncBufReadExt::read_line(&mut stdout, &mut line);
        tokio::time::timeout(PATIENCE, read).await.expect("an event is printed").unwrap();
        events.push(serde_json::from_str::<Value>(&line).unwrap());
    }
    assert_eq!((&events[0]["op"], &events[1]["payload"]["item"]), (&"schema".into(), &"x".into()));
    let pid = child.id().unwrap().to_string();
    assert!(tokio::process::Command::new("kill").arg(pid).status().await.unwrap().success());
    assert_eq!(child.wait().await.unwrap().code(), Some(0));
    db.wait_until("SELECT count(*) = 0 FROM pg_replication_slots WHERE database = current_database()").await;
    assert_eq!(db.value::<i64>("SELECT count(*) FROM pg_publication").await, 0);
    assert!(!reading.daemon.path("data").exists(), "a dry run stores nothing");
    assert!(!reading.daemon.path("out.ndjson").exists(), "a dry run builds no destination");
}
