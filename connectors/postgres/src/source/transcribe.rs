//! From replication messages to rows of a chunk: marks, keys, old and new rows. No I/O.
//!
//! The schema of what follows has its place just before it: the number of the message before, and a part that no message
//! has. Invariants: the ordinal counts every insert, update, delete, truncate and logical message of a transaction as it
//! comes over the wire, before any filter of ours, so that an event keeps its mark whatever the configuration leaves
//! out; a row is written only between Begin and Commit; what cannot be written is an error, never left out.

use std::collections::{HashMap, HashSet};
use std::fmt::Write;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::Arc;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use forebay_api::{Blame, Draft, Fault, Mark, Op, Row, Span, StreamId, Subject, json};
use globset::GlobSet;

use super::prepare::Timelines;
use super::relation::Shape;
use super::snapshot::WATERMARK;
use super::snapshot::window::{Left, Window};
use crate::decode::row::{Columns, Notes, RowError};
use crate::lsn::Lsn;
use crate::protocol::{Begin, Logical, Message, Old, Truncate, Tuple};
use crate::time;

/// The prefix of our own signs of life.
pub(super) const HEARTBEAT: &str = "forebay.heartbeat";

/// Parts from here on are those of `schema` events; those of messages are below.
const SCHEMA_PART: u16 = 1 << 15;

/// What became of a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use]
pub(super) enum Taken {
    /// All of it is written.
    Whole,
    /// A row does not fit what is known of this relation, so nothing of it was written. It is to be taken again when
    /// more was [learned](Transcriber::learn).
    Unfit(u32),
}

/// The transaction that is being read.
#[derive(Debug, Default)]
struct Transaction {
    /// Timeline and commit LSN: what marks of its events begin with.
    major: (u32, u64),
    /// When it was committed: microseconds since the Unix epoch.
    time: i64,
    xid: u32,
    /// The number of the next message.
    ordinal: u32,
    /// `","commit_lsn":"0/16B37A0","xid":754,"ordinal":`, which follows each row's own LSN.
    middle: Vec<u8>,
    /// `,"origin":null,"snapshot":false`.
    end: Vec<u8>,
}

/// Writes messages into a draft.
pub(super) struct Transcriber {
    timelines: Timelines,
    shapes: HashMap<u32, Known>,
    messages: GlobSet,
    message_shape: Arc<Shape>,
    transaction: Option<Transaction>,
    /// One that is over, for its buffers: there may be one transaction for each row.
    spare: Transaction,
    notes: Notes,
    /// What is being written; the reader sends it off.
    pub draft: Draft,
    /// The newest place behind which nothing is missing and that lies in no transaction.
    pub boundary: Option<Lsn>,
    /// When the newest transaction was committed: microseconds since the Unix epoch.
    pub newest: i64,
    /// The keys that were touched while a copy is under way.
    pub window: Window,
    /// Room for the key of an old row.
    scratch: Vec<u8>,
    said: Said,
}

/// Which schemas were said in this run, by the stream and the copy alike.
struct Said {
    /// What ids of `schema` events begin with.
    prefix: String,
    /// The fingerprints of those that were said.
    known: HashSet<String>,
    /// Those in the draft.
    fresh: Vec<Arc<Shape>>,
}

/// A relation that was introduced.
struct Known {
    shape: Arc<Shape>,
    /// Says how its keys are written.
    key_shape: u64,
    /// Whether its schema may have to be said before its next row.
    announce: bool,
}

impl Transcriber {
    /// A transcriber that knows no relation yet; the server introduces each before its first row.
    pub(super) fn new(
        stream: &StreamId,
        timelines: Timelines,
        messages: (GlobSet, Shape),
        window: Window,
    ) -> Transcriber {
        let (messages, message_shape) = messages;
        let said = Said {
            prefix: format!("{}:{:016x}:schema:", stream.source, stream.epoch),
            known: HashSet::new(),
            fresh: Vec::new(),
        };
        Transcriber {
            window,
            said,
            scratch: Vec::new(),
            timelines,
            shapes: HashMap::new(),
            messages,
            message_shape: Arc::new(message_shape),
            transaction: None,
            spare: Transaction::default(),
            notes: Notes::default(),
            draft: Draft::default(),
            boundary: None,
            newest: 0,
        }
    }

