//! Records as rows of `COPY … (FORMAT binary)`: written straight into one buffer, without an allocation per row.

use bytes::Bytes;
use forebay_api::{Event, Op, Record};
use sha2::{Digest, Sha256};

/// The columns of a row, in order, with their types: those of the staging table, and behind `n` those of the events.
pub(super) const COLUMNS: [(&str, &str); FIELDS as usize] = [
    ("n", "integer"),
    ("id", "text"),
    ("source", "text"),
    ("schema", "text"),
    ("name", "text"),
    ("op", "text"),
    ("time", "timestamp with time zone"),
    ("received", "timestamp with time zone"),
    ("valid", "boolean"),
    ("key", "jsonb"),
    ("body", "jsonb"),
    ("digest", "bytea"),
];

/// How many values a row has.
const FIELDS: i16 = 12;

/// The largest body or key that is sent: `jsonb` holds no more, and the server would refuse it only after it had it
/// all.
pub(super) const MAX_JSON_BYTES: usize = 0x0fff_ffff;

/// How much is gathered before it is handed to the connection.
const CHUNK_BYTES: usize = 256 * 1024;

/// Bytes of a digest: enough that no two bodies share one by chance.
const DIGEST_BYTES: usize = 16;

/// The signature, no flags, no header extension.
const HEADER: &[u8] = b"PGCOPY\n\xff\r\n\0\0\0\0\0\0\0\0\0";

/// Instead of a length: the value is null.
const NULL: i32 = -1;

/// Microseconds from the Unix epoch to PostgreSQL's, 2000-01-01.
const EPOCH_MICROS: i64 = 946_684_800_000_000;

/// Rows in the making.
#[derive(Debug)]
pub(super) struct Rows {
    buf: Vec<u8>,
    rows: i32,
}

impl Rows {
    /// The beginning of a copy.
    pub(super) fn new() -> Rows {
        Rows { buf: HEADER.to_vec(), rows: 0 }
    }

    /// Adds a record; what is to be sent, once enough was gathered.
    pub(super) fn push(&mut self, record: Record<'_>) -> Option<Bytes> {
        let (event, subject) = (record.event(), record.event().subject());
        let key = Some(event.key()).filter(|key| !key.is_empty());
        self.buf.extend_from_slice(&FIELDS.to_be_bytes());
        self.value(&self.rows.to_be_bytes());
        self.sized(|out| event.write_id(out));
        self.value(event.stream().source.as_bytes());
        self.sized(|out| {
            for (part, end) in [(&subject.vendor, "/"), (&subject.name, "/"), (&subject.version, "")] {
                out.extend_from_slice(part.as_bytes());
                out.extend_from_slice(end.as_bytes());
            }
        });
        self.value(subject.name.as_bytes());
        self.value(event.op().as_str().as_bytes());
        self.value(&timestamp(event.row().time));
        self.value(&timestamp(event.received()));
        self.value(&[u8::from(record.verdict().is_valid())]);
        match key {
            Some(key) => self.jsonb(key),
            None => self.null(),
        }
        self.jsonb(record.body());
        match digest(event) {
            Some(digest) => self.value(&digest),
            None => self.null(),
        }
        self.rows += 1;
        (self.buf.len() >= CHUNK_BYTES).then(|| self.take())
    }

    /// The end of the copy, with all that was not sent yet.
    pub(super) fn finish(mut self) -> Bytes {
        self.buf.extend_from_slice(&(-1i16).to_be_bytes());
        self.take()
    }

    fn take(&mut self) -> Bytes {
        // what one row put over the edge is a good guess for the next chunk, too
        let room = self.buf.len().min(2 * CHUNK_BYTES);
        Bytes::from(std::mem::replace(&mut self.buf, Vec::with_capacity(room)))
    }

    fn null(&mut self) {
        self.buf.extend_from_slice(&NULL.to_be_bytes());
    }

    fn value(&mut self, bytes: &[u8]) {
        self.sized(|out| out.extend_from_slice(bytes));
    }

    fn jsonb(&mut self, json: &[u8]) {
        self.sized(|out| {
            out.push(1); // the version of the format, which is JSON text
            out.extend_from_slice(json);
        });
    }

    /// A value whose length is known once it is written.
    fn sized(&mut self, write: impl FnOnce(&mut Vec<u8>)) {
        let at = self.buf.len();
        self.buf.extend_from_slice(&[0; 4]);
        write(&mut self.buf);
        let len =
            i32::try_from(self.buf.len() - at - 4).expect("what is over `MAX_JSON_BYTES` is not pushed");
        self.buf[at..at + 4].copy_from_slice(&len.to_be_bytes());
    }
}

/// Whether whoever sent the event chose its id, so that another event may come under the same. Only trackers do; other
/// events bear an id too where it is not that of their own mark (a copied row, a dead letter that is replayed).
pub(super) fn has_chosen_id(event: Event<'_>) -> bool {
    event.op() == Op::Track && !event.row().id.is_empty()
}

