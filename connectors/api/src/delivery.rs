//! A [`Delivery`] is one destination's progress through records of one stream.
//!
//! The lane keeps the records and hands out a handle; when the handle is dropped, for whatever reason (the
//! attempt returned, timed out, panicked), what it settled so far goes back to the lane. Invariant: only
//! [`Delivery::accept`] and [`Delivery::reject`] settle; a record that nothing was said of is still open and will
//! be delivered again.

use std::ops::Range;
use std::sync::Arc;

use tokio::sync::oneshot;

use crate::batch::{Batch, Record};
use crate::mark::{Mark, StreamId};

/// Some rows of one batch.
#[derive(Clone, Debug)]
pub struct Part {
    /// The batch, shared with the other lanes.
    pub batch: Arc<Batch>,
    /// The rows that this lane writes, ascending; shared, so that a batch can be cut without copying.
    pub rows: Arc<[u32]>,
    /// Which of `rows`.
    pub range: Range<usize>,
}

impl Part {
    /// How many records it has.
    pub fn len(&self) -> usize {
        self.range.len()
    }

    /// Whether it has none.
    pub fn is_empty(&self) -> bool {
        self.range.is_empty()
    }

    /// The row of the batch behind record `index` of this part.
    fn row(&self, index: usize) -> usize {
        self.rows[self.range.start + index] as usize
    }
}

/// What was said of one record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Settled {
    /// Nothing yet.
    Open,
    /// It is durable.
    Accepted,
    /// It can never be written; its dead letter settles it.
    Rejected,
}

/// How far a delivery has come; goes back to the lane when the handle is dropped.
#[derive(Clone, Debug, Default)]
pub struct Progress {
    /// One for each record.
    states: Vec<Settled>,
    open: usize,
    /// Records that the destination refused for their content, and why, until the lane takes them.
    pub rejected: Vec<(usize, Rejection)>,
}

impl Progress {
    /// All of `records` open.
    pub fn new(records: usize) -> Progress {
        Progress { states: vec![Settled::Open; records], open: records, rejected: Vec::new() }
    }

    /// How many records nothing was said of.
    pub fn open(&self) -> usize {
        self.open
    }

    /// What was said of one record.
    pub fn of(&self, index: usize) -> Settled {
        self.states[index]
    }

    /// Says that one record is durable, where nothing was said of it.
    pub fn accept(&mut self, index: usize) {
        self.say(index, Settled::Accepted);
    }

    /// Takes an acceptance back: the record is delivered again, because an earlier one of its key is.
    pub fn reopen(&mut self, index: usize) {
        if self.states[index] == Settled::Accepted {
            self.states[index] = Settled::Open;
            self.open += 1;
        }
    }

    /// Says that one record is not written, and why, where nothing was said of it.
    pub fn reject(&mut self, index: usize, why: Rejection) {
        if self.say(index, Settled::Rejected) {
            self.rejected.push((index, why));
        }
    }

    fn say(&mut self, index: usize, state: Settled) -> bool {
        let was_open = self.states[index] == Settled::Open;
        if was_open {
            self.states[index] = state;
            self.open -= 1;
        }
        was_open
    }
}

/// Why a destination refused a record for its content (too large, a type that the table cannot take). It goes to
/// the dead letters; a refusal that another attempt could mend is a [`crate::Fault`] instead.
#[derive(Clone, Debug)]
pub struct Rejection {
    /// A stable word: `too_large`, `refused`, …
    pub reason: String,
    /// What the destination said, outermost first.
    pub chain: Vec<String>,
}

impl Rejection {
    /// A rejection with the error that says why.
    pub fn new(reason: &str, error: &(dyn std::error::Error + 'static)) -> Rejection {
        let chain = std::iter::successors(Some(error), |e| e.source()).map(ToString::to_string).collect();
        Rejection { reason: reason.to_owned(), chain }
    }
}

/// A handle on records that one destination shall make durable, in order. See the module's invariant.
#[derive(Debug)]
pub struct Delivery {
    parts: Arc<[Part]>,
    format: usize,
    progress: Progress,
    back: Option<oneshot::Sender<Progress>>,
}

/// Open records of one chunk.
#[derive(Clone, Debug)]
pub struct Piece<'a> {
    /// The chunk, and what was said of its rows.
    pub batch: &'a Batch,
    /// The rows that are open, ascending.
    pub rows: Vec<usize>,
    /// What settles each of them: as many as `rows`.
    pub numbers: Vec<usize>,
}