    /// Whether a Begin was read and its Commit was not.
    pub(super) fn inside_transaction(&self) -> bool {
        self.transaction.is_some()
    }

    /// A relation was introduced, or has changed.
    pub(super) fn learn(&mut self, oid: u32, shape: Shape) {
        let (announce, key_shape) = (shape.announce, key_shape(&shape.columns));
        self.shapes.insert(oid, Known { shape: Arc::new(shape), key_shape, announce });
    }

    /// What is known of a relation that was introduced.
    pub(super) fn shape(&self, oid: u32) -> Option<&Arc<Shape>> {
        self.shapes.get(&oid).map(|known| &known.shape)
    }

    /// The shapes whose schemas stand in the draft; they are forgotten.
    pub(super) fn take_fresh(&mut self) -> Vec<Arc<Shape>> {
        std::mem::take(&mut self.said.fresh)
    }

    /// Says the schema of copied rows that are about to be sent from behind the last transaction, unless it was said.
    /// The draft must be empty before, and be sent before the rows.
    pub(super) fn say_copied(&mut self, shape: &Arc<Shape>) {
        if !shape.announce || self.said.known.contains(&shape.fingerprint) {
            return;
        }
        // Only the watermark itself was in that transaction.
        let place = Place {
            mark: Mark { major: self.spare.major, minor: 0, part: 0 },
            time: super::now_micros(),
            xid: 0,
            lsn: Lsn(self.spare.major.1),
            of: ",\"commit_lsn\":null,\"xid\":null".to_owned(),
        };
        self.said.say(&mut self.draft, shape, place);
    }

    /// The transaction that was read last, and its place, once it is complete: what comes next may stand behind it.
    pub(super) fn completed(&self) -> ((u32, u64), u32) {
        (self.spare.major, self.spare.xid)
    }

    /// The server has read so far. Inside a transaction that is no place to resume from.
    pub(super) fn reached(&mut self, lsn: Lsn) {
        if self.transaction.is_none() && self.boundary.is_none_or(|boundary| boundary < lsn) {
            self.boundary = Some(lsn);
        }
    }

    /// Takes one message, but for relations: those need the catalogs and come by [`Transcriber::learn`].
    pub(super) fn take(&mut self, at: Lsn, message: &Message<'_>) -> Result<Taken, Fault> {
        match message {
            Message::Insert(insert) => self.row(at, insert.relation, Op::Insert, None, Some(&insert.new)),
            Message::Update(update) => {
                self.row(at, update.relation, Op::Update, update.old.as_ref(), Some(&update.new))
            }
            Message::Delete(delete) => self.row(at, delete.relation, Op::Delete, Some(&delete.old), None),
            other => self.take_other(at, other).map(|()| Taken::Whole),
        }
    }

    fn take_other(&mut self, at: Lsn, message: &Message<'_>) -> Result<(), Fault> {
        match message {
            Message::Begin(begin) => self.begin(begin),
            Message::Commit(commit) => {
                let open = self.transaction.take().ok_or_else(|| out_of_place("a Commit without a Begin"))?;
                if open.major.1 != commit.commit_lsn.0 {
                    return Err(out_of_place("a Commit of another transaction than the one that began"));
                }
                self.spare = open;
                self.reached(commit.end_lsn);
                Ok(())
            }
            Message::Origin(origin) => {
                let open = self
                    .transaction
                    .as_mut()
                    .ok_or_else(|| out_of_place("an Origin outside a transaction"))?;
                open.end.clear();
                open.end.extend_from_slice(b",\"origin\":");
                json::write_string(origin.name, &mut open.end);
                open.end.extend_from_slice(b",\"snapshot\":false");
                Ok(())
            }
            Message::Truncate(truncate) => self.truncate(at, truncate),
            Message::Logical(logical) => self.logical(logical),
            // The catalogs are asked for types by oid when a relation needs them.
            Message::Type(_) => Ok(()),
            Message::Relation(_) => Err(out_of_place("a Relation that was not prepared")),
            Message::Insert(_) | Message::Update(_) | Message::Delete(_) => {
                unreachable!("rows are taken elsewhere")
            }
        }
    }

