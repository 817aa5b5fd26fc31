//! The PostgreSQL source: one replication slot, read without ever harming the database.
//!
//! ```text
//!  server ═▶ reader (an OS thread) ─chunks▶ outlet ═▶ …
//!    ▲ ▲                                               │ stored
//!    │ └── feedback (status updates) ◀── Committed ◀───┘
//!    └──── monitor (heartbeats, slot, shutdown)
//! ```
//! `prepare` makes publication and slot and fences the stored position; `transcribe` turns messages into rows with
//! marks; `reader` owns the thread; `monitor` runs beside it, and so does `snapshot`, which copies what was there. The
//! loop here waits for the first of them to end.

mod catalog;
mod check;
mod config;
mod fault;
#[cfg(any(test, feature = "fuzzing"))]
pub mod fuzzing;
mod init;
mod monitor;
mod position;
mod prepare;
mod publication;
mod reader;
mod relation;
mod snapshot;
mod transcribe;

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use async_trait::async_trait;
use forebay_api::{
    Blame, Chunk, Fault, Finding, Initial, Mistake, Position, SnapshotMode, Source, SourceConnector,
    SourceContext, SourceSetting,
};
use serde_json::Value;
use tokio::runtime::Handle;
use tokio::sync::mpsc;
use tokio::time::{MissedTickBehavior, interval, timeout};
use tokio_util::task::AbortOnDropHandle;
use tracing::{debug, info, warn};

use config::Plan;
pub use config::PostgresSourceConfig;
use monitor::Monitor;
use position::Resume;
use prepare::Prepared;
use reader::{Announced, Burst, End, Reader, Shared};
use relation::{Shape, Shapes};
use snapshot::PostgresSnapshot;
use snapshot::landing::Landings;
use snapshot::window::Window;
use transcribe::Transcriber;

use crate::lsn::Lsn;
use crate::wire::WriteHalf;

/// How often the loop says that the source turns.
const TURN: Duration = Duration::from_secs(2);

/// How long taking leave of the server may take.
const END_LIMIT: Duration = Duration::from_secs(5);

/// So many sends with schemas in them may wait to be durable; those beyond are said once more in the next run.
const SCHEMAS: usize = 1024;

/// A database whose changes are read by logical replication.
#[derive(Debug)]
pub struct PostgresSource {
    plan: Arc<Plan>,
}

#[async_trait]
impl SourceConnector for PostgresSource {
    const TYPE: &'static str = "postgres";
    const ABOUT: &'static str = "changes of a PostgreSQL database (13 to 18), by logical replication";
    type Config = PostgresSourceConfig;

    fn build(config: PostgresSourceConfig, setting: &SourceSetting) -> Result<Box<dyn Source>, Vec<Mistake>> {
        Ok(Box::new(PostgresSource { plan: Arc::new(Plan::new(config, setting)?) }))
    }

    async fn check(config: PostgresSourceConfig, setting: &SourceSetting) -> Vec<Finding> {
        match Plan::new(config, setting) {
            Ok(plan) => check::check(&plan).await,
            Err(mistakes) => mistakes
                .into_iter()
                .map(|m| Finding::bad(m.message, Blame::Configuration, m.help.unwrap_or_default()))
                .collect(),
        }
    }

    async fn init(url: Option<&str>) -> Result<Option<Initial>, Fault> {
        init::init(url).await
    }

    async fn schema(
        config: PostgresSourceConfig,
        setting: &SourceSetting,
        table: &str,
    ) -> Result<Value, Fault> {
        let plan = Plan::new(config, setting).map_err(|mistakes| {
            let all: Vec<String> = mistakes.into_iter().map(|mistake| mistake.message).collect();
            Fault::fatal("reading the source's configuration", Blame::Configuration, all.join("; "))
        })?;
        relation::of_table(&plan, table).await
    }

