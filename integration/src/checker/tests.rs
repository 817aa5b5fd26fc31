//! A checker that cannot fail is worth nothing: every kind of defect is put into a faithful output and found.

mod copies;
mod story;

use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

use super::{Checker, Defect, Order, Report};
use crate::workload::{Change, Key, Ledger, Op, TABLES};
use story::{DOCUMENTS, ORDERS, PAGES, faithful, random_story, story};

fn judge(ledger: &Ledger, order: Order, output: &[String]) -> Report {
    let mut checker = Checker::new(ledger, order);
    output.iter().for_each(|event| checker.take(0, event.as_bytes()));
    checker.finish(&ledger.contents())
}

/// The places in the story of the changes of one key.
fn changes_of(ledger: &Ledger, table: usize, number: usize) -> Vec<usize> {
    let (table, key) = (&TABLES[table], Some(TABLES[table].key(number)));
    let is = |change: &Change| change.table.name == table.name && change.key() == key;
    (0..ledger.changes.len()).filter(|at| is(&ledger.changes[*at])).collect()
}

/// What the checker finds when the faithful output of the story is doctored.
fn found_after(doctor: impl FnOnce(&Ledger, &mut Vec<String>)) -> Vec<Defect> {
    let ledger = story();
    let mut output = faithful(&ledger);
    doctor(&ledger, &mut output);
    let report = judge(&ledger, Order::Total, &output);
    eprintln!("{report}");
    report.defects()
}

#[test]
fn a_faithful_output_is_accepted() {
    for order in [Order::Total, Order::PerKey, Order::None] {
        let ledger = story();
        judge(&ledger, order, &faithful(&ledger)).expect_exactly_once();
    }
}

#[test]
fn schema_events_and_messages_are_nobodys_change() {
    let found = found_after(|_, output| {
        let nowhere = "{\"commit_lsn\":null,\"xid\":null,\"ordinal\":null}";
        for op in ["schema", "message"] {
            output
                .insert(2, format!("{{\"id\":\"other\",\"op\":\"{op}\",\"source\":{nowhere},\"key\":null}}"));
        }
    });
    assert_eq!(found, []);
}

#[test]
fn a_stutter_that_goes_on_is_at_least_once_and_not_exactly_once() {
    let ledger = story();
    let mut output = faithful(&ledger);
    let again: Vec<String> = output[4..12].iter().map(|event| event.replace("now", "later")).collect();
    output.splice(12..12, again);
    let report = judge(&ledger, Order::Total, &output);
    report.expect_at_least_once();
    assert_eq!((report.count(Defect::Repeated), report.defects()), (8, vec![Defect::Repeated]));
    assert!(std::panic::catch_unwind(|| report.expect_exactly_once()).is_err());
}

#[test]
fn nothing_committed_proves_nothing() {
    let report = judge(&Ledger::default(), Order::Total, &[]);
    assert!(std::panic::catch_unwind(|| report.expect_at_least_once()).is_err());
}

#[test]
fn any_change_that_is_missing_is_lost() {
    for missing in 0..story().changes.len() {
        let found = found_after(|_, output| drop(output.remove(missing)));
        assert!(found.contains(&Defect::Lost), "change {missing}: {found:?}");
        assert!(!found.contains(&Defect::OutOfOrder), "change {missing}: {found:?}");
    }
}

#[test]
fn two_changes_of_a_key_that_change_places_are_out_of_order() {
    let found = found_after(|ledger, output| {
        let places = changes_of(ledger, ORDERS, 1);
        output.swap(places[1], places[2]);
    });
    assert_eq!(found, [Defect::OutOfOrder]);
    let found = found_after(|ledger, output| {
        let places = changes_of(ledger, ORDERS, 1);
        output.swap(places[2], places[3]);
    });
    assert_eq!(found, [Defect::OutOfOrder, Defect::Replay]);
}