    fn begin(&mut self, begin: &Begin) -> Result<(), Fault> {
        if self.transaction.is_some() {
            return Err(out_of_place("a Begin inside a transaction"));
        }
        self.newest = time::unix_micros(begin.time);
        self.window.streamed(begin.xid);
        let mut transaction = std::mem::take(&mut self.spare);
        transaction.begin(self.timelines.owner(begin.commit_lsn), self.newest, begin);
        self.transaction = Some(transaction);
        Ok(())
    }

    /// One insert, update or delete.
    fn row(
        &mut self,
        at: Lsn,
        relation: u32,
        op: Op,
        old: Option<&Old<'_>>,
        new: Option<&Tuple<'_>>,
    ) -> Result<Taken, Fault> {
        let transaction =
            self.transaction.as_mut().ok_or_else(|| out_of_place("a row outside a transaction"))?;
        let ordinal = transaction.next_ordinal();
        let Known { shape, key_shape, announce } = self
            .shapes
            .get_mut(&relation)
            .ok_or_else(|| out_of_place("a row of a table that was not introduced"))?;
        if !shape.wanted {
            return Ok(Taken::Whole);
        }
        let start = self.draft.buf.len();
        let parts = match write_row(&mut self.draft, &mut self.notes, &shape.columns, old, new) {
            Ok(parts) => parts,
            Err(error) if error.is_stale() => {
                self.draft.buf.truncate(start);
                transaction.ordinal = ordinal;
                return Ok(Taken::Unfit(relation));
            }
            Err(error) => return Err(unwritable(&shape.subject, error)),
        };
        if std::mem::take(announce) {
            let place = transaction.place_before(ordinal, 0, at);
            self.said.say(&mut self.draft, shape, place);
        }
        if self.window.is_on() && !parts.key.is_empty() {
            let bytes = |span: Span| &self.draft.buf[span.at as usize..(span.at + span.len) as usize];
            let key = bytes(parts.key);
            let left = if parts.unchanged.is_empty() { Left::Whole } else { Left::Part };
            self.window.touch(relation, *key_shape, transaction.xid, key, left);
            if let (Some(Old::Key(row) | Old::Full(row)), Some(_)) = (old, new) {
                self.scratch.clear();
                let written = shape.columns.write_key(row, None, &mut self.scratch, &mut self.notes);
                written.map_err(|error| unwritable(&shape.subject, error))?;
                if self.scratch != key {
                    self.window.touch(relation, *key_shape, transaction.xid, &self.scratch, Left::Whole);
                    if left == Left::Part {
                        self.window.moved(relation, *key_shape, key);
                    }
                }
            }
        } else if let (Some(Old::Key(_)), false) = (old, parts.unchanged.is_empty()) {
            // An old key comes with an update that changed it.
            self.window.moved(relation, *key_shape, &[]);
        }
        let mark = Mark { major: transaction.major, minor: ordinal, part: 0 };
        let extra = transaction.extra(&mut self.draft, at, ordinal, &self.notes.lower_bounds);
        let subject = self.draft.subject(&shape.subject);
        self.draft.push(Row {
            mark,
            time: transaction.time,
            xid: transaction.xid,
            subject,
            op,
            extra,
            ..parts
        });
        Ok(Taken::Whole)
    }

    /// One event for each table, numbered by `part`.
    fn truncate(&mut self, at: Lsn, truncate: &Truncate<'_>) -> Result<(), Fault> {
        let transaction =
            self.transaction.as_mut().ok_or_else(|| out_of_place("a Truncate outside a transaction"))?;
        let ordinal = transaction.next_ordinal();
        let numbered = |part: usize| {
            let part = u16::try_from(part).ok().filter(|part| *part < SCHEMA_PART);
            part.ok_or_else(|| out_of_place("a Truncate of more tables than can be numbered"))
        };
        for (part, relation) in truncate.relations().enumerate() {
            let known = self
                .shapes
                .get_mut(&relation)
                .ok_or_else(|| out_of_place("a Truncate of a table that was not introduced"))?;
            if known.shape.wanted && std::mem::take(&mut known.announce) {
                let place = transaction.place_before(ordinal, numbered(part)?, at);
                self.said.say(&mut self.draft, &known.shape, place);
            }
        }
        for (part, relation) in truncate.relations().enumerate() {
            let Known { shape, .. } = &self.shapes[&relation];
            if !shape.wanted {
                continue;
            }
            self.window.emptied(relation, transaction.xid);
            let part = numbered(part)?;
            let extra = transaction.extra(&mut self.draft, at, ordinal, &[]);
            let start = extra.at as usize + extra.len as usize;
            let options = format!(
                ",\"cascade\":{},\"restart_identity\":{}",
                truncate.cascade, truncate.restart_identity
            );
            self.draft.buf.extend_from_slice(options.as_bytes());
            let extra = Span { at: extra.at, len: extra.len + self.draft.since(start).len };
            let mark = Mark { major: transaction.major, minor: ordinal, part };
            let subject = self.draft.subject(&shape.subject);
            let (time, xid) = (transaction.time, transaction.xid);
            self.draft.push(Row { mark, time, xid, subject, op: Op::Truncate, extra, ..NO_PARTS });
        }
        Ok(())
    }

