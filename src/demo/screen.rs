//! What the demo shows while it runs: on a terminal a few lines that are refreshed, elsewhere the same lines now and
//! then. Every figure is the shop's own count or comes from the daemon's `/status`.

use std::collections::HashMap;
use std::time::Duration;

use indicatif::{HumanCount, MultiProgress, ProgressBar, ProgressStyle};
use serde_json::Value;
use tokio::time::Instant;

use crate::snapshot::{self, SnapshotReport};

/// A rate is measured over at least this long.
const RATE_OVER: Duration = Duration::from_secs(1);
/// Where there is no terminal, the figures come so often.
const PLAIN_EVERY: Duration = Duration::from_secs(4);

/// What is to be seen at one moment.
pub(super) struct Frame {
    /// Changes that the shop has committed.
    pub(super) changes: u64,
    /// The daemon's process and what its `/status` says; `None` while it is dead.
    pub(super) daemon: Option<(u32, Option<Value>)>,
}

/// How far the copy is, as a daemon's `/status` says; `None` where it does not know yet.
pub(super) fn copy_of(status: &Value) -> Option<SnapshotReport> {
    serde_json::from_value(status["sources"][0]["snapshot"].clone()).ok()
}

/// Whether there is a copy, and it has ended.
pub(super) fn is_copied(report: &SnapshotReport) -> bool {
    report.totals.tables > 0 && report.totals.tables_ended == report.totals.tables
}

/// The terminal, or what stands for it.
pub(super) struct Screen {
    lines: Option<Lines>,
    rates: Rates,
    plain_next: Instant,
}

/// The refreshed lines of a terminal.
struct Lines {
    all: MultiProgress,
    bars: Vec<ProgressBar>,
}

impl Screen {
    /// Nothing is shown yet.
    pub(super) fn new() -> Screen {
        let all = MultiProgress::new();
        let lines = (!all.is_hidden()).then(|| Lines { all, bars: Vec::new() });
        Screen { lines, rates: Rates::default(), plain_next: Instant::now() }
    }

    /// A line that stays.
    pub(super) fn say(&self, text: &str) {
        match &self.lines {
            // a terminal that went away takes no line, and nobody misses it
            Some(lines) => drop(lines.all.println(text)),
            None => eprintln!("{text}"),
        }
    }

    /// The figures of this moment.
    pub(super) fn show(&mut self, frame: &Frame) {
        let now = Instant::now();
        let rows = self.rates.rows(frame, now);
        if let Some(lines) = &mut self.lines {
            while lines.bars.len() < rows.len() {
                let style = ProgressStyle::with_template("{wide_msg}").expect("the template is right");
                lines.bars.push(lines.all.add(ProgressBar::no_length().with_style(style)));
            }
            for (index, bar) in lines.bars.iter().enumerate() {
                bar.set_message(rows.get(index).cloned().unwrap_or_default());
            }
        } else if now >= self.plain_next {
            self.plain_next = now + PLAIN_EVERY;
            rows.iter().for_each(|row| eprintln!("{row}"));
        }
    }

    /// Takes the refreshed lines away.
    pub(super) fn clear(&mut self) {
        if let Some(lines) = &mut self.lines {
            lines.bars.drain(..).for_each(|bar| bar.finish_and_clear());
        }
        self.plain_next = Instant::now();
    }
}

/// How fast each count grows.
#[derive(Default)]
struct Rates(HashMap<String, Rate>);

struct Rate {
    at: Instant,
    count: u64,
    per_second: u64,
}

impl Rates {
    /// The count and its rate. A count that falls is a new process's, and begins anew.
    fn of(&mut self, name: &str, count: u64, now: Instant) -> u64 {
        let fresh = Rate { at: now, count, per_second: 0 };
        let rate = self.0.entry(name.to_owned()).or_insert(fresh);
        let since = now - rate.at;
        if count < rate.count {
            *rate = Rate { at: now, count, per_second: 0 };
        } else if since >= RATE_OVER {
            let millis = u64::try_from(since.as_millis()).unwrap_or(u64::MAX);
            *rate = Rate { at: now, count, per_second: (count - rate.count) * 1000 / millis };
        }
        rate.per_second
    }

