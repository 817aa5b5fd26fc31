//! A journal that is full: the source waits, or who may be cut off is.

use std::collections::BTreeSet;

use serde_json::Value;

use super::{A, World};

/// Fills a journal of a few segments while `b` cannot be reached.
async fn fill(world: &World, from: u32, rows: u32) {
    let insert = format!(
        "DO $$ BEGIN FOR n IN {from}..{} LOOP INSERT INTO items VALUES (n, repeat('x', 20000)); COMMIT; END LOOP; END $$",
        from + rows - 1
    );
    world.db.execute(&insert).await;
}

const AWAY: &str = "b: {type: postgres, url: \"postgres://postgres@127.0.0.1:1/away\", required: false}";

#[tokio::test(flavor = "multi_thread")]
async fn a_full_journal_makes_the_source_wait_and_goes_on_when_there_is_room() {
    let full = "journal: {type: disk, segment: 512KiB, max_bytes: 2MiB}\n";
    let mut world = World::of("full", full, &[A, AWAY]).await;
    world.start().await;
    fill(&world, 0, 300).await;
    let told = |status: &Value| status["sources"][0]["journal"]["bytes"].as_u64() > Some(1 << 20);
    world.daemon.wait_until("it is nearly full", told).await;
    let waits = |status: &Value| {
        let problems = status["problems"].as_array().unwrap();
        problems.iter().any(|problem| problem.as_str().unwrap().contains("journal"))
    };
    let status = world.daemon.wait_until("it says that it is full", waits).await;
    assert!(status["sources"][0]["journal"]["bytes"].as_u64() <= Some(2 << 20), "{status:#}");
    let held: bool = world
        .db
        .value(&format!(
            "SELECT confirmed_flush_lsn < pg_current_wal_lsn() FROM pg_replication_slots WHERE slot_name = '{}'",
            world.db.name()
        ))
        .await;
    assert!(held, "the server keeps what does not fit");
    // Killed, it still waits; given up, the one that is away holds nothing any more.
    world.daemon.kill().await;
    world.daemon.start().await;
    let said = world.command(&["journal", "forget", "--source", "db", "b", "--yes"]).await;
    assert!(said.contains("begins anew"), "{said}");
    world.configure(full, &[A]);
    world.command(&["reload"]).await;
    world.command(&["journal", "forget", "--source", "db", "b", "--yes"]).await;
    // What was on its way when it was killed comes again.
    let path = world.daemon.path("a.ndjson");
    let all = |_: &Value| super::ids_in(&path).into_iter().collect::<BTreeSet<_>>().len() == 300;
    world.daemon.wait_until("nothing is missing", all).await;
    assert_eq!(world.daemon.stop().await, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn parking_cuts_off_only_who_is_not_required_and_forget_lets_it_begin_anew() {
    let park = "journal: {type: disk, segment: 512KiB, max_bytes: 2MiB, full: park}\n";
    let mut world = World::of("park", park, &[A, AWAY]).await;
    world.start().await;
    fill(&world, 0, 300).await;
    world.has("a.ndjson", 300).await;
    let parked = |status: &Value| {
        let readers = status["sources"][0]["journal"]["readers"].as_array().unwrap();
        readers.iter().any(|reader| reader["name"] == "b" && reader["parked"] == true)
    };
    world.daemon.wait_until("b is parked", parked).await;
    let metric =
        world.daemon.metric("forebay_journal_parked", &[("source", "db"), ("destination", "b")]).await;
    assert_eq!(metric, Some(1.0));
    let said = world.command(&["journal", "status"]).await;
    assert!(said.contains("parked"), "{said}");
    // Over a restart it stays parked, and the daemon runs.
    assert_eq!(world.daemon.stop().await, 0);
    world.configure(park, &[A, "b: {type: file, path: b.ndjson, required: false}"]);
    world.start().await;
    let told = |status: &Value| {
        let problems = status["problems"].as_array().unwrap();
        problems.iter().any(|problem| problem.as_str().unwrap().contains("db/b"))
    };
    world.daemon.wait_until("it says that b is parked", told).await;
    assert!(world.ids("b.ndjson").is_empty());
    world.command(&["journal", "forget", "--source", "db", "b", "--yes"]).await;
    fill(&world, 300, 10).await;
    let path = world.daemon.path("b.ndjson");
    let last = |_: &Value| super::ids_in(&path).last() == Some(&309);
    world.daemon.wait_until("b has the last one", last).await;
    assert_eq!(world.daemon.stop().await, 0);
}
