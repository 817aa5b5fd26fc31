//! Schemas as they are asked for: by command, by HTTP, and of logical messages.

use forebay_integration::Postgres;
use serde_json::Value;

use super::{Reading, decoded};

#[tokio::test(flavor = "multi_thread")]
async fn what_is_announced_is_served_and_printed() {
    for major in super::MAJORS {
        let db = Postgres::shared(major).await.database("shown").await;
        db.execute(
            "CREATE SCHEMA \"Größe\"; CREATE TYPE \"Größe\".size AS ENUM ('s', 'm');
             CREATE TABLE \"Größe\".\"a b/c\" (id int PRIMARY KEY, size \"Größe\".size NOT NULL, password text);
             COMMENT ON TABLE \"Größe\".\"a b/c\" IS 'sizes'; INSERT INTO \"Größe\".\"a b/c\" VALUES (1, 's')",
        )
        .await;
        let name = "Größe.a b/c";
        let rules = format!("    columns: {{exclude: [\"{name}.password\"]}}");
        let mut reading = Reading::of(&db, &format!("\"{name}\""), &rules);
        reading.start().await;
        let judged = reading.judged(&db).await;
        let announced = judged.schema(name, "1-0-0");
        let path = announced["$id"].as_str().unwrap();
        assert_eq!(decoded(path), format!("/s/com.acme/{name}/1-0-0"));
        let (code, served) = reading.daemon.get(path).await.unwrap();
        assert_eq!(code, 200, "{served}");
        assert_eq!(&serde_json::from_str::<Value>(&served).unwrap(), announced);
        let printed = reading.daemon.command(&["schema", "table", name, "-c", "forebay.yaml"]).await;
        assert!(printed.status.success(), "{}", String::from_utf8_lossy(&printed.stderr));
        let printed: Value = serde_json::from_slice(&printed.stdout).unwrap();
        let mut expected = announced.clone();
        expected.as_object_mut().unwrap().shift_remove("$id");
        assert_eq!(printed, expected, "PostgreSQL {major}");
        let missing =
            reading.daemon.command(&["schema", "table", "public.nothing", "-c", "forebay.yaml"]).await;
        let said = String::from_utf8_lossy(&missing.stderr).into_owned();
        assert_eq!(missing.status.code(), Some(78), "{said}");
        assert!(said.contains("public.nothing") && said.contains("no such table"), "{said}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn logical_messages_obey_a_schema_too() {
    for major in [15, 18] {
        let db = Postgres::shared(major).await.database("told").await;
        db.execute("CREATE TABLE t (id int PRIMARY KEY)").await;
        let mut reading = Reading::of(&db, "public.t", "");
        reading.start().await;
        db.execute("INSERT INTO t VALUES (1)").await;
        reading.row(1).await;
        let judged = reading.judged(&db).await;
        assert_eq!(judged.announced, ["com.acme/public.t/1-0-0"], "nothing is said of what does not come");
        db.execute(
            "SELECT pg_logical_emit_message(true, 'outbox', '{\"id\":1}'), pg_logical_emit_message(false, 'now', '\\xff'::bytea)",
        )
        .await;
        db.execute("INSERT INTO t VALUES (2)").await;
        reading.row(2).await;
        let judged = reading.judged(&db).await;
        let messages: Vec<&Value> = judged.rows.iter().filter(|event| event["op"] == "message").collect();
        assert_eq!(messages.len(), 2);
        assert!(messages.iter().all(|event| event["schema"] == "com.acme/pg_logical_message/1-0-0"));
        assert_eq!(judged.announced_of("pg_logical_message"), ["1-0-0"]);
    }
}