    /// What an application wrote into the log. One outside a transaction comes before the transaction around it, and
    /// its LSN may be that of a commit: so its mark is just below, behind every ordinal there.
    fn logical(&mut self, logical: &Logical<'_>) -> Result<(), Fault> {
        let ours = [HEARTBEAT, WATERMARK].contains(&logical.prefix);
        let wanted = !ours && self.messages.is_match(logical.prefix);
        let shape = self.message_shape.clone();
        let subject = &shape.subject;
        if !logical.transactional {
            if !wanted {
                return Ok(());
            }
            let before = Lsn(logical.lsn.0.saturating_sub(1));
            let mark = Mark { major: (self.timelines.owner(before), before.0), minor: u32::MAX, part: 0 };
            if shape.announce {
                let mark = Mark { minor: u32::MAX - 1, part: SCHEMA_PART, ..mark };
                let of = ",\"commit_lsn\":null,\"xid\":null".to_owned();
                let place = Place { mark, time: super::now_micros(), xid: 0, lsn: logical.lsn, of };
                self.said.say(&mut self.draft, &shape, place);
            }
            let payload = write_message(&mut self.draft, logical);
            let start = self.draft.buf.len();
            let members = format!(
                "\"lsn\":\"{}\",\"commit_lsn\":null,\"xid\":null,\"ordinal\":null,\"origin\":null,\"snapshot\":false",
                logical.lsn
            );
            self.draft.buf.extend_from_slice(members.as_bytes());
            let extra = self.draft.since(start);
            let subject = self.draft.subject(subject);
            let time = super::now_micros();
            self.draft.push(Row { mark, time, subject, op: Op::Message, payload, extra, ..NO_PARTS });
            return Ok(());
        }
        let transaction =
            self.transaction.as_mut().ok_or_else(|| out_of_place("a message outside its transaction"))?;
        let ordinal = transaction.next_ordinal();
        if !wanted {
            return Ok(());
        }
        if shape.announce {
            let place = transaction.place_before(ordinal, 0, logical.lsn);
            self.said.say(&mut self.draft, &shape, place);
        }
        let payload = write_message(&mut self.draft, logical);
        let extra = transaction.extra(&mut self.draft, logical.lsn, ordinal, &[]);
        let mark = Mark { major: transaction.major, minor: ordinal, part: 0 };
        let subject = self.draft.subject(subject);
        let (time, xid) = (transaction.time, transaction.xid);
        self.draft.push(Row { mark, time, xid, subject, op: Op::Message, payload, extra, ..NO_PARTS });
        Ok(())
    }
}

impl Transaction {
    /// Becomes the transaction of a Begin, whatever it was before.
    fn begin(&mut self, timeline: u32, time: i64, begin: &Begin) {
        self.major = (timeline, begin.commit_lsn.0);
        self.time = time;
        self.xid = begin.xid;
        self.ordinal = 0;
        self.middle.clear();
        self.middle.extend_from_slice(b"\",\"commit_lsn\":\"");
        write_lsn(begin.commit_lsn, &mut self.middle);
        self.middle.extend_from_slice(b"\",\"xid\":");
        self.middle.extend_from_slice(itoa::Buffer::new().format(begin.xid).as_bytes());
        self.middle.extend_from_slice(b",\"ordinal\":");
        self.end.clear();
        self.end.extend_from_slice(b",\"origin\":null,\"snapshot\":false");
    }

    fn next_ordinal(&mut self) -> u32 {
        let ordinal = self.ordinal;
        // A non-transactional message has the last number; no transaction has so many changes.
        self.ordinal = ordinal.checked_add(1).expect("a transaction has fewer than 2^32 changes");
        ordinal
    }

