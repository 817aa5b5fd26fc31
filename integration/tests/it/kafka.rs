//! What the Kafka destination promises beyond the conformance suite: what a message looks like, which topic and
//! partition it goes to, how it meets security, and that a client which ends loses and overtakes nothing.

mod broken;
mod messages;
mod secure;
mod transactions;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use forebay_api::delivery::{Part, Progress};
use forebay_api::{
    Batch, Delivery, Destination, DestinationConnector, DestinationSetting, Draft, Encoded, Fault, Finding,
    Mark, Op, Row, Span, StreamId, Subject,
};
use forebay_integration::Message;
use forebay_kafka::KafkaDestination;
use serde_json::{Value, json};

/// An event as a test writes it.
#[derive(Clone, Debug)]
struct Sample {
    op: Op,
    key: String,
    body: Vec<u8>,
    /// Empty: made of its mark.
    id: String,
}

/// An insert of row `id`, whose body is JSON of that number.
fn insert(id: u64) -> Sample {
    let (key, body) = (format!("{{\"id\":{id}}}"), format!("{{\"n\":{id}}}").into_bytes());
    Sample { op: Op::Insert, key, body, id: String::new() }
}

/// Events of one table, with the marks that follow on each other.
struct Table {
    stream: Arc<StreamId>,
    subject: Arc<Subject>,
    next: u64,
}

impl Table {
    fn new(source: &str, table: &str) -> Table {
        let place = (Some("shop"), Some("public"), Some(table));
        let name = format!("public.{table}");
        Table {
            stream: Arc::new(StreamId { source: source.into(), epoch: 7 }),
            subject: Arc::new(Subject::new(("com.acme", &name, "1-0-0"), place, String::new())),
            next: 1,
        }
    }

    /// A batch of these events, in this order.
    fn batch(&mut self, samples: impl IntoIterator<Item = Sample>) -> Arc<Batch> {
        let (mut draft, mut buf, mut ends) = (Draft::default(), Vec::new(), Vec::new());
        for sample in samples {
            let start = draft.buf.len();
            draft.buf.extend_from_slice(sample.key.as_bytes());
            let (key, subject) = (draft.since(start), draft.subject(&self.subject));
            let start = draft.buf.len();
            draft.buf.extend_from_slice(sample.id.as_bytes());
            let id = draft.since(start);
            let mark = Mark { major: (1, self.next), minor: 0, part: 0 };
            self.next += 1;
            let none = Span::default();
            let (before, payload, unchanged, contexts, extra) = (none, none, none, none, none);
            let (time, xid, op) = (1_795_372_440_000_000, 0, sample.op);
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
            buf.extend_from_slice(&sample.body);
            ends.push(u32::try_from(buf.len()).unwrap());
        }
        let chunk = draft.finish(&self.stream, 0, false);
        Arc::new(Batch { chunk, verdicts: Vec::new(), encoded: vec![Encoded::new(buf, ends)] })
    }
}

/// One delivery across its attempts, as a lane keeps it.
struct Unit {
    parts: Arc<[Part]>,
    progress: Progress,
}

impl Unit {
    fn new(batch: Arc<Batch>) -> Unit {
        let rows: Arc<[u32]> = (0..u32::try_from(batch.chunk.rows.len()).unwrap()).collect();
        let range = 0..rows.len();
        let progress = Progress::new(rows.len());
        Unit { parts: [Part { batch, rows, range }].into(), progress }
    }

    /// Tries once; what was settled is kept.
    async fn attempt(&mut self, destination: &dyn Destination) -> Result<(), Fault> {
        let (delivery, back) = Delivery::new(self.parts.clone(), 0, self.progress.clone());
        let outcome = destination.deliver(delivery).await;
        self.progress = back.await.unwrap();
        outcome
    }

    /// The reason for each record that was rejected.
    fn rejected(&self) -> Vec<(usize, String)> {
        self.progress.rejected.iter().map(|(index, why)| (*index, why.reason.clone())).collect()
    }
}

/// Delivers the units as a lane does: as many at once as may be, and all from the failed one on again.
async fn deliver(destination: &dyn Destination, units: &mut [Unit]) -> Result<(), Fault> {
    let mut first = 0;
    while first < units.len() {
        destination.open().await?;
        let window = (first + destination.max_in_flight().get()).min(units.len());
        let attempts = units[first..window].iter_mut().map(|unit| unit.attempt(destination));
        let outcomes = futures::future::join_all(attempts).await;
        for (at, outcome) in outcomes.into_iter().enumerate() {
            match outcome {
                Ok(()) => assert_eq!(units[first + at].progress.open(), 0, "success leaves nothing open"),
                Err(fault) if !fault.is_retryable() => return Err(fault),
                Err(_) => {
                    first += at;
                    for later in &mut units[first + 1..window] {
                        (0..later.parts[0].len()).for_each(|index| later.progress.reopen(index));
                    }
                    break;
                }
            }
            if first + at + 1 == window {
                first = window;
                break;
            }
        }
    }
    Ok(())
}

fn setting() -> DestinationSetting {
    DestinationSetting {
        name: "lake".to_owned(),
        format: "debezium".to_owned(),
        data_dir: std::env::temp_dir(),
        sources: vec!["shop".to_owned()],
    }
}

/// A destination with this configuration, not opened yet.
fn destination(config: Value) -> Arc<dyn Destination> {
    KafkaDestination::build(serde_json::from_value(config).unwrap(), &setting()).unwrap()
}

async fn check(config: Value) -> Vec<Finding> {
    KafkaDestination::check(serde_json::from_value(config).unwrap(), &setting()).await
}

/// One line for each finding: the fact, and the remedy where something is wrong.
fn told(findings: &[Finding]) -> Vec<String> {
    let line = |finding: &Finding| match &finding.trouble {
        Some(trouble) => format!("{} -> {:?}: {}", finding.fact, trouble.blame, trouble.remedy),
        None => finding.fact.clone(),
    };
    findings.iter().map(line).collect()
}

/// `count` events are there, and those of each key in order: each is followed by its successor, or by a repeat of it or
/// of an earlier one, which then goes on until the last.
fn assert_in_order(messages: &[Message], count: usize) {
    let mut keys: BTreeMap<&[u8], Vec<&[u8]>> = BTreeMap::new();
    for message in messages {
        let (_, id) = message.headers.iter().find(|(name, _)| name == "forebay-id").unwrap();
        keys.entry(message.key.as_deref().unwrap()).or_default().push(id.as_deref().unwrap());
    }
    let mut events = 0;
    for (key, arrived) in keys {
        // Ids have a fixed width, so they sort as they were committed.
        let committed: Vec<&[u8]> = arrived.iter().copied().collect::<BTreeSet<_>>().into_iter().collect();
        let places: Vec<usize> = arrived.iter().map(|id| committed.binary_search(id).unwrap()).collect();
        let key = String::from_utf8_lossy(key);
        assert_eq!(places[0], 0, "the first event of {key} was overtaken: {places:?}");
        assert!(
            places.windows(2).all(|two| two[1] <= two[0] + 1),
            "an event of {key} was overtaken: {places:?}"
        );
        assert_eq!(
            places.last(),
            Some(&(committed.len() - 1)),
            "a repeat of {key} was not gone on with: {places:?}"
        );
        events += committed.len();
    }
    assert_eq!(events, count, "events that are there");
}
