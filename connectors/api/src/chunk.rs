//! How events travel: a [`Chunk`] is one buffer of bytes and a [`Row`] of spans for each event in it.
//!
//! A source writes the parts of an event once, as JSON bytes, through a [`Draft`]; nobody parses them again on
//! the hot path. An [`Event`] is a borrowed view of one row. There is one allocation a chunk, not several an
//! event. Invariant: every span lies inside the chunk's buffer, and a row's subject is in its subjects.

pub mod codec;

use std::sync::Arc;

use bytes::Bytes;

use crate::json;
use crate::mark::{Mark, StreamId};
use crate::verdict::{Invalid, Verdict};

/// Events that a source sends together.
#[derive(Clone, Debug)]
pub struct Chunk {
    /// The stream that all its marks belong to.
    pub stream: Arc<StreamId>,
    /// When the daemon took the events in: microseconds since the Unix epoch.
    pub received: i64,
    /// The bytes that every span points into.
    pub buf: Bytes,
    /// One for each event, in the order of the stream.
    pub rows: Vec<Row>,
    /// What the rows are about, shared between chunks; a row names one by its index.
    pub subjects: Vec<Arc<Subject>>,
    /// The verdict on each row where they were judged before: the chunk comes out of a journal, and is not judged
    /// again. Empty: all are valid. `None`: the stage judges.
    pub judged: Option<Vec<Verdict>>,
    /// Rows that the source itself could not read as what they should be, in ascending order, and why. The stage makes
    /// verdicts of them, and judges the others.
    pub refused: Vec<(u32, Box<Invalid>)>,
    /// Whether the source's transaction goes on after the last row.
    pub inside_transaction: bool,
}

impl Chunk {
    /// A chunk without events, to carry a position.
    pub fn empty(stream: Arc<StreamId>, received: i64) -> Chunk {
        Chunk {
            stream,
            received,
            buf: Bytes::new(),
            rows: Vec::new(),
            subjects: Vec::new(),
            judged: None,
            refused: Vec::new(),
            inside_transaction: false,
        }
    }

    /// The event of one row.
    pub fn event(&self, index: usize) -> Event<'_> {
        Event { chunk: self, row: &self.rows[index] }
    }

    /// All events, in order.
    pub fn events(&self) -> impl ExactSizeIterator<Item = Event<'_>> {
        self.rows.iter().map(move |row| Event { chunk: self, row })
    }

    /// Whether the source's transaction goes on after row `index`.
    pub fn goes_on_after(&self, index: usize) -> bool {
        match self.rows.get(index + 1) {
            Some(next) => next.mark.major == self.rows[index].mark.major,
            None => self.inside_transaction,
        }
    }

    /// What it holds in memory: its buffer and its rows. The budget counts this.
    pub fn weight(&self) -> usize {
        self.buf.len() + self.rows.len() * size_of::<Row>()
    }
}

/// A part of a chunk's buffer. An empty span means that the part is absent.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Span {
    /// First byte.
    pub at: u32,
    /// How many.
    pub len: u32,
}

impl Span {
    /// Whether the part is absent.
    pub fn is_empty(self) -> bool {
        self.len == 0
    }
}

/// One event: where it stands and where its parts are.
#[derive(Clone, Copy, Debug)]
pub struct Row {
    /// Where it stands in its stream.
    pub mark: Mark,
    /// When it happened (commit time, the tracker's time): microseconds since the Unix epoch.
    pub time: i64,
    /// The transaction that made it; 0 where the source has none.
    pub xid: u32,
    /// What it is about: index into [`Chunk::subjects`].
    pub subject: u16,
    /// What happened.
    pub op: Op,
    /// An id that the sender chose. Empty: the id is formatted from stream and mark.
    pub id: Span,
    /// JSON object of the primary key or replica identity; empty: there is none.
    pub key: Span,
    /// JSON object of what the database gave of the old row; empty: it gave nothing.
    pub before: Span,
    /// JSON of the new row, document or event; empty: `null`.
    pub payload: Span,
    /// JSON array of the columns that the database did not send; empty: it sent all.
    pub unchanged: Span,
    /// JSON array of self-describing entities; empty: none.
    pub contexts: Span,
    /// Members of the envelope's `source` object that differ from row to row, written after the subject's
    /// constant ones, without braces: `"lsn":"0/16B3748","xid":754`.
    pub extra: Span,
}

/// What happened to the subject.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[non_exhaustive]
pub enum Op {
    /// A row or document that was there when the copy was made.
    Snapshot,
    /// A new row or document.
    Insert,
    /// A changed one.
    Update,
    /// One that is gone.
    Delete,
    /// All of a table is gone.
    Truncate,
    /// The shape of what follows.
    Schema,
    /// A message written into the database's log by an application.
    Message,
    /// A hit of a tracker.
    Track,
}

