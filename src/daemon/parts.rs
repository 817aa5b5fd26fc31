//! What pipelines are made of, and how they are put together. Building reaches nothing over the network.
//!
//! Destinations and journals are built once and shared; after a change of the configuration those that are the same are
//! kept, so that a destination which nobody changed is not closed.

use std::collections::BTreeMap;
use std::num::NonZeroU32;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use forebay_api::{
    Blame, Budget, Destination, Fault, Journal, ReaderSetting, Registry, Report, Source, Start,
};

use super::plan::{JOURNAL, PipelinePlan, Reads, Writes};
use crate::admin::{DestinationStatus, PipelineStatus};
use crate::checkpoint::CheckpointStore;
use crate::config::{
    Beginning, DestinationSettings, JournalSettings, OnPoison, Settings, SourceSettings, privacy,
};
use crate::dead_letters::{Courier, DeadLetters, Forwarder};
use crate::filter::Filter;
use crate::format::Format;
use crate::lane::{BatchLimits, LaneSettings, Retry};
use crate::ledger::DestinationSet;
use crate::pipeline::{LanePlan, Pipeline, PipelineReports};
use crate::privacy::Privacy;
use crate::schemas::SourceSchemas;
use crate::snapshot::SnapshotDesk;
use crate::state::{MemoryState, StateStore};
use crate::telemetry::{SnapshotFigures, SourceFigures, Telemetry};
use crate::validation::{Judge, Rules, SchemaCache, build_chain};

/// How long an attempt may take where the configuration does not say.
const DEFAULT_TIMEOUT: Duration = Duration::from_secs(30);

/// The memory of a pipeline in shares; each of its best-effort lanes has one share besides.
const PIPELINE_SHARES: usize = 4;

/// What reads a journal stops where it is: what is on its way may arrive, and the rest is in the journal.
const READER_DRAIN: Duration = Duration::from_secs(5);

/// What goes into a journal at once: as much as waits, so that one sync serves all.
const JOURNAL_BATCH: BatchLimits = BatchLimits { records: 100_000, bytes: 4 << 20, age: Duration::ZERO };

/// A journal is tried again soon: nothing is taken in while it does not work.
const JOURNAL_RETRY: Retry =
    Retry { initial: Duration::from_millis(50), max: Duration::from_secs(5), attempts: NonZeroU32::MAX };

/// What pipelines share, and what they are built with. A clone shares all of it.
#[derive(Clone)]
pub(super) struct Parts {
    pub(super) registry: Arc<Registry>,
    pub(super) store: Arc<dyn CheckpointStore>,
    pub(super) state: Arc<dyn StateStore>,
    pub(super) telemetry: Arc<Telemetry>,
    /// By name.
    destinations: BTreeMap<String, Opened>,
    /// By source.
    journals: BTreeMap<String, (JournalSettings, Arc<dyn Journal>)>,
    /// What is copied, by source.
    pub(super) snapshots: BTreeMap<String, Arc<SnapshotDesk>>,
    /// The generated schemas, by source.
    pub(super) schemas: BTreeMap<String, Arc<SourceSchemas>>,
    /// The registry, with what was fetched from it.
    pub(super) validation: Arc<SchemaCache>,
    /// What is judged by it.
    rules: Arc<Rules>,
    /// What is taken out of events.
    privacy: Arc<Privacy>,
    /// `run --dry-run`.
    pub(super) dry_run: bool,
}

/// A destination and what goes with it.
#[derive(Clone)]
pub(super) struct Opened {
    settings: DestinationSettings,
    pub(super) destination: Arc<dyn Destination>,
    /// One for all its lanes, since they share a folder and a cap.
    dead_letters: Arc<DeadLetters>,
}

/// A pipeline that can run, and what is seen of it.
pub(super) struct Built {
    pub(super) pipeline: Pipeline,
    pub(super) status: PipelineStatus,
}

