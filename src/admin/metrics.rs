//! `GET /metrics`: counters, and what is read at the moment when it is asked for.

use std::fmt::Write;
use std::sync::Arc;

use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use forebay_api::Measure;
use tracing::warn;

use super::{SourceStatus, Status};
use crate::snapshot::TableState;
use crate::telemetry::{DEAD_LETTER_BYTES, DEAD_LETTERS, SNAPSHOT_ROWS_LEFT, SNAPSHOT_TABLES};

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
        let of = |value: fn(&SourceStatus) -> Option<f64>| -> Vec<(String, f64)> {
            let labelled =
                |source: &SourceStatus| Some((format!("source=\"{}\"", source.name), value(source)?));
            self.sources.iter().filter_map(labelled).collect()
        };
        let mut up = of(|source| Some(f64::from(u8::from(source.reports.source.connected()))));
        for source in &self.sources {
            for lane in &source.destinations {
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
        self.letter_gauges(&mut gauge)?;
        for measure in Measure::ALL {
            let samples = self.sources.iter().filter_map(|source| {
                let value = *source.reports.source.measures().get(&measure)?;
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
    fn letter_gauges(&self, gauge: &mut Gauge<'_>) -> std::fmt::Result {
        let (mut letters, mut bytes) = (Vec::new(), Vec::new());
        for kept in &self.dead_letters {
            let labels = format!("destination=\"{}\"", kept.destination());
            let (open, size) = kept.size();
            letters.push((labels.clone(), open as f64));
            bytes.push((labels, size as f64));
        }
        gauge(DEAD_LETTERS, "Dead letters that are open", letters)?;
        gauge(DEAD_LETTER_BYTES, "Bytes of the files of dead letters", bytes)
    }

    #[expect(clippy::cast_precision_loss, reason = "Prometheus values are floats")]
    fn snapshot_gauges(&self, gauge: &mut Gauge<'_>) -> std::fmt::Result {
        let (mut tables, mut left) = (Vec::new(), Vec::new());
        for source in &self.sources {
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
