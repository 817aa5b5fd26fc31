//! What the demo's shop has committed since it was filled, written down by those who committed it. The proof compares
//! what Forebay delivered with this, and with nothing that Forebay says.
//!
//! Invariant: a change is here if and only if its COMMIT was answered; the changes of one key are in commit order,
//! because each key has one writer, which waits for each of its commits.

use std::collections::HashMap;

use forebay_api::Op;

/// A row for its whole life, as messages name it: `orders 42`, `order_items 42/1`.
pub(super) type Key = String;

/// One committed change of a row.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Change {
    /// What happened to the row.
    pub(super) op: Op,
    /// Which revision of the row came of it, as the database said; `None` for one that is gone.
    pub(super) revision: Option<i32>,
}

/// The revision of a row that the shop was filled with.
pub(super) const FILLED: i32 = 1;

/// All committed changes of some keys.
#[derive(Debug, Default)]
pub(super) struct Ledger {
    /// In commit order for each key.
    pub(super) changes: HashMap<Key, Vec<Change>>,
    /// How many rows there were before, each of revision [`FILLED`].
    pub(super) filled: u64,
    /// How many changes there are.
    pub(super) total: u64,
    /// How many transactions they were.
    pub(super) transactions: u64,
    /// How many transactions were taken back; nothing of them may be delivered.
    pub(super) rolled_back: u64,
}

impl Ledger {
    /// Enters what one transaction did, once its commit was answered.
    pub(super) fn enter(&mut self, transaction: Vec<(Key, Change)>) {
        self.total += transaction.len() as u64;
        self.transactions += 1;
        for (key, change) in transaction {
            self.changes.entry(key).or_default().push(change);
        }
    }

    /// All changes of a row.
    pub(super) fn of(&self, key: &str) -> &[Change] {
        self.changes.get(key).map_or(&[], Vec::as_slice)
    }

    /// How a row was before its first change; `None`: it was not. A row that never changed was filled in.
    pub(super) fn at_first(&self, key: &str) -> Option<i32> {
        let was_made = self.of(key).first().is_some_and(|change| change.op == Op::Insert);
        (!was_made).then_some(FILLED)
    }

    /// How many rows were changed.
    pub(super) fn keys(&self) -> u64 {
        self.changes.len() as u64
    }

    /// Adds the ledger of another writer, which has other keys.
    pub(super) fn merge(&mut self, other: Ledger) {
        self.total += other.total;
        self.transactions += other.transactions;
        self.rolled_back += other.rolled_back;
        for (key, changes) in other.changes {
            let before = self.changes.insert(key, changes);
            assert!(before.is_none(), "each key has one writer");
        }
    }
}
