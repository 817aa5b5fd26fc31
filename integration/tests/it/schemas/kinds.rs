//! Tables of all kinds: the copy and the stream say the same of each, and both see what no relation message says.

use forebay_integration::{Database, Postgres};
use serde_json::{Value, json};

use super::{MAJORS, Reading};

/// Name, columns and what follows; each has `id`, and `note`, that may be null.
const TABLES: [(&str, &str); 9] = [
    ("plain", "CREATE TABLE plain (id int PRIMARY KEY, note text)"),
    ("covering", "CREATE TABLE covering (id int, note text, more int, PRIMARY KEY (id) INCLUDE (more))"),
    (
        "indexed",
        "CREATE TABLE indexed (note text, id int NOT NULL, other serial PRIMARY KEY); CREATE UNIQUE INDEX by_id ON indexed (id);
         ALTER TABLE indexed REPLICA IDENTITY USING INDEX by_id",
    ),
    ("whole", "CREATE TABLE whole (id int PRIMARY KEY, note text); ALTER TABLE whole REPLICA IDENTITY FULL"),
    (
        "deferred",
        "CREATE TABLE deferred (id int PRIMARY KEY DEFERRABLE, note text); ALTER TABLE deferred REPLICA IDENTITY FULL",
    ),
    (
        "generated",
        "CREATE TABLE generated (twice int GENERATED ALWAYS AS (id * 2) STORED, id int PRIMARY KEY, note text)",
    ),
    (
        "shrunk",
        "CREATE TABLE shrunk (gone int, id int PRIMARY KEY, note text, gone_too text); ALTER TABLE shrunk DROP gone, DROP gone_too",
    ),
    (
        "\"Od.d \"\"/ %\"",
        "CREATE TABLE \"Od.d \"\"/ %\" (id int PRIMARY KEY, note text, \"enum\" int, \"$id\" int, \"x\"\"y\" int)",
    ),
    (
        "parts",
        "CREATE TABLE parts (id int, note text, at int DEFAULT 1, PRIMARY KEY (id, at)) PARTITION BY RANGE (at);
         CREATE TABLE parts_1 (at int NOT NULL DEFAULT 1, note text, id int NOT NULL);
         ALTER TABLE parts ATTACH PARTITION parts_1 FOR VALUES FROM (1) TO (2)",
    ),
];

/// The events of a row with this `id` by table.
fn of_row(rows: &[Value], id: i64) -> Vec<(String, String, String)> {
    let text = |value: &Value| value.as_str().unwrap().to_owned();
    let of = rows.iter().filter(|event| event["payload"]["id"] == id);
    let mut found: Vec<_> =
        of.map(|event| (text(&event["name"]), text(&event["op"]), text(&event["version"]))).collect();
    found.sort();
    found
}

