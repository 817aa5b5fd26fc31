//! Event to record: judge, encode once for all lanes, hand out. One task a pipeline; its work is synchronous while all
//! schemas are at hand ([`crate::validation`]).
//!
//! Invariant: a send is opened in the ledger, awaiting every required lane that gets records of it, before any lane
//! can see it. Back-pressure reaches the source from here: a required lane's queue is bounded by the pipeline's
//! memory budget, a best-effort lane's by a budget of its own, beyond which its records are dropped and counted.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use forebay_api::{
    Batch, Blame, Budget, Chunk, Claim, Encoded, Fault, Inlet, Mark, Op, Report, StreamId, step,
};
use tokio::sync::{Notify, mpsc};

use crate::filter::Filter;
use crate::format::{Encoder, Format};
use crate::lane::{Queued, TURN};
use crate::ledger::{DestinationSet, Ledger};
use crate::privacy::Privacy;
use crate::telemetry::{LaneFigures, SourceFigures};
use crate::validation::Judge;

/// The stage's end of one lane.
#[derive(Debug)]
pub struct Way {
    /// The lane's index in the pipeline.
    pub index: usize,
    /// What the lane wants.
    pub filter: Filter,
    /// Its queue.
    pub queue: mpsc::Sender<Queued>,
    /// `None`: required. Else the budget beyond which records are dropped.
    pub best_effort: Option<Budget>,
    /// Its format among the pipeline's formats.
    pub format: usize,
    /// What it counts.
    pub figures: LaneFigures,
}

/// The stage of one generation.
#[derive(Debug)]
pub struct Stage {
    /// What the source sends.
    pub inlet: Inlet,
    /// Writes records.
    pub encoder: Encoder,
    /// The formats that some lane writes.
    pub formats: Arc<[Format]>,
    /// Where the records go.
    pub ways: Vec<Way>,
    /// Where sends are opened.
    pub ledger: Arc<Mutex<Ledger>>,
    /// Told when a send needs nobody and the ledger may advance.
    pub settled: Arc<Notify>,
    /// What it counts.
    pub figures: SourceFigures,
    /// Takes out of events what nobody shall keep.
    pub privacy: Arc<Privacy>,
    /// Says which events are what they should be.
    pub judge: Judge,
    /// Where it tells that it turns.
    pub report: Report,
    /// `0..n`, shared by all lanes that want every row.
    pub every_row: Arc<[u32]>,
    /// The newest mark of each stream of this generation.
    pub newest: HashMap<Arc<StreamId>, Mark>,
    /// What makes streams of its own of what comes again by a replay.
    pub restream: Option<u64>,
}

impl Stage {
    /// Works until the source's outlets are gone and everything they sent is handed out; the lanes' queues close then.
    /// Marks that do not ascend are a defect of the source.
    pub async fn run(mut self) -> Result<(), Fault> {
        loop {
            let received = tokio::time::timeout(TURN, self.inlet.receive()).await;
            self.report.turned();
            match received {
                Ok(Some((chunk, claim))) => {
                    self.ascends(&chunk)?;
                    self.pass(chunk, claim).await;
                }
                Ok(None) => return Ok(()),
                Err(_) => {}
            }
        }
    }

    /// A destination that keeps the mark of what it has would take an event with an older one for delivered.
    fn ascends(&mut self, chunk: &Chunk) -> Result<(), Fault> {
        if chunk.rows.is_empty() {
            return Ok(());
        }
        let newest = match self.newest.get_mut(&chunk.stream) {
            Some(newest) => newest,
            None => self.newest.entry(chunk.stream.clone()).or_insert(Mark::MIN),
        };
        for row in &chunk.rows {
            // A journal may have the announcement of a schema twice; its id tells.
            if row.op == Op::Schema && row.mark <= *newest {
                continue;
            }
            if row.mark <= *newest {
                let error = format!("mark {} came after {newest} in stream `{}`", row.mark, chunk.stream);
                return Err(Fault::fatal("taking events from the source", Blame::Defect, error)
                    .with_remedy("report this"));
            }
            *newest = row.mark;
        }
        Ok(())
    }

