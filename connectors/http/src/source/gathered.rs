//! [`Gathered`]: the events that an input makes of one request.

use std::collections::HashMap;
use std::sync::Arc;

use forebay_api::{Chunk, Draft, Invalid, Mark, Op, Row, SchemaKey, Span, StreamId};

use super::subjects::Subjects;

/// How many schemas the events of one request may have: a chunk counts them in 16 bits, and each takes memory of its own.
/// Further events are invalid.
const MAX_SCHEMAS: usize = 4096;

/// One event as an input read it.
#[derive(Clone, Copy, Debug)]
pub struct Tracked<'t> {
    /// The schema that `payload` shall obey.
    pub schema: &'t SchemaKey,
    /// The sender's id for it, the same when it is sent again; generated where the sender gave none.
    pub id: &'t str,
    /// When it happened: microseconds since the Unix epoch.
    pub time: i64,
    /// JSON.
    pub payload: &'t [u8],
    /// JSON array of self-describing entities, `{"schema": "vendor/name/1-0-0", "data": …}`; empty: none.
    pub contexts: &'t [u8],
}

/// The events of one request, in the making: what can be read goes on, and what can not goes on too, with the reason.
#[derive(Debug)]
pub struct Gathered {
    subjects: Arc<Subjects>,
    /// The input's name, `snowplow`: in every event's `source.input`.
    input: &'static str,
    draft: Draft,
    refused: Vec<(u32, Box<Invalid>)>,
    /// The index of each schema's subject. One subject means one index.
    known: HashMap<SchemaKey, u16>,
}

impl Gathered {
    /// Nothing yet, of one input. `source` is its name in the configuration.
    pub fn new(source: Arc<str>, input: &'static str) -> Gathered {
        Gathered::of(Arc::new(Subjects::new(source)), input)
    }

    /// The same with subjects that are made once for all requests.
    pub fn of(subjects: Arc<Subjects>, input: &'static str) -> Gathered {
        Gathered { subjects, input, draft: Draft::default(), refused: Vec::new(), known: HashMap::new() }
    }

    /// How many schemas they have.
    pub fn schemas(&self) -> usize {
        self.known.len()
    }

    /// The bytes of all events.
    pub fn bytes(&self) -> usize {
        self.draft.buf.len()
    }

    /// How many events there are.
    pub fn len(&self) -> usize {
        self.draft.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.draft.is_empty()
    }

    /// Adds an event, which the pipeline will judge.
    pub fn event(&mut self, event: &Tracked<'_>) {
        let Some(subject) = self.subject(event.schema) else {
            let why = Invalid {
                kind: "too_many_schemas".to_owned(),
                message: format!(
                    "it is of `{}`, and the events before it in the request have {MAX_SCHEMAS} other schemas",
                    event.schema
                ),
                resolution: Some("send fewer events in one request".to_owned()),
                details: Vec::new(),
            };
            self.refused.push((self.next(), Box::new(why)));
            return self.put(0, event);
        };
        self.put(subject, event);
    }

    fn next(&self) -> u32 {
        u32::try_from(self.draft.len()).expect("a request has fewer events than bytes")
    }

    fn put(&mut self, subject: u16, event: &Tracked<'_>) {
        let at = self.draft.buf.len();
        self.draft.buf.extend_from_slice(event.id.as_bytes());
        let id = self.draft.since(at);
        let (payload, contexts) = (self.put_json(event.payload), self.put_json(event.contexts));
        self.draft.push(Row {
            mark: Mark::MIN,
            time: event.time,
            xid: 0,
            subject,
            op: Op::Track,
            id,
            key: Span::default(),
            before: Span::default(),
            payload,
            unchanged: Span::default(),
            contexts,
            extra: Span::default(),
        });
    }

    /// Adds an event that is invalid before anybody judged it; what came is its payload.
    pub fn refuse(&mut self, event: &Tracked<'_>, why: Invalid) {
        let subject = self.subject(event.schema).unwrap_or(0);
        self.refused.push((self.next(), Box::new(why)));
        self.put(subject, event);
    }

