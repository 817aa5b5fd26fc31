//! Wires one source to its lanes, for one generation, and owns every task of it.
//!
//! ```text
//!  source ─Outlet▶ stage ─queue▶ lane ─▶ destination
//!     ▲                           │settle
//!     └─Committed─ checkpoint ◀─ ledger
//! ```
//! Channels close from the left: the source returns, its outlets are dropped, the stage ends, the lanes' queues close,
//! the lanes end, the checkpoint task saves what became settled and ends. A generation that does not drain within its
//! bound is aborted; nothing it holds crosses into the next one.

use std::collections::{BTreeMap, HashMap, HashSet, VecDeque};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use forebay_api::{
    Blame, Budget, Committed, Destination, Fault, Outlet, Position, Report, Source, SourceContext, outlet,
    step,
};
use tokio::sync::{Notify, mpsc, watch};
use tokio::task::JoinSet;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use crate::checkpoint::{Checkpoint, CheckpointStore, SaveError};
use crate::config::OnPoison;
use crate::dead_letters::DeadLetters;
use crate::filter::Filter;
use crate::format::{Encoder, Format};
use crate::lane::{Joiner, Lane, LaneSettings, TURN};
use crate::ledger::Ledger;
use crate::privacy::Privacy;
use crate::schemas::SourceSchemas;
use crate::shutdown::Shutdown;
use crate::snapshot::SnapshotDesk;
use crate::stage::{Stage, Way};
use crate::telemetry::{LaneFigures, SourceFigures};
use crate::validation::Judge;

/// Saves are this far apart at least: a save costs an fsync and a slot that is confirmed 20 times a second is
/// confirmed often enough.
const SAVE_EVERY: Duration = Duration::from_millis(50);

/// What stays the same from generation to generation.
pub struct Pipeline {
    /// The source's name, or `source/destination` behind a journal; the key of its checkpoint.
    pub name: Arc<str>,
    /// The source; locked by the one generation that runs.
    pub source: Arc<tokio::sync::Mutex<Box<dyn Source>>>,
    /// Its lanes, in the order of their indices.
    pub lanes: Vec<LanePlan>,
    /// The formats that some lane writes.
    pub formats: Arc<[Format]>,
    /// `name` and `environment` of the configuration.
    pub instance: (String, String),
    /// Where positions are stored.
    pub store: Arc<dyn CheckpointStore>,
    /// What is copied, and how far it is.
    pub snapshots: Arc<SnapshotDesk>,
    /// The schemas that the source has generated.
    pub schemas: Arc<SourceSchemas>,
    /// What is taken out of its events.
    pub privacy: Arc<Privacy>,
    /// Judges its events.
    pub judge: Judge,
    /// Its share of the memory for events.
    pub budget: Budget,
    /// What makes streams of its own of what it carries, for a replay.
    pub restream: Option<u64>,
    /// Whether a fault that is fatal ends this pipeline alone, which is tried again later: behind a journal.
    pub isolated: bool,
    /// How long a generation may drain.
    pub drain: Duration,
    /// What it counts.
    pub figures: SourceFigures,
    /// The pulses of its own loops and of the source.
    pub reports: PipelineReports,
    /// What is stored, for `/status`.
    pub stored: Arc<Mutex<Option<StoredAt>>>,
    /// Whether the losses of the process before were counted.
    pub owed_counted: AtomicBool,
}

/// What a lane needs in every generation.
pub struct LanePlan {
    /// What the configuration says.
    pub settings: LaneSettings,
    /// The destination, shared with other pipelines.
    pub destination: Arc<dyn Destination>,
    /// What it wants.
    pub filter: Filter,
    /// Where refused records go.
    pub dead_letters: Arc<DeadLetters>,
    /// The memory of a best-effort lane; a required one has the pipeline's.
    pub courtesy: Budget,
    /// What it counts.
    pub figures: LaneFigures,
    /// Its pulse.
    pub report: Report,
}

/// The pulses of one pipeline's loops.
#[derive(Clone, Debug, Default)]
pub struct PipelineReports {
    /// The source's own loop.
    pub source: Report,
    /// The stage.
    pub stage: Report,
    /// The checkpoint task.
    pub checkpoint: Report,
}

/// What is stored and since when.
#[derive(Clone, Debug)]
pub struct StoredAt {
    /// The position.
    pub position: Position,
    /// When it was stored; `None` when it was found at the start.
    pub at: Option<Instant>,
}

