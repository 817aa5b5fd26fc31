//! Output formats: each joins the parts of an event, which the source wrote as JSON bytes, into one JSON text.
//!
//! A format never re-prints a part, so numbers keep their digits and untouched bytes stay untouched.
//! Each is a function from an event to bytes; the fields of each are described in `docs/envelope.md`.

mod buz;
mod cloudevents;
mod debezium;
mod envelope;

use forebay_api::{Chunk, Encoded, Event, Invalid, Verdict, json};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// The shape in which a destination gets its records.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize, JsonSchema,
)]
#[serde(rename_all = "lowercase")]
#[schemars(inline)]
pub enum Format {
    /// Forebay's own envelope: self-describing, the same for every source.
    #[default]
    Forebay,
    /// before/after/source/op/ts_ms, with the field names that Debezium's consumers read.
    Debezium,
    /// CloudEvents 1.0, structured JSON.
    CloudEvents,
    /// The envelope of Buz: uuid, timestamp, protocol, schema, isValid, contexts, payload.
    Buz,
}

impl Format {
    /// Every format.
    pub const ALL: [Format; 4] = [Format::Forebay, Format::Debezium, Format::CloudEvents, Format::Buz];

    /// The word in `format:`.
    pub fn as_str(self) -> &'static str {
        match self {
            Format::Forebay => "forebay",
            Format::Debezium => "debezium",
            Format::CloudEvents => "cloudevents",
            Format::Buz => "buz",
        }
    }

    /// One line for `forebay list`.
    pub fn about(self) -> &'static str {
        match self {
            Format::Forebay => "the envelope: id, schema, op, times, source, key, before, payload",
            Format::Debezium => "before, after, source, op, ts_ms, as Debezium's consumers read it",
            Format::CloudEvents => "CloudEvents 1.0, structured JSON",
            Format::Buz => "uuid, timestamp, protocol, schema, isValid, contexts, payload, as Buz writes it",
        }
    }
}

/// Writes events as records. One for each pipeline; it holds what is constant and a buffer for ids.
#[derive(Debug)]
pub struct Encoder {
    /// The envelope's last member, `"forebay":{"name":…,"environment":…,"version":…}`.
    instance: Vec<u8>,
    /// The same for Buz: `"buzVersion":…,"buzName":…,"buzEnv":…`.
    buz: Vec<u8>,
    /// The last time written and its text: rows of one transaction share it.
    time: TimeText,
    /// Bytes a record took lately, to size the next buffer.
    usual: usize,
}

impl Encoder {
    /// `name` and `environment` of the configuration go into every envelope.
    pub fn new(name: &str, environment: &str) -> Encoder {
        let mut instance = Vec::new();
        for (member, value) in [
            ("{\"name\":", name),
            (",\"environment\":", environment),
            (",\"version\":", env!("CARGO_PKG_VERSION")),
        ] {
            instance.extend_from_slice(member.as_bytes());
            json::write_string(value, &mut instance);
        }
        instance.push(b'}');
        let mut buz = Vec::new();
        for (member, value) in [
            ("\"buzVersion\":", env!("CARGO_PKG_VERSION")),
            (",\"buzName\":", name),
            (",\"buzEnv\":", environment),
        ] {
            buz.extend_from_slice(member.as_bytes());
            json::write_string(value, &mut buz);
        }
        Encoder { instance, buz, time: TimeText::default(), usual: 512 }
    }

    /// All events of a chunk in one format.
    pub fn encode(&mut self, format: Format, chunk: &Chunk, verdicts: &[Verdict]) -> Encoded {
        static VALID: Verdict = Verdict::Valid;
        let rows = chunk.rows.len();
        let mut out = Vec::with_capacity(chunk.buf.len() + rows * self.usual);
        let mut ends = Vec::with_capacity(rows);
        let received = TimeText::of(chunk.received);
        for (index, event) in chunk.events().enumerate() {
            let verdict = verdicts.get(index).unwrap_or(&VALID);
            match format {
                Format::Forebay => envelope::write(self, event, verdict, &received, &mut out),
                Format::Debezium => debezium::write(event, &mut out),
                Format::CloudEvents => cloudevents::write(self, event, verdict, &received, &mut out),
                Format::Buz => buz::write(self, event, verdict, &received, &mut out),
            }
            ends.push(u32::try_from(out.len()).expect("a chunk and what encoding adds are below 4 GiB"));
        }
        if let Some(added) = out.len().saturating_sub(chunk.buf.len()).checked_div(rows) {
            self.usual = added.clamp(64, 4096);
        }
        Encoded::new(out, ends)
    }
}

