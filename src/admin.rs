//! What the daemon tells about itself: `/live`, `/ready`, `/metrics`, `/status`, and the schemas of its events below
//! `/s`, on a port of its own. And what it is told there: `/snapshot`, `/dead_letters`, `/schemas`.
//!
//! Liveness is about us alone: every loop turned lately. Readiness is about the world: what must be reachable is.
//! Both are computed when they are asked for, from pulses that the loops set themselves; nothing is cached, so
//! nothing can be stale.

pub mod ask;
mod command;
pub mod dead_letters;
mod metrics;
mod orders;
pub mod schemas;
pub mod snapshot;

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use axum::Router;
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use forebay_api::{Budget, Journal, Measure, Report};
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tracing::{error, info, warn};

use crate::config::Settings;
use crate::daemon::order::Orders;
use crate::dead_letters::{DeadLetters, now_micros};
use crate::pipeline::{PipelineReports, StoredAt};
use crate::schemas::SourceSchemas;
use crate::snapshot::SnapshotDesk;
use crate::telemetry::{LaneFigures, SourceFigures, Telemetry};
use crate::validation::SchemaCache;

/// Of so many replays it is told how they ended.
const REPLAYS_TOLD: usize = 100;

/// All that there is to tell.
#[derive(Debug)]
pub struct Status {
    /// The daemon's name.
    pub name: String,
    /// Where it runs.
    pub environment: String,
    /// When it started.
    pub started: Instant,
    /// Counters.
    pub telemetry: Arc<Telemetry>,
    /// `/ready` turns red when a source lags by more.
    pub ready_max_lag: Option<Duration>,
    /// Where an operator's orders go.
    pub orders: Orders,
    /// The schema registry.
    pub registry: Arc<SchemaCache>,
    /// The sources, in the order of the configuration.
    sources: Mutex<Arc<[SourceStatus]>>,
    /// The dead letters of each destination.
    dead_letters: Mutex<Arc<[Arc<DeadLetters>]>>,
    /// How the latest replays ended, by their numbers.
    replays: Mutex<BTreeMap<u64, String>>,
}

/// One source and everything that carries its events.
#[derive(Debug)]
pub struct SourceStatus {
    /// Its name.
    pub name: String,
    /// Its type.
    pub kind: String,
    /// The pipeline that reads it; `None` where it has ended, or where another daemon reads it.
    pub intake: Option<PipelineStatus>,
    /// What is copied.
    pub snapshots: Arc<SnapshotDesk>,
    /// The schemas that it has generated.
    pub schemas: Arc<SourceSchemas>,
    /// The pipelines behind its journal, replays among them.
    pub behind: Vec<PipelineStatus>,
    /// Its journal, where it has one.
    pub journal: Option<JournalDesk>,
}

/// One pipeline that runs.
#[derive(Clone, Debug)]
pub struct PipelineStatus {
    /// The source's name, or `source/destination` behind a journal.
    pub key: String,
    /// The pulses of its loops.
    pub reports: PipelineReports,
    /// What it counts.
    pub figures: SourceFigures,
    /// What is stored.
    pub stored: Arc<Mutex<Option<StoredAt>>>,
    /// Its share of the memory for events.
    pub budget: Budget,
    /// Those of its best-effort lanes.
    pub courtesies: Vec<Budget>,
    /// Its lanes.
    pub lanes: Vec<DestinationStatus>,
}

/// A journal that can be asked how it is.
#[derive(Clone)]
pub struct JournalDesk(pub Arc<dyn Journal>);

impl std::fmt::Debug for JournalDesk {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("JournalDesk").field(&self.0.status()).finish()
    }
}

/// One lane.
#[derive(Clone, Debug)]
pub struct DestinationStatus {
    /// The destination's name.
    pub name: String,
    /// Its type.
    pub kind: String,
    /// Whether the checkpoint waits for it.
    pub required: bool,
    /// Its pulse.
    pub report: Report,
    /// What it counts.
    pub figures: LaneFigures,
}

impl Status {
    /// Of a daemon that is built and has no sources to show yet.
    pub fn new(settings: &Settings, telemetry: Arc<Telemetry>, orders: Orders) -> Status {
        Status {
            name: settings.name.clone(),
            environment: settings.environment.clone(),
            started: Instant::now(),
            telemetry,
            ready_max_lag: settings.admin.ready_max_lag.map(|lag| lag.as_duration()),
            orders,
            registry: Arc::new(SchemaCache::embedded()),
            sources: Mutex::new(Arc::new([])),
            dead_letters: Mutex::new(Arc::new([])),
            replays: Mutex::default(),
        }
    }

