//! How long a sender waits until its event is durable, through a whole pipeline.

use std::collections::BTreeMap;
use std::fmt;
use std::num::NonZeroU32;
use std::path::Path;
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use forebay::checkpoint::{NothingStored, SaveError};
use forebay::config::OnPoison;
use forebay::dead_letters::DeadLetters;
use forebay::filter::Filter;
use forebay::lane::{BatchLimits, LaneSettings, Retry};
use forebay::pipeline::{LanePlan, Pipeline, PipelineReports};
use forebay::schemas::SourceSchemas;
use forebay::shutdown::Shutdown;
use forebay::snapshot::SnapshotDesk;
use forebay::state::{Kind, StateStore};
use forebay::telemetry::Telemetry;
use forebay_api::{Budget, Destination, Fault, Report, Source, SourceContext};
use tokio::task::JoinSet;
use tokio::time::Instant;

use crate::events::{Events, SOURCE, journal};

/// What so many senders saw.
pub(crate) struct Seen {
    senders: usize,
    seconds: u64,
    waits: Vec<Duration>,
}

impl fmt::Display for Seen {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let of = |share: usize| self.waits[(self.waits.len() * share / 1000).min(self.waits.len() - 1)];
        let rate = self.waits.len() as u64 / self.seconds;
        write!(
            f,
            "  {:>5} senders {rate:>8} events/s, p50 {:>8.0?} p99 {:>8.0?} p99.9 {:>8.0?}",
            self.senders,
            of(500),
            of(990),
            of(999)
        )
    }
}

/// Has so many senders send one event after the other, each when the one before is durable.
pub(crate) async fn measure(folder: &Path, senders: usize, seconds: u64) -> Seen {
    let journal = journal(folder);
    let waits = Arc::new(Mutex::new(Vec::new()));
    let source = Senders { senders, seconds, waits: waits.clone() };
    let ended = pipeline(folder, source, journal.writer()).generation(&Shutdown::default()).await;
    ended.result.expect("nothing fails");
    journal.writer().close().await.expect("it closes");
    let mut waits = std::mem::take(&mut *waits.lock().expect("nobody panicked"));
    waits.sort_unstable();
    Seen { senders, seconds, waits }
}

/// A source whose senders wait for their tickets.
struct Senders {
    senders: usize,
    seconds: u64,
    waits: Arc<Mutex<Vec<Duration>>>,
}

#[async_trait]
impl Source for Senders {
    async fn run(&mut self, context: SourceContext) -> Result<(), Fault> {
        // Marks ascend from send to send.
        let events = Arc::new(tokio::sync::Mutex::new(Events::new()));
        let until = Instant::now() + Duration::from_secs(self.seconds);
        let mut senders = JoinSet::new();
        for _ in 0..self.senders {
            let (outlet, events) = (context.outlet.clone(), events.clone());
            senders.spawn(async move {
                let mut waits = Vec::new();
                while Instant::now() < until {
                    let began = Instant::now();
                    let mut turn = events.lock().await;
                    let chunk = turn.chunk(1);
                    let Ok(ticket) = outlet.send_ticketed(chunk, None).await else { break };
                    drop(turn);
                    if ticket.await.is_err() {
                        break;
                    }
                    waits.push(began.elapsed());
                }
                waits
            });
        }
        while let Some(waits) = senders.join_next().await {
            self.waits.lock().expect("nobody panicked").extend(waits.expect("no sender panics"));
        }
        Ok(())
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

/// As the daemon makes it, with the defaults of a configuration.
fn pipeline(folder: &Path, source: Senders, destination: Arc<dyn Destination>) -> Pipeline {
    let telemetry = Telemetry::default();
    let second = Duration::from_secs(1);
    let lane = LanePlan {
        settings: LaneSettings {
            source: SOURCE.into(),
            destination: "journal".into(),
            index: 0,
            required: true,
            format: 0,
            batch: BatchLimits { records: 100_000, bytes: 4 << 20, age: Duration::ZERO },
            timeout: 30 * second,
            retry: Retry { initial: second, max: 30 * second, attempts: NonZeroU32::MIN },
            on_poison: OnPoison::DeadLetter,
            replays_letters: false,
        },
        destination,
        filter: Filter::default(),
        dead_letters: Arc::new(DeadLetters::new(
            folder,
            "journal",
            1 << 20,
            telemetry.dead_letters("journal"),
        )),
        courtesy: Budget::new(0),
        figures: telemetry.lane(SOURCE, "journal"),
        report: Report::default(),
    };
    Pipeline {
        name: SOURCE.into(),
        source: Arc::new(tokio::sync::Mutex::new(Box::new(source))),
        lanes: vec![lane],
        formats: Arc::new([]),
        instance: ("bench".into(), "bench".into()),
        store: Arc::new(NothingStored),
        snapshots: Arc::new(SnapshotDesk::new(SOURCE, Arc::new(NoState), telemetry.snapshot(SOURCE))),
        schemas: Arc::new(SourceSchemas::new(SOURCE, Arc::new(NoState))),
        budget: Budget::new(64 << 20),
        restream: None,
        isolated: false,
        drain: 30 * second,
        figures: telemetry.source(SOURCE),
        reports: PipelineReports::default(),
        stored: Arc::default(),
        owed_counted: AtomicBool::new(false),
    }
}
