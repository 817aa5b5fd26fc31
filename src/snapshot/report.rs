//! What a source tells of its snapshots: `/status`, metrics, the terminal.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use tokio::time::Instant;

use super::progress::Progress;
use super::record::{Reason, State};
use super::table::TableProgress;

/// A rate is what became durable since the oldest of so many looks …
const LOOKS: usize = 16;

/// … that are so far apart at least.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// What all of a source's copies are at.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum SnapshotState {
    /// Nothing is left to copy.
    Idle,
    /// Something is being copied.
    Copying,
    /// Something is left, and an operator holds it.
    Paused,
    /// Something is left, and the source does not run.
    Waiting,
}

/// What one table's copy is at.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum TableState {
    /// Its turn has not come.
    Waiting,
    /// It is being copied.
    Copying,
    /// An operator holds it.
    Paused,
    /// It is copied, and durable.
    Done,
    /// Nobody wants it copied.
    NotCopied,
    /// It was given up.
    Stopped,
}

impl SnapshotState {
    /// The word for it.
    pub fn as_str(self) -> &'static str {
        match self {
            SnapshotState::Idle => "idle",
            SnapshotState::Copying => "copying",
            SnapshotState::Paused => "paused",
            SnapshotState::Waiting => "waiting",
        }
    }
}

impl TableState {
    /// All of them, for metrics.
    pub const ALL: [TableState; 6] = [
        TableState::Waiting,
        TableState::Copying,
        TableState::Paused,
        TableState::Done,
        TableState::NotCopied,
        TableState::Stopped,
    ];

    /// The word for it.
    pub fn as_str(self) -> &'static str {
        match self {
            TableState::Waiting => "waiting",
            TableState::Copying => "copying",
            TableState::Paused => "paused",
            TableState::Done => "done",
            TableState::NotCopied => "not_copied",
            TableState::Stopped => "stopped",
        }
    }

    /// Whether something is left to copy.
    pub fn is_open(self) -> bool {
        matches!(self, TableState::Waiting | TableState::Copying | TableState::Paused)
    }
}

/// How far a source's snapshots are.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct SnapshotReport {
    /// What they are at.
    pub state: SnapshotState,
    /// By name.
    pub tables: Vec<TableReport>,
    /// What is being copied together, or was last.
    pub totals: Totals,
}

/// How far one table is.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct TableReport {
    /// Its name.
    pub name: String,
    /// What its copy is at.
    pub state: TableState,
    /// Rows that are durable.
    pub rows: u64,
    /// How many there are, more or less.
    pub estimated_rows: Option<u64>,
    /// Bytes of JSON that are durable.
    pub bytes: u64,
    /// Lately.
    pub rate_rows_per_second: f64,
    /// Until it is copied at that rate.
    pub left_seconds: Option<f64>,
    /// Stretches that are not copied to their end.
    pub ranges_left: usize,
    /// Chunks that are durable.
    pub chunks: u64,
    /// Which copy it is.
    pub number: u32,
    /// Why it is copied; absent where it is not.
    pub reason: Option<Reason>,
    /// Only the rows for which this holds.
    pub filter: Option<String>,
    /// Why the source refused to copy it.
    pub problem: Option<String>,
}

/// Several tables together.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Totals {
    /// How many tables.
    pub tables: usize,
    /// Those that are copied, or given up.
    pub tables_ended: usize,
    /// The names of those that are being copied now. A daemon of an earlier version does not say them.
    #[serde(default)]
    pub copying: Vec<String>,
    /// Rows that are durable.
    pub rows: u64,
    /// How many there are, more or less; a table of which nobody knows counts with what was copied.
    pub estimated_rows: u64,
    /// How many of those are left.
    pub estimated_rows_left: u64,
    /// Bytes of JSON that are durable.
    pub bytes: u64,
    /// Lately.
    pub rate_rows_per_second: f64,
    /// Until all are copied at that rate.
    pub left_seconds: Option<f64>,
}

/// A source's progress and how fast it is.
#[derive(Debug, Default)]
pub(super) struct Watched {
    pub(super) progress: Progress,
    paces: BTreeMap<Arc<str>, Pace>,
    pace: Pace,
}

/// How many rows there were at some moments of the last quarter of a minute.
#[derive(Clone, Debug, Default)]
struct Pace(VecDeque<(Instant, u64)>);

impl Pace {
    fn look(&mut self, now: Instant, rows: u64) {
        if self.0.back().is_some_and(|(_, before)| rows < *before) {
            self.0.clear();
        }
        if self.0.back().is_none_or(|(at, _)| now - *at >= LOOK_EVERY) {
            self.0.push_back((now, rows));
        }
        if self.0.len() > LOOKS {
            self.0.pop_front();
        }
    }

    #[expect(clippy::cast_precision_loss, reason = "a rate for people")]
    fn per_second(&self, now: Instant, rows: u64) -> f64 {
        let Some((at, before)) = self.0.front() else { return 0.0 };
        let seconds = (now - *at).as_secs_f64();
        if seconds > 0.0 { rows.saturating_sub(*before) as f64 / seconds } else { 0.0 }
    }
}