    /// The place of a schema that is said before the message of this number. The first message's is behind whatever
    /// the stream has outside transactions just before the commit.
    fn place_before(&self, ordinal: u32, number: u16, lsn: Lsn) -> Place {
        let (timeline, commit) = self.major;
        let (major, minor) = match ordinal.checked_sub(1) {
            Some(before) => (self.major, before),
            None => ((timeline, commit.saturating_sub(1)), u32::MAX),
        };
        let mut of = Vec::new();
        of.extend_from_slice(b",\"commit_lsn\":\"");
        write_lsn(Lsn(commit), &mut of);
        of.extend_from_slice(format!("\",\"xid\":{}", self.xid).as_bytes());
        Place {
            mark: Mark { major, minor, part: SCHEMA_PART + number },
            time: self.time,
            xid: self.xid,
            lsn,
            of: String::from_utf8(of).expect("digits are text"),
        }
    }

    /// Appends the members of `source` that differ from row to row.
    fn extra(&self, draft: &mut Draft, at: Lsn, ordinal: u32, lower_bounds: &[u8]) -> Span {
        let start = draft.buf.len();
        let out = &mut draft.buf;
        out.extend_from_slice(b"\"lsn\":\"");
        write_lsn(at, out);
        out.extend_from_slice(&self.middle);
        out.extend_from_slice(itoa::Buffer::new().format(ordinal).as_bytes());
        out.extend_from_slice(&self.end);
        write_lower_bounds(lower_bounds, out);
        draft.since(start)
    }
}

/// Where a `schema` event stands.
struct Place {
    mark: Mark,
    time: i64,
    xid: u32,
    lsn: Lsn,
    /// `commit_lsn` and `xid` of `source`.
    of: String,
}

impl Said {
    /// Writes the `schema` event of a shape, unless there was one in this run.
    fn say(&mut self, draft: &mut Draft, shape: &Arc<Shape>, place: Place) {
        if !self.known.insert(shape.fingerprint.clone()) {
            return;
        }
        let start = draft.buf.len();
        draft.buf.extend_from_slice(self.prefix.as_bytes());
        draft.buf.extend_from_slice(shape.fingerprint.as_bytes());
        let id = draft.since(start);
        let start = draft.buf.len();
        draft.buf.extend_from_slice(shape.schema.as_bytes());
        let payload = draft.since(start);
        let start = draft.buf.len();
        draft.buf.extend_from_slice(b"\"lsn\":\"");
        write_lsn(place.lsn, &mut draft.buf);
        draft.buf.push(b'"');
        draft.buf.extend_from_slice(place.of.as_bytes());
        draft.buf.extend_from_slice(b",\"ordinal\":null,\"origin\":null,\"snapshot\":false");
        let extra = draft.since(start);
        let subject = draft.subject(&shape.subject);
        let Place { mark, time, xid, .. } = place;
        draft.push(Row { mark, time, xid, subject, op: Op::Schema, id, payload, extra, ..NO_PARTS });
        self.fresh.push(shape.clone());
    }
}

/// Says how keys are written: as long as it is the same, their bytes can be compared.
pub(super) fn key_shape(columns: &Columns) -> u64 {
    let mut hasher = DefaultHasher::new();
    for column in columns.0.iter().filter(|column| column.key) {
        (&column.name, &column.kind.name).hash(&mut hasher);
    }
    hasher.finish()
}

/// Whether a row can be written with these columns; a message that is none can.
pub(super) fn fits(columns: &Columns, message: &Message<'_>) -> Result<(), RowError> {
    let (old, new) = match message {
        Message::Insert(insert) => (None, Some(&insert.new)),
        Message::Update(update) => (update.old.as_ref(), Some(&update.new)),
        Message::Delete(delete) => (Some(&delete.old), None),
        _ => return Ok(()),
    };
    write_row(&mut Draft::default(), &mut Notes::default(), columns, old, new).map(drop)
}

/// Appends the lower bounds of arrays that do not begin at 1, where there are any.
pub(super) fn write_lower_bounds(lower_bounds: &[u8], out: &mut Vec<u8>) {
    if !lower_bounds.is_empty() {
        out.extend_from_slice(b",\"lower_bounds\":{");
        out.extend_from_slice(lower_bounds);
        out.push(b'}');
    }
}

