//! Who may touch which key, and what its row is: what makes the commit order of each key known.
//!
//! A transaction claims a key before it touches it and gives it back when its outcome is known. Nobody waits for
//! a key (another is taken), so there is no deadlock; only a truncation waits, for all keys of its tables, and it
//! holds none while it does. No I/O.

use std::sync::{Mutex, MutexGuard};

use tokio::sync::{Notify, watch};

use super::ledger::{Change, Ledger};
use super::tables::{KEYS, Row, TABLES};

/// A key by the place of its table and its number.
pub(super) type Slot = (usize, usize);

struct Shelf {
    rows: Vec<Option<Row>>,
    claimed: Vec<bool>,
    claims: usize,
    closed: bool,
}

struct State {
    shelves: Vec<Shelf>,
    last_version: i64,
    last_tag: i64,
    truncating: bool,
    ledger: Ledger,
}

/// The rows as they are committed, who holds which, and the ledger.
pub(super) struct Book {
    state: Mutex<State>,
    given_back: Notify,
    committed: watch::Sender<u64>,
}

/// What a transaction leaves behind when its outcome is known.
pub(super) struct Outcome {
    pub(super) committed: bool,
    pub(super) changes: Vec<Change>,
    /// Versions rolled back inside the transaction.
    pub(super) undone: Vec<i64>,
    pub(super) tag: i64,
    /// The claimed keys and the rows they have now.
    pub(super) rows: Vec<(Slot, Option<Row>)>,
    /// The keys to give back.
    pub(super) claims: Vec<Slot>,
    /// The tables to open again.
    pub(super) closed: Vec<usize>,
}

impl Book {
    pub(super) fn new() -> Book {
        let shelf =
            |_| Shelf { rows: vec![None; KEYS], claimed: vec![false; KEYS], claims: 0, closed: false };
        Book {
            state: Mutex::new(State {
                shelves: TABLES.iter().map(shelf).collect(),
                last_version: 0,
                last_tag: 0,
                truncating: false,
                ledger: Ledger::default(),
            }),
            given_back: Notify::new(),
            committed: watch::Sender::new(0),
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().expect("nobody panics while holding the book")
    }

    /// A number for a new transaction.
    pub(super) fn next_tag(&self) -> i64 {
        let mut state = self.state();
        state.last_tag += 1;
        state.last_tag
    }

    /// A number for a change; taken after the key is claimed, so it grows with each change of the key.
    pub(super) fn next_version(&self) -> i64 {
        let mut state = self.state();
        state.last_version += 1;
        state.last_version
    }

    /// The number of the newest change.
    pub(super) fn last_version(&self) -> i64 {
        self.state().last_version
    }

    /// Claims a key whose row is there, or is not. `None` when another transaction has it or it is the other way.
    pub(super) fn claim(&self, (table, number): Slot, present: bool) -> Option<Option<Row>> {
        let shelf = &mut self.state().shelves[table];
        if shelf.closed || shelf.claimed[number] || shelf.rows[number].is_some() != present {
            return None;
        }
        shelf.claimed[number] = true;
        shelf.claims += 1;
        Some(shelf.rows[number].clone())
    }

    /// The committed row of a key that the caller holds.
    pub(super) fn row(&self, (table, number): Slot) -> Option<Row> {
        self.state().shelves[table].rows[number].clone()
    }

    /// Takes whole tables, once nobody holds a key of them. False when another transaction is doing so.
    pub(super) async fn close(&self, tables: &[usize]) -> bool {
        {
            let mut state = self.state();
            if state.truncating {
                return false;
            }
            state.truncating = true;
            for table in tables {
                state.shelves[*table].closed = true;
            }
        }
        loop {
            let mut given_back = std::pin::pin!(self.given_back.notified());
            given_back.as_mut().enable();
            if tables.iter().all(|table| self.state().shelves[*table].claims == 0) {
                return true;
            }
            given_back.await;
        }
    }

    /// Writes a transaction into the ledger and gives back what it held.
    pub(super) fn settle(&self, outcome: Outcome) {
        let mut state = self.state();
        let state = &mut *state;
        state.ledger.rolled_back.extend(outcome.undone.iter().map(|version| (*version, outcome.tag)));
        if outcome.committed {
            for ((table, number), row) in outcome.rows {
                state.shelves[table].rows[number] = row;
            }
            state.ledger.changes.extend(outcome.changes);
            state.ledger.transactions += 1;
        } else {
            let versions = outcome.changes.iter().map(|change| (change.version, outcome.tag));
            state.ledger.rolled_back.extend(versions);
        }
        for (table, number) in outcome.claims {
            state.shelves[table].claimed[number] = false;
            state.shelves[table].claims -= 1;
        }
        for table in &outcome.closed {
            state.shelves[*table].closed = false;
            state.truncating = false;
        }
        self.committed.send_replace(state.ledger.transactions);
        self.given_back.notify_waiters();
    }

    /// Counts a transaction whose COMMIT had no answer.
    pub(super) fn note_unanswered(&self) {
        self.state().ledger.unanswered += 1;
    }

    /// How many transactions were committed so far.
    pub(super) fn committed(&self) -> watch::Receiver<u64> {
        self.committed.subscribe()
    }

    /// The ledger as it is now.
    pub(super) fn ledger(&self) -> Ledger {
        self.state().ledger.clone()
    }
}
