//! Whether what a destination holds is what the shop committed: by count, and by the order of each key. Pure.
//!
//! The rule for one key: the first change is its first committed one, and each further change is either the one that
//! follows the last one, or an earlier one again (same id), after which all that follow come again too. At the end the
//! last change is the last committed one. A copied row is the row as the changes before it have left it, or as it was
//! at first where there are none. So nothing can be missing, out of order or invented without being named; repeats are
//! told apart by their ids alone. Of a row that was there at first and never changed, there must be a copy.

use std::collections::HashMap;

use forebay_api::Op;
use serde::Deserialize;
use serde_json::Value;

use super::ledger::{Change, Key, Ledger};

/// So many problems are shown; the rest is counted.
const SHOWN: usize = 5;

/// The columns that name a row, in the order in which the ledger writes them.
const KEY_COLUMNS: [&str; 3] = ["id", "order_id", "line"];

/// What the proof needs of an envelope.
#[derive(Deserialize)]
struct Envelope {
    id: Box<str>,
    op: String,
    source: Origin,
    key: Value,
    payload: Value,
}

#[derive(Deserialize)]
struct Origin {
    table: Option<String>,
    #[serde(default)]
    snapshot: bool,
}

/// Listens to the events of one destination, in the order in which it has them.
pub(super) struct Witness<'a> {
    ledger: &'a Ledger,
    /// Where each key is in `rows`.
    keys: HashMap<Key, usize>,
    rows: Vec<Progress>,
    /// By id: what it was when it was heard first.
    known: HashMap<Box<str>, Heard>,
    testimony: Testimony,
}

/// How much was heard of one key.
#[derive(Default)]
struct Progress {
    /// How many of its changes,
    heard: usize,
    /// which one must follow,
    next: usize,
    /// and whether it was copied.
    copied: bool,
}

/// What an id stands for.
#[derive(Clone, Copy)]
struct Heard {
    row: usize,
    /// Which change of the row; `None`: its copy.
    change: Option<usize>,
}

/// What a witness says in the end.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Testimony {
    /// Committed changes that are there.
    pub(super) changes: u64,
    /// Changes that came again under an id that was there already.
    pub(super) repeats: u64,
    /// Rows that were there at first and were copied.
    pub(super) copied: u64,
    /// Rows that were there at first and were changed before their turn came, so that only the change was to be sent.
    pub(super) overtaken: u64,
    /// Rows that the shop made during the copy, and that were copied beside their insert.
    pub(super) copied_too: u64,
    /// Copied rows that came again under an id that was there already.
    pub(super) copied_again: u64,
    /// Events that say what rows look like from then on.
    pub(super) schemas: u64,
    /// Events that are neither, such as an application's message.
    pub(super) others: u64,
    /// Committed changes that are not there.
    pub(super) missing: u64,
    /// Rows that were there at first, never changed, and were not copied.
    pub(super) missing_rows: u64,
    /// How often the rule was broken.
    pub(super) broken: u64,
    /// The first of these, for people.
    pub(super) problems: Vec<String>,
}

impl Testimony {
    /// Whether all that was there and was committed is there in order, and nothing else.
    pub(super) fn holds(&self) -> bool {
        self.missing == 0 && self.missing_rows == 0 && self.broken == 0
    }

    /// Events that came again under their ids.
    pub(super) fn again(&self) -> u64 {
        self.repeats + self.copied_again
    }

    fn problem(&mut self, text: String) {
        self.broken += 1;
        if self.problems.len() < SHOWN {
            self.problems.push(text);
        }
    }
}

