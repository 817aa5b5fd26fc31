//! The table that is printed: medians of all rounds.

use std::fmt;

use forebay_integration::bench::{MILLION, median};

use crate::copies::{Kind, Run};

/// All rounds.
pub(crate) struct Report {
    rows: u32,
    /// On one connection and on two, in each round.
    ceilings: Vec<[Run; 2]>,
    /// In each round the same destinations in the same order.
    rounds: Vec<Vec<(Kind, Run)>>,
}

impl Report {
    /// No round yet.
    pub(crate) fn new(rows: u32) -> Report {
        Report { rows, ceilings: Vec::new(), rounds: Vec::new() }
    }

    /// Adds one round.
    pub(crate) fn add(&mut self, ceilings: [Run; 2], runs: Vec<(Kind, Run)>) {
        self.ceilings.push(ceilings);
        self.rounds.push(runs);
    }

    fn row(&self, f: &mut fmt::Formatter<'_>, name: &str, runs: &[Run]) -> fmt::Result {
        let of = |figure: fn(&Run) -> f64| median(runs.iter().map(figure));
        let per_million = |figure: fn(&Run) -> f64| of(figure) * MILLION / f64::from(self.rows);
        let ratio = |ceiling: usize| {
            let rounds = runs.iter().zip(&self.ceilings);
            median(rounds.map(|(run, ceilings)| run.rate() / ceilings[ceiling].rate()))
        };
        writeln!(
            f,
            "{name:<18} {:>9.0} {:>9.2} {:>9.2} {:>9.2} {:>6.2} {:>7.2} {:>9.0} {:>9.2}",
            of(Run::rate),
            ratio(0),
            ratio(1),
            per_million(|run| run.usage.cpu()),
            per_million(|run| run.usage.user),
            per_million(|run| run.usage.system),
            of(|run| run.memory),
            of(|run| run.first.as_secs_f64()),
        )
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let runs = || self.rounds.iter().flatten();
        let bytes = runs().find_map(|(_, run)| run.event_bytes);
        let bytes = bytes.map_or(String::new(), |bytes| format!(", {bytes} bytes an event"));
        writeln!(f, "initial copy: {} rows{bytes}, median of {}", self.rows, self.rounds.len())?;
        writeln!(
            f,
            "{:<18} {:>9} {:>9} {:>9} {:>9} {:>6} {:>7} {:>9} {:>9}",
            "", "rows/s", "× COPY", "× 2 COPY", "CPU-s/M", "user", "system", "peak MiB", "first s"
        )?;
        for (at, name) in ["COPY", "COPY, 2 at a time"].into_iter().enumerate() {
            let ceilings: Vec<Run> = self.ceilings.iter().map(|ceilings| ceilings[at]).collect();
            self.row(f, name, &ceilings)?;
        }
        let kinds = self.rounds.first().into_iter().flatten().map(|(kind, _)| *kind);
        for kind in kinds {
            let of_kind: Vec<Run> = runs().filter(|(other, _)| *other == kind).map(|(_, run)| *run).collect();
            self.row(f, &kind.to_string(), &of_kind)?;
        }
        Ok(())
    }
}
