//! The copy by command: of one table, of some of its rows, held, stopped, and looked at.

use forebay_integration::{Database, Postgres, Proxy};
use serde_json::{Value, json};

use super::{Copying, is_copied, is_over, items, state, tables};

const ROWS: u32 = 20_000;

/// A database with `items` and `other`.
async fn tables_of(name: &str) -> Database {
    let db = Postgres::shared(15).await.database(name).await;
    items(&db, ROWS).await;
    db.execute("CREATE TABLE other (id int PRIMARY KEY, version bigint); INSERT INTO other SELECT n, 0 FROM generate_series(1, 50) n; ANALYZE").await;
    db
}

/// A daemon that reads `items` and `other` and has copied nothing.
async fn reading(name: &str) -> (Database, Copying) {
    let db = tables_of(name).await;
    let mut copying = Copying::of(&db, "\"public.*\"", "    snapshot: never");
    copying.start().await;
    (db, copying)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_table_is_copied_when_it_is_asked_for_each_time_under_new_ids() {
    let (db, mut copying) = reading("adhoc").await;
    copying.command(&["--source", "db", "--table", "public.other"]).await;
    copying.wait_for(50, "the copy", is_copied).await;
    let replica = copying.finished(&db).await;
    replica.expect_table(&db, "public.other").await;
    assert_eq!((replica.copied_of("public.other"), replica.copied_of("public.items")), (50, 0));
    copying.command(&["--source", "db", "--table", "public.other"]).await;
    copying.wait_for(100, "the second copy", is_copied).await;
    let replica = copying.finished(&db).await;
    assert_eq!(replica.copied_ids(), 100);
    replica.expect_table(&db, "public.other").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn only_the_rows_for_which_the_condition_holds_are_copied() {
    let (db, mut copying) = reading("conditional").await;
    copying
        .command(&[
            "--source",
            "db",
            "--table",
            "public.items",
            "--where",
            "id % 1000 = 0 OR label LIKE 'label 7.%'",
        ])
        .await;
    copying.wait_for(21, "the copy", is_copied).await;
    let replica = copying.finished(&db).await;
    replica.expect(&db, "public.items", "SELECT * FROM items WHERE id % 1000 = 0 OR id = 7").await;
    assert_eq!(replica.copied_events(), 21);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_be_copied_is_refused_with_the_reason() {
    let (_db, copying) = reading("refused").await;
    for (arguments, code, reason) in [
        (["--source", "db", "--table", "public.missing"], 78, "public.missing"),
        (["--source", "nobody", "--table", "public.items"], 78, "nobody"),
        (["--source", "db", "--table", "items"], 78, "public.items"),
    ] {
        let all = [&["snapshot"], &arguments[..], &["-c", "forebay.yaml"]].concat();
        let output = copying.daemon.command(&all).await;
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(code), "{arguments:?}: {said}");
        assert!(said.contains(reason), "{arguments:?}: {said}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_condition_that_the_server_refuses_harms_neither_the_stream_nor_the_tables() {
    let (db, mut copying) = reading("conditions").await;
    for condition in [
        "no_such_column = 1",
        "id =",
        "id = 1) OR (",
        "id = 1) OR (true",
        "id = 1)) TO STDOUT; COMMIT; DROP TABLE other; --",
        "true) TO STDOUT; COMMIT; DROP TABLE other; --",
        "id / 0 = 1",
    ] {
        let arguments = ["snapshot", "--source", "db", "--table", "public.items", "--where", condition];
        let output = copying.daemon.command(&[&arguments[..], &["-c", "forebay.yaml"]].concat()).await;
        if output.status.success() {
            let told = |status: &Value| tables(status).iter().any(|table| table["problem"].is_string());
            copying.daemon.wait_until(&format!("`{condition}` is a problem"), told).await;
            let said = copying.command(&["status"]).await;
            assert!(said.contains("public.items"), "{said}");
        }
        let still: i64 = db.value("SELECT count(*) FROM pg_tables WHERE schemaname = 'public'").await;
        assert_eq!(still, 2, "`{condition}` was run");
    }
    db.execute("INSERT INTO other VALUES (1000, 1)").await;
    copying.caught_up(&db).await;
    let events = copying.events();
    let ops: Vec<&Value> = events.iter().map(|event| &event["op"]).collect();
    assert_eq!(ops, ["schema", "insert"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_command_without_a_daemon_says_so() {
    let (_db, mut copying) = reading("nobody").await;
    assert_eq!(copying.daemon.stop().await, 0);
    for arguments in [&["status"][..], &["pause"], &["--source", "db", "--table", "public.items"]] {
        let all: Vec<&str> = [&["snapshot"], arguments, &["-c", "forebay.yaml"]].concat();
        let output = copying.daemon.command(&all).await;
        assert_eq!(output.status.code(), Some(69), "{}", String::from_utf8_lossy(&output.stderr));
    }
}

/// A copy of `items` that is held in the middle.
async fn held(db: &Database) -> (Proxy, Copying) {
    let (line, mut copying) =
        Copying::slowly(Postgres::shared(15).await, db, "\"public.*\"", "    snapshot: never").await;
    copying.start().await;
    copying.command(&["--source", "db", "--table", "public.items"]).await;
    copying.wait_for(1, "the copy begins", is_copied).await;
    copying.command(&["pause", "--source", "db"]).await;
    copying.daemon.wait_until("the copy is held", |status| state(status) == "paused").await;
    (line, copying)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_copy_that_is_paused_stands_still_while_changes_flow_and_goes_on_where_it_was() {
    let db = tables_of("paused").await;
    let (line, mut copying) = held(&db).await;
    // It stays held across a restart: whoever paused it did not mean the process.
    copying.daemon.kill().await;
    line.limit(None);
    copying.start().await;
    copying.daemon.wait_until("the copy is still held", |status| state(status) == "paused").await;
    let before = copying.replica().copied_events();
    assert!(before < ROWS.into(), "it was over before it was held");
    db.execute("UPDATE items SET version = 1 WHERE id % 3 = 0").await;
    copying.caught_up(&db).await;
    assert_eq!(copying.replica().copied_events(), before, "nothing is copied while it is held");
    copying.command(&["resume"]).await;
    let replica = copying.finished(&db).await;
    replica.expect_table(&db, "public.items").await;
    let twice = replica.copied_events() - replica.copied_ids();
    assert!(twice < ROWS.into(), "it began anew: {twice} rows came twice");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_copy_that_is_stopped_is_over_and_changes_go_on() {
    let db = tables_of("stopped").await;
    let (line, mut copying) = held(&db).await;
    copying.command(&["stop", "--source", "db"]).await;
    copying.daemon.wait_until("the copy is given up", is_over).await;
    line.limit(None);
    copying.daemon.kill().await;
    copying.start().await;
    let before = copying.replica().copied_events();
    db.execute("INSERT INTO other VALUES (1000, 1)").await;
    copying.caught_up(&db).await;
    let replica = copying.finished(&db).await;
    assert_eq!(replica.copied_events(), before, "what was stopped goes on");
    // The next one is a copy of its own.
    copying.command(&["--source", "db", "--table", "public.other"]).await;
    let replica = copying.finished(&db).await;
    replica.expect_table(&db, "public.other").await;
    assert_eq!(replica.copied_of("public.other"), 51);
    copying.command(&["--source", "db", "--table", "public.items"]).await;
    copying.finished(&db).await.expect_table(&db, "public.items").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn there_is_nothing_to_hold_where_nothing_is_copied() {
    let (_db, copying) = reading("nothing").await;
    for word in ["pause", "resume", "stop"] {
        let output = copying.daemon.command(&["snapshot", word, "-c", "forebay.yaml"]).await;
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(!output.status.success() && said.contains("nothing"), "{word}: {said}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_status_tells_how_far_the_copy_is() {
    let db = tables_of("told").await;
    let (line, mut copying) = Copying::slowly(Postgres::shared(15).await, &db, "\"public.*\"", "").await;
    copying.start().await;
    let named = |status: &Value| tables(status).iter().find(|table| table["name"] == "public.items").cloned();
    let begun = |status: &Value| named(status).is_some_and(|items| items["rows"].as_u64().unwrap() > 0);
    let status = copying.daemon.wait_until("some rows are told", begun).await;
    let part = named(&status).unwrap();
    assert_eq!((&part["state"], &part["estimated_rows"]), (&json!("copying"), &json!(ROWS)), "{part:#}");
    assert!(part["rows"].as_u64().unwrap() < ROWS.into(), "it was over before: {part:#}");
    line.limit(None);
    let status = copying.copied().await;
    for (table, rows) in [("public.items", u64::from(ROWS)), ("public.other", 50)] {
        let told = tables(&status).iter().find(|one| one["name"] == table).unwrap();
        assert_eq!((&told["state"], &told["rows"]), (&json!("done"), &json!(rows)), "{told:#}");
    }
    let said = copying.command(&["status"]).await;
    for part in ["public.items", "public.other", "20000"] {
        assert!(said.replace([',', '_', '\u{202f}'], "").contains(part), "{part}: {said}");
    }
    let metric = copying.daemon.metric("forebay_snapshot_rows_total", &[("source", "db")]).await;
    assert_eq!(metric, Some(f64::from(ROWS) + 50.0));
}
