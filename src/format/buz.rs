//! `format: buz`: the envelope of Buz, for tables and consumers that read it.
//!
//! What a change of a database has and that envelope has not (key, old row, columns that were not sent) is a context of
//! schema `io.forebay/change/1-0-0`. Contexts are an object of data by schema there, so they are taken apart here; data
//! stays the bytes that it is.

use std::borrow::Cow;

use forebay_api::{Event, Invalid, Op, Verdict, json};
use serde::Deserialize;
use serde_json::value::RawValue;
use uuid::Uuid;

use super::{Encoder, TimeText, member, write_or_null, write_source};

/// Of ids that are no UUIDs: version 5 UUIDs under it.
const NAMESPACE: Uuid = Uuid::from_u128(0x6e5f_2c1d_83b4_5a97_b0c8_41f7_9d2e_6a35);

/// A context entity.
#[derive(Deserialize)]
struct Entity<'e> {
    #[serde(borrow)]
    schema: Cow<'e, str>,
    #[serde(borrow)]
    data: &'e RawValue,
}

pub(super) fn write(
    encoder: &mut Encoder,
    event: Event<'_>,
    verdict: &Verdict,
    received: &TimeText,
    out: &mut Vec<u8>,
) {
    out.extend_from_slice(b"{\"uuid\":\"");
    let uuid = uuid(event).hyphenated();
    out.extend_from_slice(uuid.encode_lower(&mut Uuid::encode_buffer()).as_bytes());
    out.extend_from_slice(b"\",\"timestamp\":");
    out.extend_from_slice(encoder.time.get(event.row().time));
    out.extend_from_slice(b",\"buzTimestamp\":");
    out.extend_from_slice(&received.text);
    out.push(b',');
    out.extend_from_slice(&encoder.buz);
    out.extend_from_slice(b",\"protocol\":");
    out.extend_from_slice(protocol(&event.subject().source));
    let subject = event.subject();
    let schema = subject.schema_key();
    for (name, value) in [
        (",\"schema\":", &schema),
        (",\"vendor\":", &subject.vendor),
        (",\"namespace\":", &subject.name),
        (",\"version\":", &subject.version),
    ] {
        out.extend_from_slice(name.as_bytes());
        json::write_string(value, out);
    }
    match verdict {
        Verdict::Valid => out.extend_from_slice(b",\"isValid\":true"),
        Verdict::Invalid(invalid) => {
            out.extend_from_slice(b",\"isValid\":false,\"validationError\":");
            write_error(invalid, out);
        }
    }
    write_contexts(event, out);
    out.extend_from_slice(b",\"payload\":");
    write_or_null(event.payload(), out);
    out.push(b'}');
}

/// The event's id where that is a UUID, else one made of it: the same for the same id.
fn uuid(event: Event<'_>) -> Uuid {
    let mut id = Vec::with_capacity(64);
    event.write_id(&mut id);
    let hyphenated = (id.len() == 36).then(|| Uuid::try_parse_ascii(&id).ok()).flatten();
    hyphenated.unwrap_or_else(|| Uuid::new_v5(&NAMESPACE, &id))
}

/// The input that an event came by, or the kind of its source, as JSON.
fn protocol(source: &str) -> &[u8] {
    let input = member(source.as_bytes(), b"input");
    match input.or_else(|| member(source.as_bytes(), b"type")) {
        Some(b"\"self_describing\"") => b"\"selfDescribing\"",
        Some(named) => named,
        None => b"\"unknown\"",
    }
}

fn write_error(invalid: &Invalid, out: &mut Vec<u8>) {
    out.extend_from_slice(b"{\"errorType\":");
    json::write_string(&invalid.kind, out);
    out.extend_from_slice(b",\"errorResolution\":");
    match &invalid.resolution {
        Some(resolution) => json::write_string(resolution, out),
        None => out.extend_from_slice(b"null"),
    }
    out.extend_from_slice(b",\"payloadValidationErrors\":[");
    let whole = [("", &*invalid.message, &*invalid.kind)];
    let details = invalid.details.iter().map(|detail| (&*detail.path, &*detail.message, &*detail.keyword));
    // What is wrong with the whole comes first: details may be of a part, or missing.
    for (at, (field, description, kind)) in whole.into_iter().chain(details).enumerate() {
        out.extend_from_slice(if at == 0 { b"{\"field\":" } else { b",{\"field\":" });
        json::write_string(field, out);
        out.extend_from_slice(b",\"description\":");
        json::write_string(description, out);
        out.extend_from_slice(b",\"errorType\":");
        json::write_string(kind, out);
        out.push(b'}');
    }
    out.extend_from_slice(b"]}");
}

/// Appends the contexts as an object of data by schema. Data of a schema that is there several times is an array.
fn write_contexts(event: Event<'_>, out: &mut Vec<u8>) {
    let is_change = event.op() != Op::Track;
    if event.contexts().is_empty() && !is_change {
        return;
    }
    out.extend_from_slice(b",\"contexts\":{");
    let start = out.len();
    if is_change {
        out.extend_from_slice(b"\"io.forebay/change/1-0-0\":{\"op\":\"");
        out.extend_from_slice(event.op().as_str().as_bytes());
        out.extend_from_slice(b"\",\"key\":");
        write_or_null(event.key(), out);
        for (name, part) in [(",\"before\":", event.before()), (",\"unchanged\":", event.unchanged())] {
            if !part.is_empty() {
                out.extend_from_slice(name.as_bytes());
                out.extend_from_slice(part);
            }
        }
        out.extend_from_slice(b",\"source\":");
        write_source(event, out);
        out.push(b'}');
    }
    let entities: Vec<Entity<'_>> = match event.contexts() {
        b"" => Vec::new(),
        contexts => {
            serde_json::from_slice(contexts).expect("a source writes contexts as an array of entities")
        }
    };
    for (at, entity) in entities.iter().enumerate() {
        let same = |other: &&Entity<'_>| other.schema == entity.schema;
        if entities[..at].iter().any(|other| same(&other)) {
            continue;
        }
        if out.len() > start {
            out.push(b',');
        }
        json::write_string(&entity.schema, out);
        out.push(b':');
        let mut alike = entities[at + 1..].iter().filter(same).peekable();
        if alike.peek().is_none() {
            out.extend_from_slice(entity.data.get().as_bytes());
            continue;
        }
        out.push(b'[');
        out.extend_from_slice(entity.data.get().as_bytes());
        for other in alike {
            out.push(b',');
            out.extend_from_slice(other.data.get().as_bytes());
        }
        out.push(b']');
    }
    out.push(b'}');
}
