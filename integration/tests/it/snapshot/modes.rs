//! What is copied, and when: the modes, and tables that come later.

use forebay_integration::{Database, Postgres, Stop};
use serde_json::Value;

use super::{Copying, is_copied, items};

async fn left_behind(db: &Database, slot: &str) -> i64 {
    db.value(&format!(
        "SELECT (SELECT count(*) FROM pg_replication_slots WHERE slot_name = '{slot}') + (SELECT count(*) FROM pg_publication WHERE pubname LIKE '{slot}%')"
    ))
    .await
}

async fn one_and_two(major: u16, name: &str) -> Database {
    let db = Postgres::shared(major).await.database(name).await;
    db.execute(
        "CREATE TABLE one (id int PRIMARY KEY, version bigint); INSERT INTO one SELECT n, 0 FROM generate_series(1, 2000) n;
         CREATE TABLE two (id int PRIMARY KEY, version bigint); INSERT INTO two SELECT n, 0 FROM generate_series(1, 2000) n",
    )
    .await;
    db
}

#[tokio::test(flavor = "multi_thread")]
async fn everything_is_copied_at_the_first_start_unless_it_is_said_otherwise() {
    for (major, more, copied) in [
        (13, "", 4000),
        (15, "", 4000),
        (17, "    snapshot: initial", 4000),
        (18, "    snapshot: when_needed", 4000),
        (15, "    snapshot: never", 0),
    ] {
        let db = one_and_two(major, "modes").await;
        let mut copying = Copying::of(&db, "\"public.*\"", more);
        copying.start().await;
        if copied == 0 {
            copying.caught_up(&db).await;
        } else {
            copying.copied().await;
        }
        db.execute("INSERT INTO one VALUES (0, 1)").await;
        copying.caught_up(&db).await;
        let replica = copying.replica();
        replica.expect_sound();
        assert_eq!(replica.copied_events(), copied, "{more}");
        if copied > 0 {
            replica.expect_table(&db, "public.one").await;
            replica.expect_table(&db, "public.two").await;
        }
        assert_eq!(copying.events().last().unwrap()["op"], "insert");
        assert_eq!(copying.daemon.stop().await, 0);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn only_copies_delivers_leaves_nothing_behind_and_ends() {
    for major in [13, 15, 18] {
        let db = Postgres::shared(major).await.database("only").await;
        items(&db, 20_000).await;
        let mut copying = Copying::of(&db, "public.items", "    snapshot: only");
        copying.daemon.spawn();
        db.wait_until(&format!(
            "SELECT count(*) = 1 FROM pg_replication_slots WHERE slot_name = '{}'",
            db.name()
        ))
        .await;
        assert_eq!(copying.daemon.exit_code().await, 0, "{}", copying.daemon.stderr());
        assert_eq!(left_behind(&db, db.name()).await, 0);
        copying.replica().expect_table(&db, "public.items").await;
        let before = copying.events().len();
        copying.daemon.spawn();
        assert_eq!(copying.daemon.exit_code().await, 0, "{}", copying.daemon.stderr());
        assert!(copying.daemon.stderr().contains("nothing"), "{}", copying.daemon.stderr());
        assert_eq!(copying.events().len(), before, "it copied again");
        assert_eq!(left_behind(&db, db.name()).await, 0);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn only_that_was_killed_goes_on_and_ends() {
    let db = Postgres::shared(15).await.database("only_killed").await;
    items(&db, 20_000).await;
    let mut copying = Copying::of(&db, "public.items", "    snapshot: only");
    copying.daemon.set_env("FOREBAY_STEP", "snapshot-stored:2");
    copying.daemon.spawn();
    copying.daemon.ended().await;
    assert!(
        copying.daemon.stderr().contains("step `snapshot-stored` reached"),
        "{}",
        copying.daemon.stderr()
    );
    copying.daemon.unset_env("FOREBAY_STEP");
    db.execute("UPDATE items SET version = 1 WHERE id % 3 = 0").await;
    copying.daemon.spawn();
    assert_eq!(copying.daemon.exit_code().await, 0, "{}", copying.daemon.stderr());
    copying.replica().expect_table(&db, "public.items").await;
    assert_eq!(left_behind(&db, db.name()).await, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_table_that_is_added_to_the_configuration_is_copied_alone() {
    for (major, kill) in [(13, false), (15, true), (18, false)] {
        let db = one_and_two(major, "added").await;
        let mut copying = Copying::of(&db, "public.one", "");
        copying.start().await;
        assert_eq!(copying.finished(&db).await.copied_events(), 2000);
        if kill {
            copying.daemon.kill().await;
        } else {
            assert_eq!(copying.daemon.stop().await, 0);
        }
        db.execute("UPDATE one SET version = 1 WHERE id <= 10; UPDATE two SET version = 1 WHERE id <= 10")
            .await;
        copying.set_tables("public.one, public.two");
        copying.start().await;
        db.execute("UPDATE two SET version = 2 WHERE id % 4 = 0").await;
        copying.copied_too("public.two").await;
        let replica = copying.finished(&db).await;
        replica.expect_table(&db, "public.one").await;
        replica.expect_table(&db, "public.two").await;
        assert_eq!(replica.copied_of("public.one"), 2000);
        let one = |event: &&Value| is_copied(event) && event["source"]["table"] == "one";
        assert_eq!(copying.events().iter().filter(one).count(), 2000, "what was copied is not copied again");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_table_that_was_taken_out_and_put_back_is_copied_anew_under_new_ids() {
    let db = one_and_two(15, "put_back").await;
    let mut copying = Copying::of(&db, "public.one, public.two", "");
    copying.start().await;
    copying.finished(&db).await;
    assert_eq!(copying.daemon.stop().await, 0);
    copying.set_tables("public.one");
    copying.start().await;
    copying.copied().await;
    db.execute("UPDATE two SET version = 1; INSERT INTO two VALUES (0, 1)").await;
    copying.caught_up(&db).await;
    assert_eq!(copying.daemon.stop().await, 0);
    copying.set_tables("public.one, public.two");
    copying.start().await;
    copying.wait_for(2 * 2000 + 2001, "the second copy", is_copied).await;
    copying.finished(&db).await.expect_table(&db, "public.two").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_table_that_is_created_later_and_matches_is_read_from_its_first_row() {
    for (major, mode) in [(15, "tables"), (15, "schemas"), (18, "all")] {
        let db = one_and_two(major, "created").await;
        let more = format!("    publication_mode: {mode}");
        let mut copying = Copying::of(&db, "\"public.*\"", &more);
        copying.start().await;
        copying.finished(&db).await;
        db.execute("CREATE TABLE three (id int PRIMARY KEY, version bigint); INSERT INTO three SELECT n, 0 FROM generate_series(1, 500) n").await;
        db.execute("UPDATE three SET version = 1 WHERE id % 2 = 0").await;
        if mode == "tables" {
            // The daemon puts it into the publication at its next start.
            assert_eq!(copying.daemon.stop().await, 0);
            copying.start().await;
            copying
                .wait_for(500, "the copy of the new table", |event| {
                    is_copied(event) && event["source"]["table"] == "three"
                })
                .await;
        }
        copying.finished(&db).await.expect_table(&db, "public.three").await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn when_needed_copies_everything_anew_where_changes_were_lost() {
    for (major, gap) in [(13, false), (15, false), (15, true), (18, false)] {
        eprintln!("PostgreSQL {major}, gap: {gap}");
        let db = one_and_two(major, "needed").await;
        let mut copying = Copying::of(&db, "\"public.*\"", "    snapshot: when_needed");
        copying.start().await;
        copying.finished(&db).await;
        assert_eq!(copying.daemon.stop().await, 0);
        let slot = db.name();
        if gap {
            db.execute("UPDATE one SET version = 1 WHERE id % 2 = 0; DELETE FROM two WHERE id > 1990").await;
            db.execute(&format!("SELECT pg_replication_slot_advance('{slot}', pg_current_wal_lsn())")).await;
        } else {
            db.execute(&format!("SELECT pg_drop_replication_slot('{slot}')")).await;
            db.execute("UPDATE one SET version = 1 WHERE id % 2 = 0; DELETE FROM two WHERE id > 1990").await;
        }
        copying.start().await;
        copying.wait_for(7990, "the second copy", is_copied).await;
        db.execute("UPDATE one SET version = 2 WHERE id % 3 = 0").await;
        let replica = copying.finished(&db).await;
        replica.expect_table(&db, "public.one").await;
        // What was deleted while nobody read the log is in no event: the copy only tells what is there.
        let two: Vec<i64> = copying
            .events()
            .iter()
            .filter(|event| is_copied(event) && event["source"]["table"] == "two")
            .map(|event| event["key"]["id"].as_i64().unwrap())
            .skip(2000)
            .collect();
        assert_eq!((two.len(), two.iter().max()), (1990, Some(&1990)));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn initial_refuses_where_changes_were_lost_and_begins_anew_when_it_is_told_to() {
    let db = one_and_two(15, "refused").await;
    let mut copying = Copying::of(&db, "\"public.*\"", "");
    copying.start().await;
    copying.finished(&db).await;
    assert_eq!(copying.daemon.stop().await, 0);
    db.execute(&format!("SELECT pg_drop_replication_slot('{}')", db.name())).await;
    db.execute("UPDATE one SET version = 1 WHERE id % 2 = 0").await;
    copying.daemon.spawn();
    assert_eq!(copying.daemon.exit_code().await, 69, "{}", copying.daemon.stderr());
    assert!(copying.daemon.stderr().contains("`forebay checkpoint reset`"), "{}", copying.daemon.stderr());
    let reset = copying.daemon.command(&["checkpoint", "reset", "db", "--yes", "-c", "forebay.yaml"]).await;
    assert!(reset.status.success(), "{}", String::from_utf8_lossy(&reset.stderr));
    copying.start().await;
    copying.wait_for(8000, "the second copy", is_copied).await;
    let replica = copying.finished(&db).await;
    replica.expect_table(&db, "public.one").await;
    replica.expect_table(&db, "public.two").await;
    assert_eq!(replica.copied_ids(), 8000, "rows that changed unseen come under new ids");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_copy_outlives_restarts_of_the_server() {
    let mut server = Postgres::start(15, &[]).await;
    let db = server.database("restarts").await;
    items(&db, 20_000).await;
    let mut copying = Copying::of(&db, "public.items", "");
    copying.start().await;
    for (stop, version) in [(Stop::Fast, 1), (Stop::Immediate, 2), (Stop::Kill, 3)] {
        copying.wait_for(1, "the first copied row", is_copied).await;
        server.restart(stop).await;
        db.execute(&format!("UPDATE items SET version = {version} WHERE id % 10 = {version}")).await;
    }
    copying.finished(&db).await.expect_table(&db, "public.items").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_table_that_takes_the_name_of_one_that_was_copied_is_copied_too() {
    let db = one_and_two(15, "namesakes").await;
    let mut copying = Copying::of(&db, "\"public.*\"", "");
    copying.start().await;
    assert_eq!(copying.finished(&db).await.copied_of("public.one"), 2000);
    let again = "DROP TABLE one; CREATE TABLE one (id int PRIMARY KEY, version bigint); INSERT INTO one VALUES (7, 1), (8, 1)";
    let other = |event: &Value| {
        is_copied(event) && event["source"]["table"] == "one" && event["payload"]["version"] == 1
    };
    // While nobody looks.
    assert_eq!(copying.daemon.stop().await, 0);
    db.execute(again).await;
    copying.start().await;
    copying.wait_for(2, "the other table is copied", other).await;
    copying.finished(&db).await;
    // While the daemon runs: whoever makes the table publishes it.
    db.execute(again).await;
    db.execute(&format!("ALTER PUBLICATION {} ADD TABLE one", db.name())).await;
    copying.wait_for(4, "the third one is copied", other).await;
    assert_eq!(copying.finished(&db).await.copied_of("public.two"), 2000, "nothing else is copied again");
}