impl Op {
    /// Every op, in the order of the envelope's documentation.
    pub const ALL: [Op; 8] =
        [Op::Snapshot, Op::Insert, Op::Update, Op::Delete, Op::Truncate, Op::Message, Op::Schema, Op::Track];

    /// The word that the envelope, filters and templates use.
    pub fn as_str(self) -> &'static str {
        match self {
            Op::Snapshot => "snapshot",
            Op::Insert => "insert",
            Op::Update => "update",
            Op::Delete => "delete",
            Op::Truncate => "truncate",
            Op::Schema => "schema",
            Op::Message => "message",
            Op::Track => "track",
        }
    }
}

/// What events are about (a table, a collection, a schema), and all that is the same for each of them. Made once
/// and shared by the chunks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Subject {
    /// The vendor half of the registry key.
    pub vendor: String,
    /// The name in the registry key; for tables `schema.table`.
    pub name: String,
    /// SchemaVer: `MODEL-REVISION-ADDITION`.
    pub version: String,
    /// The database, where there is one.
    pub database: Option<String>,
    /// The database's schema (namespace), where there is one.
    pub schema: Option<String>,
    /// The table or collection, where there is one.
    pub table: Option<String>,
    /// Constant members of the envelope's `source` object, without braces, `type` and `name` first:
    /// `"type":"postgres","name":"shop","database":"shop","schema":"public","table":"orders"`.
    pub source: String,
    /// The envelope's constant members, prepared once:
    /// `"schema":"…","vendor":"…","name":"…","version":"…"`.
    envelope: String,
}

impl Subject {
    /// `source` are the constant members of the envelope's `source` object; place is (database, schema, table).
    pub fn new(
        (vendor, name, version): (&str, &str, &str),
        (database, schema, table): (Option<&str>, Option<&str>, Option<&str>),
        source: String,
    ) -> Subject {
        let mut envelope = Vec::with_capacity(128);
        envelope.extend_from_slice(b"\"schema\":");
        json::write_string(&format!("{vendor}/{name}/{version}"), &mut envelope);
        for (member, value) in [("vendor", vendor), ("name", name), ("version", version)] {
            envelope.extend_from_slice(format!(",\"{member}\":").as_bytes());
            json::write_string(value, &mut envelope);
        }
        Subject {
            vendor: vendor.to_owned(),
            name: name.to_owned(),
            version: version.to_owned(),
            database: database.map(str::to_owned),
            schema: schema.map(str::to_owned),
            table: table.map(str::to_owned),
            source,
            envelope: String::from_utf8(envelope).expect("JSON of strings is a string"),
        }
    }

    /// `vendor/name/version`: the schema's key in the registry.
    pub fn schema_key(&self) -> String {
        format!("{}/{}/{}", self.vendor, self.name, self.version)
    }

    /// The envelope's constant members: `"schema":"…","vendor":"…","name":"…","version":"…"`.
    pub fn envelope_members(&self) -> &str {
        &self.envelope
    }
}

/// A borrowed view of one row.
#[derive(Clone, Copy, Debug)]
pub struct Event<'a> {
    chunk: &'a Chunk,
    row: &'a Row,
}

