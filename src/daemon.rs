//! From a configuration to running pipelines, and back to an exit code.
//!
//! Order of the start: build everything (no I/O), open the checkpoints (the lock on `data_dir`), bind the admin port,
//! reach every required destination within `startup.wait`, run the sources. Nothing is read before all that it must
//! go to was reachable once.

use std::collections::BTreeSet;
use std::error::Error;
use std::num::NonZeroU32;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use forebay_api::{Blame, Budget, Destination, Fault, Registry, Report, Source};
use tokio::net::TcpListener;
use tokio::task::JoinSet;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tracing::{error, info, warn};

use crate::admin::{self, DestinationStatus, SourceStatus, Status};
use crate::checkpoint::{CheckpointStore, FileStore, NothingStored};
use crate::config::{DestinationSettings, OwnKeys, Settings, SourceSettings};
use crate::dead_letters::{Courier, DeadLetters, Forwarder};
use crate::filter::Filter;
use crate::format::Format;
use crate::lane::{BatchLimits, LaneSettings, Retry};
use crate::ledger::DestinationSet;
use crate::pipeline::{LanePlan, Pipeline, PipelineReports};
use crate::schemas::SourceSchemas;
use crate::shutdown::Shutdown;
use crate::snapshot::SnapshotDesk;
use crate::state::{MemoryState, StateStore};
use crate::supervise;
use crate::telemetry::Telemetry;

/// How long an attempt may take where the configuration does not say.
const DEFAULT_TIMEOUT: Duration = Duration::from_secs(30);

/// How long opening one destination may take before it counts as failed.
const OPEN_TIMEOUT: Duration = Duration::from_secs(10);

/// How long a destination may take to close at the end; what it accepted is durable already.
const CLOSE_LIMIT: Duration = Duration::from_secs(10);

/// A required destination that is not there at the start is looked for this often.
const STARTUP_RETRY: Retry =
    Retry { initial: Duration::from_millis(200), max: Duration::from_secs(2), attempts: NonZeroU32::MAX };

/// A best-effort lane may hold this part of the memory budget, besides it.
const BEST_EFFORT_SHARE: usize = 4;

/// How a run ended without a fault.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Finished {
    /// Everything that was read is settled and stored.
    Drained,
    /// It was aborted with work left, which comes again at the next start.
    WorkLeft,
}

/// A daemon that is built and not yet running.
pub struct Daemon {
    pipelines: Vec<Pipeline>,
    destinations: Vec<Opened>,
    /// They hand dead letters on to other destinations.
    forwarders: Vec<Forwarder>,
    status: Arc<Status>,
    startup: Duration,
    /// Where the admin server listens; `None` in a dry run.
    admin: Option<std::net::SocketAddr>,
}

/// A destination and what opening it at the start needs.
struct Opened {
    name: Arc<str>,
    required: bool,
    destination: Arc<dyn Destination>,
    /// One for all its lanes, since they share a folder and a cap.
    dead_letters: Arc<DeadLetters>,
}

impl Daemon {
    /// Builds everything that `settings` say and opens the checkpoints. Reaches nothing over the network.
    pub fn build(settings: &Settings, registry: &Registry) -> Result<Daemon, Fault> {
        let store = Arc::new(FileStore::open(&settings.data_dir)?);
        let daemon = Daemon::assemble(settings, registry, (store.clone(), store), false)?;
        Ok(Daemon { admin: Some(settings.admin.listen), ..daemon })
    }

    /// Builds a daemon that writes the events of `settings`' sources to stdout and nothing else: it stores nothing,
    /// builds no destination that is configured, binds no port and leaves nothing on the sources' servers.
    pub fn rehearse(mut settings: Settings, registry: &Registry, format: Format) -> Result<Daemon, Fault> {
        const STDOUT: &str = "stdout";
        settings.destinations = vec![DestinationSettings {
            name: STDOUT.to_owned(),
            kind: STDOUT.to_owned(),
            own: OwnKeys(serde_json::json!({})),
            format,
            ..DestinationSettings::default()
        }];
        Daemon::assemble(
            &settings,
            registry,
            (Arc::new(NothingStored), Arc::new(MemoryState::default())),
            true,
        )
    }

