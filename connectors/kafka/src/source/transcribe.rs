//! Message to event. Pure: no I/O, and the clock is read once for each batch.
//!
//! A value that is JSON is the payload, its bytes as they are (a line end between tokens becomes a space, so that an
//! event stays one line). A message without a value is a delete. What is not JSON is an invalid event that carries the
//! bytes as text, or as base64 where they are not UTF-8.

use std::collections::HashMap;
use std::sync::Arc;

use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;
use forebay_api::verdict::Invalid;
use forebay_api::{Blame, Chunk, Draft, Fault, Mark, Op, Row, Span, StreamId, Subject, Verdict, json};
use serde::de::IgnoredAny;

use super::entry::{Entry, Intake, now_micros};

/// What `forebay-id` may look like to be kept: ids are written without escaping.
const MAX_ID: usize = 512;
/// Subjects kept before all are forgotten and made again.
const MAX_SUBJECTS: usize = 10_000;

/// A schema's key in the registry, and the topic whose messages are of it.
type SubjectKey = (String, Option<String>);

/// Gathers the messages of each partition.
pub(crate) struct Transcriber {
    source: String,
    vendor: String,
    /// `schema` of the configuration: vendor, name, version.
    schema: Option<String>,
    subjects: HashMap<SubjectKey, Arc<Subject>>,
    drafts: Vec<Gathering>,
    rows: usize,
    bytes: usize,
}

/// What has been gathered of one partition.
struct Gathering {
    stream: Arc<StreamId>,
    draft: Draft,
    /// One for each row.
    verdicts: Vec<Verdict>,
}

impl Transcriber {
    /// For the source of this name.
    pub(crate) fn new(source: &str, vendor: &str, schema: Option<String>) -> Transcriber {
        Transcriber {
            source: source.to_owned(),
            vendor: vendor.to_owned(),
            schema,
            subjects: HashMap::new(),
            drafts: Vec::new(),
            rows: 0,
            bytes: 0,
        }
    }

    /// What a message is about.
    fn subject(&mut self, entry: &Entry<'_>) -> Arc<Subject> {
        let told = header(entry, "forebay-schema").and_then(|bytes| std::str::from_utf8(bytes).ok());
        let told = told.filter(|key| schema_parts(key).is_some()).map(str::to_owned);
        let key = (entry.topic.to_owned(), told);
        if let Some(subject) = self.subjects.get(&key) {
            return subject.clone();
        }
        if self.subjects.len() >= MAX_SUBJECTS {
            self.subjects.clear();
        }
        let schema = key.1.as_deref().or(self.schema.as_deref());
        let parts = schema.and_then(schema_parts).unwrap_or((&self.vendor, entry.topic, "1-0-0"));
        let mut source = b"\"type\":\"kafka\",\"name\":".to_vec();
        json::write_string(&self.source, &mut source);
        source.extend_from_slice(b",\"topic\":");
        json::write_string(entry.topic, &mut source);
        let source = String::from_utf8(source).expect("JSON of strings is a string");
        let subject = Arc::new(Subject::new(parts, (None, None, Some(entry.topic)), source));
        self.subjects.insert(key, subject.clone());
        subject
    }

    fn gathering(&mut self, stream: &Arc<StreamId>) -> &mut Gathering {
        let at = self.drafts.iter().position(|gathering| Arc::ptr_eq(&gathering.stream, stream));
        let at = at.unwrap_or_else(|| {
            let (draft, verdicts) = (Draft::default(), Vec::new());
            self.drafts.push(Gathering { stream: stream.clone(), draft, verdicts });
            self.drafts.len() - 1
        });
        &mut self.drafts[at]
    }
}

