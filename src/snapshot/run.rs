//! One run of a source's snapshots: does what the progress says, waits for tickets, stores, obeys.
//!
//! Everything that waits is a task or a future of the run, so dropping it ends it at any point; what was not stored is
//! read again. Reading never waits for the store, but for the division of its own table; and while the store fails
//! nothing more is read, since nothing more would be kept.

use std::collections::HashMap;
use std::future::pending;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use forebay_api::{
    Activity, Blame, ChunkRead, Closed, Division, Fault, ReadOutcome, SnapshotMode, SnapshotPlan,
    SnapshotReader, Table, step,
};
use futures::future::{BoxFuture, try_join_all};
use futures::stream::{FuturesUnordered, StreamExt};
use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::{AbortHandle, Id, JoinError, JoinSet};
use tokio::time::Instant;
use tracing::{error, info, warn};

use super::progress::{Changes, ChunkId, Place, Progress, Read, Turn, Work};
use super::record::{Kept, Reason, encoded};
use super::report::Watched;
use super::{Asked, Refusal, SnapshotDesk, not_stored};
use crate::checkpoint::SaveError;
use crate::dead_letters::now_micros;
use crate::lane::TURN;
use crate::state::Kind;

/// Progress is stored so often at most, as positions are: each time costs an fsync, and what is lost is only repeated.
const STORE_EVERY: Duration = Duration::from_millis(50);

type Answer = (oneshot::Sender<Result<String, Refusal>>, String);

/// One run.
pub(super) struct Run<'d> {
    desk: &'d SnapshotDesk,
    plan: SnapshotPlan,
    tables: watch::Receiver<Vec<Table>>,
    reader: Arc<dyn SnapshotReader>,
    watched: Arc<Mutex<Watched>>,
    commands: mpsc::Receiver<Asked>,
    work: JoinSet<Worked>,
    /// Divisions and reads among `work`.
    workers: HashMap<Id, (Place, AbortHandle)>,
    tickets: FuturesUnordered<BoxFuture<'static, (ChunkId, Result<(), Closed>)>>,
    told: Told,
    put: Option<Put>,
    /// What is answered when the next put is done.
    answers: Vec<Answer>,
    /// The earliest moment at which progress is stored again.
    put_again: Instant,
    /// Whether what was decided about the tables is stored.
    is_decided: bool,
    /// Whether the last put failed.
    is_failing: bool,
    /// Whether the tables may still change.
    tables_change: bool,
    /// Whether the pipeline has closed: nothing more is read.
    is_closing: bool,
    /// Since when something is being copied, if it was said.
    begun: Option<Instant>,
}

/// What the reader was told last.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Told {
    Nothing,
    Turning,
    Is(Activity),
}

enum Worked {
    Turned(Activity, Result<(), Fault>),
    Divided(Place, Result<Option<Division>, Fault>),
    Read(Place, Result<ReadOutcome, Fault>),
}

/// Something that is being stored.
struct Put {
    changes: Changes,
    answers: Vec<Answer>,
    storing: BoxFuture<'static, Result<(), SaveError>>,
}

