//! A table changes: which version comes of it, and from which row on.

use std::collections::BTreeMap;

use forebay_integration::{Database, Postgres};
use serde_json::{Value, json};

use super::{MAJORS, Reading};

/// A table in a database of its own, and a row in it.
async fn orders(major: u16) -> Database {
    let db = Postgres::shared(major).await.database("changes").await;
    db.execute(
        "CREATE TYPE mood AS ENUM ('sad', 'happy');
         CREATE TABLE orders (id int PRIMARY KEY, item varchar(10) NOT NULL, total numeric(10,2), mood mood);
         COMMENT ON COLUMN orders.item IS 'what was bought';
         INSERT INTO orders VALUES (1, 'cup', 1.10, 'sad')",
    )
    .await;
    db
}

#[tokio::test(flavor = "multi_thread")]
async fn the_schema_says_what_the_catalog_does() {
    for major in MAJORS {
        let db = orders(major).await;
        let mut reading = Reading::of(&db, "public.orders", "");
        reading.start().await;
        db.execute("INSERT INTO orders VALUES (2, 'plate', NULL, 'happy'); DELETE FROM orders WHERE id = 1")
            .await;
        let judged = reading.judged(&db).await;
        assert_eq!(judged.announced_of("public.orders"), ["1-0-0"], "PostgreSQL {major}");
        let ops: Vec<&Value> = judged.rows.iter().map(|event| &event["op"]).collect();
        assert_eq!(ops, ["snapshot", "insert", "delete"]);
        let integer =
            json!({"type": "integer", "minimum": i32::MIN, "maximum": i32::MAX, "x-pg-type": "integer"});
        let expected = json!({
            "$schema": "https://json-schema.org/draft/2020-12/schema",
            "$id": "/s/com.acme/public.orders/1-0-0",
            "title": "public.orders",
            "type": "object",
            "properties": {
                "id": integer,
                "item": {"type": "string", "maxLength": 10, "x-pg-type": "character varying(10)", "description": "what was bought"},
                "total": {
                    "anyOf": [{"type": "number"}, {"enum": ["NaN", "Infinity", "-Infinity"]}, {"type": "null"}],
                    "x-pg-type": "numeric(10,2)",
                },
                "mood": {"type": ["string", "null"], "enum": ["sad", "happy", null], "x-pg-type": "public.mood"},
            },
            "required": ["id"],
            "additionalProperties": false,
            "x-pg-key": ["id"],
        });
        assert_eq!(judged.schema("public.orders", "1-0-0"), &expected, "PostgreSQL {major}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn each_change_of_a_table_makes_the_version_that_its_kind_calls_for() {
    // What is done, and the version from then on.
    const STORY: [(&str, &str); 17] = [
        ("ALTER TABLE orders ADD note text", "1-0-1"),
        ("ALTER TABLE orders ALTER item TYPE varchar(20)", "1-1-0"),
        ("ALTER TABLE orders ALTER total TYPE numeric(12,2)", "1-2-0"),
        ("ALTER TYPE mood ADD VALUE 'torn' BEFORE 'happy'", "1-3-0"),
        ("ALTER TABLE orders ALTER item DROP NOT NULL", "1-4-0"),
        ("COMMENT ON TABLE orders IS 'all orders'", "1-4-1"),
        ("COMMENT ON COLUMN orders.total IS 'in euro'", "1-4-2"),
        (
            "UPDATE orders SET item = '' WHERE item IS NULL; ALTER TABLE orders ALTER item SET NOT NULL",
            "2-0-0",
        ),
        ("ALTER TABLE orders DROP note", "3-0-0"),
        ("ALTER TABLE orders RENAME item TO thing", "4-0-0"),
        ("ALTER TABLE orders ALTER id TYPE bigint", "4-1-0"),
        ("ALTER TABLE orders ALTER total TYPE text", "5-0-0"),
        ("ALTER TABLE orders ADD count int NOT NULL DEFAULT 1", "6-0-0"),
        ("ALTER TABLE orders ALTER thing TYPE varchar(5)", "7-0-0"),
        ("ALTER TABLE orders ALTER thing TYPE varchar(20)", "6-0-0"),
        ("ALTER TABLE orders ALTER total SET STORAGE PLAIN", "6-0-0"),
        ("ALTER TABLE orders DROP CONSTRAINT orders_pkey, ADD PRIMARY KEY (id, count)", "8-0-0"),
    ];
    for major in MAJORS {
        let db = orders(major).await;
        let mut reading = Reading::of(&db, "public.orders", "");
        reading.start().await;
        let mut expected = BTreeMap::from([(1, "1-0-0".to_owned())]);
        for (id, (change, version)) in (2..).zip(STORY) {
            // A comment says nothing to the stream by itself, so that it is seen when a relation is introduced again.
            let introduced =
                if change.starts_with("COMMENT") { "; ALTER TABLE orders SET (fillfactor = 90)" } else { "" };
            db.execute(&format!("{change}{introduced}")).await;
            let label = if version >= "1-3-0" { "torn" } else { "sad" };
            let set = format!("INSERT INTO orders (id, mood) VALUES ({id}, '{label}')");
            let item = if version < "4" { "item" } else { "thing" };
            let insert = set
                .replace("(id, mood)", &format!("(id, {item}, mood)"))
                .replace(&format!("({id}, "), &format!("({id}, 'x', "));
            db.execute(&insert).await;
            reading.row(id).await;
            expected.insert(id, version.to_owned());
        }
        let judged = reading.judged(&db).await;
        let mut found = judged.versions();
        // The row that was updated meanwhile has the version of then.
        found.insert(1, "1-0-0".to_owned());
        assert_eq!(found, expected, "PostgreSQL {major}");
        let mut versions: Vec<&str> = judged.announced_of("public.orders");
        let count = versions.len();
        versions.dedup();
        versions.sort_unstable();
        versions.dedup();
        assert_eq!(versions.len(), count, "each version comes once: {versions:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn rows_on_both_sides_of_a_change_in_one_transaction_have_each_their_own_version() {
    for major in MAJORS {
        let db = orders(major).await;
        let mut reading = Reading::of(&db, "public.orders", "");
        reading.start().await;
        db.execute(
            "BEGIN;
             INSERT INTO orders VALUES (2, 'a');
             ALTER TABLE orders ADD note text;
             INSERT INTO orders VALUES (3, 'b', 1, 'sad', 'new');
             ALTER TABLE orders DROP total;
             INSERT INTO orders VALUES (4, 'c', 'sad', 'newer');
             SAVEPOINT s;
             ALTER TABLE orders DROP note;
             INSERT INTO orders VALUES (5, 'never', 'sad');
             ROLLBACK TO s;
             INSERT INTO orders VALUES (6, 'd', 'sad', 'as before');
             ALTER TABLE orders ADD total numeric(10,2);
             INSERT INTO orders VALUES (7, 'e', 'sad', 'again', 2);
             COMMIT",
        )
        .await;
        let judged = reading.judged(&db).await;
        let versions: Vec<(i64, String)> = judged.versions().into_iter().collect();
        let shapes: Vec<Vec<&String>> =
            judged.rows.iter().map(|event| event["payload"].as_object().unwrap().keys().collect()).collect();
        assert_eq!(versions.iter().map(|(id, _)| *id).collect::<Vec<_>>(), [1, 2, 3, 4, 6, 7]);
        let version = |id: i64| &versions.iter().find(|(of, _)| *of == id).unwrap().1;
        assert_eq!(version(1), version(2));
        assert_eq!(version(4), version(6), "what was rolled back is no change");
        assert_eq!(version(3), version(7), "the order of columns is none either: {shapes:?}");
        assert!(version(2) != version(3) && version(3) != version(4), "{versions:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_label_or_a_null_that_comes_without_a_word_in_the_stream_finds_a_schema_that_allows_it() {
    for major in MAJORS {
        let db = orders(major).await;
        db.execute(
            "CREATE DOMAIN feeling AS mood;
             CREATE TYPE pair AS (one mood, other feeling);
             CREATE TABLE deep (id int PRIMARY KEY, moods mood[], pair pair, pairs pair[])",
        )
        .await;
        let mut reading = Reading::of(&db, "public.orders, public.deep", "");
        reading.start().await;
        db.execute(
            "INSERT INTO deep VALUES (10, '{sad}', ROW('sad', 'happy'), ARRAY[ROW('sad', NULL)::pair])",
        )
        .await;
        reading.row(10).await;
        db.execute("ALTER TYPE mood ADD VALUE 'torn'").await;
        db.execute(
            "BEGIN; INSERT INTO orders VALUES (2, 'a', 1, 'torn'), (3, 'b', 1, 'sad');
             INSERT INTO deep VALUES (11, '{sad,torn}', NULL, NULL), (12, NULL, ROW('sad', 'torn'), NULL),
                 (13, NULL, NULL, ARRAY[NULL, ROW('torn', 'torn')::pair]); COMMIT",
        )
        .await;
        let judged = reading.judged(&db).await;
        let versions = judged.versions();
        assert_eq!([2, 3].map(|id| versions[&id].as_str()), ["1-1-0", "1-1-0"], "PostgreSQL {major}");
        assert_eq!([10, 11, 12, 13].map(|id| versions[&id].as_str()), ["1-0-0", "1-1-0", "1-1-0", "1-1-0"]);
        // The label is renamed while the daemon is away: it reads rows with a label that no catalog knows any more.
        assert_eq!(reading.daemon.stop().await, 0);
        db.execute("ALTER TYPE mood ADD VALUE 'fleeting'").await;
        db.execute("INSERT INTO orders VALUES (4, 'c', 1, 'fleeting')").await;
        db.execute("ALTER TYPE mood RENAME VALUE 'fleeting' TO 'lasting'").await;
        db.execute("INSERT INTO orders VALUES (5, 'd', 1, 'lasting')").await;
        db.execute("ALTER TABLE orders ALTER item DROP NOT NULL").await;
        db.execute("INSERT INTO orders VALUES (6, NULL, 1, 'sad'); UPDATE orders SET item = '' WHERE id = 6")
            .await;
        db.execute("ALTER TABLE orders ALTER item SET NOT NULL").await;
        db.execute("INSERT INTO orders VALUES (7, 'e', 1, 'sad')").await;
        reading.start().await;
        reading.row(7).await;
        let judged = reading.judged(&db).await;
        let moods: Vec<&Value> = judged.rows.iter().map(|event| &event["payload"]["mood"]).collect();
        assert!(moods.contains(&&json!("fleeting")) && moods.contains(&&json!("lasting")), "{moods:?}");
        let nulls = judged.rows.iter().filter(|event| event["payload"].get("item") == Some(&Value::Null));
        assert_eq!(nulls.count(), 1);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_table_that_is_dropped_and_made_again_goes_on_with_its_versions() {
    for major in MAJORS {
        let db = orders(major).await;
        let mut reading = Reading::of(&db, "\"public.*\"", "");
        reading.start().await;
        for id in [10, 11] {
            db.execute(
                "DROP TABLE orders; DROP TYPE mood; CREATE TYPE mood AS ENUM ('sad', 'happy');
                 CREATE TABLE orders (id int PRIMARY KEY, item varchar(10) NOT NULL, total numeric(10,2), mood mood);
                 COMMENT ON COLUMN orders.item IS 'what was bought'",
            )
            .await;
            publish(&db, "orders").await;
            db.execute(&format!("INSERT INTO orders VALUES ({id}, 'cup', 1, 'happy')")).await;
            reading.row(id).await;
        }
        db.execute("DROP TABLE orders; CREATE TABLE orders (id int PRIMARY KEY, other text)").await;
        publish(&db, "orders").await;
        db.execute("INSERT INTO orders VALUES (12, 'x')").await;
        reading.row(12).await;
        db.execute("ALTER TABLE orders RENAME TO invoices; INSERT INTO invoices VALUES (13, 'y')").await;
        reading.row(13).await;
        let judged = reading.judged(&db).await;
        let versions = judged.versions();
        let found = [1, 10, 11, 12, 13].map(|id| versions[&id].as_str());
        assert_eq!(found, ["1-0-0", "1-0-0", "1-0-0", "2-0-0", "1-0-0"], "PostgreSQL {major}");
        assert_eq!(judged.rows.last().unwrap()["schema"], "com.acme/public.invoices/1-0-0");
    }
}

/// A table that is made while the daemon runs is in no publication yet.
async fn publish(db: &Database, table: &str) {
    db.execute(&format!("ALTER PUBLICATION {} ADD TABLE {table}", db.name())).await;
}
