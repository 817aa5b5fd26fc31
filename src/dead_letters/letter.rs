//! One refused record as its line says it: readable JSON, with all that a destination reads of a record, so that it can
//! be delivered again exactly as it would have been in the first place.
//!
//! Invariant: parts of the event are kept byte for byte. They are JSON that the source wrote, and are never printed
//! anew.

use std::sync::Arc;

use forebay_api::{
    Batch, Draft, Encoded, Event, Invalid, InvalidDetail, Mark, Op, Record, Rejection, Row, Span, StreamId,
    Subject, Verdict, json,
};
use serde::{Deserialize, Deserializer, Serialize};
use serde_json::value::RawValue;

use super::key::EventKey;

/// One refused record. Files of the first version have no `event`: they can be shown, and not be replayed.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Letter {
    /// The event's id.
    pub id: String,
    /// When it was stored.
    pub time: String,
    /// Who refused it.
    pub destination: String,
    /// A stable word: why it was refused.
    pub reason: String,
    /// What the destination said, outermost first.
    pub chain: Vec<String>,
    /// How often it was attempted.
    pub attempts: u32,
    /// What is needed to deliver it again.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub event: Option<Origin>,
    /// The record as the destination got it.
    pub record: Box<RawValue>,
}

/// The event that a record was made of.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Origin {
    /// The source's name.
    pub source: String,
    /// The epoch of its stream, 16 hex digits.
    pub epoch: String,
    /// Where it stands in the stream: timeline, position of the commit, ordinal, part.
    pub mark: (u32, u64, u32, u16),
    /// What happened.
    pub op: String,
    /// When it happened: microseconds since the Unix epoch.
    pub time: i64,
    /// When the daemon took it in: microseconds since the Unix epoch.
    pub received: i64,
    /// The transaction that made it.
    pub xid: u32,
    /// What it is about.
    pub subject: About,
    #[serde(default, deserialize_with = "present", skip_serializing_if = "Option::is_none")]
    key: Option<Box<RawValue>>,
    #[serde(default, deserialize_with = "present", skip_serializing_if = "Option::is_none")]
    before: Option<Box<RawValue>>,
    #[serde(default, deserialize_with = "present", skip_serializing_if = "Option::is_none")]
    payload: Option<Box<RawValue>>,
    #[serde(default, deserialize_with = "present", skip_serializing_if = "Option::is_none")]
    unchanged: Option<Box<RawValue>>,
    #[serde(default, deserialize_with = "present", skip_serializing_if = "Option::is_none")]
    contexts: Option<Box<RawValue>>,
    /// Members of the envelope's `source`, put into braces.
    #[serde(default, deserialize_with = "present", skip_serializing_if = "Option::is_none")]
    extra: Option<Box<RawValue>>,
    /// Why it does not obey its schema; absent: it does.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    invalid: Option<Why>,
}

/// A subject.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct About {
    /// Vendor of the registry key.
    pub vendor: String,
    /// Name of the registry key.
    pub name: String,
    /// Version of the registry key.
    pub version: String,
    /// The database.
    pub database: Option<String>,
    /// The database's schema.
    pub schema: Option<String>,
    /// The table.
    pub table: Option<String>,
    /// Constant members of the envelope's `source`, put into braces.
    source: Box<RawValue>,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Why {
    kind: String,
    message: String,
    resolution: Option<String>,
    /// Path, keyword, message.
    details: Vec<(String, String, String)>,
}

/// Why a letter cannot be what it says.
#[derive(Debug, thiserror::Error)]
pub enum Unusable {
    /// It was written before letters could be replayed.
    #[error("it was written by a version whose letters do not say how to deliver them again")]
    FirstVersion,
    /// A word or number of it is none.
    #[error("its `{0}` is not one that this version knows")]
    Unknown(&'static str),
}

/// A part of a record is no JSON, so it cannot stand in a line.
#[derive(Debug, thiserror::Error)]
#[error("the {part} of event `{id}` is no JSON")]
pub struct NotJson {
    part: &'static str,
    id: String,
    source: serde_json::Error,
}

impl Letter {
    /// The letter of `record`, refused by `destination`, stored at `time` (microseconds since the Unix epoch).
    pub fn new(
        destination: &str,
        record: Record<'_>,
        why: Rejection,
        attempts: u32,
        time: i64,
    ) -> Result<Letter, NotJson> {
        let event = record.event();
        let id = event.id();
        Ok(Letter {
            time: time_text(time),
            destination: destination.to_owned(),
            reason: why.reason,
            chain: why.chain,
            attempts,
            event: Some(Origin::of(event, record.verdict())?),
            // A journal keeps events in no format.
            record: raw(event, "record", if record.body().is_empty() { b"null" } else { record.body() })?,
            id,
        })
    }

