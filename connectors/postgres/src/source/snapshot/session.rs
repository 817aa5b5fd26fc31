//! [`Session`]: reads chunks on a thread of its own, over a connection of its own.
//!
//! Each chunk is a transaction of its own that reads under one snapshot. The table is locked against a change of its
//! shape first, because a rewrite of it is not seen by the rules of snapshots.

use std::sync::Arc;
use std::time::Duration;

use forebay_api::{Budget, Chunk, Draft, Op, Permit, Row, Span, StreamId, json};
use tokio::runtime::Handle;
use tokio::sync::mpsc;

use super::line::{Line, NotALine};
use super::seen::Seen;
use super::stretch::Naming;
use super::target::{Target, signature_query};
use crate::decode::row::{Columns, Notes, RowError};
use crate::protocol::{Tuple, Value};
use crate::source::{now_micros, transcribe};
use crate::wire::{Connection, Copied, CopyEnd, WireError};

/// A chunk of the stream's own size, so that nothing behind it can tell the two apart.
const ROWS: usize = 256;
const BYTES: usize = 256 * 1024;

/// So much is read before it gets its place in the stream.
pub(super) const PIECE_BYTES: usize = 4 << 20;

/// A line longer than this waits until there is room for all that is made of it,
const LONG: usize = 8 << 20;

/// which is so many times its length: as it came, taken apart, and as JSON.
const LONG_COPIES: usize = 3;

/// Preparing a chunk waits for nobody but a lock, which has a limit of its own.
const STATEMENT_LIMIT: Duration = Duration::from_secs(60);

/// A scan that finds few rows is silent for long; that the server is still there is what TCP's keepalive asks.
const SILENCE: Duration = Duration::from_secs(7 * 24 * 3600);

/// Rows that policies hide would be missing without a word, so the server is to refuse instead; and whoever waits for a
/// lock holds up all who come after.
const SETTINGS: &str = "SET row_security = off; SET lock_timeout = '10s'";

/// A connection that copies.
#[derive(Debug)]
pub(super) struct Session {
    connection: Connection,
}

/// What a chunk is to be.
pub(super) struct Order {
    pub(super) target: Arc<Target>,
    /// `COPY … TO STDOUT`.
    pub(super) statement: String,
    pub(super) stream: Arc<StreamId>,
    /// What ids of the copy begin with,
    pub(super) prefix: String,
    /// and what follows.
    pub(super) naming: Naming,
    /// Whether of these rows only those are wanted that have moved.
    pub(super) only_moved: bool,
    /// Whether the server is no standby.
    pub(super) exact: bool,
}

/// Some of a chunk's rows.
pub(super) struct Part {
    pub(super) seen: Arc<Seen>,
    pub(super) chunks: Vec<Chunk>,
    /// The key of each row as the server wrote it; empty where there is none.
    pub(super) keys: Keys,
    /// What it takes of the room for parts.
    pub(super) room: Permit,
    /// Whether it is one long line, which keeps its room until it is settled.
    pub(super) long: bool,
}

/// Where the parts of a chunk go, from a thread that may block.
pub(super) struct Way {
    /// To whoever gives them their place in the stream.
    pub(super) parts: mpsc::Sender<Part>,
    /// Parts of all chunks wait in it, so that large values do not gather.
    pub(super) room: Budget,
}

/// Keys, as text, without an allocation for each.
#[derive(Debug, Default)]
pub(super) struct Keys {
    /// Values, each followed by a zero byte, which no text of PostgreSQL holds.
    bytes: Vec<u8>,
    ends: Vec<usize>,
}

/// What a chunk came to.
#[derive(Debug)]
pub(super) enum Chunked {
    /// All rows of the statement were handed over: so many, and these many bytes of text.
    Whole { rows: u64, bytes: u64 },
    /// The table is not what the order says, so nothing was read.
    Changed,
    /// Somebody holds a lock on the table that nobody reads beside.
    Locked,
    /// A row does not fit what is known of the table; this is its line, without what COPY says of its place. The session
    /// is of no further use.
    Unfit { line: Vec<u8> },
    /// Nobody takes the rows any more.
    Dropped,
}

