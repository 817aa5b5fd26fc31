//! The copy of what is in the tables already: lock-free, chunk by chunk, in its place in the stream.
//!
//! ```text
//!  session ─reads a chunk under one snapshot S─▶ part ─▶ landing, under the id of our own transaction W
//!                                                            │ W commits
//!  reader ─meets W in the stream─▶ leaves out what S did not see (window) ─▶ sends the rows behind it
//! ```
//! What was changed before W by a transaction that S did not see is not sent, because the stream has said it; where the
//! stream did not say all of it, the row is read again. What is changed after W comes after the row. So the last event
//! of each key is the truth, without a lock and without a transaction that is longer than a chunk. The core schedules
//! the chunks and keeps how far each table is.

pub(super) mod landing;
pub(super) mod line;
mod seen;
mod session;
mod stretch;
pub(super) mod target;
pub(super) mod window;

use std::collections::{BTreeSet, HashMap};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use forebay_api::{
    Activity, Blame, Budget, ChunkRead, Division, Fault, Range, ReadOutcome, SnapshotPlan, SnapshotReader,
    Snapshots, StreamId, Table, TableCopy, Ticket, step,
};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc, oneshot, watch};
use tokio::time::{Instant, sleep};
use tokio_postgres::SimpleQueryMessage;
use tracing::{debug, info, warn};

use landing::{Landing, Landings, Piece};
use seen::{Seen, Sees};
use session::{Chunked, Order, Part, Session, SessionError, Way};
use stretch::{Naming, Stretch};
use target::{Published, Target};

use super::catalog::Facts;
use super::config::Plan;
use super::fault;
use super::prepare::{CancelOnDrop, Prepared};
use super::relation::Shapes;
use super::unwound;
use crate::connect::{Server, Sql};
use crate::decode::row::Columns;

/// The prefix of the messages that are the high watermarks.
pub(super) const WATERMARK: &str = "forebay.watermark";

/// So much is a chunk, as far as the size of rows is known beforehand.
const CHUNK_BYTES: u64 = 4 << 20;

/// And so many rows at most.
const CHUNK_ROWS: u64 = 50_000;

/// A chunk of a table of which nothing is known.
const FIRST_ROWS: u64 = 1_000;

/// A table that is read by blocks: so many at a time.
const CHUNK_BLOCKS: u32 = 512;

/// A table smaller than twice this is one stretch.
const STRETCH_BYTES: u64 = 16 << 20;

/// So much of what was read may wait for its place in the stream: some parts of each session, or one large value.
const WAITING_BYTES: usize = 32 << 20;

/// Parts of a chunk that wait; a chunk of the usual size has one or two.
const PARTS: usize = 4;

/// What a row costs beside its text, more or less.
const ROW_OVERHEAD: u64 = 160;

/// Keys that are read again in one statement.
const AGAIN_KEYS: usize = 500;

/// How long a row that is to be read again is left alone, at first and at most.
const AGAIN_AFTER: Duration = Duration::from_millis(5);
const AGAIN_AT_MOST: Duration = Duration::from_secs(1);

/// How often tables are looked for that were added to a publication, or attached to a table of it.
const TABLES_LOOK: Duration = Duration::from_secs(5);

/// How often something that is waited for is looked at.
const LOOK: Duration = Duration::from_millis(200);

/// Without synchronous standbys a commit is visible as soon as it is in the log, but for a busy moment.
const MOMENT: Duration = Duration::from_secs(10);

/// One run's copy.
pub(super) struct PostgresSnapshot {
    plan: Arc<Plan>,
    server: Server,
    sql: Arc<Sql>,
    facts: Facts,
    publications: Vec<String>,
    stream: Arc<StreamId>,
    landings: Arc<Landings>,
    /// Whether the slot was created in this run, after the publications.
    fresh: bool,
    known: Mutex<Known>,
    shapes: Arc<Shapes>,
    /// The session of the watermarks.
    marks: tokio::sync::Mutex<Option<Sql>>,
    /// How many sessions may read.
    seats: Arc<Semaphore>,
    /// For what was read and waits for its place.
    room: Budget,
}

