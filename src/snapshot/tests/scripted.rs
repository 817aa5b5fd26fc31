//! A source whose tables are numbers of rows, its destinations, and a disk that can fail.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering::SeqCst};
use std::time::Duration;

use forebay_api::{
    Activity, Budget, Chunk, ChunkRead, Claim, Division, Outlet, Range, ReadOutcome, StreamId, TableCopy,
    Ticket,
};
use tokio::sync::Semaphore;
use tokio::task::yield_now;
use tokio_util::sync::CancellationToken;

use super::super::*;
use crate::state::MemoryState;

pub(super) const ROWS: u32 = 30;
const CHUNK: u32 = 3;
/// How long a chunk takes.
pub(super) const READ: Duration = Duration::from_millis(20);

/// A row of a copy.
type Row = (String, u32, u32);

#[derive(Debug, Default)]
pub(super) struct Seen {
    /// Every row that was read, as often as it was.
    pub(super) read: Vec<Row>,
    /// Every row that is durable.
    pub(super) durable: BTreeSet<Row>,
    /// What the reader was told.
    pub(super) active: Vec<Activity>,
    /// Filters that were asked for.
    pub(super) filters: Vec<Option<String>>,
    /// Divisions, by table.
    pub(super) divided: Vec<String>,
    /// Chunks that no destination has taken yet.
    held: Vec<(Claim, Vec<Row>)>,
    at_once: usize,
    pub(super) most_at_once: usize,
}

#[derive(Debug)]
pub(super) struct Scripted {
    pub(super) seen: Mutex<Seen>,
    /// Whether destinations take what they get.
    pub(super) destinations_are_up: AtomicBool,
    /// Reads wait for a permit of it when it is not closed.
    pub(super) gate: Semaphore,
    /// Reads that panic, divide or say that the table is gone.
    pub(super) next_outcome: Mutex<Option<&'static str>>,
    pub(super) has_last: AtomicBool,
    pub(super) ranges: AtomicU32,
}

impl Scripted {
    pub(super) fn new() -> Scripted {
        let gate = Semaphore::new(0);
        gate.close();
        Scripted {
            seen: Mutex::default(),
            destinations_are_up: AtomicBool::new(true),
            gate,
            next_outcome: Mutex::default(),
            has_last: AtomicBool::new(false),
            ranges: AtomicU32::new(2),
        }
    }

    pub(super) fn seen(&self) -> std::sync::MutexGuard<'_, Seen> {
        self.seen.lock().unwrap()
    }

    /// What was held is taken, the latest first; what comes is taken at once.
    pub(super) fn destinations_come_up(&self) {
        self.destinations_are_up.store(true, SeqCst);
        let mut seen = self.seen();
        while let Some((mut claim, rows)) = seen.held.pop() {
            seen.durable.extend(rows);
            claim.fulfil();
        }
    }

    /// The generation ends, as the destinations see it.
    pub(super) fn forget_held(&self) {
        self.seen().held.clear();
    }

    async fn send(&self, rows: Vec<Row>) -> Ticket {
        let (outlet, mut inlet) = Outlet::new(Budget::new(1 << 20), CancellationToken::new());
        let stream = Arc::new(StreamId { source: "s".into(), epoch: 1 });
        let ticket = outlet.send_ticketed(Chunk::empty(stream, 0), None).await.unwrap();
        let (_, mut claim) = inlet.receive().await.unwrap();
        let mut seen = self.seen();
        if self.destinations_are_up.load(SeqCst) {
            seen.durable.extend(rows);
            claim.fulfil();
        } else {
            seen.held.push((claim, rows));
        }
        ticket
    }
}

/// Counts those who read at the same time.
struct Reading<'s>(&'s Scripted);

