//! Whatever the key is: chunks meet without a gap, and a change finds the copied row that it is about.

use forebay_integration::{Database, Postgres};

use super::Copying;

/// One table: its name in the events, and the statements that make it and fill it with `{n}` rows of version 0.
struct Kind {
    name: &'static str,
    sql: &'static str,
}

/// Several chunks of each.
const ROWS: u32 = 3_000;

const KINDS: [Kind; 15] = [
    Kind {
        name: "public.composite",
        sql: "CREATE TABLE composite (version bigint, a int, c text, b text, PRIMARY KEY (b, a));
              INSERT INTO composite SELECT 0, n % 7, 'c' || n, (n / 7)::text FROM generate_series(1, {n}) n",
    },
    Kind {
        name: "public.uuids",
        sql: "CREATE TABLE uuids (id uuid PRIMARY KEY, version bigint);
              INSERT INTO uuids SELECT md5(n::text)::uuid, 0 FROM generate_series(1, {n}) n",
    },
    Kind {
        name: "public.enums",
        sql: "CREATE TYPE letter AS ENUM ('z', 'B', 'a', 'with '' quote', 'back\\slash');
              CREATE TABLE enums (id letter, n int, version bigint, PRIMARY KEY (id, n));
              INSERT INTO enums SELECT (enum_range(NULL::letter))[1 + n % 5], n, 0 FROM generate_series(1, {n}) n",
    },
    Kind {
        name: "public.numerics",
        sql: "CREATE TABLE numerics (id numeric PRIMARY KEY, version bigint);
              INSERT INTO numerics SELECT (n - 1500) * 1000000000000000000.000000000000000001, 0 FROM generate_series(1, {n}) n;
              INSERT INTO numerics VALUES ('NaN', 0), (1.50, 0), (1e-20, 0), (-1e131, 0), (1e131, 0)",
    },
    Kind {
        name: "public.collated",
        sql: "CREATE COLLATION natural_order (provider = icu, locale = 'de-u-kn-true');
              CREATE TABLE collated (id text COLLATE natural_order PRIMARY KEY, version bigint);
              INSERT INTO collated SELECT (ARRAY['a', 'B', 'ä', 'Z', 'ß', 'É', '鍵', '', ' ', '-'])[1 + n % 10] || n, 0 FROM generate_series(1, {n}) n",
    },
    Kind {
        name: "public.folded",
        sql: "CREATE COLLATION any_case (provider = icu, locale = 'und-u-ks-level2', deterministic = false);
              CREATE TABLE folded (id text COLLATE any_case PRIMARY KEY, version bigint);
              INSERT INTO folded SELECT (ARRAY['a', 'B', 'c', 'D'])[1 + n % 4] || n, 0 FROM generate_series(1, {n}) n",
    },
    Kind {
        name: "public.texts",
        sql: "CREATE TABLE texts (id text PRIMARY KEY, version bigint);
              INSERT INTO texts SELECT (ARRAY[E'\\\\', E'\\t', E'\\n', '''', '\"', '$1', '{}', '\\.', '%', E'\\u001b', '🜲', 'NULL'])[1 + n % 12] || n, 0 FROM generate_series(1, {n}) n;
              INSERT INTO texts VALUES ('', 0), ('\\N', 0), (repeat('k', 2000), 0)",
    },
    Kind {
        name: "public.padded",
        sql: "CREATE TABLE padded (id char(9), kind varchar(3), version bigint, PRIMARY KEY (id, kind));
              INSERT INTO padded SELECT n::text, (n % 3)::text, 0 FROM generate_series(1, {n}) n",
    },
    // Keys that begin alike: who compares with the first letter or bit only comes to no end.
    Kind {
        name: "public.alike",
        sql: "CREATE TABLE alike (id char(9) PRIMARY KEY, version bigint);
              INSERT INTO alike SELECT 'k' || lpad(n::text, 7, '0'), 0 FROM generate_series(1, {n}) n",
    },
    Kind {
        name: "public.bits",
        sql: "CREATE TABLE bits (id bit(16) PRIMARY KEY, version bigint);
              INSERT INTO bits SELECT (n + 32768)::bit(16), 0 FROM generate_series(1, {n}) n",
    },
    Kind {
        name: "public.extremes",
        sql: "CREATE TABLE extremes (id bigint PRIMARY KEY, version bigint);
              INSERT INTO extremes SELECT CASE n % 3 WHEN 0 THEN 9223372036854775807 - n WHEN 1 THEN -9223372036854775808 + n - 1 ELSE n END, 0 FROM generate_series(1, {n}) n",
    },
    Kind {
        name: "public.by_index",
        sql: "CREATE TABLE by_index (version bigint, code text NOT NULL, part int NOT NULL);
              CREATE UNIQUE INDEX by_index_key ON by_index (part, code); ALTER TABLE by_index REPLICA IDENTITY USING INDEX by_index_key;
              INSERT INTO by_index SELECT 0, 'c' || n, n % 11 FROM generate_series(1, {n}) n",
    },
    Kind {
        name: "public.index_beside_key",
        sql: "CREATE TABLE index_beside_key (id int PRIMARY KEY, version bigint, code text NOT NULL UNIQUE);
              ALTER TABLE index_beside_key REPLICA IDENTITY USING INDEX index_beside_key_code_key;
              INSERT INTO index_beside_key SELECT n, 0, 'c' || n FROM generate_series(1, {n}) n",
    },
    Kind {
        name: "public.whole",
        sql: "CREATE TABLE whole (id int PRIMARY KEY, version bigint, body text); ALTER TABLE whole REPLICA IDENTITY FULL;
              INSERT INTO whole SELECT n, 0, 'b' || n FROM generate_series(1, {n}) n",
    },
    Kind {
        name: "public.domains",
        sql: "CREATE DOMAIN positive AS int CHECK (VALUE > 0); CREATE DOMAIN small AS positive CHECK (VALUE < 100000);
              CREATE TABLE domains (id small PRIMARY KEY, version bigint);
              INSERT INTO domains SELECT n, 0 FROM generate_series(1, {n}) n",
    },
];

/// Makes them all.
async fn all_kinds(db: &Database) {
    for Kind { sql, .. } in &KINDS {
        db.execute(&sql.replace("{n}", &ROWS.to_string())).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn rows_with_every_kind_of_key_are_copied_once_and_found_by_their_changes() {
    for major in [13, 15, 17, 18] {
        eprintln!("PostgreSQL {major}");
        let db = Postgres::shared(major).await.database("keys").await;
        all_kinds(&db).await;
        let mut copying = Copying::of(&db, "\"public.*\"", "    snapshot_parallel: 4");
        copying.start().await;
        let replica = copying.finished(&db).await;
        for Kind { name, .. } in &KINDS {
            replica.expect_table(&db, name).await;
            let rows: i64 = db.value(&format!("SELECT count(*) FROM {name}")).await;
            assert_eq!(replica.copied_of(name), u64::try_from(rows).unwrap(), "{name} on PostgreSQL {major}");
        }
        assert_eq!(replica.copied_events(), replica.copied_ids(), "each row came once");
        for Kind { name, .. } in &KINDS {
            db.execute(&format!("DELETE FROM {name} WHERE ctid IN (SELECT ctid FROM {name} LIMIT 100); UPDATE {name} SET version = 1")).await;
        }
        // A change that is keyed in another way than the copied row would leave that one behind.
        let replica = copying.finished(&db).await;
        for Kind { name, .. } in &KINDS {
            replica.expect_table(&db, name).await;
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn rows_with_every_kind_of_key_keep_what_is_written_to_them_meanwhile() {
    let db = Postgres::shared(15).await.database("keyed_writes").await;
    all_kinds(&db).await;
    let mut copying = Copying::of(&db, "\"public.*\"", "");
    copying.start().await;
    for version in 1..=5 {
        for Kind { name, .. } in &KINDS {
            db.execute(&format!(
                "DELETE FROM {name} WHERE ctid IN (SELECT ctid FROM {name} TABLESAMPLE BERNOULLI (3));
                 UPDATE {name} SET version = {version} WHERE ctid IN (SELECT ctid FROM {name} TABLESAMPLE BERNOULLI (20))"
            ))
            .await;
        }
    }
    let replica = copying.finished(&db).await;
    for Kind { name, .. } in &KINDS {
        replica.expect_table(&db, name).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn keys_that_are_equal_and_look_different_are_the_same_row() {
    let db = Postgres::shared(15).await.database("alike").await;
    all_kinds(&db).await;
    let mut copying = Copying::of(&db, "public.folded, public.numerics", "    snapshot: never");
    copying.start().await;
    copying.command(&["--source", "db", "--table", "public.folded"]).await;
    copying.command(&["--source", "db", "--table", "public.numerics"]).await;
    // The same key for the index, another text: in the log it is a change of the key.
    db.execute(
        "UPDATE folded SET id = upper(id), version = 1; UPDATE numerics SET id = id * 1.00, version = 1",
    )
    .await;
    let replica = copying.finished(&db).await;
    replica.expect_table(&db, "public.folded").await;
    replica.expect_table(&db, "public.numerics").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_table_without_a_key_is_copied_at_least_once_whatever_moves_its_rows() {
    for major in [13, 15, 18] {
        eprintln!("PostgreSQL {major}");
        let db = Postgres::shared(major).await.database("keyless").await;
        let rows = 20_000;
        db.execute(&format!(
            "CREATE TABLE log (line int, version bigint, body text); ALTER TABLE log REPLICA IDENTITY FULL;
             CREATE TABLE inserts (line int, version bigint, body text);
             INSERT INTO log SELECT n, 0, repeat('l', 100) FROM generate_series(1, {rows}) n; INSERT INTO inserts TABLE log"
        ))
        .await;
        let mut copying = Copying::of(&db, "\"public.*\"", "    keyless: insert_only");
        copying.start().await;
        // Rows of `log` move to other pages, and then to another file; `inserts` only grows.
        db.execute("INSERT INTO inserts SELECT n, 1, 'new' FROM generate_series(1, 500) n").await;
        for version in 1..=3 {
            db.execute(&format!("UPDATE log SET version = {version} WHERE line % 7 = {version}")).await;
        }
        db.execute("VACUUM FULL log").await;
        let replica = copying.finished(&db).await;
        replica.expect_sound();
        replica.expect_table(&db, "public.inserts").await;
        let told: std::collections::BTreeSet<String> = copying
            .events()
            .iter()
            .filter(|event| event["source"]["table"] == "log" && !event["payload"].is_null())
            .map(|event| format!("{}/{}", event["payload"]["line"], event["payload"]["version"]))
            .collect();
        let rows = db.query("SELECT line || '/' || version FROM log", &[]).await;
        let missing: Vec<String> =
            rows.iter().map(|row| row.get(0)).filter(|row| !told.contains(row)).collect();
        assert!(missing.is_empty(), "{} rows never came, such as {:?}", missing.len(), &missing[..1]);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn names_of_every_kind_are_copied() {
    let db = Postgres::shared(15).await.database("names").await;
    let long = "ü".repeat(30);
    let names = [
        "UPPER",
        "with space",
        "a.b",
        "quote\"d",
        "größe",
        "鍵🜲",
        "select",
        &long,
        "back\\slash",
        "per%cent",
        "it's",
    ];
    for name in names {
        let quoted = name.replace('"', "\"\"");
        db.execute(&format!(
            "CREATE SCHEMA \"s {quoted}\"; CREATE TABLE \"s {quoted}\".\"{quoted}\" (\"{quoted}\" int PRIMARY KEY, version bigint, \"v {quoted}\" text);
             INSERT INTO \"s {quoted}\".\"{quoted}\" SELECT n, 0, 'x' FROM generate_series(1, 500) n"
        ))
        .await;
    }
    let mut copying = Copying::of(&db, "\"s *.*\"", "");
    copying.start().await;
    for name in names {
        let quoted = name.replace('"', "\"\"");
        db.execute(&format!("UPDATE \"s {quoted}\".\"{quoted}\" SET version = 1 WHERE \"{quoted}\" % 5 = 0"))
            .await;
    }
    let replica = copying.finished(&db).await;
    for name in names {
        let quoted = name.replace('"', "\"\"");
        let table = format!("\"s {quoted}\".\"{quoted}\"");
        let query = format!("SELECT \"{quoted}\"::text, version::text, \"v {quoted}\" FROM {table}");
        replica.expect(&db, &format!("s {name}.{name}"), &query).await;
        assert!(replica.copied_of(&format!("s {name}.{name}")) >= 400, "{name}");
    }
}