    fn assemble(
        settings: &Settings,
        registry: &Registry,
        (store, state): (Arc<dyn CheckpointStore>, Arc<dyn StateStore>),
        dry_run: bool,
    ) -> Result<Daemon, Fault> {
        let telemetry = Arc::new(Telemetry::default());
        // Each source has a share of its own: one whose destination is down must not take the memory of the others.
        let budget_bytes = settings.limits.memory_budget().as_usize() / settings.sources.len().max(1);
        let mut budgets = Vec::new();
        let destinations = settings
            .destinations
            .iter()
            .map(|destination| {
                Ok(Opened {
                    name: destination.name.as_str().into(),
                    required: destination.required,
                    destination: build_destination(destination, settings, registry)?,
                    dead_letters: Arc::new(DeadLetters::new(
                        &settings.data_dir,
                        &destination.name,
                        destination.dead_letters.max_bytes.get(),
                        telemetry.dead_letters(&destination.name),
                    )),
                })
            })
            .collect::<Result<Vec<_>, Fault>>()?;
        let mut pipelines = Vec::new();
        let mut sources = Vec::new();
        for source in &settings.sources {
            let plans = plan_lanes(source, settings, &destinations, &telemetry, budget_bytes)?;
            let budget = Budget::new(budget_bytes);
            budgets.push(budget.clone());
            let reports = PipelineReports::default();
            let figures = telemetry.source(&source.name);
            let stored = Arc::default();
            let snapshots =
                Arc::new(SnapshotDesk::new(&source.name, state.clone(), telemetry.snapshot(&source.name)));
            let schemas = Arc::new(SourceSchemas::new(&source.name, state.clone()));
            sources.push(SourceStatus {
                name: source.name.clone(),
                kind: source.kind.clone(),
                reports: reports.clone(),
                figures: figures.clone(),
                stored: Arc::clone(&stored),
                snapshots: snapshots.clone(),
                schemas: schemas.clone(),
                destinations: plans.iter().map(|plan| status_of(plan, settings)).collect(),
            });
            pipelines.push(Pipeline {
                name: source.name.as_str().into(),
                source: Arc::new(tokio::sync::Mutex::new(build_source(source, registry, dry_run)?)),
                formats: formats_of(source, settings),
                lanes: plans,
                instance: (settings.name.clone(), settings.environment.clone()),
                store: store.clone(),
                snapshots,
                schemas,
                budget,
                drain: settings.shutdown.grace.as_duration(),
                figures,
                reports,
                stored,
                owed_counted: AtomicBool::new(false),
            });
        }
        let status = Arc::new(Status {
            name: settings.name.clone(),
            environment: settings.environment.clone(),
            started: Instant::now(),
            budgets,
            sources,
            dead_letters: destinations.iter().map(|opened| opened.dead_letters.clone()).collect(),
            telemetry,
            ready_max_lag: settings.admin.ready_max_lag.map(|lag| lag.as_duration()),
        });
        let startup = settings.startup.wait.as_duration();
        let forwarders = plan_forwarders(settings, &destinations);
        Ok(Daemon { pipelines, destinations, forwarders, status, startup, admin: None })
    }

    /// What `/status` shows, for a terminal that shows it too.
    pub fn status(&self) -> Arc<Status> {
        self.status.clone()
    }

    /// Runs until `shutdown` or a fatal fault. A fault drains all other pipelines first.
    pub async fn run(self, shutdown: Shutdown) -> Result<Finished, Fault> {
        let mut server = JoinSet::new();
        if let Some(address) = self.admin {
            let listener = bind(address).await?;
            server.spawn(admin::serve(listener, self.status.clone(), shutdown.abort.clone()));
        }
        self.run_pipelines(&shutdown).await
    }

