//! A chunk as bytes, for logs that keep it: [`Piece::encode`] and [`Chunk::decode`].
//!
//! ```text
//! version: u8 · flags: u8 · source: text · epoch: u64 · received: i64
//! subjects: count, then each: vendor, name, version, database?, schema?, table?, source
//! rows:     count, then each: mark (18 bytes) · time: i64 · xid · subject · op: u8 · seven spans
//! verdicts: where a flag says so, one for each row
//! buffer:   the bytes that the spans point into, to the end
//! ```
//! Whole numbers are little-endian; counts, lengths and what is written without a width are LEB128. A span is its length
//! and, where that is not 0, how far it begins from the end of the span before it (zigzag). Decoding checks every length,
//! index and word, so that damage which a checksum let pass is an error and not another event. The bytes carry no
//! checksum of their own: the log that keeps them does.

use std::sync::Arc;

use bytes::Bytes;

use super::{Chunk, Op, Row, Span, Subject};
use crate::delivery::Piece;
use crate::mark::{Mark, StreamId};
use crate::verdict::{Invalid, InvalidDetail, Verdict};

/// The first byte; another one was written by a newer version.
const VERSION: u8 = 1;

const INSIDE_TRANSACTION: u8 = 1;
const JUDGED: u8 = 2;

/// Bytes that are no chunk.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Damaged {
    /// Written by a version that this one does not know.
    #[error("the chunk has format {0}, this version reads up to {VERSION}")]
    Newer(u8),
    /// Not what [`Piece::encode`] writes.
    #[error("the chunk is damaged: {0}")]
    Malformed(&'static str),
}

impl Piece<'_> {
    /// Appends the rows of this piece as a chunk of their own.
    pub fn encode(&self, out: &mut Vec<u8>) {
        let chunk = &self.batch.chunk;
        let whole = self.rows.len() == chunk.rows.len();
        let judged = self.rows.iter().any(|&row| !self.batch.verdict(row).is_valid());
        let last = self.rows.last().copied();
        let inside = last.is_some_and(|row| chunk.goes_on_after(row));
        out.reserve(chunk.buf.len() + 64 * self.rows.len() + 256);
        out.push(VERSION);
        out.push(if inside { INSIDE_TRANSACTION } else { 0 } | if judged { JUDGED } else { 0 });
        put_text(&chunk.stream.source, out);
        out.extend_from_slice(&chunk.stream.epoch.to_le_bytes());
        out.extend_from_slice(&chunk.received.to_le_bytes());
        let places = self.put_subjects(out);
        put(self.rows.len() as u64, out);
        let mut bytes = Vec::new();
        let mut end = 0;
        for &at in &self.rows {
            let row = &chunk.rows[at];
            out.extend_from_slice(&row.mark.to_bytes());
            out.extend_from_slice(&row.time.to_le_bytes());
            put(u64::from(row.xid), out);
            put(places[usize::from(row.subject)], out);
            out.push(code(row.op));
            for mut span in spans(row) {
                put(u64::from(span.len), out);
                if span.is_empty() {
                    continue;
                }
                if !whole {
                    let part = chunk.event(at).part(span);
                    span.at = u32::try_from(bytes.len()).expect("the parts of a chunk are no larger than it");
                    bytes.extend_from_slice(part);
                }
                put(zigzag(i64::from(span.at) - end), out);
                end = i64::from(span.at) + i64::from(span.len);
            }
        }
        if judged {
            self.rows.iter().for_each(|&row| put_verdict(self.batch.verdict(row), out));
        }
        out.extend_from_slice(if whole { &chunk.buf } else { &bytes });
    }

    /// Writes the subjects that the rows name; gives the new index of each.
    fn put_subjects(&self, out: &mut Vec<u8>) -> Vec<u64> {
        let chunk = &self.batch.chunk;
        let mut places = vec![u64::MAX; chunk.subjects.len()];
        let mut used: Vec<&Subject> = Vec::new();
        for &row in &self.rows {
            let subject = usize::from(chunk.rows[row].subject);
            if places[subject] == u64::MAX {
                places[subject] = used.len() as u64;
                used.push(&chunk.subjects[subject]);
            }
        }
        put(used.len() as u64, out);
        for subject in used {
            for text in [&subject.vendor, &subject.name, &subject.version] {
                put_text(text, out);
            }
            for text in [&subject.database, &subject.schema, &subject.table] {
                put_optional(text.as_deref(), out);
            }
            put_text(&subject.source, out);
        }
        places
    }
}

