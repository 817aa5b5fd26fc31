//! Copied rows among the changes: what a faithful copy looks like, and that every other one is found.

use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

use super::story::{PAGES, copied, faithful, random_story, story};
use super::{Checker, Defect, Order, Report, changes_of};
use crate::workload::{Change, Ledger, TABLES};

fn judge(ledger: &Ledger, until: i64, output: &[String]) -> Report {
    let mut checker = Checker::new(ledger, Order::Total).with_copies(until);
    output.iter().for_each(|event| checker.take(0, event.as_bytes()));
    checker.finish(&ledger.contents())
}

/// The changes whose rows are there after so many of the ledger.
fn present(ledger: &Ledger, after: usize) -> Vec<&Change> {
    let changes = &ledger.changes[..after];
    let contents = Ledger { changes: changes.to_vec(), ..Ledger::default() }.contents();
    let is_there = |change: &&Change| {
        change.key().is_some_and(|key| contents.get(change.table, &key) == change.new.as_ref())
            && change.new.is_some()
    };
    changes.iter().filter(is_there).collect()
}

/// The changes from `start` on, with a copy of all that is there in the place behind `copy` of the ledger's changes.
fn with_copy(ledger: &Ledger, start: usize, copy: usize) -> Vec<String> {
    let mut output = faithful(ledger);
    let rows: Vec<String> = present(ledger, copy).into_iter().map(copied).collect();
    output.splice(copy..copy, rows);
    output.drain(..start);
    output
}

#[test]
fn a_copy_in_any_place_of_the_stream_is_accepted() {
    for seed in 0..40 {
        let mut rng = StdRng::seed_from_u64(seed);
        let ledger = random_story(&mut rng);
        let start = rng.random_range(0..ledger.changes.len());
        let copy = rng.random_range(start..=ledger.changes.len());
        let until = start.checked_sub(1).map_or(0, |last| ledger.changes[last].version);
        let output = with_copy(&ledger, start, copy);
        let report = judge(&ledger, until, &output);
        report.expect_exactly_once();
        assert_eq!((report.before, report.copied), (start as u64, present(&ledger, copy).len() as u64));
        // After a crash: the changes from some place on, and the rows as they are by then.
        let from = rng.random_range(start..ledger.changes.len());
        let rows = present(&ledger, ledger.changes.len()).into_iter().map(copied);
        let again = output.iter().chain(&faithful(&ledger)[from..]).cloned().chain(rows).collect::<Vec<_>>();
        judge(&ledger, until, &again).expect_at_least_once();
    }
}

#[test]
fn a_change_after_the_stream_began_is_lost_without_its_event_whatever_was_copied() {
    let ledger = story();
    for missing in 3..ledger.changes.len() {
        let mut output = faithful(&ledger);
        output.remove(missing);
        output.extend(present(&ledger, ledger.changes.len()).into_iter().map(copied));
        let report = judge(&ledger, 0, &output);
        assert!(report.count(Defect::Lost) == 1, "change {missing}: {report}");
    }
    // Below the version, but its key was streamed before.
    let places = changes_of(&ledger, 0, 1);
    let mut output = faithful(&ledger);
    output.remove(places[2]);
    assert_eq!(judge(&ledger, 1_000, &output).count(Defect::Lost), 1);
}

#[test]
fn a_copied_row_that_is_older_than_the_last_event_of_its_key_is_found() {
    for seed in 0..40 {
        let mut rng = StdRng::seed_from_u64(seed);
        let ledger = random_story(&mut rng);
        let end = ledger.changes.len();
        let now = present(&ledger, end);
        let stale = ledger.changes.iter().filter(|change| {
            change.new.is_some() && !now.iter().any(|other| other.version == change.version)
        });
        for change in stale.step_by(7) {
            let mut output = faithful(&ledger);
            output.push(copied(change));
            let report = judge(&ledger, 0, &output);
            assert_eq!(report.count(Defect::OutOfOrder), 1, "seed {seed}, {change}: {report}");
        }
    }
}

#[test]
fn a_row_that_the_copy_lacks_or_that_nobody_wrote_is_found() {
    let ledger = story();
    let end = ledger.changes.len();
    let until = ledger.changes[end - 1].version;
    let rows = with_copy(&ledger, end, end);
    judge(&ledger, until, &rows).expect_exactly_once();
    for missing in 0..rows.len() {
        let mut output = rows.clone();
        output.remove(missing);
        assert_eq!(judge(&ledger, until, &output).defects(), [Defect::Replay], "row {missing}");
    }
    let doctored = |from: &str, to: &str| {
        let output: Vec<String> = rows.iter().map(|row| row.replacen(from, to, 1)).collect();
        assert_ne!(output, rows, "the doctor did nothing");
        judge(&ledger, until, &output).defects()
    };
    assert!(doctored("\"version\":1,", "\"version\":1000,").contains(&Defect::NeverCommitted));
    assert!(doctored("☃", "?").contains(&Defect::Altered));
    assert!(doctored(",\"paid\":true", "").contains(&Defect::Altered));
    assert!(doctored("\"xid\":null", "\"xid\":7").contains(&Defect::Malformed));
    assert!(doctored("\"payload\"", "\"before\":{\"id\":1},\"payload\"").contains(&Defect::Altered));
}

#[test]
fn a_value_that_only_the_copy_can_tell_must_be_told() {
    let ledger = story();
    let places = changes_of(&ledger, PAGES, 1);
    let start = places[1];
    let kept = |change: &Change| change.new.as_ref().unwrap().clone();
    assert_eq!(kept(&ledger.changes[places[0]]).last(), kept(&ledger.changes[start]).last());
    let until = ledger.changes[start - 1].version;
    let mut output = with_copy(&ledger, start, ledger.changes.len());
    judge(&ledger, until, &output).expect_exactly_once();
    let page = TABLES[PAGES].key(7);
    let row = output.iter().rposition(|event| {
        event.contains("\"snapshot\"")
            && event.contains("\"pages\"")
            && event.contains(&format!("\"key\":{{\"id\":{}}}", page[0]))
    });
    output.remove(row.unwrap());
    let report = judge(&ledger, until, &output);
    assert_eq!(report.defects(), [Defect::Replay], "{report}");
}

#[test]
fn copied_rows_are_nobodys_change_where_none_are_expected() {
    let ledger = story();
    let mut output = faithful(&ledger);
    output.push(copied(present(&ledger, ledger.changes.len())[0]));
    let mut checker = Checker::new(&ledger, Order::Total);
    output.iter().for_each(|event| checker.take(0, event.as_bytes()));
    assert_eq!(checker.finish(&ledger.contents()).defects(), [Defect::NeverCommitted]);
}