    fn position(text: &str, stored: Option<&Position>) -> Result<Position, String> {
        let whole = Position(bytes::Bytes::copy_from_slice(text.as_bytes()));
        if Resume::read(&whole).is_ok() {
            return Ok(whole);
        }
        let lsn: Lsn = text.parse().map_err(|error| {
            format!("{error}; or write a whole position as `forebay checkpoint show` prints it")
        })?;
        let stored = stored.ok_or(
            "nothing is stored yet, and an LSN alone does not say of which server and slot it is; write a whole \
             position as `forebay checkpoint show` prints it",
        )?;
        let stored = Resume::read(stored).map_err(|error| error.to_string())?;
        Ok(stored.at(stored.timeline, lsn).position())
    }
}

/// Cuts the connection when the run is dropped, so that the reader's thread ends with it.
struct CutOnDrop {
    writer: WriteHalf,
    shared: Arc<Shared>,
}

impl Drop for CutOnDrop {
    fn drop(&mut self) {
        self.shared.stop.store(true, Ordering::Relaxed);
        self.writer.abort();
    }
}

#[async_trait]
impl Source for PostgresSource {
    async fn run(&mut self, context: SourceContext) -> Result<(), Fault> {
        let report = context.report.clone();
        if self.is_finished(&context).await? {
            return Ok(());
        }
        let prepared = {
            let mut preparing = std::pin::pin!(prepare::prepare(&self.plan, &context));
            loop {
                tokio::select! {
                    prepared = preparing.as_mut() => break prepared?,
                    () = tokio::time::sleep(TURN) => report.turned(),
                    () = context.stop.cancelled() => return Ok(()),
                }
            }
        };
        report.set_connected(true);
        report.detail("slot", prepared.resume.slot.clone());
        info!(source = %self.plan.source, slot = %prepared.resume.slot, from = %prepared.from, epoch = format!("{:016x}", prepared.stream.epoch), "streaming");
        let (sql, leftovers) = (prepared.sql.clone(), prepared.leftovers.clone());
        let result = self.stream(prepared, context).await;
        report.set_connected(false);
        if !leftovers.is_empty() {
            prepare::clean_up(&sql, &leftovers).await;
        }
        result
    }
}

