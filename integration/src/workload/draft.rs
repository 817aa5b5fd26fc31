//! A transaction as its author sees it: what it changed, what it holds, and what each savepoint brings back.

use std::collections::HashMap;

use rand::RngExt;
use rand::rngs::StdRng;

use super::book::{Book, Outcome, Slot};
use super::ledger::{Change, Op};
use super::tables::{KEYS, Row, TABLES, Table};

/// How often a random key is tried before a statement does with fewer.
const TRIES_PER_ROW: usize = 4;

struct Savepoint {
    changes: usize,
    rows: HashMap<Slot, Option<Row>>,
}

/// One transaction in the making.
pub(super) struct Draft<'a> {
    book: &'a Book,
    pub(super) tag: i64,
    pub(super) xid: u64,
    changes: Vec<Change>,
    undone: Vec<i64>,
    rows: HashMap<Slot, Option<Row>>,
    claims: Vec<Slot>,
    closed: Vec<usize>,
    savepoints: Vec<Savepoint>,
}

impl<'a> Draft<'a> {
    pub(super) fn new(book: &'a Book) -> Draft<'a> {
        Draft {
            book,
            tag: book.next_tag(),
            xid: 0,
            changes: Vec::new(),
            undone: Vec::new(),
            rows: HashMap::new(),
            claims: Vec::new(),
            closed: Vec::new(),
            savepoints: Vec::new(),
        }
    }

    /// Up to that many different keys of a table whose rows are there, or are not, with their rows.
    pub(super) fn pick(
        &mut self,
        rng: &mut StdRng,
        table: usize,
        present: bool,
        count: usize,
    ) -> Vec<(Slot, Option<Row>)> {
        let mut picked: Vec<(Slot, Option<Row>)> = Vec::new();
        for _ in 0..count * TRIES_PER_ROW {
            if picked.len() == count {
                break;
            }
            let slot = (table, rng.random_range(0..KEYS));
            if picked.iter().any(|(other, _)| *other == slot) {
                continue;
            }
            picked.extend(self.take(slot, present).map(|row| (slot, row)));
        }
        picked
    }

    fn take(&mut self, slot: Slot, present: bool) -> Option<Option<Row>> {
        if let Some(row) = self.rows.get(&slot) {
            return (row.is_some() == present).then(|| row.clone());
        }
        let row = self.book.claim(slot, present)?;
        self.claims.push(slot);
        self.rows.insert(slot, row.clone());
        Some(row)
    }

    /// Takes whole tables, as a truncation needs them; only a transaction that holds nothing may.
    pub(super) async fn close(&mut self, tables: &[usize]) -> bool {
        assert!(self.claims.is_empty() && self.closed.is_empty(), "a truncation waits holding nothing");
        if !self.book.close(tables).await {
            return false;
        }
        self.closed.extend(tables);
        for table in tables {
            for number in 0..KEYS {
                self.rows.insert((*table, number), self.book.row((*table, number)));
            }
        }
        true
    }

    /// Whether it has deleted that key; the deletes of one key in one transaction could not be told apart.
    pub(super) fn has_deleted(&self, (table, number): Slot) -> bool {
        let (table, key) = (&TABLES[table], Some(TABLES[table].key(number)));
        let is = |change: &Change| {
            change.op == Op::Delete && change.table.name == table.name && change.key() == key
        };
        self.changes.iter().any(is)
    }

    pub(super) fn next_version(&self) -> i64 {
        self.book.next_version()
    }

    /// Notes that `old` became `new`, and which keys have which rows since.
    pub(super) fn change(
        &mut self,
        op: Op,
        version: i64,
        old: Option<(Slot, Row)>,
        new: Option<(Slot, Row)>,
    ) {
        let (slot, _) = *new.as_ref().or(old.as_ref()).expect("a change has a row before or after");
        if let Some((slot, _)) = &old {
            self.rows.insert(*slot, None);
        }
        if let Some((slot, row)) = &new {
            self.rows.insert(*slot, Some(row.clone()));
        }
        let (old, new) = (old.map(|(_, row)| row), new.map(|(_, row)| row));
        self.note(&TABLES[slot.0], op, version, old, new, Vec::new());
    }

    /// Notes that a table was emptied.
    pub(super) fn truncate(&mut self, table: usize) {
        let mut emptied = Vec::new();
        for number in 0..KEYS {
            if self.rows.insert((table, number), None).flatten().is_some() {
                emptied.push(TABLES[table].key(number));
            }
        }
        let version = self.next_version();
        self.note(&TABLES[table], Op::Truncate, version, None, None, emptied);
    }

    fn note(
        &mut self,
        table: &'static Table,
        op: Op,
        version: i64,
        old: Option<Row>,
        new: Option<Row>,
        emptied: Vec<super::tables::Key>,
    ) {
        self.changes.push(Change { table, op, version, tag: self.tag, xid: self.xid, old, new, emptied });
    }

    /// Sets a savepoint; gives its number.
    pub(super) fn save(&mut self) -> usize {
        self.savepoints.push(Savepoint { changes: self.changes.len(), rows: self.rows.clone() });
        self.savepoints.len() - 1
    }

    pub(super) fn savepoints(&self) -> usize {
        self.savepoints.len()
    }

    /// Forgets a savepoint and those behind it, and keeps what was done since.
    pub(super) fn release(&mut self, savepoint: usize) {
        self.savepoints.truncate(savepoint);
    }

    /// Goes back to a savepoint, which stays, and forgets those behind it.
    pub(super) fn roll_back_to(&mut self, savepoint: usize) {
        self.savepoints.truncate(savepoint + 1);
        let to = &self.savepoints[savepoint];
        self.undone.extend(self.changes.drain(to.changes..).map(|change| change.version));
        for (slot, row) in &mut self.rows {
            *row = to.rows.get(slot).cloned().unwrap_or_else(|| self.book.row(*slot));
        }
    }

    /// What it leaves behind, now that its outcome is known.
    pub(super) fn settle(self, committed: bool) {
        self.book.settle(Outcome {
            committed,
            changes: self.changes,
            undone: self.undone,
            tag: self.tag,
            rows: self.rows.into_iter().collect(),
            claims: self.claims,
            closed: self.closed,
        });
    }
}