impl Parts {
    pub(super) fn new(
        registry: Arc<Registry>,
        (store, state): (Arc<dyn CheckpointStore>, Arc<dyn StateStore>),
        settings: &Settings,
        dry_run: bool,
    ) -> Result<Parts, Fault> {
        let telemetry = Arc::<Telemetry>::default();
        let chain = build_chain(settings, &registry)?;
        let limits = settings.validation.cache.limits();
        let validation = Arc::new(SchemaCache::new(chain, limits, telemetry.schemas.clone()));
        Ok(Parts {
            registry,
            store,
            state,
            telemetry,
            validation,
            rules: Arc::new(settings.validation.rules()?),
            privacy: Arc::new(privacy(&settings.privacy)?),
            destinations: BTreeMap::new(),
            journals: BTreeMap::new(),
            snapshots: BTreeMap::new(),
            schemas: BTreeMap::new(),
            dry_run,
        })
    }

    /// Judges the events of one source.
    fn judge(&self, source: &str) -> Judge {
        Judge {
            source: source.into(),
            schemas: self.validation.clone(),
            rules: self.rules.clone(),
            invalid: self.telemetry.invalid(source),
        }
    }

    /// What a source's copies and schemas are kept by, made when it is first asked for.
    pub(super) fn desks(&mut self, source: &str) -> (Arc<SnapshotDesk>, Arc<SourceSchemas>) {
        let (state, telemetry) = (&self.state, &self.telemetry);
        let desk = self.snapshots.entry(source.to_owned()).or_insert_with(|| {
            Arc::new(SnapshotDesk::new(source, state.clone(), telemetry.snapshot(source)))
        });
        let schemas = self
            .schemas
            .entry(source.to_owned())
            .or_insert_with(|| Arc::new(SourceSchemas::new(source, state.clone())));
        (desk.clone(), schemas.clone())
    }

    /// The journal of a source, while a pipeline at either end of it was built.
    pub(super) fn journal(&self, source: &str) -> Option<Arc<dyn Journal>> {
        self.journals.get(source).map(|(_, journal)| journal.clone())
    }

    /// Gives up what no plan wants as it is, and returns it, to be closed when nothing uses it any more.
    pub(super) fn retain(
        &mut self,
        plans: &[PipelinePlan],
        settings: &Settings,
    ) -> Vec<(String, Arc<dyn Destination>)> {
        let stores: Vec<&DestinationSettings> = stores(settings).collect();
        let wanted = |opened: &Opened| {
            stores.contains(&&opened.settings)
                || plans.iter().any(|plan| plan.destinations().contains(&opened.settings))
        };
        let mut given_up = Vec::new();
        self.destinations.retain(|name, opened| {
            let keep = wanted(opened);
            if !keep {
                given_up.push((name.clone(), opened.destination.clone()));
            }
            keep
        });
        self.journals.retain(|source, (settings, journal)| {
            let keep =
                plans.iter().any(|plan| plan.source.name == *source && plan.journal() == Some(settings));
            if !keep {
                given_up.push((format!("{source}/{JOURNAL}"), journal.writer()));
            }
            keep
        });
        given_up
    }

    /// Every destination and journal, to be closed at the end.
    pub(super) fn everything(&self) -> Vec<(String, Arc<dyn Destination>)> {
        let destinations =
            self.destinations.iter().map(|(name, opened)| (name.clone(), opened.destination.clone()));
        let journals = self
            .journals
            .iter()
            .map(|(source, (_, journal))| (format!("{source}/{JOURNAL}"), journal.writer()));
        destinations.chain(journals).collect()
    }

