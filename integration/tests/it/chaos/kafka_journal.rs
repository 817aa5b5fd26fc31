//! Several daemons share the work through a journal in Kafka: one takes in, three deliver, and all of them are killed and
//! stopped again and again, so that partitions move all the time.

use std::time::Duration;

use forebay_integration::checker::Order;
use forebay_integration::workload::Workload;
use forebay_integration::{Daemon, Database, Kafka, Postgres, Signal, Topic, unique};
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use serde_json::Value;
use tokio::time::{Instant, sleep};

use super::{ASK_PAUSE, FOREBAY, Output, SETTLE_LIMIT, full, load, read_by, reading};

const PARTITIONS: i32 = 6;
/// Longer than the group waits for one that says nothing.
const HANG: Duration = Duration::from_secs(9);

/// What all daemons of a test have in common.
struct Shared {
    journal: Topic,
    group: String,
    bootstrap: String,
    copy: Database,
    out: Topic,
}

impl Shared {
    async fn new() -> Shared {
        let kafka = Kafka::shared().await;
        Shared {
            journal: kafka.topic("journal", PARTITIONS).await,
            out: kafka.topic("out", 3).await,
            group: unique("journal"),
            bootstrap: kafka.bootstrap(),
            copy: Postgres::shared(15).await.database("copy").await,
        }
    }