impl PostgresSource {
    /// Reads until stopped; then waits for what was sent to be stored, and confirms it.
    async fn stream(&self, prepared: Prepared, context: SourceContext) -> Result<(), Fault> {
        let SourceContext { outlet, committed, stop, report, snapshots, schemas, .. } = context;
        let landings = Arc::new(Landings::default());
        let (sql, publications) = (prepared.sql.clone(), prepared.publications.clone());
        let shapes = Arc::new(Shapes::new(self.plan.clone(), sql, publications, schemas));
        let messages = shapes.messages().await?;
        let copier =
            Arc::new(PostgresSnapshot::new(&self.plan, &prepared, landings.clone(), shapes.clone()).await?);
        let copying = copier.copy(snapshots, prepared.copy_plan(&self.plan)).await?;
        let mut copying = AbortOnDropHandle::new(tokio::spawn(copying));
        let mut copied = false;
        let (stream, resume) = (prepared.stream.clone(), prepared.resume.clone());
        let last_word = outlet.clone();
        let shared = Arc::new(Shared::default());
        let cut = CutOnDrop { writer: prepared.writer.clone(), shared: shared.clone() };
        let feedback = monitor::feedback(
            prepared.writer.clone(),
            committed.clone(),
            shared.clone(),
            prepared.from,
            prepared.facts.walsender_timeout_ms,
        );
        let mut feedback = AbortOnDropHandle::new(tokio::spawn(feedback));
        let watching = Monitor {
            plan: self.plan.clone(),
            server: prepared.server.clone(),
            sql: prepared.sql.clone(),
            facts: prepared.facts.clone(),
            slot: prepared.resume.slot.clone(),
            shared: shared.clone(),
            report: report.clone(),
        };
        let mut monitor = AbortOnDropHandle::new(tokio::spawn(watching.run()));
        let writer = prepared.writer.clone();
        let begun = prepared.from;
        let sql = prepared.sql.clone();
        let (announced, said) = mpsc::channel(SCHEMAS);
        let mut announcing = AbortOnDropHandle::new(tokio::spawn(announce(shapes.clone(), said)));
        let mut is_announced = false;
        let reader = self.reader(prepared, outlet, shared.clone(), (landings, shapes, messages), announced);
        let mut reading = tokio::task::spawn_blocking(move || reader.run());

        let mut turns = interval(TURN);
        turns.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut turned = 0;
        let ended = loop {
            tokio::select! {
                biased;
                ended = &mut reading => break ended,
                // Whatever the other two meet ends the stream; they end by themselves in no other way.
                fault = &mut feedback => { drop(cut); return Err(joined(fault)) }
                fault = &mut monitor => { drop(cut); return Err(joined(fault)) }
                ended = &mut announcing, if !is_announced => {
                    is_announced = true;
                    if let Err(fault) = unwound(ended) { drop(cut); return Err(fault) }
                }
                ended = &mut copying, if !copied => match ended {
                    // What it was doing ends with the stream.
                    Ok(Err(_)) if shared.stop.load(Ordering::Relaxed) => copied = true,
                    Ok(Err(fault)) => { drop(cut); return Err(fault) }
                    Ok(Ok(())) => {
                        copied = true;
                        shared.stop.store(true, Ordering::Relaxed);
                        wake(&writer, &shared, &committed, begun, &self.plan.source);
                    }
                    Err(panic) => std::panic::resume_unwind(panic.into_panic()),
                },
                () = stop.cancelled(), if !shared.stop.load(Ordering::Relaxed) => {
                    shared.stop.store(true, Ordering::Relaxed);
                    wake(&writer, &shared, &committed, begun, &self.plan.source);
                }
                _ = turns.tick() => {
                    let now = shared.turns.load(Ordering::Relaxed);
                    if now != turned || shared.sending.load(Ordering::Relaxed) {
                        report.turned();
                    }
                    turned = now;
                }
            }
        };
        let end = match ended {
            Ok(end) => end?,
            Err(panic) => std::panic::resume_unwind(panic.into_panic()),
        };
        match end {
            End::Stopped => {}
            // The server ends the stream only when it shuts down.
            End::ServerDone | End::ServerWaits => return Err(fault::going_down()),
        }
        let finished = copied && !stop.is_cancelled();
        if finished {
            let lsn = monitor::latest(&committed).unwrap_or(begun).max(begun);
            let last = resume.finished(lsn);
            // A pipeline that takes nothing more is being aborted; the copy is found complete at the next start.
            last_word.send(Chunk::empty(stream, now_micros()), Some(last.position())).await.ok();
        }
        drop(last_word);
        // The reader has dropped the outlet, so the pipeline drains; what becomes stored is confirmed until it is done.
        let mut stored = committed.clone();
        let drained = async { while stored.changed().await.is_ok() {} };
        let mut drained = std::pin::pin!(drained);
        loop {
            tokio::select! {
                () = drained.as_mut() => break,
                ended = &mut announcing, if !is_announced => {
                    is_announced = true;
                    if let Err(fault) = unwound(ended) { drop(cut); return Err(fault) }
                }
                fault = &mut feedback => { drop(cut); return Err(joined(fault)) }
                _ = turns.tick() => report.turned(),
            }
        }
        let confirmed = monitor::latest(&committed).unwrap_or(begun).max(begun);
        self.take_leave(&writer, &shared, confirmed).await;
        drop(cut);
        let stored = committed.latest().and_then(|position| Resume::read(&position).ok());
        if finished && stored.is_some_and(|stored| stored.finished) {
            info!(source = %self.plan.source, "everything is copied and delivered; nothing is left to do");
            prepare::take_away(&sql, &self.plan).await?;
        }
        Ok(())
    }