/// A time as JSON text.
#[derive(Clone, Debug, Default)]
struct TimeText {
    micros: i64,
    text: Vec<u8>,
}

impl TimeText {
    fn of(micros: i64) -> TimeText {
        let mut text = Vec::with_capacity(json::TIME_LEN + 2);
        json::write_time(micros, &mut text);
        TimeText { micros, text }
    }

    /// The text of `micros`, kept until another time is asked for.
    fn get(&mut self, micros: i64) -> &[u8] {
        if self.text.is_empty() || self.micros != micros {
            self.micros = micros;
            self.text.clear();
            json::write_time(micros, &mut self.text);
        }
        &self.text
    }
}

/// Appends the event's id as a JSON string.
fn write_id(event: Event<'_>, out: &mut Vec<u8>) {
    out.push(b'"');
    if event.row().id.is_empty() {
        // Names of sources are plain, the rest is digits.
        event.write_id(out);
    } else {
        json::write_escaped(event.part(event.row().id), out);
    }
    out.push(b'"');
}

/// Appends `part`, or `null` where it is absent.
fn write_or_null(part: &[u8], out: &mut Vec<u8>) {
    out.extend_from_slice(if part.is_empty() { b"null" } else { part });
}

/// Appends `{constant members, members of this row}`: the envelope's `source` object.
fn write_source(event: Event<'_>, out: &mut Vec<u8>) {
    out.push(b'{');
    out.extend_from_slice(event.subject().source.as_bytes());
    if !event.extra().is_empty() {
        out.push(b',');
        out.extend_from_slice(event.extra());
    }
    out.push(b'}');
}

/// The bytes of a member of `"a":1,"b":"2"`, which a source wrote: values there hold no nested objects.
fn member<'a>(members: &'a [u8], name: &[u8]) -> Option<&'a [u8]> {
    let mut rest = members;
    loop {
        let key_end = 1 + rest.get(1..)?.iter().position(|&b| b == b'"')?;
        let value = rest.get(key_end + 2..)?;
        let len = value_len(value);
        if &rest[1..key_end] == name {
            return Some(&value[..len]);
        }
        rest = value.get(len + 1..)?;
    }
}

/// How long the JSON scalar at the start of `text` is.
fn value_len(text: &[u8]) -> usize {
    let mut escaped = false;
    let mut quoted = false;
    for (at, &byte) in text.iter().enumerate() {
        match byte {
            _ if escaped => escaped = false,
            b'\\' => escaped = true,
            b'"' => quoted = !quoted,
            b',' if !quoted => return at,
            _ => {}
        }
    }
    text.len()
}

/// Appends why an event is invalid, as the envelope's `error` object.
fn write_invalid(invalid: &Invalid, out: &mut Vec<u8>) {
    out.extend_from_slice(b"{\"type\":");
    json::write_string(&invalid.kind, out);
    out.extend_from_slice(b",\"message\":");
    json::write_string(&invalid.message, out);
    if let Some(resolution) = &invalid.resolution {
        out.extend_from_slice(b",\"resolution\":");
        json::write_string(resolution, out);
    }
    out.extend_from_slice(b",\"details\":[");
    for (index, detail) in invalid.details.iter().enumerate() {
        out.extend_from_slice(if index == 0 { b"{\"path\":" } else { b",{\"path\":" });
        json::write_string(&detail.path, out);
        out.extend_from_slice(b",\"keyword\":");
        json::write_string(&detail.keyword, out);
        out.extend_from_slice(b",\"message\":");
        json::write_string(&detail.message, out);
        out.push(b'}');
    }
    out.extend_from_slice(b"]}");
}

#[cfg(test)]
mod tests;