/// How a generation ended.
#[derive(Debug)]
pub struct Ended {
    /// What ended it: the source had nothing left or was stopped, or a fault.
    pub result: Result<(), Fault>,
    /// Whether everything that the source sent is settled.
    pub drained: bool,
}

enum Task {
    Source(Result<(), Fault>),
    Stage(Result<(), Fault>),
    Lane(Result<(), Fault>),
    Checkpoint(Result<(), Fault>),
}

/// One generation's shared parts.
struct Generation {
    ledger: Arc<Mutex<Ledger>>,
    settled: Arc<Notify>,
    /// Stops the source.
    stop: CancellationToken,
    /// Fired by the source: nothing that it has sent may be delivered any more.
    abort: CancellationToken,
    /// Fires when all lanes have ended, so that the checkpoint task saves once more and ends.
    lanes_done: CancellationToken,
    tasks: JoinSet<Task>,
    lanes_left: usize,
}

impl Pipeline {
    /// Runs one generation: from the stored position until the source ends, and drains it.
    pub async fn generation(&self, shutdown: &Shutdown) -> Ended {
        let resume = match self.take_up().await {
            Ok(resume) => resume,
            Err(fault) => return Ended { result: Err(fault), drained: true },
        };
        *self.stored.lock().unwrap_or_else(PoisonError::into_inner) =
            resume.clone().map(|position| StoredAt { position, at: None });
        let shared = self.source.lock().await.is_shared();
        let mut generation = self.begin(resume, shared, shutdown);
        let result = self.supervise(&mut generation, shutdown).await;
        generation.tasks.shutdown().await;
        let drained = self.close(&generation);
        Ended { result, drained }
    }

    /// Where to resume. What best-effort destinations had not taken when the position was stored does not come again,
    /// because the position covers it: it is counted as dropped, once a process, and taken out of the checkpoint.
    async fn take_up(&self) -> Result<Option<Position>, Fault> {
        let Some(checkpoint) = self.store.load(&self.name).await? else {
            self.snapshots.first_start().await?;
            return Ok(None);
        };
        if checkpoint.owed.is_empty() {
            self.owed_counted.store(true, Ordering::Relaxed);
            return Ok(Some(checkpoint.position));
        }
        if !self.owed_counted.swap(true, Ordering::Relaxed) {
            for plan in &self.lanes {
                let Some(&records) = checkpoint.owed.get(&*plan.settings.destination) else { continue };
                warn!(source = %self.name, destination = %plan.settings.destination, records, "records dropped: a best-effort destination had not taken them when the daemon last ended");
                plan.figures.dropped.inc_by(records);
            }
        }
        let settled = Checkpoint { position: checkpoint.position, owed: BTreeMap::new() };
        self.store
            .save(&self.name, &settled)
            .await
            .map_err(|error| Fault::retryable(format!("storing the checkpoint of `{}`", self.name), error))?;
        Ok(Some(settled.position))
    }

    /// Spawns every task, from the right to the left.
    fn begin(&self, resume: Option<Position>, shared: bool, shutdown: &Shutdown) -> Generation {
        let mut generation = Generation {
            ledger: Arc::default(),
            settled: Arc::default(),
            stop: shutdown.stop.child_token(),
            abort: CancellationToken::new(),
            lanes_done: CancellationToken::new(),
            tasks: JoinSet::new(),
            lanes_left: self.lanes.len(),
        };
        let (published, committed) = watch::channel(resume.clone());
        generation.tasks.spawn(self.checkpoint_task(&generation, published));
        let ways = self.lanes.iter().map(|plan| self.spawn_lane(plan, shared, &mut generation)).collect();
        let (outlet, inlet) = Outlet::new(self.budget.clone(), generation.stop.clone());
        let stage = Stage {
            inlet,
            encoder: Encoder::new(&self.instance.0, &self.instance.1),
            formats: self.formats.clone(),
            ways,
            ledger: generation.ledger.clone(),
            settled: generation.settled.clone(),
            figures: self.figures.clone(),
            privacy: self.privacy.clone(),
            judge: self.judge.clone(),
            report: self.reports.stage.clone(),
            every_row: Arc::new([]),
            newest: HashMap::new(),
            restream: self.restream,
        };
        generation.tasks.spawn(async move { Task::Stage(stage.run().await) });
        let context = SourceContext {
            resume,
            outlet,
            committed: Committed::new(committed),
            stop: generation.stop.clone(),
            abort: generation.abort.clone(),
            report: self.reports.source.clone(),
            snapshots: self.snapshots.clone(),
            schemas: self.schemas.clone(),
        };
        let source = self.source.clone();
        generation.tasks.spawn(async move { Task::Source(source.lock().await.run(context).await) });
        generation
    }