impl Intake for Transcriber {
    fn take(&mut self, stream: &Arc<StreamId>, entry: &Entry<'_>) -> Result<(), Fault> {
        let subject = self.subject(entry);
        let mark = mark(entry.offset, 0)?;
        let gathering = self.gathering(stream);
        let draft = &mut gathering.draft;
        let before = draft.buf.len();
        let subject = draft.subject(&subject);
        let time = entry.timestamp_ms.map_or_else(now_micros, |ms| ms.saturating_mul(1000));
        let key = span(draft, |out| write_key(entry.key, out));
        let mut verdict = Verdict::Valid;
        let payload = span(draft, |out| verdict = write_value(entry.value, out));
        let id = span(draft, |out| out.extend_from_slice(kept_id(entry).unwrap_or_default()));
        let extra = span(draft, |out| write_extra(entry, out));
        let op = if entry.value.is_some() { Op::Message } else { Op::Delete };
        let none = Span::default();
        draft.push(Row {
            mark,
            time,
            xid: 0,
            subject,
            op,
            id,
            key,
            before: none,
            payload,
            unchanged: none,
            contexts: none,
            extra,
        });
        gathering.verdicts.push(verdict);
        let grown = gathering.draft.buf.len() - before;
        self.rows += 1;
        self.bytes += grown;
        Ok(())
    }

    fn gathered(&self) -> (usize, usize) {
        (self.rows, self.bytes)
    }

    fn chunks(&mut self) -> Vec<Chunk> {
        (self.rows, self.bytes) = (0, 0);
        let received = now_micros();
        let of = |mut gathering: Gathering| {
            let mut chunk = gathering.draft.finish(&gathering.stream, received, false);
            // The stage judges the others, as it does the events of any source.
            let verdicts = (0..).zip(gathering.verdicts);
            chunk.refused = verdicts
                .filter_map(|(row, verdict)| match verdict {
                    Verdict::Invalid(why) => Some((row, why)),
                    Verdict::Valid => None,
                })
                .collect();
            chunk
        };
        self.drafts.drain(..).map(of).collect()
    }
}

/// Where event `index` of the message at `offset` stands in its partition's stream. The first one is 1, for 0 is below
/// every mark.
pub(crate) fn mark(offset: i64, index: usize) -> Result<Mark, Fault> {
    let (Ok(offset), Ok(index)) = (u64::try_from(offset), u32::try_from(index + 1)) else {
        let error = format!("offset {offset} with event {index} is none that a mark can say");
        return Err(Fault::fatal("reading a message", Blame::Defect, error));
    };
    Ok(Mark { major: (0, offset), minor: index, part: 0 })
}

/// The parts of `vendor/name/version`.
pub(crate) fn schema_parts(key: &str) -> Option<(&str, &str, &str)> {
    let mut parts = key.split('/');
    let (vendor, name, version) = (parts.next()?, parts.next()?, parts.next()?);
    let all = !vendor.is_empty() && !name.is_empty() && version.parse::<forebay_api::SchemaVersion>().is_ok();
    (all && parts.next().is_none()).then_some((vendor, name, version))
}

/// The span of what `write` appends.
fn span(draft: &mut Draft, write: impl FnOnce(&mut Vec<u8>)) -> Span {
    let start = draft.buf.len();
    write(&mut draft.buf);
    draft.since(start)
}

fn header<'a>(entry: &Entry<'a>, name: &str) -> Option<&'a [u8]> {
    entry.headers.iter().find(|(key, _)| *key == name).and_then(|(_, value)| *value)
}

/// The id that whoever wrote the message gave it, where it can be written as it is.
fn kept_id<'a>(entry: &Entry<'a>) -> Option<&'a [u8]> {
    let plain = |id: &&[u8]| {
        let all = id.iter().all(|byte| byte.is_ascii_graphic() && !matches!(byte, b'"' | b'\\'));
        all && !id.is_empty() && id.len() <= MAX_ID
    };
    header(entry, "forebay-id").filter(plain)
}

/// A JSON object as it is, other text as the member `key`, other bytes in base64 as the member `key_base64`.
fn write_key(key: Option<&[u8]>, out: &mut Vec<u8>) {
    let Some(key) = key else { return };
    match std::str::from_utf8(key) {
        Ok(text) if text.trim_start().starts_with('{') && is_json(text) => write_lines_joined(text, out),
        Ok(text) => {
            out.extend_from_slice(b"{\"key\":");
            json::write_string(text, out);
            out.push(b'}');
        }
        Err(_) => {
            out.extend_from_slice(b"{\"key_base64\":");
            json::write_string(&BASE64.encode(key), out);
            out.push(b'}');
        }
    }
}

