//! Reload: what changed is restarted, what did not is not touched, and a mistake changes nothing.

use serde_json::Value;

use super::{A, B, World, hang_up};

#[tokio::test(flavor = "multi_thread")]
async fn a_reload_restarts_only_what_changed_and_says_what_it_did() {
    let mut world = World::of("reload", "", &[A]).await;
    world.start().await;
    world.insert(0..20).await;
    world.has("a.ndjson", 20).await;
    world.configure("", &[A, B]);
    let done: Value = serde_json::from_str(&world.command(&["reload", "--json"]).await).unwrap();
    assert_eq!(done["started"], serde_json::json!(["db/b"]));
    assert_eq!(done["unchanged"], serde_json::json!(["db", "db/a"]));
    assert_eq!((&done["restarted"], &done["stopped"]), (&Value::Array(vec![]), &Value::Array(vec![])));
    world.has("b.ndjson", 20).await;
    let changed = "b: {type: file, path: b.ndjson, format: debezium}";
    world.configure("", &[A, changed]);
    let said = world.command(&["reload"]).await;
    assert!(said.contains("restarted") && said.contains("db/b"), "{said}");
    world.insert(20..30).await;
    world.has("a.ndjson", 30).await;
    world.configure("", &[A]);
    let done: Value = serde_json::from_str(&world.command(&["reload", "--json"]).await).unwrap();
    assert_eq!(done["stopped"], serde_json::json!(["db/b"]));
    world.insert(30..40).await;
    world.has("a.ndjson", 40).await;
    assert_eq!(world.ids("a.ndjson"), (0..40).collect::<Vec<_>>());
    let connected = world.daemon.stderr().matches(" streaming ").count();
    assert_eq!(connected, 1, "the source was connected anew");
    // One that was taken out keeps its place, and goes on from there.
    world.configure("", &[A, B]);
    world.command(&["reload"]).await;
    let path = world.daemon.path("b.ndjson");
    let last = |_: &Value| super::events_in(&path).last().is_some_and(|event| event["key"]["id"] == 39);
    world.daemon.wait_until("b has the last one", last).await;
    assert_eq!(world.daemon.stop().await, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_mistake_in_the_new_configuration_leaves_everything_as_it_was() {
    let mut world = World::of("mistake", "", &[A]).await;
    world.start().await;
    world.configure("", &[A, "b: {type: flie, path: b.ndjson}"]);
    let said =
        world.refused(78, &["reload", "--url", &format!("127.0.0.1:{}", world.daemon.admin_port())]).await;
    assert!(said.contains("flie") && said.contains("runs on"), "{said}");
    world.configure("name: other\n", &[A]);
    let said = world.refused(78, &["reload"]).await;
    assert!(said.contains("`name` changed, which takes a restart"), "{said}");
    world.insert(0..10).await;
    world.has("a.ndjson", 10).await;
    assert_eq!(world.daemon.stop().await, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn sighup_reloads_and_without_a_journal_the_one_pipeline_is_restarted() {
    let mut world = World::of("sighup", "journal: none\n", &[A]).await;
    world.start().await;
    world.insert(0..10).await;
    world.has("a.ndjson", 10).await;
    world.configure("journal: none\n", &[A, B]);
    hang_up(&world.daemon).await;
    let two = |status: &Value| {
        let source = &status["sources"][0];
        source["connected"] == true && source["destinations"].as_array().unwrap().len() == 2
    };
    world.daemon.wait_until("both destinations are there", two).await;
    world.insert(10..20).await;
    world.has("a.ndjson", 20).await;
    world.has("b.ndjson", 10).await;
    assert_eq!(world.ids("a.ndjson"), (0..20).collect::<Vec<_>>());
    assert!(world.daemon.stderr().contains("configuration reloaded"), "{}", world.daemon.stderr());
    // A journal comes between by a reload, too.
    world.configure("", &[A, B]);
    world.command(&["reload"]).await;
    world.insert(20..30).await;
    world.has("a.ndjson", 30).await;
    world.has("b.ndjson", 20).await;
    assert_eq!(world.ids("a.ndjson"), (0..30).collect::<Vec<_>>());
    // It is taken away by a start, which looks whether anything is left in it.
    world.configure("journal: none\n", &[A, B]);
    let said = world.refused(78, &["reload"]).await;
    assert!(said.contains("the journal of `db` changed, which takes a restart"), "{said}");
    assert_eq!(world.daemon.stop().await, 0);
}
