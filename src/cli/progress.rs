//! The line of progress on a terminal: what flows, and how far each destination is behind.

use std::convert::Infallible;
use std::fmt::Write;
use std::sync::Arc;
use std::time::Duration;

use indicatif::{HumanCount, ProgressBar};
use tokio::time::Instant;

use super::snapshot::of_totals;
use crate::admin::{SourceStatus, Status};
use crate::snapshot::{SnapshotState, Totals};

/// How many signs a bar has.
const BAR: u64 = 20;

/// How often the figures are read anew.
const EVERY: Duration = Duration::from_millis(500);

/// Rewrites the line until it is dropped.
pub(super) async fn show(status: Arc<Status>, bar: ProgressBar) -> Infallible {
    if bar.is_hidden() {
        return std::future::pending().await;
    }
    let mut before = vec![0; status.sources.len()];
    let mut read = Instant::now();
    loop {
        tokio::time::sleep(EVERY).await;
        let seconds = read.elapsed().as_secs_f64();
        read = Instant::now();
        let mut line = String::new();
        for (source, before) in status.sources.iter().zip(&mut before) {
            let events = source.figures.events.get();
            let rate = per_second(events.saturating_sub(*before), seconds);
            *before = events;
            if !line.is_empty() {
                line.push_str(" │ ");
            }
            line.push_str(&of_source(source, rate));
        }
        bar.set_message(line);
        bar.tick();
    }
}

/// `shop 1,234/s, 56,789 events → files 0.0 s, lake 1.2 s behind`.
fn of_source(source: &SourceStatus, rate: u64) -> String {
    if !source.reports.source.connected() {
        return format!("{}: not connected", source.name);
    }
    let mut text = match source.snapshots.totals() {
        Some((SnapshotState::Copying, totals)) => format!("{} {} →", source.name, of_copy(&totals)),
        _ => format!(
            "{} {}/s, {} events →",
            source.name,
            HumanCount(rate),
            HumanCount(source.figures.events.get())
        ),
    };
    for (index, lane) in source.destinations.iter().enumerate() {
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

/// `[#####---------------] 25 %, 1,234 of about 4,936 rows, 99/s, 37 seconds left, 1 of 3 tables`.
fn of_copy(totals: &Totals) -> String {
    // while something is left it is not all, whatever the estimate says
    let most = if totals.tables_ended < totals.tables { 99 } else { 100 };
    let percent = (totals.rows.saturating_mul(100) / totals.estimated_rows.max(1)).min(most);
    let done = percent * BAR / 100;
    let bar: String = (0..BAR).map(|at| if at < done { '#' } else { '-' }).collect();
    format!("[{bar}] {percent} %, {}", of_totals(totals))
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_copy_is_a_bar_with_rows_rate_time_and_tables() {
        let totals = Totals {
            tables: 3,
            tables_ended: 1,
            rows: 1_234,
            estimated_rows: 4_936,
            estimated_rows_left: 3_702,
            rate_rows_per_second: 99.6,
            left_seconds: Some(37.0),
            ..Totals::default()
        };
        let shown =
            "[#####---------------] 25 %, 1,234 of about 4,936 rows, 100/s, 37 seconds left, 1 of 3 tables";
        assert_eq!(of_copy(&totals), shown);
        let more = Totals {
            rows: 9_999,
            estimated_rows: 9_999,
            estimated_rows_left: 0,
            left_seconds: None,
            ..totals
        };
        assert!(of_copy(&more).contains("] 99 %, 9,999 rows"), "{}", of_copy(&more));
        assert!(of_copy(&Totals::default()).contains("] 0 %"));
    }
}
