//! Whether what a destination holds is what the shop committed: by count, and by the order of each key. Pure.
//!
//! The rule for one key: the first event is its first committed change, and each further event is either the change
//! that follows the last one, or an earlier one again (same id), after which all that follow come again too. At the
//! end the last event is the last change. So nothing can be missing, out of order or invented without being named;
//! repeats are told apart from changes by their ids alone.

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
    id: String,
    op: String,
    source: Origin,
    key: Value,
    payload: Value,
}

#[derive(Deserialize)]
struct Origin {
    table: Option<String>,
}

/// Listens to the events of one destination, in the order in which it has them.
pub(super) struct Witness<'a> {
    ledger: &'a Ledger,
    /// By id: which change of which key it is.
    known: HashMap<String, (Key, usize)>,
    /// By key: how many of its changes were heard of, and which one must follow.
    progress: HashMap<Key, Progress>,
    testimony: Testimony,
}

#[derive(Default)]
struct Progress {
    heard: usize,
    next: usize,
}

/// What a witness says in the end.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Testimony {
    /// Committed changes that are there.
    pub(super) changes: u64,
    /// Events that came again under an id that was there already.
    pub(super) repeats: u64,
    /// Events that are no change of a row, such as a table's new shape.
    pub(super) others: u64,
    /// Committed changes that are not there.
    pub(super) missing: u64,
    /// How often the rule was broken.
    pub(super) broken: u64,
    /// The first of these, for people.
    pub(super) problems: Vec<String>,
}

impl Testimony {
    /// Whether all that was committed is there in order, and nothing else.
    pub(super) fn holds(&self) -> bool {
        self.missing == 0 && self.broken == 0
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
        Witness { ledger, known: HashMap::new(), progress: HashMap::new(), testimony: Testimony::default() }
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
        match op {
            Op::Insert | Op::Update | Op::Delete => {}
            Op::Schema | Op::Message => return self.testimony.others += 1,
            _ => {
                let text = format!("`{}` is a `{}`, which the shop never does", envelope.id, op.as_str());
                return self.testimony.problem(text);
            }
        }
        let revision = envelope.payload.get("revision").and_then(Value::as_i64);
        let change = Change { op, revision: revision.and_then(|number| i32::try_from(number).ok()) };
        self.place(envelope.id, key_of(&envelope.source, &envelope.key), change);
    }

    fn place(&mut self, id: String, key: Key, change: Change) {
        let committed = self.ledger.changes.get(&key).map_or(&[][..], Vec::as_slice);
        let progress = self.progress.entry(key.clone()).or_default();
        let index = match self.known.get(&id) {
            Some((before, index)) if *before == key => {
                self.testimony.repeats += 1;
                *index
            }
            Some((before, _)) => {
                let text = format!("`{id}` is a change of `{before}` and of `{key}`");
                return self.testimony.problem(text);
            }
            None => {
                let index = progress.heard;
                progress.heard += 1;
                self.known.insert(id.clone(), (key.clone(), index));
                self.testimony.changes += u64::from(committed.get(index) == Some(&change));
                index
            }
        };
        let expected = progress.next;
        progress.next = index + 1;
        if committed.get(index) != Some(&change) {
            let text = match committed.get(index) {
                Some(wanted) => format!("`{key}`: {} came where {} was due", said(change), said(*wanted)),
                None => format!("`{key}`: {} came and was never committed", said(change)),
            };
            self.testimony.problem(format!("{text} (id `{id}`)"));
        } else if index > expected {
            self.testimony.problem(format!("`{key}`: a repeat was not followed by all its successors"));
        }
    }

    /// What is to be said when there are no more events.
    pub(super) fn conclude(mut self) -> Testimony {
        let mut missing: Vec<(&Key, usize)> = Vec::new();
        for (key, committed) in &self.ledger.changes {
            let progress = self.progress.get(key);
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
        self.testimony
    }
}

fn key_of(origin: &Origin, key: &Value) -> Key {
    let columns = KEY_COLUMNS.iter().filter_map(|column| key.get(column)).map(Value::to_string);
    format!("{} {}", origin.table.as_deref().unwrap_or("(no table)"), columns.collect::<Vec<_>>().join("/"))
}

fn said(change: Change) -> String {
    match change.revision {
        Some(revision) => format!("{} (revision {revision})", change.op.as_str()),
        None => change.op.as_str().to_owned(),
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
        format!(
            r#"{{"id":"{id}","op":"{op}","source":{{"table":"{table}"}},"key":{key},"payload":{payload}}}"#
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
        assert!(hear(&events).problems[0].contains("is a change of `orders 7` and of `customers 1`"));
    }

    #[test]
    fn a_key_of_two_columns_is_read_as_the_ledger_writes_it() {
        let origin = Origin { table: Some("order_items".to_owned()) };
        let key = serde_json::json!({"order_id": 42, "line": 1});
        assert_eq!(key_of(&origin, &key), "order_items 42/1");
    }

    #[test]
    fn half_a_line_and_an_unknown_op_are_found() {
        assert!(!hear(&[&faithful()[..], &["{\"id\":".to_owned()]].concat()).holds());
        assert!(!hear(&[&faithful()[..], &[order(9, "upsert", Some(4))]].concat()).holds());
    }
}