/// A session that reads, one of so many.
struct Seat {
    session: Session,
    permit: OwnedSemaphorePermit,
}

/// What is known from chunk to chunk.
#[derive(Default)]
struct Known {
    published: HashMap<String, Published>,
    targets: HashMap<String, Arc<Target>>,
    /// Bytes that a row of each table takes, by experience.
    widths: HashMap<String, u64>,
    idle: Vec<Session>,
}

/// What a statement came to.
#[derive(Default)]
struct Ran {
    rows: u64,
    bytes: u64,
    read: u64,
    text_bytes: u64,
    tickets: Vec<Ticket>,
    again: Vec<Vec<String>>,
    last: Option<Vec<String>>,
    /// The table is not what it was when it was looked up.
    changed: bool,
    /// The table cannot be read for now.
    locked: bool,
    /// A line that does not fit its shape.
    unfit: Option<Vec<u8>>,
}

impl Ran {
    /// Whether it must be read anew.
    fn is_cut_short(&self) -> bool {
        self.changed || self.locked || self.unfit.is_some()
    }
}

impl PostgresSnapshot {
    /// Of a stream that is about to be read.
    pub(super) async fn new(
        plan: &Arc<Plan>,
        prepared: &Prepared,
        landings: Arc<Landings>,
        shapes: Arc<Shapes>,
    ) -> Result<PostgresSnapshot, Fault> {
        // Looking at a table can wait for whoever changes it, which is not to hold up the stream.
        let sql = Arc::new(session_for("looking at tables", &prepared.server).await?);
        Ok(PostgresSnapshot {
            plan: plan.clone(),
            server: prepared.server.clone(),
            sql,
            facts: prepared.facts.clone(),
            publications: prepared.publications.clone(),
            stream: prepared.stream.clone(),
            landings,
            fresh: prepared.fresh,
            known: Mutex::default(),
            shapes,
            marks: tokio::sync::Mutex::default(),
            seats: Arc::new(Semaphore::new(plan.config.snapshot_parallel.get())),
            room: Budget::new(WAITING_BYTES),
        })
    }

    /// Copies what the core wants copied, of the tables that are published now and later. Ends by a fault, or when
    /// everything is copied and nothing else was wanted.
    pub(super) async fn copy(
        self: &Arc<Self>,
        snapshots: Arc<dyn Snapshots>,
        plan: SnapshotPlan,
    ) -> Result<impl Future<Output = Result<(), Fault>> + use<>, Fault> {
        let (told, tables) = watch::channel(self.tables().await?);
        let (watching, reader) = (self.clone(), self.clone());
        Ok(async move {
            let copying = snapshots.run(plan, tables, reader);
            let mut copying = std::pin::pin!(copying);
            loop {
                tokio::select! {
                    ended = copying.as_mut() => return ended,
                    () = sleep(TABLES_LOOK) => {
                        let now = watching.tables().await?;
                        told.send_if_modified(|before| {
                            let which = |table: &Table| (table.name.clone(), table.incarnation.clone());
                            let changed = before.iter().map(which).ne(now.iter().map(which));
                            if changed {
                                *before = now;
                            }
                            changed
                        });
                    }
                }
            }
        })
    }

    /// The tables that could be copied now.
    async fn tables(&self) -> Result<Vec<Table>, Fault> {
        let published =
            target::published(&self.sql, &self.plan, &self.publications, self.facts.major()).await?;
        let tables = published
            .iter()
            .map(|table| Table {
                name: table.name.clone(),
                incarnation: table.oid.to_string(),
                estimated_rows: table.estimated_rows,
            })
            .collect();
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        known.published = published.into_iter().map(|table| (table.name.clone(), table)).collect();
        Ok(tables)
    }

    /// A table as it is now. `None`: it is gone, or nothing of it is published.
    async fn look_up(&self, name: &str) -> Result<Option<Arc<Target>>, Fault> {
        self.tables().await?;
        let published = {
            let known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
            known.published.get(name).cloned()
        };
        let Some(published) = published else { return Ok(None) };
        let found = target::target(&self.sql, &self.shapes, &published).await?;
        let target = found.map(Arc::new);
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        match &target {
            Some(target) => drop(known.targets.insert(name.to_owned(), target.clone())),
            None => drop(known.targets.remove(name)),
        }
        Ok(target)
    }

