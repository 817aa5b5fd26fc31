//! From a configuration to running pipelines, and back to an exit code.
//!
//! ```text
//!  settings ─plan▶ which pipelines ─parts▶ built ─crew▶ running
//!     ▲                                              │
//!     └──────── reload: what changed is restarted ◀──┘ orders
//! ```
//! Order of the start: build everything (no I/O), open the checkpoints (the lock on `data_dir`), bind the admin port,
//! reach every destination that holds a source's checkpoint within `startup.wait`, run the sources. Nothing is read
//! before all that it must go to was reachable once.

mod crew;
pub mod order;
mod parts;
mod plan;
mod reload;
mod replay;
mod start;

use std::error::Error;
use std::sync::Arc;
use std::time::Duration;

use forebay_api::{Blame, Destination, Fault, Registry};
use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use tracing::{error, info, warn};

use crate::admin::{self, JournalDesk, PipelineStatus, SourceStatus, Status};
use crate::checkpoint::{CheckpointStore, FileStore, NothingStored};
use crate::config::{
    Beginning, ConfigError, DestinationSettings, JournalChoice, OwnKeys, Settings, SourceSettings,
};
use crate::dead_letters::Forwarder;
use crate::format::Format;
use crate::shutdown::Shutdown;
use crate::snapshot::Refusal;
use crate::state::{MemoryState, StateStore};
use crew::{Crew, Ended};
use order::{Given, Order, Orders};
use parts::{Built, Parts};
pub(crate) use parts::{build_destination, lane_limits};
pub use plan::JOURNAL;
use plan::PipelinePlan;
pub(crate) use replay::REPLAYED;
use replay::Replay;
pub use replay::Wanted;

/// How long a destination may take to close at the end; what it accepted is durable already.
const CLOSE_LIMIT: Duration = Duration::from_secs(10);

/// How often it is looked whether a journal whose source has ended is read to its end.
const LOOK_EVERY: Duration = Duration::from_millis(200);

/// Reads the configuration anew.
pub type Reread = Box<dyn Fn() -> Result<Settings, ConfigError> + Send + Sync>;

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
    settings: Settings,
    parts: Parts,
    built: Vec<(PipelinePlan, Built)>,
    /// They hand dead letters on to other destinations.
    forwarders: Vec<Forwarder>,
    status: Arc<Status>,
    orders: mpsc::Receiver<Given>,
    /// Where the configuration comes from; `None` where it cannot change.
    reread: Option<Reread>,
    /// Where the admin server listens; `None` in a dry run.
    admin: Option<std::net::SocketAddr>,
}

impl Daemon {
    /// Builds everything that `settings` say and opens the checkpoints. Reaches nothing over the network.
    pub fn build(settings: Settings, registry: Registry, reread: Option<Reread>) -> Result<Daemon, Fault> {
        let store = Arc::new(FileStore::open(&settings.data_dir)?);
        let parts = Parts::new(Arc::new(registry), (store.clone(), store), &settings, false)?;
        nothing_left_behind(&settings, &parts)?;
        put_away(&settings, &parts)?;
        let admin = Some(settings.admin.listen);
        let daemon = Daemon::assemble(settings, parts)?;
        Ok(Daemon { admin, reread, ..daemon })
    }

    /// Builds a daemon that writes the events of `settings`' sources to stdout and nothing else: it stores nothing,
    /// builds no destination that is configured, binds no port and leaves nothing on the sources' servers.
    pub fn rehearse(mut settings: Settings, registry: Registry, format: Format) -> Result<Daemon, Fault> {
        const STDOUT: &str = "stdout";
        let stores: (Arc<dyn CheckpointStore>, Arc<dyn StateStore>) =
            (Arc::new(NothingStored), Arc::new(MemoryState::default()));
        // A destination may keep the schemas, so this comes before they go.
        let parts = Parts::new(Arc::new(registry), stores, &settings, true)?;
        settings.destinations = vec![DestinationSettings {
            name: STDOUT.to_owned(),
            kind: STDOUT.to_owned(),
            own: OwnKeys(serde_json::json!({})),
            format,
            ..DestinationSettings::default()
        }];
        settings.journal = JournalChoice(None);
        settings.sources.iter_mut().for_each(|source| source.journal = None);
        Daemon::assemble(settings, parts)
    }

