//! What a verdict costs: nanoseconds an event with all schemas at hand, small and large events, with and without entities.
//!
//! ```text
//! cargo bench -p forebay-integration --bench validation
//! ```
//! Beside it stands what it costs to parse the same bytes into a tree of values and to validate that, and to parse alone.

use std::hint::black_box;
use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use forebay::telemetry::SchemaFigures;
use forebay::validation::{CacheLimits, Chain, Judge, Link, Rules, SchemaCache};
use forebay_api::{
    Chunk, Draft, Fault, Mark, Op, Report, Row, SchemaKey, SchemaStore, Span, StreamId, Subject,
};
use serde_json::{Value, json};
use tokio::time::Instant;

/// Events of one chunk.
const ROWS: usize = 256;

/// How often each is measured; the best counts.
const ROUNDS: usize = 30;

struct Memory(SchemaKey, Bytes);

#[async_trait]
impl SchemaStore for Memory {
    async fn fetch(&self, key: &SchemaKey) -> Result<Option<Bytes>, Fault> {
        Ok((*key == self.0).then(|| self.1.clone()))
    }
}

/// An order with so many lines.
fn order(lines: usize) -> (Value, Value) {
    let schema = json!({
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "type": "object",
        "required": ["id", "customer", "total", "lines"],
        "additionalProperties": false,
        "properties": {
            "id": {"type": "integer", "minimum": 1},
            "customer": {"type": "string", "minLength": 1, "maxLength": 100},
            "total": {"type": "number", "minimum": 0},
            "currency": {"enum": ["EUR", "USD", "GBP"]},
            "note": {"type": ["string", "null"]},
            "lines": {"type": "array", "items": {
                "type": "object",
                "required": ["sku", "count", "price"],
                "properties": {
                    "sku": {"type": "string", "maxLength": 32},
                    "count": {"type": "integer", "minimum": 1},
                    "price": {"type": "number", "exclusiveMinimum": 0},
                },
            }},
        },
    });
    let line = |n: usize| json!({"sku": format!("A-{n:06}"), "count": n + 1, "price": 19.99});
    let event = json!({
        "id": 4711, "customer": "Ada Lovelace", "total": 199.9, "currency": "EUR", "note": null,
        "lines": (0..lines).map(line).collect::<Vec<_>>(),
    });
    (schema, event)
}

fn chunk(key: &SchemaKey, payload: &str, contexts: &str) -> Chunk {
    let subject = Subject::new((key.vendor(), key.name(), key.version()), (None, None, None), String::new());
    let (subject, mut draft) = (Arc::new(subject), Draft::default());
    for at in 0..ROWS {
        let subject = draft.subject(&subject);
        let mut span = |text: &str| {
            let start = draft.buf.len();
            draft.buf.extend_from_slice(text.as_bytes());
            draft.since(start)
        };
        let (payload, contexts) = (span(payload), span(contexts));
        let none = Span::default();
        draft.push(Row {
            mark: Mark { major: (1, at as u64 + 1), minor: 0, part: 0 },
            time: 0,
            xid: 0,
            subject,
            op: Op::Track,
            id: none,
            key: none,
            before: none,
            payload,
            unchanged: none,
            contexts,
            extra: none,
        });
    }
    draft.finish(&Arc::new(StreamId { source: "web".into(), epoch: 1 }), 0, false)
}

/// Nanoseconds an event, the best of all rounds.
fn best(mut round: impl FnMut()) -> f64 {
    round();
    let rounds = (0..ROUNDS).map(|_| {
        let begun = Instant::now();
        round();
        begun.elapsed().as_secs_f64() * 1e9 / ROWS as f64
    });
    rounds.fold(f64::INFINITY, f64::min)
}

fn main() {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.expect("a runtime can be made");
    println!(
        "{:<34} {:>8} {:>12} {:>16} {:>12}",
        "event", "bytes", "verdict ns", "tree+verdict ns", "tree ns"
    );
    for (name, lines, entities) in
        [("small", 1, 0), ("small, 2 entities", 1, 2), ("800 bytes", 14, 0), ("large", 400, 0)]
    {
        let (schema, event) = order(lines);
        let key: SchemaKey = "com.acme/order/1-0-0".parse().expect("it is a key");
        let store = Arc::new(Memory(key.clone(), Bytes::from(schema.to_string())));
        let chain = Chain::new(vec![Link { name: "memory".into(), store }]);
        let judge = Judge {
            schemas: Arc::new(SchemaCache::new(chain, CacheLimits::default(), SchemaFigures::default())),
            rules: Arc::new(Rules::default()),
            ..Judge::plain("web")
        };
        let payload = event.to_string();
        let entity = format!("{{\"schema\":\"{key}\",\"data\":{payload}}}");
        let contexts = match entities {
            0 => String::new(),
            count => format!("[{}]", vec![entity; count].join(",")),
        };
        let mut chunk = chunk(&key, &payload, &contexts);
        let report = Report::default();
        let verdict = best(|| {
            let verdicts = runtime.block_on(judge.judge(&mut chunk, &report));
            assert!(black_box(verdicts).is_empty(), "all are valid");
        });
        let validator = jsonschema::validator_for(&schema).expect("it is a schema");
        let texts: Vec<&str> = std::iter::repeat_n(payload.as_str(), 1).collect();
        let tree = best(|| {
            for _ in 0..ROWS {
                black_box(serde_json::from_str::<Value>(texts[0]).expect("it is JSON"));
            }
        });
        let both = best(|| {
            for _ in 0..ROWS {
                let value: Value = serde_json::from_str(texts[0]).expect("it is JSON");
                assert!(black_box(validator.is_valid(&value)));
            }
        });
        let bytes = payload.len() + contexts.len();
        println!("{name:<34} {bytes:>8} {verdict:>12.0} {both:>16.0} {tree:>12.0}");
    }
}