impl<'s> Reading<'s> {
    fn new(scripted: &'s Scripted) -> Reading<'s> {
        let mut seen = scripted.seen();
        assert_eq!(seen.active.last(), Some(&Activity::Copying), "read while nothing is active");
        seen.at_once += 1;
        seen.most_at_once = seen.most_at_once.max(seen.at_once);
        drop(seen);
        Reading(scripted)
    }
}

impl Drop for Reading<'_> {
    fn drop(&mut self) {
        self.0.seen().at_once -= 1;
    }
}

#[async_trait]
impl SnapshotReader for Scripted {
    async fn divide(&self, copy: &TableCopy) -> Result<Option<Division>, Fault> {
        yield_now().await;
        self.seen().divided.push(copy.table.clone());
        self.seen().filters.push(copy.filter.clone());
        if copy.filter.as_deref() == Some("nonsense") {
            return Err(Fault::fatal("dividing", Blame::Defect, "syntax error"));
        }
        if copy.table == "gone" {
            return Ok(None);
        }
        let count = self.ranges.load(SeqCst);
        let bound = |at: u32| at * ROWS / count;
        let ranges = (0..count).map(|at| Range(format!("{}..{}", bound(at), bound(at + 1)))).collect();
        let last = self.has_last.load(SeqCst).then(|| Range(format!("{ROWS}..{}", ROWS + 1)));
        Ok(Some(Division { ranges, last, estimated_rows: Some(u64::from(ROWS)) }))
    }

    async fn read(&self, copy: &TableCopy, range: &Range) -> Result<ReadOutcome, Fault> {
        let _reading = Reading::new(self);
        tokio::time::sleep(READ).await;
        // a closed gate lets all pass
        let _pass = self.gate.acquire().await;
        let outcome = self.next_outcome.lock().unwrap().take();
        match outcome {
            Some("panic") => panic!("told to"),
            Some("divide") => return Ok(ReadOutcome::Divide),
            Some("gone") => return Ok(ReadOutcome::Gone),
            Some(fault) => return Err(Fault::retryable("reading", fault)),
            None => {}
        }
        let (from, to) = range.0.split_once("..").unwrap();
        let (from, to): (u32, u32) = (from.parse().unwrap(), to.parse().unwrap());
        if from == ROWS {
            let all =
                (0..ROWS).all(|row| self.seen().durable.contains(&(copy.table.clone(), copy.number, row)));
            assert!(all, "the last range is read before the others are durable");
        }
        let end = (from + CHUNK).min(to);
        let rows: Vec<Row> = (from..end).map(|row| (copy.table.clone(), copy.number, row)).collect();
        self.seen().read.extend(rows.clone());
        let ticket = self.send(rows).await;
        yield_now().await;
        Ok(ReadOutcome::Chunk(ChunkRead {
            rest: (end < to).then(|| Range(format!("{end}..{to}"))),
            rows: u64::from(end - from),
            bytes: 10,
            tickets: vec![ticket],
        }))
    }

    async fn turn(&self, to: Activity) -> Result<(), Fault> {
        yield_now().await;
        let mut seen = self.seen();
        assert!(to == Activity::Copying || seen.at_once == 0, "reads are under way when it is given up");
        seen.active.push(to);
        Ok(())
    }
}

/// A disk that takes a moment, and can be full.
#[derive(Debug, Default)]
pub(super) struct Disk {
    pub(super) kept: MemoryState,
    pub(super) is_full: AtomicBool,
    pub(super) puts: AtomicU32,
}

#[async_trait]
impl StateStore for Disk {
    async fn all(
        &self,
        kind: Kind,
        prefix: &str,
    ) -> Result<std::collections::BTreeMap<String, Vec<u8>>, Fault> {
        yield_now().await;
        self.kept.all(kind, prefix).await
    }

    async fn put(&self, kind: Kind, values: Vec<(String, Option<Vec<u8>>)>) -> Result<(), SaveError> {
        yield_now().await;
        if self.is_full.load(SeqCst) {
            return Err(SaveError::Io("disk full".into()));
        }
        self.puts.fetch_add(1, SeqCst);
        self.kept.put(kind, values).await?;
        yield_now().await;
        Ok(())
    }
}