#[test]
fn a_key_change_and_a_truncation_are_in_order_with_all_they_touch() {
    let place_of =
        |ledger: &Ledger, wanted: &dyn Fn(&Change) -> bool| ledger.changes.iter().position(wanted).unwrap();
    let found = found_after(|ledger, output| {
        let key_change = output
            .remove(place_of(ledger, &|change| change.table.name == "pages" && change.left().is_some()));
        output.insert(
            place_of(ledger, &|change| change.left().is_none() && change.op == Op::Update),
            key_change,
        );
    });
    assert!(found.contains(&Defect::OutOfOrder), "{found:?}");
    let found = found_after(|ledger, output| {
        let at = place_of(ledger, &|change| change.op == Op::Truncate);
        output.swap(at, at - 3);
    });
    assert!(found.contains(&Defect::OutOfOrder), "{found:?}");
}

#[test]
fn a_repeat_without_its_successors_is_out_of_order() {
    let found = found_after(|ledger, output| {
        let places = changes_of(ledger, ORDERS, 1);
        output.insert(places[3], output[places[0]].clone());
    });
    assert_eq!(found, [Defect::OutOfOrder, Defect::Repeated]);
    let found = found_after(|ledger, output| output.push(output[changes_of(ledger, ORDERS, 1)[1]].clone()));
    assert_eq!(found, [Defect::OutOfOrder, Defect::Repeated]);
}

#[test]
fn a_change_under_two_ids_is_found() {
    for at in 0..story().changes.len() {
        let found = found_after(|_, output| {
            let rest = output[at..].to_vec();
            output.extend(rest);
            output[at] = output[at].replace("shop:", "slip:");
        });
        assert!(found.contains(&Defect::SecondId), "change {at}: {found:?}");
    }
}

#[test]
fn an_id_with_two_bodies_is_found() {
    let found = found_after(|_, output| {
        let rest: Vec<String> = output[5..].to_vec();
        output.extend(rest);
        output[5] = output[5].replace("\"lsn\":\"0/1\"", "\"lsn\":\"0/2\"");
    });
    assert_eq!(found, [Defect::SecondBody, Defect::Repeated]);
    // Another change under an id that was used; its own change is then lost.
    let found = found_after(|_, output| output[1] = output[1].replace(":100:1\"", ":100:0\""));
    assert!(found.contains(&Defect::SecondBody) && found.contains(&Defect::Lost), "{found:?}");
}

#[test]
fn what_was_rolled_back_or_never_written_is_found() {
    let injected = |from: &'static str, to: &'static str| {
        found_after(move |_, output| {
            let event = output[0].replace("shop:", "slip:").replace(from, to);
            assert_ne!(event, output[0], "the doctor did nothing");
            output.insert(1, event);
        })
    };
    let rolled_back = injected("\"version\":1,", "\"version\":1000,");
    assert!(rolled_back.contains(&Defect::NeverCommitted), "{rolled_back:?}");
    let unknown = injected("\"version\":1,", "\"version\":5000,");
    assert!(unknown.contains(&Defect::NeverCommitted), "{unknown:?}");
    let delete = injected("\"op\":\"insert\"", "\"op\":\"snapshot\"");
    assert!(!delete.is_empty(), "an operation that nobody made is accepted");
    let found = found_after(|ledger, output| {
        let at = ledger.changes.iter().position(|change| change.op == Op::Delete).unwrap();
        output.push(output[at].replace("shop:", "slip:").replace("\"xid\":70", "\"xid\":80"));
    });
    assert!(found.contains(&Defect::NeverCommitted), "{found:?}");
    let elsewhere = injected("\"table\":\"orders\"", "\"table\":\"secrets\"");
    assert!(!elsewhere.is_empty(), "a table that nobody wrote is accepted");
}

