//! The suites against a journal in Kafka: its writer as a destination, its readers as sources.

use std::cmp::Ordering;
use std::num::NonZeroUsize;
use std::ops::Range;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use forebay_api::delivery::{Part, Progress};
use forebay_api::testing::destination::{self, DestinationRig, Disturbance, SOURCE};
use forebay_api::testing::source::{self, SourceRig};
use forebay_api::{
    Batch, Chunk, Delivery, Destination, Draft, Encoded, Event, Journal, JournalConnector, JournalSetting,
    Mark, Op, Position, ReaderSetting, Row, Since, Source, Span, Start, StreamId, Subject,
};
use forebay_integration::{Broker, Kafka, PATIENCE, Proxy, Topic, unique};
use forebay_kafka::KafkaJournal;
use rdkafka::admin::{AdminOptions, AlterConfig, ResourceSpecifier};
use serde_json::{Value, json};
use tokio::sync::Mutex;

fn journal(broker: &str, topic: &Topic, group: &str) -> Arc<dyn Journal> {
    let config = json!({
        "brokers": [broker], "topic": topic.name(), "group": group,
        "reader_options": {"session.timeout.ms": 6000, "heartbeat.interval.ms": 300},
    });
    let setting = JournalSetting {
        source: SOURCE.to_owned(),
        instance: "test".to_owned(),
        data_dir: PathBuf::from("nowhere"),
    };
    KafkaJournal::build(serde_json::from_value(config).unwrap(), &setting).unwrap()
}

/// The chunks of a journal, as they were written.
async fn chunks(topic: &Topic) -> Vec<Chunk> {
    let messages = topic.all().await;
    let decoded = |payload: Option<Vec<u8>>| Chunk::decode(Bytes::from(payload.unwrap())).unwrap();
    messages.into_iter().map(|message| decoded(message.payload)).collect()
}

/// One broker for all checks, which only the writer reaches through a proxy.
type Server = Arc<Mutex<(Kafka, Proxy)>>;

/// Each check of the writer has a topic of its own.
struct WriterRig {
    server: Server,
    topic: Topic,
}

impl WriterRig {
    /// With one replica, two that must be in sync are a cluster that takes nothing.
    async fn demand_replicas(&self, replicas: &str) {
        let admin = self.server.lock().await.0.admin();
        let topic = ResourceSpecifier::Topic(self.topic.name());
        let altered = [AlterConfig::new(topic).set("min.insync.replicas", replicas)];
        let options = AdminOptions::new().request_timeout(Some(PATIENCE));
        for result in admin.alter_configs(&altered, &options).await.unwrap() {
            result.unwrap();
        }
    }
}

#[async_trait::async_trait]
impl DestinationRig for WriterRig {
    async fn build(&self) -> Arc<dyn Destination> {
        journal(&self.server.lock().await.1.address(), &self.topic, "none").writer()
    }

    async fn stored(&self) -> Option<Vec<Vec<u8>>> {
        let chunks = chunks(&self.topic).await;
        Some(chunks.iter().flat_map(|chunk| chunk.events().map(destination::body)).collect())
    }

    /// What an event has beside its parts takes more room in a record than in a chunk.
    fn too_large(&self) -> Option<usize> {
        Some(1_100_000)
    }

    fn disturbances(&self) -> &[Disturbance] {
        &[Disturbance::Kill, Disturbance::Cut, Disturbance::Refuse, Disturbance::Slow]
    }

    async fn disturb(&self, how: Disturbance) {
        match how {
            Disturbance::Kill => self.server.lock().await.0.kill().await,
            Disturbance::Cut => self.server.lock().await.1.shut().await,
            Disturbance::Refuse => self.demand_replicas("2").await,
            Disturbance::Slow => self.server.lock().await.1.delay(Duration::from_millis(150)),
        }
    }

