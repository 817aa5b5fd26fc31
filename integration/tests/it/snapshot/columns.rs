//! What the configuration, the publication and the server leave out of changes is left out of the copy too.

use forebay_integration::Postgres;
use serde_json::Value;

use super::{Copying, is_copied, is_over};

#[tokio::test(flavor = "multi_thread")]
async fn excluded_columns_are_absent_from_the_copy_and_hashed_ones_can_only_be_compared() {
    for major in [13, 15, 18] {
        let db = Postgres::shared(major).await.database("treated").await;
        db.execute(
            "CREATE TABLE users (id int PRIMARY KEY, version bigint, email text, password text);
             INSERT INTO users SELECT n, 0, 'user' || n % 3 || '@example.org', 'secret' || n FROM generate_series(1, 300) n;
             INSERT INTO users VALUES (0, 0, NULL, NULL)",
        )
        .await;
        let rules =
            "    columns: {exclude: [public.users.password], hash: [public.users.email], salt: pepper}";
        let mut copying = Copying::of(&db, "public.users", rules);
        copying.start().await;
        copying.finished(&db).await;
        db.execute("UPDATE users SET version = 1 WHERE id = 1").await;
        copying.finished(&db).await.expect_sound();
        let text = std::fs::read_to_string(copying.output()).unwrap();
        assert!(
            !text.contains("secret") && !text.contains("example.org") && !text.contains("password"),
            "{text}"
        );
        let events = copying.events();
        let of = |id: i64| {
            let wanted = move |event: &&Value| event["key"]["id"] == id && !event["payload"].is_null();
            events.iter().filter(wanted).map(|event| event["payload"]["email"].clone()).collect::<Vec<_>>()
        };
        assert_eq!(of(0), [Value::Null]);
        let one = of(1);
        assert_eq!((one.len(), one[0].as_str().unwrap().len()), (2, 64));
        assert_eq!(one[0], one[1], "the copy and the stream hash alike");
        assert_eq!(one[0], of(4)[0]);
        assert_ne!(one[0], of(2)[0]);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_hashed_key_is_the_same_in_the_copy_and_in_the_stream() {
    let db = Postgres::shared(15).await.database("hashed_key").await;
    db.execute(
        "CREATE TABLE users (email text PRIMARY KEY, version bigint);
         INSERT INTO users SELECT 'user' || n || '@example.org', 0 FROM generate_series(1, 300) n",
    )
    .await;
    let mut copying =
        Copying::of(&db, "public.users", "    columns: {hash: [public.users.email], salt: pepper}");
    copying.start().await;
    copying.finished(&db).await;
    db.execute("UPDATE users SET version = 1").await;
    copying.finished(&db).await.expect_sound();
    let text = std::fs::read_to_string(copying.output()).unwrap();
    assert!(!text.contains("example.org"), "a key stands in ids too");
    let rows = copying.events().into_iter().filter(|event| event["op"] != "schema");
    let keys: std::collections::BTreeSet<String> = rows.map(|event| event["key"].to_string()).collect();
    assert_eq!(keys.len(), 300);
}

#[tokio::test(flavor = "multi_thread")]
async fn rows_with_a_hashed_key_keep_what_is_written_to_them_meanwhile() {
    let server = Postgres::shared(15).await;
    let db = server.database("hashed_writes").await;
    db.execute(
        "CREATE TABLE users (email text PRIMARY KEY, version bigint, body text);
         ALTER TABLE users ALTER body SET STORAGE EXTERNAL;
         INSERT INTO users SELECT n || '@example.org', 0, repeat(chr(97 + n % 26), 3000) FROM generate_series(1, 4000) n",
    )
    .await;
    let rules = "    columns: {hash: [public.users.email], salt: pepper}";
    let (line, mut copying) = Copying::slowly(server, &db, "public.users", rules).await;
    copying.start().await;
    copying.wait_for(1, "the first copied row", is_copied).await;
    // Large values that do not change, in rows that were read and in rows that were not.
    for version in 1..=3 {
        db.execute(&format!("UPDATE users SET version = {version} WHERE length(email) % 3 <> {version} % 3"))
            .await;
    }
    assert!(!is_over(&copying.daemon.status().await), "it was over before");
    line.limit(None);
    let replica = copying.finished(&db).await;
    replica.expect_sound();
    let mut told = std::collections::HashMap::new();
    let of_rows = |event: &Value| event["op"] != "schema" && !event["payload"].is_null();
    for event in copying.events().into_iter().filter(of_rows) {
        let row = told.entry(event["key"].to_string()).or_insert((None, None));
        row.0 = event["payload"]["version"].as_i64();
        row.1 = event["payload"]["body"].as_str().map(str::to_owned).or(row.1.take());
    }
    let mut told: Vec<_> = told.into_values().collect();
    let rows = db.query("SELECT version, body FROM users", &[]).await;
    let mut rows: Vec<_> = rows.iter().map(|row| (row.get(0), row.get(1))).collect();
    told.sort();
    rows.sort();
    assert!(
        told == rows,
        "{} rows are told, {} are there, and they are not the same",
        told.len(),
        rows.len()
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn the_row_filter_and_column_list_of_a_publication_hold_in_the_copy() {
    for major in [15, 18] {
        let db = Postgres::shared(major).await.database("filtered").await;
        db.execute(&format!(
            "CREATE TABLE picked (id int PRIMARY KEY, version bigint, hidden text, kind int NOT NULL); ALTER TABLE picked REPLICA IDENTITY FULL;
             CREATE TABLE narrow (id int PRIMARY KEY, version bigint, hidden text, kind int);
             INSERT INTO picked SELECT n, 0, 'hidden', n % 5 FROM generate_series(1, 3000) n; INSERT INTO narrow TABLE picked;
             CREATE PUBLICATION {} FOR TABLE picked WHERE (kind > 2 AND id <> 3), TABLE narrow (version, id, kind)",
            db.name()
        ))
        .await;
        let mut copying = Copying::of(&db, "\"public.*\"", "    publication_mode: existing");
        copying.start().await;
        db.execute("UPDATE picked SET version = 1, kind = 4 - kind WHERE id % 3 = 0; UPDATE narrow SET version = 1, hidden = 'more' WHERE id % 3 = 0").await;
        let replica = copying.finished(&db).await;
        replica.expect(&db, "public.picked", "SELECT * FROM picked WHERE kind > 2 AND id <> 3").await;
        replica.expect(&db, "public.narrow", "SELECT id, version, kind FROM narrow").await;
        let text = std::fs::read_to_string(copying.output()).unwrap();
        assert!(
            !text
                .lines()
                .filter(|line| line.contains("\"table\":\"narrow\""))
                .any(|line| line.contains("hidden"))
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn rows_that_row_level_security_hides_are_never_left_out_silently() {
    let db = Postgres::shared(15).await.database("security").await;
    let role = format!("{}_reader", db.name());
    db.execute(&format!(
        "CREATE TABLE guarded (id int PRIMARY KEY, version bigint, owner text);
         INSERT INTO guarded SELECT n, 0, CASE WHEN n % 2 = 0 THEN 'me' ELSE 'you' END FROM generate_series(1, 100) n;
         ALTER TABLE guarded ENABLE ROW LEVEL SECURITY; CREATE POLICY half ON guarded USING (owner = 'me');
         CREATE ROLE {role} LOGIN REPLICATION; GRANT SELECT ON guarded TO {role}; GRANT CREATE ON DATABASE {0} TO {role};
         CREATE PUBLICATION {0} FOR TABLE guarded",
        db.name()
    ))
    .await;
    let url = db.url().replace("postgres@", &format!("{role}@"));
    let mut copying = Copying::through(&url, &db, "public.guarded", "    publication_mode: existing");
    copying.daemon.spawn();
    assert_eq!(copying.daemon.exit_code().await, 69, "{}", copying.daemon.stderr());
    let said = copying.daemon.stderr();
    assert!(said.contains("`public.guarded`") && said.contains("row-level security"), "{said}");
    assert!(copying.events().is_empty(), "half a table is worse than none");
    db.execute(&format!("ALTER ROLE {role} BYPASSRLS")).await;
    copying.start().await;
    let replica = copying.finished(&db).await;
    replica.expect_table(&db, "public.guarded").await;
    assert_eq!(replica.copied_events(), 100);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_table_that_must_not_be_read_is_refused_with_what_mends_it() {
    let db = Postgres::shared(15).await.database("forbidden").await;
    let role = format!("{}_reader", db.name());
    db.execute(&format!(
        "CREATE TABLE guarded (id int PRIMARY KEY, version bigint); INSERT INTO guarded VALUES (1, 0);
         CREATE ROLE {role} LOGIN REPLICATION; CREATE PUBLICATION {} FOR TABLE guarded",
        db.name()
    ))
    .await;
    let url = db.url().replace("postgres@", &format!("{role}@"));
    let mut copying = Copying::through(&url, &db, "public.guarded", "    publication_mode: existing");
    copying.daemon.spawn();
    assert_eq!(copying.daemon.exit_code().await, 69, "{}", copying.daemon.stderr());
    let said = copying.daemon.stderr();
    assert!(said.contains("permission denied for table guarded") && said.contains("remedy: grant"), "{said}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_table_that_is_added_and_must_not_be_read_ends_no_other_ones_stream() {
    let db = Postgres::shared(15).await.database("added_forbidden").await;
    let role = format!("{}_reader", db.name());
    db.execute(&format!(
        "CREATE TABLE open (id int PRIMARY KEY, version bigint); CREATE TABLE guarded (id int PRIMARY KEY, version bigint);
         INSERT INTO guarded VALUES (1, 0); CREATE ROLE {role} LOGIN REPLICATION; GRANT SELECT ON open TO {role};
         CREATE PUBLICATION {} FOR TABLE open",
        db.name()
    ))
    .await;
    let url = db.url().replace("postgres@", &format!("{role}@"));
    let mut copying = Copying::through(&url, &db, "\"public.*\"", "    publication_mode: existing");
    copying.start().await;
    copying.copied().await;
    db.execute(&format!("ALTER PUBLICATION {} ADD TABLE guarded", db.name())).await;
    let told = |status: &Value| {
        let tables = status["sources"][0]["snapshot"]["tables"].as_array().unwrap();
        tables.iter().any(|table| table["name"] == "public.guarded" && table["problem"].is_string())
    };
    copying.daemon.wait_until("the table is a problem", told).await;
    db.execute("INSERT INTO open VALUES (1, 1); UPDATE guarded SET version = 1").await;
    let streamed = |event: &Value| ["insert", "update"].iter().any(|op| event["op"] == *op);
    copying.wait_for(2, "the changes of both", streamed).await;
    // When it may be read, whoever asks for it gets it.
    db.execute(&format!("GRANT SELECT ON guarded TO {role}")).await;
    copying.command(&["--table", "public.guarded"]).await;
    copying.wait_for(1, "its row", is_copied).await;
}