    fn assemble(settings: Settings, mut parts: Parts) -> Result<Daemon, Fault> {
        let (sender, orders) = Orders::new();
        let built = plan::pipelines(&settings)
            .into_iter()
            .map(|plan| parts.build(&plan, &settings).map(|built| (plan, built)))
            .collect::<Result<Vec<_>, Fault>>()?;
        let forwarders = parts.forwarders(&settings)?;
        let status = Status::new(&settings, parts.telemetry.clone(), sender);
        let status = Arc::new(status.with_registry(parts.validation.clone()));
        let seen: Vec<&PipelineStatus> = built.iter().map(|(_, built)| &built.status).collect();
        parts::share_out(settings.limits.events_budget().as_usize(), &seen);
        status.show(sources(&settings, &mut parts, &seen), parts.dead_letters());
        Ok(Daemon { settings, parts, built, forwarders, status, orders, reread: None, admin: None })
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
        let (keys, all) = self.settings.validation.warm_up.wanted();
        let (validation, stop) = (self.parts.validation.clone(), shutdown.abort.clone());
        server.spawn(async move { validation.maintain(keys, all, stop).await });
        let startup = self.settings.startup.wait.as_duration();
        let mut required = start::required(self.built.iter().map(|(_, built)| built));
        let asked =
            |name: &str| self.settings.destinations.iter().any(|one| one.required && one.name == name);
        let stores = self.forwarders.iter().filter(|forwarder| asked(&forwarder.to));
        required.extend(stores.map(|store| (store.to.clone(), store.courier.destination.clone())));
        tokio::select! {
            reached = start::reach_all(&required, startup, &self.status) => reached?,
            () = shutdown.stop.cancelled() => return Ok(Finished::Drained),
        }
        let mut running = Running {
            settings: self.settings,
            parts: self.parts,
            crew: Crew::default(),
            status: self.status,
            reread: self.reread,
            dry_run: self.admin.is_none(),
            shutdown,
            replays: Vec::new(),
            forwarding: JoinSet::new(),
            stop_forwarding: CancellationToken::new(),
            result: Ok(Finished::Drained),
        };
        running.forward(self.forwarders).await;
        for (plan, built) in self.built {
            running.crew.start(plan, built, Some(startup), &running.shutdown);
        }
        running.run(self.orders).await
    }
}

/// A daemon that runs.
struct Running {
    settings: Settings,
    parts: Parts,
    crew: Crew,
    status: Arc<Status>,
    reread: Option<Reread>,
    dry_run: bool,
    shutdown: Shutdown,
    /// Those that are not done.
    replays: Vec<Replay>,
    /// Those who hand dead letters on.
    forwarding: JoinSet<()>,
    stop_forwarding: CancellationToken,
    /// What it will end with.
    result: Result<Finished, Fault>,
}

impl Running {
    async fn run(mut self, mut orders: mpsc::Receiver<Given>) -> Result<Finished, Fault> {
        self.resume_replays().await?;
        let notifier = tokio::spawn(admin::notify_service_manager(self.status.clone()));
        let mut hangup = signal(SignalKind::hangup())
            .map_err(|error| Fault::fatal("listening for SIGHUP", Blame::Defect, error))?;
        let mut look = tokio::time::interval(LOOK_EVERY);
        loop {
            tokio::select! {
                ended = self.crew.next() => match ended {
                    Some((plan, ended)) => self.conclude(plan, ended).await,
                    None => break,
                },
                Some(given) = orders.recv() => {
                    let done = self.obey(given.order).await;
                    // Whoever asked may have gone; what was done is in the log too.
                    given.answer.send(done).ok();
                }
                Some(()) = hangup.recv() => match self.obey(Order::Reload).await {
                    Ok(_) => {}
                    Err(refusal) => warn!(error = refusal.error, remedy = refusal.remedy, "the configuration was not reloaded"),
                },
                _ = look.tick() => self.end_what_is_read().await,
            }
        }
        notifier.abort();
        // What is not handed on yet is in the files, and goes at the next start.
        self.forward(Vec::new()).await;
        close(self.parts.everything(), &self.shutdown).await;
        self.result
    }

    /// Does what an operator asks for.
    async fn obey(&mut self, order: Order) -> Result<serde_json::Value, Refusal> {
        if self.shutdown.stop.is_cancelled() {
            return Err(Refusal::not_now("the daemon stops", "start it again"));
        }
        match order {
            Order::Reload => self.reload().await,
            Order::Replay(order) => self.replay(order).await,
            Order::StopReplay { number } => self.stop_replay(number).await,
            Order::Forget { source, reader } => self.forget(&source, &reader).await,
        }
    }

