//! `GET /metrics`: counters, and what is read at the moment when it is asked for.

use std::fmt::Write;
use std::sync::Arc;

use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use forebay_api::Measure;
use tracing::warn;

use super::{PipelineStatus, SourceStatus, Status};
use crate::snapshot::TableState;
use crate::telemetry::{SNAPSHOT_ROWS_LEFT, SNAPSHOT_TABLES};

/// Writes a gauge: its name, what it means, and its samples with their labels.
type Gauge<'g> = dyn FnMut(&str, &str, Vec<(String, f64)>) -> std::fmt::Result + 'g;

pub(super) async fn page(State(status): State<Arc<Status>>) -> Response {
    match status.metrics() {
        Ok(text) => {
            const OPEN_METRICS: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";
            ([(header::CONTENT_TYPE, OPEN_METRICS)], text).into_response()
        }
        Err(error) => {
            warn!(error = %error, "metrics could not be written");
            StatusCode::INTERNAL_SERVER_ERROR.into_response()
        }
    }
}

impl Status {
    /// The Prometheus text: counters, then what is read at this moment.
    pub(crate) fn metrics(&self) -> Result<String, std::fmt::Error> {
        let mut text = String::new();
        prometheus_client::encoding::text::encode_registry(&mut text, &self.telemetry.registry)?;
        let mut gauge = |name: &str, help: &str, samples: Vec<(String, f64)>| -> std::fmt::Result {
            writeln!(text, "# HELP forebay_{name} {help}.\n# TYPE forebay_{name} gauge")?;
            samples
                .iter()
                .try_for_each(|(labels, value)| writeln!(text, "forebay_{name}{{{labels}}} {value}"))
        };
        let sources = self.sources();
        let of = |value: fn(&SourceStatus) -> Option<f64>| -> Vec<(String, f64)> {
            let labelled =
                |source: &SourceStatus| Some((format!("source=\"{}\"", source.name), value(source)?));
            sources.iter().filter_map(labelled).collect()
        };
        let mut up = of(|source| Some(f64::from(u8::from(source.connected()))));
        for source in &*sources {
            let replays = |pipeline: &&PipelineStatus| pipeline.key.matches('/').count() < 2;
            for lane in source.pipelines().filter(replays).flat_map(|pipeline| &pipeline.lanes) {
                let labels = format!("source=\"{}\",destination=\"{}\"", source.name, lane.name);
                up.push((labels, f64::from(u8::from(lane.report.connected()))));
            }
        }
        gauge("up", "Whether the source or destination is reachable", up)?;
        gauge(
            "checkpoint_age_seconds",
            "Time since the checkpoint was stored",
            of(SourceStatus::checkpoint_age),
        )?;
        self.snapshot_gauges(&mut gauge)?;
        self.journal_gauges(&mut gauge)?;
        for measure in Measure::ALL {
            let samples = sources.iter().filter_map(|source| {
                let value = *source.intake.as_ref()?.reports.source.measures().get(&measure)?;
                Some((format!("source=\"{}\"", source.name), value))
            });
            gauge(measure.name(), measure.help(), samples.collect())?;
        }
        let plain = |value: f64| vec![(String::new(), value)];
        #[expect(clippy::cast_precision_loss, reason = "Prometheus values are floats")]
        {
            gauge(
                "memory_used_bytes",
                "Bytes of events between sources and destinations",
                plain(self.memory().0 as f64),
            )?;
            gauge("memory_budget_bytes", "Bytes of events that may be there", plain(self.memory().1 as f64))?;
        }
        let build = format!("version=\"{}\"", env!("CARGO_PKG_VERSION"));
        gauge("build_info", "The version that runs", vec![(build, 1.0)])?;
        // The text format wants its end marker last.
        Ok(text.replace("# EOF\n", "") + "# EOF\n")
    }

    #[expect(clippy::cast_precision_loss, reason = "Prometheus values are floats")]
    fn journal_gauges(&self, gauge: &mut Gauge<'_>) -> std::fmt::Result {
        let (mut bytes, mut most, mut behind, mut parked) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
        for source in self.sources().iter() {
            let Some(journal) = source.journal.as_ref().map(|journal| journal.0.status()) else { continue };
            let labels = format!("source=\"{}\"", source.name);
            bytes.extend(journal.bytes.map(|bytes| (labels.clone(), bytes as f64)));
            most.extend(journal.max_bytes.map(|bytes| (labels.clone(), bytes as f64)));
            for reader in &journal.readers {
                let labels = format!("{labels},destination=\"{}\"", reader.name);
                behind.extend(reader.behind.map(|bytes| (labels.clone(), bytes as f64)));
                parked.push((labels, f64::from(u8::from(reader.parked))));
            }
        }
        gauge("journal_bytes", "Bytes that the journal has on disk", bytes)?;
        gauge("journal_max_bytes", "Bytes that the journal may have on disk", most)?;
        gauge("journal_behind_bytes", "Bytes of the journal that the destination has yet to get", behind)?;
        gauge("journal_parked", "Whether the destination was cut off by the journal to make room", parked)
    }

    #[expect(clippy::cast_precision_loss, reason = "Prometheus values are floats")]
    fn snapshot_gauges(&self, gauge: &mut Gauge<'_>) -> std::fmt::Result {
        let (mut tables, mut left) = (Vec::new(), Vec::new());
        for source in self.sources().iter() {
            // nothing is known before the source was read first
            let Some(report) = source.snapshots.report() else { continue };
            for state in TableState::ALL {
                let count = report.tables.iter().filter(|table| table.state == state).count();
                let labels = format!("source=\"{}\",state=\"{}\"", source.name, state.as_str());
                tables.push((labels, count as f64));
            }
            let labels = format!("source=\"{}\"", source.name);
            left.push((labels, report.totals.estimated_rows_left as f64));
        }
        gauge(SNAPSHOT_TABLES, "Tables by what their copy is at", tables)?;
        gauge(SNAPSHOT_ROWS_LEFT, "Rows that are left to copy, as the server estimates them", left)
    }
}