    /// The same with the schema registry that is configured.
    #[must_use]
    pub fn with_registry(self, registry: Arc<SchemaCache>) -> Status {
        Status { registry, ..self }
    }

    /// Shows other sources and dead letters from now on.
    pub fn show(&self, sources: Vec<SourceStatus>, dead_letters: Vec<Arc<DeadLetters>>) {
        *self.sources.lock().unwrap_or_else(PoisonError::into_inner) = sources.into();
        *self.dead_letters.lock().unwrap_or_else(PoisonError::into_inner) = dead_letters.into();
    }

    /// Says how a replay ended, for whoever waits for it.
    pub fn replay_ended(&self, number: u64, how: &str) {
        let mut replays = self.replays.lock().unwrap_or_else(PoisonError::into_inner);
        replays.insert(number, how.to_owned());
        while replays.len() > REPLAYS_TOLD {
            replays.pop_first();
        }
    }

    /// The dead letters of each destination as they are now.
    pub fn dead_letters(&self) -> Arc<[Arc<DeadLetters>]> {
        self.dead_letters.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// The sources as they are now.
    pub fn sources(&self) -> Arc<[SourceStatus]> {
        self.sources.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// The loops that do not turn, by name; empty when the daemon is live.
    pub fn stuck(&self) -> Vec<String> {
        let mut stuck = Vec::new();
        let mut look = |name: String, report: &Report| {
            if report.idle() > Report::MUST_TURN_WITHIN {
                stuck.push(format!("{name} has not turned for {} s", report.idle().as_secs()));
            }
        };
        for source in self.sources().iter() {
            for pipeline in source.pipelines() {
                look(format!("source `{}`", pipeline.key), &pipeline.reports.source);
                look(format!("stage of `{}`", pipeline.key), &pipeline.reports.stage);
                look(format!("checkpoint of `{}`", pipeline.key), &pipeline.reports.checkpoint);
                for lane in &pipeline.lanes {
                    look(format!("lane `{}` → `{}`", source.name, lane.name), &lane.report);
                }
            }
        }
        stuck
    }

    /// Why the daemon is not ready; empty when it is. A destination behind a journal keeps nothing from being taken in,
    /// so readiness does not depend on it.
    pub fn not_ready(&self) -> Vec<String> {
        let mut why = self.stuck();
        for source in self.sources().iter() {
            let Some(intake) = &source.intake else {
                // Another daemon reads the source; this one is of use while it reads the journal.
                let unread = source.behind.iter().filter(|pipeline| !pipeline.reports.source.connected());
                why.extend(
                    unread.map(|pipeline| format!("the journal cannot be read for `{}`", pipeline.key)),
                );
                continue;
            };
            let reports = &intake.reports;
            if !reports.source.connected() {
                why.push(format!("source `{}` is not connected", source.name));
            }
            if reports.source.connected() && !reports.checkpoint.connected() {
                why.push(format!("the checkpoint of `{}` cannot be stored in `data_dir`", source.name));
            }
            if let Some(what) = reports.stage.details().get(crate::validation::WAITS) {
                why.push(format!("events of `{}` wait for a schema: {what}", source.name));
            }
            for lane in intake.lanes.iter().filter(|lane| lane.required && !lane.report.connected()) {
                why.push(format!(
                    "required destination `{}` is not reachable from `{}`",
                    lane.name, source.name
                ));
            }
            let lag = source.lag_seconds();
            if let Some(most) = self.ready_max_lag.filter(|most| lag > most.as_secs_f64()) {
                why.push(format!(
                    "source `{}` lags by {lag:.0} s; `admin.ready_max_lag` is {} s",
                    source.name,
                    most.as_secs()
                ));
            }
        }
        why
    }

    /// Bytes of events between sources and destinations: those there are, and those there may be.
    fn memory(&self) -> (usize, usize) {
        let mut sums = (0, 0);
        for source in self.sources().iter() {
            for budget in source.pipelines().flat_map(|p| p.courtesies.iter().chain([&p.budget])) {
                sums.0 += budget.used();
                sums.1 += budget.limit();
            }
        }
        sums
    }

    /// Says of every loop that it turns: while the start waits for something, none of them runs yet.
    pub fn turned(&self) {
        for source in self.sources().iter() {
            for pipeline in source.pipelines() {
                let reports = &pipeline.reports;
                [&reports.source, &reports.stage, &reports.checkpoint].into_iter().for_each(Report::turned);
                pipeline.lanes.iter().for_each(|lane| lane.report.turned());
            }
        }
    }

    /// Everything, as `/status` shows it.
    pub fn to_json(&self) -> Value {
        json!({
            "name": self.name,
            "environment": self.environment,
            "version": env!("CARGO_PKG_VERSION"),
            "uptime_seconds": self.started.elapsed().as_secs(),
            "live": self.stuck().is_empty(),
            "ready": self.not_ready().is_empty(),
            "problems": self.problems(),
            "memory": {"used_bytes": self.memory().0, "budget_bytes": self.memory().1},
            "sources": self.sources().iter().map(SourceStatus::to_json).collect::<Vec<_>>(),
            "replays_ended": *self.replays.lock().unwrap_or_else(PoisonError::into_inner),
            "dead_letters": self.dead_letters().iter().map(|kept| kept.to_json()).collect::<Vec<_>>(),
        })
    }

    /// What is wrong, also with destinations that readiness does not look at.
    fn problems(&self) -> Vec<String> {
        let mut problems = self.not_ready();
        for source in self.sources().iter() {
            let best_effort =
                source.intake.iter().flat_map(|intake| &intake.lanes).filter(|lane| !lane.required);
            for lane in best_effort {
                let details = lane.report.details();
                if let Some(why) = details.get(crate::lane::STOPPED) {
                    problems.push(format!("best-effort destination `{}` has stopped: {why}", lane.name));
                } else if !lane.report.connected() {
                    problems.push(format!("best-effort destination `{}` is not reachable", lane.name));
                }
            }
            for pipeline in &source.behind {
                for lane in &pipeline.lanes {
                    let key = &pipeline.key;
                    if let Some(why) = lane.report.details().get(crate::lane::STOPPED) {
                        problems.push(format!(
                            "destination `{key}` has stopped, and the journal keeps what it must get: {why}"
                        ));
                    } else if !pipeline.reports.source.connected() {
                        problems.push(format!("the journal of `{}` cannot be read for `{key}`", source.name));
                    } else if !lane.report.connected() && lane.figures.queue_records.get() > 0 {
                        problems.push(format!(
                            "destination `{key}` is not reachable; the journal keeps what it must get"
                        ));
                    }
                }
            }
            let trouble = source.journal.iter().filter_map(|journal| journal.0.status().trouble);
            problems.extend(trouble.map(|why| format!("the journal of `{}`: {why}", source.name)));
        }
        problems
    }
}

impl SourceStatus {
    /// Every pipeline that carries its events.
    pub fn pipelines(&self) -> impl Iterator<Item = &PipelineStatus> {
        self.intake.iter().chain(&self.behind)
    }

    /// Everything that its events go into, the journal too.
    pub fn lanes(&self) -> impl Iterator<Item = &DestinationStatus> {
        self.pipelines().flat_map(|pipeline| &pipeline.lanes)
    }

    /// Whether what it reads is there, or what it reads is the business of another daemon.
    pub fn connected(&self) -> bool {
        self.intake.as_ref().is_none_or(|intake| intake.reports.source.connected())
    }

    /// Events that entered its pipeline here.
    pub fn events(&self) -> u64 {
        self.intake.as_ref().map_or(0, |intake| intake.figures.events.get())
    }

    /// How old what it reads is; 0 when it has read all there is.
    pub fn lag_seconds(&self) -> f64 {
        let measures = self.intake.as_ref().map(|intake| intake.reports.source.measures());
        measures.and_then(|measures| measures.get(&Measure::SourceLagSeconds).copied()).unwrap_or(0.0)
    }

    fn checkpoint_age(&self) -> Option<f64> {
        self.intake.as_ref()?.checkpoint_age()
    }

    fn to_json(&self) -> Value {
        let reports = self.intake.as_ref().map(|intake| &intake.reports);
        let measures = reports.map(|reports| reports.source.measures()).unwrap_or_default();
        let own = self.intake.iter().flat_map(|intake| &intake.lanes).map(DestinationStatus::to_json);
        let behind = self.behind.iter().flat_map(|pipeline| {
            pipeline.lanes.iter().map(|lane| {
                let mut json = lane.to_json();
                json["pipeline"] = pipeline.key.clone().into();
                json["checkpoint"] = pipeline.checkpoint();
                json["events"] = pipeline.figures.events.get().into();
                json["reader"] = json!(pipeline.reports.source.details());
                json
            })
        });
        json!({
            "name": self.name,
            "type": self.kind,
            "connected": self.connected(),
            "events": self.events(),
            "bytes": self.intake.as_ref().map_or(0, |intake| intake.figures.bytes.get()),
            "checkpoint": self.intake.as_ref().map_or_else(|| json!({"position": null, "age_seconds": null}), PipelineStatus::checkpoint),
            "measures": measures.iter().map(|(m, v)| (m.name().to_owned(), json!(v))).collect::<serde_json::Map<_, _>>(),
            "details": reports.map(|reports| reports.source.details()).unwrap_or_default(),
            "snapshot": self.snapshots.report(),
            "journal": self.journal.as_ref().map(JournalDesk::to_json),
            "destinations": own.chain(behind).collect::<Vec<_>>(),
        })
    }
}

impl PipelineStatus {
    /// The latest position that is stored.
    pub fn stored(&self) -> Option<StoredAt> {
        self.stored.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn checkpoint_age(&self) -> Option<f64> {
        Some(self.stored()?.at?.elapsed().as_secs_f64())
    }

    fn checkpoint(&self) -> Value {
        let position = self.stored().map(|stored| {
            let text = stored.position.to_string();
            serde_json::from_str(&text).unwrap_or(Value::String(text))
        });
        json!({"position": position, "age_seconds": self.checkpoint_age()})
    }
}

impl JournalDesk {
    fn to_json(&self) -> Value {
        let status = self.0.status();
        let readers = status.readers.iter().map(|reader| {
            json!({
                "name": reader.name,
                "behind_bytes": reader.behind,
                "parked": reader.parked,
                "running": reader.running,
            })
        });
        json!({
            "bytes": status.bytes,
            "max_bytes": status.max_bytes,
            "oldest_age_seconds": status.oldest.map(|oldest| {
                Duration::from_micros(u64::try_from(now_micros() - oldest).unwrap_or(0)).as_secs_f64()
            }),
            "readers": readers.collect::<Vec<_>>(),
        })
    }
}

impl DestinationStatus {
    /// How old the newest delivered event is while more are waiting; 0 when none wait.
    pub fn lag_seconds(&self) -> f64 {
        let newest = self.figures.newest_delivered_micros.load(std::sync::atomic::Ordering::Relaxed);
        if self.figures.queue_records.get() == 0 || newest == 0 {
            return 0.0;
        }
        Duration::from_micros(u64::try_from(now_micros() - newest).unwrap_or(0)).as_secs_f64()
    }

    fn to_json(&self) -> Value {
        let figures = &self.figures;
        json!({
            "name": self.name,
            "type": self.kind,
            "required": self.required,
            "connected": self.report.connected(),
            "delivered": figures.delivered.get(),
            "filtered": figures.filtered.get(),
            "dead_lettered": figures.dead_lettered.get(),
            "dropped": figures.dropped.get(),
            "returned": figures.returned.get(),
            "retries": figures.retries.get(),
            "queue_records": figures.queue_records.get(),
            "queue_bytes": figures.queue_bytes.get(),
            "lag_seconds": self.lag_seconds(),
            "details": self.report.details(),
        })
    }
}

/// Serves until `end`.
pub async fn serve(listener: TcpListener, status: Arc<Status>, end: CancellationToken) {
    let live = get(|State(status): State<Arc<Status>>| async move { verdict(&status.stuck()) });
    let ready = get(|State(status): State<Arc<Status>>| async move { verdict(&status.not_ready()) });
    let routes = Router::new()
        .merge(snapshot::routes())
        .merge(orders::routes())
        .merge(dead_letters::routes())
        .merge(schemas::routes())
        .route("/live", live.clone())
        .route("/livez", live.clone())
        .route("/healthz", live)
        .route("/ready", ready.clone())
        .route("/readyz", ready)
        .route("/metrics", get(metrics::page))
        .route(
            "/status",
            get(|State(status): State<Arc<Status>>| async move { axum_json(&status.to_json()) }),
        )
        .with_state(status);
    let service = routes.into_make_service_with_connect_info::<SocketAddr>();
    let served = axum::serve(listener, service).with_graceful_shutdown(end.cancelled_owned()).await;
    if let Err(error) = served {
        error!(error = %error, "the admin server ended");
    }
}

/// 200 `ok`, or 503 with one reason a line.
fn verdict(reasons: &[String]) -> Response {
    if reasons.is_empty() {
        return "ok\n".into_response();
    }
    (StatusCode::SERVICE_UNAVAILABLE, reasons.join("\n") + "\n").into_response()
}

fn axum_json(value: &Value) -> Response {
    ([(header::CONTENT_TYPE, "application/json")], value.to_string() + "\n").into_response()
}

/// Logs when the daemon is ready first, tells a service manager so (systemd, `Type=notify`), and, if that asked for a
/// watchdog, that it lives.
pub async fn notify_service_manager(status: Arc<Status>) {
    const LOOK_EVERY: Duration = Duration::from_millis(200);
    let notify = |states: &[sd_notify::NotifyState<'_>]| {
        if let Err(error) = sd_notify::notify(states) {
            warn!(error = %error, "the service manager could not be told");
        }
    };
    while !status.not_ready().is_empty() {
        tokio::time::sleep(LOOK_EVERY).await;
    }
    info!(after_ms = u64::try_from(status.started.elapsed().as_millis()).unwrap_or(u64::MAX), "ready");
    notify(&[sd_notify::NotifyState::Ready]);
    let Some(every) = sd_notify::watchdog_enabled() else { return };
    loop {
        if status.stuck().is_empty() {
            notify(&[sd_notify::NotifyState::Watchdog]);
        }
        tokio::time::sleep(every / 3).await;
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// A source with one required destination, both reachable.
    pub(crate) fn healthy_source(telemetry: &Telemetry) -> SourceStatus {
        let (reports, report) = (PipelineReports::default(), Report::default());
        [&reports.source, &reports.checkpoint, &report]
            .into_iter()
            .for_each(|report| report.set_connected(true));
        let state = Arc::new(crate::state::MemoryState::default());
        let lane = DestinationStatus {
            name: "lake".into(),
            kind: "kafka".into(),
            required: true,
            report,
            figures: telemetry.lane("shop", "lake"),
        };
        let intake = PipelineStatus {
            key: "shop".into(),
            reports,
            figures: telemetry.source("shop"),
            stored: Arc::default(),
            budget: Budget::new(1),
            courtesies: Vec::new(),
            lanes: vec![lane],
        };
        SourceStatus {
            name: "shop".into(),
            kind: "postgres".into(),
            intake: Some(intake),
            snapshots: Arc::new(SnapshotDesk::new("shop", state.clone(), telemetry.snapshot("shop"))),
            schemas: Arc::new(SourceSchemas::new("shop", state)),
            behind: Vec::new(),
            journal: None,
        }
    }

    /// A daemon with so many of them.
    pub(crate) fn healthy(sources: usize) -> Status {
        let settings = Settings { name: "edge".into(), environment: "test".into(), ..Settings::default() };
        let status = Status::new(&settings, Arc::default(), Orders::nowhere());
        status.show((0..sources).map(|_| healthy_source(&status.telemetry)).collect(), Vec::new());
        status
    }

    #[tokio::test(start_paused = true)]
    async fn a_loop_that_is_stuck_turns_liveness_and_readiness_red_within_30_s_and_is_named() {
        let loops = ["source `shop`", "stage of `shop`", "checkpoint of `shop`", "lane `shop` → `lake`"];
        for (stuck, name) in loops.into_iter().enumerate() {
            let status = healthy(1);
            let sources = status.sources();
            let intake = sources[0].intake.as_ref().unwrap();
            let reports = &intake.reports;
            let all = [&reports.source, &reports.stage, &reports.checkpoint, &intake.lanes[0].report];
            let begun = Instant::now();
            while begun.elapsed() < Duration::from_secs(29) {
                assert!(begun.elapsed() > Duration::from_secs(10) || status.not_ready().is_empty());
                tokio::time::advance(Duration::from_secs(1)).await;
                let turning = all.iter().enumerate().filter(|(at, _)| *at != stuck);
                turning.for_each(|(_, report)| report.turned());
            }
            assert_eq!(status.stuck().len(), 1, "{:?}", status.stuck());
            assert!(status.stuck()[0].starts_with(name), "{:?}", status.stuck());
            assert_eq!(status.not_ready(), status.stuck());
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_server_that_is_away_turns_readiness_red_and_not_liveness() {
        let status = healthy(1);
        status.sources()[0].intake.as_ref().unwrap().lanes[0].report.set_connected(false);
        assert_eq!(status.not_ready(), ["required destination `lake` is not reachable from `shop`"]);
        assert!(status.stuck().is_empty());
    }

    #[tokio::test(start_paused = true)]
    async fn a_checkpoint_that_cannot_be_stored_turns_readiness_red() {
        let status = healthy(1);
        status.sources()[0].intake.as_ref().unwrap().reports.checkpoint.set_connected(false);
        assert_eq!(status.not_ready(), ["the checkpoint of `shop` cannot be stored in `data_dir`"]);
        assert!(status.stuck().is_empty());
    }
}
