//! [`Gathered`]: the events that an input makes of one request.

use std::sync::Arc;

use forebay_api::{Chunk, Draft, Invalid, Mark, Op, Row, SchemaKey, Span, StreamId, Subject};

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
    /// The source's name in the configuration.
    source: Arc<str>,
    /// The input's name, `snowplow`: in every event's `source.input`.
    input: &'static str,
    draft: Draft,
    refused: Vec<(u32, Box<Invalid>)>,
}

impl Gathered {
    /// Nothing yet, of one input.
    pub fn new(source: Arc<str>, input: &'static str) -> Gathered {
        Gathered { source, input, draft: Draft::default(), refused: Vec::new() }
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
        let subject = self.subject(event.schema);
        let mut put = |bytes: &[u8]| {
            let at = self.draft.buf.len();
            self.draft.buf.extend_from_slice(bytes);
            self.draft.since(at)
        };
        let (id, payload, contexts) = (put(event.id.as_bytes()), put(event.payload), put(event.contexts));
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
        let row = u32::try_from(self.draft.len()).expect("a request has fewer events than bytes");
        self.event(event);
        self.refused.push((row, Box::new(why)));
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

    fn subject(&mut self, schema: &SchemaKey) -> u16 {
        let mut source = String::from(r#""type":"http","name":"#);
        let mut quoted = Vec::new();
        forebay_api::json::write_string(&self.source, &mut quoted);
        source.push_str(&String::from_utf8(quoted).expect("JSON of a string is a string"));
        source.push_str(r#","input":""#);
        source.push_str(self.input);
        source.push('"');
        let parts = (schema.vendor(), schema.name(), schema.version());
        self.draft.subject(&Arc::new(Subject::new(parts, (None, None, None), source)))
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
    }
}
