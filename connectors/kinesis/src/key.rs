//! The partition key of a record.

use std::fmt::Write;

use forebay_api::Event;
use sha2::{Digest, Sha256};

use crate::config::LONGEST_KEY;

/// What keeps events of one key together: the event's own, or, where that is longer than Kinesis takes, its SHA-256 as
/// hex.
pub(crate) fn partition_key(event: Event<'_>) -> String {
    let mut bytes = Vec::with_capacity(64);
    event.write_partition_key(&mut bytes);
    match String::from_utf8(bytes) {
        Ok(key) if !key.is_empty() && key.chars().count() <= LONGEST_KEY => key,
        Ok(key) => hash(key.as_bytes()),
        Err(error) => hash(error.as_bytes()),
    }
}

fn hash(bytes: &[u8]) -> String {
    let mut out = String::with_capacity(64);
    for byte in Sha256::digest(bytes) {
        write!(out, "{byte:02x}").expect("a String takes all that is written");
    }
    out
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use forebay_api::{Draft, Mark, Op, Row, Span, StreamId, Subject};

    use super::*;

    fn key_of(key: &str) -> String {
        let mut draft = Draft::default();
        let place = (None, Some("public"), Some("orders"));
        let subject = draft.subject(&Arc::new(Subject::new(("v", "n", "1-0-0"), place, String::new())));
        draft.buf.extend_from_slice(key.as_bytes());
        let (key, none) = (draft.since(0), Span::default());
        draft.push(Row {
            mark: Mark::MIN,
            time: 0,
            xid: 0,
            subject,
            op: Op::Insert,
            id: none,
            key,
            before: none,
            payload: none,
            unchanged: none,
            contexts: none,
            extra: none,
        });
        let stream = Arc::new(StreamId { source: "shop".into(), epoch: 1 });
        partition_key(draft.finish(&stream, 0, false).event(0))
    }

    #[test]
    fn the_key_is_the_events_unless_it_is_too_long() {
        assert_eq!(key_of(r#"{"id":1}"#), r#"{"id":1}"#);
        assert_eq!(key_of(""), "public.orders");
        // Characters count, not bytes.
        let longest = "é".repeat(LONGEST_KEY);
        assert_eq!(key_of(&longest), longest);
        let hashed = key_of(&"é".repeat(LONGEST_KEY + 1));
        assert!(hashed.len() == 64 && hashed.bytes().all(|byte| byte.is_ascii_hexdigit()), "{hashed}");
        assert_ne!(hashed, key_of(&"é".repeat(LONGEST_KEY + 2)));
    }
}
