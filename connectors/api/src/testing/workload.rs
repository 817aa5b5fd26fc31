//! Events to deliver: made up, but with all that a destination may look at, and each known by its id.

use std::collections::HashMap;
use std::sync::Arc;

use crate::batch::{Batch, Encoded};
use crate::chunk::{Draft, Op, Row, Span, Subject};
use crate::delivery::Part;
use crate::json;
use crate::mark::{Mark, StreamId};

use super::destination::{SOURCE, TABLES};

/// How many events share a transaction.
const TRANSACTION: u64 = 3;

/// How many keys plain events are spread over, so that each key has a history.
const KEYS: u64 = 17;

/// The time that all events bear: 2026-11-22T18:34:00.123456Z.
const TIME: i64 = 1_795_372_440_123_456;

/// What an event shall be like.
#[derive(Clone, Debug)]
pub(crate) struct Wish {
    /// JSON object of the key; empty: none.
    pub(crate) key: String,
    /// What stands in the payload.
    pub(crate) text: Text,
}

/// The part of the payload that a check chooses.
#[derive(Clone, Debug)]
pub(crate) enum Text {
    /// A JSON value as it is.
    Raw(String),
    /// Filled up so that the whole record has so many bytes.
    Sized(usize),
}

impl Wish {
    /// The n-th plain event.
    pub(crate) fn plain(n: u64) -> Wish {
        let key = format!("{{\"id\":{}}}", n % KEYS);
        Wish { key, text: Text::Raw(format!("\"the {n}th of many\"")) }
    }

    /// A plain event with this JSON in its payload.
    pub(crate) fn with_text(n: u64, json: impl Into<String>) -> Wish {
        Wish { text: Text::Raw(json.into()), ..Wish::plain(n) }
    }

    /// A plain event whose record has `bytes` bytes.
    pub(crate) fn sized(n: u64, bytes: usize) -> Wish {
        Wish { text: Text::Sized(bytes), ..Wish::plain(n) }
    }
}

/// What is known of an event that was made.
#[derive(Debug)]
pub(crate) struct Known {
    /// Table and partition key: events that share it keep their order.
    pub(crate) key: String,
    /// Which it is among the events of its key.
    pub(crate) rank: usize,
    /// The record that was delivered.
    pub(crate) body: Vec<u8>,
}

/// Makes the events of one stream, in order.
#[derive(Debug)]
pub(crate) struct Workload {
    /// The stream they belong to.
    pub(crate) stream: Arc<StreamId>,
    subjects: Vec<Arc<Subject>>,
    /// How many were made.
    made: u64,
    /// How many of each key.
    ranks: HashMap<String, usize>,
    /// Every event made, by its id.
    pub(crate) known: HashMap<String, Known>,
}

impl Workload {
    /// A stream without events yet; `epoch` tells it from others.
    pub(crate) fn new(epoch: u64) -> Workload {
        let subject = |table: &&str| {
            let source = format!(
                r#""type":"conformance","name":"{SOURCE}","database":"db","schema":"public","table":"{table}""#
            );
            let name = format!("public.{table}");
            let place = (Some("db"), Some("public"), Some(*table));
            Arc::new(Subject::new(("com.example", &name, "1-0-0"), place, source))
        };
        Workload {
            stream: Arc::new(StreamId { source: SOURCE.into(), epoch }),
            subjects: TABLES.iter().map(subject).collect(),
            made: 0,
            ranks: HashMap::new(),
            known: HashMap::new(),
        }
    }

    /// The next events, as many as wished for, in one batch.
    pub(crate) fn batch(&mut self, wishes: impl IntoIterator<Item = Wish>) -> Arc<Batch> {
        let mut draft = Draft::default();
        for wish in wishes {
            let text = match wish.text {
                Text::Raw(json) => json,
                Text::Sized(bytes) => {
                    let mut trial = Draft::default();
                    self.add(&mut trial, &wish.key, "\"\"");
                    let trial = trial.finish(&self.stream, TIME, false);
                    let taken = body(trial.event(0)).len();
                    format!("\"{}\"", "x".repeat(bytes.saturating_sub(taken)))
                }
            };
            self.add(&mut draft, &wish.key, &text);
            self.made += 1;
        }
        let inside_transaction = !self.made.is_multiple_of(TRANSACTION);
        let chunk = draft.finish(&self.stream, TIME, inside_transaction);
        let mut encoded = Vec::new();
        let mut ends = Vec::new();
        for event in chunk.events() {
            let start = encoded.len();
            encoded.extend_from_slice(&body(event));
            ends.push(u32::try_from(encoded.len()).expect("checks make small batches"));
            self.remember(event, &encoded[start..]);
        }
        Arc::new(Batch { chunk, verdicts: Vec::new(), encoded: vec![Encoded::new(encoded, ends)] })
    }