    /// The chunk. Rows take the marks `(0, first)`, `(0, first + 1)`, …
    pub fn finish(mut self, stream: &Arc<StreamId>, received: i64, first: u64) -> Chunk {
        let mut chunk = self.draft.finish(stream, received, false);
        for (row, at) in chunk.rows.iter_mut().zip(first..) {
            row.mark = Mark { major: (0, at), ..Mark::MIN };
        }
        chunk.refused = self.refused;
        chunk
    }

    /// The index of a schema's subject; `None`: there are too many.
    fn subject(&mut self, schema: &SchemaKey) -> Option<u16> {
        if let Some(&index) = self.known.get(schema) {
            return Some(index);
        }
        if self.known.len() >= MAX_SCHEMAS {
            return None;
        }
        let index = self.draft.subject(&self.subjects.get(self.input, schema));
        self.known.insert(schema.clone(), index);
        Some(index)
    }

    /// Appends JSON in one line: whoever writes lines of JSON relies on it.
    fn put_json(&mut self, json: &[u8]) -> Span {
        let at = self.draft.buf.len();
        let mut rest = json;
        // Inside of a string a line cannot break, so every break is white space.
        while let Some(end) = memchr::memchr2(b'\n', b'\r', rest) {
            self.draft.buf.extend_from_slice(&rest[..end]);
            rest = &rest[end + 1..];
        }
        self.draft.buf.extend_from_slice(rest);
        self.draft.since(at)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_refused_stays_beside_its_neighbours() {
        let schema: SchemaKey = "com.acme/click/1-0-0".parse().unwrap();
        let event = |id| Tracked { schema: &schema, id, time: 1, payload: b"{}", contexts: b"" };
        let mut gathered = Gathered::new("web".into(), "snowplow");
        gathered.event(&event("a"));
        let why = Invalid { kind: "k".into(), message: "m".into(), resolution: None, details: Vec::new() };
        gathered.refuse(&event("b"), why);
        gathered.event(&event("c"));
        let stream = Arc::new(StreamId { source: "web".into(), epoch: 7 });
        let chunk = gathered.finish(&stream, 2, 40);
        let ids: Vec<String> = chunk.events().map(|event| event.id()).collect();
        assert_eq!(ids, ["a", "b", "c"]);
        assert_eq!(chunk.refused.iter().map(|(row, _)| *row).collect::<Vec<_>>(), [1]);
        assert_eq!(chunk.rows[2].mark.major, (0, 42));
        assert_eq!(chunk.subjects[0].schema_key(), "com.acme/click/1-0-0");
        assert_eq!(chunk.subjects.len(), 1);
    }

    #[test]
    fn an_event_is_one_line_whatever_line_breaks_its_json_has() {
        let schema: SchemaKey = "com.acme/click/1-0-0".parse().unwrap();
        let mut gathered = Gathered::new("web".into(), "snowplow");
        let payload = b"{\r\n  \"a\":\n1}";
        gathered.event(&Tracked { schema: &schema, id: "a", time: 1, payload, contexts: b"[\n]" });
        let chunk = gathered.finish(&Arc::new(StreamId { source: "web".into(), epoch: 7 }), 2, 1);
        assert_eq!(chunk.event(0).payload(), b"{  \"a\":1}");
        assert_eq!(chunk.event(0).contexts(), b"[]");
    }

    #[test]
    fn more_schemas_than_a_chunk_may_have_make_events_invalid() {
        let mut gathered = Gathered::new("web".into(), "snowplow");
        for n in 0..70_000 {
            let schema: SchemaKey = format!("com.acme/e{n}/1-0-0").parse().unwrap();
            gathered.event(&Tracked { schema: &schema, id: "a", time: 1, payload: b"{}", contexts: b"" });
        }
        let chunk = gathered.finish(&Arc::new(StreamId { source: "web".into(), epoch: 7 }), 2, 1);
        assert_eq!((chunk.rows.len(), chunk.subjects.len()), (70_000, MAX_SCHEMAS));
        assert_eq!(chunk.refused.len(), 70_000 - MAX_SCHEMAS);
        assert!(chunk.refused[0].1.message.contains("com.acme/e4096/1-0-0"));
    }
}