    /// Whether everything was copied before, and nothing more is wanted.
    async fn is_finished(&self, context: &SourceContext) -> Result<bool, Fault> {
        let stored = context.resume.as_ref().and_then(|position| Resume::read(position).ok());
        let finished = stored.is_some_and(|stored| stored.finished);
        if !finished || self.plan.config.snapshot != SnapshotMode::Only {
            return Ok(false);
        }
        context.report.set_connected(true);
        info!(source = %self.plan.source, "everything was copied already, so there is nothing to do; `forebay checkpoint reset {}` copies it again", self.plan.source);
        let doing = "looking for what the copy left on the server";
        let sql =
            prepare::server(&self.plan, "")?.sql().await.map_err(|error| fault::connect(doing, error))?;
        prepare::take_away(&sql, &self.plan).await?;
        Ok(true)
    }

    fn reader(
        &self,
        prepared: Prepared,
        outlet: forebay_api::Outlet,
        shared: Arc<Shared>,
        (landings, shapes, messages): (Arc<Landings>, Arc<Shapes>, Shape),
        announced: mpsc::Sender<Announced>,
    ) -> Reader {
        let timeline = prepared.resume.timeline;
        Reader {
            half: prepared.reader,
            transcriber: Transcriber::new(
                &prepared.stream,
                prepared.timelines,
                (self.plan.messages.clone(), messages),
                Window::new(!prepared.fresh, &prepared.resume.moved),
            ),
            outlet,
            stream: prepared.stream,
            resume: prepared.resume,
            shapes,
            shared,
            runtime: Handle::current(),
            sent: prepared.from,
            timeline,
            burst: Burst::default(),
            waited: false,
            taken: 0,
            landings,
            announced,
        }
    }

    /// Confirms what is stored and ends the stream, so that the next start finds an idle slot. What cannot be said any
    /// more is not needed: the checkpoint is what counts.
    async fn take_leave(&self, writer: &WriteHalf, shared: &Shared, confirmed: Lsn) {
        let leaving = async {
            monitor::send_status(writer, shared, confirmed, false)?;
            writer.done()?;
            writer.terminate()
        };
        match timeout(END_LIMIT, leaving).await {
            Ok(Ok(())) => info!(source = %self.plan.source, confirmed = %confirmed, "stream ended"),
            Ok(Err(error)) => {
                warn!(source = %self.plan.source, error = %error, "the stream could not be ended in order")
            }
            Err(_) => {
                warn!(source = %self.plan.source, "the stream could not be ended in order: no room to write")
            }
        }
    }
}

/// Wakes a reader that waits for the server, by an answer of it. A request that cannot be sent means that the connection
/// is gone, which wakes it too.
fn wake(writer: &WriteHalf, shared: &Shared, committed: &forebay_api::Committed, begun: Lsn, source: &str) {
    let confirmed = monitor::latest(committed).unwrap_or(begun).max(begun);
    if let Err(error) = monitor::send_status(writer, shared, confirmed, true) {
        debug!(source, error = %error, "no status update while stopping");
    }
}

/// Remembers schemas as announced when they are durable, until nothing more is sent.
async fn announce(shapes: Arc<Shapes>, mut said: mpsc::Receiver<Announced>) -> Result<(), Fault> {
    while let Some((fresh, ticket)) = said.recv().await {
        // One that is closed says nothing: the pipeline was aborted, and they are said once more in the next run.
        if ticket.await.is_ok() {
            for shape in fresh {
                shapes.announced(&shape).await?;
            }
        }
    }
    Ok(())
}

/// What a task came to; its panic is ours.
fn unwound<T>(ended: Result<T, tokio::task::JoinError>) -> T {
    ended.unwrap_or_else(|error| std::panic::resume_unwind(error.into_panic()))
}

/// What a task beside the reader ended with; its panic is ours.
fn joined(fault: Result<Fault, tokio::task::JoinError>) -> Fault {
    unwound(fault)
}

/// Microseconds since the Unix epoch.
fn now_micros() -> i64 {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_micros()).unwrap_or(i64::MAX)
}
