//! Ledgers made up for tests, and the output that a daemon without fault makes of them.

use std::collections::BTreeMap;

use rand::RngExt;
use rand::rngs::StdRng;

use crate::workload::{Change, Column, Identity, Key, Kind, Ledger, Op, Row, TABLES, Table, Value};

/// A ledger in the making: every change of a row is one sentence.
#[derive(Default)]
struct Story {
    ledger: Ledger,
    rows: BTreeMap<(&'static str, Key), Row>,
    tag: i64,
    version: i64,
}

impl Story {
    fn commit(&mut self) {
        self.tag += 1;
    }

    fn row(&mut self, table: &Table, number: usize, body: Option<&Row>) -> Row {
        self.version += 1;
        let mut row: Vec<Value> = table.key(number).iter().cloned().map(Some).collect();
        row.push(Some(self.version.to_string().into()));
        for at in row.len()..table.columns.len() {
            let column = &table.columns[at];
            let text = match column.kind {
                Kind::Number if column.sql == "numeric" => format!("{}.50", self.version),
                Kind::Number => self.version.to_string(),
                Kind::Bool => "true".to_owned(),
                Kind::Json => format!("{{\"n\": {}.0}}", self.version),
                Kind::Text => format!("it's \"{}\"\n☃", self.version),
            };
            let kept = body.filter(|_| column.toast).and_then(|old| old[at].clone());
            row.push(kept.or(Some(text.into())));
        }
        row.into()
    }

    fn note(&mut self, table: &'static Table, op: Op, old: Option<Row>, new: Option<Row>, emptied: Vec<Key>) {
        if new.is_none() {
            self.version += 1;
        }
        let (version, tag) = (self.version, self.tag);
        let xid = (5 << 32) + 700 + u64::try_from(tag).unwrap();
        self.ledger.changes.push(Change { table, op, version, tag, xid, old, new, emptied });
    }

    /// Puts a row there, or changes the one that is.
    fn put(&mut self, table: usize, number: usize) {
        self.change_key(table, number, number);
    }

    /// Changes the row of one key and gives it another; the long text stays.
    fn change_key(&mut self, table: usize, from: usize, to: usize) {
        let table = &TABLES[table];
        let old = self.rows.remove(&(table.name, table.key(from)));
        let new = self.row(table, to, old.as_ref());
        self.rows.insert((table.name, table.key(to)), new.clone());
        let op = if old.is_some() { Op::Update } else { Op::Insert };
        self.note(table, op, old, Some(new), Vec::new());
    }

    fn delete(&mut self, table: usize, number: usize) {
        let table = &TABLES[table];
        let old = self.rows.remove(&(table.name, table.key(number)));
        assert!(old.is_some(), "only a row that is there can be deleted");
        self.note(table, Op::Delete, old, None, Vec::new());
    }

    fn truncate(&mut self, table: usize) {
        let table = &TABLES[table];
        let emptied: Vec<Key> =
            self.rows.keys().filter(|(name, _)| *name == table.name).map(|(_, key)| key.clone()).collect();
        self.rows.retain(|(name, _), _| *name != table.name);
        self.note(table, Op::Truncate, None, None, emptied);
    }

