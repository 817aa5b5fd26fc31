//! Partitioned tables, read as their partitions or as one, while partitions come and go.

use forebay_integration::{Database, Postgres, Replica};

use super::{Copying, is_copied};

const ROWS: u32 = 6_000;

/// A table with a range partition, one that is itself partitioned by list, and a default; `others` has a row of its own
/// to be attached.
async fn parts(db: &Database) {
    db.execute(&format!(
        "CREATE TABLE parts (id int, version bigint, kind int, PRIMARY KEY (id, kind)) PARTITION BY RANGE (kind);
         CREATE TABLE parts_0 PARTITION OF parts FOR VALUES FROM (0) TO (1);
         CREATE TABLE parts_1 PARTITION OF parts FOR VALUES FROM (1) TO (3) PARTITION BY LIST (kind);
         CREATE TABLE parts_1_1 PARTITION OF parts_1 FOR VALUES IN (1);
         CREATE TABLE parts_1_2 PARTITION OF parts_1 FOR VALUES IN (2);
         CREATE TABLE parts_rest PARTITION OF parts DEFAULT;
         INSERT INTO parts SELECT n, 0, n % 4 FROM generate_series(1, {ROWS}) n;
         CREATE TABLE others (note text, kind int NOT NULL, id int NOT NULL, version bigint, PRIMARY KEY (id, kind));
         ALTER TABLE others DROP note;
         INSERT INTO others SELECT 10, n, 0 FROM generate_series(1, 500) n"
    ))
    .await;
}

const LEAVES: [&str; 4] = ["parts_0", "parts_1_1", "parts_1_2", "parts_rest"];

async fn expect(replica: &Replica, db: &Database, via_root: bool, leaves: &[&str]) {
    if via_root {
        replica.expect_table(db, "public.parts").await;
    } else {
        for leaf in leaves {
            replica.expect_table(db, &format!("public.{leaf}")).await;
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn partitions_are_copied_under_the_names_that_their_changes_have() {
    for (major, via_root) in [(13, true), (13, false), (15, true), (15, false), (18, true), (18, false)] {
        eprintln!("PostgreSQL {major}, via root: {via_root}");
        let db = Postgres::shared(major).await.database("parts").await;
        parts(&db).await;
        let mut copying =
            Copying::of(&db, "public.parts", &format!("    publish_via_partition_root: {via_root}"));
        copying.start().await;
        // Rows move between partitions while they are copied.
        db.execute("UPDATE parts SET kind = (kind + 1) % 4, version = 1 WHERE id % 5 = 0").await;
        db.execute("DELETE FROM parts WHERE id % 50 = 1; UPDATE parts SET version = 2 WHERE id % 7 = 0")
            .await;
        let replica = copying.finished(&db).await;
        expect(&replica, &db, via_root, &LEAVES).await;
        let copied = if via_root {
            replica.copied_of("public.parts")
        } else {
            LEAVES.iter().map(|leaf| replica.copied_of(&format!("public.{leaf}"))).sum()
        };
        assert!(copied >= u64::from(ROWS) / 2, "{copied} rows were copied");
        assert_eq!(replica.copied_of("public.parts") > 0, via_root);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_partition_that_is_attached_or_detached_meanwhile_loses_no_row_that_stays() {
    for (major, via_root) in [(15, true), (15, false), (18, true), (18, false)] {
        eprintln!("PostgreSQL {major}, via root: {via_root}");
        let db = Postgres::shared(major).await.database("attached").await;
        parts(&db).await;
        let mut copying =
            Copying::of(&db, "public.parts", &format!("    publish_via_partition_root: {via_root}"));
        copying.start().await;
        copying.wait_for(1, "the first copied row", is_copied).await;
        db.execute("ALTER TABLE parts DETACH PARTITION parts_0; CREATE TABLE parts_5 PARTITION OF parts FOR VALUES FROM (5) TO (6)").await;
        db.execute(
            "INSERT INTO parts SELECT n, 0, 5 FROM generate_series(1, 300) n; UPDATE parts_0 SET version = 9",
        )
        .await;
        db.execute("ALTER TABLE parts ATTACH PARTITION others FOR VALUES FROM (10) TO (11)").await;
        db.execute("UPDATE others SET version = 1").await;
        let replica = copying.finished(&db).await;
        replica.expect_sound();
        if via_root {
            // What was detached is no part of the table any more, and no event says so.
            let events = copying.events();
            let told: std::collections::BTreeSet<String> = (events.iter())
                .filter(|event| event["source"]["table"] == "parts")
                .map(|event| format!("{}/{}", event["key"]["id"], event["key"]["kind"]))
                .collect();
            let rows = db.query("SELECT id || '/' || kind FROM parts", &[]).await;
            let missing: Vec<String> =
                rows.iter().map(|row| row.get(0)).filter(|row| !told.contains(row)).collect();
            assert!(missing.is_empty(), "{} rows never came, such as {:?}", missing.len(), &missing[..1]);
        } else {
            expect(&replica, &db, false, &["parts_1_1", "parts_1_2", "parts_rest", "parts_5", "others"])
                .await;
        }
    }
}

/// One statement fills them all, so that rows in the same places of their files were written by one transaction.
#[tokio::test(flavor = "multi_thread")]
async fn rows_without_a_key_in_several_partitions_have_each_an_id_of_its_own() {
    for major in [13, 18] {
        let db = Postgres::shared(major).await.database("places").await;
        db.execute(
            "CREATE TABLE logs (kind int, line text) PARTITION BY LIST (kind);
             CREATE TABLE logs_0 PARTITION OF logs FOR VALUES IN (0);
             CREATE TABLE logs_1 PARTITION OF logs FOR VALUES IN (1);
             INSERT INTO logs SELECT n % 2, n::text FROM generate_series(1, 400) n",
        )
        .await;
        let more = "    keyless: insert_only\n    publish_via_partition_root: true";
        let mut copying = Copying::of(&db, "public.logs", more);
        copying.start().await;
        copying.finished(&db).await;
        let copied: Vec<_> = copying.events().into_iter().filter(is_copied).collect();
        let ids: std::collections::BTreeSet<&str> =
            copied.iter().map(|event| event["id"].as_str().unwrap()).collect();
        let lines: std::collections::BTreeSet<&str> =
            copied.iter().map(|event| event["payload"]["line"].as_str().unwrap()).collect();
        assert_eq!((ids.len(), lines.len()), (400, 400), "PostgreSQL {major}");
    }
}