    /// Puts a pipeline together. Its memory is given to it later.
    pub(super) fn build(&mut self, plan: &PipelinePlan, settings: &Settings) -> Result<Built, Fault> {
        let formats = formats_of(plan);
        let lanes = match &plan.writes {
            Writes::Journal(journal) => vec![self.journal_lane(plan, journal, settings)?],
            Writes::Destinations(destinations) => destinations
                .iter()
                .enumerate()
                .map(|(index, destination)| self.lane(plan, (index, destination), &formats, settings))
                .collect::<Result<Vec<_>, Fault>>()?,
        };
        sound(plan, &lanes)?;
        let source = self.source(plan, settings)?;
        let (figures, (snapshots, schemas)) = match plan.reads {
            Reads::Source => (self.telemetry.source(&plan.source.name), self.desks(&plan.source.name)),
            // What is copied, and which schemas there are, is the business of whoever reads the source.
            Reads::Journal(_) | Reads::Replay(..) => {
                let state = Arc::new(MemoryState::default());
                let desk = SnapshotDesk::new(&plan.key, state.clone(), SnapshotFigures::default());
                let figures = match plan.reads {
                    Reads::Replay(..) => SourceFigures::default(),
                    _ => self.telemetry.reader(&plan.source.name, &lanes[0].settings.destination),
                };
                (figures, (Arc::new(desk), Arc::new(SourceSchemas::new(&plan.key, state))))
            }
        };
        let reports = PipelineReports::default();
        let stored = Arc::default();
        // Until it is shared out; queues are made by it.
        let budget = Budget::new(settings.limits.events_budget().as_usize() / PIPELINE_SHARES);
        let status = PipelineStatus {
            key: plan.key.clone(),
            reports: reports.clone(),
            figures: figures.clone(),
            stored: Arc::clone(&stored),
            budget: budget.clone(),
            courtesies: lanes
                .iter()
                .filter(|lane| !lane.settings.required)
                .map(|lane| lane.courtesy.clone())
                .collect(),
            lanes: lanes.iter().map(|lane| status_of(plan, lane)).collect(),
        };
        let pipeline = Pipeline {
            name: plan.key.as_str().into(),
            source: Arc::new(tokio::sync::Mutex::new(source)),
            formats,
            lanes,
            instance: plan.instance.clone(),
            store: self.store.clone(),
            snapshots,
            schemas,
            privacy: self.privacy.clone(),
            judge: self.judge(&plan.source.name),
            budget,
            restream: match &plan.reads {
                Reads::Replay(_, replay) => Some(replay.number),
                Reads::Source | Reads::Journal(_) => None,
            },
            isolated: !plan.is_intake(),
            drain: match plan.is_intake() {
                true => settings.shutdown.grace.as_duration(),
                false => settings.shutdown.grace.as_duration().min(READER_DRAIN),
            },
            figures,
            reports,
            stored,
            owed_counted: AtomicBool::new(false),
        };
        Ok(Built { pipeline, status })
    }

    fn source(&mut self, plan: &PipelinePlan, settings: &Settings) -> Result<Box<dyn Source>, Fault> {
        match &plan.reads {
            Reads::Source => build_source(&plan.source, &self.registry, self.dry_run),
            Reads::Journal(journal) => {
                let destination = &plan.destinations()[0];
                let setting = ReaderSetting {
                    name: destination.name.as_str().into(),
                    required: destination.required,
                    start: match destination.start {
                        Beginning::Oldest => Start::Oldest,
                        Beginning::Newest => Start::Newest,
                    },
                    until: None,
                };
                Ok(self.journal_for(plan, journal, settings)?.reader(setting))
            }
            Reads::Replay(journal, replay) => {
                let (from, until) = replay.bounds();
                let setting = ReaderSetting {
                    name: replay.reader().into(),
                    required: false,
                    start: Start::At(from),
                    until: Some(until),
                };
                Ok(self.journal_for(plan, journal, settings)?.reader(setting))
            }
        }
    }

    fn journal_for(
        &mut self,
        plan: &PipelinePlan,
        journal: &JournalSettings,
        settings: &Settings,
    ) -> Result<Arc<dyn Journal>, Fault> {
        if let Some((known, built)) = self.journals.get(&plan.source.name)
            && known == journal
        {
            return Ok(built.clone());
        }
        let built = build_journal(journal, &plan.source, settings, &self.registry)?;
        self.journals.insert(plan.source.name.clone(), (journal.clone(), built.clone()));
        Ok(built)
    }

    fn destination(
        &mut self,
        destination: &DestinationSettings,
        settings: &Settings,
    ) -> Result<Opened, Fault> {
        if let Some(opened) = self.destinations.get(&destination.name)
            && opened.settings == *destination
        {
            return Ok(opened.clone());
        }
        let opened = Opened {
            settings: destination.clone(),
            destination: build_destination(destination, settings, &self.registry)?,
            dead_letters: self.letters_of(&destination.name, destination, settings),
        };
        self.destinations.insert(destination.name.clone(), opened.clone());
        Ok(opened)
    }

