//! What becomes of values: identities, large values that did not change, treated columns, tables without keys.

use super::{Reading, orders};
use forebay_integration::Postgres;
use serde_json::Value;

#[tokio::test(flavor = "multi_thread")]
async fn a_large_value_that_did_not_change_is_named_and_never_faked() {
    for major in super::MAJORS {
        let db = Postgres::shared(major).await.database("toast").await;
        db.execute("CREATE TABLE t (id int PRIMARY KEY, n int, body text); ALTER TABLE t ALTER body SET STORAGE EXTERNAL;
                    CREATE TABLE f (LIKE t INCLUDING ALL); ALTER TABLE f REPLICA IDENTITY FULL").await;
        let mut reading = Reading::of(&db, "public.t, public.f", "");
        reading.start().await;
        for table in ["t", "f"] {
            db.execute(&format!(
                "INSERT INTO {table} VALUES (1, 1, repeat('x', 10000)); UPDATE {table} SET n = 2"
            ))
            .await;
        }
        let events = reading.exactly(4).await;
        assert_eq!(events[1]["unchanged"], serde_json::json!(["body"]));
        assert_eq!(events[1]["payload"].to_string(), r#"{"id":1,"n":2}"#);
        assert!(events[3].get("unchanged").is_none(), "the old row fills it");
        assert_eq!(events[3]["payload"]["body"].as_str().unwrap().len(), 10000);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_large_value_that_did_not_change_is_named_across_a_change_of_the_table_in_one_transaction() {
    for major in super::MAJORS {
        let db = Postgres::shared(major).await.database("toast_ddl").await;
        db.execute(
            "CREATE TABLE t (id int PRIMARY KEY, n int, body text); ALTER TABLE t ALTER body SET STORAGE EXTERNAL;
             INSERT INTO t VALUES (1, 1, repeat('x', 10000))",
        )
        .await;
        let mut reading = Reading::of(&db, "public.t", "");
        reading.start().await;
        db.execute(
            "BEGIN; UPDATE t SET n = 2; ALTER TABLE t ADD more text DEFAULT 'm'; UPDATE t SET n = 3;
             ALTER TABLE t DROP n; UPDATE t SET more = 'n'; COMMIT",
        )
        .await;
        let events = reading.exactly(3).await;
        let payloads = events.iter().map(|event| event["payload"].to_string()).collect::<Vec<_>>();
        let expected = [r#"{"id":1,"n":2}"#, r#"{"id":1,"n":3,"more":"m"}"#, r#"{"id":1,"more":"n"}"#];
        assert_eq!(payloads, expected, "PostgreSQL {major}");
        assert!(events.iter().all(|event| event["unchanged"] == serde_json::json!(["body"])), "{events:#?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_truncation_is_an_event_for_each_table_that_it_empties() {
    for major in super::MAJORS {
        let db = Postgres::shared(major).await.database("emptied").await;
        db.execute(
            "CREATE TABLE one (id int PRIMARY KEY); CREATE TABLE two (id int PRIMARY KEY REFERENCES one);
             CREATE TABLE three (id serial PRIMARY KEY)",
        )
        .await;
        let mut reading = Reading::of(&db, "\"public.*\"", "");
        reading.start().await;
        db.execute("TRUNCATE three RESTART IDENTITY").await;
        db.execute("TRUNCATE one CASCADE").await;
        db.execute("TRUNCATE one, two, three").await;
        let events = reading.exactly(6).await;
        assert!(events.iter().all(|event| event["op"] == "truncate" && event["payload"].is_null()));
        let tables = |range: std::ops::Range<usize>| {
            let mut names: Vec<&str> =
                events[range].iter().map(|event| event["source"]["table"].as_str().unwrap()).collect();
            names.sort_unstable();
            names
        };
        assert_eq!(
            [tables(0..1), tables(1..3), tables(3..6)],
            [vec!["three"], vec!["one", "two"], vec!["one", "three", "two"]]
        );
        assert_eq!(events[0]["source"]["restart_identity"], true);
        assert_eq!(
            (&events[1]["source"]["cascade"], &events[0]["source"]["cascade"]),
            (&true.into(), &false.into())
        );
        let ids: std::collections::BTreeSet<&str> =
            events.iter().map(|event| event["id"].as_str().unwrap()).collect();
        assert_eq!(ids.len(), 6, "each has an id of its own");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn changes_that_come_from_elsewhere_are_named_and_can_be_left_out() {
    for (major, rule, expected) in [(15, "any", 3), (18, "any", 3), (18, "none", 2)] {
        let db = Postgres::shared(major).await.database("origin").await;
        db.execute("CREATE TABLE t (id int PRIMARY KEY)").await;
        let origin = db.name().to_owned();
        db.query("SELECT pg_replication_origin_create($1)", &[&origin]).await;
        let mut reading = Reading::of(&db, "public.t", &format!("    origin: {rule}"));
        reading.start().await;
        db.execute("INSERT INTO t VALUES (1)").await;
        let elsewhere = db.connect().await;
        let session = format!("SELECT pg_replication_origin_session_setup('{origin}')");
        elsewhere.batch_execute(&session).await.unwrap();
        elsewhere.batch_execute("INSERT INTO t VALUES (2)").await.unwrap();
        elsewhere.batch_execute("SELECT pg_replication_origin_session_reset()").await.unwrap();
        db.execute("INSERT INTO t VALUES (3)").await;
        let events = reading.exactly(expected).await;
        let named: Vec<&Value> = events.iter().filter(|event| event["key"]["id"] == 2).collect();
        assert_eq!(named.len(), expected - 2, "PostgreSQL {major}, {rule}");
        assert!(named.iter().all(|event| event["source"]["origin"] == origin.as_str()), "{named:#?}");
        db.query("SELECT pg_replication_origin_drop($1)", &[&origin]).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn values_keep_their_digits_and_their_meaning() {
    for major in super::MAJORS {
        let db = Postgres::shared(major).await.database("values").await;
        db.execute("CREATE TYPE mood AS ENUM ('sad', 'happy'); CREATE DOMAIN positive AS int CHECK (VALUE > 0);
                    CREATE DOMAIN small AS positive CHECK (VALUE < 100); CREATE TYPE pair AS (a int, b text);
                    CREATE TABLE v (id int PRIMARY KEY, big int8, num numeric, flt float8, ts timestamptz, d date, j jsonb,
                        raw bytea, arr int[], nested text[], m mood, s small, u uuid, iv interval, p pair, r int4range)").await;
        let mut reading = Reading::of(&db, "public.v", "");
        reading.start().await;
        db.execute(r#"INSERT INTO v VALUES
            (1, 9223372036854775807, 12345678901234567890.123456789000, 0.1, '2026-11-22 18:34:00.123456+00', '0044-03-15 BC',
             '{"n": 1.0000000000000000001}', '\x00ff', '{1,NULL,3}', '{{a,"b,c"},{"d\"e",NULL}}', 'happy', 42,
             'a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11', '1 day 2 hours', ROW(1,'x'), '[1,5)'),
            (2, NULL, 'NaN', 'Infinity', 'infinity', '-infinity', 'null', '', '{}', NULL, NULL, NULL, NULL, NULL, NULL, NULL)"#).await;
        let events = reading.exactly(2).await;
        let text = std::fs::read_to_string(reading.daemon.path("out.ndjson")).unwrap();
        for exact in [
            r#""big":9223372036854775807"#,
            r#""num":12345678901234567890.123456789000"#,
            r#""flt":0.1"#,
            r#""ts":"2026-11-22T18:34:00.123456Z""#,
            r#""j":{"n": 1.0000000000000000001}"#,
            r#""raw":"AP8=""#,
            r#""arr":[1,null,3]"#,
            r#""nested":[["a","b,c"],["d\"e",null]]"#,
            r#""m":"happy","s":42"#,
            r#""iv":"P1DT2H""#,
            r#""p":{"a":1,"b":"x"},"r":{"lower":1,"upper":5,"bounds":"[)","empty":false}"#,
        ] {
            assert!(text.contains(exact), "{exact} on PostgreSQL {major} in {text}");
        }
        let odd = &events[1]["payload"];
        let words: Vec<&Value> = ["num", "flt", "ts", "d"].iter().map(|column| &odd[*column]).collect();
        assert_eq!(words, ["NaN", "Infinity", "infinity", "-infinity"]);
        assert_eq!(odd["arr"], serde_json::json!([]));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_table_that_changes_its_shape_goes_on_in_the_new_one() {
    let db = orders(15, "reshape").await;
    let mut reading = Reading::of(&db, "public.orders", "");
    reading.start().await;
    db.execute("INSERT INTO orders VALUES (1, 'a', 1)").await;
    db.execute("BEGIN; ALTER TABLE orders ADD note text DEFAULT 'none'; INSERT INTO orders VALUES (2, 'b', 2, 'new'); COMMIT").await;
    db.execute("ALTER TABLE orders DROP COLUMN total; INSERT INTO orders VALUES (3, 'c', 'last')").await;
    db.execute("ALTER TABLE orders RENAME item TO thing; UPDATE orders SET thing = 'd' WHERE id = 3").await;
    db.execute("DROP TABLE orders; CREATE TABLE orders (id int PRIMARY KEY, again bool)").await;
    let events = reading.exactly(4).await;
    let payloads: Vec<String> = events.iter().map(|event| event["payload"].to_string()).collect();
    assert_eq!(
        payloads,
        [
            r#"{"id":1,"item":"a","total":1.0}"#,
            r#"{"id":2,"item":"b","total":2.0,"note":"new"}"#,
            r#"{"id":3,"item":"c","note":"last"}"#,
            r#"{"id":3,"thing":"d","note":"last"}"#,
        ]
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn excluded_columns_are_absent_and_hashed_ones_can_only_be_compared() {
    let db = Postgres::shared(15).await.database("columns").await;
    db.execute("CREATE TABLE users (id int PRIMARY KEY, email text, password text)").await;
    let rules = "    columns: {exclude: [public.users.password], hash: [public.users.email], salt: pepper}";
    let mut reading = Reading::of(&db, "public.users", rules);
    reading.start().await;
    db.execute("INSERT INTO users VALUES (1, 'a@b.c', 'secret1'), (2, 'a@b.c', 'secret2'), (3, NULL, NULL)")
        .await;
    let events = reading.exactly(3).await;
    let text = std::fs::read_to_string(reading.daemon.path("out.ndjson")).unwrap();
    assert!(!text.contains("secret") && !text.contains("a@b.c") && !text.contains("password"), "{text}");
    assert_eq!(events[0]["payload"]["email"], events[1]["payload"]["email"]);
    assert_eq!(events[0]["payload"]["email"].as_str().unwrap().len(), 64);
    assert_eq!(events[2]["payload"]["email"], Value::Null);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_table_without_an_identity_never_breaks_the_application() {
    for major in super::MAJORS {
        let db = orders(major, "keyless").await;
        db.execute("CREATE TABLE log (at int, line text)").await;
        let mut refused = Reading::of(&db, "\"public.*\"", "");
        let (code, said) = refused.refused().await;
        assert_eq!(code, 69, "{said}");
        assert!(said.contains(r#"ALTER TABLE "public"."log" REPLICA IDENTITY FULL;"#), "{said}");
        db.execute("INSERT INTO log VALUES (0, 'x'); UPDATE log SET line = 'y'").await;

        let mut reading = Reading::of(&db, "\"public.*\"", "    keyless: insert_only");
        reading.start().await;
        db.execute("INSERT INTO log VALUES (1, 'a'); UPDATE log SET line = 'b'; DELETE FROM log").await;
        db.execute("INSERT INTO orders VALUES (1, 'x', 1); UPDATE orders SET item = 'y'").await;
        let events = reading.exactly(3).await;
        let ops: Vec<&Value> = events.iter().map(|event| &event["op"]).collect();
        assert_eq!(ops, ["insert", "insert", "update"], "PostgreSQL {major}");
        assert_eq!(events[0]["key"], Value::Null);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn names_of_every_kind_come_through() {
    let db = Postgres::shared(15).await.database("names").await;
    db.execute("CREATE SCHEMA \"Größe\"; CREATE TABLE \"Größe\".\"a.\"\"b\" (\"Ä\" int PRIMARY KEY, \"q\"\"x\" text)").await;
    let mut reading = Reading::of(&db, "\"Größe.*\"", "");
    reading.start().await;
    db.execute("INSERT INTO \"Größe\".\"a.\"\"b\" VALUES (1, 'é')").await;
    let events = reading.exactly(1).await;
    assert_eq!(events[0]["source"]["table"], "a.\"b");
    assert_eq!(events[0]["payload"].to_string(), r#"{"Ä":1,"q\"x":"é"}"#);
}

#[tokio::test(flavor = "multi_thread")]
async fn partitions_are_read_as_the_table_that_they_belong_to() {
    for (major, via_root) in [(13, false), (15, true), (18, false)] {
        let db = Postgres::shared(major).await.database("partitions").await;
        db.execute(
            "CREATE TABLE orders (id int, at date, card text, PRIMARY KEY (id, at)) PARTITION BY RANGE (at);
             CREATE TABLE orders_2025 PARTITION OF orders FOR VALUES FROM ('2025-01-01') TO ('2026-01-01');
             CREATE TABLE orders_2026 PARTITION OF orders FOR VALUES FROM ('2026-01-01') TO ('2027-01-01')",
        )
        .await;
        let more = format!(
            "    publish_via_partition_root: {via_root}\n    columns: {{exclude: [public.orders.card]}}"
        );
        let mut reading = Reading::of(&db, "public.orders", &more);
        reading.start().await;
        db.execute("INSERT INTO orders VALUES (1, '2025-05-05', 'secret'), (2, '2026-05-05', 'secret')")
            .await;
        db.execute("UPDATE orders SET at = '2026-06-06' WHERE id = 1").await;
        // A row that moves to another partition is deleted in one and inserted into the other.
        let events = reading.exactly(4).await;
        let tables: Vec<&Value> = events.iter().map(|event| &event["source"]["table"]).collect();
        if via_root {
            assert_eq!(tables, ["orders"; 4]);
        } else {
            assert_eq!(
                tables,
                ["orders_2025", "orders_2026", "orders_2025", "orders_2026"],
                "PostgreSQL {major}"
            );
        }
        let text = std::fs::read_to_string(reading.daemon.path("out.ndjson")).unwrap();
        assert!(!text.contains("secret"), "{text}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_deferrable_key_is_no_identity() {
    let db = Postgres::shared(15).await.database("deferrable").await;
    db.execute("CREATE TABLE t (id int PRIMARY KEY DEFERRABLE)").await;
    let (code, said) = Reading::of(&db, "public.t", "").refused().await;
    assert_eq!(code, 69, "{said}");
    assert!(said.contains("REPLICA IDENTITY"), "{said}");
    db.execute("INSERT INTO t VALUES (1); UPDATE t SET id = 2").await;
}
