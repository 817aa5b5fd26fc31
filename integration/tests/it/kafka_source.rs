//! What the Kafka source promises beyond the conformance suite: what an event looks like, where it goes on after a
//! restart, and that daemons of one group hand partitions around without loss or disorder.

mod events;
mod group;
mod start;

use std::collections::BTreeMap;
use std::path::Path;

use forebay_integration::{Daemon, Database, Draft, Kafka, Postgres, Proxy, Topic, unique};
use serde_json::Value;

/// The daemon's program.
const FOREBAY: &str = env!("CARGO_BIN_EXE_forebay-under-test");

/// A topic, and the daemons of one group that read it, each into a file of its own.
struct Reading {
    topic: Topic,
    group: String,
    bootstrap: String,
}

impl Reading {
    async fn new(name: &str, partitions: i32) -> Reading {
        let kafka = Kafka::shared().await;
        let topic = kafka.topic(name, partitions).await;
        Reading { topic, group: unique(name), bootstrap: kafka.bootstrap() }
    }

    /// A daemon that is not started yet, with more keys for its source.
    fn daemon(&self, more: &str) -> Daemon {
        Daemon::new(FOREBAY, &self.config(more, "type: file\n    path: out.ndjson"))
    }

    /// A configuration with one destination.
    fn config(&self, more: &str, destination: &str) -> String {
        format!(
            "sources:
  log:
    type: kafka
    vendor: com.acme
    brokers: ['{}']
    topics: ['{}']
    group: {}
    options: {{session.timeout.ms: 6000, heartbeat.interval.ms: 300, max.poll.interval.ms: 20000}}
{more}
destinations:
  out:
    {destination}
",
            self.bootstrap,
            self.topic.name(),
            self.group
        )
    }

    /// Writes numbers under a key each; the key decides the partition.
    async fn write(&self, partition: i32, numbers: std::ops::Range<u64>) {
        let values: Vec<(String, String)> = numbers
            .map(|number| {
                (format!("{{\"key\":\"{partition}-{}\"}}", number % 5), format!("{{\"number\":{number}}}"))
            })
            .collect();
        let drafts: Vec<Draft<'_>> = values
            .iter()
            .map(|(key, value)| Draft {
                key: Some(key.as_bytes()),
                value: Some(value.as_bytes()),
                ..Draft::default()
            })
            .collect();
        self.topic.write(partition, &drafts).await;
    }
}

/// A database, the way to it, and the destination that takes this way and waits for as long as it takes.
async fn table_behind_a_proxy() -> (Database, Proxy, String) {
    let server = Postgres::shared(15).await;
    let copy = server.database("copy").await;
    let line = Proxy::to(server.server.port()).await;
    let url = copy.url().replace(&format!(":{}/", server.server.port()), &format!(":{}/", line.port()));
    (copy, line, table(&url))
}

/// A destination of type `postgres`.
fn table(url: &str) -> String {
    format!("type: postgres\n    url: {url}\n    timeout: 10m")
}

/// How many partitions a daemon has.
fn owned(status: &Value) -> u64 {
    let text = status["sources"][0]["details"]["partitions"].as_str().unwrap_or("0");
    text.parse().expect("a number")
}

/// The events that a daemon has written.
fn events(daemon: &Daemon) -> Vec<Value> {
    lines(&daemon.path("out.ndjson"))
}

fn lines(path: &Path) -> Vec<Value> {
    let text = std::fs::read_to_string(path).unwrap_or_default(); // nothing was written yet
    let whole = text.split_inclusive('\n').filter(|line| line.ends_with('\n'));
    whole.map(|line| serde_json::from_str(line).unwrap_or_else(|error| panic!("{error} in {line}"))).collect()
}

/// Waits until a daemon has written so many events, and gives them.
async fn written(daemon: &mut Daemon, count: usize) -> Vec<Value> {
    let path = daemon.path("out.ndjson");
    daemon.wait_until("the events are written", |_| lines(&path).len() >= count).await;
    events(daemon)
}

/// The numbers of each partition, in the order in which they were written.
fn numbers<'a>(events: impl IntoIterator<Item = &'a Value>) -> BTreeMap<i64, Vec<u64>> {
    let mut numbers: BTreeMap<i64, Vec<u64>> = BTreeMap::new();
    for event in events {
        let partition = event["source"]["partition"].as_i64().expect("an event tells its partition");
        numbers.entry(partition).or_default().push(event["payload"]["number"].as_u64().expect("a number"));
    }
    numbers
}

/// Each is followed by its successor, or by a repeat that is followed again by all its successors.
fn assert_in_order(partition: i64, numbers: &[u64], count: u64) {
    assert_eq!(numbers.first(), Some(&0), "the first of partition {partition} was overtaken");
    assert!(
        numbers.windows(2).all(|two| two[1] <= two[0] + 1),
        "an event of partition {partition} was overtaken or lost: {numbers:?}"
    );
    assert_eq!(numbers.last(), Some(&(count - 1)), "partition {partition} ends too early");
}
