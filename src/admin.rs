//! What the daemon tells about itself: `/live`, `/ready`, `/metrics`, `/status`, and the schemas of its events below
//! `/s`, on a port of its own. And what it is told there: `/snapshot`, `/dead_letters`.
//!
//! Liveness is about us alone: every loop turned lately. Readiness is about the world: what must be reachable is.
//! Both are computed when they are asked for, from pulses that the loops set themselves; nothing is cached, so
//! nothing can be stale.

pub mod ask;
mod command;
pub mod dead_letters;
mod metrics;
pub mod schemas;
pub mod snapshot;

use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use axum::Router;
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use forebay_api::{Budget, Measure, Report};
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tracing::{error, info, warn};

use crate::dead_letters::{DeadLetters, now_micros};
use crate::pipeline::{PipelineReports, StoredAt};
use crate::schemas::SourceSchemas;
use crate::snapshot::SnapshotDesk;
use crate::telemetry::{LaneFigures, SourceFigures, Telemetry};

/// All that there is to tell.
#[derive(Debug)]
pub struct Status {
    /// The daemon's name.
    pub name: String,
    /// Where it runs.
    pub environment: String,
    /// When it started.
    pub started: Instant,
    /// Memory of events between each source and its destinations.
    pub budgets: Vec<Budget>,
    /// The sources, in the order of the configuration.
    pub sources: Vec<SourceStatus>,
    /// The dead letters of each destination.
    pub dead_letters: Vec<Arc<DeadLetters>>,
    /// Counters.
    pub telemetry: Arc<Telemetry>,
    /// `/ready` turns red when a source lags by more.
    pub ready_max_lag: Option<Duration>,
}

/// One source and its lanes.
#[derive(Debug)]
pub struct SourceStatus {
    /// Its name.
    pub name: String,
    /// Its type.
    pub kind: String,
    /// The pulses of its loops.
    pub reports: PipelineReports,
    /// What it counts.
    pub figures: SourceFigures,
    /// What is stored.
    pub stored: Arc<Mutex<Option<StoredAt>>>,
    /// What is copied.
    pub snapshots: Arc<SnapshotDesk>,
    /// The schemas that it has generated.
    pub schemas: Arc<SourceSchemas>,
    /// Its lanes.
    pub destinations: Vec<DestinationStatus>,
}

/// One lane.
#[derive(Debug)]
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
    /// The loops that do not turn, by name; empty when the daemon is live.
    pub fn stuck(&self) -> Vec<String> {
        let mut stuck = Vec::new();
        let mut look = |name: String, report: &Report| {
            if report.idle() > Report::MUST_TURN_WITHIN {
                stuck.push(format!("{name} has not turned for {} s", report.idle().as_secs()));
            }
        };
        for source in &self.sources {
            look(format!("source `{}`", source.name), &source.reports.source);
            look(format!("stage of `{}`", source.name), &source.reports.stage);
            look(format!("checkpoint of `{}`", source.name), &source.reports.checkpoint);
            for lane in &source.destinations {
                look(format!("lane `{}` → `{}`", source.name, lane.name), &lane.report);
            }
        }
        stuck
    }

    /// Why the daemon is not ready; empty when it is.
    pub fn not_ready(&self) -> Vec<String> {
        let mut why = self.stuck();
        for source in &self.sources {
            if !source.reports.source.connected() {
                why.push(format!("source `{}` is not connected", source.name));
            }
            if source.reports.source.connected() && !source.reports.checkpoint.connected() {
                why.push(format!("the checkpoint of `{}` cannot be stored in `data_dir`", source.name));
            }
            for lane in source.destinations.iter().filter(|lane| lane.required && !lane.report.connected()) {
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
        let sum = |of: fn(&Budget) -> usize| self.budgets.iter().map(of).sum();
        (sum(Budget::used), sum(Budget::limit))
    }

    /// Says of every loop that it turns: while the start waits for something, none of them runs yet.
    pub fn turned(&self) {
        for source in &self.sources {
            let reports = &source.reports;
            [&reports.source, &reports.stage, &reports.checkpoint].into_iter().for_each(Report::turned);
            source.destinations.iter().for_each(|lane| lane.report.turned());
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
            "sources": self.sources.iter().map(SourceStatus::to_json).collect::<Vec<_>>(),
            "dead_letters": self.dead_letters.iter().map(|kept| kept.to_json()).collect::<Vec<_>>(),
        })
    }

    /// What is wrong, also with destinations that readiness does not look at.
    fn problems(&self) -> Vec<String> {
        let mut problems = self.not_ready();
        for source in &self.sources {
            for lane in source.destinations.iter().filter(|lane| !lane.required) {
                let details = lane.report.details();
                if let Some(why) = details.get(crate::lane::STOPPED) {
                    problems.push(format!("best-effort destination `{}` has stopped: {why}", lane.name));
                } else if !lane.report.connected() {
                    problems.push(format!("best-effort destination `{}` is not reachable", lane.name));
                }
            }
        }
        problems
    }
}

