//! Late visibility: a commit that waits for a synchronous standby is in the stream and in no snapshot of the server.
//! Whoever orders copied rows by the log alone gives an older row after the newer event.

use std::time::Duration;

use forebay_integration::{Database, Postgres, Standby};
use rand::RngExt;
use serde_json::Value;
use tokio::task::JoinSet;
use tokio::time::sleep;

use super::{Copying, is_copied, is_over, items, state};

/// More than fit into one chunk, so that the copy goes on beside the rows that were changed.
const ROWS: u32 = 20_000;

/// What each session commits while nobody can see it. Rows whose number is a multiple of ten have a `body` that is
/// stored out of line; no statement touches another's rows.
const LATE: [&str; 8] = [
    "UPDATE items SET version = 1, label = 'late', body = 'short' WHERE id = 10",
    // `body` is left out of the event
    "UPDATE items SET version = 1, label = 'late' WHERE id = 20",
    "DELETE FROM items WHERE id = 30",
    "INSERT INTO items VALUES (0, 1, 'late', repeat('z', 3000))",
    // a new key, with a `body` that only the old row has
    "UPDATE items SET version = 1, id = -40 WHERE id = 40",
    "BEGIN; DELETE FROM items WHERE id = 50; INSERT INTO items VALUES (50, 1, 'late', NULL); COMMIT",
    "BEGIN; SAVEPOINT s; UPDATE items SET version = 1 WHERE id = 60; RELEASE s;
     UPDATE items SET version = 2 WHERE id = 60; COMMIT",
    "COMMIT PREPARED 'late'",
];
/// Longer than a copy takes that does not wait.
const LONG: Duration = Duration::from_secs(3);
/// How many changes these are.
const LATE_EVENTS: usize = 10;

/// Sessions that hang in their COMMITs.
struct Hanging(JoinSet<()>);

impl Hanging {
    /// Begins all of [`LATE`] and returns when each has committed and none is visible.
    async fn begin(db: &Database, standby: &Standby) -> Hanging {
        db.execute(
            "BEGIN; UPDATE items SET version = 1, label = 'late' WHERE id = 70; PREPARE TRANSACTION 'late'",
        )
        .await;
        standby.pause();
        let mut sessions = JoinSet::new();
        for statements in LATE {
            let session = db.connect().await;
            sessions.spawn(async move { session.batch_execute(statements).await.unwrap() });
        }
        standby.wait_for_hanging(LATE.len()).await;
        let seen: i64 = db.value("SELECT count(*) FROM items WHERE version > 0").await;
        assert_eq!(seen, 0, "what hangs is not visible");
        Hanging(sessions)
    }

    /// Lets them finish.
    async fn end(mut self, standby: &Standby) {
        standby.resume();
        while let Some(session) = self.0.join_next().await {
            session.unwrap();
        }
    }
}

/// The rows could be read now, as they were before; they are not, because the stream has said otherwise already.
async fn expect_to_wait(copying: &mut Copying) {
    copying.daemon.wait_until("the copy was begun", |status| state(status) == "copying").await;
    sleep(LONG).await;
    assert!(!copying.events().iter().any(is_copied), "rows were copied that nobody was to see any more");
}

