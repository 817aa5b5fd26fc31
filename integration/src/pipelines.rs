//! Pipelines inside of the test's own process, for what a daemon cannot be asked from outside: its clock, its tickets.

use std::collections::BTreeMap;
use std::num::NonZeroU32;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use async_trait::async_trait;
use forebay::checkpoint::{CheckpointStore, SaveError};
use forebay::config::OnPoison;
use forebay::dead_letters::DeadLetters;
use forebay::filter::Filter;
use forebay::format::Format;
use forebay::lane::{BatchLimits, LaneSettings, Retry};
use forebay::pipeline::{LanePlan, Pipeline, PipelineReports};
use forebay::schemas::SourceSchemas;
use forebay::snapshot::SnapshotDesk;
use forebay::state::{Kind, StateStore};
use forebay::telemetry::Telemetry;
use forebay::validation::Judge;
use forebay_api::{Budget, Destination, Fault, Report, Source};

/// Memory for events.
const BUDGET: usize = 64 << 20;

/// A pipeline from `source` into one destination, as the daemon makes it with the defaults of a configuration; `key` is
/// that of its checkpoint. Into a journal it writes no format.
pub fn pipeline(
    key: &str,
    folder: &Path,
    source: Box<dyn Source>,
    (name, destination): (&str, Arc<dyn Destination>),
    store: Arc<dyn CheckpointStore>,
) -> Pipeline {
    let telemetry = Telemetry::default();
    let second = Duration::from_secs(1);
    let into_journal = name == forebay::daemon::JOURNAL;
    let lane = LanePlan {
        settings: LaneSettings {
            source: key.into(),
            destination: name.into(),
            index: 0,
            required: true,
            format: 0,
            batch: BatchLimits { records: 10_000, bytes: 4 << 20, age: Duration::ZERO },
            timeout: 30 * second,
            retry: Retry { initial: second / 10, max: 30 * second, attempts: NonZeroU32::MAX },
            on_poison: OnPoison::DeadLetter,
            replays_letters: false,
        },
        destination,
        filter: Filter::default(),
        dead_letters: Arc::new(DeadLetters::new(folder, name, 1 << 20, telemetry.dead_letters(name))),
        courtesy: Budget::new(0),
        figures: telemetry.lane(key, name),
        report: Report::default(),
    };
    Pipeline {
        name: key.into(),
        source: Arc::new(tokio::sync::Mutex::new(source)),
        lanes: vec![lane],
        formats: if into_journal { Arc::new([]) } else { Arc::new([Format::Forebay]) },
        instance: ("test".into(), "test".into()),
        store,
        snapshots: Arc::new(SnapshotDesk::new(key, Arc::new(NoState), telemetry.snapshot(key))),
        schemas: Arc::new(SourceSchemas::new(key, Arc::new(NoState))),
        privacy: Arc::default(),
        judge: Judge::plain(key),
        budget: Budget::new(BUDGET),
        restream: None,
        isolated: !into_journal,
        drain: 30 * second,
        figures: telemetry.source(key),
        reports: PipelineReports::default(),
        stored: Arc::default(),
        owed_counted: AtomicBool::new(false),
    }
}

/// State that nobody asks for.
#[derive(Debug)]
struct NoState;

#[async_trait]
impl StateStore for NoState {
    async fn all(&self, _: Kind, _: &str) -> Result<BTreeMap<String, Vec<u8>>, Fault> {
        Ok(BTreeMap::new())
    }

    async fn put(&self, _: Kind, _: Vec<(String, Option<Vec<u8>>)>) -> Result<(), SaveError> {
        Ok(())
    }
}
