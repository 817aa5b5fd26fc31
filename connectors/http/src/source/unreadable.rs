//! What could not be read still becomes an event: an invalid one, with the reason and the original.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use forebay_api::{Invalid, json};
use http::header::CONTENT_TYPE;

use super::own_schemas::UNREADABLE;
use super::{Gathered, Request, Tracked, event_id};

/// Why an event is invalid: a stable word for programs, a sentence for a person.
pub fn because(kind: &str, message: impl Into<String>) -> Invalid {
    Invalid { kind: kind.to_owned(), message: message.into(), resolution: None, details: Vec::new() }
}

/// What to keep of a request beside the bytes that could not be read.
#[derive(Clone, Copy, Debug, Default)]
pub struct Keep {
    /// The query, where it is a part of the event.
    pub query: bool,
    /// The headers whose names begin so, where they are a part of the event; empty: none.
    pub headers: &'static str,
}

/// Adds an event of schema `io.forebay/unreadable/1-0-0` for `original`, the body of `request` or an item of it.
pub fn refuse(request: &Request<'_>, original: &[u8], keep: Keep, why: Invalid, gathered: &mut Gathered) {
    let mut payload = Vec::with_capacity(original.len() + 128);
    payload.extend_from_slice(b"{\"path\":");
    json::write_string(request.path, &mut payload);
    if keep.query && !request.query.is_empty() {
        payload.extend_from_slice(b",\"query\":");
        json::write_string(request.query, &mut payload);
    }
    if let Some(content_type) = request.headers.get(CONTENT_TYPE) {
        payload.extend_from_slice(b",\"content_type\":");
        write_header(content_type.as_bytes(), &mut payload);
    }
    if !keep.headers.is_empty() {
        write_headers(request, keep.headers, &mut payload);
    }
    write_bytes(original, &mut payload);
    payload.push(b'}');
    let id = event_id::fresh(request.received);
    let time = request.received;
    let event = Tracked { schema: &UNREADABLE, id: &id, time, payload: &payload, contexts: b"" };
    gathered.refuse(&event, why);
}

/// The same for a whole request, its query included.
pub fn refuse_whole(request: &Request<'_>, kind: &str, why: impl Into<String>, gathered: &mut Gathered) {
    refuse(request, request.body, Keep { query: true, ..Keep::default() }, because(kind, why), gathered);
}

/// Appends `,"body":"…"`, or `,"body_base64":"…"` for what is no text.
fn write_bytes(bytes: &[u8], out: &mut Vec<u8>) {
    match str::from_utf8(bytes) {
        // Databases that keep JSON commonly refuse a NUL in it.
        Ok(text) if !bytes.contains(&0) => {
            out.extend_from_slice(b",\"body\":");
            json::write_string(text, out);
        }
        _ => {
            out.extend_from_slice(b",\"body_base64\":\"");
            out.extend_from_slice(STANDARD.encode(bytes).as_bytes());
            out.push(b'"');
        }
    }
}

/// Appends `,"headers":{"name":["value", …], …}`: those whose names begin with `prefix`.
fn write_headers(request: &Request<'_>, prefix: &str, out: &mut Vec<u8>) {
    out.extend_from_slice(b",\"headers\":{");
    let mut first = true;
    for name in request.headers.keys().filter(|name| name.as_str().starts_with(prefix)) {
        if !std::mem::take(&mut first) {
            out.push(b',');
        }
        json::write_string(name.as_str(), out);
        out.extend_from_slice(b":[");
        for (at, value) in request.headers.get_all(name).iter().enumerate() {
            if at > 0 {
                out.push(b',');
            }
            write_header(value.as_bytes(), out);
        }
        out.push(b']');
    }
    out.push(b'}');
}

/// Appends a header's value as a JSON string. Bytes that are not UTF-8 are ISO 8859-1, as HTTP once said.
pub fn write_header(value: &[u8], out: &mut Vec<u8>) {
    match str::from_utf8(value) {
        Ok(text) => json::write_string(text, out),
        Err(_) => json::write_string(&value.iter().map(|&byte| char::from(byte)).collect::<String>(), out),
    }
}