    fn spawn_lane(&self, plan: &LanePlan, shared: bool, generation: &mut Generation) -> Way {
        // Each queued send holds at least `MIN_WEIGHT` of its budget, so this bound is never what a lane waits for.
        let budget = if plan.settings.required { &self.budget } else { &plan.courtesy }.limit();
        let (queue, receiver) = mpsc::channel((budget / outlet::MIN_WEIGHT).max(1));
        let joiner = Joiner::new(receiver, plan.settings.batch, plan.settings.format);
        let in_order = plan.settings.on_poison == OnPoison::BlockKey;
        let lane = Lane {
            settings: plan.settings.clone(),
            destination: plan.destination.clone(),
            joiner: if in_order { joiner.with_keys_apart() } else { joiner },
            ledger: generation.ledger.clone(),
            settled: generation.settled.clone(),
            dead_letters: plan.dead_letters.clone(),
            figures: plan.figures.clone(),
            report: plan.report.clone(),
            draining: generation.stop.clone(),
            under_way: VecDeque::new(),
            shared,
            taken_over: HashSet::new(),
            told_unreachable: false,
            buried: 0,
        };
        generation.tasks.spawn(async move { Task::Lane(lane.run().await) });
        Way {
            index: plan.settings.index,
            filter: plan.filter.clone(),
            queue,
            best_effort: (!plan.settings.required).then(|| plan.courtesy.clone()),
            format: plan.settings.format,
            figures: plan.figures.clone(),
        }
    }

    /// Waits for every task in turn; the first fault is what the generation ends with.
    async fn supervise(&self, generation: &mut Generation, shutdown: &Shutdown) -> Result<(), Fault> {
        let mut result = Ok(());
        let mut deadline: Option<Instant> = None;
        loop {
            let overdue = async {
                match deadline {
                    Some(at) => tokio::time::sleep_until(at).await,
                    None => std::future::pending().await,
                }
            };
            let ended = tokio::select! {
                ended = generation.tasks.join_next() => ended,
                () = shutdown.abort.cancelled() => return result,
                () = overdue => {
                    warn!(source = %self.name, "what was read did not drain in time; it is read again");
                    return result;
                }
                // A source that has nothing left drains for as long as it takes; one that was stopped does not.
                () = shutdown.stop.cancelled(), if deadline.is_none() => {
                    deadline = Some(Instant::now() + self.drain);
                    continue;
                }
            };
            let Some(ended) = ended else { return result };
            let fault = match ended {
                Ok(Task::Source(Err(fault))) if generation.abort.is_cancelled() => return Err(fault),
                Ok(Task::Source(ended)) => {
                    generation.stop.cancel();
                    ended.err()
                }
                Ok(Task::Lane(ended)) => {
                    generation.lanes_left -= 1;
                    ended.err()
                }
                Ok(Task::Stage(ended) | Task::Checkpoint(ended)) => ended.err(),
                // What a task that panicked held is in no known state, so nothing is drained.
                Err(panic) => {
                    let doing = format!("running the pipeline of `{}`", self.name);
                    return Err(Fault::fatal(doing, Blame::Defect, panic));
                }
            };
            if generation.lanes_left == 0 {
                generation.lanes_done.cancel();
            }
            let Some(fault) = fault else { continue };
            generation.stop.cancel();
            deadline.get_or_insert_with(|| Instant::now() + self.drain);
            // A fatal fault outweighs a retryable one that was met before it.
            if result.is_ok() || !fault.is_retryable() {
                result = Err(fault);
            }
        }
    }

    /// Counts what the generation leaves unsettled; whether it left nothing.
    fn close(&self, generation: &Generation) -> bool {
        let ledger = generation.ledger.lock().unwrap_or_else(PoisonError::into_inner);
        let owed = ledger.owed();
        for plan in &self.lanes {
            let left = u64::try_from(plan.figures.queue_records.get()).unwrap_or(0);
            let lost = owed.get(&plan.settings.index).copied().unwrap_or(0).min(left);
            plan.figures.dropped.inc_by(lost);
            plan.figures.returned.inc_by(left - lost);
            plan.figures.queue_records.set(0);
            plan.figures.queue_bytes.set(0);
            if lost > 0 {
                warn!(source = %self.name, destination = %plan.settings.destination, records = lost, "records dropped: a best-effort destination had not taken them when the generation ended");
            }
        }
        ledger.is_empty()
    }