    /// Appends its line.
    pub fn write(&self, out: &mut Vec<u8>) {
        serde_json::to_writer(&mut *out, self).expect("a letter is plain JSON, written to memory");
        out.push(b'\n');
    }

    /// The stream that its id is made of.
    pub fn stream(&self) -> Result<StreamId, Unusable> {
        self.event.as_ref().ok_or(Unusable::FirstVersion)?.stream()
    }

    /// What keeps it and its like in order; `None`: it was written by the first version.
    pub fn key(&self) -> Option<EventKey> {
        self.event.as_ref().map(Origin::event_key)
    }

    /// JSON of the key, else the table.
    pub fn key_text(&self) -> Option<String> {
        let event = self.event.as_ref()?;
        Some(event.key.as_ref().map_or_else(|| event.subject.table(), |key| key.get().to_owned()))
    }

    /// JSON of the key, where the event has one.
    pub fn key_json(&self) -> Option<&str> {
        Some(self.event.as_ref()?.key.as_ref()?.get())
    }

    /// Table and key, for people: `public.orders {"id":7}`.
    pub fn place(&self) -> Option<String> {
        let event = self.event.as_ref()?;
        let key = event.key.as_ref().map(|key| format!(" {}", key.get())).unwrap_or_default();
        Some(event.subject.table() + &key)
    }

    /// The record again, under a stream and a mark of its own, with the id that it had.
    pub fn batch(&self, stream: &Arc<StreamId>, mark: Mark) -> Result<Batch, Unusable> {
        let origin = self.event.as_ref().ok_or(Unusable::FirstVersion)?;
        let known = Op::ALL.into_iter().find(|op| op.as_str() == origin.op);
        let op = known.ok_or(Unusable::Unknown("op"))?;
        let mut draft = Draft::default();
        let subject = draft.subject(&Arc::new(origin.subject.subject()));
        let mut part = |bytes: &str| -> Span {
            let start = draft.buf.len();
            draft.buf.extend_from_slice(bytes.as_bytes());
            draft.since(start)
        };
        let mut json =
            |value: &Option<Box<RawValue>>| value.as_ref().map_or(Span::default(), |v| part(v.get()));
        let row = Row {
            mark,
            time: origin.time,
            xid: origin.xid,
            subject,
            op,
            key: json(&origin.key),
            before: json(&origin.before),
            payload: json(&origin.payload),
            unchanged: json(&origin.unchanged),
            contexts: json(&origin.contexts),
            extra: origin.extra.as_ref().map_or(Span::default(), |extra| part(unbraced(extra))),
            id: part(&self.id),
        };
        draft.push(row);
        let verdicts = origin.invalid.as_ref().map(|why| Verdict::Invalid(Box::new(why.invalid())));
        let body = self.record.get().as_bytes().to_vec();
        let end = u32::try_from(body.len()).map_err(|_| Unusable::Unknown("record"))?;
        Ok(Batch {
            chunk: draft.finish(stream, origin.received, false),
            verdicts: verdicts.into_iter().collect(),
            encoded: vec![Encoded::new(body, vec![end])],
        })
    }
}

impl Origin {
    fn of(event: Event<'_>, verdict: &Verdict) -> Result<Origin, NotJson> {
        let some = |part, bytes: &[u8]| {
            if bytes.is_empty() { Ok(None) } else { raw(event, part, bytes).map(Some) }
        };
        let (row, mark, subject) = (event.row(), event.mark(), event.subject());
        Ok(Origin {
            source: event.stream().source.to_string(),
            epoch: format!("{:016x}", event.stream().epoch),
            mark: (mark.major.0, mark.major.1, mark.minor, mark.part),
            op: event.op().as_str().to_owned(),
            time: row.time,
            received: event.received(),
            xid: row.xid,
            subject: About {
                vendor: subject.vendor.clone(),
                name: subject.name.clone(),
                version: subject.version.clone(),
                database: subject.database.clone(),
                schema: subject.schema.clone(),
                table: subject.table.clone(),
                source: raw(event, "source", &braced(subject.source.as_bytes()))?,
            },
            key: some("key", event.key())?,
            before: some("before", event.before())?,
            payload: some("payload", event.payload())?,
            unchanged: some("unchanged", event.unchanged())?,
            contexts: some("contexts", event.contexts())?,
            extra: if event.extra().is_empty() {
                None
            } else {
                Some(raw(event, "source", &braced(event.extra()))?)
            },
            invalid: match verdict {
                Verdict::Valid => None,
                Verdict::Invalid(invalid) => Some(Why::of(invalid)),
            },
        })
    }

