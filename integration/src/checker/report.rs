//! What a checker found: counts, and the first few offenders of each kind.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

/// How many offenders of each kind are shown.
const SHOWN: usize = 5;

/// A kind of defect.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Defect {
    /// Committed, and never delivered.
    Lost,
    /// Not in the commit order of its key, or a repeat without its successors.
    OutOfOrder,
    /// A change that came under two ids.
    SecondId,
    /// An id that came with two bodies.
    SecondBody,
    /// Delivered, though rolled back or never written.
    NeverCommitted,
    /// Says something else than what happened.
    Altered,
    /// No envelope at all.
    Malformed,
    /// Replaying the output does not give what the tables hold.
    Replay,
    /// Came more than once under one id; allowed where delivery is at least once.
    Repeated,
}

impl Defect {
    /// What is promised by at least once: everything but to come once.
    const AT_LEAST_ONCE: [Defect; 8] = [
        Defect::Lost,
        Defect::OutOfOrder,
        Defect::SecondId,
        Defect::SecondBody,
        Defect::NeverCommitted,
        Defect::Altered,
        Defect::Malformed,
        Defect::Replay,
    ];

    fn name(self) -> &'static str {
        match self {
            Defect::Lost => "lost",
            Defect::OutOfOrder => "out of order",
            Defect::SecondId => "repeated with another id",
            Defect::SecondBody => "same id with another body",
            Defect::NeverCommitted => "never committed",
            Defect::Altered => "altered",
            Defect::Malformed => "malformed",
            Defect::Replay => "replay differs",
            Defect::Repeated => "repeated",
        }
    }
}

#[derive(Debug, Default)]
struct Offenders {
    count: u64,
    first: Vec<String>,
}

/// The verdict on one output.
#[derive(Debug, Default)]
pub struct Report {
    /// How many events came, repeats included.
    pub events: u64,
    /// How many of them tell of no change of a row: schemas and messages.
    pub others: u64,
    /// How many of them are copied rows.
    pub copied: u64,
    /// How many changes were committed.
    pub changes: u64,
    /// How many of the changes came only as part of a copied row, or of none that was left.
    pub before: u64,
    /// The id of each committed change, in the order of the ledger; none where it never came. Two outputs agree when
    /// these do.
    pub ids: Vec<Option<Arc<str>>>,
    found: BTreeMap<Defect, Offenders>,
}

impl Report {
    pub(super) fn note(&mut self, defect: Defect, offender: impl FnOnce() -> String) {
        let offenders = self.found.entry(defect).or_default();
        offenders.count += 1;
        if offenders.first.len() < SHOWN {
            offenders.first.push(offender());
        }
    }

    /// How many defects of a kind were found.
    pub fn count(&self, defect: Defect) -> u64 {
        self.found.get(&defect).map_or(0, |offenders| offenders.count)
    }

    /// The kinds that were found.
    pub fn defects(&self) -> Vec<Defect> {
        self.found.keys().copied().collect()
    }

    /// Panics with the report unless everything came, in order, and repeats are all that is too much.
    #[track_caller]
    pub fn expect_at_least_once(&self) {
        self.expect_none_of(&Defect::AT_LEAST_ONCE);
    }

    /// Panics with the report unless everything came once and in order.
    #[track_caller]
    pub fn expect_exactly_once(&self) {
        self.expect_at_least_once();
        self.expect_none_of(&[Defect::Repeated]);
    }

    /// Panics with the report unless what came is right and in order: a best-effort destination may lack some.
    #[track_caller]
    pub fn expect_best_effort(&self) {
        let lack = |defect: &Defect| matches!(defect, Defect::Lost | Defect::Replay);
        let others: Vec<Defect> = Defect::AT_LEAST_ONCE.into_iter().filter(|defect| !lack(defect)).collect();
        self.expect_none_of(&others);
    }

    #[track_caller]
    fn expect_none_of(&self, defects: &[Defect]) {
        assert!(defects.iter().all(|defect| self.count(*defect) == 0), "{self}");
        assert!(self.changes > 0, "nothing was committed, so nothing was proven");
    }
}

impl fmt::Display for Report {
    fn fmt(&self, to: &mut fmt::Formatter<'_>) -> fmt::Result {
        let delivered = self.changes - self.before - self.count(Defect::Lost);
        writeln!(
            to,
            "{} events: {delivered} of {} changes ({} before the stream), {} repeats, {} copied rows, {} of other kinds",
            self.events,
            self.changes,
            self.before,
            self.count(Defect::Repeated),
            self.copied,
            self.others
        )?;
        for (defect, offenders) in self.found.iter().filter(|(defect, _)| **defect != Defect::Repeated) {
            writeln!(to, "  {}: {}", defect.name(), offenders.count)?;
            for offender in &offenders.first {
                writeln!(to, "    {offender}")?;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::panic::catch_unwind;

    use super::*;

    #[test]
    fn each_promise_is_broken_by_just_its_defects() {
        use Defect::{
            Altered, Lost, Malformed, NeverCommitted, OutOfOrder, Repeated, Replay, SecondBody, SecondId,
        };
        for defect in
            [Lost, OutOfOrder, SecondId, SecondBody, NeverCommitted, Altered, Malformed, Replay, Repeated]
        {
            let mut report = Report { changes: 2, ..Report::default() };
            report.note(defect, || "the offender".to_owned());
            let breaks = |expect: fn(&Report)| catch_unwind(|| expect(&report)).is_err();
            let repeated = defect == Repeated;
            assert_eq!(breaks(Report::expect_at_least_once), !repeated, "{defect:?}");
            assert!(breaks(Report::expect_exactly_once), "{defect:?}");
            let lack = matches!(defect, Lost | Replay);
            assert_eq!(breaks(Report::expect_best_effort), !repeated && !lack, "{defect:?}");
        }
    }
}