impl Chunk {
    /// The chunk that [`Piece::encode`] wrote: all of `bytes`, whose allocation it shares.
    pub fn decode(bytes: Bytes) -> Result<Chunk, Damaged> {
        let mut reader = Reader(&bytes);
        let version = reader.byte()?;
        if version != VERSION {
            return Err(Damaged::Newer(version));
        }
        let flags = reader.byte()?;
        if flags & !(INSIDE_TRANSACTION | JUDGED) != 0 {
            return Err(Damaged::Malformed("unknown flags"));
        }
        let source = reader.text()?.into();
        let stream = Arc::new(StreamId { source, epoch: u64::from_le_bytes(reader.array()?) });
        let received = i64::from_le_bytes(reader.array()?);
        let subjects = (0..reader.count(7)?).map(|_| reader.subject()).collect::<Result<Vec<_>, _>>()?;
        let mut end = 0;
        let rows = (0..reader.count(Mark::BYTES + 18)?)
            .map(|_| reader.row(subjects.len(), &mut end))
            .collect::<Result<Vec<_>, _>>()?;
        let judged = match flags & JUDGED {
            0 => Vec::new(),
            _ => rows.iter().map(|_| reader.verdict()).collect::<Result<_, _>>()?,
        };
        let buf = bytes.slice_ref(reader.0);
        let inside = |span: &Span| u64::from(span.at) + u64::from(span.len) <= buf.len() as u64;
        if !rows.iter().all(|row| spans(row).iter().all(inside)) {
            return Err(Damaged::Malformed("a part lies outside of the buffer"));
        }
        let inside_transaction = flags & INSIDE_TRANSACTION != 0;
        Ok(Chunk {
            stream,
            received,
            buf,
            rows,
            subjects,
            judged: Some(judged),
            refused: Vec::new(),
            inside_transaction,
        })
    }

    /// The same events in another stream, each with the mark that `mark` gives it (by its index, and the mark it has)
    /// and with the id it has now.
    #[must_use]
    pub fn restream(mut self, stream: Arc<StreamId>, mark: impl Fn(usize, Mark) -> Mark) -> Chunk {
        let mut ids = Vec::with_capacity(64 * self.rows.len());
        let mut given: Vec<Option<Span>> = Vec::with_capacity(self.rows.len());
        let base = self.buf.len();
        for event in self.events() {
            let start = ids.len();
            let own = event.row().id.is_empty();
            if own {
                event.write_id(&mut ids);
            }
            let at = u32::try_from(base + start).expect("a chunk stays below `Draft::MAX_BYTES`");
            let len = u32::try_from(ids.len() - start).expect("an id is short");
            given.push(own.then_some(Span { at, len }));
        }
        if !ids.is_empty() {
            let mut buf = Vec::with_capacity(base + ids.len());
            buf.extend_from_slice(&self.buf);
            buf.append(&mut ids);
            self.buf = Bytes::from(buf);
        }
        for (index, (row, id)) in self.rows.iter_mut().zip(given).enumerate() {
            row.id = id.unwrap_or(row.id);
            row.mark = mark(index, row.mark);
        }
        self.stream = stream;
        self
    }
}

/// All spans of a row, in the order of the format.
fn spans(row: &Row) -> [Span; 7] {
    [row.id, row.key, row.before, row.payload, row.unchanged, row.contexts, row.extra]
}

/// The byte of an op: part of the format, so never to be changed.
fn code(op: Op) -> u8 {
    match op {
        Op::Snapshot => 0,
        Op::Insert => 1,
        Op::Update => 2,
        Op::Delete => 3,
        Op::Truncate => 4,
        Op::Schema => 5,
        Op::Message => 6,
        Op::Track => 7,
    }
}

fn put(mut value: u64, out: &mut Vec<u8>) {
    while value >= 0x80 {
        out.push((value & 0x7f) as u8 | 0x80);
        value >>= 7;
    }
    out.push((value & 0x7f) as u8);
}

fn zigzag(value: i64) -> u64 {
    (value.cast_unsigned() << 1) ^ (value >> 63).cast_unsigned()
}

fn unzigzag(value: u64) -> i64 {
    (value >> 1).cast_signed() ^ -(value & 1).cast_signed()
}

fn put_text(text: &str, out: &mut Vec<u8>) {
    put(text.len() as u64, out);
    out.extend_from_slice(text.as_bytes());
}

fn put_optional(text: Option<&str>, out: &mut Vec<u8>) {
    out.push(u8::from(text.is_some()));
    if let Some(text) = text {
        put_text(text, out);
    }
}

fn put_verdict(verdict: &Verdict, out: &mut Vec<u8>) {
    let Verdict::Invalid(invalid) = verdict else { return out.push(0) };
    out.push(1);
    put_text(&invalid.kind, out);
    put_text(&invalid.message, out);
    put_optional(invalid.resolution.as_deref(), out);
    put(invalid.details.len() as u64, out);
    for detail in &invalid.details {
        put_text(&detail.path, out);
        put_text(&detail.keyword, out);
        put_text(&detail.message, out);
    }
}