    /// The dead letters of one folder.
    fn letters_of(
        &self,
        name: &str,
        destination: &DestinationSettings,
        settings: &Settings,
    ) -> Arc<DeadLetters> {
        let max_bytes = destination.dead_letters.max_bytes.get();
        let figures = self.telemetry.dead_letters(name);
        Arc::new(DeadLetters::new(&settings.data_dir, name, max_bytes, figures))
    }

    /// The dead letters of every destination.
    pub(super) fn dead_letters(&self) -> Vec<Arc<DeadLetters>> {
        self.destinations.values().map(|opened| opened.dead_letters.clone()).collect()
    }

    /// One for each destination whose dead letters go to another.
    pub(super) fn forwarders(&mut self, settings: &Settings) -> Result<Vec<Forwarder>, Fault> {
        let mut forwarders = Vec::new();
        for from in &settings.destinations {
            let Some(to) = from.dead_letters.to.as_deref() else { continue };
            let Some(store) = settings.destinations.iter().find(|destination| destination.name == to) else {
                continue; // the rules have refused such a configuration
            };
            let (batch, timeout, retry) = lane_limits(store);
            let letters = self.destination(from, settings)?.dead_letters;
            let destination = self.destination(store, settings)?.destination;
            forwarders.push(Forwarder {
                letters,
                to: store.name.as_str().into(),
                courier: Courier { destination, batch, timeout, retry },
                format: store.format,
                instance: (settings.name.clone(), settings.environment.clone()),
            });
        }
        Ok(forwarders)
    }

    fn journal_lane(
        &mut self,
        plan: &PipelinePlan,
        journal: &JournalSettings,
        settings: &Settings,
    ) -> Result<LanePlan, Fault> {
        let writer = self.journal_for(plan, journal, settings)?.writer();
        Ok(LanePlan {
            settings: LaneSettings {
                source: plan.source.name.as_str().into(),
                destination: JOURNAL.into(),
                index: 0,
                required: true,
                format: 0,
                batch: JOURNAL_BATCH,
                timeout: DEFAULT_TIMEOUT,
                retry: JOURNAL_RETRY,
                // What it refuses would reach nobody, and a letter of it could be replayed by nobody.
                on_poison: OnPoison::Halt,
                replays_letters: false,
            },
            destination: writer,
            filter: Filter::default(),
            dead_letters: self.letters_of(
                &format!("{}.{JOURNAL}", plan.source.name),
                &DestinationSettings::default(),
                settings,
            ),
            courtesy: Budget::new(0),
            figures: self.telemetry.lane(&plan.source.name, JOURNAL),
            report: Report::default(),
        })
    }

    fn lane(
        &mut self,
        plan: &PipelinePlan,
        (index, destination): (usize, &DestinationSettings),
        formats: &[Format],
        settings: &Settings,
    ) -> Result<LanePlan, Fault> {
        let opened = self.destination(destination, settings)?;
        let mut filter = filter_of(destination)?;
        if let Reads::Replay(_, replay) = &plan.reads {
            replay.narrow(&mut filter).map_err(|error| {
                Fault::fatal(format!("reading the tables of `{}`", plan.key), Blame::Configuration, error)
            })?;
        }
        let figures = match &plan.reads {
            Reads::Replay(..) => self.telemetry.replay(&plan.source.name, &destination.name),
            Reads::Source | Reads::Journal(_) => self.telemetry.lane(&plan.source.name, &destination.name),
        };
        let format = formats.iter().position(|format| *format == destination.format);
        // What a journal keeps is not dropped: a destination that is not required may be parked by it.
        let required = destination.required || !plan.is_intake();
        let (batch, timeout, mut retry) = lane_limits(destination);
        if required {
            retry.attempts = NonZeroU32::MAX;
        }
        Ok(LanePlan {
            settings: LaneSettings {
                source: plan.source.name.as_str().into(),
                destination: destination.name.as_str().into(),
                index,
                required,
                format: format.expect("the formats were gathered from the same destinations"),
                batch,
                timeout,
                retry,
                // What a replay brings once more stands behind nothing, and is no replay of letters.
                on_poison: match plan.reads {
                    Reads::Replay(..) => OnPoison::DeadLetter,
                    Reads::Source | Reads::Journal(_) => destination.on_poison,
                },
                replays_letters: !matches!(plan.reads, Reads::Replay(..)),
            },
            destination: opened.destination,
            filter,
            dead_letters: opened.dead_letters,
            courtesy: Budget::new(0),
            figures,
            report: Report::default(),
        })
    }
}