    /// Adds the next event, with this JSON as its text.
    fn add(&self, draft: &mut Draft, key: &str, text: &str) {
        let at = draft.buf.len();
        draft.buf.extend_from_slice(key.as_bytes());
        let key = draft.since(at);
        let at = draft.buf.len();
        draft.buf.extend_from_slice(format!("{{\"made\":{},\"text\":{text}}}", self.made).as_bytes());
        let payload = draft.since(at);
        // Blocks of three transactions go to each table in turn.
        let table = usize::try_from(self.made / (3 * TRANSACTION) % 2).expect("0 or 1");
        let subject = draft.subject(&self.subjects[table]);
        draft.push(row(self.made, subject, key, payload));
    }

    /// The next `count` plain events in one batch.
    pub(crate) fn plain(&mut self, count: u64) -> Arc<Batch> {
        let first = self.made;
        self.batch((first..first + count).map(Wish::plain))
    }

    fn remember(&mut self, event: crate::chunk::Event<'_>, body: &[u8]) {
        let mut key = event.subject().name.clone().into_bytes();
        key.push(b' ');
        event.write_partition_key(&mut key);
        let key = String::from_utf8(key).expect("names and JSON are UTF-8");
        let rank = self.ranks.entry(key.clone()).or_default();
        let known = Known { key, rank: *rank, body: body.to_vec() };
        *rank += 1;
        let twice = self.known.insert(event.id(), known);
        assert!(twice.is_none(), "two events with one id");
    }
}

/// All rows of some batches, one part each.
pub(crate) fn whole(batches: &[Arc<Batch>]) -> Arc<[Part]> {
    batches
        .iter()
        .map(|batch| {
            let rows = u32::try_from(batch.chunk.rows.len()).expect("checks make small batches");
            let range = 0..batch.chunk.rows.len();
            Part { batch: batch.clone(), rows: (0..rows).collect(), range }
        })
        .collect()
}

fn row(n: u64, subject: u16, key: Span, payload: Span) -> Row {
    let (major, minor) = (n / TRANSACTION, n % TRANSACTION);
    Row {
        mark: Mark {
            major: (1, 0x100 + 16 * major),
            minor: u32::try_from(minor).expect("a remainder of 3"),
            part: 0,
        },
        time: TIME,
        xid: u32::try_from(major).expect("checks make fewer events"),
        subject,
        op: Op::Insert,
        id: Span::default(),
        key,
        before: Span::default(),
        payload,
        unchanged: Span::default(),
        contexts: Span::default(),
        extra: Span::default(),
    }
}

/// The record of an event, shaped like the envelope: made of the event alone, so that a destination which stores events
/// and not records can be held against it.
pub fn body(event: crate::chunk::Event<'_>) -> Vec<u8> {
    let mut out = b"{\"id\":\"".to_vec();
    event.write_id(&mut out);
    out.extend_from_slice(b"\",");
    out.extend_from_slice(event.subject().envelope_members().as_bytes());
    out.extend_from_slice(b",\"op\":\"insert\",\"time\":");
    json::write_time(event.row().time, &mut out);
    out.extend_from_slice(b",\"source\":{");
    out.extend_from_slice(event.subject().source.as_bytes());
    out.extend_from_slice(b"},\"key\":");
    out.extend_from_slice(if event.key().is_empty() { b"null" } else { event.key() });
    out.extend_from_slice(b",\"payload\":");
    out.extend_from_slice(event.payload());
    out.extend_from_slice(b",\"valid\":true}");
    out
}
