//! What was committed, in an order that is the commit order for each key: the truth that outputs are held against.
//!
//! Pure data. The workload appends a transaction only when its outcome is known and while it still holds every
//! key that the transaction touched, so two transactions that share a key stand here as they were committed.

use std::collections::HashMap;
use std::fmt;

use super::contents::Contents;
use super::tables::{Key, Row, SCHEMA, Table};

/// What happened to a row.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Op {
    /// A row came.
    Insert,
    /// A row changed, possibly its key too.
    Update,
    /// A row went.
    Delete,
    /// All rows went.
    Truncate,
}

impl Op {
    /// Its name in the envelope.
    pub fn name(self) -> &'static str {
        match self {
            Op::Insert => "insert",
            Op::Update => "update",
            Op::Delete => "delete",
            Op::Truncate => "truncate",
        }
    }
}

/// One change that was made to a row, or to a whole table.
#[derive(Clone, Debug)]
pub struct Change {
    /// Where it happened.
    pub table: &'static Table,
    /// What happened.
    pub op: Op,
    /// Unique in the run; of inserts and updates it is also in the row.
    pub version: i64,
    /// The transaction, as the ledger counts them.
    pub tag: i64,
    /// The transaction, as PostgreSQL does; after a crash a number that never committed is used again.
    pub xid: u64,
    /// The row before, of updates and deletes.
    pub old: Option<Row>,
    /// The row after, of inserts and updates.
    pub new: Option<Row>,
    /// The keys of the rows that a truncation took away.
    pub emptied: Vec<Key>,
}

impl Change {
    /// The key that the change has now; none for a truncation.
    pub fn key(&self) -> Option<Key> {
        self.new.as_ref().or(self.old.as_ref()).map(|row| self.table.key_of(row))
    }

    /// The key that the row had before, where the change gave it another.
    pub fn left(&self) -> Option<Key> {
        let (Some(old), Some(new)) = (&self.old, &self.new) else { return None };
        let (old, new) = (self.table.key_of(old), self.table.key_of(new));
        (old != new).then_some(old)
    }

    /// The lower half of the transaction's number, which is what the log carries.
    pub fn short_xid(&self) -> u64 {
        self.xid & u64::from(u32::MAX)
    }
}

impl fmt::Display for Change {
    fn fmt(&self, to: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(to, "{} of ", self.op.name())?;
        match self.key() {
            Some(key) => write!(to, "{}", self.table.name_key(&key))?,
            None => write!(to, "{SCHEMA}.{}", self.table.name)?,
        }
        if let Some(left) = self.left() {
            write!(to, " (before: {})", self.table.name_key(&left))?;
        }
        write!(to, ", version {}, in transaction {} (xid {})", self.version, self.tag, self.xid)
    }
}

/// All that was committed in one run, and what was not.
#[derive(Clone, Debug, Default)]
pub struct Ledger {
    /// The committed changes; a transaction deletes a key at most once.
    pub changes: Vec<Change>,
    /// The versions that were written and rolled back, with the transaction that did it.
    pub rolled_back: HashMap<i64, i64>,
    /// How many transactions were committed.
    pub transactions: u64,
    /// How many transactions had no answer to their COMMIT, and what became of them had to be asked.
    pub unanswered: u64,
}

impl Ledger {
    /// What the tables hold after all of it.
    pub fn contents(&self) -> Contents {
        let mut contents = Contents::default();
        for change in &self.changes {
            if change.op == Op::Truncate {
                contents.clear(change.table);
            }
            if let Some(old) = &change.old {
                contents.remove(change.table, &change.table.key_of(old));
            }
            if let Some(new) = &change.new {
                contents.put(change.table, new.clone());
            }
        }
        contents
    }
}
