//! A topic whose readers see only what is committed has each event once: the daemon dies at every step of a
//! transaction, hangs while another one takes over, and forgets where it was; the broker dies; sources share it.

use std::collections::BTreeMap;
use std::fs;
use std::time::Duration;

use forebay_integration::checker::Order;
use forebay_integration::workload::{Contents, Ledger, Workload};
use forebay_integration::{Daemon, Database, Kafka, Postgres, Signal, Topic, unique};
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use tokio::time::sleep;

use super::steps::{TRANSACTION, dies_at};
use super::{FOREBAY, Output, assert_adds_up, full, load, read_by, reading, settled};

/// The part of a configuration that writes to a topic in transactions.
fn destination(kafka: &Kafka, topic: &Topic) -> String {
    format!(
        "destinations:
  topic:
    type: kafka
    brokers: [\"{}\"]
    topic: {}
    create_topics: {{}}
    transactions: {{positions_topic: {}_positions}}
    batch: {{records: 100}}
    retry: {{initial: 50ms, max: 1s}}
",
        kafka.bootstrap(),
        topic.name(),
        topic.name(),
    )
}

/// Every message of the topic has an id of its own, schemas too.
async fn assert_each_id_once(topic: &Topic) {
    let mut times: BTreeMap<String, usize> = BTreeMap::new();
    for message in topic.all().await {
        let id = message.headers.iter().find(|(name, _)| name == "forebay-id").unwrap().1.clone().unwrap();
        *times.entry(String::from_utf8(id).unwrap()).or_default() += 1;
    }
    let twice: Vec<_> = times.iter().filter(|(_, times)| **times > 1).collect();
    assert!(twice.is_empty(), "{} ids came more than once: {:?}", twice.len(), &twice[..twice.len().min(5)]);
}

async fn assert_exactly_once(topic: &Topic, ledger: &Ledger, contents: &Contents) {
    let report = Output::of_topic(topic).await.judge(Order::PerKey, ledger, contents);
    eprintln!("topic: {report}");
    report.expect_exactly_once();
    assert_each_id_once(topic).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_death_at_any_step_of_a_transaction_leaves_each_event_once_in_the_topic() {
    let settings = load();
    let mut rng = StdRng::seed_from_u64(settings.seed);
    let kafka = Kafka::shared().await;
    let source = Postgres::shared(15).await.database("transactions").await;
    let topic = kafka.topic("transactions", 3).await;
    Workload::create_tables(source.url()).await;
    let mut daemon = Daemon::new(FOREBAY, &(reading(&source, "64MiB") + &destination(kafka, &topic)));
    read_by(&mut daemon).await;
    let mut workload = Workload::start(source.url(), &settings);
    workload.commits(50).await;
    daemon.kill().await;
    for _ in 0..if full() { 10 } else { 2 } {
        for (step, most) in TRANSACTION {
            dies_at(&mut daemon, step, rng.random_range(1..=most)).await;
        }
        // What is not of this destination alone.
        for step in ["delivered", "accepted", "before-save", "saved"] {
            dies_at(&mut daemon, step, rng.random_range(1..=10)).await;
        }
    }
    read_by(&mut daemon).await;
    workload.commits(50).await;
    let (ledger, contents) = workload.stop().await;
    let status = settled(&mut daemon, &source).await;
    assert_adds_up(&status, &["topic"]);
    assert_exactly_once(&topic, &ledger, &contents).await;
    assert_eq!(daemon.stop().await, 0, "{}", daemon.stderr());
}

#[tokio::test(flavor = "multi_thread")]
async fn brokers_and_daemons_that_are_killed_leave_each_event_once_in_the_topic() {
    let settings = load();
    let mut rng = StdRng::seed_from_u64(settings.seed);
    let mut kafka = Kafka::start(forebay_integration::Broker::Plain).await;
    let source = Postgres::shared(15).await.database("killed").await;
    let topic = kafka.topic("killed", 3).await;
    Workload::create_tables(source.url()).await;
    let mut daemon = Daemon::new(FOREBAY, &(reading(&source, "64MiB") + &destination(&kafka, &topic)));
    read_by(&mut daemon).await;
    let mut workload = Workload::start(source.url(), &settings);
    for round in 0..if full() { 10 } else { 3 } {
        workload.commits(30).await;
        sleep(Duration::from_millis(rng.random_range(0..500))).await;
        if round % 2 == 0 {
            kafka.kill().await
        } else {
            kafka.stop().await
        }
        sleep(Duration::from_millis(rng.random_range(0..1_000))).await;
        if rng.random_bool(0.5) {
            daemon.kill().await;
            daemon.spawn();
        }
        kafka.start_again().await;
        sleep(Duration::from_millis(rng.random_range(0..3_000))).await;
        assert!(daemon.is_running(), "the daemon ended by itself\n{}", daemon.stderr());
        daemon.kill().await;
        daemon.start().await;
    }
    workload.commits(30).await;
    let (ledger, contents) = workload.stop().await;
    settled(&mut daemon, &source).await;
    assert_exactly_once(&topic, &ledger, &contents).await;
    assert_eq!(daemon.stop().await, 0, "{}", daemon.stderr());
}

/// A daemon that reads through a slot of its own, under the same name of the source and the same publication: so its
/// marks are the other's.
fn twin(source: &Database, slot: &str, destination: &str) -> Daemon {
    let reading =
        reading(source, "64MiB").replace(&format!("slot: {}", source.name()), &format!("slot: {slot}"));
    Daemon::new(FOREBAY, &(reading + destination))
}

fn writes(status: &serde_json::Value) -> bool {
    status["sources"][0]["destinations"][0]["delivered"].as_u64() > Some(0)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_daemon_that_hung_while_another_took_over_is_fenced_and_spoils_nothing() {
    let settings = load();
    let kafka = Kafka::shared().await;
    let source = Postgres::shared(15).await.database("zombie").await;
    let topic = kafka.topic("zombie", 3).await;
    Workload::create_tables(source.url()).await;
    let slots = [unique("zombie_a"), unique("zombie_b")];
    let [mut zombie, mut heir] =
        slots.each_ref().map(|slot| twin(&source, slot, &destination(kafka, &topic)));
    // Both slots are there before the first commit; the heir waits.
    read_by(&mut heir).await;
    assert_eq!(heir.stop().await, 0);
    read_by(&mut zombie).await;
    let mut workload = Workload::start(source.url(), &settings);
    workload.commits(60).await;
    // Whoever takes over last has the stream, so it must have done so before it hangs.
    zombie.wait_until("the daemon that will hang writes", writes).await;
    zombie.signal(Signal::STOP);
    workload.commits(20).await;
    read_by(&mut heir).await;
    workload.commits(20).await;
    heir.wait_until("the heir writes", writes).await;
    zombie.signal(Signal::CONT);
    assert_eq!(zombie.exit_code().await, 69, "{}", zombie.stderr());
    assert!(zombie.stderr().contains("another daemon has taken it over"), "{}", zombie.stderr());
    assert!(zombie.stderr().contains("one daemon alone"), "{}", zombie.stderr());
    workload.commits(20).await;
    let (ledger, contents) = workload.stop().await;
    let end: String = source.value("select pg_current_wal_lsn()::text").await;
    let confirmed = format!(
        "select confirmed_flush_lsn >= '{end}'::pg_lsn from pg_replication_slots where slot_name = '{}'",
        slots[1]
    );
    source.wait_until(&confirmed).await;
    assert_exactly_once(&topic, &ledger, &contents).await;
    assert_eq!(heir.stop().await, 0, "{}", heir.stderr());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_daemon_that_lost_its_folder_writes_nothing_twice() {
    let settings = load();
    let kafka = Kafka::shared().await;
    let source = Postgres::shared(15).await.database("lost").await;
    let topic = kafka.topic("lost", 3).await;
    Workload::create_tables(source.url()).await;
    let mut daemon = Daemon::new(FOREBAY, &(reading(&source, "64MiB") + &destination(kafka, &topic)));
    read_by(&mut daemon).await;
    let mut workload = Workload::start(source.url(), &settings);
    for _ in 0..3 {
        workload.commits(30).await;
        daemon.kill().await;
        // What is committed in the topic and not confirmed to the server comes again.
        dies_at(&mut daemon, "before-save", 3).await;
        fs::remove_dir_all(daemon.path("data")).unwrap();
        read_by(&mut daemon).await;
    }
    let (ledger, contents) = workload.stop().await;
    settled(&mut daemon, &source).await;
    assert_exactly_once(&topic, &ledger, &contents).await;
    assert_eq!(daemon.stop().await, 0, "{}", daemon.stderr());
}

#[tokio::test(flavor = "multi_thread")]
async fn two_sources_of_one_daemon_write_to_one_topic_each_event_once() {
    let settings = load();
    let kafka = Kafka::shared().await;
    let server = Postgres::shared(15).await;
    let sources = [server.database("left").await, server.database("right").await];
    let topics = [kafka.topic("left", 3).await, kafka.topic("right", 3).await];
    let mut config = "sources:\n".to_owned();
    for (name, source) in ["left", "right"].iter().zip(&sources) {
        Workload::create_tables(source.url()).await;
        config += &format!(
            "  {name}:
    type: postgres
    url: {}
    tables: [\"load.*\"]
    publication: {slot}
    slot: {slot}
    snapshot: never
    heartbeat: 200ms
",
            source.url(),
            slot = source.name()
        );
    }
    // One destination for both, in topics that tell them apart for the judge.
    let suffix = unique("both");
    config += &destination(kafka, &topics[0])
        .replace(&format!("topic: {}\n", topics[0].name()), &format!("topic: \"{{source}}.{suffix}\"\n"));
    let topics = ["left", "right"].map(|name| kafka.existing(&format!("{name}.{suffix}")));
    let mut daemon = Daemon::new(FOREBAY, &config);
    let both = |status: &serde_json::Value| {
        let sources = status["sources"].as_array().unwrap();
        sources.len() == 2 && sources.iter().all(|source| source["connected"] == true)
    };
    daemon.start().await;
    daemon.wait_until("both sources are connected", both).await;
    let mut workloads = sources.each_ref().map(|source| Workload::start(source.url(), &settings));
    for step in ["kafka-transaction-begun", "kafka-transaction-written", "kafka-transaction-committed"] {
        for workload in &mut workloads {
            workload.commits(20).await;
        }
        daemon.kill().await;
        dies_at(&mut daemon, step, 7).await;
        daemon.start().await;
        daemon.wait_until("both sources are connected", both).await;
    }
    for ((workload, source), topic) in workloads.into_iter().zip(&sources).zip(&topics) {
        let (ledger, contents) = workload.stop().await;
        settled(&mut daemon, source).await;
        assert_exactly_once(topic, &ledger, &contents).await;
    }
    assert_eq!(daemon.stop().await, 0, "{}", daemon.stderr());
}