/// What is left to decode.
struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    fn take(&mut self, length: usize) -> Result<&'a [u8], Damaged> {
        let (taken, rest) = self.0.split_at_checked(length).ok_or(Damaged::Malformed("it ends too early"))?;
        self.0 = rest;
        Ok(taken)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], Damaged> {
        Ok(self.take(N)?.try_into().expect("as many bytes were taken"))
    }

    fn byte(&mut self) -> Result<u8, Damaged> {
        Ok(self.array::<1>()?[0])
    }

    fn number(&mut self) -> Result<u64, Damaged> {
        let mut value = 0u64;
        for shift in (0..64).step_by(7) {
            let byte = self.byte()?;
            let bits = u64::from(byte & 0x7f);
            if shift == 63 && bits > 1 {
                break;
            }
            value |= bits << shift;
            if byte < 0x80 {
                return Ok(value);
            }
        }
        Err(Damaged::Malformed("a number is too large"))
    }

    /// A number of things of at least `least` bytes each, so that a damaged count allocates nothing large.
    fn count(&mut self, least: usize) -> Result<usize, Damaged> {
        let count =
            usize::try_from(self.number()?).map_err(|_| Damaged::Malformed("a count is too large"))?;
        if count > self.0.len() / least {
            return Err(Damaged::Malformed("a count is larger than what follows"));
        }
        Ok(count)
    }

    fn text(&mut self) -> Result<&'a str, Damaged> {
        let length = self.count(1)?;
        std::str::from_utf8(self.take(length)?).map_err(|_| Damaged::Malformed("a text is not UTF-8"))
    }

    fn optional(&mut self) -> Result<Option<&'a str>, Damaged> {
        match self.byte()? {
            0 => Ok(None),
            1 => self.text().map(Some),
            _ => Err(Damaged::Malformed("neither there nor absent")),
        }
    }

    fn subject(&mut self) -> Result<Arc<Subject>, Damaged> {
        let key = (self.text()?, self.text()?, self.text()?);
        let place = (self.optional()?, self.optional()?, self.optional()?);
        Ok(Arc::new(Subject::new(key, place, self.text()?.to_owned())))
    }

    fn row(&mut self, subjects: usize, end: &mut i64) -> Result<Row, Damaged> {
        let mark = Mark::from_bytes(self.take(Mark::BYTES)?).expect("as many bytes were taken");
        let time = i64::from_le_bytes(self.array()?);
        let xid = u32::try_from(self.number()?).map_err(|_| Damaged::Malformed("an xid is too large"))?;
        let subject = u16::try_from(self.number()?).ok().filter(|&at| usize::from(at) < subjects);
        let subject = subject.ok_or(Damaged::Malformed("a row names no subject"))?;
        let op = self.byte()?;
        let op = Op::ALL.into_iter().find(|known| code(*known) == op);
        let op = op.ok_or(Damaged::Malformed("an unknown op"))?;
        let mut spans = [Span::default(); 7];
        for span in &mut spans {
            *span = self.span(end)?;
        }
        let [id, key, before, payload, unchanged, contexts, extra] = spans;
        Ok(Row { mark, time, xid, subject, op, id, key, before, payload, unchanged, contexts, extra })
    }

    fn span(&mut self, end: &mut i64) -> Result<Span, Damaged> {
        const FAR: Damaged = Damaged::Malformed("a part lies outside of the buffer");
        let len = u32::try_from(self.number()?).map_err(|_| FAR)?;
        if len == 0 {
            return Ok(Span::default());
        }
        let at = end.checked_add(unzigzag(self.number()?)).ok_or(FAR)?;
        let at = u32::try_from(at).map_err(|_| FAR)?;
        *end = i64::from(at) + i64::from(len);
        Ok(Span { at, len })
    }

    fn verdict(&mut self) -> Result<Verdict, Damaged> {
        match self.byte()? {
            0 => return Ok(Verdict::Valid),
            1 => {}
            _ => return Err(Damaged::Malformed("neither valid nor invalid")),
        }
        let (kind, message) = (self.text()?.to_owned(), self.text()?.to_owned());
        let resolution = self.optional()?.map(str::to_owned);
        let details = (0..self.count(3)?).map(|_| {
            let (path, keyword) = (self.text()?.to_owned(), self.text()?.to_owned());
            Ok(InvalidDetail { path, keyword, message: self.text()?.to_owned() })
        });
        let details = details.collect::<Result<_, Damaged>>()?;
        Ok(Verdict::Invalid(Box::new(Invalid { kind, message, resolution, details })))
    }
}

#[cfg(test)]
mod tests;