    async fn run_pipelines(self, shutdown: &Shutdown) -> Result<Finished, Fault> {
        tokio::select! {
            reached = reach_all(&self.destinations, self.startup, &self.status) => reached?,
            () = shutdown.stop.cancelled() => return Ok(Finished::Drained),
        }
        let (mut forwarding, stop_forwarding) = (JoinSet::new(), CancellationToken::new());
        for forwarder in self.forwarders {
            forwarding.spawn(forwarder.run(stop_forwarding.clone()));
        }
        let mut running = JoinSet::new();
        for pipeline in self.pipelines {
            info!(source = %pipeline.name, destinations = pipeline.lanes.len(), "source starts");
            running.spawn(supervise::run(pipeline, self.startup, shutdown.clone()));
        }
        let notifier = tokio::spawn(admin::notify_service_manager(self.status.clone()));
        let mut result = Ok(Finished::Drained);
        while let Some(ended) = running.join_next().await {
            let fault = match ended {
                Ok(Ok(true)) => continue,
                Ok(Ok(false)) => {
                    result = result.map(|_| Finished::WorkLeft);
                    continue;
                }
                Ok(Err(fault)) => fault,
                Err(panic) => Fault::fatal("running a pipeline", Blame::Defect, panic),
            };
            if self.admin.is_none() && reader_has_gone(&fault) {
                info!("whoever read the events has gone");
                shutdown.stop.cancel();
                continue;
            }
            // The first one is returned, which is soon where no other source has to drain.
            if !running.is_empty() || result.is_err() {
                error!(error = %fault, remedy = fault.remedy(), "a source has ended by a fault; all others stop");
            }
            shutdown.stop.cancel();
            if result.is_ok() {
                result = Err(fault);
            }
        }
        notifier.abort();
        // What is not handed on yet is in the files, and goes at the next start.
        stop_forwarding.cancel();
        while let Some(ended) = forwarding.join_next().await {
            if let Err(panic) = ended {
                error!(error = %panic, "handing on dead letters has ended by a defect; they are in `data_dir`");
            }
        }
        for opened in &self.destinations {
            let closed = tokio::select! {
                closed = tokio::time::timeout(CLOSE_LIMIT, opened.destination.close()) => closed,
                () = shutdown.abort.cancelled() => break,
            };
            let why = match closed {
                Ok(Ok(())) => continue,
                Ok(Err(fault)) => fault.to_string(),
                Err(_) => format!("no answer within {CLOSE_LIMIT:?}"),
            };
            warn!(destination = %opened.name, error = why, "destination did not close in order");
        }
        result
    }
}

/// Builds the destination that an entry of the configuration names.
pub fn build_destination(
    destination: &DestinationSettings,
    settings: &Settings,
    registry: &Registry,
) -> Result<Arc<dyn Destination>, Fault> {
    let entry = registry.destinations().get(destination.kind.as_str());
    let entry = entry.ok_or_else(|| unknown("destination", &destination.kind))?;
    (entry.build)(destination.own.0.clone(), &destination.setting(settings))
        .map_err(|mistakes| mistaken(&destination.name, &mistakes))
}

/// Builds the source that an entry of the configuration names.
pub fn build_source(
    source: &SourceSettings,
    registry: &Registry,
    dry_run: bool,
) -> Result<Box<dyn Source>, Fault> {
    let entry =
        registry.sources().get(source.kind.as_str()).ok_or_else(|| unknown("source", &source.kind))?;
    (entry.build)(source.own.0.clone(), &source.setting(dry_run))
        .map_err(|mistakes| mistaken(&source.name, &mistakes))
}

/// The configuration was judged before, so these two are met only by a caller that did not.
fn unknown(what: &str, kind: &str) -> Fault {
    Fault::fatal(
        format!("building a {what}"),
        Blame::Configuration,
        format!("there is no {what} of type `{kind}`"),
    )
}