/// Divides the memory for events among pipelines: each has a share of its own, because one whose destination is down
/// must not take the memory of the others, and so has each best-effort lane. Together they are all there is.
pub(super) fn share_out(bytes: usize, pipelines: &[&PipelineStatus]) {
    let shares: usize = pipelines.iter().map(|pipeline| PIPELINE_SHARES + pipeline.courtesies.len()).sum();
    let share = bytes / shares.max(1);
    for pipeline in pipelines {
        pipeline.budget.set_limit(PIPELINE_SHARES * share);
        pipeline.courtesies.iter().for_each(|courtesy| courtesy.set_limit(share));
    }
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

/// The destinations that dead letters of others go to.
fn stores(settings: &Settings) -> impl Iterator<Item = &DestinationSettings> {
    let named = |name: &str| settings.destinations.iter().any(|d| d.dead_letters.to.as_deref() == Some(name));
    settings.destinations.iter().filter(move |destination| named(&destination.name))
}

/// Builds the destination that an entry of the configuration names.
pub(crate) fn build_destination(
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
fn build_source(
    source: &SourceSettings,
    registry: &Registry,
    dry_run: bool,
) -> Result<Box<dyn Source>, Fault> {
    let entry =
        registry.sources().get(source.kind.as_str()).ok_or_else(|| unknown("source", &source.kind))?;
    (entry.build)(source.own.0.clone(), &source.setting(dry_run))
        .map_err(|mistakes| mistaken(&source.name, &mistakes))
}

/// Builds the journal of a source.
fn build_journal(
    journal: &JournalSettings,
    source: &SourceSettings,
    settings: &Settings,
    registry: &Registry,
) -> Result<Arc<dyn Journal>, Fault> {
    let entry = registry.journals().get(journal.kind.as_str());
    let entry = entry.ok_or_else(|| unknown("journal", &journal.kind))?;
    (entry.build)(journal.own.0.clone(), &settings.journal_setting(source))
        .map_err(|mistakes| mistaken(JOURNAL, &mistakes))
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

/// The formats that some lane of a pipeline writes, each once.
fn formats_of(plan: &PipelinePlan) -> Arc<[Format]> {
    let formats = plan.destinations().iter().map(|destination| destination.format);
    formats.collect::<std::collections::BTreeSet<_>>().into_iter().collect()
}

/// What would run and lose, or could not be counted, is refused.
fn sound(plan: &PipelinePlan, lanes: &[LanePlan]) -> Result<(), Fault> {
    let refuse = |error: String| {
        Fault::fatal(format!("building the pipeline of `{}`", plan.key), Blame::Configuration, error)
    };
    if lanes.len() > DestinationSet::MAX {
        return Err(refuse(format!(
            "it has {} destinations; one source may have {}",
            lanes.len(),
            DestinationSet::MAX
        )));
    }
    if !lanes.iter().any(|lane| lane.settings.required) {
        let error = "no destination that takes its events is required, so nothing would hold its checkpoint";
        return Err(
            refuse(error.to_owned()).with_remedy("let `where.source` of a required destination name it")
        );
    }
    Ok(())
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
        wanted.table.iter().flatten().try_for_each(|pattern| filter.table(pattern))?;
        wanted.schema_key.iter().flatten().try_for_each(|pattern| filter.schema_key(pattern))
    })();
    added.map_err(|error| {
        Fault::fatal(format!("reading `where` of `{}`", destination.name), Blame::Configuration, error)
    })?;
    Ok(filter)
}

fn status_of(plan: &PipelinePlan, lane: &LanePlan) -> DestinationStatus {
    let name = lane.settings.destination.to_string();
    let (kind, required) = match &plan.writes {
        Writes::Journal(journal) => (journal.kind.clone(), true),
        Writes::Destinations(destinations) => {
            let settings = &destinations[lane.settings.index];
            (settings.kind.clone(), settings.required)
        }
    };
    DestinationStatus { name, kind, required, report: lane.report.clone(), figures: lane.figures.clone() }
}