/// Why a chunk could not be read.
#[derive(Debug, thiserror::Error)]
pub(super) enum SessionError {
    #[error(transparent)]
    Wire(#[from] WireError),
    #[error("a row cannot be written")]
    Row(#[from] RowError),
    #[error(transparent)]
    Line(#[from] NotALine),
}

impl Session {
    /// Makes a fresh connection ready.
    pub(super) fn new(mut connection: Connection) -> Result<Session, WireError> {
        connection.query(SETTINGS, STATEMENT_LIMIT)?;
        Ok(Session { connection })
    }

    /// What ends its statement from elsewhere.
    pub(super) fn canceller(&self) -> crate::wire::Canceller {
        self.connection.canceller()
    }

    /// Reads a chunk and hands it over in parts, as they fill. After an error the connection is of no further use.
    pub(super) fn chunk(
        &mut self,
        order: &Order,
        saw: &dyn Fn(&Arc<Seen>),
        way: &Way,
    ) -> Result<Chunked, SessionError> {
        let target = &order.target;
        let begin = format!(
            "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY; LOCK TABLE ONLY {} IN ACCESS SHARE MODE; \
             SELECT pg_current_snapshot()::text, CASE WHEN pg_is_in_recovery() THEN pg_last_wal_replay_lsn() \
             ELSE pg_current_wal_lsn() END::text, {}",
            target.quoted,
            signature_query(target.table, target.oid)
        );
        let begun = match self.connection.query(&begin, STATEMENT_LIMIT) {
            // the table is gone
            Err(WireError::Server(error)) if error.code.code() == "42P01" => {
                self.connection.query("ROLLBACK", STATEMENT_LIMIT)?;
                return Ok(Chunked::Changed);
            }
            Err(WireError::Server(error)) if error.code.code() == "55P03" => {
                self.connection.query("ROLLBACK", STATEMENT_LIMIT)?;
                return Ok(Chunked::Locked);
            }
            begun => begun?,
        };
        let row = begun.first().ok_or_else(|| WireError::malformed("no row in the answer to a query"))?;
        let seen = Seen::read(row.text(0)?, order.exact)
            .ok_or_else(|| WireError::malformed("a snapshot that cannot be read"))?;
        let seen = Arc::new(seen);
        saw(&seen);
        if row.bytes(2) != Some(target.signature.as_bytes()) {
            self.connection.query("ROLLBACK", STATEMENT_LIMIT)?;
            return Ok(Chunked::Changed);
        }
        let mut reading = Reading::new(order, row.text(1)?, seen);
        let mut failed = None;
        let end = self.connection.copy_out(&order.statement, SILENCE, LONG, &mut |copied| match reading
            .come(copied, way)
        {
            Ok(goes_on) => goes_on,
            Err(error) => {
                failed = Some(error);
                false
            }
        })?;
        if let Some(error) = failed {
            return Err(error);
        }
        if let Some(line) = reading.unfit {
            return Ok(Chunked::Unfit { line });
        }
        if end == CopyEnd::Broken || !reading.hand_over(way) {
            return Ok(Chunked::Dropped);
        }
        self.connection.query("COMMIT", STATEMENT_LIMIT)?;
        Ok(Chunked::Whole { rows: reading.rows, bytes: reading.text_bytes })
    }

    /// Runs a copy of a few values, such as a sample of keys.
    pub(super) fn values(&mut self, statement: &str, columns: u16) -> Result<Vec<Vec<String>>, SessionError> {
        let (mut rows, mut room, mut failed) = (Vec::new(), Line::default(), None);
        self.connection.copy_out(statement, SILENCE, LONG, &mut |copied| {
            let Copied::Line(line) = copied else { return true };
            match room.read(line, columns) {
                Ok(tuple) => {
                    rows.push(tuple.values().map(text_of).collect());
                    true
                }
                Err(error) => {
                    failed = Some(error);
                    false
                }
            }
        })?;
        match failed {
            Some(error) => Err(error.into()),
            None => Ok(rows),
        }
    }
}

fn text_of(value: Value<'_>) -> String {
    match value {
        Value::Text(text) => String::from_utf8_lossy(text).into_owned(),
        // a key has no nulls, and COPY sends nothing else
        Value::Null | Value::Unchanged | Value::Binary(_) => String::new(),
    }
}

/// One chunk while it is read.
struct Reading<'a> {
    order: &'a Order,
    seen: Arc<Seen>,
    line: Line,
    notes: Notes,
    draft: Draft,
    /// `"lsn":…`, the same for all rows.
    extra: String,
    /// Where the draft has it, once a row of the draft needed it.
    extra_at: Option<Span>,
    chunks: Vec<Chunk>,
    keys: Keys,
    gathered: usize,
    rows: u64,
    text_bytes: u64,
    received: i64,
    unfit: Option<Vec<u8>>,
    /// The room for the long line that comes next.
    long: Option<Permit>,
}

impl<'a> Reading<'a> {
    fn new(order: &'a Order, lsn: &str, seen: Arc<Seen>) -> Reading<'a> {
        let extra = format!(
            "\"lsn\":\"{lsn}\",\"commit_lsn\":null,\"xid\":null,\"ordinal\":null,\"origin\":null,\"snapshot\":true"
        );
        Reading {
            order,
            seen,
            line: Line::default(),
            notes: Notes::default(),
            draft: Draft::default(),
            extra,
            extra_at: None,
            chunks: Vec::new(),
            keys: Keys::default(),
            gathered: 0,
            rows: 0,
            text_bytes: 0,
            received: now_micros(),
            unfit: None,
            long: None,
        }
    }

    /// Takes what comes; whether more is wanted.
    fn come(&mut self, copied: Copied<'_>, way: &Way) -> Result<bool, SessionError> {
        match copied {
            Copied::Long(length) => {
                if !self.hand_over(way) {
                    return Ok(false);
                }
                self.long =
                    Some(Handle::current().block_on(way.room.take(length.saturating_mul(LONG_COPIES))));
                Ok(true)
            }
            Copied::Line(line) => {
                let long = self.long.is_some();
                let goes_on = self.take(line, way)?;
                if !long {
                    return Ok(goes_on);
                }
                self.line = Line::default();
                Ok(goes_on && self.hand_over(way))
            }
        }
    }

    /// Takes a row; whether more are wanted.
    fn take(&mut self, line: &[u8], way: &Way) -> Result<bool, SessionError> {
        let target = &self.order.target;
        self.rows += 1;
        self.text_bytes += line.len() as u64;
        let (place, line) = match self.order.naming {
            Naming::Place => split_place(line)?,
            Naming::Key => (&[][..], line),
        };
        let tuple = self.line.read(line, target.width())?;
        let columns = &target.shape.columns;
        let written =
            match transcribe::write_row(&mut self.draft, &mut self.notes, columns, None, Some(&tuple)) {
                Ok(written) => written,
                Err(error) if error.is_stale() => {
                    self.unfit = Some(line.to_vec());
                    return Ok(false);
                }
                Err(error) => return Err(error.into()),
            };
        let start = self.draft.buf.len();
        let out = &mut self.draft.buf;
        out.extend_from_slice(self.order.prefix.as_bytes());
        match self.order.naming {
            Naming::Place => out.extend_from_slice(place),
            Naming::Key => write_key_id(target, &tuple, out),
        }
        if !target.key.is_empty() {
            self.keys.push(target, &tuple);
        }
        let id = self.draft.since(start);
        let extra = self.extra();
        let subject = self.draft.subject(&target.shape.subject);
        self.draft.push(Row { time: self.received, subject, op: Op::Snapshot, id, extra, ..written });
        if self.draft.len() >= ROWS || self.draft.buf.len() >= BYTES {
            self.finish_chunk();
            if self.gathered >= PIECE_BYTES {
                return Ok(self.hand_over(way));
            }
        }
        Ok(true)
    }

    /// What `source` tells of the row that was written last. The same for all rows is there once in a chunk.
    fn extra(&mut self) -> Span {
        let plain = self.notes.lower_bounds.is_empty();
        if let (true, Some(span)) = (plain, self.extra_at) {
            return span;
        }
        let start = self.draft.buf.len();
        self.draft.buf.extend_from_slice(self.extra.as_bytes());
        transcribe::write_lower_bounds(&self.notes.lower_bounds, &mut self.draft.buf);
        let span = self.draft.since(start);
        if plain {
            self.extra_at = Some(span);
        }
        span
    }

    fn finish_chunk(&mut self) {
        self.extra_at = None;
        if !self.draft.is_empty() {
            let chunk = self.draft.finish(&self.order.stream, self.received, false);
            self.gathered += chunk.weight();
            self.chunks.push(chunk);
        }
    }

    /// Gives away what has gathered; whether somebody took it.
    fn hand_over(&mut self, way: &Way) -> bool {
        self.finish_chunk();
        if self.chunks.is_empty() {
            return true;
        }
        let gathered = std::mem::take(&mut self.gathered);
        let long = self.long.take();
        let part = Part {
            long: long.is_some(),
            room: long.unwrap_or_else(|| Handle::current().block_on(way.room.take(gathered))),
            seen: self.seen.clone(),
            chunks: std::mem::take(&mut self.chunks),
            keys: std::mem::take(&mut self.keys),
        };
        way.parts.blocking_send(part).is_ok()
    }
}

impl Keys {
    fn push(&mut self, target: &Target, tuple: &Tuple<'_>) {
        for column in &target.key {
            if let Some(Value::Text(text)) = tuple.values().nth(column.at) {
                self.bytes.extend_from_slice(text);
            }
            self.bytes.push(0);
        }
        self.ends.push(self.bytes.len());
    }

    /// How many there are.
    pub(super) fn len(&self) -> usize {
        self.ends.len()
    }

    /// One of them, a text for each column.
    pub(super) fn get(&self, at: usize) -> Vec<String> {
        let start = at.checked_sub(1).map_or(0, |before| self.ends[before]);
        let values = &self.bytes[start..self.ends[at]];
        let values = values.strip_suffix(b"\0").unwrap_or(values);
        values.split(|&byte| byte == 0).map(|value| String::from_utf8_lossy(value).into_owned()).collect()
    }
}

/// Whether a line of the table can be written with these columns.
pub(super) fn fits(target: &Target, columns: &Columns, line: &[u8]) -> Result<(), RowError> {
    let mut room = Line::default();
    let tuple = room.read(line, target.width()).expect("it was read before");
    transcribe::write_row(&mut Draft::default(), &mut Notes::default(), columns, None, Some(&tuple)).map(drop)
}

/// A place and the transaction that wrote there: together they name a version of a row for as long as anybody needs.
fn split_place(line: &[u8]) -> Result<(&[u8], &[u8]), NotALine> {
    let ctid = memchr::memchr(b'\t', line).ok_or(NotALine)?;
    let rest = &line[ctid + 1..];
    match memchr::memchr(b'\t', rest) {
        Some(xmin) => Ok((&line[..ctid + 1 + xmin], &rest[xmin + 1..])),
        // a table without columns
        None => Ok((line, &[])),
    }
}

/// The key in an id: the text of a single column; of several, JSON strings, so that no two keys read the same.
fn write_key_id(target: &Target, tuple: &Tuple<'_>, out: &mut Vec<u8>) {
    let single = target.key.len() == 1;
    for (at, column) in target.key.iter().enumerate() {
        if at > 0 {
            out.push(b',');
        }
        if let Some(Value::Text(text)) = tuple.values().nth(column.at) {
            if single {
                out.extend_from_slice(text);
            } else {
                json::write_string(&String::from_utf8_lossy(text), out);
            }
        }
    }
}