/// What tells whether two events under one id are the same: a hash over what the sender said. Neither times nor
/// contexts are in it, which differ when a sender tries again. `None` where the id is made of the event's mark.
fn digest(event: Event<'_>) -> Option<[u8; DIGEST_BYTES]> {
    if !has_chosen_id(event) {
        return None;
    }
    let mut hash = Sha256::new();
    let subject = event.subject();
    let said = [subject.vendor.as_bytes(), subject.name.as_bytes(), subject.version.as_bytes()];
    let parts = said.into_iter().chain([
        event.op().as_str().as_bytes(),
        event.key(),
        event.before(),
        event.payload(),
    ]);
    for part in parts {
        hash.update((part.len() as u64).to_be_bytes()); // so that no two sequences of parts hash the same bytes
        hash.update(part);
    }
    hash.finalize().first_chunk().copied()
}

/// The least number means `-infinity` to the server, and a time that far back is stored as that.
fn timestamp(unix_micros: i64) -> [u8; 8] {
    unix_micros.saturating_sub(EPOCH_MICROS).to_be_bytes()
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use forebay_api::{Batch, Chunk, Draft, Encoded, Mark, Op, Row, Span, StreamId, Subject};

    use super::*;

    fn chunk(ids: &[&str], payload: &str) -> Chunk {
        let mut draft = Draft::default();
        let subject = Arc::new(Subject::new(("v", "n", "1-0-0"), (None, None, None), String::new()));
        let subject = draft.subject(&subject);
        for (minor, id) in (0..).zip(ids) {
            let at = draft.buf.len();
            draft.buf.extend_from_slice(id.as_bytes());
            let id = draft.since(at);
            let at = draft.buf.len();
            draft.buf.extend_from_slice(payload.as_bytes());
            let payload = draft.since(at);
            draft.push(Row {
                mark: Mark { minor, ..Mark::MIN },
                time: 0,
                xid: 0,
                subject,
                op: Op::Track,
                id,
                key: Span::default(),
                before: Span::default(),
                payload,
                unchanged: Span::default(),
                contexts: Span::default(),
                extra: Span::default(),
            });
        }
        draft.finish(&Arc::new(StreamId { source: "web".into(), epoch: 1 }), EPOCH_MICROS + 1, false)
    }

    #[test]
    fn a_row_is_written_as_the_server_reads_it() {
        let chunk = chunk(&[""], "1");
        let encoded = vec![Encoded::new(b"{}".to_vec(), vec![2])];
        let batch = Batch { chunk, verdicts: Vec::new(), encoded };
        let mut rows = Rows::new();
        assert_eq!(rows.push(batch.record(0, 0)), None);
        let bytes = rows.finish();
        let mut expected = HEADER.to_vec();
        expected.extend_from_slice(&[0, 12]);
        let values: [Option<&[u8]>; 12] = [
            Some(&[0, 0, 0, 0]),
            Some(b"web:0000000000000001:0:0000000000000000:0"),
            Some(b"web"),
            Some(b"v/n/1-0-0"),
            Some(b"n"),
            Some(b"track"),
            Some(&(-EPOCH_MICROS).to_be_bytes()),
            Some(&1i64.to_be_bytes()),
            Some(&[1]),
            None,
            Some(b"\x01{}"),
            None,
        ];
        for value in values {
            let len = value.map_or(NULL, |value| i32::try_from(value.len()).unwrap());
            expected.extend_from_slice(&len.to_be_bytes());
            expected.extend_from_slice(value.unwrap_or_default());
        }
        expected.extend_from_slice(&[0xff, 0xff]);
        assert_eq!(bytes, expected);
    }

    #[test]
    fn events_under_a_chosen_id_differ_when_what_their_sender_said_differs() {
        let (one, same, other) = (chunk(&["a"], "1"), chunk(&["b"], "1"), chunk(&["a"], "2"));
        assert_eq!(digest(one.event(0)), digest(same.event(0)));
        assert_ne!(digest(one.event(0)), digest(other.event(0)));
        assert_eq!(digest(chunk(&[""], "1").event(0)), None);
    }

    #[test]
    fn rows_are_handed_over_in_chunks() {
        let chunk = chunk(&["a", "b"], "1");
        let body = vec![b'1'; CHUNK_BYTES];
        let ends = vec![1, u32::try_from(body.len()).unwrap()];
        let batch = Batch { chunk, verdicts: Vec::new(), encoded: vec![Encoded::new(body, ends)] };
        let mut rows = Rows::new();
        assert_eq!(rows.push(batch.record(0, 0)), None);
        assert!(rows.push(batch.record(1, 0)).unwrap().len() > CHUNK_BYTES);
        assert_eq!(rows.finish(), [0xffu8, 0xff][..]);
    }
}