/// A row of which nothing is known yet.
const NO_PARTS: Row = {
    let empty = Span { at: 0, len: 0 };
    Row {
        mark: Mark::MIN,
        time: 0,
        xid: 0,
        subject: 0,
        op: Op::Message,
        id: empty,
        key: empty,
        before: empty,
        payload: empty,
        unchanged: empty,
        contexts: empty,
        extra: empty,
    }
};

/// Appends key, old and new row. The old row is what the server gave: the key, or all of it.
pub(super) fn write_row(
    draft: &mut Draft,
    notes: &mut Notes,
    columns: &Columns,
    old: Option<&Old<'_>>,
    new: Option<&Tuple<'_>>,
) -> Result<Row, RowError> {
    let mut parts = NO_PARTS;
    let full = match old {
        Some(Old::Full(row)) => Some(row),
        Some(Old::Key(_)) | None => None,
    };
    let keys = match old {
        Some(Old::Key(row) | Old::Full(row)) => Some(row),
        None => None,
    };
    if let Some(row) = new.or(keys)
        && columns.has_key()
    {
        let start = draft.buf.len();
        columns.write_key(row, keys, &mut draft.buf, notes)?;
        parts.key = draft.since(start);
    }
    if let Some(row) = full {
        let start = draft.buf.len();
        columns.write_row(row, None, &mut draft.buf, notes)?;
        parts.before = draft.since(start);
    } else if let Some(row) = keys {
        parts.before = if new.is_none() {
            // all that is known of a deleted row is its key
            parts.key
        } else {
            let start = draft.buf.len();
            columns.write_key(row, None, &mut draft.buf, notes)?;
            draft.since(start)
        };
    }
    notes.clear();
    if let Some(row) = new {
        let start = draft.buf.len();
        columns.write_row(row, full, &mut draft.buf, notes)?;
        parts.payload = draft.since(start);
        if !notes.unchanged.is_empty() {
            let start = draft.buf.len();
            draft.buf.push(b'[');
            draft.buf.extend_from_slice(&notes.unchanged);
            draft.buf.push(b']');
            parts.unchanged = draft.since(start);
        }
    }
    Ok(parts)
}

/// `{"prefix":…,"encoding":"utf-8"|"base64","content":…}`
fn write_message(draft: &mut Draft, logical: &Logical<'_>) -> Span {
    let start = draft.buf.len();
    draft.buf.extend_from_slice(b"{\"prefix\":");
    json::write_string(logical.prefix, &mut draft.buf);
    match std::str::from_utf8(logical.content) {
        Ok(text) => {
            draft.buf.extend_from_slice(b",\"encoding\":\"utf-8\",\"content\":");
            json::write_string(text, &mut draft.buf);
        }
        Err(_) => {
            draft.buf.extend_from_slice(b",\"encoding\":\"base64\",\"content\":\"");
            draft.buf.extend_from_slice(STANDARD.encode(logical.content).as_bytes());
            draft.buf.push(b'"');
        }
    }
    draft.buf.push(b'}');
    draft.since(start)
}

/// `16/B374D848`, without the formatting machinery: it is written once a row.
fn write_lsn(lsn: Lsn, out: &mut Vec<u8>) {
    let half = |value: u64, out: &mut Vec<u8>| {
        const DIGITS: &[u8; 16] = b"0123456789ABCDEF";
        let digits = (67 - (value | 1).leading_zeros()) / 4;
        for at in (0..digits).rev() {
            out.push(DIGITS[((value >> (4 * at)) & 0xf) as usize]);
        }
    };
    half(lsn.0 >> 32, out);
    out.push(b'/');
    half(lsn.0 & 0xffff_ffff, out);
}

fn unwritable(subject: &Subject, error: RowError) -> Fault {
    Fault::fatal(format!("writing a row of `{}`", subject.name), Blame::Defect, error)
        .with_remedy("report this; until it is mended, `exclude` the table")
}

/// The stream is not what the protocol says: going on would lose or mix up changes.
fn out_of_place(what: &str) -> Fault {
    let mut error = String::from("the server sent ");
    write!(error, "{what}").expect("writing to a string succeeds");
    Fault::fatal("reading the stream", Blame::Defect, error)
        .with_remedy("report this with the server's version")
}

#[cfg(test)]
mod tests;
