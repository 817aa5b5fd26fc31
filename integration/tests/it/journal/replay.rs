//! Replays: a part of the journal once more, for one destination.

use forebay_integration::{Kafka, unique};
use serde_json::Value;

use super::{A, B, World, events_in};

const KEPT: &str = "journal: {type: disk, retain: 1h}\n";

/// The row ids in a file without its first so many.
fn after(world: &World, file: &str, count: usize) -> Vec<u64> {
    world.ids(file).split_off(count)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_replay_brings_what_is_asked_for_to_one_destination_and_nothing_to_the_others() {
    let mut world = World::of("replay", KEPT, &[A, B]).await;
    world.db.execute("CREATE TABLE notes (id int PRIMARY KEY)").await;
    world.start().await;
    world.insert(0..100).await;
    world.db.execute("INSERT INTO notes VALUES (1000), (1001)").await;
    world.has("a.ndjson", 102).await;
    world.has("b.ndjson", 102).await;

    let said = world.command(&["replay", "--destination", "a", "--from", "oldest"]).await;
    assert!(said.contains("replay 1 has begun") && said.contains("it is done"), "{said}");
    let events = events_in(&world.daemon.path("a.ndjson"));
    let of_rows: Vec<&Value> = events.iter().filter(|event| event["op"] == "insert").collect();
    assert_eq!(of_rows.len(), 204);
    let id = |event: &&Value| event["id"].as_str().unwrap().to_owned();
    assert_eq!(
        of_rows[..102].iter().map(id).collect::<Vec<_>>(),
        of_rows[102..].iter().map(id).collect::<Vec<_>>()
    );

    world
        .command(&["replay", "--destination", "a", "--from", "1h", "--key", "7", "--key", r#"{"id": 9}"#])
        .await;
    assert_eq!(after(&world, "a.ndjson", 204), [7, 9]);
    world.command(&["replay", "--destination", "a", "--from", "oldest", "--table", "public.no*"]).await;
    assert_eq!(after(&world, "a.ndjson", 206), [1000, 1001]);
    let lsn = of_rows[40]["source"]["lsn"].as_str().unwrap().to_owned();
    let to = of_rows[49]["source"]["lsn"].as_str().unwrap().to_owned();
    world.command(&["replay", "--source", "db", "--destination", "a", "--from", &lsn, "--to", &to]).await;
    let again = after(&world, "a.ndjson", 208);
    assert!(!again.is_empty() && again.iter().all(|id| (39..=50).contains(id)), "{again:?}");
    assert_eq!(world.ids("b.ndjson").len(), 102, "another destination got it too");
    // Nothing is left of them.
    let readers = world.daemon.status().await["sources"][0]["journal"]["readers"].as_array().unwrap().len();
    assert_eq!(readers, 2);
    world.insert(100..110).await;
    world.has("b.ndjson", 112).await;
    assert_eq!(world.daemon.stop().await, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_replay_goes_on_after_a_kill_and_can_be_given_up() {
    let copy = forebay_integration::Postgres::shared(15).await.database("copy").await;
    let table = format!("b: {{type: postgres, url: \"{}\", batch: {{records: 5}}}}", copy.url());
    let mut world = World::of("again", KEPT, &[A, &table]).await;
    world.start().await;
    world.insert(0..200).await;
    copy.wait_until("SELECT to_regclass('forebay_events') IS NOT NULL").await;
    copy.wait_until("SELECT count(*) = 200 FROM forebay_events WHERE op = 'insert'").await;
    // What is gone there comes back; what is there is known by its id.
    copy.execute(
        "DELETE FROM forebay_events WHERE op = 'insert' AND seq % 2 = 0;
         CREATE FUNCTION take_time() RETURNS trigger LANGUAGE plpgsql AS
             $$ BEGIN PERFORM pg_sleep(0.1); RETURN NULL; END $$;
         CREATE TRIGGER slow BEFORE INSERT ON forebay_events FOR EACH STATEMENT EXECUTE FUNCTION take_time()",
    )
    .await;
    world.command(&["replay", "--destination", "b", "--from", "oldest", "--detach"]).await;
    let begun = |status: &Value| {
        status["sources"][0]["destinations"]
            .as_array()
            .unwrap()
            .iter()
            .any(|lane| lane["pipeline"] == "db/b/replay-1" && lane["delivered"].as_u64() > Some(10))
    };
    world.daemon.wait_until("the replay has begun", begun).await;
    world.daemon.kill().await;
    world.start().await;
    copy.wait_until("SELECT count(*) = 200 FROM forebay_events WHERE op = 'insert'").await;
    let over = |status: &Value| status["sources"][0]["destinations"].as_array().unwrap().len() == 3;
    world.daemon.wait_until("the replay is done", over).await;
    let doubled: i64 = copy.value("SELECT count(*) - count(DISTINCT id) FROM forebay_events").await;
    assert_eq!(doubled, 0);

    world.command(&["replay", "--destination", "b", "--from", "oldest", "--detach"]).await;
    let said = world.command(&["replay", "stop", "2"]).await;
    assert!(said.contains("given up"), "{said}");
    world.daemon.wait_until("it is gone", over).await;
    assert_eq!(world.daemon.stop().await, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_replay_that_cannot_be_is_refused_with_what_to_do() {
    let mut world = World::of("refused", "journal: none\n", &[A]).await;
    world.start().await;
    let said = world.refused(78, &["replay", "--destination", "a", "--from", "oldest"]).await;
    assert!(said.contains("no source has a journal"), "{said}");
    assert_eq!(world.daemon.stop().await, 0);
    world.configure(KEPT, &[A]);
    world.start().await;
    for (arguments, word) in [
        (["replay", "--destination", "x", "--from", "oldest"], "no destination `x`"),
        (["replay", "--destination", "a", "--from", "yesterday"], "not understood"),
        (["replay", "--destination", "a", "--from", "{\"version\":1}"], "position"),
    ] {
        let output = world.daemon.command(&arguments).await;
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(!output.status.success() && said.contains(word), "{arguments:?}: {said}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_journal_in_kafka_has_is_replayed_by_time_and_key_and_not_by_a_log_position() {
    let kafka = Kafka::shared().await;
    let topic = unique("journal");
    let journal = format!("journal: {{type: kafka, brokers: [\"{}\"], topic: {topic}}}\n", kafka.bootstrap());
    let mut world = World::of("kafka", &journal, &[A, B]).await;
    world.start().await;
    world.insert(0..50).await;
    world.has("a.ndjson", 50).await;
    world.has("b.ndjson", 50).await;
    world.command(&["replay", "--destination", "a", "--from", "oldest"]).await;
    let mut again = after(&world, "a.ndjson", 50);
    again.sort_unstable();
    assert_eq!(again, (0..50).collect::<Vec<_>>());
    world.command(&["replay", "--destination", "a", "--from", "1h", "--key", "7"]).await;
    assert_eq!(after(&world, "a.ndjson", 100), [7]);
    let said = world.refused(78, &["replay", "--destination", "a", "--from", "0/1"]).await;
    assert!(said.contains("name a time instead"), "{said}");
    assert_eq!(world.ids("b.ndjson").len(), 50, "another destination got it too");
    assert_eq!(world.daemon.stop().await, 0);
    // Only Kafka knows whether all of it was read, so it is not left behind without a word.
    world.configure("journal: none\n", &[A, B]);
    world.daemon.spawn();
    assert_eq!(world.daemon.exit_code().await, 78);
    assert!(world.daemon.stderr().contains("checkpoint reset"), "{}", world.daemon.stderr());
    for key in ["db/a", "db/b"] {
        world.command(&["checkpoint", "reset", key, "--yes"]).await;
    }
    world.start().await;
    assert_eq!(world.daemon.stop().await, 0);
}
