//! Joins what is queued for a lane into groups, up to the destination's `batch` limits.
//!
//! Invariant: every row that enters leaves in exactly one group, in order; a send is settled with the group that
//! holds its last row. All state is in [`Joiner`], so [`Joiner::next`] may be dropped and called again.

use std::sync::Arc;
use std::time::Duration;

use forebay_api::{Batch, Event, Part, Permit, Progress, Record, Settled};
use tokio::sync::mpsc;
use tokio::time::Instant;

/// How much one delivery may hold.
#[derive(Clone, Copy, Debug)]
pub struct BatchLimits {
    /// Most records.
    pub records: usize,
    /// Most bytes of encoded records; a single record may be larger and then goes alone.
    pub bytes: usize,
    /// How long to wait for more when the queue is empty and the limits are not reached.
    pub age: Duration,
}

/// Some rows of one send on their way into one lane.
#[derive(Debug)]
pub struct Queued {
    /// The send's number in the ledger.
    pub seq: u64,
    /// The send's events.
    pub batch: Arc<Batch>,
    /// The rows that the lane writes: the first `count` of these.
    pub rows: Arc<[u32]>,
    /// See `rows`.
    pub count: usize,
    /// What the send takes of a best-effort lane's own budget.
    pub permit: Option<Permit>,
}

/// Records that are delivered together, and how far they have come.
#[derive(Debug)]
pub struct Group {
    /// The records.
    pub parts: Arc<[Part]>,
    /// What was said of each.
    pub progress: Progress,
    /// Sends whose last row is in this group.
    pub settles: Vec<u64>,
    /// How many attempts were made.
    pub attempts: u32,
    /// Of how many the dead letter is stored.
    pub buried: usize,
    /// Given back when the group is done.
    _permits: Vec<Permit>,
}

impl Group {
    /// How many records it has; never none.
    pub fn records_len(&self) -> usize {
        self.parts.iter().map(Part::len).sum()
    }

    /// Its events in order, each with the number that settles it.
    pub fn events(&self) -> impl Iterator<Item = (usize, Event<'_>)> {
        self.records(0).map(|(index, record)| (index, record.event()))
    }

    /// Its records in order, in the lane's format.
    pub fn records(&self, format: usize) -> impl Iterator<Item = (usize, Record<'_>)> {
        let of = move |part: &Part, i: usize| part.rows[part.range.start + i] as usize;
        self.parts
            .iter()
            .flat_map(move |part| (0..part.len()).map(move |i| part.batch.record(of(part, i), format)))
            .enumerate()
    }

    /// Opens again every accepted record that follows an open one of the same key, so that a record which is
    /// delivered again is followed again by its successors.
    pub fn reopen_successors(&mut self) {
        if self.progress.open() == 0 {
            return;
        }
        let mut keys = std::collections::HashSet::new();
        let mut reopened = Vec::new();
        let mut key = Vec::new();
        for (index, event) in self.events() {
            key.clear();
            event.write_partition_key(&mut key);
            match self.progress.of(index) {
                Settled::Open => drop(keys.insert(key.clone())),
                Settled::Accepted if keys.contains(&key) => reopened.push(index),
                Settled::Accepted | Settled::Rejected => {}
            }
        }
        reopened.into_iter().for_each(|index| self.progress.reopen(index));
    }

    /// Opens again everything but what was rejected: an earlier delivery failed.
    pub fn reopen_all(&mut self) {
        (0..self.records_len()).for_each(|index| self.progress.reopen(index));
    }
}

/// See the module.
#[derive(Debug)]
pub struct Joiner {
    queue: mpsc::Receiver<Queued>,
    limits: BatchLimits,
    format: usize,
    /// A send of which the rows before the number are in a group already.
    carry: Option<(Queued, usize)>,
    parts: Vec<Part>,
    settles: Vec<u64>,
    permits: Vec<Permit>,
    records: usize,
    bytes: usize,
    /// When the group in the making is given out at the latest.
    due: Option<Instant>,
}

impl Joiner {
    /// Joins what comes out of `queue`; `format` is the lane's among the batches' encodings.
    pub fn new(queue: mpsc::Receiver<Queued>, limits: BatchLimits, format: usize) -> Joiner {
        Joiner {
            queue,
            limits,
            format,
            carry: None,
            parts: Vec::new(),
            settles: Vec::new(),
            permits: Vec::new(),
            records: 0,
            bytes: 0,
            due: None,
        }
    }

    /// The next group; `None` when the queue is closed and empty. Cancel-safe.
    pub async fn next(&mut self) -> Option<Group> {
        loop {
            if self.carry.is_none() {
                match self.receive().await {
                    Some(queued) => self.carry = Some((queued, 0)),
                    None if self.parts.is_empty() => return None,
                    None => return Some(self.finish()),
                }
            }
            if self.take_carry() {
                return Some(self.finish());
            }
        }
    }

    /// The next send; `None` when there is none and none shall be waited for.
    async fn receive(&mut self) -> Option<Queued> {
        if self.parts.is_empty() {
            return self.queue.recv().await;
        }
        if let Ok(queued) = self.queue.try_recv() {
            return Some(queued);
        }
        let due = self.due.expect("a group in the making has a due time");
        if self.limits.age.is_zero() {
            return None;
        }
        tokio::time::timeout_at(due, self.queue.recv()).await.ok().flatten()
    }

    /// Moves rows of the carried send into the group; whether the group is full.
    fn take_carry(&mut self) -> bool {
        let (queued, start) = self.carry.take().expect("the caller has put one there");
        let stream = |batch: &Batch| batch.chunk.stream.clone();
        if self.parts.last().is_some_and(|part| stream(&part.batch) != stream(&queued.batch)) {
            self.carry = Some((queued, start));
            return true;
        }
        let mut end = start;
        while end < queued.count && self.records < self.limits.records {
            let bytes = queued.batch.record(queued.rows[end] as usize, self.format).size();
            if self.records > 0 && self.bytes + bytes > self.limits.bytes {
                break;
            }
            self.bytes += bytes;
            self.records += 1;
            end += 1;
        }
        if end > start {
            self.due.get_or_insert_with(|| Instant::now() + self.limits.age);
            let (batch, rows) = (queued.batch.clone(), queued.rows.clone());
            self.parts.push(Part { batch, rows, range: start..end });
        }
        if end < queued.count {
            self.carry = Some((queued, end));
            return true;
        }
        self.settles.push(queued.seq);
        self.permits.extend(queued.permit);
        self.records >= self.limits.records || self.bytes >= self.limits.bytes
    }

    fn finish(&mut self) -> Group {
        self.due = None;
        let (records, _) = (std::mem::take(&mut self.records), std::mem::take(&mut self.bytes));
        Group {
            parts: std::mem::take(&mut self.parts).into(),
            progress: Progress::new(records),
            settles: std::mem::take(&mut self.settles),
            attempts: 0,
            buried: 0,
            _permits: std::mem::take(&mut self.permits),
        }
    }
}