    /// Saves positions as they become settled, one save at a time, the latest wins; publishes only what is saved.
    fn checkpoint_task(
        &self,
        generation: &Generation,
        published: watch::Sender<Option<Position>>,
    ) -> impl Future<Output = Task> + use<> {
        let keeper = Keeper {
            name: self.name.clone(),
            destinations: self.lanes.iter().map(|plan| plan.settings.destination.to_string()).collect(),
            store: self.store.clone(),
            ledger: generation.ledger.clone(),
            settled: generation.settled.clone(),
            lanes_done: generation.lanes_done.clone(),
            published,
            report: self.reports.checkpoint.clone(),
            figures: self.figures.clone(),
            stored: self.stored.clone(),
        };
        async move { Task::Checkpoint(keeper.run().await) }
    }
}

/// The checkpoint task of one generation.
struct Keeper {
    name: Arc<str>,
    destinations: Vec<String>,
    store: Arc<dyn CheckpointStore>,
    ledger: Arc<Mutex<Ledger>>,
    settled: Arc<Notify>,
    lanes_done: CancellationToken,
    published: watch::Sender<Option<Position>>,
    report: Report,
    figures: SourceFigures,
    stored: Arc<Mutex<Option<StoredAt>>>,
}

impl Keeper {
    async fn run(self) -> Result<(), Fault> {
        let mut owed_before = BTreeMap::new();
        self.report.set_connected(true);
        loop {
            tokio::select! {
                biased;
                () = self.settled.notified() => {}
                () = self.lanes_done.cancelled() => {}
                () = tokio::time::sleep(TURN) => {}
            }
            self.report.turned();
            let last = self.lanes_done.is_cancelled();
            let (position, owed) = {
                let mut ledger = self.ledger.lock().unwrap_or_else(PoisonError::into_inner);
                (ledger.advance(), ledger.owed())
            };
            let owed: BTreeMap<String, u64> = owed
                .into_iter()
                .map(|(index, records)| (self.destinations[index].clone(), records))
                .collect();
            // At the end what best-effort lanes delivered late is written down too, without a new position.
            let position = position.or_else(|| {
                let latest = || self.published.borrow().clone();
                (last && owed != owed_before).then(latest).flatten()
            });
            if let Some(position) = position {
                owed_before = owed.clone();
                self.save(Checkpoint { position, owed }).await?;
            }
            if last {
                return Ok(());
            }
            tokio::select! {
                () = tokio::time::sleep(SAVE_EVERY) => {}
                () = self.lanes_done.cancelled() => {}
            }
        }
    }

    /// Stores until it works; a position is published only then.
    async fn save(&self, checkpoint: Checkpoint) -> Result<(), Fault> {
        let mut failed = false;
        loop {
            match self.store.save(&self.name, &checkpoint).await {
                Ok(()) => break,
                Err(error @ SaveError::Fenced { .. }) => {
                    return Err(Fault::fatal(
                        format!("storing the checkpoint of `{}`", self.name),
                        Blame::Outside,
                        error,
                    )
                    .with_remedy("make sure that only one daemon uses this `data_dir`"));
                }
                Err(error @ SaveError::NotText) => {
                    return Err(Fault::fatal(
                        format!("storing the checkpoint of `{}`", self.name),
                        Blame::Defect,
                        error,
                    ));
                }
                Err(error @ SaveError::Io(_)) => {
                    if !failed {
                        let fault = Fault::retryable("storing the checkpoint", error);
                        warn!(source = %self.name, error = %fault, "the checkpoint cannot be stored; nothing is confirmed until it can");
                    }
                    failed = true;
                    self.report.set_connected(false);
                    self.report.turned();
                    tokio::time::sleep(TURN).await;
                }
            }
        }
        if failed {
            info!(source = %self.name, "the checkpoint is stored again");
        }
        self.report.set_connected(true);
        self.figures.saves.inc();
        *self.stored.lock().unwrap_or_else(PoisonError::into_inner) =
            Some(StoredAt { position: checkpoint.position.clone(), at: Some(Instant::now()) });
        self.published.send_replace(Some(checkpoint.position));
        step!("published");
        Ok(())
    }
}

#[cfg(test)]
mod tests;