/// The payload, and what is to be said of it.
fn write_value(value: Option<&[u8]>, out: &mut Vec<u8>) -> Verdict {
    let Some(value) = value else { return Verdict::Valid };
    let invalid = |message: String| {
        Verdict::Invalid(Box::new(Invalid {
            kind: "invalid_json".to_owned(),
            message,
            resolution: Some("write JSON into the topic, or read it with another source".to_owned()),
            details: Vec::new(),
        }))
    };
    let text = match std::str::from_utf8(value) {
        Ok(text) => text,
        Err(error) => {
            json::write_string(&BASE64.encode(value), out);
            return invalid(format!("the value is not UTF-8, its base64 is the payload: {error}"));
        }
    };
    match serde_json::from_str::<IgnoredAny>(text) {
        Ok(_) => {
            write_lines_joined(text.trim(), out);
            Verdict::Valid
        }
        Err(error) => {
            json::write_string(text, out);
            invalid(format!("the value is not JSON: {error}"))
        }
    }
}

fn is_json(text: &str) -> bool {
    serde_json::from_str::<IgnoredAny>(text).is_ok()
}

/// JSON has line ends only between tokens, where a space is as good.
fn write_lines_joined(text: &str, out: &mut Vec<u8>) {
    out.extend(text.bytes().map(|byte| if matches!(byte, b'\n' | b'\r') { b' ' } else { byte }));
}