fn mistaken(name: &str, mistakes: &[forebay_api::Mistake]) -> Fault {
    let all: Vec<String> =
        mistakes.iter().map(|mistake| format!("{}: {}", mistake.at, mistake.message)).collect();
    Fault::fatal(format!("building `{name}`"), Blame::Configuration, all.join("; "))
}

fn wants(destination: &DestinationSettings, source: &SourceSettings) -> bool {
    destination.takes(&source.name)
}

/// The formats that some lane of this source writes, each once.
fn formats_of(source: &SourceSettings, settings: &Settings) -> Arc<[Format]> {
    let wanted = settings.destinations.iter().filter(|destination| wants(destination, source));
    wanted.map(|destination| destination.format).collect::<BTreeSet<_>>().into_iter().collect()
}

/// The lanes of one source, in the order of the configuration's destinations.
fn plan_lanes(
    source: &SourceSettings,
    settings: &Settings,
    destinations: &[Opened],
    telemetry: &Telemetry,
    budget_bytes: usize,
) -> Result<Vec<LanePlan>, Fault> {
    let formats = formats_of(source, settings);
    let wanted =
        settings.destinations.iter().zip(destinations).filter(|(destination, _)| wants(destination, source));
    let plans = wanted.enumerate().map(|(index, (destination, opened))| {
        let format = formats.iter().position(|format| *format == destination.format);
        let (batch, timeout, retry) = lane_limits(destination);
        Ok(LanePlan {
            settings: LaneSettings {
                source: source.name.as_str().into(),
                destination: opened.name.clone(),
                index,
                required: destination.required,
                format: format.expect("the formats were gathered from the same destinations"),
                batch,
                timeout,
                retry,
                on_poison: destination.on_poison,
            },
            destination: opened.destination.clone(),
            filter: filter_of(destination)?,
            dead_letters: opened.dead_letters.clone(),
            queue_bytes: budget_bytes / BEST_EFFORT_SHARE,
            figures: telemetry.lane(&source.name, &destination.name),
            report: Report::default(),
        })
    });
    let plans = plans.collect::<Result<Vec<_>, Fault>>()?;
    if plans.len() > DestinationSet::MAX {
        let error =
            format!("it has {} destinations; one source may have {}", plans.len(), DestinationSet::MAX);
        return Err(Fault::fatal(
            format!("building the pipeline of `{}`", source.name),
            Blame::Configuration,
            error,
        ));
    }
    if !plans.iter().any(|plan| plan.settings.required) {
        let error = "no destination that takes its events is required, so nothing would hold its checkpoint";
        return Err(Fault::fatal(
            format!("building the pipeline of `{}`", source.name),
            Blame::Configuration,
            error,
        )
        .with_remedy("let `where.source` of a required destination name it"));
    }
    Ok(plans)
}

/// How much goes into one attempt, how long it may take, and when it is made again.
pub(crate) fn lane_limits(destination: &DestinationSettings) -> (BatchLimits, Duration, Retry) {
    let batch = BatchLimits {
        records: destination.batch.records.get(),
        bytes: destination.batch.bytes.as_usize(),
        age: destination.batch.age.as_duration(),
    };
    let retry = Retry {
        initial: destination.retry.initial.as_duration(),
        max: destination.retry.max.as_duration(),
        attempts: destination.attempts().unwrap_or(NonZeroU32::MAX),
    };
    (batch, destination.timeout.map_or(DEFAULT_TIMEOUT, |timeout| timeout.as_duration()), retry)
}