impl SourceStatus {
    /// How old what it reads is; 0 when it has read all there is.
    pub fn lag_seconds(&self) -> f64 {
        self.reports.source.measures().get(&Measure::SourceLagSeconds).copied().unwrap_or(0.0)
    }

    fn stored(&self) -> Option<StoredAt> {
        self.stored.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn checkpoint_age(&self) -> Option<f64> {
        Some(self.stored()?.at?.elapsed().as_secs_f64())
    }

    fn to_json(&self) -> Value {
        let stored = self.stored();
        let position = stored.as_ref().map(|stored| {
            let text = stored.position.to_string();
            serde_json::from_str(&text).unwrap_or(Value::String(text))
        });
        let measures = self.reports.source.measures();
        json!({
            "name": self.name,
            "type": self.kind,
            "connected": self.reports.source.connected(),
            "events": self.figures.events.get(),
            "bytes": self.figures.bytes.get(),
            "checkpoint": {"position": position, "age_seconds": self.checkpoint_age()},
            "measures": measures.iter().map(|(m, v)| (m.name().to_owned(), json!(v))).collect::<serde_json::Map<_, _>>(),
            "details": self.reports.source.details(),
            "snapshot": self.snapshots.report(),
            "destinations": self.destinations.iter().map(DestinationStatus::to_json).collect::<Vec<_>>(),
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
mod tests {
    use super::*;

    /// A daemon with one source and one required destination, both reachable.
    pub(super) fn healthy() -> Status {
        let telemetry = Telemetry::default();
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
        let source = SourceStatus {
            name: "shop".into(),
            kind: "postgres".into(),
            reports,
            figures: telemetry.source("shop"),
            stored: Arc::default(),
            snapshots: Arc::new(SnapshotDesk::new("shop", state.clone(), telemetry.snapshot("shop"))),
            schemas: Arc::new(SourceSchemas::new("shop", state)),
            destinations: vec![lane],
        };
        Status {
            name: "edge".into(),
            environment: "test".into(),
            started: Instant::now(),
            budgets: vec![Budget::new(1)],
            sources: vec![source],
            dead_letters: Vec::new(),
            telemetry: Arc::new(telemetry),
            ready_max_lag: None,
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_loop_that_is_stuck_turns_liveness_and_readiness_red_within_30_s_and_is_named() {
        let loops = ["source `shop`", "stage of `shop`", "checkpoint of `shop`", "lane `shop` → `lake`"];
        for (stuck, name) in loops.into_iter().enumerate() {
            let status = healthy();
            let source = &status.sources[0];
            let reports = &source.reports;
            let all = [&reports.source, &reports.stage, &reports.checkpoint, &source.destinations[0].report];
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
        let status = healthy();
        status.sources[0].destinations[0].report.set_connected(false);
        assert_eq!(status.not_ready(), ["required destination `lake` is not reachable from `shop`"]);
        assert!(status.stuck().is_empty());
    }

    #[tokio::test(start_paused = true)]
    async fn a_checkpoint_that_cannot_be_stored_turns_readiness_red() {
        let status = healthy();
        status.sources[0].reports.checkpoint.set_connected(false);
        assert_eq!(status.not_ready(), ["the checkpoint of `shop` cannot be stored in `data_dir`"]);
        assert!(status.stuck().is_empty());
    }
}