    /// As it was when it was last looked up.
    async fn target(&self, name: &str) -> Result<Option<Arc<Target>>, Fault> {
        let known = {
            let known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
            known.targets.get(name).cloned()
        };
        match known {
            Some(target) => Ok(Some(target)),
            None => self.look_up(name).await,
        }
    }

    async fn session(&self) -> Result<Seat, Fault> {
        let permit = self.seats.clone().acquire_owned().await.expect("it is never closed");
        let idle = self.known.lock().unwrap_or_else(PoisonError::into_inner).idle.pop();
        if let Some(session) = idle {
            return Ok(Seat { session, permit });
        }
        let doing = "opening a session for the copy";
        let connection = self.server.copying().await.map_err(|error| fault::connect(doing, error))?;
        let made = tokio::task::spawn_blocking(move || Session::new(connection)).await;
        let session = unwound(made).map_err(|error| fault::wire(doing, error))?;
        Ok(Seat { session, permit })
    }

    fn close_idle(&self) {
        self.known.lock().unwrap_or_else(PoisonError::into_inner).idle.clear();
    }

    fn give_back(&self, seat: Seat) {
        let Seat { session, permit } = seat;
        self.known.lock().unwrap_or_else(PoisonError::into_inner).idle.push(session);
        drop(permit);
    }

    /// Leaves something in the stream's way, under a transaction of our own, and commits that.
    async fn watermark(&self, landing: Landing) -> Result<(), Fault> {
        let mut marks = self.marks.lock().await;
        let sql = match marks.take() {
            Some(sql) if !sql.is_closed() => sql,
            _ => session_for("writing watermarks", &self.server).await?,
        };
        let failed = |error| fault::sql("writing a watermark", error);
        let statement =
            format!("BEGIN; SELECT pg_current_xact_id(), pg_logical_emit_message(true, '{WATERMARK}', '')");
        let answers = sql.simple_query(&statement).await.map_err(failed)?;
        let row = answers.iter().find_map(|answer| match answer {
            SimpleQueryMessage::Row(row) => Some(row),
            _ => None,
        });
        let xid = row.and_then(|row| row.get(0)).unwrap_or_default();
        let xid: u64 = xid
            .parse()
            .map_err(|error| Fault::fatal(format!("reading transaction id `{xid}`"), Blame::Defect, error))?;
        // Before it commits, so that the reader cannot come by too early.
        self.landings.leave(u32::try_from(xid & u64::from(u32::MAX)).expect("masked to 32 bits"), landing);
        sql.batch_execute("COMMIT").await.map_err(failed)?;
        step!("snapshot-watermark");
        *marks = Some(sql);
        Ok(())
    }

    /// Whether the stream has told of rows that have other keys now, and not told all of them.
    async fn has_moved(&self, target: &Target) -> Result<bool, Fault> {
        let (told, answer) = oneshot::channel();
        self.watermark(Landing::Moved(target.table, told)).await?;
        answer.await.map_err(|_| stopped())
    }

    async fn seen(&self) -> Result<Seen, Fault> {
        let failed = |error| fault::sql("asking which transactions run", error);
        let row = self.sql.query_one("SELECT pg_current_snapshot()::text", &[]).await.map_err(failed)?;
        let text: String = row.try_get(0).map_err(failed)?;
        Seen::read(&text, true).ok_or_else(|| {
            Fault::fatal("asking which transactions run", Blame::Defect, format!("`{text}` is no snapshot"))
        })
    }