/// One for each destination whose dead letters go to another.
fn plan_forwarders(settings: &Settings, destinations: &[Opened]) -> Vec<Forwarder> {
    let named = settings.destinations.iter().zip(destinations);
    let forwarder = |(from, opened): (&DestinationSettings, &Opened)| {
        let to = from.dead_letters.to.as_deref()?;
        let place = settings.destinations.iter().position(|destination| destination.name == to)?;
        let (batch, timeout, retry) = lane_limits(&settings.destinations[place]);
        let destination = destinations[place].destination.clone();
        Some(Forwarder {
            letters: opened.dead_letters.clone(),
            to: destinations[place].name.clone(),
            courier: Courier { destination, batch, timeout, retry },
            format: settings.destinations[place].format,
            instance: (settings.name.clone(), settings.environment.clone()),
        })
    };
    named.filter_map(forwarder).collect()
}

fn filter_of(destination: &DestinationSettings) -> Result<Filter, Fault> {
    let wanted = &destination.filter;
    let mut filter = Filter {
        accept: destination.accept,
        ops: wanted.op.clone().unwrap_or_default(),
        ..Filter::default()
    };
    let added = (|| {
        wanted.schema.iter().flatten().try_for_each(|pattern| filter.schema(pattern))?;
        wanted.table.iter().flatten().try_for_each(|pattern| filter.table(pattern))
    })();
    added.map_err(|error| {
        Fault::fatal(format!("reading `where` of `{}`", destination.name), Blame::Configuration, error)
    })?;
    Ok(filter)
}

fn status_of(plan: &LanePlan, settings: &Settings) -> DestinationStatus {
    let name = plan.settings.destination.to_string();
    let entry = settings.destinations.iter().find(|destination| destination.name == name);
    DestinationStatus {
        name,
        kind: entry.map(|entry| entry.kind.clone()).unwrap_or_default(),
        required: plan.settings.required,
        report: plan.report.clone(),
        figures: plan.figures.clone(),
    }
}

/// A dry run is for whoever reads its stdout: `| head` has seen enough.
fn reader_has_gone(fault: &Fault) -> bool {
    let cause = fault.source().and_then(|cause| cause.downcast_ref::<std::io::Error>());
    cause.is_some_and(|error| error.kind() == std::io::ErrorKind::BrokenPipe)
}

async fn bind(address: std::net::SocketAddr) -> Result<TcpListener, Fault> {
    TcpListener::bind(address).await.map_err(|error| {
        Fault::fatal(format!("listening on `{address}` for the admin server"), Blame::Outside, error)
            .with_remedy("set `admin.listen` to a free address, or stop what listens there")
    })
}

/// Opens every required destination, all at once, each retried until `within` is over. One that is not required never
/// keeps the daemon from starting: its lane opens it.
async fn reach_all(destinations: &[Opened], within: Duration, status: &Status) -> Result<(), Fault> {
    let required = destinations.iter().filter(|opened| opened.required);
    let reached = futures::future::try_join_all(required.map(|opened| reach(opened, within)));
    let mut reached = std::pin::pin!(reached);
    loop {
        match tokio::time::timeout(crate::lane::TURN, reached.as_mut()).await {
            Ok(result) => break result.map(drop),
            Err(_) => status.turned(),
        }
    }
}

async fn reach(opened: &Opened, within: Duration) -> Result<(), Fault> {
    let deadline = Instant::now() + within;
    let mut attempts = 0;
    loop {
        let opening = tokio::time::timeout(OPEN_TIMEOUT, opened.destination.open()).await;
        let fault = match opening {
            Ok(Ok(())) => return Ok(()),
            Ok(Err(fault)) => fault,
            Err(_) => Fault::retryable(
                format!("opening `{}`", opened.name),
                format!("no answer within {OPEN_TIMEOUT:?}"),
            ),
        };
        let wait = STARTUP_RETRY.wait(attempts + 1, None);
        if !fault.is_retryable() || Instant::now() + wait >= deadline {
            return Err(fault);
        }
        if attempts == 0 {
            warn!(destination = %opened.name, error = %fault, remedy = fault.remedy(), wait_s = within.as_secs(), "required destination is not reachable yet; waiting for it");
        }
        attempts += 1;
        tokio::time::sleep(wait).await;
    }
}