impl<'a> Event<'a> {
    /// The row itself: mark, time, xid, op.
    pub fn row(self) -> &'a Row {
        self.row
    }

    /// Where it stands in its stream.
    pub fn mark(self) -> Mark {
        self.row.mark
    }

    /// The stream its mark belongs to.
    pub fn stream(self) -> &'a Arc<StreamId> {
        &self.chunk.stream
    }

    /// What happened.
    pub fn op(self) -> Op {
        self.row.op
    }

    /// What it is about.
    pub fn subject(self) -> &'a Arc<Subject> {
        &self.chunk.subjects[usize::from(self.row.subject)]
    }

    /// When the daemon took it in: microseconds since the Unix epoch.
    pub fn received(self) -> i64 {
        self.chunk.received
    }

    /// The bytes of one part; empty where it is absent.
    pub fn part(self, span: Span) -> &'a [u8] {
        &self.chunk.buf[span.at as usize..(span.at + span.len) as usize]
    }

    /// JSON object of the key; empty where there is none.
    pub fn key(self) -> &'a [u8] {
        self.part(self.row.key)
    }

    /// JSON object of the old row; empty where the database gave nothing.
    pub fn before(self) -> &'a [u8] {
        self.part(self.row.before)
    }

    /// JSON of what there is now; empty means `null`.
    pub fn payload(self) -> &'a [u8] {
        self.part(self.row.payload)
    }

    /// JSON array of column names that the database did not send; empty where it sent all.
    pub fn unchanged(self) -> &'a [u8] {
        self.part(self.row.unchanged)
    }

    /// Members of `source` of this row alone, without braces.
    pub fn extra(self) -> &'a [u8] {
        self.part(self.row.extra)
    }

    /// JSON array of entities; empty where there are none.
    pub fn contexts(self) -> &'a [u8] {
        self.part(self.row.contexts)
    }

    /// Appends the event's id, which is the same whenever the event is read again. It is not escaped: ids that
    /// senders choose are plain (UUIDs), others are made of names, hex and digits.
    pub fn write_id(self, out: &mut Vec<u8>) {
        if !self.row.id.is_empty() {
            return out.extend_from_slice(self.part(self.row.id));
        }
        out.extend_from_slice(self.chunk.stream.source.as_bytes());
        out.push(b':');
        const HEX: &[u8; 16] = b"0123456789abcdef";
        for at in (0..16).rev() {
            out.push(HEX[((self.chunk.stream.epoch >> (4 * at)) & 0xf) as usize]);
        }
        out.push(b':');
        self.row.mark.write(out);
    }

    /// The event's id as text: `<source>:<epoch>:<timeline>:<commit lsn>:<ordinal>[.<part>]`.
    pub fn id(self) -> String {
        let mut out = Vec::with_capacity(64);
        self.write_id(&mut out);
        String::from_utf8_lossy(&out).into_owned()
    }

    /// Appends what keeps events of one key together in a partitioned destination: the JSON of the key, else
    /// `<schema>.<table>`, so that keyless rows and TRUNCATE keep their order too; else, for what has no order to keep
    /// (hits of a tracker), the id, which spreads them.
    pub fn write_partition_key(self, out: &mut Vec<u8>) {
        if !self.row.key.is_empty() {
            return out.extend_from_slice(self.key());
        }
        if self.row.op == Op::Track {
            return self.write_id(out);
        }
        let subject = self.subject();
        match (&subject.schema, &subject.table) {
            (Some(schema), Some(table)) => {
                out.extend_from_slice(schema.as_bytes());
                out.push(b'.');
                out.extend_from_slice(table.as_bytes());
            }
            _ => out.extend_from_slice(subject.name.as_bytes()),
        }
    }
}

/// A chunk in the making: a source appends bytes to `buf`, takes spans of them and pushes rows.
#[derive(Debug, Default)]
pub struct Draft {
    /// Append here; [`Draft::since`] makes the span.
    pub buf: Vec<u8>,
    rows: Vec<Row>,
    subjects: Vec<Arc<Subject>>,
}

impl Draft {
    /// The most bytes one chunk may hold: spans are 32-bit, and PostgreSQL's largest value is 1 GiB.
    pub const MAX_BYTES: usize = u32::MAX as usize;

    /// How many rows are in it.
    pub fn len(&self) -> usize {
        self.rows.len()
    }

    /// Whether it has no rows.
    pub fn is_empty(&self) -> bool {
        self.rows.is_empty()
    }

    /// The span of all that was appended since `buf` had length `start`.
    pub fn since(&self, start: usize) -> Span {
        let end = u32::try_from(self.buf.len()).expect("a source cuts its chunks below `Draft::MAX_BYTES`");
        let at = u32::try_from(start).expect("start is not past the end");
        Span { at, len: end - at }
    }

    /// The index of `subject` in this chunk, adding it when it is new.
    pub fn subject(&mut self, subject: &Arc<Subject>) -> u16 {
        let known = self.subjects.iter().rposition(|s| Arc::ptr_eq(s, subject));
        let index = known.unwrap_or_else(|| {
            self.subjects.push(subject.clone());
            self.subjects.len() - 1
        });
        u16::try_from(index).expect("a chunk has fewer rows than a u16 counts, so fewer subjects too")
    }

    /// Adds an event whose parts were appended to `buf`.
    pub fn push(&mut self, row: Row) {
        debug_assert!(usize::from(row.subject) < self.subjects.len(), "a row's subject is in its chunk");
        self.rows.push(row);
    }

    /// Makes the chunk and leaves the draft empty, with room for as much again.
    pub fn finish(&mut self, stream: &Arc<StreamId>, received: i64, inside_transaction: bool) -> Chunk {
        let room = (self.buf.capacity().min(2 * self.buf.len()), self.rows.len());
        let buf = std::mem::replace(&mut self.buf, Vec::with_capacity(room.0));
        Chunk {
            stream: stream.clone(),
            received,
            buf: Bytes::from(buf),
            rows: std::mem::replace(&mut self.rows, Vec::with_capacity(room.1)),
            subjects: std::mem::take(&mut self.subjects),
            judged: None,
            refused: Vec::new(),
            inside_transaction,
        }
    }
}