    /// Reads a statement's rows and lands them. The session is free for another chunk as soon as the rows are read.
    async fn run(&self, order: Order) -> Result<Ran, Fault> {
        let target = order.target.clone();
        let only_moved = order.only_moved;
        let mut seat = self.session().await?;
        let open = self.landings.open();
        // So many parts wait for their place without holding up the chunk's transaction.
        let (parts, taken) = mpsc::channel::<Part>(PARTS);
        let way = Way { parts, room: self.room.clone() };
        let mut unfinished = CancelOnDrop(Some(seat.session.canceller()));
        let landings = self.landings.clone();
        let reading = tokio::task::spawn_blocking(move || {
            let result = seat.session.chunk(&order, &|seen| landings.saw(seen), &way);
            (seat, result)
        });
        let read = async {
            let (seat, result) = unwound(reading.await);
            if result.is_ok() {
                unfinished.0 = None;
            }
            if matches!(result, Ok(Chunked::Whole { .. } | Chunked::Changed | Chunked::Locked)) {
                self.give_back(seat);
            }
            Ok(result)
        };
        let (result, mut ran) = tokio::try_join!(read, self.land(&target, only_moved, taken))?;
        drop(open);
        match result.map_err(|error| failed(&target.shown, error))? {
            Chunked::Whole { rows, bytes } => (ran.read, ran.text_bytes) = (rows, bytes),
            Chunked::Changed => ran.changed = true,
            Chunked::Locked => ran.locked = true,
            // the session stands in the middle of a copy
            Chunked::Unfit { line } => ran.unfit = Some(line),
            Chunked::Dropped => return Err(stopped()),
        }
        Ok(ran)
    }

    /// Gives parts their place in the stream, one after the other.
    async fn land(
        &self,
        target: &Target,
        only_moved: bool,
        mut taken: mpsc::Receiver<Part>,
    ) -> Result<Ran, Fault> {
        let mut ran = Ran::default();
        while let Some(part) = taken.recv().await {
            step!("snapshot-read");
            let Part { seen, chunks, keys, room, long } = part;
            let (landed, answer) = oneshot::channel();
            let piece = Piece {
                shape: target.shape.clone(),
                table: target.table,
                keyed: !target.key.is_empty(),
                only_moved,
                seen,
                chunks,
                landed,
            };
            self.watermark(Landing::Piece(piece)).await?;
            let mut landed = answer.await.map_err(|_| stopped())?;
            if let Some(ticket) = landed.ticket.take_if(|_| long) {
                ticket.await.map_err(|_| stopped())?;
            }
            drop(room);
            ran.rows += landed.rows;
            ran.bytes += landed.bytes;
            ran.tickets.extend(landed.ticket);
            ran.again.extend(landed.again.into_iter().map(|row| keys.get(row)));
            if let Some(last) = keys.len().checked_sub(1) {
                ran.last = Some(keys.get(last));
            }
        }
        Ok(ran)
    }

    /// Finds out what a table has become in whose shape a row does not fit: a label was added to a type, say.
    async fn relearn(&self, table: &str, target: &Target, line: &[u8]) -> Result<(), Fault> {
        let fits = |columns: &Columns| session::fits(target, columns, line);
        let shape = self.shapes.relearn(&target.shape, fits).await?;
        let target = Arc::new(Target { shape: Arc::new(shape), ..target.clone() });
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        known.targets.insert(table.to_owned(), target);
        Ok(())
    }

    fn order(
        &self,
        copy: &TableCopy,
        target: &Arc<Target>,
        (statement, naming, only_moved): (String, Naming, bool),
    ) -> Order {
        let (source, epoch) = (&self.stream.source, self.stream.epoch);
        // A place means something in one file only.
        let file = match naming {
            Naming::Key => String::new(),
            Naming::Place => format!("{}.{}:", target.oid, target.node),
        };
        Order {
            target: target.clone(),
            statement,
            stream: self.stream.clone(),
            prefix: format!("{source}:{epoch:016x}:snapshot:{}:{}:{file}", copy.number, target.shown),
            naming,
            only_moved,
            exact: !self.facts.standby,
        }
    }

    /// Reads single rows until each of them was sent, or was said by the stream.
    async fn again(
        &self,
        copy: &TableCopy,
        target: &Arc<Target>,
        (naming, only_moved): (Naming, bool),
        ran: &mut Ran,
    ) -> Result<(), Fault> {
        let mut wait = AGAIN_AFTER;
        while !ran.again.is_empty() && !ran.is_cut_short() {
            sleep(wait).await;
            wait = (wait * 2).min(AGAIN_AT_MOST);
            let keys = std::mem::take(&mut ran.again);
            for keys in keys.chunks(AGAIN_KEYS) {
                let statement = stretch::keys_statement(target, naming, copy.filter.as_deref(), keys);
                let more = self.run(self.order(copy, target, (statement, naming, only_moved))).await?;
                ran.rows += more.rows;
                ran.bytes += more.bytes;
                ran.tickets.extend(more.tickets);
                ran.again.extend(more.again);
                ran.changed |= more.changed;
                ran.locked |= more.locked;
                ran.unfit = ran.unfit.take().or(more.unfit);
            }
        }
        Ok(())
    }