impl Watched {
    pub(super) fn new(progress: Progress) -> Watched {
        Watched { progress, ..Watched::default() }
    }

    /// Remembers how many rows of a table there are now.
    pub(super) fn look(&mut self, table: &Arc<str>) {
        let now = Instant::now();
        let rows = self.round().map(|(_, table)| table.record.rows).sum();
        self.pace.look(now, rows);
        match self.progress.tables.get(table) {
            Some(known) if known.record.state.is_open() => {
                self.paces.entry(table.clone()).or_default().look(now, known.record.rows);
            }
            _ => drop(self.paces.remove(table)),
        }
    }

    /// The tables that are copied together, or were last.
    fn round(&self) -> impl Iterator<Item = (&Arc<str>, &TableProgress)> {
        let round = self.progress.whole.as_ref().map_or(0, |whole| whole.round);
        let tables = self.progress.tables.iter();
        tables.filter(move |(_, table)| round > 0 && table.record.round == round)
    }

    /// What to tell; `runs`: the source does.
    pub(super) fn report(&self, runs: bool) -> SnapshotReport {
        let now = Instant::now();
        let tables = self.progress.tables.iter().map(|(name, table)| self.of_table(name, table, now));
        SnapshotReport { state: self.state(runs), tables: tables.collect(), totals: self.totals(now) }
    }

    /// What all copies together are at; `runs`: the source does.
    pub(super) fn state(&self, runs: bool) -> SnapshotState {
        match self.progress.is_open() {
            false => SnapshotState::Idle,
            true if !self.progress.is_wanted() => SnapshotState::Paused,
            true if runs => SnapshotState::Copying,
            true => SnapshotState::Waiting,
        }
    }

    pub(super) fn totals(&self, now: Instant) -> Totals {
        let mut totals = Totals::default();
        for (name, table) in self.round() {
            let record = &table.record;
            totals.tables += 1;
            if record.state == State::Copying && !record.paused && !self.progress.is_paused() {
                totals.copying.push(name.to_string());
            }
            totals.tables_ended += usize::from(!record.state.is_open());
            totals.rows += record.rows;
            totals.bytes += record.bytes;
            let left = match record.state.is_open() {
                true => record.estimated_rows.unwrap_or(0).saturating_sub(record.rows),
                false => 0,
            };
            totals.estimated_rows_left += left;
            totals.estimated_rows += record.rows + left;
        }
        totals.rate_rows_per_second = self.pace.per_second(now, totals.rows);
        totals.left_seconds = seconds(totals.estimated_rows_left, totals.rate_rows_per_second);
        totals
    }

    fn of_table(&self, name: &Arc<str>, table: &TableProgress, now: Instant) -> TableReport {
        let record = &table.record;
        let state = match record.state {
            State::Waiting | State::Copying if record.paused || self.progress.is_paused() => {
                TableState::Paused
            }
            State::Waiting => TableState::Waiting,
            State::Copying => TableState::Copying,
            State::Done => TableState::Done,
            State::NotCopied => TableState::NotCopied,
            State::Stopped => TableState::Stopped,
        };
        let rate = self.paces.get(name).map_or(0.0, |pace| pace.per_second(now, record.rows));
        let left = record.estimated_rows.map_or(0, |rows| rows.saturating_sub(record.rows));
        TableReport {
            name: name.to_string(),
            state,
            rows: record.rows,
            estimated_rows: record.estimated_rows,
            bytes: record.bytes,
            rate_rows_per_second: rate,
            left_seconds: seconds(left, rate).filter(|_| state == TableState::Copying),
            ranges_left: table.ranges_left(),
            chunks: record.chunks,
            number: record.number,
            reason: (record.state != State::NotCopied).then_some(record.reason),
            filter: record.filter.clone(),
            problem: record.problem.clone(),
        }
    }
}

/// How long `rows` take; `None` where nobody can say.
#[expect(clippy::cast_precision_loss, reason = "an estimate for people")]
fn seconds(rows: u64, rate: f64) -> Option<f64> {
    (rows > 0 && rate > 0.0).then(|| rows as f64 / rate)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_rate_is_that_of_the_last_quarter_of_a_minute() {
        let mut pace = Pace::default();
        let mut rows = 0;
        for second in 0..100 {
            pace.look(Instant::now(), rows);
            rows += if second < 50 { 10 } else { 100 };
            tokio::time::advance(Duration::from_secs(1)).await;
        }
        assert_eq!(pace.0.len(), LOOKS);
        assert!((pace.per_second(Instant::now(), rows) - 100.0).abs() < 1.0);
        tokio::time::advance(Duration::from_secs(1000)).await;
        assert!(pace.per_second(Instant::now(), rows) < 2.0, "what stands still has no rate");
        pace.look(Instant::now(), 0);
        assert_eq!(pace.0.len(), 1, "a copy that begins again has no past");
    }
}
