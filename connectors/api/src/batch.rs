//! What the stage makes of a chunk: verdicts, and each wanted format encoded once, shared by all lanes.

use bytes::Bytes;

use crate::chunk::{Chunk, Event};
use crate::verdict::Verdict;

/// A chunk after the stage. It is shared: lanes hold it until each of them has settled it.
#[derive(Debug)]
pub struct Batch {
    /// The events as the source read them.
    pub chunk: Chunk,
    /// What was said of each; empty: all are valid.
    pub verdicts: Vec<Verdict>,
    /// One for each format that a lane of this pipeline writes, in the pipeline's order of formats.
    pub encoded: Vec<Encoded>,
}

impl Batch {
    /// The record of one row, as one lane's format writes it; without a body where the pipeline writes no formats,
    /// because a journal keeps chunks.
    pub fn record(&self, row: usize, format: usize) -> Record<'_> {
        Record {
            event: self.chunk.event(row),
            verdict: self.verdict(row),
            body: self.encoded.get(format).map_or(&[], |encoded| encoded.get(row)),
            buf: self.encoded.get(format).map(|encoded| &encoded.buf),
        }
    }

    /// What validation said of one row.
    pub fn verdict(&self, row: usize) -> &Verdict {
        static VALID: Verdict = Verdict::Valid;
        self.verdicts.get(row).unwrap_or(&VALID)
    }
}

/// The records of a chunk in one output format, one after the other in one buffer.
#[derive(Clone, Debug, Default)]
pub struct Encoded {
    buf: Bytes,
    /// Where each record ends.
    ends: Vec<u32>,
}

impl Encoded {
    /// `ends[i]` is where record i ends in `buf`.
    pub fn new(buf: Vec<u8>, ends: Vec<u32>) -> Encoded {
        debug_assert!(ends.is_sorted() && ends.last().is_none_or(|&end| end as usize <= buf.len()));
        Encoded { buf: Bytes::from(buf), ends }
    }

    /// The bytes of one record. No line end: a destination that wants lines adds them.
    pub fn get(&self, row: usize) -> &[u8] {
        let start = if row == 0 { 0 } else { self.ends[row - 1] };
        &self.buf[start as usize..self.ends[row] as usize]
    }

    /// What it holds in memory; the budget counts this.
    pub fn weight(&self) -> usize {
        self.buf.len() + self.ends.len() * size_of::<u32>()
    }
}

/// An event after the stage: judged and encoded. What destinations write.
#[derive(Clone, Copy, Debug)]
pub struct Record<'a> {
    event: Event<'a>,
    verdict: &'a Verdict,
    body: &'a [u8],
    /// The buffer that the body is a part of.
    buf: Option<&'a Bytes>,
}

impl<'a> Record<'a> {
    /// How many bytes it is: those of its body, or of the event's parts where it has none.
    pub fn size(self) -> usize {
        if !self.body.is_empty() {
            return self.body.len();
        }
        let row = self.event.row();
        let parts = [row.id, row.key, row.before, row.payload, row.unchanged, row.contexts, row.extra];
        parts.iter().map(|span| span.len as usize).sum()
    }

    /// The event it was made of, for keys, ids and routing.
    pub fn event(self) -> Event<'a> {
        self.event
    }

    /// What validation said of it.
    pub fn verdict(self) -> &'a Verdict {
        self.verdict
    }

    /// The event in the destination's format: one JSON text without a line end.
    pub fn body(self) -> &'a [u8] {
        self.body
    }

    /// The same for a client that wants to own it: a part of the batch's buffer, which is kept for as long, and no copy.
    pub fn shared_body(self) -> Bytes {
        self.buf.map_or_else(Bytes::new, |buf| buf.slice_ref(self.body))
    }
}
