//! How long a change takes from its commit to a Kafka consumer, at 1,000 commits a second.
//!
//! Writer and consumer are tasks of this process, so there is one clock. A change's time begins when the client that
//! committed it hears of that; the time since it sent the statement is shown beside it.

use std::fmt;
use std::time::Duration;

use forebay_integration::bench::{Usage, load, peak_memory};
use forebay_integration::{Daemon, Database, Kafka, Topic, unique};
use rdkafka::ClientConfig;
use rdkafka::consumer::{Consumer, StreamConsumer};
use rdkafka::message::Headers;
use rdkafka::{Message, Offset, TopicPartitionList};
use serde::Deserialize;
use tokio::time::{Instant, MissedTickBehavior, interval, timeout};

use crate::readers::{Programs, configuration, into_topic};
use crate::workload;

/// Commits a second.
const RATE: u32 = 1000;

/// Changes before the first that counts: connections are new, caches are cold.
const WARM_UP: usize = 2 * RATE as usize;

/// The longest that the consumer waits for a message.
const SILENCE: Duration = Duration::from_secs(30);

/// When a change was sent to the database, and when its commit was answered.
#[derive(Clone, Copy, Debug)]
struct Committed {
    sent: Instant,
    answered: Instant,
}

/// What the consumer reads of a message's key.
#[derive(Deserialize)]
struct Key {
    id: i64,
}

/// All times, sorted.
pub(crate) struct Latency {
    setup: Setup,
    since_answer: Vec<Duration>,
    since_sent: Vec<Duration>,
    /// Commits a second that were really made.
    rate: f64,
    /// CPU-seconds of the daemon for each second.
    cores: f64,
    /// The most memory that the daemon had, in MiB.
    memory: f64,
    load: String,
}

/// What is between the database and the broker, and beside it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Setup {
    /// Nothing.
    Direct,
    /// A journal on disk.
    Journal,
    /// A journal, and another required destination that cannot be reached.
    JournalBesideDead,
}

impl Setup {
    pub(crate) const ALL: [Setup; 3] = [Setup::Direct, Setup::Journal, Setup::JournalBesideDead];
}

impl fmt::Display for Setup {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Setup::Direct => "without a journal",
            Setup::Journal => "behind a journal",
            Setup::JournalBesideDead => "behind a journal, beside a destination that is away",
        })
    }
}

/// Measures for so many seconds.
pub(crate) async fn measure(programs: &Programs, kafka: &Kafka, seconds: u32, setup: Setup) -> Latency {
    let (server, database) = workload::empty().await;
    let topic = kafka.topic("latency", 1).await;
    let slot = unique("latency");
    let mut destinations = format!("  out: {}\n", into_topic(kafka, topic.name()));
    if setup == Setup::JournalBesideDead {
        destinations += "  away: {type: postgres, url: \"postgres://postgres@127.0.0.1:1/away\"}\n";
    }
    let top = if setup == Setup::Direct { "" } else { "journal: disk\n" };
    let configuration = configuration(programs, database.url(), &slot, (top, &destinations));
    let mut daemon = Daemon::new(&programs.forebay, &configuration);
    daemon.start().await;
    daemon.wait_until("ready", |status| status["ready"] == true).await;
    let count = WARM_UP + seconds as usize * RATE as usize;
    let before = Usage::of(daemon.pid()).expect("the daemon runs").cpu();
    let consumer = consumer(kafka, &topic);
    let began = Instant::now();
    let consuming = tokio::spawn(consume(consumer, count));
    let committed = commit(&database, count).await;
    let took = began.elapsed().as_secs_f64();
    let received = consuming.await.expect("the consumer does not panic");
    let used = Usage::of(daemon.pid()).expect("the daemon runs").cpu() - before;
    let memory = peak_memory(daemon.pid()).expect("the daemon runs");
    assert_eq!(daemon.stop().await, 0, "the daemon does not stop in order:\n{}", daemon.stderr());
    drop(server);
    let counted = || committed.iter().zip(&received).skip(WARM_UP);
    // An event may be there before its own client has heard of its commit: that took no time at all.
    let mut since_answer: Vec<_> = counted()
        .map(|(committed, received)| received.saturating_duration_since(committed.answered))
        .collect();
    let mut since_sent: Vec<_> =
        counted().map(|(committed, received)| received.saturating_duration_since(committed.sent)).collect();
    since_answer.sort();
    since_sent.sort();
    Latency {
        setup,
        since_answer,
        since_sent,
        rate: count as f64 / took,
        cores: used / took,
        memory,
        load: load(),
    }
}

/// Commits one row after the other, on time; when each was sent and answered.
async fn commit(database: &Database, count: usize) -> Vec<Committed> {
    let client = database.connect().await;
    let statement = client.prepare(&workload::insert()).await.expect("the table is there");
    let mut clock = interval(Duration::from_secs(1) / RATE);
    clock.set_missed_tick_behavior(MissedTickBehavior::Burst);
    let mut committed = Vec::new();
    for id in (0i64..).take(count) {
        clock.tick().await;
        let sent = Instant::now();
        client.execute(&statement, &[&id]).await.expect("the row is new");
        committed.push(Committed { sent, answered: Instant::now() });
    }
    committed
}

/// When each change arrived.
async fn consume(consumer: StreamConsumer, count: usize) -> Vec<Instant> {
    let mut received = Vec::new();
    let mut expected = 0;
    while received.len() < count {
        let message = timeout(SILENCE, consumer.recv()).await;
        let message = message.unwrap_or_else(|_| panic!("no message within {SILENCE:?} after {expected}"));
        let message = message.expect("the broker runs");
        let mut headers = message.headers().into_iter().flat_map(Headers::iter);
        // Before the rows comes their schema.
        if headers.any(|header| header.key == "forebay-op" && header.value == Some(b"schema")) {
            continue;
        }
        received.push(Instant::now());
        let key: Key =
            serde_json::from_slice(message.key().expect("the table has a key")).expect("it is JSON");
        assert_eq!(key.id, expected, "in order, and each once");
        expected += 1;
    }
    received
}

/// A consumer of the topic's only partition.
fn consumer(kafka: &Kafka, topic: &Topic) -> StreamConsumer {
    let mut config = ClientConfig::new();
    config.set("bootstrap.servers", kafka.bootstrap()).set("group.id", unique("latency"));
    config.set("enable.auto.commit", "false");
    let consumer: StreamConsumer = config.create().expect("the configuration is right");
    let mut assigned = TopicPartitionList::new();
    let added = assigned.add_partition_offset(topic.name(), 0, Offset::Beginning);
    added.expect("the beginning is an offset");
    consumer.assign(&assigned).expect("the partition exists");
    consumer
}

impl fmt::Display for Latency {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            f,
            "commit to Kafka consumer {}: {:.0} commits/s, {} changes; the daemon used {:.2} of a core, peak {:.0} MiB (load {})",
            self.setup,
            self.rate,
            self.since_answer.len(),
            self.cores,
            self.memory,
            self.load,
        )?;
        writeln!(f, "{:<18} {:>8} {:>8} {:>8} {:>8}", "ms", "p50", "p95", "p99", "max")?;
        for (name, times) in [("since COMMIT", &self.since_answer), ("since it was sent", &self.since_sent)] {
            let at = |percent: usize| times[(times.len() - 1) * percent / 100].as_secs_f64() * 1e3;
            writeln!(f, "{name:<18} {:>8.2} {:>8.2} {:>8.2} {:>8.2}", at(50), at(95), at(99), at(100))?;
        }
        Ok(())
    }
}