    /// A pipeline has ended by itself.
    async fn conclude(&mut self, plan: PipelinePlan, ended: Ended) {
        if let plan::Reads::Replay(_, replay) = &plan.reads
            && !self.shutdown.stop.is_cancelled()
        {
            return self.replay_ended(Replay::clone(replay), ended).await;
        }
        let fault = match ended {
            Ok(true) => return self.show(),
            // What it has left is in the journal.
            Ok(false) if !plan.is_intake() => return self.show(),
            Ok(false) => {
                if self.result.is_ok() {
                    self.result = Ok(Finished::WorkLeft);
                }
                return self.show();
            }
            Err(fault) => fault,
        };
        if self.dry_run && reader_has_gone(&fault) {
            info!("whoever read the events has gone");
            self.shutdown.stop.cancel();
            return;
        }
        // The first one is returned, which is soon where no other source has to drain.
        if !self.crew.members().is_empty() || self.result.is_err() {
            error!(error = %fault, remedy = fault.remedy(), "a source has ended by a fault; all others stop");
        }
        self.shutdown.stop.cancel();
        if self.result.is_ok() {
            self.result = Err(fault);
        }
    }

    /// A source that has nothing left ends its daemon; behind a journal, when all that is in it is delivered.
    async fn end_what_is_read(&mut self) {
        for source in &self.settings.sources {
            let own = |plan: &PipelinePlan| plan.source.name == source.name;
            let journal = self.settings.journal_of(source);
            if self.crew.runs(&source.name)
                || journal.is_none_or(|journal| journal.role != crate::config::Role::Both)
            {
                continue;
            }
            // Where several daemons deliver, each ends when it is told to.
            let Some(journal) = self.parts.journal(&source.name).filter(|journal| journal.is_local()) else {
                continue;
            };
            let Ok(end) = journal.end().await else { continue };
            let at_end: Vec<String> = self
                .crew
                .members()
                .iter()
                .filter(|member| {
                    own(&member.plan) && member.status.stored().is_some_and(|at| at.position == end)
                })
                .map(|member| member.plan.key.clone())
                .collect();
            self.crew.ask(|plan| at_end.contains(&plan.key));
        }
    }

    /// What is seen from outside follows what runs, and so does the division of memory.
    fn show(&mut self) {
        let seen: Vec<&PipelineStatus> = self.crew.members().iter().map(|member| &member.status).collect();
        parts::share_out(self.settings.limits.events_budget().as_usize(), &seen);
        let sources = sources(&self.settings, &mut self.parts, &seen);
        self.status.show(sources, self.parts.dead_letters());
    }

    /// Lets these hand dead letters on from now on, in place of those that did.
    async fn forward(&mut self, forwarders: Vec<Forwarder>) {
        self.stop_forwarding.cancel();
        while let Some(ended) = self.forwarding.join_next().await {
            if let Err(panic) = ended {
                error!(error = %panic, "handing on dead letters has ended by a defect; they are in `data_dir`");
            }
        }
        self.stop_forwarding = CancellationToken::new();
        for forwarder in forwarders {
            self.forwarding.spawn(forwarder.run(self.stop_forwarding.clone()));
        }
    }

    async fn forget(&mut self, source: &str, reader: &str) -> Result<serde_json::Value, Refusal> {
        let journal = self.parts.journal(source).ok_or_else(|| {
            Refusal::wrong(format!("`{source}` has no journal"), "look at `forebay status`")
        })?;
        let key = format!("{source}/{reader}");
        let known: Vec<String> =
            journal.status().readers.into_iter().map(|reader| format!("`{}`", reader.name)).collect();
        let configured = plan::pipelines(&self.settings).iter().any(|plan| plan.key == key);
        if journal.is_local() && !configured && !known.contains(&format!("`{reader}`")) {
            let error = format!("no reader `{reader}` has a place in the journal of `{source}`");
            return Err(Refusal::wrong(error, format!("name one of {}", known.join(", "))));
        }
        let ours = |plan: &PipelinePlan| plan.key == key;
        self.crew.stop(ours).await;
        // Its position means nothing any more, and is removed first: a place without one begins anew.
        let forgotten = match self.parts.store.forget(&key).await {
            Ok(()) => journal.forget(reader).await,
            Err(fault) => Err(fault),
        };
        let mut done = format!("the journal of `{source}` keeps nothing for `{reader}` any more");
        if let Some(plan) = plan::pipelines(&self.settings).into_iter().find(ours) {
            let built = self.parts.build(&plan, &self.settings).map_err(refused)?;
            done += match plan.destinations()[0].start {
                Beginning::Oldest => "; it begins anew with the oldest entry",
                Beginning::Newest => "; it begins anew with what comes from now on (`start: newest`)",
            };
            self.crew.start(plan, built, None, &self.shutdown);
        }
        self.show();
        forgotten.map_err(refused)?;
        info!(source, reader, "{done}");
        Ok(serde_json::json!({"done": done}))
    }
}

