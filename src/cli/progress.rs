//! The line of progress on a terminal: what flows, how far a copy is, and how far each destination is behind. Where
//! there is no terminal, a line in the log says now and then how far a copy is.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::fmt::Write;
use std::sync::Arc;
use std::time::Duration;

use indicatif::{HumanCount, ProgressBar};
use tokio::time::Instant;
use tracing::info;

use crate::admin::{SourceStatus, Status};
use crate::snapshot::{self, SnapshotState};

/// How often the figures are read anew.
const EVERY: Duration = Duration::from_millis(500);

/// How often the log says how far a copy is. Its begin and its end have lines of their own.
const LOG_EVERY: Duration = Duration::from_secs(30);

/// Rewrites the line until it is dropped.
pub(super) async fn show(status: Arc<Status>, bar: ProgressBar) -> Infallible {
    if bar.is_hidden() {
        return log(&status).await;
    }
    let mut before = BTreeMap::new();
    let mut read = Instant::now();
    loop {
        tokio::time::sleep(EVERY).await;
        let seconds = read.elapsed().as_secs_f64();
        read = Instant::now();
        let mut line = String::new();
        for source in status.sources().iter() {
            let events = source.events();
            let earlier = before.insert(source.name.clone(), events).unwrap_or(0);
            let rate = per_second(events.saturating_sub(earlier), seconds);
            if !line.is_empty() {
                line.push_str(" │ ");
            }
            line.push_str(&of_source(source, rate));
        }
        bar.set_message(line);
        bar.tick();
    }
}

/// Says how far each copy is, while there is one.
async fn log(status: &Status) -> Infallible {
    loop {
        tokio::time::sleep(LOG_EVERY).await;
        for source in status.sources().iter() {
            let Some((SnapshotState::Copying, totals)) = source.snapshots.totals() else { continue };
            let tables = totals.copying.join(", ");
            let (rows, estimated_rows) = (totals.rows, totals.estimated_rows);
            let rows_per_second = totals.rate_rows_per_second.round();
            let left_seconds = totals.left_seconds.map(f64::round);
            info!(source = %source.name, tables, rows, estimated_rows, rows_per_second, left_seconds, "the copy goes on");
        }
    }
}

/// `shop 1,234/s, 56,789 events → files 0.0 s, lake 1.2 s behind`.
fn of_source(source: &SourceStatus, rate: u64) -> String {
    if !source.connected() {
        return format!("{}: not connected", source.name);
    }
    let mut text = match source.snapshots.totals() {
        Some((SnapshotState::Copying, totals)) => format!("{} {} →", source.name, snapshot::bar(&totals)),
        _ => format!("{} {}/s, {} events →", source.name, HumanCount(rate), HumanCount(source.events())),
    };
    for (index, lane) in source.lanes().enumerate() {
        let comma = if index == 0 { "" } else { "," };
        let written = if lane.report.connected() {
            write!(text, "{comma} {} {:.1} s behind", lane.name, lane.lag_seconds())
        } else {
            write!(text, "{comma} {} not reachable", lane.name)
        };
        written.expect("a string takes what is written to it");
    }
    text
}

/// A count over some seconds as a whole rate.
#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_precision_loss,
    clippy::cast_sign_loss,
    reason = "a rate for people; the cast saturates"
)]
pub(super) fn per_second(count: u64, seconds: f64) -> u64 {
    (count as f64 / seconds.max(f64::EPSILON)).round() as u64
}
