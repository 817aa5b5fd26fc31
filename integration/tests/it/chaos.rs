//! The proof: a random workload, faults of every kind, and a judge who knows what was committed.
//!
//! One seed decides what is written and what breaks when (`FOREBAY_SEED`, printed); how the two meet is the machine's.
//! With `FOREBAY_FULL` the runs are long. `docs/guarantees.md` says which promise each of these tests proves; that a
//! fast shutdown of the source is not held up is proven in `postgres_source/restart.rs`.

mod faults;
mod journal;
mod kafka_journal;
mod outage;
mod promises;
pub(crate) mod steps;
mod transactions;

use std::path::{Path, PathBuf};
use std::time::Duration;

use forebay_integration::checker::{Checker, Order, Report};
use forebay_integration::workload::{Contents, Ledger, Settings};
use forebay_integration::{Daemon, Database, Postgres, Proxy, Topic};
use serde_json::Value;
use serde_json::value::RawValue;
use tokio::time::{Instant, sleep};

/// The daemon's program.
const FOREBAY: &str = env!("CARGO_BIN_EXE_forebay-under-test");

/// How long what gathered during the longest outage may take to get through, on a machine that is busy otherwise.
const SETTLE_LIMIT: Duration = Duration::from_secs(240);
/// How often it is asked for.
const ASK_PAUSE: Duration = Duration::from_millis(50);

/// The most records of a batch, hence of what a best-effort destination may have stored without saying so.
const BATCH_RECORDS: u64 = 200;

/// Whether the long runs are wanted.
fn full() -> bool {
    std::env::var_os("FOREBAY_FULL").is_some()
}

/// The workload of these tests: slow, since all of it must pass several times, under faults, in little time.
fn load() -> Settings {
    Settings { pause: Duration::from_millis(25), ..Settings::random() }
}

/// How long a server is away.
fn outage() -> Duration {
    Duration::from_secs(if full() { 60 } else { 10 })
}

/// The part of a configuration that reads the workload's tables, with so much memory; a server that is away at the start
/// is waited for.
fn reading(source: &Database, memory: &str) -> String {
    format!(
        "sources:
  db:
    type: postgres
    url: {url}
    tables: [\"load.*\"]
    publication: {name}
    slot: {name}
    snapshot: never
    heartbeat: 200ms
startup: {{wait: 10m}}
limits: {{memory: {memory}}}
",
        url = source.url(),
        name = source.name()
    )
}

/// Where a database is for somebody who has to go through a proxy.
fn behind(proxy: &Proxy, server: &Postgres, database: &Database) -> String {
    database.url().replace(&format!(":{}/", server.server.port()), &format!(":{}/", proxy.port()))
}

/// Starts a daemon and waits until it reads.
async fn read_by(daemon: &mut Daemon) {
    daemon.start().await;
    let connected = |status: &Value| status["sources"][0]["connected"] == true;
    daemon.wait_until("the source is connected", connected).await;
}

/// Waits until the server knows that it need keep nothing of what is committed.
async fn confirmed(daemon: &mut Daemon, source: &Database) {
    let end: String = source.value("select pg_current_wal_lsn()::text").await;
    let known = format!(
        "select confirmed_flush_lsn >= '{end}'::pg_lsn from pg_replication_slots where slot_name = '{}'",
        source.name()
    );
    let deadline = Instant::now() + SETTLE_LIMIT;
    while !source.value::<bool>(&known).await {
        assert!(daemon.is_running(), "the daemon ended by itself\n{}", daemon.stderr());
        assert!(
            Instant::now() < deadline,
            "not settled after {SETTLE_LIMIT:?}: {:#}\n{}",
            daemon.status().await,
            daemon.stderr()
        );
        sleep(ASK_PAUSE).await;
    }
}

/// Waits until all that is committed is settled at every destination and the server knows it; gives the status then.
async fn settled(daemon: &mut Daemon, source: &Database) -> Value {
    confirmed(daemon, source).await;
    let idle = |status: &Value| {
        let lanes = lanes(status);
        status["memory"]["used_bytes"] == 0 && lanes.iter().all(|lane| lane["queue_records"] == 0)
    };
    daemon.wait_until("nothing is on its way and no memory is held", idle).await
}

fn lanes(status: &Value) -> &[Value] {
    status["sources"][0]["destinations"].as_array().unwrap()
}

fn lane<'a>(status: &'a Value, name: &str) -> &'a Value {
    lanes(status).iter().find(|lane| lane["name"] == name).unwrap()
}

/// Every event that entered is accounted for at each of these destinations, in the life of this process.
fn assert_adds_up(status: &Value, names: &[&str]) {
    for name in names {
        let lane = lane(status, name);
        let ends = ["delivered", "filtered", "dead_lettered", "dropped", "returned"];
        let settled: u64 = ends.iter().map(|end| lane[end].as_u64().unwrap()).sum();
        assert_eq!(status["sources"][0]["events"], settled, "{lane:#}");
        if lane["required"] == true {
            assert_eq!(lane["dropped"], 0, "a required destination drops nothing: {lane:#}");
        }
    }
}

/// The same behind a journal, where each destination counts what was read for it.
fn assert_adds_up_behind(status: &Value, names: &[&str]) {
    assert_adds_up(status, &["journal"]);
    for name in names {
        let lane = lane(status, name);
        let ends = ["delivered", "filtered", "dead_lettered", "dropped", "returned"];
        let settled: u64 = ends.iter().map(|end| lane[end].as_u64().unwrap()).sum();
        assert_eq!(lane["events"], settled, "{lane:#}");
        assert_eq!(lane["dropped"], 0, "what a journal keeps is not dropped: {lane:#}");
    }
}

/// What a destination holds: partition and event, in the order in which a reader gets them.
struct Output(Vec<(i32, Vec<u8>)>);

impl Output {
    /// The lines of every file of a folder, in the order of the files' names.
    fn of_folder(folder: &Path) -> Output {
        let mut files: Vec<PathBuf> =
            std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
        files.sort();
        let mut events = Vec::new();
        for file in files {
            let bytes = std::fs::read(file).unwrap();
            events.extend(bytes.split_inclusive(|byte| *byte == b'\n').map(|line| (0, line.to_vec())));
        }
        Output(events)
    }

    /// The rows of a table of events, in the order in which they were stored.
    async fn of_table(copy: &Database, table: &str) -> Output {
        let rows = copy.query(&format!("select body::text from {table} order by seq"), &[]).await;
        Output(rows.iter().map(|row| (0, row.get::<_, String>(0).into_bytes())).collect())
    }

    /// The messages of a topic.
    async fn of_topic(topic: &Topic) -> Output {
        let messages = topic.all().await;
        Output(messages.into_iter().map(|message| (message.partition, message.payload.unwrap())).collect())
    }

    /// The records inside the dead letters of a destination.
    fn of_dead_letters(daemon: &Daemon, destination: &str) -> Output {
        #[derive(serde::Deserialize)]
        struct Letter {
            record: Box<RawValue>,
        }
        let Output(letters) = Output::of_folder(&daemon.path("data/dead_letters").join(destination));
        let record = |(_, line): (i32, Vec<u8>)| {
            let Letter { record } = serde_json::from_slice(&line).unwrap();
            (0, record.get().as_bytes().to_vec())
        };
        Output(letters.into_iter().map(record).collect())
    }

    /// Holds it against what was committed.
    fn judge(&self, order: Order, ledger: &Ledger, contents: &Contents) -> Report {
        let mut checker = Checker::new(ledger, order);
        self.0.iter().for_each(|(partition, event)| checker.take(*partition, event));
        checker.finish(contents)
    }
}