impl<'a> Witness<'a> {
    /// One that has heard nothing yet.
    pub(super) fn new(ledger: &'a Ledger) -> Witness<'a> {
        let (keys, known) = (HashMap::new(), HashMap::new());
        Witness { ledger, keys, rows: Vec::new(), known, testimony: Testimony::default() }
    }

    /// Takes the next event.
    pub(super) fn hear(&mut self, event: &[u8]) {
        let envelope = match serde_json::from_slice::<Envelope>(event) {
            Ok(envelope) => envelope,
            Err(error) => return self.testimony.problem(format!("a line is not an event ({error})")),
        };
        let Some(op) = Op::ALL.into_iter().find(|op| op.as_str() == envelope.op) else {
            let text = format!("`{}` has the unknown op `{}`", envelope.id, envelope.op);
            return self.testimony.problem(text);
        };
        if envelope.source.snapshot != (op == Op::Snapshot) {
            let text = format!("`{}` is a `{}` and says it were none", envelope.id, op.as_str());
            return self.testimony.problem(text);
        }
        match op {
            Op::Snapshot | Op::Insert | Op::Update | Op::Delete => {}
            Op::Schema => return self.testimony.schemas += 1,
            Op::Message => return self.testimony.others += 1,
            _ => {
                let text = format!("`{}` is a `{}`, which the shop never does", envelope.id, op.as_str());
                return self.testimony.problem(text);
            }
        }
        let revision = envelope.payload.get("revision").and_then(Value::as_i64);
        let revision = revision.and_then(|number| i32::try_from(number).ok());
        let key = key_of(&envelope.source, &envelope.key);
        let row = *self.keys.entry(key.clone()).or_insert(self.rows.len());
        if row == self.rows.len() {
            self.rows.push(Progress::default());
        }
        let before = self.known.get(&envelope.id).copied();
        if before.is_some_and(|before| before.row != row || before.change.is_none() != (op == Op::Snapshot)) {
            let text =
                format!("`{}` came before as another event than `{key}`, {}", envelope.id, op.as_str());
            return self.testimony.problem(text);
        }
        let change = match op {
            Op::Snapshot => {
                self.copied(&envelope.id, &key, row, before.is_some(), revision);
                None
            }
            _ => {
                let again = before.and_then(|before| before.change);
                Some(self.changed(&envelope.id, &key, row, again, Change { op, revision }))
            }
        };
        self.known.insert(envelope.id, Heard { row, change });
    }

    /// A copied row must be what the changes before it have made of it.
    fn copied(&mut self, id: &str, key: &Key, row: usize, again: bool, revision: Option<i32>) {
        let progress = &mut self.rows[row];
        let twice = std::mem::replace(&mut progress.copied, true) && !again;
        self.testimony.copied_again += u64::from(again);
        let due = match progress.next.checked_sub(1) {
            Some(last) => self.ledger.of(key).get(last).and_then(|change| change.revision),
            None => self.ledger.at_first(key),
        };
        if twice {
            self.testimony.problem(format!("`{key}` was copied twice (second id `{id}`)"));
        } else if revision.is_none() || revision != due {
            let copied = said("a copy", revision);
            let text = match due {
                Some(_) => format!("`{key}`: {copied} came where {} was due", said("one", due)),
                None => format!("`{key}`: {copied} came where the row does not exist"),
            };
            self.testimony.problem(format!("{text} (id `{id}`)"));
        }
    }

    /// Which of the key's changes it is; `again`: the same id was that one before.
    fn changed(&mut self, id: &str, key: &Key, row: usize, again: Option<usize>, change: Change) -> usize {
        let committed = self.ledger.of(key);
        let progress = &mut self.rows[row];
        let index = again.unwrap_or(progress.heard);
        if again.is_some() {
            self.testimony.repeats += 1;
        } else {
            progress.heard += 1;
            self.testimony.changes += u64::from(committed.get(index) == Some(&change));
        }
        let expected = progress.next;
        progress.next = index + 1;
        if committed.get(index) != Some(&change) {
            let came = said(change.op.as_str(), change.revision);
            let text = match committed.get(index) {
                Some(due) => {
                    format!("`{key}`: {came} came where {} was due", said(due.op.as_str(), due.revision))
                }
                None => format!("`{key}`: {came} came and was never committed"),
            };
            self.testimony.problem(format!("{text} (id `{id}`)"));
        } else if index > expected {
            self.testimony.problem(format!("`{key}`: a repeat was not followed by all its successors"));
        }
        index
    }

    /// What is to be said when there are no more events.
    pub(super) fn conclude(mut self) -> Testimony {
        self.conclude_changes();
        let mut unchanged = self.ledger.filled;
        for (key, committed) in &self.ledger.changes {
            let copied = self.keys.get(key).is_some_and(|row| self.rows[*row].copied);
            let was_there = committed.first().is_some_and(|first| first.op != Op::Insert);
            unchanged = unchanged.saturating_sub(u64::from(was_there));
            self.testimony.copied += u64::from(was_there && copied);
            self.testimony.overtaken += u64::from(was_there && !copied);
            self.testimony.copied_too += u64::from(!was_there && copied);
        }
        let copied = self.rows.iter().filter(|row| row.copied).count() as u64;
        let copied = copied - self.testimony.copied - self.testimony.copied_too;
        self.testimony.copied += copied;
        self.testimony.missing_rows = unchanged.saturating_sub(copied);
        if copied > unchanged {
            self.testimony.problem(format!("{} copied rows were never there", copied - unchanged));
        }
        self.testimony
    }

    fn conclude_changes(&mut self) {
        let mut missing: Vec<(&Key, usize)> = Vec::new();
        for (key, committed) in &self.ledger.changes {
            let progress = self.keys.get(key).map(|row| &self.rows[*row]);
            let heard = progress.map_or(0, |progress| progress.heard.min(committed.len()));
            if heard < committed.len() {
                missing.push((key, committed.len() - heard));
            } else if progress.is_some_and(|progress| progress.next < committed.len()) {
                self.testimony.problem(format!("`{key}`: a repeat was not followed by all its successors"));
            }
        }
        missing.sort_unstable();
        self.testimony.missing = missing.iter().map(|(_, count)| *count as u64).sum();
        let room = SHOWN.saturating_sub(self.testimony.problems.len());
        let shown = missing.iter().take(room);
        let lost = shown.map(|(key, count)| format!("`{key}`: {count} of its changes are missing"));
        self.testimony.problems.extend(lost);
    }
}

fn key_of(origin: &Origin, key: &Value) -> Key {
    let columns = KEY_COLUMNS.iter().filter_map(|column| key.get(column)).map(Value::to_string);
    format!("{} {}", origin.table.as_deref().unwrap_or("(no table)"), columns.collect::<Vec<_>>().join("/"))
}

fn said(what: &str, revision: Option<i32>) -> String {
    match revision {
        Some(revision) => format!("{what} (revision {revision})"),
        None => what.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The life of one order: made, changed twice, deleted; and a customer beside it.
    fn ledger() -> Ledger {
        let change = |op, revision| ("orders 7".to_owned(), Change { op, revision });
        let mut ledger = Ledger::default();
        ledger.enter(vec![change(Op::Insert, Some(1))]);
        ledger.enter(vec![
            change(Op::Update, Some(2)),
            ("customers 1".to_owned(), Change { op: Op::Insert, revision: Some(1) }),
        ]);
        ledger.enter(vec![change(Op::Update, Some(3))]);
        ledger.enter(vec![change(Op::Delete, None)]);
        ledger
    }

    fn event(id: u32, op: &str, table: &str, key: &str, payload: &str) -> String {
        event_named(&id.to_string(), op, table, key, payload)
    }

    fn event_named(id: &str, op: &str, table: &str, key: &str, payload: &str) -> String {
        format!(
            r#"{{"id":"{id}","op":"{op}","source":{{"table":"{table}","snapshot":{}}},"key":{key},"payload":{payload}}}"#,
            op == "snapshot"
        )
    }

    fn order(id: u32, op: &str, revision: Option<u32>) -> String {
        let payload = revision.map_or("null".to_owned(), |revision| format!(r#"{{"revision":{revision}}}"#));
        event(id, op, "orders", r#"{"id":7}"#, &payload)
    }

    /// All of [`ledger`], in order and once.
    fn faithful() -> Vec<String> {
        vec![
            order(1, "insert", Some(1)),
            order(2, "update", Some(2)),
            event(3, "insert", "customers", r#"{"id":1}"#, r#"{"revision":1}"#),
            order(4, "update", Some(3)),
            order(5, "delete", None),
        ]
    }

    fn hear(events: &[String]) -> Testimony {
        let ledger = ledger();
        let mut witness = Witness::new(&ledger);
        events.iter().for_each(|event| witness.hear(event.as_bytes()));
        witness.conclude()
    }

    #[test]
    fn a_faithful_delivery_holds() {
        let said = hear(&faithful());
        assert!(said.holds(), "{said:?}");
        assert_eq!((said.changes, said.repeats, said.others), (5, 0, 0));
    }

    #[test]
    fn a_repeat_holds_when_all_its_successors_follow_again() {
        let all = faithful();
        let said = hear(&[&all[..4], &all[1..]].concat());
        assert!(said.holds(), "{said:?}");
        assert_eq!((said.changes, said.repeats), (5, 3));
    }

    #[test]
    fn a_repeat_without_its_successors_is_out_of_order() {
        let mut events = faithful();
        events.push(order(2, "update", Some(2)));
        assert!(!hear(&events).holds(), "it ends on an older revision");
        events.push(order(5, "delete", None));
        assert!(!hear(&events).holds(), "one of its successors is left out");
    }

    #[test]
    fn whatever_is_left_out_is_missed() {
        for left_out in 0..faithful().len() {
            let mut events = faithful();
            events.remove(left_out);
            let said = hear(&events);
            assert!(!said.holds() && said.missing > 0, "without {left_out}: {said:?}");
        }
    }

    #[test]
    fn two_of_a_key_that_change_places_are_found() {
        let mut events = faithful();
        events.swap(1, 3);
        let said = hear(&events);
        assert!(said.broken > 0, "{said:?}");
        assert!(said.problems[0].contains("update (revision 3) came where update (revision 2) was due"));
    }

    #[test]
    fn a_change_under_two_ids_is_found() {
        let mut events = faithful();
        events.push(order(6, "delete", None));
        assert!(hear(&events).problems[0].contains("never committed"));
    }

    #[test]
    fn what_was_rolled_back_is_found() {
        let mut events = faithful();
        events.push(event(9, "insert", "orders", r#"{"id":8}"#, r#"{"revision":1}"#));
        assert!(hear(&events).problems[0].contains("never committed"));
    }

    #[test]
    fn an_id_of_two_rows_is_found() {
        let mut events = faithful();
        events[2] = event(1, "insert", "customers", r#"{"id":1}"#, r#"{"revision":1}"#);
        assert!(
            hear(&events).problems[0].contains("came before as another event than `customers 1`, insert")
        );
    }

    #[test]
    fn a_key_of_two_columns_is_read_as_the_ledger_writes_it() {
        let origin = Origin { table: Some("order_items".to_owned()), snapshot: false };
        let key = serde_json::json!({"order_id": 42, "line": 1});
        assert_eq!(key_of(&origin, &key), "order_items 42/1");
    }

    #[test]
    fn half_a_line_and_an_unknown_op_are_found() {
        assert!(!hear(&[&faithful()[..], &["{\"id\":".to_owned()]].concat()).holds());
        assert!(!hear(&[&faithful()[..], &[order(9, "upsert", Some(4))]].concat()).holds());
    }

    /// A shop that was filled with four customers: one is changed, one is deleted, two stay as they were.
    fn filled() -> Ledger {
        let change = |key: &str, op, revision| vec![(key.to_owned(), Change { op, revision })];
        let mut ledger = Ledger { filled: 4, ..Ledger::default() };
        ledger.enter(change("customers 1", Op::Update, Some(2)));
        ledger.enter(change("customers 2", Op::Delete, None));
        ledger.enter(change("customers 5", Op::Insert, Some(1)));
        ledger
    }

    fn customer(id: &str, op: &str, number: u32, revision: Option<u32>) -> String {
        let payload = revision.map_or("null".to_owned(), |revision| format!(r#"{{"revision":{revision}}}"#));
        event_named(id, op, "customers", &format!(r#"{{"id":{number}}}"#), &payload)
    }

    /// All of [`filled`]: two are copied before they change.
    fn copied() -> Vec<String> {
        vec![
            customer("c1", "snapshot", 1, Some(1)),
            customer("u1", "update", 1, Some(2)),
            customer("c2", "snapshot", 2, Some(1)),
            customer("c3", "snapshot", 3, Some(1)),
            customer("d2", "delete", 2, None),
            customer("i5", "insert", 5, Some(1)),
            customer("c5", "snapshot", 5, Some(1)),
            customer("c4", "snapshot", 4, Some(1)),
        ]
    }

    fn hear_of(ledger: &Ledger, events: &[String]) -> Testimony {
        let mut witness = Witness::new(ledger);
        events.iter().for_each(|event| witness.hear(event.as_bytes()));
        witness.conclude()
    }

    #[test]
    fn copied_rows_hold_in_their_place_among_the_changes() {
        let said = hear_of(&filled(), &copied());
        assert!(said.holds(), "{said:?}");
        assert_eq!((said.copied, said.overtaken, said.copied_too, said.changes), (4, 0, 1, 3));
    }

    #[test]
    fn a_copy_that_was_overtaken_by_a_change_may_be_left_out() {
        let mut events = copied();
        events.remove(2);
        events.remove(0);
        let said = hear_of(&filled(), &events);
        assert!(said.holds(), "{said:?}");
        assert_eq!((said.copied, said.overtaken), (2, 2));
    }

    #[test]
    fn a_row_that_never_changed_and_was_not_copied_is_missed() {
        let mut events = copied();
        events.remove(3);
        let said = hear_of(&filled(), &events);
        assert!(!said.holds());
        assert_eq!(said.missing_rows, 1);
    }

    #[test]
    fn an_older_row_behind_its_change_is_found() {
        let mut events = copied();
        events.swap(0, 1);
        let said = hear_of(&filled(), &events);
        assert!(
            said.problems[0].contains("a copy (revision 1) came where one (revision 2) was due"),
            "{said:?}"
        );
    }

    #[test]
    fn a_copy_of_what_is_gone_or_not_yet_there_is_found() {
        let mut events = copied();
        events.swap(2, 4);
        assert!(hear_of(&filled(), &events).problems[0].contains("where the row does not exist"));
        let mut events = copied();
        events.swap(5, 6);
        assert!(hear_of(&filled(), &events).problems[0].contains("where the row does not exist"));
    }

    #[test]
    fn a_copy_may_come_again_under_its_id_as_the_row_is_then() {
        let mut events = copied();
        events.push(customer("c1", "snapshot", 1, Some(2)));
        let said = hear_of(&filled(), &events);
        assert!(said.holds(), "{said:?}");
        assert_eq!((said.copied, said.copied_again, said.again()), (4, 1, 1));
        events.push(customer("c1 anew", "snapshot", 1, Some(2)));
        assert!(hear_of(&filled(), &events).problems[0].contains("was copied twice"));
    }

    #[test]
    fn a_copied_row_that_was_never_there_is_found() {
        let mut events = copied();
        events.push(customer("c9", "snapshot", 9, Some(1)));
        assert!(hear_of(&filled(), &events).problems[0].contains("1 copied rows were never there"));
    }

    #[test]
    fn schemas_are_counted_and_are_no_changes() {
        let mut events = copied();
        events.insert(0, event_named("s", "schema", "customers", "null", r#"{"type":"object"}"#));
        let said = hear_of(&filled(), &events);
        assert!(said.holds(), "{said:?}");
        assert_eq!((said.schemas, said.others, said.changes), (1, 0, 3));
    }

    #[test]
    fn a_copied_row_says_that_it_is_one() {
        let events = [copied()[0].replace("true", "false")];
        assert!(hear_of(&filled(), &events).problems[0].contains("says it were none"));
    }
}