    /// A daemon with this part of the work.
    fn daemon(&self, source: &Database, role: &str) -> Daemon {
        let config = reading(source, "64MiB")
            + &format!(
                "journal:
  type: kafka
  role: {role}
  brokers: ['{}']
  topic: {}
  group: {}
  reader_options: {{session.timeout.ms: 6000, heartbeat.interval.ms: 300, max.poll.interval.ms: 20000}}
destinations:
  topic: {{type: kafka, brokers: ['{}'], topic: {}}}
  table: {{type: postgres, url: \"{}\", batch: {{records: 200}}, retry: {{initial: 50ms, max: 1s}}}}
",
                self.bootstrap,
                self.journal.name(),
                self.group,
                self.bootstrap,
                self.out.name(),
                self.copy.url()
            );
        Daemon::new(FOREBAY, &config)
    }

    /// Waits until each destination's group has all that is in the journal.
    async fn delivered(&self, daemons: &[&Daemon]) {
        let deadline = Instant::now() + SETTLE_LIMIT;
        let ends = self.journal.ends().await;
        for reader in ["topic", "table"] {
            let group = format!("{}.{reader}", self.group);
            loop {
                let committed = self.journal.committed(&group).await;
                if ends.iter().all(|(partition, end)| committed.get(partition).is_some_and(|at| at >= end)) {
                    break;
                }
                if Instant::now() >= deadline {
                    let said: Vec<String> = daemons.iter().map(|daemon| daemon.stderr()).collect();
                    panic!("`{reader}` has {committed:?} of {ends:?}\n{}", said.join("\n--\n"));
                }
                sleep(ASK_PAUSE).await;
            }
        }
    }
}

/// Waits until the server keeps no log for us of all that is committed.
async fn taken_in(daemon: &mut Daemon, source: &Database) {
    let end: String = source.value("select pg_current_wal_lsn()::text").await;
    let confirmed = format!(
        "select confirmed_flush_lsn >= '{end}'::pg_lsn from pg_replication_slots where slot_name = '{}'",
        source.name()
    );
    let deadline = Instant::now() + SETTLE_LIMIT;
    while !source.value::<bool>(&confirmed).await {
        assert!(daemon.is_running(), "the daemon ended by itself\n{}", daemon.stderr());
        assert!(Instant::now() < deadline, "the slot stands still: {:#}", daemon.status().await);
        sleep(ASK_PAUSE).await;
    }
}

/// Partitions that a daemon has, of one destination.
fn owned(status: &Value, destination: &str) -> u64 {
    let lanes = status["sources"][0]["destinations"].as_array().unwrap();
    let lane = lanes.iter().find(|lane| lane["name"] == destination).unwrap();
    let text = lane["reader"]["partitions"].as_str().unwrap_or("0");
    text.parse().unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn daemons_that_share_the_work_through_kafka_lose_and_reorder_nothing_while_they_are_killed() {
    let settings = load();
    let mut rng = StdRng::seed_from_u64(settings.seed);
    let source = Postgres::shared(15).await.database("shared").await;
    Workload::create_tables(source.url()).await;
    let shared = Shared::new().await;
    let mut intake = shared.daemon(&source, "intake");
    let mut crew = [
        shared.daemon(&source, "delivery"),
        shared.daemon(&source, "delivery"),
        shared.daemon(&source, "delivery"),
    ];
    read_by(&mut intake).await;
    for daemon in &mut crew {
        daemon.start().await;
    }
    let mut workload = Workload::start(source.url(), &settings);
    for _ in 0..if full() { 60 } else { 12 } {
        sleep(Duration::from_millis(rng.random_range(200..3_000))).await;
        let at = rng.random_range(0..crew.len() + 1);
        let daemon = crew.get_mut(at).unwrap_or(&mut intake);
        assert!(daemon.is_running(), "a daemon ended by itself\n{}", daemon.stderr());
        if rng.random_range(0..3) == 0 {
            assert_eq!(daemon.stop().await, 0, "{}", daemon.stderr());
        } else {
            daemon.kill().await;
        }
        daemon.start().await;
    }
    workload.commits(200).await;
    let (ledger, contents) = workload.stop().await;
    taken_in(&mut intake, &source).await;
    shared.delivered(&[&intake, &crew[0], &crew[1], &crew[2]]).await;
    for daemon in crew.iter_mut().chain([&mut intake]) {
        assert_eq!(daemon.stop().await, 0, "{}", daemon.stderr());
        // That a partition was somebody else's for a while is nothing that an operator must mend.
        assert!(!daemon.stderr().contains("destination stopped"), "{}", daemon.stderr());
    }
    let topic = Output::of_topic(&shared.out).await.judge(Order::PerKey, &ledger, &contents);
    eprintln!("topic: {topic}");
    topic.expect_at_least_once();
    let table =
        Output::of_table(&shared.copy, "forebay_events").await.judge(Order::PerKey, &ledger, &contents);
    eprintln!("table: {table}");
    table.expect_exactly_once();
}

/// Where writing is fenced, not even one that hangs and wakes up again does harm.
#[tokio::test(flavor = "multi_thread")]
async fn a_daemon_that_hangs_and_wakes_up_stores_nothing_behind_the_one_that_took_over() {
    let settings = load();
    let source = Postgres::shared(15).await.database("hangs").await;
    Workload::create_tables(source.url()).await;
    let shared = Shared::new().await;
    let mut intake = shared.daemon(&source, "intake");
    let mut crew = [shared.daemon(&source, "delivery"), shared.daemon(&source, "delivery")];
    read_by(&mut intake).await;
    for daemon in &mut crew {
        daemon.start().await;
    }
    let mut workload = Workload::start(source.url(), &settings);
    for round in 0..if full() { 12 } else { 3 } {
        workload.commits(50).await;
        let daemon = &mut crew[round % 2];
        daemon.signal(Signal::STOP);
        sleep(HANG).await;
        daemon.signal(Signal::CONT);
        daemon.wait_until("it is a member again", |status| owned(status, "table") > 0).await;
    }
    workload.commits(100).await;
    let (ledger, contents) = workload.stop().await;
    taken_in(&mut intake, &source).await;
    shared.delivered(&[&intake, &crew[0], &crew[1]]).await;
    for daemon in crew.iter_mut().chain([&mut intake]) {
        assert_eq!(daemon.stop().await, 0, "{}", daemon.stderr());
        // That a partition was somebody else's for a while is nothing that an operator must mend.
        assert!(!daemon.stderr().contains("destination stopped"), "{}", daemon.stderr());
    }
    let table =
        Output::of_table(&shared.copy, "forebay_events").await.judge(Order::PerKey, &ledger, &contents);
    eprintln!("table: {table}");
    table.expect_exactly_once();
}