    /// How many rows make a chunk of the right size.
    fn chunk_rows(&self, name: &str, target: &Target) -> u64 {
        let known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        let expected = target.rows.map(|rows| target.bytes / rows.max(1));
        match known.widths.get(name).copied().or(expected) {
            Some(width) => (CHUNK_BYTES / width.max(1)).clamp(1, CHUNK_ROWS),
            None => FIRST_ROWS,
        }
    }

    /// Transactions that wrote to the table before it was published have changes that are not streamed; a copy that
    /// does not see them either would lose them.
    async fn wait_for_writers(&self, target: &Target) -> Result<(), Fault> {
        const WRITERS: &str = "SELECT virtualtransaction FROM pg_locks WHERE locktype = 'relation' AND granted \
             AND database = (SELECT oid FROM pg_database WHERE datname = current_database()) AND relation = ANY ($1) \
             AND mode IN ('RowExclusiveLock', 'ShareRowExclusiveLock', 'ExclusiveLock', 'AccessExclusiveLock')";
        let failed = |error| fault::sql(format!("looking for writers of `{}`", target.shown), error);
        let tables = [target.oid, target.table];
        let writers = async || -> Result<Vec<String>, Fault> {
            let rows = self.sql.query(WRITERS, &[&&tables[..]]).await.map_err(failed)?;
            rows.iter().map(|row| row.try_get(0).map_err(failed)).collect()
        };
        let mut left = writers().await?;
        let since = Instant::now();
        let mut told = false;
        while !left.is_empty() {
            if !told && since.elapsed() > MOMENT {
                told = true;
                info!(source = %self.plan.source, table = %target.shown, transactions = left.join(", "), "the copy waits for transactions that write to the table");
            }
            sleep(LOOK).await;
            let now = writers().await?;
            left.retain(|writer| now.contains(writer));
        }
        Ok(())
    }

    /// Divides a table by keys of a sample.
    async fn by_key(&self, target: &Target) -> Result<Vec<Range>, Fault> {
        let stretch = |after, to| Stretch::Key {
            oid: target.oid,
            key: target.key.iter().map(|column| column.name.clone()).collect(),
            after,
            to,
        };
        let wanted = (target.bytes / STRETCH_BYTES).min(4 * self.plan.config.snapshot_parallel.get() as u64);
        let count = u32::try_from(wanted).unwrap_or(1);
        let mut bounds = Vec::new();
        if count > 1 && self.plan.config.snapshot_parallel.get() > 1 {
            // some 200 blocks for each stretch
            let percent = (f64::from(count) * 200.0 * 100.0 / f64::from(target.blocks.max(1))).min(100.0);
            let statement = stretch::sample_statement(target, count, percent);
            let columns = u16::try_from(target.key.len()).expect("a key has at most 32 columns");
            let mut seat = self.session().await?;
            let sampled = tokio::task::spawn_blocking(move || {
                let sampled = seat.session.values(&statement, columns);
                (seat, sampled)
            });
            let (seat, sampled) = unwound(sampled.await);
            bounds = sampled.map_err(|error| failed(&target.shown, error))?;
            self.give_back(seat);
        }
        let mut ranges = Vec::new();
        let mut after = None;
        for bound in bounds {
            ranges.push(stretch(after, Some(bound.clone())).range());
            after = Some(bound);
        }
        ranges.push(stretch(after, None).range());
        Ok(ranges)
    }

