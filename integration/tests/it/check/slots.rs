//! The slot, and the WAL that is kept for it.

use super::*;

/// A database with a slot that nobody reads while so many segments are written.
async fn behind(server: &Postgres, writes: u32) -> Database {
    let db = server.database("behind").await;
    db.execute("create table orders (id int primary key)").await;
    db.query("select pg_create_logical_replication_slot($1, 'pgoutput')", &[&db.name()]).await;
    for _ in 0..writes {
        db.query("select pg_logical_emit_message(true, 'x', repeat('x', 1000)), pg_switch_wal()", &[]).await;
    }
    db
}

#[tokio::test]
async fn a_slot_that_has_lost_its_wal_is_made_anew_after_what_check_prints() {
    for major in [13, 17] {
        let server =
            Postgres::start(major, &[("max_slot_wal_keep_size", "1MB"), ("max_wal_size", "32MB")]).await;
        let db = behind(&server, 6).await;
        db.execute("checkpoint").await;
        let source = Source::of(&db, json!({}));
        source.mended("has lost WAL that it would have to send", Some(Blame::Outside), &db).await;
        source.is_ready().await;
        assert!(source.finding("will be created").await.trouble.is_none());
    }
}

#[tokio::test]
async fn a_slot_that_is_about_to_be_lost_is_kept_after_what_check_prints() {
    let server = Postgres::start(15, &[]).await;
    let db = server.database("close").await;
    db.execute("alter system set max_slot_wal_keep_size = '64MB'").await;
    db.query("select pg_reload_conf()", &[]).await;
    drop(db);
    let db = behind(&server, 5).await;
    let source = Source::of(&db, json!({}));
    source.mended("of WAL, ", None, &db).await;
    source.is_ready().await;
}

#[tokio::test]
async fn a_slot_of_somebody_else_is_not_taken() {
    let postgres = Postgres::shared(15).await;
    let (db, other) = (postgres.database("mine").await, postgres.database("theirs").await);
    db.execute("create table orders (id int primary key)").await;
    db.query("select pg_create_logical_replication_slot($1, 'test_decoding')", &[&db.name()]).await;
    other.query("select pg_create_logical_replication_slot($1, 'pgoutput')", &[&other.name()]).await;
    let trouble =
        Source::of(&db, json!({})).finding("is not `pgoutput` (test_decoding)").await.trouble.unwrap();
    assert_eq!(trouble.blame, Some(Blame::Outside));
    let source = Source::of(&db, json!({"slot": other.name()}));
    source.finding(&format!("bound to database `{}`", other.name())).await;
    for name in [db.name(), other.name()] {
        other.query("select pg_drop_replication_slot($1)", &[&name]).await;
    }
}