    fn has(&self, table: usize, number: usize) -> bool {
        self.rows.contains_key(&(TABLES[table].name, TABLES[table].key(number)))
    }
}

pub(super) const ORDERS: usize = 0;
const LINES: usize = 1;
pub(super) const PAGES: usize = 3;
pub(super) const DOCUMENTS: usize = 4;

/// Every kind of change, in five transactions.
pub(super) fn story() -> Ledger {
    let mut story = Story::default();
    (0..3).for_each(|number| story.put(ORDERS, number));
    (0..3).for_each(|number| story.put(PAGES, number));
    story.commit();
    (0..3).for_each(|_| story.put(ORDERS, 1));
    story.put(DOCUMENTS, 1);
    story.put(DOCUMENTS, 1);
    story.put(PAGES, 1);
    story.commit();
    story.change_key(PAGES, 1, 7);
    story.change_key(DOCUMENTS, 1, 2);
    story.put(LINES, 9);
    story.put(LINES, 10);
    story.delete(ORDERS, 2);
    story.put(ORDERS, 2);
    story.commit();
    story.delete(ORDERS, 2);
    story.truncate(LINES);
    story.put(LINES, 9);
    story.delete(DOCUMENTS, 2);
    story.commit();
    story.put(PAGES, 7);
    story.put(ORDERS, 2);
    story.ledger.rolled_back.insert(1_000, 99);
    story.ledger
}

fn json_of(column: &Column, value: &Value) -> String {
    match value {
        None => "null".to_owned(),
        Some(text) if column.kind == Kind::Text => serde_json::to_string(&**text).unwrap(),
        Some(text) => text.to_string(),
    }
}

/// A row as a change left it, as a daemon without fault copies it.
pub(super) fn copied(change: &Change) -> String {
    let table = change.table;
    let row = change.new.as_ref().expect("only a row that is there is copied");
    let key = serde_json::to_string(&change.key().unwrap().join(",")).unwrap();
    format!(
        "{{\"id\":\"shop:snapshot:1:{}:{}\",\"op\":\"snapshot\",\"source\":{{\"schema\":\"load\",\"table\":\"{}\",\
         \"lsn\":\"0/1\",\"commit_lsn\":null,\"xid\":null,\"ordinal\":null}},\"key\":{},\"payload\":{}}}",
        table.name,
        key.trim_matches('"'),
        table.name,
        object(table.key_columns(), row, table),
        object(table.columns, row, table)
    )
}

fn object<'c>(columns: impl IntoIterator<Item = &'c Column>, row: &[Value], table: &Table) -> String {
    let at = |column: &Column| table.columns.iter().position(|other| other.name == column.name).unwrap();
    let fields: Vec<String> = (columns.into_iter())
        .map(|column| format!("\"{}\":{}", column.name, json_of(column, &row[at(column)])))
        .collect();
    format!("{{{}}}", fields.join(","))
}

/// The envelope of a change, as a daemon without fault writes it.
fn envelope(change: &Change, ordinal: usize) -> String {
    let table = change.table;
    let lsn = 0x100 * (change.tag + 1);
    let row = change.new.as_ref().or(change.old.as_ref());
    let key = row.map_or("null".to_owned(), |row| object(table.key_columns(), row, table));
    let is_kept = |at: usize| {
        let (Some(old), Some(new)) = (&change.old, &change.new) else { return false };
        table.columns[at].toast && table.identity != Identity::Full && old[at] == new[at]
    };
    let kept: Vec<usize> = (0..table.columns.len()).filter(|at| is_kept(*at)).collect();
    let sent =
        table.columns.iter().enumerate().filter(|(at, _)| !kept.contains(at)).map(|(_, column)| column);
    let payload = change.new.as_ref().map_or("null".to_owned(), |row| object(sent, row, table));
    let logged = match table.identity {
        Identity::Full => Some(table.columns),
        _ if change.op == Op::Delete || change.left().is_some() => Some(table.key_columns()),
        _ => None,
    };
    let before = change.old.as_ref().zip(logged).map(|(row, columns)| object(columns, row, table));
    let before = before.map_or(String::new(), |before| format!("\"before\":{before},"));
    let unchanged: Vec<&str> = kept.iter().map(|at| table.columns[*at].name).collect();
    format!(
        "{{\"id\":\"shop:{lsn:X}:{ordinal}\",\"op\":\"{}\",\"received\":\"now\",\"source\":{{\"schema\":\"load\",\
         \"table\":\"{}\",\"lsn\":\"0/1\",\"commit_lsn\":\"0/{lsn:X}\",\"xid\":{},\"ordinal\":{ordinal}}},\
         \"key\":{key},{before}\"payload\":{payload},\"unchanged\":{unchanged:?}}}",
        change.op.name(),
        table.name,
        change.short_xid()
    )
}

pub(super) fn faithful(ledger: &Ledger) -> Vec<String> {
    ledger.changes.iter().enumerate().map(|(ordinal, change)| envelope(change, ordinal)).collect()
}

/// A long story about a few keys, so that each of them has much to be confused.
pub(super) fn random_story(rng: &mut StdRng) -> Ledger {
    let mut story = Story::default();
    for _ in 0..150 {
        let (table, number, other) =
            (rng.random_range(0..TABLES.len()), rng.random_range(0..4), rng.random_range(0..4));
        match rng.random_range(0..20) {
            // A transaction deletes a key, and empties a table, only once.
            0 => {
                story.commit();
                story.truncate(table);
            }
            1..5 if story.has(table, number) => {
                story.commit();
                story.delete(table, number);
            }
            5..8 if story.has(table, number) && !story.has(table, other) => {
                story.change_key(table, number, other)
            }
            _ => story.put(table, number),
        }
        if rng.random_ratio(1, 3) {
            story.commit();
        }
    }
    story.ledger
}
