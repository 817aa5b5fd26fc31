//! How rows of a copy get their place in the stream: [`Landings`] is where the copy leaves them and the reader finds
//! them.
//!
//! The high watermark of a piece is a transaction of our own. Its id is known before it commits, so the piece is left
//! here under that id first; when the reader meets the transaction, it sends the piece behind it.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use forebay_api::{Chunk, Ticket};
use tokio::sync::oneshot;

use super::seen::Seen;
use crate::source::relation::Shape;

/// What waits for a transaction to come by.
pub(crate) enum Landing {
    /// From here on touched keys are remembered. Told: the transactions that were streamed before, and whether these
    /// are all.
    Begin(oneshot::Sender<(HashSet<u32>, bool)>),
    /// No copy is under way for now.
    Rest,
    /// Nothing is left to copy. Told when everything before it was read.
    End(oneshot::Sender<()>),
    /// Told: whether rows of this table have moved to other keys without all of their values.
    Moved(u32, oneshot::Sender<bool>),
    /// Rows of a table.
    Piece(Piece),
}

/// Rows that were copied in one snapshot of the server.
pub(crate) struct Piece {
    /// What its rows are written in.
    pub(crate) shape: Arc<Shape>,
    /// The table whose events they are; touched keys are its.
    pub(crate) table: u32,
    /// Whether rows have keys, so that touched ones can be told.
    pub(crate) keyed: bool,
    /// Whether only those are wanted that have moved.
    pub(crate) only_moved: bool,
    /// What the snapshot saw.
    pub(crate) seen: Arc<Seen>,
    /// The rows. Their marks are set when they land.
    pub(crate) chunks: Vec<Chunk>,
    /// Told when they are sent.
    pub(crate) landed: oneshot::Sender<Landed>,
}

/// What became of a piece.
#[derive(Debug, Default)]
pub(crate) struct Landed {
    /// Resolves when all rows that were sent are durable; `None`: none were sent.
    pub(crate) ticket: Option<Ticket>,
    /// How many rows were sent,
    pub(crate) rows: u64,
    /// and how many bytes of JSON they are.
    pub(crate) bytes: u64,
    /// Those that must be read again, by their number in the piece.
    pub(crate) again: Vec<usize>,
}

/// See the module.
#[derive(Default)]
pub(crate) struct Landings {
    waiting: Mutex<HashMap<u32, Landing>>,
    count: AtomicUsize,
    open: Mutex<Open>,
}

/// Which chunks are being read, for the reader to know what it may forget.
#[derive(Default)]
struct Open {
    begun: u64,
    numbers: BTreeSet<u64>,
    /// A snapshot, and how many chunks had begun when it was taken.
    newest: Option<(Arc<Seen>, u64)>,
}

/// A chunk that is being read; it is over when this is dropped.
pub(crate) struct OpenChunk {
    landings: Arc<Landings>,
    number: u64,
}

impl Landings {
    /// Leaves something for a transaction that has not committed yet.
    pub(crate) fn leave(&self, xid: u32, landing: Landing) {
        let mut waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        waiting.insert(xid, landing);
        self.count.store(waiting.len(), Ordering::Release);
    }

    /// What was left for a transaction, if anything.
    pub(crate) fn take(&self, xid: u32) -> Option<Landing> {
        if self.count.load(Ordering::Acquire) == 0 {
            return None;
        }
        let mut waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        let landing = waiting.remove(&xid);
        self.count.store(waiting.len(), Ordering::Release);
        landing
    }

    /// A chunk's snapshot is about to be taken.
    pub(crate) fn open(self: &Arc<Self>) -> OpenChunk {
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        open.begun += 1;
        let number = open.begun;
        open.numbers.insert(number);
        OpenChunk { landings: self.clone(), number }
    }

    /// A chunk's snapshot was taken.
    pub(crate) fn saw(&self, seen: &Arc<Seen>) {
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        let begun = open.begun;
        open.newest.get_or_insert((seen.clone(), begun));
    }

    /// A snapshot that is no newer than that of any chunk that is open or still to come: what it sees, they see.
    pub(crate) fn oldest(&self) -> Option<Arc<Seen>> {
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        let (_, begun) = open.newest.as_ref()?;
        if open.numbers.first().is_some_and(|first| first <= begun) {
            return None;
        }
        open.newest.take().map(|(seen, _)| seen)
    }
}

impl Drop for OpenChunk {
    fn drop(&mut self) {
        let mut open = self.landings.open.lock().unwrap_or_else(PoisonError::into_inner);
        open.numbers.remove(&self.number);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seen(text: &str) -> Arc<Seen> {
        Arc::new(Seen::read(text, true).unwrap())
    }

    #[test]
    fn a_snapshot_is_old_enough_only_when_all_chunks_began_after_it() {
        let landings = Arc::new(Landings::default());
        let first = landings.open();
        landings.saw(&seen("1:1:"));
        let second = landings.open();
        landings.saw(&seen("2:2:"));
        assert_eq!(landings.oldest(), None, "the first chunk may have taken its snapshot before");
        drop(first);
        assert_eq!(landings.oldest(), Some(seen("1:1:")));
        assert_eq!(landings.oldest(), None);
        drop(second);
    }

    #[test]
    fn what_is_left_is_taken_once_and_by_its_transaction() {
        let landings = Landings::default();
        landings.leave(7, Landing::Rest);
        assert!(landings.take(8).is_none());
        assert!(landings.take(7).is_some());
        assert!(landings.take(7).is_none());
    }
}