fn is_late(event: &Value) -> bool {
    event["source"]["table"] == "items" && !is_copied(event)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_commit_that_hangs_is_in_the_log_and_in_no_snapshot() {
    let mut primary = Postgres::start(15, &[]).await;
    let standby = Standby::synchronous(&mut primary).await;
    let db = primary.database("hanging").await;
    items(&db, 100).await;
    db.query("SELECT pg_create_logical_replication_slot('plain', 'test_decoding')", &[]).await;
    let hanging = Hanging::begin(&db, &standby).await;
    let changes =
        "SELECT count(*) FROM pg_logical_slot_peek_changes('plain', NULL, NULL) WHERE data LIKE 'table %'";
    db.wait_until(&format!("SELECT ({changes}) = {LATE_EVENTS}")).await;
    hanging.end(&standby).await;
    let seen: i64 = db.value("SELECT count(*) FROM items WHERE version > 0").await;
    assert_eq!(seen, 7, "all but the deletion left a row");
}

/// A primary with its standby, and a daemon that reads `items` and has copied nothing.
async fn reading(major: u16) -> (Postgres, Standby, Database, Copying) {
    let mut primary = Postgres::start(major, &[]).await;
    let standby = Standby::synchronous(&mut primary).await;
    let db = primary.database("late").await;
    items(&db, ROWS).await;
    let mut copying = Copying::of(&db, "public.items", "    snapshot: never");
    copying.start().await;
    (primary, standby, db, copying)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_change_that_was_streamed_before_the_copy_could_see_it_is_never_undone() {
    for major in [13, 15, 17, 18] {
        eprintln!("PostgreSQL {major}");
        let (_primary, standby, db, mut copying) = reading(major).await;
        let hanging = Hanging::begin(&db, &standby).await;
        copying.wait_for(LATE_EVENTS, "the changes that nobody sees", is_late).await;
        copying.command(&["--source", "db", "--table", "public.items"]).await;
        expect_to_wait(&mut copying).await;
        hanging.end(&standby).await;
        let replica = copying.finished(&db).await;
        replica.expect_table(&db, "public.items").await;
        assert!(replica.copied_ids() >= u64::from(ROWS) - 10, "{} rows were copied", replica.copied_ids());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_change_that_was_stored_before_a_restart_and_is_still_invisible_is_never_undone() {
    for major in [15, 18] {
        eprintln!("PostgreSQL {major}");
        let (_primary, standby, db, mut copying) = reading(major).await;
        let hanging = Hanging::begin(&db, &standby).await;
        copying.wait_for(LATE_EVENTS, "the changes that nobody sees", is_late).await;
        copying.caught_up(&db).await;
        // The stream begins behind these commits now, and does not bring them again.
        copying.daemon.kill().await;
        copying.start().await;
        copying.command(&["--source", "db", "--table", "public.items"]).await;
        copying.daemon.wait_until("the copy was begun", |status| state(status) == "copying").await;
        hanging.end(&standby).await;
        copying.finished(&db).await.expect_table(&db, "public.items").await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_first_copy_that_was_interrupted_goes_on_among_commits_that_nobody_sees() {
    let mut primary = Postgres::start(15, &[]).await;
    let standby = Standby::synchronous(&mut primary).await;
    let db = primary.database("interrupted").await;
    items(&db, ROWS).await;
    let mut copying = Copying::of(&db, "public.items", "");
    copying.daemon.set_env("FOREBAY_STEP", "snapshot-read:1");
    copying.daemon.spawn();
    copying.daemon.ended().await;
    copying.daemon.unset_env("FOREBAY_STEP");
    assert!(copying.daemon.stderr().contains("step `snapshot-read` reached"), "{}", copying.daemon.stderr());
    let hanging = Hanging::begin(&db, &standby).await;
    copying.start().await;
    copying.wait_for(LATE_EVENTS, "the changes that nobody sees", is_late).await;
    expect_to_wait(&mut copying).await;
    hanging.end(&standby).await;
    copying.finished(&db).await.expect_table(&db, "public.items").await;
}

/// Commits that hang again and again, some for long, while every row is copied.
#[tokio::test(flavor = "multi_thread")]
async fn commits_that_become_visible_late_all_the_time_are_never_undone() {
    for major in [13, 15, 18] {
        eprintln!("PostgreSQL {major}");
        let mut primary = Postgres::start(major, &[]).await;
        let standby = Standby::synchronous(&mut primary).await;
        let db = primary.database("storm").await;
        items(&db, ROWS).await;
        let mut copying = Copying::of(&db, "public.items", "    snapshot: never");
        copying.start().await;
        let writers = super::writers::Writers::start(&db, ROWS, 8).await;
        copying.command(&["--source", "db", "--table", "public.items"]).await;
        let mut pauses = 0;
        while !is_over(&copying.daemon.status().await) {
            standby.pause();
            standby.wait_for_hanging(1).await;
            sleep(Duration::from_millis(rand::rng().random_range(0..200))).await;
            standby.resume();
            sleep(Duration::from_millis(rand::rng().random_range(0..50))).await;
            pauses += 1;
        }
        let transactions = writers.stop().await;
        let replica = copying.finished(&db).await;
        replica.expect_table(&db, "public.items").await;
        eprintln!("{transactions} transactions, {pauses} pauses, {} copied events", replica.copied_events());
        assert!(pauses >= 3, "the copy was over after {pauses} pauses");
    }
}
