//! The table that is printed: medians of all rounds.

use std::fmt;

use forebay_integration::bench::{MILLION, median};

use crate::readers::{Kind, Run};
use crate::workload::Shape;

/// All rounds of one workload.
pub(crate) struct Table {
    shape: Shape,
    changes: f64,
    ceilings: Vec<Run>,
    /// In each round the same destinations in the same order.
    rounds: Vec<Vec<(Kind, Run)>>,
}

impl Table {
    /// No round yet.
    pub(crate) fn new(shape: Shape, changes: u32) -> Table {
        Table { shape, changes: f64::from(changes), ceilings: Vec::new(), rounds: Vec::new() }
    }

    /// Adds one round.
    pub(crate) fn add(&mut self, ceiling: Run, runs: Vec<(Kind, Run)>) {
        self.ceilings.push(ceiling);
        self.rounds.push(runs);
    }

    fn row(&self, f: &mut fmt::Formatter<'_>, name: &str, runs: &[Run]) -> fmt::Result {
        let of = |figure: fn(&Run) -> f64| median(runs.iter().map(figure));
        let per_million = |figure: fn(&Run) -> f64| of(figure) * MILLION / self.changes;
        let ratios = runs.iter().zip(&self.ceilings);
        writeln!(
            f,
            "{name:<18} {:>9.0} {:>9.2} {:>9.2} {:>6.2} {:>7.2} {:>10.2} {:>9.0} {:>9.2}",
            self.changes / of(|run| run.rest.as_secs_f64()),
            median(ratios.map(|(run, ceiling)| ceiling.rest.as_secs_f64() / run.rest.as_secs_f64())),
            per_million(|run| run.usage.cpu()),
            per_million(|run| run.usage.user),
            per_million(|run| run.usage.system),
            per_million(|run| run.walsender),
            of(|run| run.memory),
            of(|run| run.first.as_secs_f64()),
        )
    }
}

impl fmt::Display for Table {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let runs = || self.rounds.iter().flatten();
        let bytes = runs().find_map(|(_, run)| run.event_bytes);
        let bytes = bytes.map_or(String::new(), |bytes| format!(", {bytes} bytes an event"));
        writeln!(f, "{}: {} changes{bytes}, median of {}", self.shape, self.changes, self.ceilings.len())?;
        writeln!(
            f,
            "{:<18} {:>9} {:>9} {:>9} {:>6} {:>7} {:>10} {:>9} {:>9}",
            "", "changes/s", "× ceiling", "CPU-s/M", "user", "system", "walsender", "peak MiB", "first s"
        )?;
        self.row(f, "pg_recvlogical", &self.ceilings)?;
        let kinds = self.rounds.first().into_iter().flatten().map(|(kind, _)| *kind);
        for kind in kinds {
            let of_kind: Vec<Run> = runs().filter(|(other, _)| *other == kind).map(|(_, run)| *run).collect();
            self.row(f, &kind.to_string(), &of_kind)?;
        }
        Ok(())
    }
}