async fn insert(db: &Database, id: i64) {
    for (name, _) in TABLES {
        db.execute(&format!("INSERT INTO {name} (id, note) VALUES ({id}, 'x')")).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_copy_and_the_stream_say_the_same_of_tables_of_every_kind() {
    for (major, via_root) in MAJORS.into_iter().flat_map(|major| [(major, false), (major, true)]) {
        let db = Postgres::shared(major).await.database("kinds").await;
        for (_, statements) in TABLES {
            db.execute(statements).await;
        }
        insert(&db, 1).await;
        let more = format!("    publish_via_partition_root: {via_root}");
        let mut reading = Reading::of(&db, "\"public.*\"", &more);
        reading.start().await;
        insert(&db, 2).await;
        let judged = reading.judged(&db).await;
        let all = |id, op: &str, version: &str| {
            let found = of_row(&judged.rows, id);
            assert_eq!(found.len(), TABLES.len(), "PostgreSQL {major}: {found:?}");
            assert!(
                found.iter().all(|(_, of, is)| of == op && is == version),
                "PostgreSQL {major}: {found:?}"
            );
        };
        all(1, "snapshot", "1-0-0");
        all(2, "insert", "1-0-0");
        assert_eq!(judged.announced.len(), TABLES.len(), "{:?}", judged.announced);
        let parts = if via_root { "public.parts" } else { "public.parts_1" };
        assert_eq!(judged.schema(parts, "1-0-0")["x-pg-key"].as_array().unwrap().len(), 2);
        let key = |table: &str| judged.schema(table, "1-0-0")["x-pg-key"].clone();
        for table in ["plain", "covering", "indexed", "whole", "deferred"] {
            assert_eq!(key(&format!("public.{table}")), json!(["id"]), "{table} on PostgreSQL {major}");
        }
        assert!(judged.schema("public.generated", "1-0-0")["properties"].get("twice").is_none());

        // What only the catalogs say: if one were taken for an old part of the log, its version would stay.
        for (name, _) in TABLES {
            db.execute(&format!("ALTER TABLE {name} ALTER note SET NOT NULL")).await;
        }
        insert(&db, 3).await;
        let judged = reading.judged(&db).await;
        let found = of_row(&judged.rows, 3);
        assert!(found.iter().all(|(_, _, version)| version == "2-0-0"), "PostgreSQL {major}: {found:?}");

        // The same for the copy, which meets the change by itself.
        for (name, _) in TABLES {
            db.execute(&format!("ALTER TABLE {name} ALTER note TYPE varchar(30)")).await;
        }
        let copied = reading.daemon.command(&["snapshot", "-c", "forebay.yaml", "--table", "*"]).await;
        assert!(copied.status.success(), "{}", String::from_utf8_lossy(&copied.stderr));
        reading
            .daemon
            .wait_until("all is copied again", |status| {
                let tables = status["sources"][0]["snapshot"]["tables"].as_array().unwrap();
                tables.iter().all(|table| table["state"] == "done" && table["number"] == 2)
            })
            .await;
        let judged = reading.judged(&db).await;
        let again: Vec<&Value> = judged
            .rows
            .iter()
            .filter(|event| event["op"] == "snapshot" && event["version"] != "1-0-0")
            .collect();
        assert_eq!(again.len(), 3 * TABLES.len());
        assert!(again.iter().all(|event| event["version"] == "3-0-0"), "PostgreSQL {major}: {again:#?}");
        insert(&db, 4).await;
        let judged = reading.judged(&db).await;
        let found = of_row(&judged.rows, 4);
        assert!(found.iter().all(|(_, _, version)| version == "3-0-0"), "PostgreSQL {major}: {found:?}");
        assert_eq!(
            judged.announced.len(),
            3 * TABLES.len(),
            "each version is announced once: {:?}",
            judged.announced
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_list_of_columns_is_the_whole_table_for_its_readers() {
    for major in [15, 18] {
        let db = Postgres::shared(major).await.database("listed").await;
        let generated = if major >= 18 { ", twice" } else { "" };
        db.execute(&format!(
            "CREATE TABLE t (id int PRIMARY KEY, secret text NOT NULL DEFAULT 'x', note text, twice int GENERATED ALWAYS AS (id * 2) STORED);
             INSERT INTO t VALUES (1); CREATE PUBLICATION {} FOR TABLE t (id, note{generated})",
            db.name()
        ))
        .await;
        let mut reading = Reading::of(&db, "public.t", "    publication_mode: existing");
        reading.start().await;
        db.execute(
            "INSERT INTO t VALUES (2); ALTER TABLE t ALTER note SET DEFAULT ''; ALTER TABLE t ADD unseen int",
        )
        .await;
        db.execute("UPDATE t SET note = ''; ALTER TABLE t ALTER note SET NOT NULL; INSERT INTO t VALUES (3)")
            .await;
        let judged = reading.judged(&db).await;
        let columns: Vec<&String> =
            judged.schema("public.t", "1-0-0")["properties"].as_object().unwrap().keys().collect();
        assert_eq!(columns, if major >= 18 { vec!["id", "note", "twice"] } else { vec!["id", "note"] });
        assert_eq!(judged.announced_of("public.t"), ["1-0-0", "2-0-0"], "PostgreSQL {major}");
        assert_eq!(judged.versions()[&3], "2-0-0");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn large_values_that_did_not_change_may_be_absent_and_treated_columns_are_described_as_they_are() {
    for major in MAJORS {
        let db = Postgres::shared(major).await.database("absent").await;
        db.execute(
            "CREATE TABLE t (id int PRIMARY KEY, n int NOT NULL, body text NOT NULL, email text NOT NULL, password text NOT NULL);
             ALTER TABLE t ALTER body SET STORAGE EXTERNAL",
        )
        .await;
        let rules = "    columns: {exclude: [public.t.password], hash: [public.t.email], salt: pepper}";
        let mut reading = Reading::of(&db, "public.t", rules);
        reading.start().await;
        db.execute("INSERT INTO t VALUES (1, 1, repeat('x', 10000), 'a@b.c', 'secret'); UPDATE t SET n = 2")
            .await;
        let judged = reading.judged(&db).await;
        assert_eq!(judged.rows[1]["unchanged"], json!(["body"]));
        let schema = judged.schema("public.t", "1-0-0");
        assert_eq!(schema["required"], json!(["id", "n"]), "PostgreSQL {major}");
        assert_eq!(schema["properties"]["email"], json!({"type": "string", "pattern": "^[0-9a-f]{64}$"}));
        assert!(schema["properties"].get("password").is_none());
    }
}
