//! One table's copy while it runs: which stretches of it are left, and which chunks of each are on their way.
//!
//! Invariant: what is left of a stretch moves only when every chunk before that place is durable, in the order of the
//! stretch, whatever the order in which the chunks become so. No I/O, no clock.

use std::collections::{BTreeMap, VecDeque};

use forebay_api::{Division, Range};

use super::record::{Record, State};

/// So many chunks of one stretch may wait for their destinations while it is read on.
pub(super) const PENDING_CHUNKS: usize = 4;

/// A table and what is on its way of it.
#[derive(Debug)]
pub(super) struct TableProgress {
    /// As it is stored, but for `ranges` and `last`, which the stretches know.
    pub(super) record: Record,
    /// Which division the stretches are of: what is read of another one means nothing any more.
    pub(super) division: u64,
    /// Whether the division is stored, so that a crash does not divide the table in another way.
    pub(super) division_is_stored: bool,
    /// Divisions in a row of which no chunk was read.
    pub(super) barren: u32,
    stretches: BTreeMap<u32, Stretch>,
    last: Option<Range>,
}

/// A part of the table that is read chunk by chunk.
#[derive(Debug)]
struct Stretch {
    /// What is left behind all that is durable.
    left: Range,
    /// Where it is read on; `None`: it was read to its end.
    next: Option<Range>,
    /// Whether a chunk is being read.
    is_read: bool,
    /// Whether it is the one that is read after all others.
    is_last: bool,
    /// The chunks that were read and are not durable, or stand behind one that is not; the first has `first`'s number.
    pending: VecDeque<Pending>,
    first: u64,
}

#[derive(Debug)]
struct Pending {
    rest: Option<Range>,
    rows: u64,
    bytes: u64,
    is_durable: bool,
}

impl Stretch {
    fn new(range: Range, is_last: bool) -> Stretch {
        Stretch {
            next: Some(range.clone()),
            left: range,
            is_read: false,
            is_last,
            pending: VecDeque::new(),
            first: 0,
        }
    }
}

impl TableProgress {
    /// A table as it was stored.
    pub(super) fn of(mut record: Record, division: u64) -> TableProgress {
        let (ranges, last) = (std::mem::take(&mut record.ranges), record.last.take());
        let mut table = TableProgress {
            record,
            division,
            division_is_stored: true,
            barren: 0,
            stretches: BTreeMap::new(),
            last: None,
        };
        table.set_stretches(ranges, last);
        table
    }

    /// What is to be stored now.
    pub(super) fn to_record(&self) -> Record {
        let of = |last| self.stretches.values().filter(move |stretch| stretch.is_last == last);
        let mut record = self.record.clone();
        record.ranges = of(false).map(|stretch| stretch.left.clone()).collect();
        record.last = self.last.clone().or_else(|| of(true).map(|stretch| stretch.left.clone()).next());
        record
    }

    /// How many stretches are left.
    pub(super) fn ranges_left(&self) -> usize {
        self.stretches.len() + usize::from(self.last.is_some())
    }

    /// Takes a division; whether it leaves nothing to read.
    pub(super) fn divide(&mut self, made: Division, now: i64) -> bool {
        self.record.state = State::Copying;
        self.record.started.get_or_insert(now);
        self.record.estimated_rows = made.estimated_rows.or(self.record.estimated_rows);
        (self.record.rows, self.record.bytes, self.record.chunks) = (0, 0, 0);
        self.division_is_stored = false;
        self.barren += 1;
        self.set_stretches(made.ranges, made.last);
        self.end_if_nothing_is_left(now)
    }

    /// Forgets what was left and what is on its way; `division` is that of whatever comes next.
    pub(super) fn forget_stretches(&mut self, division: u64) {
        self.division = division;
        self.stretches.clear();
        self.last = None;
    }

    /// The next thing to read: a stretch and where to read on.
    pub(super) fn next(&mut self) -> Option<(u32, Range)> {
        self.stretches.iter_mut().find_map(|(&at, stretch)| {
            let free = !stretch.is_read && stretch.pending.len() < PENDING_CHUNKS;
            let range = stretch.next.clone().filter(|_| free)?;
            stretch.is_read = true;
            Some((at, range))
        })
    }

    /// A chunk was read; its number in the stretch.
    pub(super) fn chunk(&mut self, stretch: u32, rest: Option<Range>, rows: u64, bytes: u64) -> u64 {
        let stretch = self.stretches.get_mut(&stretch).expect("what is being read is not done");
        assert!(stretch.is_read, "nothing of this stretch was being read");
        stretch.is_read = false;
        stretch.next.clone_from(&rest);
        stretch.pending.push_back(Pending { rest, rows, bytes, is_durable: false });
        self.barren = 0;
        stretch.first + stretch.pending.len() as u64 - 1
    }

    /// A chunk is durable; whether what is left of the table became less, and whether that was all.
    pub(super) fn durable(&mut self, at: u32, chunk: u64, now: i64) -> Durable {
        let stretch =
            self.stretches.get_mut(&at).expect("a stretch stays while chunks of it are on their way");
        let index =
            usize::try_from(chunk - stretch.first).expect("it is below the number that may be pending");
        stretch.pending[index].is_durable = true;
        let mut moved = Durable::Later;
        while let Some(done) = stretch.pending.pop_front_if(|chunk| chunk.is_durable) {
            stretch.first += 1;
            self.record.rows += done.rows;
            self.record.bytes += done.bytes;
            self.record.chunks += 1;
            moved = Durable::Moved;
            match done.rest {
                Some(rest) => stretch.left = rest,
                None => {
                    assert!(stretch.pending.is_empty(), "a chunk was read behind the end of a stretch");
                    self.stretches.remove(&at);
                    if self.end_if_nothing_is_left(now) {
                        moved = Durable::Done;
                    }
                    break;
                }
            }
        }
        moved
    }

    fn set_stretches(&mut self, ranges: Vec<Range>, last: Option<Range>) {
        self.stretches = (0..).zip(ranges.into_iter().map(|range| Stretch::new(range, false))).collect();
        self.last = last;
        self.open_last();
    }

    /// What is read last is read when nothing else is left.
    fn open_last(&mut self) {
        if self.stretches.is_empty()
            && let Some(last) = self.last.take()
        {
            self.stretches.insert(0, Stretch::new(last, true));
        }
    }

    fn end_if_nothing_is_left(&mut self, now: i64) -> bool {
        self.open_last();
        let ended = self.stretches.is_empty();
        if ended {
            self.record.state = State::Done;
            self.record.finished = Some(now);
        }
        ended
    }
}

/// What became of a table when a chunk of it became durable.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Durable {
    /// One before it is not.
    Later,
    /// Less is left.
    Moved,
    /// Nothing is left.
    Done,
}
