//! A `schema` event comes once, and again where nobody knows whether it came.

use std::collections::BTreeSet;

use forebay_integration::{Daemon, Database, Postgres};
use tokio::time::{Instant, sleep};

use super::{ASK_PAUSE, FOREBAY, Reading};

#[tokio::test(flavor = "multi_thread")]
async fn a_schema_event_comes_once_over_restarts() {
    let db = Postgres::shared(15).await.database("once").await;
    db.execute("CREATE TABLE t (id int PRIMARY KEY, note text); INSERT INTO t VALUES (1)").await;
    let mut reading = Reading::of(&db, "public.t", "");
    reading.start().await;
    for id in 2..5 {
        db.execute(&format!("INSERT INTO t VALUES ({id})")).await;
        reading.row(id).await;
        reading.restart().await;
    }
    db.execute("ALTER TABLE t ADD more int; INSERT INTO t VALUES (5)").await;
    reading.row(5).await;
    reading.restart().await;
    db.execute("INSERT INTO t VALUES (6)").await;
    reading.row(6).await;
    let judged = reading.judged(&db).await;
    assert_eq!(judged.announced_of("public.t"), ["1-0-0", "1-0-1"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn wherever_the_daemon_is_killed_the_schema_stands_before_its_first_row() {
    const STEPS: [&str; 11] = [
        "read",
        "sent",
        "received",
        "staged",
        "file-written",
        "file-synced",
        "delivered",
        "accepted",
        "before-save",
        "saved",
        "published",
    ];
    for step in STEPS {
        let db = Postgres::shared(15).await.database("killed").await;
        db.execute("CREATE TABLE t (id int PRIMARY KEY, note text)").await;
        let mut reading = Reading::of(&db, "public.t", "");
        reading.start().await;
        assert_eq!(reading.daemon.stop().await, 0);
        // The first rows of two shapes, which the daemon meets while it dies.
        db.execute("INSERT INTO t VALUES (1); ALTER TABLE t ADD more int; INSERT INTO t VALUES (2)").await;
        for times in 1..=2 {
            reading.daemon.set_env("FOREBAY_STEP", &format!("{step}:{times}"));
            reading.daemon.spawn();
            let deadline = Instant::now() + forebay_integration::PATIENCE;
            let mut id = 10 * times;
            while reading.daemon.is_running() {
                assert!(Instant::now() < deadline, "step `{step}` was never reached");
                db.execute(&format!("INSERT INTO t VALUES ({id}) ON CONFLICT DO NOTHING")).await;
                id += 1;
                sleep(ASK_PAUSE).await;
            }
            reading.daemon.ended().await;
        }
        reading.daemon.unset_env("FOREBAY_STEP");
        reading.start().await;
        db.execute("INSERT INTO t VALUES (0)").await;
        reading.row(0).await;
        reading.row(2).await;
        let judged = reading.judged(&db).await;
        let versions: BTreeSet<&str> = judged.announced_of("public.t").into_iter().collect();
        assert_eq!(versions.into_iter().collect::<Vec<_>>(), ["1-0-0", "1-0-1"], "after `{step}`");
        let said = judged.announced.len();
        reading.restart().await;
        db.execute("INSERT INTO t VALUES (3)").await;
        reading.row(3).await;
        assert_eq!(
            reading.judged(&db).await.announced.len(),
            said,
            "after `{step}` it is known that both came"
        );
    }
}

/// A destination that keeps the mark with its rows takes nothing that is not above it.
#[tokio::test(flavor = "multi_thread")]
async fn a_destination_that_takes_each_event_once_takes_each_schema_once() {
    for step in ["sent", "staged", "delivered", "accepted", "before-save", "saved"] {
        let server = Postgres::shared(15).await;
        let (db, copy) = (server.database("marked").await, server.database("copy").await);
        db.execute("CREATE TABLE t (id int PRIMARY KEY, note text); INSERT INTO t VALUES (1)").await;
        let mut daemon = Daemon::new(FOREBAY, &into_table(&db, &copy));
        daemon.start().await;
        copy.wait_until("SELECT to_regclass('forebay_events') IS NOT NULL").await;
        copy.wait_until("SELECT count(*) = 1 FROM forebay_events WHERE op = 'snapshot'").await;
        assert_eq!(daemon.stop().await, 0);
        db.execute("INSERT INTO t VALUES (2); ALTER TABLE t ADD more int; INSERT INTO t VALUES (3)").await;
        daemon.set_env("FOREBAY_STEP", &format!("{step}:1"));
        daemon.spawn();
        daemon.ended().await;
        daemon.unset_env("FOREBAY_STEP");
        daemon.start().await;
        copy.wait_until("SELECT count(*) = 2 FROM forebay_events WHERE op = 'insert'").await;
        let schemas = "SELECT string_agg(body->>'version', ' ' ORDER BY body->>'version') FROM forebay_events WHERE op = 'schema'";
        assert_eq!(copy.value::<String>(schemas).await, "1-0-0 1-0-1", "after `{step}`");
        daemon.kill().await;
    }
}

/// The catalog has outgrown a row that the destination holds, without a word in the stream: read again, the row names a
/// schema that stands at a mark that is held already, and that was never said.
#[tokio::test(flavor = "multi_thread")]
async fn a_schema_at_a_mark_that_is_held_reaches_the_destination_all_the_same() {
    let server = Postgres::shared(15).await;
    let (db, copy) = (server.database("outgrown").await, server.database("outgrown_copy").await);
    db.execute("CREATE TYPE mood AS ENUM ('sad'); CREATE TABLE t (id int PRIMARY KEY, mood mood)").await;
    let mut daemon = Daemon::new(FOREBAY, &into_table(&db, &copy));
    daemon.start().await;
    daemon.wait_until("the source reads", |status| status["sources"][0]["connected"] == true).await;
    db.execute("INSERT INTO t VALUES (1, 'sad')").await;
    copy.wait_until("SELECT to_regclass('forebay_events') IS NOT NULL").await;
    copy.wait_until("SELECT count(*) = 1 FROM forebay_events WHERE op = 'insert'").await;
    assert_eq!(daemon.stop().await, 0);
    db.execute("INSERT INTO t VALUES (2, 'sad')").await;
    daemon.set_env("FOREBAY_STEP", "postgres-destination-after-commit:1");
    daemon.spawn();
    daemon.ended().await;
    daemon.unset_env("FOREBAY_STEP");
    assert_eq!(copy.value::<i64>("SELECT count(*) FROM forebay_events WHERE op = 'insert'").await, 2);
    db.execute("ALTER TYPE mood ADD VALUE 'torn'").await;
    daemon.start().await;
    db.execute("INSERT INTO t VALUES (3, 'torn')").await;
    copy.wait_until("SELECT count(*) = 3 FROM forebay_events WHERE op = 'insert'").await;
    let named =
        "SELECT body->>'version' FROM forebay_events WHERE op = 'insert' AND body->'key'->>'id' = '3'";
    assert_eq!(copy.value::<String>(named).await, "1-1-0");
    let schemas = "SELECT string_agg(body->>'version', ' ' ORDER BY body->>'version') FROM forebay_events WHERE op = 'schema'";
    assert_eq!(copy.value::<String>(schemas).await, "1-0-0 1-1-0");
    assert_eq!(daemon.stop().await, 0);
}

/// A daemon that writes `t` of one database into a table of another.
fn into_table(db: &Database, copy: &Database) -> String {
    let (url, slot, to) = (db.url(), db.name(), copy.url());
    format!(
        "sources:
  db:
    type: postgres
    vendor: com.acme
    url: {url}
    tables: [public.t]
    publication: {slot}
    slot: {slot}
    heartbeat: 200ms
destinations:
  copy:
    type: postgres
    url: {to}
"
    )
}
