//! Requests that nobody can read are events too: invalid ones, with all that came.

use std::sync::LazyLock;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use forebay_api::{Invalid, SchemaKey, json};

use super::{Gathered, Request, Tracked, fresh};

/// The schema that an unreadable request names: of what came nothing is known.
static UNREADABLE: LazyLock<SchemaKey> =
    LazyLock::new(|| "io.forebay/unreadable/1-0-0".parse().expect("it is a key"));

/// Adds the whole request as one invalid event: `{"path", "query", "body"}`, or `body_base64` where it is not text.
pub(super) fn refuse(request: &Request<'_>, kind: &str, why: &str, gathered: &mut Gathered) {
    let mut payload = Vec::with_capacity(request.body.len() + 256);
    payload.extend_from_slice(b"{\"path\":");
    json::write_string(request.path, &mut payload);
    payload.extend_from_slice(b",\"query\":");
    json::write_string(request.query, &mut payload);
    match std::str::from_utf8(request.body) {
        Ok(text) => {
            payload.extend_from_slice(b",\"body\":");
            json::write_string(text, &mut payload);
        }
        Err(_) => {
            payload.extend_from_slice(b",\"body_base64\":");
            json::write_string(&STANDARD.encode(request.body), &mut payload);
        }
    }
    payload.push(b'}');
    let why =
        Invalid { kind: kind.to_owned(), message: why.to_owned(), resolution: None, details: Vec::new() };
    let id = fresh::uuid();
    let tracked =
        Tracked { schema: &UNREADABLE, id: &id, time: request.received, payload: &payload, contexts: b"" };
    gathered.refuse(&tracked, why);
}