#[test]
fn every_field_that_says_something_else_is_found() {
    let altered = |table: usize, number: usize, nth: usize, from: &'static str, to: &'static str| {
        let found = found_after(move |ledger, output| {
            let at = changes_of(ledger, table, number)[nth];
            let doctored = output[at].replace(from, to);
            assert_ne!(doctored, output[at], "the doctor did nothing to {doctored}");
            output[at] = doctored;
        });
        assert!(found.contains(&Defect::Altered), "{from} → {to}: {found:?}");
    };
    altered(ORDERS, 1, 0, ".50", ".5");
    altered(ORDERS, 1, 0, "\"paid\":true", "\"paid\":\"true\"");
    altered(ORDERS, 1, 0, "☃", "?");
    altered(ORDERS, 1, 0, "\"op\":\"insert\"", "\"op\":\"update\"");
    altered(ORDERS, 1, 0, "\"xid\":700", "\"xid\":701");
    altered(ORDERS, 1, 0, "\"key\":{\"id\":-19}", "\"key\":{\"id\":-18}");
    altered(ORDERS, 1, 0, "\"key\":{\"id\":-19}", "\"key\":{\"id\":-19,\"version\":2}");
    altered(ORDERS, 1, 0, "\"key\":{\"id\":-19}", "\"key\":null");
    altered(ORDERS, 1, 0, "\"paid\":true", "\"paid\":true,\"more\":1");
    altered(ORDERS, 1, 0, ",\"paid\":true", "");
    altered(ORDERS, 1, 1, "\"payload\"", "\"before\":{\"id\":-19},\"payload\"");
    altered(PAGES, 7, 0, "\"before\":{\"id\":-19},", "");
    altered(PAGES, 7, 0, "\"before\":{\"id\":-19}", "\"before\":{\"id\":-19,\"title\":null}");
    altered(PAGES, 7, 0, "[\"body\"]", "[]");
    altered(PAGES, 7, 0, "[\"body\"]", "[\"body\",\"title\"]");
    altered(DOCUMENTS, 1, 1, "\"before\"", "\"behind\"");
}

#[test]
fn an_unchanged_column_that_changed_is_found() {
    let mut ledger = story();
    let at = changes_of(&ledger, PAGES, 1)[1];
    let output = faithful(&ledger);
    assert!(output[at].contains("[\"body\"]"));
    let row = ledger.changes[at].new.as_mut().unwrap();
    let mut changed = row.to_vec();
    *changed.last_mut().unwrap() = Some("another body".into());
    *row = changed.into();
    assert!(judge(&ledger, Order::Total, &output).defects().contains(&Defect::Altered));
}

#[test]
fn a_column_that_the_log_has_must_not_be_called_unchanged() {
    let found = found_after(|ledger, output| {
        let event = &mut output[changes_of(ledger, DOCUMENTS, 1)[1]];
        let payload = event.rfind("\"payload\"").unwrap();
        let from = payload + event[payload..].find(",\"body\"").unwrap();
        let to = from + event[from..].find('}').unwrap();
        event.replace_range(from..to, "");
        *event = event.replace("\"unchanged\":[]", "\"unchanged\":[\"body\"]");
    });
    assert_eq!(found, [Defect::Altered]);
}

#[test]
fn a_truncation_has_no_key() {
    let found = found_after(|ledger, output| {
        let event = &mut output[ledger.changes.iter().position(|change| change.op == Op::Truncate).unwrap()];
        *event = event.replace("\"key\":null", "\"key\":{\"one\":1,\"two\":2}");
    });
    assert_eq!(found, [Defect::Altered]);
}

#[test]
fn what_is_no_envelope_is_malformed() {
    let found = found_after(|_, output| {
        let torn = output[3].len() / 2;
        output[3].truncate(torn);
    });
    assert!(found.contains(&Defect::Malformed) && found.contains(&Defect::Lost), "{found:?}");
    let found =
        found_after(|_, output| output[3] = output[3].replace("\"commit_lsn\":\"0/", "\"commit_lsn\":\""));
    assert!(found.contains(&Defect::Malformed), "{found:?}");
}

#[test]
fn tables_that_hold_something_else_are_found() {
    let ledger = story();
    let mut contents = ledger.contents();
    contents.remove(&TABLES[ORDERS], &TABLES[ORDERS].key(0));
    for order in [Order::Total, Order::PerKey, Order::None] {
        let mut checker = Checker::new(&ledger, order);
        faithful(&ledger).iter().for_each(|event| checker.take(0, event.as_bytes()));
        assert_eq!(checker.finish(&contents).defects(), [Defect::Replay]);
    }
}

