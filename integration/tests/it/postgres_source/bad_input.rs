//! What a user meets who has something wrong: one message with the remedy, and the exit code that fits.

use forebay_integration::Postgres;

use super::{Reading, orders};

/// The last message of the daemon names all of `words`, and it ends with `code`.
async fn refuses(mut reading: Reading, code: i32, words: &[&str]) {
    let (found, said) = reading.refused().await;
    assert_eq!(found, code, "{said}");
    for word in words {
        assert!(said.contains(word), "`{word}` in\n{said}");
    }
    assert!(!said.contains("panicked"), "{said}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_is_down_is_waited_for_and_then_given_up() {
    let port = forebay_integration::free_ports(1);
    let url = format!("postgres://postgres@127.0.0.1:{port}/db");
    let reading = Reading::of_url(&url, "nobody", "public.orders", "");
    let config = std::fs::read_to_string(reading.daemon.path("forebay.yaml")).unwrap();
    reading.daemon.configure(&format!("{config}startup: {{wait: 1s}}\n"));
    refuses(reading, 69, &["connecting to", "start the server"]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_database_that_does_not_exist_is_refused_at_once() {
    let db = orders(15, "nodb").await;
    let url = db.url().replace(db.name(), "no_such_database");
    refuses(
        Reading::of_url(&url, db.name(), "public.orders", ""),
        78,
        &["no_such_database", "create the database"],
    )
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_table_that_does_not_exist_is_refused_at_once() {
    let db = orders(15, "notable").await;
    refuses(Reading::of(&db, "public.orders, public.ordesr", ""), 78, &["public.ordesr", "does not exist"])
        .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_role_that_may_not_replicate_is_told_the_statement() {
    let db = orders(15, "norole").await;
    db.execute(&format!("CREATE ROLE {}_weak LOGIN", db.name())).await;
    let url = db.url().replace("postgres@", &format!("{}_weak@", db.name()));
    refuses(
        Reading::of_url(&url, db.name(), "public.orders", ""),
        69,
        &["may not replicate", "REPLICATION;"],
    )
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_without_logical_wal_is_told_the_setting() {
    let server = Postgres::start(15, &[("wal_level", "replica")]).await;
    let db = server.database("nowal").await;
    db.execute("CREATE TABLE orders (id int PRIMARY KEY)").await;
    refuses(
        Reading::of(&db, "public.orders", ""),
        69,
        &["`wal_level` is `replica`", "ALTER SYSTEM SET wal_level"],
    )
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_without_a_slot_left_is_told_so() {
    let server = Postgres::start(15, &[("max_replication_slots", "1")]).await;
    let db = server.database("noslot").await;
    db.execute("CREATE TABLE orders (id int PRIMARY KEY)").await;
    db.query("SELECT pg_create_physical_replication_slot('other')", &[]).await;
    refuses(Reading::of(&db, "public.orders", ""), 69, &["slots are in use", "max_replication_slots"]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_publication_of_somebody_else_is_left_alone_and_can_be_used_as_it_is() {
    let db = orders(15, "foreign").await;
    db.execute(&format!("CREATE PUBLICATION {} FOR TABLE orders", db.name())).await;
    refuses(
        Reading::of(&db, "public.orders", ""),
        69,
        &["was not made by Forebay", "publication_mode: existing"],
    )
    .await;
    let mut reading = Reading::of(&db, "public.orders", "    publication_mode: existing");
    reading.start().await;
    db.execute("INSERT INTO orders VALUES (1, 'a', 1)").await;
    reading.exactly(1).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_slot_that_another_daemon_reads_is_left_to_it() {
    let db = orders(15, "busy").await;
    let mut first = Reading::of(&db, "public.orders", "");
    first.start().await;
    refuses(Reading::of(&db, "public.orders", ""), 69, &["is in use by process", "pg_terminate_backend"])
        .await;
    db.execute("INSERT INTO orders VALUES (1, 'a', 1)").await;
    first.exactly(1).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_slot_of_another_plugin_is_refused() {
    let db = orders(15, "plugin").await;
    db.query(&format!("SELECT pg_create_logical_replication_slot('{}', 'test_decoding')", db.name()), &[])
        .await;
    refuses(Reading::of(&db, "public.orders", ""), 69, &["test_decoding", "name another `slot`"]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rule_for_a_column_that_does_not_exist_is_refused() {
    let db = orders(15, "nocolumn").await;
    let rules = "    columns: {hash: [public.orders.emial]}";
    refuses(Reading::of(&db, "public.orders", rules), 78, &["public.orders.emial"]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stop_is_heard_while_the_slot_waits_for_a_long_transaction() {
    let server = Postgres::start(15, &[]).await;
    let db = server.database("longtx").await;
    db.execute("CREATE TABLE orders (id int PRIMARY KEY)").await;
    let long = db.connect().await;
    long.batch_execute("BEGIN; INSERT INTO orders VALUES (1)").await.unwrap();
    let mut reading = Reading::of(&db, "public.orders", "");
    reading.daemon.start().await;
    db.wait_until("SELECT count(*) = 1 FROM pg_replication_slots WHERE confirmed_flush_lsn IS NULL").await;
    tokio::time::sleep(std::time::Duration::from_secs(22)).await;
    assert_eq!(
        reading.daemon.get("/live").await.map(|(code, _)| code),
        Some(200),
        "waiting is not being stuck"
    );
    assert_eq!(reading.daemon.stop().await, 0);
    long.batch_execute("COMMIT").await.unwrap();
    reading.start().await;
    db.execute("INSERT INTO orders VALUES (2)").await;
    reading.exactly(1).await;
}