    fn by_block(&self, target: &Target) -> Vec<Range> {
        let stretches = u32::try_from(self.plan.chunks_at_once()).unwrap_or(1);
        let size = target.blocks.div_ceil(stretches).max(CHUNK_BLOCKS);
        let (oid, node) = (target.oid, target.node);
        (0..target.blocks)
            .step_by(size as usize)
            .map(|from| Stretch::Blocks { oid, node, from, to: (from + size).min(target.blocks) }.range())
            .collect()
    }
}

#[async_trait]
impl SnapshotReader for PostgresSnapshot {
    async fn divide(&self, copy: &TableCopy) -> Result<Option<Division>, Fault> {
        if self.facts.standby {
            let error = "a copy needs watermarks in the log, which cannot be written on a standby";
            return Err(Fault::fatal(format!("copying `{}`", copy.table), Blame::Configuration, error)
                .with_remedy("connect the source to the primary"));
        }
        let Some(target) = self.look_up(&copy.table).await? else { return Ok(None) };
        if let Some(filter) = &copy.filter {
            // A statement that is prepared cannot be two, as one that is copied with could.
            let probe = stretch::probe_statement(&target, filter);
            let prepared = self.sql.prepare(&probe).await;
            prepared
                .map_err(|error| fault::sql(format!("reading the condition for `{}`", copy.table), error))?;
        }
        // The server makes a slot when everything has ended that it will not stream, but for commits that wait for a
        // standby: those are in the log and not visible.
        if !self.fresh || self.has_standbys().await? {
            self.wait_for_writers(&target).await?;
        }
        let since = self.seen().await?.floor();
        // After that, so that what was written before is in these blocks.
        let Some(target) = self.look_up(&copy.table).await? else { return Ok(None) };
        let last = Stretch::Moved { oid: target.oid, since }.range();
        let (ranges, may_move) = if target.is_ordered {
            (self.by_key(&target).await?, target.leaves_out)
        } else {
            (self.by_block(&target), true)
        };
        Ok(Some(Division { ranges, last: may_move.then_some(last), estimated_rows: target.rows }))
    }

    async fn read(&self, copy: &TableCopy, range: &Range) -> Result<ReadOutcome, Fault> {
        let stretch = Stretch::read(range).map_err(|error| {
            Fault::fatal(format!("going on with the copy of `{}`", copy.table), Blame::Outside, error)
                .with_remedy("run the Forebay that stored it, or `forebay snapshot stop` and start it again")
        })?;
        let Some(target) = self.target(&copy.table).await? else { return Ok(ReadOutcome::Gone) };
        if !stretch.fits(&target) {
            return Ok(ReadOutcome::Divide);
        }
        // Of a table that is read by its key, all other rows that were written meanwhile are in the stream.
        let only_moved = matches!(stretch, Stretch::Moved { .. }) && target.is_ordered;
        if only_moved && !self.has_moved(&target).await? {
            return Ok(ReadOutcome::Chunk(ChunkRead { rest: None, rows: 0, bytes: 0, tickets: Vec::new() }));
        }
        let naming = stretch.naming();
        let limit = self.chunk_rows(&copy.table, &target);
        let (now, rest) = cut(&stretch);
        let statement = now.statement(&target, copy.filter.as_deref(), limit, self.facts.major());
        let mut ran = self.run(self.order(copy, &target, (statement, naming, only_moved))).await?;
        let full = ran.read >= limit;
        let last = ran.last.take();
        if let Some(width) = ran.text_bytes.max(ran.bytes).checked_div(ran.read) {
            let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
            known.widths.insert(copy.table.clone(), width + ROW_OVERHEAD);
        }
        self.again(copy, &target, (naming, only_moved), &mut ran).await?;
        let stays = match &ran.unfit {
            Some(line) => {
                self.relearn(&copy.table, &target, line).await?;
                true
            }
            None => !ran.changed || self.look_up(&copy.table).await?.is_some(),
        };
        if !stays {
            return Ok(ReadOutcome::Gone);
        }
        if ran.locked {
            debug!(source = %self.plan.source, table = %copy.table, "the table is locked; its copy waits");
            sleep(AGAIN_AT_MOST).await;
        }
        if ran.is_cut_short() {
            // What was sent of it is repeated; nobody is harmed.
            let rest = Some(range.clone());
            return Ok(ReadOutcome::Chunk(ChunkRead { rest, rows: 0, bytes: 0, tickets: ran.tickets }));
        }
        let rest = match (stretch, last) {
            (Stretch::Key { oid, key, to, .. }, Some(last)) if full => {
                Some(Stretch::Key { oid, key, after: Some(last), to }.range())
            }
            (Stretch::Key { .. }, _) => None,
            (Stretch::Blocks { .. } | Stretch::Moved { .. }, _) => rest.map(|rest| rest.range()),
        };
        Ok(ReadOutcome::Chunk(ChunkRead { rest, rows: ran.rows, bytes: ran.bytes, tickets: ran.tickets }))
    }