impl<'d> Run<'d> {
    pub(super) fn new(
        desk: &'d SnapshotDesk,
        plan: SnapshotPlan,
        tables: watch::Receiver<Vec<Table>>,
        reader: Arc<dyn SnapshotReader>,
        kept: Kept,
        commands: mpsc::Receiver<Asked>,
    ) -> Run<'d> {
        Run {
            desk,
            plan,
            tables,
            reader,
            watched: Arc::new(Mutex::new(Watched::new(Progress::of(kept)))),
            commands,
            work: JoinSet::new(),
            workers: HashMap::new(),
            tickets: FuturesUnordered::new(),
            told: Told::Nothing,
            put: None,
            answers: Vec::new(),
            put_again: Instant::now(),
            is_decided: false,
            is_failing: false,
            tables_change: true,
            is_closing: false,
            begun: None,
        }
    }

    /// For whoever wants to see how far it is.
    pub(super) fn watched(&self) -> Arc<Mutex<Watched>> {
        self.watched.clone()
    }

    pub(super) async fn go(&mut self) -> Result<(), Fault> {
        self.settle(true);
        let has_changes = self.watch().progress.has_changes();
        self.is_decided = !has_changes;
        loop {
            self.schedule();
            self.begin_put();
            if self.has_ended() {
                return Ok(());
            }
            let wants_put = self.wants_put();
            let storing = async {
                match &mut self.put {
                    Some(put) => (&mut put.storing).await,
                    None => pending().await,
                }
            };
            // every arm is cancel-safe
            tokio::select! {
                stored = storing => self.stored(stored)?,
                Some(worked) = self.work.join_next_with_id() => self.worked(worked)?,
                Some((chunk, durable)) = self.tickets.next() => self.settled(&chunk, durable),
                Some(asked) = self.commands.recv() => self.obey(asked),
                changed = self.tables.changed(), if self.tables_change => match changed {
                    Ok(()) => {
                        self.settle(false);
                        self.take_back();
                    }
                    Err(_) => self.tables_change = false,
                },
                () = tokio::time::sleep_until(self.put_again), if wants_put => {}
            }
        }
    }

    fn watch(&self) -> MutexGuard<'_, Watched> {
        self.watched.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn settle(&mut self, beginning: bool) {
        let listed = self.tables.borrow_and_update().clone();
        self.watch().progress.settle(&self.plan, &listed, beginning);
    }

    /// Tells the reader when the copy begins and ends, and gives every free worker something to do.
    fn schedule(&mut self) {
        if !self.is_decided || self.is_failing || self.is_closing {
            return;
        }
        if let Some(to) = self.turn_due() {
            self.told = Told::Turning;
            let reader = self.reader.clone();
            self.work.spawn(async move { Worked::Turned(to, reader.turn(to).await) });
        }
        if self.told != Told::Is(Activity::Copying) {
            return;
        }
        while self.workers.len() < self.plan.parallel.max(1) {
            let Some(work) = self.watch().progress.next() else { break };
            let reader = self.reader.clone();
            let (place, worker) = match work {
                Work::Divide { copy, place } => {
                    let worked = place.clone();
                    let divide = async move { Worked::Divided(worked, reader.divide(&copy).await) };
                    (place, self.work.spawn(divide))
                }
                Work::Read { copy, place, range } => {
                    let worked = place.clone();
                    let read = async move { Worked::Read(worked, reader.read(&copy, &range).await) };
                    (place, self.work.spawn(read))
                }
            };
            self.workers.insert(worker.id(), (place, worker));
        }
    }

    /// What the reader is to be told. That a copy is over is said when it is stored: until then it may go on elsewhere.
    fn turn_due(&self) -> Option<Activity> {
        let told = match self.told {
            Told::Turning => return None,
            Told::Nothing => None,
            Told::Is(activity) => Some(activity),
        };
        let (wanted, open, unstored) = {
            let watched = self.watch();
            let progress = &watched.progress;
            (progress.is_wanted(), progress.is_open(), progress.has_changes())
        };
        let to = match (wanted, open) {
            (true, _) => Activity::Copying,
            (false, true) => Activity::Paused,
            (false, false) => Activity::Over,
        };
        let rests = self.workers.is_empty() && (to == Activity::Paused || (!unstored && self.put.is_none()));
        (told != Some(to) && (to == Activity::Copying || rests)).then_some(to)
    }

    /// Takes back work on copies that nobody wants any more; it may have waited for long.
    fn take_back(&self) {
        let mut watched = self.watch();
        for (place, worker) in self.workers.values() {
            if watched.progress.reason(place).is_none() {
                worker.abort();
            }
        }
    }

    fn worked(&mut self, worked: Result<(Id, Worked), JoinError>) -> Result<(), Fault> {
        let (id, worked) = match worked {
            Ok((id, worked)) => (id, Ok(worked)),
            Err(error) => (error.id(), Err(error)),
        };
        let worker = self.workers.remove(&id);
        match worked {
            Ok(Worked::Turned(to, told)) => {
                told?;
                self.told = Told::Is(to);
                self.tell_of_the_whole();
            }
            Ok(Worked::Divided(place, divided)) => self.divided(&place, divided)?,
            Ok(Worked::Read(place, read)) => self.read(&place, read)?,
            Err(error) if error.is_cancelled() => {
                if let Some((place, _)) = worker {
                    self.watch().progress.taken_back(&place);
                }
            }
            Err(panic) => {
                let doing = format!("copying tables of `{}`", self.desk.source);
                return Err(Fault::fatal(doing, Blame::Defect, panic));
            }
        }
        self.tell_of_tables();
        Ok(())
    }

    fn divided(&mut self, place: &Place, divided: Result<Option<Division>, Fault>) -> Result<(), Fault> {
        let made = match divided {
            Ok(made) => made,
            Err(fault) => return self.refused(place, fault),
        };
        if self.watch().progress.divided(place, made, now_micros()) {
            return Ok(());
        }
        let doing = format!("copying `{}`", place.table);
        Err(Fault::retryable(doing, "the table is changed again before anything of it is read"))
    }

    fn read(&mut self, place: &Place, read: Result<ReadOutcome, Fault>) -> Result<(), Fault> {
        let (read, tickets) = match read {
            Ok(ReadOutcome::Chunk(ChunkRead { rest, rows, bytes, tickets })) => {
                self.desk.figures.rows.inc_by(rows);
                self.desk.figures.bytes.inc_by(bytes);
                self.desk.figures.chunks.inc();
                (Read::Chunk { rest, rows, bytes }, tickets)
            }
            Ok(ReadOutcome::Divide) => (Read::Divide, Vec::new()),
            Ok(ReadOutcome::Gone) => (Read::Gone, Vec::new()),
            Err(fault) => return self.refused(place, fault),
        };
        let chunk = self.watch().progress.read(place, read);
        if let Some(chunk) = chunk {
            self.tickets.push(Box::pin(async move { (chunk, try_join_all(tickets).await.map(drop)) }));
        }
        Ok(())
    }

    /// A copy that an operator asked for, with a filter perhaps that makes no sense, is no reason to end the stream, and
    /// again at every start; nor is that of a table that somebody else has added. Every other fault ends the run.
    fn refused(&mut self, place: &Place, fault: Fault) -> Result<(), Fault> {
        let reason = self.watch().progress.reason(place);
        match reason {
            _ if fault.is_retryable() => return Err(fault),
            // what was refused is not wanted any more
            None => {}
            Some(Reason::Asked | Reason::Added) => {
                error!(source = %self.desk.source, table = %place.table, error = %fault, remedy = fault.remedy(), "the copy of a table is given up; its changes go on");
            }
            Some(_) => return Err(fault),
        }
        self.watch().progress.refused(place, fault.to_string());
        Ok(())
    }

    /// A chunk is durable, or never will be in this generation.
    fn settled(&mut self, chunk: &ChunkId, durable: Result<(), Closed>) {
        if durable.is_err() {
            // The generation ends. What is stored is stored; the source drops this run soon.
            self.is_closing = true;
            self.work.abort_all();
            return;
        }
        {
            let mut watched = self.watch();
            watched.look(&chunk.place.table);
            watched.progress.durable(chunk, now_micros());
            watched.look(&chunk.place.table);
        }
        self.tell_of_tables();
    }

    fn obey(&mut self, asked: Asked) {
        let listed = self.tables.borrow().clone();
        let done = self.watch().progress.obey(&asked.command, &self.plan, &listed);
        match done {
            Ok(done) => {
                info!(source = %self.desk.source, "an operator commands: {done}");
                self.answers.push((asked.answer, done));
                self.take_back();
            }
            // Whoever asked may have gone; then nobody wants to know.
            Err(refusal) => drop(asked.answer.send(Err(refusal))),
        }
    }

    fn wants_put(&self) -> bool {
        self.put.is_none() && (!self.answers.is_empty() || self.watch().progress.has_changes())
    }

    fn begin_put(&mut self) {
        if !self.wants_put() {
            return;
        }
        let urgent = !self.is_decided || !self.answers.is_empty() || {
            let watched = self.watch();
            watched.progress.waits_for_the_store() || !watched.progress.is_open()
        };
        if Instant::now() < self.put_again && (self.is_failing || !urgent) {
            return;
        }
        let changes = self.watch().progress.changes();
        let values = encoded(&self.desk.source, &changes.values);
        let store = self.desk.store.clone();
        let storing = Box::pin(async move { store.put(Kind::Snapshots, values).await });
        self.put = Some(Put { changes, answers: std::mem::take(&mut self.answers), storing });
    }

    fn stored(&mut self, stored: Result<(), SaveError>) -> Result<(), Fault> {
        let mut put = self.put.take().expect("it was being stored");
        match stored {
            Ok(()) => {
                step!("snapshot-stored");
                self.watch().progress.stored(&put.changes);
                self.put_again = Instant::now() + STORE_EVERY;
                if std::mem::take(&mut self.is_failing) {
                    info!(source = %self.desk.source, "the progress of the snapshot is stored again");
                }
                self.is_decided = true;
                for (answer, done) in put.answers {
                    // Whoever asked may have gone; it is done all the same.
                    drop(answer.send(Ok(done)));
                }
                self.tell_of_the_whole();
                Ok(())
            }
            Err(error @ SaveError::Io(_)) => {
                let fault = not_stored(&self.desk.source, error);
                if !std::mem::replace(&mut self.is_failing, true) {
                    warn!(source = %self.desk.source, error = %fault, "the progress of the snapshot cannot be stored; nothing more is copied until it can");
                }
                self.watch().progress.not_stored(put.changes);
                put.answers.append(&mut self.answers);
                self.answers = put.answers;
                self.put_again = Instant::now() + TURN;
                Ok(())
            }
            Err(error) => Err(not_stored(&self.desk.source, error)),
        }
    }

    /// With `only`: whether everything is copied, durable and stored.
    fn has_ended(&self) -> bool {
        let is_over = self.plan.mode == SnapshotMode::Only
            && self.is_decided
            && !self.is_closing
            && self.told == Told::Is(Activity::Over)
            && self.put.is_none()
            && self.work.is_empty();
        is_over && {
            let watched = self.watch();
            !watched.progress.is_open() && !watched.progress.has_changes()
        }
    }

    /// One line when a table's copy begins and one when it ends.
    fn tell_of_tables(&mut self) {
        let mut watched = self.watch();
        let source = &self.desk.source;
        for turn in watched.progress.turns() {
            let record = |table| watched.progress.tables.get(table).map(|known| known.to_record());
            match turn {
                Turn::Begun(table) => {
                    let Some(record) = record(&table) else { continue };
                    let ranges = record.ranges.len() + usize::from(record.last.is_some());
                    info!(%source, %table, number = record.number, estimated_rows = record.estimated_rows, ranges, filter = record.filter, "the copy of a table begins");
                }
                Turn::Done(table) => {
                    let Some(record) = record(&table) else { continue };
                    let micros = record.finished.unwrap_or(0) - record.started.unwrap_or(0);
                    let seconds = Duration::from_micros(u64::try_from(micros).unwrap_or(0)).as_secs_f64();
                    info!(%source, %table, number = record.number, rows = record.rows, bytes = record.bytes, seconds, "the copy of a table ends");
                }
                Turn::Again(table) => {
                    info!(%source, %table, "the copy of a table begins again: the table was changed");
                }
                Turn::Gone(table) => info!(%source, %table, "the copy of a table ends: it is gone"),
            }
        }
    }

    /// One line when everything that is copied together begins, and one when it is stored that it ended.
    fn tell_of_the_whole(&mut self) {
        let (is_open, is_stored) = {
            let watched = self.watch();
            (watched.progress.is_open(), !watched.progress.has_changes() && self.put.is_none())
        };
        let now = Instant::now();
        match self.begun {
            None if is_open && self.told == Told::Is(Activity::Copying) => {
                self.begun = Some(now);
                let totals = self.watch().totals(now);
                let left = totals.tables - totals.tables_ended;
                info!(source = %self.desk.source, tables = left, estimated_rows = totals.estimated_rows_left, "snapshot begins");
            }
            Some(begun) if !is_open && is_stored => {
                self.begun = None;
                let totals = self.watch().totals(now);
                let seconds = (now - begun).as_secs_f64();
                info!(source = %self.desk.source, tables = totals.tables, rows = totals.rows, bytes = totals.bytes, seconds, "snapshot ends");
            }
            _ => {}
        }
    }
}
