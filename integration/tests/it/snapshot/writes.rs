//! Changes made while the copy runs: they win, whatever they are and whenever they began.

use forebay_integration::{Database, Postgres};
use serde_json::Value;

use super::writers::Writers;
use super::{Copying, is_copied, is_over, items};

/// More than fit into a few chunks.
const ROWS: u32 = 20_000;

/// Whether changes stand between the first copied row and the last.
fn is_interleaved(events: &[Value]) -> bool {
    let (first, last) = (events.iter().position(is_copied), events.iter().rposition(is_copied));
    let (Some(first), Some(last)) = (first, last) else { return false };
    events[first..last].iter().any(|event| !is_copied(event))
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_written_while_a_table_is_copied_is_never_undone() {
    for major in [13, 15, 17, 18] {
        eprintln!("PostgreSQL {major}");
        let db = Postgres::shared(major).await.database("writes").await;
        items(&db, ROWS).await;
        let mut copying = Copying::of(&db, "public.items", "");
        let writers = Writers::start(&db, ROWS, 4).await;
        copying.start().await;
        copying.copied().await;
        let transactions = writers.stop().await;
        let replica = copying.finished(&db).await;
        replica.expect_table(&db, "public.items").await;
        eprintln!("{transactions} transactions, {} copied events", replica.copied_events());
        assert!(is_interleaved(&copying.events()), "nothing was written while the table was copied");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_truncation_while_a_table_is_copied_is_never_undone() {
    for major in [15, 18] {
        eprintln!("PostgreSQL {major}");
        let db = Postgres::shared(major).await.database("truncated").await;
        items(&db, ROWS).await;
        let mut copying = Copying::of(&db, "public.items", "");
        copying.start().await;
        copying.wait_for(1, "the first copied row", is_copied).await;
        let writers = Writers::start_truncating(&db, ROWS, 4).await;
        db.execute("BEGIN; TRUNCATE items; INSERT INTO items SELECT n, 1000000, 'after', NULL FROM generate_series(1, 5000) n; COMMIT").await;
        copying.copied().await;
        writers.stop().await;
        copying.finished(&db).await.expect_table(&db, "public.items").await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_update_of_every_row_while_they_are_copied_loses_no_large_value() {
    let db = Postgres::shared(15).await.database("sweep").await;
    items(&db, ROWS).await;
    let mut copying = Copying::of(&db, "public.items", "");
    copying.start().await;
    copying.wait_for(1, "the first copied row", is_copied).await;
    for version in 1..=3 {
        // `body` did not change, so the events do not have it.
        db.execute(&format!("UPDATE items SET version = {version}")).await;
    }
    copying.finished(&db).await.expect_table(&db, "public.items").await;
}

/// A row that leaves the part of a table that was not read yet for one that was is in no chunk, and the event of its
/// change has not what did not change.
#[tokio::test(flavor = "multi_thread")]
async fn a_row_that_changes_its_key_while_it_is_copied_keeps_its_large_value() {
    for major in [13, 15, 18] {
        eprintln!("PostgreSQL {major}");
        let server = Postgres::shared(major).await;
        let db = server.database("moved").await;
        items(&db, ROWS).await;
        let (line, mut copying) =
            Copying::slowly(server, &db, "public.items", "    snapshot_parallel: 1").await;
        copying.start().await;
        copying.wait_for(1, "the first copied row", is_copied).await;
        db.execute("UPDATE items SET id = -id, version = 1 WHERE id > 19000").await;
        assert!(!is_over(&copying.daemon.status().await), "it was over before");
        line.limit(None);
        copying.finished(&db).await.expect_table(&db, "public.items").await;
    }
}

/// Every kind of change, in a transaction that is left open on a session of its own.
async fn open(db: &Database, table: &str) -> tokio_postgres::Client {
    let session = db.connect().await;
    let statements = format!(
        "BEGIN;
         UPDATE {table} SET version = 1, label = 'open' WHERE id = 10;
         DELETE FROM {table} WHERE id = 20;
         UPDATE {table} SET version = 1, id = -30 WHERE id = 30;
         INSERT INTO {table} VALUES (0, 1, 'open', repeat('o', 3000));
         UPDATE {table} SET version = 1 WHERE id > 15000 AND id % 3 = 0"
    );
    session.batch_execute(&statements).await.unwrap();
    session
}

#[tokio::test(flavor = "multi_thread")]
async fn a_transaction_that_is_open_when_the_daemon_first_starts_is_not_lost() {
    for major in [13, 15, 18] {
        let db = Postgres::shared(major).await.database("open").await;
        items(&db, ROWS).await;
        let session = open(&db, "items").await;
        let mut copying = Copying::of(&db, "public.items", "");
        copying.daemon.start().await;
        // The server creates the slot only when everything that is under way has ended.
        let waits =
            format!("SELECT count(*) = 1 FROM pg_replication_slots WHERE slot_name = '{}'", db.name());
        db.wait_until(&waits).await;
        session.batch_execute("COMMIT").await.unwrap();
        copying.finished(&db).await.expect_table(&db, "public.items").await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_transaction_that_is_open_across_the_start_of_a_copy_wins() {
    for (major, commits) in [(13, true), (15, true), (15, false), (18, true)] {
        let db = Postgres::shared(major).await.database("across").await;
        items(&db, ROWS).await;
        let mut copying = Copying::of(&db, "public.items", "    snapshot: never");
        copying.start().await;
        let session = open(&db, "items").await;
        copying.command(&["--source", "db", "--table", "public.items"]).await;
        copying.wait_for(1, "the copy goes on beside it", is_copied).await;
        session.batch_execute(if commits { "COMMIT" } else { "ROLLBACK" }).await.unwrap();
        let replica = copying.finished(&db).await;
        replica.expect_table(&db, "public.items").await;
    }
}

/// The server decodes what a transaction did before a table was published as if it were not published.
#[tokio::test(flavor = "multi_thread")]
async fn what_was_written_to_a_table_just_before_it_was_published_is_copied() {
    for major in [13, 15, 18] {
        let db = Postgres::shared(major).await.database("added").await;
        items(&db, ROWS).await;
        db.execute("CREATE TABLE first (id int PRIMARY KEY)").await;
        let mut copying = Copying::of(&db, "public.first", "");
        copying.start().await;
        copying.copied().await;
        assert_eq!(copying.daemon.stop().await, 0);
        let session = open(&db, "items").await;
        copying.set_tables("public.first, public.items");
        copying.daemon.start().await;
        let published = format!(
            "SELECT count(*) = 1 FROM pg_publication_tables WHERE pubname = '{}' AND tablename = 'items'",
            db.name()
        );
        db.wait_until(&published).await;
        session.batch_execute("UPDATE items SET version = 2 WHERE id = 0; COMMIT").await.unwrap();
        copying.copied_too("public.items").await;
        copying.finished(&db).await.expect_table(&db, "public.items").await;
    }
}