    async fn restore(&self, how: Disturbance) {
        match how {
            Disturbance::Kill => self.server.lock().await.0.start_again().await,
            Disturbance::Cut => self.server.lock().await.1.open().await,
            Disturbance::Refuse => self.demand_replicas("1").await,
            Disturbance::Slow => self.server.lock().await.1.delay(Duration::ZERO),
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_journal_in_kafka_conforms_as_a_destination() {
    let server: Server = Arc::new(Mutex::new(Kafka::behind_proxy().await));
    let exceptions = [
        ("a_refused_record_is_rejected", "Kafka looks at no record's content"),
        ("what_is_held_is_struck_off", "no mark is stored with the data"),
    ];
    destination::conform(&exceptions, async |check| {
        let topic = server.lock().await.0.topic(check, 3).await;
        WriterRig { server: server.clone(), topic }
    })
    .await;
}

/// Each check of a reader has a topic of one partition and a group of its own.
struct ReaderRig {
    journal: Arc<dyn Journal>,
    topic: Topic,
    group: String,
    until: Option<Position>,
    /// The check that restarts the server has a server of its own.
    own: Option<Mutex<Kafka>>,
}

impl ReaderRig {
    async fn new(check: &str) -> ReaderRig {
        let own = if check == "a_server_that_restarts_loses_nothing" {
            Some(Kafka::start(Broker::Plain).await)
        } else {
            None
        };
        let server = match &own {
            Some(server) => server,
            None => Kafka::shared().await,
        };
        let (topic, group) = (server.topic(check, 1).await, unique(check));
        let journal = journal(&server.bootstrap(), &topic, &group);
        ReaderRig { journal, topic, group, until: None, own: own.map(Mutex::new) }
    }

    fn setting(&self, start: Start) -> ReaderSetting {
        ReaderSetting { name: "lake".into(), required: true, start, until: self.until.clone() }
    }
}

/// A batch of events that bear these numbers.
fn batch(numbers: Range<u64>) -> Arc<Batch> {
    let stream = Arc::new(StreamId { source: SOURCE.into(), epoch: 3 });
    let place = (Some("db"), Some("public"), Some("numbered"));
    let subject = Arc::new(Subject::new(("com.example", "public.numbered", "1-0-0"), place, String::new()));
    let mut draft = Draft::default();
    let mut ends = Vec::new();
    for number in numbers {
        let start = draft.buf.len();
        draft.buf.extend_from_slice(format!("{{\"number\":{number}}}").as_bytes());
        let (payload, subject) = (draft.since(start), draft.subject(&subject));
        let mark = Mark { major: (1, number + 1), minor: 0, part: 0 };
        let none = Span::default();
        let (id, key, before, unchanged, contexts, extra) = (none, none, none, none, none, none);
        let (time, xid, op) = (1_795_372_440_000_000, 0, Op::Insert);
        draft.push(Row {
            mark,
            time,
            xid,
            subject,
            op,
            id,
            key,
            before,
            payload,
            unchanged,
            contexts,
            extra,
        });
        ends.push(0);
    }
    let chunk = draft.finish(&stream, 0, false);
    Arc::new(Batch { chunk, verdicts: Vec::new(), encoded: vec![Encoded::new(Vec::new(), ends)] })
}

/// Writes these numbers, as often as it takes.
async fn write(writer: &dyn Destination, numbers: Range<u64>) {
    let batch = batch(numbers);
    let rows: Arc<[u32]> = (0..u32::try_from(batch.chunk.rows.len()).unwrap()).collect();
    let range = 0..rows.len();
    let mut progress = Progress::new(rows.len());
    let parts: Arc<[Part]> = [Part { batch, rows, range }].into();
    while progress.open() > 0 {
        if writer.open().await.is_err() {
            continue;
        }
        let (delivery, back) = Delivery::new(parts.clone(), 0, progress);
        let outcome = writer.deliver(delivery).await;
        progress = back.await.unwrap();
        assert!(outcome.is_err() || progress.open() == 0, "success leaves nothing open");
    }
}

#[async_trait::async_trait]
impl SourceRig for ReaderRig {
    async fn build(&self) -> Box<dyn Source> {
        self.journal.reader(self.setting(Start::Oldest))
    }

    async fn write(&self, numbers: Range<u64>) {
        let numbers: Vec<u64> = numbers.collect();
        let writer = self.journal.writer();
        for some in numbers.chunks(NonZeroUsize::new(7).unwrap().get()) {
            write(&*writer, some[0]..some[some.len() - 1] + 1).await;
        }
    }

    fn number(&self, event: Event<'_>) -> Option<u64> {
        let payload: Value = serde_json::from_slice(event.payload()).unwrap();
        payload["number"].as_u64()
    }

    async fn confirmed(&self, position: &Position) -> Option<Ordering> {
        let position: Value = serde_json::from_slice(&position.0).unwrap();
        let next = position["topics"][self.topic.name()]["0"].as_i64().unwrap();
        let committed = self.topic.committed(&format!("{}.lake", self.group)).await;
        Some(committed.get(&0).copied().unwrap_or(-1).cmp(&next))
    }

    fn can_restart(&self) -> bool {
        self.own.is_some()
    }

    async fn stop_server(&self) {
        self.own.as_ref().unwrap().lock().await.kill().await;
    }

    async fn start_server(&self) {
        self.own.as_ref().unwrap().lock().await.start_again().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reader_of_a_journal_in_kafka_conforms_as_a_source() {
    source::conform(&[], async |check| ReaderRig::new(check).await).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_journal_in_kafka_tells_where_it_begins_and_ends_and_where_a_time_is() {
    let rig = ReaderRig::new("bounds").await;
    rig.write(0..50).await;
    let at = |position: &Position| -> i64 {
        let position: Value = serde_json::from_slice(&position.0).unwrap();
        position["topics"][rig.topic.name()]["0"].as_i64().unwrap()
    };
    let end = at(&rig.journal.end().await.unwrap());
    assert_eq!(end, *rig.topic.ends().await.get(&0).unwrap());
    assert!(end >= 8, "50 numbers by sevens are eight messages at least");
    for (since, expected) in [
        (Since::Oldest, 0),
        (Since::Major(20), 0),
        (Since::Time(0), 0),
        // A day from now: nothing is as young as that.
        (Since::Time(i64::MAX / 2), end),
    ] {
        assert_eq!(at(&rig.journal.locate(&since).await.unwrap()), expected, "{since:?}");
    }
    // Nobody has a place in it yet, which is as good as forgotten.
    rig.journal.forget("lake").await.unwrap();
}