    async fn pass(&mut self, mut chunk: Chunk, mut claim: Claim) {
        step!("received");
        if let Some(salt) = self.restream {
            let epoch = chunk.stream.epoch.rotate_left(32) ^ salt.wrapping_mul(0x9e37_79b9_7f4a_7c15);
            let stream = StreamId { source: chunk.stream.source.clone(), epoch };
            chunk = chunk.restream(Arc::new(stream), |_, mark| mark);
        }
        if chunk.rows.is_empty() {
            self.open(DestinationSet::default(), &[], claim);
            return;
        }
        let rows = chunk.rows.len();
        self.figures.events.inc_by(rows as u64);
        self.figures.bytes.inc_by(chunk.buf.len() as u64);
        self.privacy.apply(&mut chunk);
        let verdicts = self.judge.judge(&mut chunk, &self.report).await;
        let encoded: Vec<Encoded> =
            self.formats.iter().map(|format| self.encoder.encode(*format, &chunk, &verdicts)).collect();
        claim.permit.add(encoded.iter().map(Encoded::weight).sum());
        step!("staged");
        let batch = Arc::new(Batch { chunk, verdicts, encoded });
        self.hand_out(batch, claim).await;
    }

    /// Opens the send for whoever gets records of it, then gives it to them.
    async fn hand_out(&mut self, batch: Arc<Batch>, claim: Claim) {
        let total = batch.chunk.rows.len();
        if self.every_row.len() < total {
            self.every_row = (0..u32::try_from(total).expect("a chunk has fewer rows than bytes")).collect();
        }
        let mut awaiting = DestinationSet::default();
        let mut courtesy = Vec::new();
        let mut sends = Vec::new();
        for (at, way) in self.ways.iter().enumerate() {
            let (rows, count) = way.select(&batch, &self.every_row);
            way.figures.filtered.inc_by((total - count) as u64);
            if count == 0 {
                continue;
            }
            let bytes = way.bytes(&batch, &rows[..count]);
            let permit = match &way.best_effort {
                None => {
                    awaiting.insert(way.index);
                    None
                }
                Some(budget) => {
                    let permit = budget.try_take(batch.chunk.weight() + bytes);
                    if permit.is_none() {
                        way.figures.dropped.inc_by(count as u64);
                        continue;
                    }
                    courtesy.push((way.index, count as u64));
                    permit
                }
            };
            way.figures.queue_records.inc_by(i64::try_from(count).unwrap_or(i64::MAX));
            way.figures.queue_bytes.inc_by(i64::try_from(bytes).unwrap_or(i64::MAX));
            sends.push((at, Queued { seq: 0, batch: batch.clone(), rows, count, permit }));
        }
        drop(batch);
        let seq = self.open(awaiting, &courtesy, claim);
        for (at, mut queued) in sends {
            queued.seq = seq;
            let mut send = std::pin::pin!(self.ways[at].queue.send(queued));
            loop {
                match tokio::time::timeout(TURN, send.as_mut()).await {
                    // A lane that is gone has failed for good or was aborted; its pipeline ends, and what it did not
                    // settle comes again.
                    Ok(_) => break,
                    Err(_) => self.report.turned(),
                }
            }
        }
    }

    fn open(&self, awaiting: DestinationSet, courtesy: &[(usize, u64)], claim: Claim) -> u64 {
        let seq = self.ledger.lock().unwrap_or_else(PoisonError::into_inner).open(awaiting, courtesy, claim);
        if awaiting.is_empty() {
            self.settled.notify_one();
        }
        seq
    }
}

impl Way {
    /// The rows that the lane wants: the first so many of a list.
    fn select(&self, batch: &Batch, every_row: &Arc<[u32]>) -> (Arc<[u32]>, usize) {
        if self.filter.passes_all() {
            return (every_row.clone(), batch.chunk.rows.len());
        }
        let rows = self.filter.rows(batch);
        let count = rows.len();
        (rows, count)
    }

    fn bytes(&self, batch: &Batch, rows: &[u32]) -> usize {
        rows.iter().map(|&row| batch.record(row as usize, self.format).size()).sum()
    }
}