impl Delivery {
    /// A handle on `parts`, not empty and all of one stream, of which `progress` is done; the receiver gets the
    /// progress when the handle is dropped. `format` is the lane's among the batches' encodings.
    pub fn new(
        parts: Arc<[Part]>,
        format: usize,
        progress: Progress,
    ) -> (Delivery, oneshot::Receiver<Progress>) {
        assert!(!parts.is_empty(), "a delivery has records");
        debug_assert!(
            parts.iter().all(|p| p.batch.chunk.stream == parts[0].batch.chunk.stream),
            "marks of two streams do not compare"
        );
        assert_eq!(progress.states.len(), parts.iter().map(Part::len).sum::<usize>(), "one state a record");
        let (back, returned) = oneshot::channel();
        (Delivery { parts, format, progress, back: Some(back) }, returned)
    }

    /// The stream that all its records belong to.
    pub fn stream(&self) -> &Arc<StreamId> {
        &self.parts[0].batch.chunk.stream
    }

    /// How many records are open.
    pub fn len(&self) -> usize {
        self.progress.open
    }

    /// Whether every record is settled.
    pub fn is_empty(&self) -> bool {
        self.progress.open == 0
    }

    /// The records still open, in order, each with the number that settles it.
    pub fn open(&self) -> impl Iterator<Item = (usize, Record<'_>)> {
        self.records().filter(|(index, _)| self.progress.of(*index) == Settled::Open)
    }

    /// The same, and beside them what settles them, for a destination that settles some before it writes the next.
    pub fn open_with_progress(&mut self) -> (Vec<(usize, Record<'_>)>, &mut Progress) {
        let open = records(&self.parts, self.format)
            .filter(|(index, _)| self.progress.of(*index) == Settled::Open)
            .collect();
        (open, &mut self.progress)
    }

    fn records(&self) -> impl Iterator<Item = (usize, Record<'_>)> {
        records(&self.parts, self.format)
    }

    /// The records still open as the chunks that they came in, in order, each with the numbers
    /// that settle its rows: what a journal stores.
    pub fn pieces(&self) -> impl Iterator<Item = Piece<'_>> {
        let mut first = 0;
        self.parts.iter().filter_map(move |part| {
            let numbers: Vec<usize> = (first..first + part.len())
                .filter(|&index| self.progress.of(index) == Settled::Open)
                .collect();
            let rows = numbers.iter().map(|&index| part.row(index - first)).collect();
            first += part.len();
            (!numbers.is_empty()).then(|| Piece { batch: &part.batch, rows, numbers })
        })
    }

    /// The highest mark among all its records, settled ones too: what a destination stores with the data, once all
    /// of them are in the same transaction.
    pub fn last_mark(&self) -> Mark {
        let last = self.parts.last().expect("a delivery has records");
        last.batch.chunk.event(last.row(last.len() - 1)).mark()
    }

    /// Whether the source's transaction goes on after the last record.
    pub fn ends_inside_transaction(&self) -> bool {
        let last = self.parts.last().expect("a delivery has records");
        last.batch.chunk.goes_on_after(last.row(last.len() - 1))
    }

    /// Record `index` is durable here.
    pub fn accept(&mut self, index: usize) {
        self.progress.accept(index);
    }

    /// Every record still open is durable here.
    pub fn accept_all(&mut self) {
        for index in 0..self.progress.states.len() {
            self.progress.accept(index);
        }
    }

    /// Record `index` can never be written here. It is settled once its dead letter is stored; until then the lane
    /// keeps it.
    pub fn reject(&mut self, index: usize, why: Rejection) {
        self.progress.reject(index, why);
    }
}

/// All records, in order, each with its number.
fn records(parts: &[Part], format: usize) -> impl Iterator<Item = (usize, Record<'_>)> {
    parts
        .iter()
        .flat_map(move |part| (0..part.len()).map(move |i| part.batch.record(part.row(i), format)))
        .enumerate()
}

impl Drop for Delivery {
    fn drop(&mut self) {
        if let Some(back) = self.back.take() {
            // The lane is gone when its generation was aborted; nothing was settled by that.
            back.send(std::mem::take(&mut self.progress)).ok();
        }
    }
}
