//! Tables of every shape: empty, bloated, with values of 20 MB, and such that change theirs before and meanwhile.

use forebay_integration::{Database, Postgres, Proxy};

use super::{Copying, is_copied, is_over, items};

/// A copy of `items` on a slow line that has just begun.
async fn begun_slowly(server: &Postgres, db: &Database, tables: &str) -> (Proxy, Copying) {
    let (line, mut copying) = Copying::slowly(server, db, tables, "").await;
    copying.start().await;
    copying.wait_for(1, "the first copied row", is_copied).await;
    (line, copying)
}

#[tokio::test(flavor = "multi_thread")]
async fn empty_small_bloated_and_generated_tables_are_copied_as_they_are() {
    for major in [13, 15, 18] {
        eprintln!("PostgreSQL {major}");
        let db = Postgres::shared(major).await.database("shapes").await;
        db.execute(
            "CREATE TABLE empty (id int PRIMARY KEY, version bigint);
             CREATE TABLE single (id int PRIMARY KEY, version bigint); INSERT INTO single VALUES (7, 0);
             CREATE TABLE bloated (id int PRIMARY KEY, version bigint, body text);
             INSERT INTO bloated SELECT n, 0, repeat('b', 200) FROM generate_series(1, 20000) n;
             DELETE FROM bloated WHERE id % 10 <> 0;
             CREATE TABLE computed (id int PRIMARY KEY, version bigint, twice int GENERATED ALWAYS AS (id * 2) STORED, raw bytea, flag bool);
             INSERT INTO computed (id, version, raw, flag) SELECT n, 0, decode(md5(n::text), 'hex'), n % 2 = 0 FROM generate_series(1, 100) n;
             CREATE TABLE holes (gone int, id int PRIMARY KEY, too int, version bigint, also text, last text DEFAULT 'l');
             ALTER TABLE holes DROP gone, DROP too, DROP also;
             INSERT INTO holes SELECT n, 0 FROM generate_series(1, 100) n;
             ALTER TABLE holes ADD later int DEFAULT 5",
        )
        .await;
        let mut copying = Copying::of(&db, "\"public.*\"", "");
        copying.start().await;
        let replica = copying.finished(&db).await;
        for (table, rows) in
            [("empty", 0), ("single", 1), ("bloated", 2000), ("computed", 100), ("holes", 100)]
        {
            let table = format!("public.{table}");
            replica.expect_table(&db, &table).await;
            assert_eq!(replica.copied_of(&table), rows, "{table} on PostgreSQL {major}");
        }
        db.execute(
            "UPDATE computed SET version = 1; UPDATE holes SET version = 1; INSERT INTO empty VALUES (1, 0)",
        )
        .await;
        let replica = copying.finished(&db).await;
        for table in ["public.empty", "public.computed", "public.holes"] {
            replica.expect_table(&db, table).await;
        }
        let one_shape = |event: &&serde_json::Value| event["source"]["table"] == "computed";
        let events = copying.events();
        let mut shapes = events
            .iter()
            .filter(one_shape)
            .filter(|event| event["op"] != "schema")
            .map(|event| event["payload"].as_object().unwrap().keys().cloned().collect::<Vec<_>>());
        let first = shapes.next().unwrap();
        assert!(
            shapes.all(|shape| shape == first),
            "the copy and the stream have the same columns in the same order"
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn values_of_twenty_megabytes_are_copied_within_the_memory_limit() {
    let db = Postgres::shared(15).await.database("large").await;
    db.execute(
        "CREATE TABLE large (id int PRIMARY KEY, version bigint, body text, raw bytea); ALTER TABLE large ALTER body SET STORAGE EXTERNAL;
         INSERT INTO large SELECT n, 0, repeat(md5(n::text), 20 * 1024 * 1024 / 32), NULL FROM generate_series(1, 4) n;
         INSERT INTO large SELECT n, 0, NULL, decode(repeat(md5(n::text), 20 * 1024 * 1024 / 32), 'hex') FROM generate_series(5, 6) n;
         INSERT INTO large SELECT n, 0, 'small', '' FROM generate_series(7, 1000) n",
    )
    .await;
    let mut copying = Copying::of(&db, "public.large", "");
    let config = std::fs::read_to_string(copying.daemon.path("forebay.yaml")).unwrap();
    copying.daemon.configure(&(config + "limits: {memory: 64MiB}\n"));
    copying.start().await;
    // The large values stay what they were and are not in these events.
    db.execute("UPDATE large SET version = 1 WHERE id < 10").await;
    let replica = copying.finished(&db).await;
    replica.expect_table(&db, "public.large").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_column_that_comes_or_goes_while_the_table_is_copied_is_told_right_in_the_end() {
    for (major, change, after) in [
        (
            15,
            "ALTER TABLE items ADD extra text DEFAULT 'none'",
            "UPDATE items SET version = 1, extra = 'set'",
        ),
        (
            18,
            "ALTER TABLE items ADD extra text DEFAULT 'none'",
            "UPDATE items SET version = 1, extra = 'set'",
        ),
        (15, "ALTER TABLE items DROP label", "UPDATE items SET version = 1"),
        (18, "ALTER TABLE items DROP label", "UPDATE items SET version = 1"),
        (15, "ALTER TABLE items RENAME label TO title", "UPDATE items SET version = 1"),
        (15, "ALTER TABLE items ALTER version TYPE numeric(20, 2)", "UPDATE items SET version = 1"),
        (15, "ALTER TABLE items ALTER id TYPE bigint", "UPDATE items SET version = 1"),
        (
            15,
            "ALTER TABLE items DROP CONSTRAINT items_pkey, ADD PRIMARY KEY (version, id)",
            "UPDATE items SET label = 'same key'",
        ),
    ] {
        eprintln!("PostgreSQL {major}: {change}");
        let server = Postgres::shared(major).await;
        let db = server.database("reshaped").await;
        items(&db, 20_000).await;
        let (line, mut copying) = begun_slowly(server, &db, "public.items").await;
        db.execute(change).await;
        assert!(!is_over(&copying.daemon.status().await), "it was over before");
        line.limit(None);
        copying.copied().await;
        // Rows that were copied in the old shape are the reader's to change as the table was; these are all new.
        db.execute(after).await;
        copying.caught_up(&db).await;
        last_of_each_key(&copying, &db).await;
    }
}

/// The last event of each row has just the columns that the table has now, and what they hold.
async fn last_of_each_key(copying: &Copying, db: &Database) {
    let mut last = std::collections::HashMap::new();
    for event in copying.events().into_iter().filter(|event| event["op"] != "schema") {
        last.insert(event["payload"]["id"].to_string(), event);
    }
    let columns: Vec<String> = (db.query("SELECT attname::text FROM pg_attribute WHERE attrelid = 'items'::regclass AND attnum > 0 AND NOT attisdropped ORDER BY attnum", &[]).await)
        .iter()
        .map(|row| row.get(0))
        .collect();
    assert_eq!(last.len(), 20_000);
    for event in last.values() {
        let told = event["payload"].as_object().unwrap().keys();
        let unchanged =
            event.get("unchanged").and_then(|names| names.as_array().cloned()).unwrap_or_default();
        let all: std::collections::BTreeSet<String> =
            told.cloned().chain(unchanged.iter().map(|name| name.as_str().unwrap().to_owned())).collect();
        assert_eq!(all, columns.iter().cloned().collect(), "{event}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_table_that_was_reshaped_before_the_start_is_copied_in_its_last_shape() {
    for major in [13, 15, 18] {
        let db = Postgres::shared(major).await.database("before").await;
        items(&db, 1000).await;
        db.execute(
            "ALTER TABLE items ADD extra int DEFAULT 7; ALTER TABLE items DROP label;
             ALTER TABLE items RENAME body TO text; ALTER TABLE items ALTER version TYPE numeric",
        )
        .await;
        let mut copying = Copying::of(&db, "public.items", "");
        copying.start().await;
        copying.finished(&db).await.expect_table(&db, "public.items").await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_table_that_is_dropped_while_it_is_copied_keeps_nobody_waiting() {
    for again in [false, true] {
        let server = Postgres::shared(15).await;
        let db = server.database("dropped").await;
        items(&db, 20_000).await;
        db.execute("CREATE TABLE other (id int PRIMARY KEY, version bigint); INSERT INTO other SELECT n, 0 FROM generate_series(1, 5000) n").await;
        let (line, mut copying) = begun_slowly(server, &db, "public.items, public.other").await;
        db.execute("DROP TABLE items").await;
        if again {
            items(&db, 100).await;
        }
        line.limit(None);
        let replica = copying.finished(&db).await;
        replica.expect_table(&db, "public.other").await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_table_that_is_rewritten_while_it_is_copied_loses_nothing() {
    for rewrite in ["VACUUM FULL items", "CLUSTER items USING items_pkey", "REINDEX TABLE items"] {
        let server = Postgres::shared(15).await;
        let db = server.database("rewritten").await;
        items(&db, 20_000).await;
        db.execute("DELETE FROM items WHERE id % 3 = 0").await;
        let (line, mut copying) = begun_slowly(server, &db, "public.items").await;
        db.execute(rewrite).await;
        line.limit(None);
        copying.finished(&db).await.expect_table(&db, "public.items").await;
    }
}