/// Where the message stands, and its headers as pairs, because names may come twice.
fn write_extra(entry: &Entry<'_>, out: &mut Vec<u8>) {
    let place = format!("\"partition\":{},\"offset\":{}", entry.partition, entry.offset);
    out.extend_from_slice(place.as_bytes());
    if entry.headers.is_empty() {
        return;
    }
    out.extend_from_slice(b",\"headers\":[");
    for (at, (name, value)) in entry.headers.iter().enumerate() {
        out.extend_from_slice(if at == 0 { b"[" } else { b",[" });
        json::write_string(name, out);
        out.push(b',');
        match value.map(|value| (value, std::str::from_utf8(value))) {
            None => out.extend_from_slice(b"null"),
            Some((_, Ok(text))) => json::write_string(text, out),
            Some((bytes, Err(_))) => {
                out.extend_from_slice(b"{\"base64\":");
                json::write_string(&BASE64.encode(bytes), out);
                out.push(b'}');
            }
        }
        out.push(b']');
    }
    out.push(b']');
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry<'a>(key: Option<&'a [u8]>, value: Option<&'a [u8]>) -> Entry<'a> {
        let (topic, partition, offset, timestamp_ms) = ("orders", 2, 7, Some(1_795_372_440_123));
        Entry { topic, partition, offset, timestamp_ms, key, value, headers: Vec::new() }
    }

    fn transcribed(entries: &[Entry<'_>]) -> Chunk {
        let mut transcriber = Transcriber::new("docs", "com.acme", None);
        let stream = Arc::new(StreamId { source: "docs".into(), epoch: 9 });
        entries.iter().for_each(|entry| transcriber.take(&stream, entry).unwrap());
        let mut chunks = transcriber.chunks();
        assert_eq!((chunks.len(), transcriber.gathered()), (1, (0, 0)));
        chunks.remove(0)
    }

    fn text(bytes: &[u8]) -> &str {
        std::str::from_utf8(bytes).unwrap()
    }

    #[test]
    fn json_is_the_payload_as_it_is_and_stays_one_line() {
        let chunk = transcribed(&[entry(Some(b"a"), Some(b" {\"n\": 1.50,\r\n \"s\":\"x\\n\"}\n"))]);
        let event = chunk.event(0);
        assert_eq!(text(event.payload()), "{\"n\": 1.50,   \"s\":\"x\\n\"}");
        assert_eq!((event.op(), chunk.judged.is_none()), (Op::Message, true));
        assert_eq!(event.id(), "docs:0000000000000009:0:0000000000000007:1");
        assert_eq!(event.row().time, 1_795_372_440_123_000);
        assert_eq!(event.subject().schema_key(), "com.acme/orders/1-0-0");
        assert_eq!(event.subject().source, "\"type\":\"kafka\",\"name\":\"docs\",\"topic\":\"orders\"");
    }

    #[test]
    fn a_message_without_a_value_is_a_delete() {
        let chunk = transcribed(&[entry(Some(b"{\"id\":1}"), None)]);
        let event = chunk.event(0);
        assert_eq!((event.op(), text(event.key()), text(event.payload())), (Op::Delete, "{\"id\":1}", ""));
        assert!(chunk.judged.is_none());
    }

    #[test]
    fn what_is_not_json_is_an_invalid_event_that_has_all_of_it() {
        let chunk = transcribed(&[
            entry(None, Some(b"{\"a\":1}")),
            entry(None, Some(b"{\"a\":1} x")),
            entry(None, Some(b"\xff\x00")),
            entry(None, Some(b"")),
        ]);
        let refused: Vec<u32> = chunk.refused.iter().map(|(row, _)| *row).collect();
        assert_eq!(refused, [1, 2, 3]);
        let payloads: Vec<&str> = chunk.events().map(|event| text(event.payload())).collect();
        assert_eq!(payloads, ["{\"a\":1}", "\"{\\\"a\\\":1} x\"", "\"/wA=\"", "\"\""]);
        let invalid = &chunk.refused[0].1;
        assert_eq!(invalid.kind, "invalid_json");
        assert!(invalid.message.contains("trailing characters"), "{invalid:?}");
    }

    #[test]
    fn keys_that_differ_stay_different() {
        let keys: [&[u8]; 7] = [b"{\"id\": 1}", b"{\"id\"", b"42", b"\"42\"", b"", b"\xff", b"abc"];
        let entries: Vec<Entry<'_>> = keys.iter().map(|key| entry(Some(key), Some(b"1"))).collect();
        let chunk = transcribed(&entries);
        let written: Vec<&str> = chunk.events().map(|event| text(event.key())).collect();
        let expected = [
            "{\"id\": 1}",
            "{\"key\":\"{\\\"id\\\"\"}",
            "{\"key\":\"42\"}",
            "{\"key\":\"\\\"42\\\"\"}",
            "{\"key\":\"\"}",
            "{\"key_base64\":\"/w==\"}",
            "{\"key\":\"abc\"}",
        ];
        assert_eq!(written, expected);
        assert!(transcribed(&[entry(None, Some(b"1"))]).event(0).key().is_empty());
    }

    #[test]
    fn headers_come_along_and_an_id_that_forebay_wrote_is_kept() {
        let mut with = entry(None, Some(b"1"));
        with.headers = vec![
            ("forebay-id", Some(b"shop:1:2")),
            ("forebay-schema", Some(b"com.else/public.orders/2-1-0")),
            ("n", None),
            ("n", Some(b"\xff")),
        ];
        let mut odd = entry(None, Some(b"1"));
        odd.headers = vec![("forebay-id", Some(b"a\"b")), ("forebay-schema", Some(b"none"))];
        let chunk = transcribed(&[with, odd]);
        let (kept, other) = (chunk.event(0), chunk.event(1));
        assert_eq!(kept.id(), "shop:1:2");
        assert_eq!(kept.subject().schema_key(), "com.else/public.orders/2-1-0");
        assert_eq!(
            text(kept.extra()),
            "\"partition\":2,\"offset\":7,\"headers\":[[\"forebay-id\",\"shop:1:2\"],[\"forebay-schema\",\
             \"com.else/public.orders/2-1-0\"],[\"n\",null],[\"n\",{\"base64\":\"/w==\"}]]"
        );
        assert!(other.id().starts_with("docs:"), "an id that cannot be written as it is is not taken");
        assert_eq!(other.subject().schema_key(), "com.acme/orders/1-0-0");
    }
}