    fn stream(&self) -> Result<StreamId, Unusable> {
        let epoch = u64::from_str_radix(&self.epoch, 16).map_err(|_| Unusable::Unknown("epoch"))?;
        Ok(StreamId { source: self.source.as_str().into(), epoch })
    }

    /// Where it stands in its stream.
    pub fn mark(&self) -> Mark {
        let (timeline, commit, minor, part) = self.mark;
        Mark { major: (timeline, commit), minor, part }
    }

    fn event_key(&self) -> EventKey {
        let (schema, table) = (self.subject.schema.as_deref(), self.subject.table.as_deref());
        let key = self.key.as_ref().map(|key| key.get().as_bytes());
        EventKey::new(&self.source, schema, table.unwrap_or(&self.subject.name), key)
    }
}

impl About {
    fn subject(&self) -> Subject {
        let place = (self.database.as_deref(), self.schema.as_deref(), self.table.as_deref());
        Subject::new((&self.vendor, &self.name, &self.version), place, unbraced(&self.source).to_owned())
    }

    fn table(&self) -> String {
        match (&self.schema, &self.table) {
            (Some(schema), Some(table)) => format!("{schema}.{table}"),
            _ => self.name.clone(),
        }
    }
}

impl Why {
    fn of(invalid: &Invalid) -> Why {
        let detail =
            |detail: &InvalidDetail| (detail.path.clone(), detail.keyword.clone(), detail.message.clone());
        Why {
            kind: invalid.kind.clone(),
            message: invalid.message.clone(),
            resolution: invalid.resolution.clone(),
            details: invalid.details.iter().map(detail).collect(),
        }
    }

    fn invalid(&self) -> Invalid {
        let detail = |(path, keyword, message): &(String, String, String)| InvalidDetail {
            path: path.clone(),
            keyword: keyword.clone(),
            message: message.clone(),
        };
        Invalid {
            kind: self.kind.clone(),
            message: self.message.clone(),
            resolution: self.resolution.clone(),
            details: self.details.iter().map(detail).collect(),
        }
    }
}

/// A part of an event as the JSON that it is.
fn raw(event: Event<'_>, part: &'static str, bytes: &[u8]) -> Result<Box<RawValue>, NotJson> {
    serde_json::from_slice(bytes).map_err(|source| NotJson { part, id: event.id(), source })
}

/// A time as the envelope writes it.
pub(super) fn time_text(micros: i64) -> String {
    let mut out = Vec::new();
    json::write_time(micros, &mut out);
    String::from_utf8_lossy(&out).trim_matches('"').to_owned()
}

fn braced(members: &[u8]) -> Vec<u8> {
    [b"{", members, b"}"].concat()
}

fn unbraced(object: &RawValue) -> &str {
    let text = object.get();
    text.strip_prefix('{').and_then(|text| text.strip_suffix('}')).unwrap_or(text)
}

/// A part that is there may be `null`, which is not the same as one that is not there.
fn present<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Box<RawValue>>, D::Error> {
    Box::<RawValue>::deserialize(deserializer).map(Some)
}