/// What there is to see of every source.
fn sources(settings: &Settings, parts: &mut Parts, pipelines: &[&PipelineStatus]) -> Vec<SourceStatus> {
    let of_source = |source: &SourceSettings| {
        let (snapshots, schemas) = parts.desks(&source.name);
        let own = pipelines.iter().find(|pipeline| pipeline.key == source.name);
        let prefix = format!("{}/", source.name);
        SourceStatus {
            name: source.name.clone(),
            kind: source.kind.clone(),
            intake: own.map(|own| (*own).clone()),
            snapshots,
            schemas,
            behind: pipelines
                .iter()
                .filter(|pipeline| pipeline.key.starts_with(&prefix))
                .map(|pipeline| (*pipeline).clone())
                .collect(),
            journal: parts.journal(&source.name).map(JournalDesk),
        }
    };
    settings.sources.iter().map(of_source).collect()
}

/// A source that runs without its journal, or with one of another kind, leaves what is in it: its checkpoint is beyond
/// that, so nobody would read it again.
fn nothing_left_behind(settings: &Settings, parts: &Parts) -> Result<(), Fault> {
    let stored = parts.store.all()?;
    for source in &settings.sources {
        let prefix = format!("{}/", source.name);
        let readers = stored.iter().filter_map(|(key, checkpoint)| {
            Some((key.strip_prefix(&prefix)?.to_owned(), checkpoint.position.clone()))
        });
        let readers = readers.collect();
        let kind = settings.journal_of(source).map(|journal| journal.kind.as_str());
        let others = parts.registry.journals().iter().filter(|(known, _)| Some(**known) != kind);
        for (_, entry) in others {
            let setting = settings.journal_setting(source);
            let Some(left) = (entry.left_behind)(&setting, &readers)? else { continue };
            return Err(Fault::fatal(
                format!("starting `{}` without the journal that it had", source.name),
                Blame::Configuration,
                left,
            )
            .with_remedy(format!(
                "run it with that journal until everything is delivered; then say so by `forebay checkpoint reset {}/…` \
                 where it is in Kafka. Or give up what was not read: `forebay journal forget` while it runs",
                source.name
            )));
        }
    }
    Ok(())
}

/// Journals that were read to their end and do not stand between any more go, with the positions of their readers: what
/// they kept is older than what destinations get now.
fn put_away(settings: &Settings, parts: &Parts) -> Result<(), Fault> {
    for source in &settings.sources {
        let kind = settings.journal_of(source).map(|journal| journal.kind.as_str());
        for (_, entry) in parts.registry.journals().iter().filter(|(known, _)| Some(**known) != kind) {
            if !(entry.discard)(&settings.journal_setting(source))? {
                continue;
            }
            info!(source = source.name, "the journal that it had was read to its end and is removed");
            let prefix = format!("{}/", source.name);
            let keys = parts.store.all()?.into_keys().filter(|key| key.starts_with(&prefix));
            keys.collect::<Vec<_>>().iter().try_for_each(|key| parts.store.forget_now(key))?;
        }
    }
    Ok(())
}

/// Closes destinations in order, each within its limit; what they accepted is durable already.
async fn close(destinations: Vec<(String, Arc<dyn Destination>)>, shutdown: &Shutdown) {
    for (name, destination) in destinations {
        let closed = tokio::select! {
            closed = tokio::time::timeout(CLOSE_LIMIT, destination.close()) => closed,
            () = shutdown.abort.cancelled() => return,
        };
        let why = match closed {
            Ok(Ok(())) => continue,
            Ok(Err(fault)) => fault.to_string(),
            Err(_) => format!("no answer within {CLOSE_LIMIT:?}"),
        };
        warn!(destination = %name, error = why, "destination did not close in order");
    }
}

/// A fault as the answer to an order.
fn refused(fault: Fault) -> Refusal {
    let remedy = fault.remedy().unwrap_or("look at the log of the daemon").to_owned();
    match fault {
        Fault::Fatal { blame: Blame::Configuration, .. } => Refusal::wrong(fault.to_string(), remedy),
        _ => Refusal::not_now(fault.to_string(), remedy),
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