#[test]
fn best_effort_may_lack_events_and_nothing_else() {
    let ledger = story();
    let mut output = faithful(&ledger);
    output.drain(3..9);
    judge(&ledger, Order::Total, &output).expect_best_effort();
    output.push(output[0].replace("shop:", "slip:"));
    let report = judge(&ledger, Order::Total, &output);
    assert!(std::panic::catch_unwind(|| report.expect_best_effort()).is_err());
}

#[test]
fn files_are_read_in_the_order_of_their_names() {
    let ledger = story();
    let output = faithful(&ledger);
    let folder = tempfile::tempdir().unwrap();
    let write = |name: &str, events: &[String]| {
        let lines: String = events.iter().map(|event| format!("{event}\n")).collect();
        std::fs::write(folder.path().join(name), lines).unwrap();
    };
    write("events.ndjson", &output[10..]);
    write("events-20261122T183400Z-1.ndjson", &output[..10]);
    let mut checker = Checker::new(&ledger, Order::Total);
    checker.take_folder(folder.path()).unwrap();
    checker.finish(&ledger.contents()).expect_exactly_once();
}

#[test]
fn any_run_of_restarts_is_accepted_and_one_event_less_is_not() {
    for seed in 0..60 {
        let mut rng = StdRng::seed_from_u64(seed);
        let ledger = random_story(&mut rng);
        let events = faithful(&ledger);
        let (mut output, mut at) = (Vec::new(), 0);
        while at < events.len() {
            let to = rng.random_range(at + 1..=events.len());
            output.extend_from_slice(&events[at..to]);
            at = if rng.random_ratio(2, 3) && to < events.len() { rng.random_range(0..=to) } else { to };
        }
        judge(&ledger, Order::Total, &output).expect_at_least_once();
        judge(&ledger, Order::PerKey, &output).expect_at_least_once();
        let gone = events[rng.random_range(0..events.len())].clone();
        output.retain(|event| *event != gone);
        let report = judge(&ledger, Order::Total, &output);
        assert_eq!(report.count(Defect::Lost), 1, "seed {seed}: {report}");
    }
}

/// As in a topic: truncations in a partition of their own, the rest by key, one partition read after the other.
#[test]
fn partitions_are_judged_by_key_and_replayed_together() {
    for seed in 0..40 {
        let mut rng = StdRng::seed_from_u64(seed);
        let ledger = random_story(&mut rng);
        let partition_of =
            |change: &Change| change.key().map_or(3, |key| i32::from(key[0].as_bytes()[0]) % 3);
        let events: Vec<_> = ledger.changes.iter().map(partition_of).zip(faithful(&ledger)).collect();
        let judge = |order: Order| {
            let mut checker = Checker::new(&ledger, order);
            for partition in [3, 1, 2, 0] {
                let its = events.iter().filter(|(its, _)| *its == partition);
                its.for_each(|(_, event)| checker.take(partition, event.as_bytes()));
            }
            checker.finish(&ledger.contents())
        };
        judge(Order::PerKey).expect_exactly_once();
        judge(Order::None).expect_exactly_once();
        assert!(judge(Order::Total).count(Defect::OutOfOrder) > 0, "seed {seed}");
    }
}

#[test]
fn one_event_out_of_place_is_found_wherever_it_matters() {
    for seed in 0..100 {
        let mut rng = StdRng::seed_from_u64(seed);
        let ledger = random_story(&mut rng);
        let mut output = faithful(&ledger);
        let (from, to) = (rng.random_range(0..output.len()), rng.random_range(0..output.len()));
        let moved = output.remove(from);
        output.insert(to, moved);
        let report = judge(&ledger, Order::Total, &output);
        let passed = if from < to { from + 1..to + 1 } else { to..from };
        let touches = |change: &Change| -> Vec<(&str, Option<Key>)> {
            let more = change.left().into_iter().chain(change.emptied.clone()).map(Some);
            [change.key()].into_iter().chain(more).map(|key| (change.table.name, key)).collect()
        };
        let mine = touches(&ledger.changes[from]);
        let matters =
            (passed.clone()).any(|at| touches(&ledger.changes[at]).iter().any(|key| mine.contains(key)));
        assert_eq!(report.count(Defect::OutOfOrder) > 0, matters, "seed {seed}, {from} → {to}: {report}");
    }
}