    /// Before anything is copied, begins to remember touched keys. What was streamed before that and is not visible yet is
    /// waited for: a chunk that does not see it would bring back what the stream has overtaken.
    async fn turn(&self, to: Activity) -> Result<(), Fault> {
        match to {
            // There nothing is copied.
            _ if self.facts.standby => return Ok(()),
            Activity::Copying => {}
            Activity::Paused => {
                self.close_idle();
                return self.watermark(Landing::Rest).await;
            }
            Activity::Over => {
                self.close_idle();
                let (ended, met) = oneshot::channel();
                self.watermark(Landing::End(ended)).await?;
                return met.await.map_err(|_| stopped());
            }
        }
        let (begun, answer) = oneshot::channel();
        self.watermark(Landing::Begin(begun)).await?;
        let (streamed, all) = answer.await.map_err(|_| stopped())?;
        let seen = self.seen().await?;
        let unseen = streamed.into_iter().filter(|&xid| seen.sees(xid) != Sees::Yes);
        let mut invisible: BTreeSet<u32> = unseen.collect();
        if !all {
            invisible.extend(seen.running());
        }
        let since = Instant::now();
        let mut told = false;
        while !invisible.is_empty() {
            if !all && since.elapsed() > MOMENT && !self.has_standbys().await? {
                break;
            }
            if !told && since.elapsed() > MOMENT {
                told = true;
                warn!(source = %self.plan.source, transactions = ?invisible, "the copy waits for transactions that may be in the log and not visible yet");
            }
            sleep(LOOK).await;
            let seen = self.seen().await?;
            invisible.retain(|&xid| seen.sees(xid) != Sees::Yes);
        }
        Ok(())
    }
}

impl PostgresSnapshot {
    /// Whether commits wait for a standby.
    async fn has_standbys(&self) -> Result<bool, Fault> {
        let failed = |error| fault::sql("asking for synchronous standbys", error);
        let query = "SELECT current_setting('synchronous_standby_names') <> ''";
        self.sql.query_one(query, &[]).await.map_err(failed)?.try_get(0).map_err(failed)
    }
}

/// A session of its own, so that nothing that waits there holds up anything else.
pub(super) async fn session_for(what: &str, server: &Server) -> Result<Sql, Fault> {
    server.sql().await.map_err(|error| fault::connect(format!("opening a session for {what}"), error))
}

/// The part of a stretch that is read now, and what is left of it. Stretches of keys are cut by what was read.
fn cut(stretch: &Stretch) -> (Stretch, Option<Stretch>) {
    let Stretch::Blocks { oid, node, from, to } = *stretch else { return (stretch.clone(), None) };
    let middle = from.saturating_add(CHUNK_BLOCKS).min(to);
    let rest = (middle < to).then_some(Stretch::Blocks { oid, node, from: middle, to });
    (Stretch::Blocks { oid, node, from, to: middle }, rest)
}

fn failed(table: &str, error: SessionError) -> Fault {
    let doing = format!("copying table `{table}`");
    match error {
        SessionError::Wire(error) => fault::wire(doing, error),
        SessionError::Row(error) => Fault::fatal(doing, Blame::Defect, error)
            .with_remedy("report this; until it is mended, `exclude` the table"),
        SessionError::Line(error) => {
            Fault::fatal(doing, Blame::Defect, error).with_remedy("report this with the server's version")
        }
    }
}

fn stopped() -> Fault {
    Fault::retryable("copying", "the pipeline was stopped meanwhile")
}
