//! An old part of the log is read again: nothing new comes of it.

use forebay_integration::{Database, Postgres};
use serde_json::Value;

use super::{Judged, MAJORS, Reading};

/// A history with every change that the stream tells of, and some that it does not.
const HISTORY: [&str; 17] = [
    "INSERT INTO t VALUES (1, 'a', 'sad')",
    "BEGIN; INSERT INTO t VALUES (2, NULL, 'sad'); ALTER TABLE t ADD note text; INSERT INTO t VALUES (3, 'c', 'happy', 'x'); COMMIT",
    "ALTER TYPE mood ADD VALUE 'torn'",
    "INSERT INTO t VALUES (4, 'd', 'torn', 'x')",
    "ALTER TYPE mood RENAME VALUE 'sad' TO 'blue'",
    "INSERT INTO t VALUES (5, 'e', 'blue', 'x')",
    "UPDATE t SET item = '' WHERE item IS NULL; ALTER TABLE t ALTER item SET NOT NULL",
    "INSERT INTO t VALUES (6, 'f', 'blue', 'x')",
    "ALTER TABLE t ALTER item DROP NOT NULL",
    "INSERT INTO t VALUES (7, NULL, 'blue', 'x')",
    "ALTER TABLE t ALTER mood TYPE text; DROP TYPE mood",
    "INSERT INTO t VALUES (8, NULL, 'any', 'x')",
    "ALTER TABLE t RENAME item TO thing",
    "INSERT INTO t VALUES (9, 'i', 'any', 'x')",
    "ALTER TABLE t ALTER id TYPE bigint",
    "INSERT INTO t VALUES (10, 'j', 'any', 'x')",
    "ALTER TABLE t DROP note",
];

/// Everything of a source's schemas that is kept, as the admin server lists it.
async fn listed(reading: &Reading) -> Vec<String> {
    let (status, body) = reading.daemon.get("/s").await.unwrap();
    assert_eq!(status, 200, "{body}");
    let listed: Value = serde_json::from_str(&body).unwrap();
    listed["schemas"]
        .as_array()
        .unwrap()
        .iter()
        .map(|entry| entry["schema"].as_str().unwrap().to_owned())
        .collect()
}

/// Puts the slot back to where a copy of it stands, and the checkpoint with it.
async fn set_back(reading: &mut Reading, db: &Database, copy: &str) {
    let slot = reading.slot.clone();
    db.query("SELECT pg_drop_replication_slot($1)", &[&slot]).await;
    db.query("SELECT pg_copy_logical_replication_slot($1, $2)", &[&copy, &slot]).await;
    let lsn: String = db
        .value(&format!(
            "SELECT confirmed_flush_lsn::text FROM pg_replication_slots WHERE slot_name = '{slot}'"
        ))
        .await;
    let set = reading.daemon.command(&["checkpoint", "set", "db", &lsn, "--yes", "-c", "forebay.yaml"]).await;
    assert!(set.status.success(), "{}", String::from_utf8_lossy(&set.stderr));
}

#[tokio::test(flavor = "multi_thread")]
async fn reading_an_old_part_of_the_log_again_makes_no_version_and_no_schema_event() {
    for major in MAJORS {
        let db = Postgres::shared(major).await.database("again").await;
        db.execute("CREATE TYPE mood AS ENUM ('sad', 'happy'); CREATE TABLE t (id int PRIMARY KEY, item text, mood mood);
             CREATE TABLE stays (id int PRIMARY KEY)")
            .await;
        let mut reading = Reading::of(&db, "\"public.*\"", "    snapshot: never");
        reading.start().await;
        reading.caught_up(&db).await;
        assert_eq!(reading.daemon.stop().await, 0);
        let copy = format!("{}_copy", reading.slot);
        db.query("SELECT pg_copy_logical_replication_slot($1, $2)", &[&reading.slot, &copy]).await;
        reading.start().await;
        for (at, statement) in HISTORY.iter().enumerate() {
            db.execute(statement).await;
            // Each change is met while it is the newest, but for two.
            if ![3, 5].contains(&at) {
                reading.caught_up(&db).await;
            }
        }
        let first = reading.judged(&db).await;
        let kept = listed(&reading).await;
        for dropped in [false, true] {
            assert_eq!(reading.daemon.stop().await, 0);
            if dropped {
                db.execute("DROP TABLE t").await;
            }
            let before = reading.all().len();
            set_back(&mut reading, &db, &copy).await;
            reading.start().await;
            reading.row_again(before, 10).await;
            reading.caught_up(&db).await;
            let all = reading.all();
            let mut again = Vec::from_iter(all[before..].iter().cloned());
            assert!(again.iter().all(|event| event["op"] != "schema"), "PostgreSQL {major}: {again:#?}");
            assert_eq!(listed(&reading).await, kept, "PostgreSQL {major}");
            assert_eq!(again.len(), first.rows.len());
            let ids = |events: &[Value]| events.iter().map(|event| event["id"].clone()).collect::<Vec<_>>();
            assert_eq!(ids(&again), ids(&first.rows), "PostgreSQL {major}");
            // They obey what was said before, be it a newer version than the one that they had first.
            again.splice(0..0, all[..before].iter().cloned());
            Judged::of(again);
        }
        db.query("SELECT pg_drop_replication_slot($1)", &[&copy]).await;
    }
}

impl Reading {
    /// Waits until a row with this `id` came behind the first `before` events.
    async fn row_again(&mut self, before: usize, id: i64) {
        let deadline = tokio::time::Instant::now() + forebay_integration::PATIENCE;
        while !self.all()[before..].iter().any(|event| event["key"]["id"] == id) {
            assert!(
                self.daemon.is_running() && tokio::time::Instant::now() < deadline,
                "row {id} did not come again\n{}",
                self.daemon.stderr()
            );
            tokio::time::sleep(super::ASK_PAUSE).await;
        }
    }
}