    fn rows(&mut self, frame: &Frame, now: Instant) -> Vec<String> {
        let rate = self.of("shop", frame.changes, now);
        let mut rows = vec![row("shop", frame.changes, "changes committed", rate, "")];
        let Some((pid, status)) = &frame.daemon else {
            rows.push("  forebay  is dead".to_owned());
            return rows;
        };
        let Some(source) = status.as_ref().and_then(|status| status["sources"].get(0)) else {
            rows.push(format!("  forebay  pid {pid}, does not answer yet"));
            return rows;
        };
        let (events, lag) = (number(&source["events"]), &source["measures"]["source_lag_seconds"]);
        let rate = self.of("forebay", events, now);
        let rest =
            format!("lag {}   stored up to {}", seconds(lag), position(&source["checkpoint"]["position"]));
        rows.push(row("forebay", events, "read since its start", rate, &rest));
        let copy = status.as_ref().and_then(copy_of).filter(|report| report.totals.tables > 0);
        if let Some(report) = copy.filter(|report| !is_copied(report)) {
            rows.push(format!("  {:<8} {}", "copy", snapshot::bar(&report.totals)));
        }
        for destination in source["destinations"].as_array().into_iter().flatten() {
            let name = destination["name"].as_str().unwrap_or_default();
            let delivered = number(&destination["delivered"]);
            let rate = self.of(name, delivered, now);
            let waiting = HumanCount(number(&destination["queue_records"]));
            let rest = format!("lag {}   {waiting} waiting", seconds(&destination["lag_seconds"]));
            rows.push(row(&format!("→ {name}"), delivered, "delivered", rate, &rest));
        }
        rows
    }
}

fn row(name: &str, count: u64, what: &str, rate: u64, rest: &str) -> String {
    format!(
        "  {name:<8} {:>9} {what:<20} {:>7}/s   {rest}",
        HumanCount(count).to_string(),
        HumanCount(rate).to_string()
    )
}

fn number(value: &Value) -> u64 {
    value.as_u64().unwrap_or_default()
}

/// A figure that the daemon does not know is no zero.
fn seconds(value: &Value) -> String {
    value.as_f64().map_or("?".to_owned(), |seconds| format!("{seconds:.1} s"))
}

/// The stored position in PostgreSQL's own notation.
fn position(value: &Value) -> String {
    match value {
        Value::Null => "nothing yet".to_owned(),
        Value::String(text) => text.clone(),
        other => other["lsn"].as_str().map_or_else(|| other.to_string(), str::to_owned),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn figures_are_those_of_the_status() {
        let status = json!({"sources": [{
            "events": 1200, "measures": {"source_lag_seconds": 0.25}, "checkpoint": {"position": {"lsn": "0/1B2C3D4"}},
            "destinations": [{"name": "files", "delivered": 1190, "queue_records": 10, "lag_seconds": 0.04}],
        }]});
        let now = Instant::now();
        let mut rates = Rates::default();
        rates.of("files", 190, now);
        let frame = Frame { changes: 1234, daemon: Some((7, Some(status))) };
        let rows = rates.rows(&frame, now + Duration::from_secs(2));
        let words: Vec<Vec<&str>> = rows.iter().map(|row| row.split_whitespace().collect()).collect();
        assert_eq!(words[0], ["shop", "1,234", "changes", "committed", "0/s"]);
        let text = "forebay 1,200 read since its start 0/s lag 0.2 s stored up to 0/1B2C3D4";
        assert_eq!(words[1].join(" "), text);
        assert_eq!(words[2].join(" "), "→ files 1,190 delivered 500/s lag 0.0 s 10 waiting");
    }

    #[test]
    fn a_daemon_that_is_dead_or_silent_has_no_figures() {
        let mut rates = Rates::default();
        let dead = Frame { changes: 1, daemon: None };
        assert_eq!(rates.rows(&dead, Instant::now())[1].trim(), "forebay  is dead");
        let silent = Frame { changes: 1, daemon: Some((7, None)) };
        assert!(rates.rows(&silent, Instant::now())[1].contains("pid 7, does not answer"));
    }

    #[test]
    fn a_count_that_falls_begins_anew() {
        let mut rates = Rates::default();
        let now = Instant::now();
        rates.of("files", 5000, now);
        assert_eq!(rates.of("files", 10, now + Duration::from_secs(2)), 0);
        assert_eq!(rates.of("files", 310, now + Duration::from_secs(5)), 100);
    }
}
