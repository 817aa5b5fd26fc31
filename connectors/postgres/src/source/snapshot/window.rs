//! [`Window`]: which keys the stream has touched that a chunk of a copy may not have seen. Pure.
//!
//! A transaction can be streamed before it is visible (its commit is in the log and waits for a synchronous standby),
//! and it can commit between a chunk's read and its high watermark. A copied row that such a transaction changed is
//! older than an event that is out already. It is left out; and read again, when the event did not bring all of it.
//!
//! Invariants: a touch is forgotten only when every chunk that is open or still to come sees its transaction; where
//! touches cannot be remembered singly, the whole chunk is read again.

use std::collections::{BTreeSet, HashMap, HashSet, VecDeque};

use super::seen::{Seen, Sees};

/// The touched keys may take so much; beyond it they are forgotten and chunks are read again until they see all.
const MAX_BYTES: usize = 32 << 20;

/// So many transactions of a table are remembered whose keys are not known.
const MAX_UNKNOWN: usize = 1 << 16;

/// What a touched key costs besides its bytes, more or less.
const OVERHEAD: usize = 96;

/// Transactions that are remembered by their ids, so that a copy that begins knows which of those that run were
/// streamed already.
const MAX_RECENT: usize = 1 << 20;

/// What a change left of a row.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Left {
    /// All that there is to know: the whole row, or that it is gone.
    Whole,
    /// The row without values that the server did not send.
    Part,
}

/// What becomes of a copied row.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// It is sent.
    Send,
    /// The stream has said all that there is to say of it.
    LeaveOut,
    /// It must be read again.
    Again,
}

/// What was touched of one table.
#[derive(Debug, Default)]
struct Touched {
    /// How the keys are written; another way means that its bytes cannot be compared.
    shape: u64,
    keys: HashMap<Box<[u8]>, Vec<(u32, Left)>>,
    /// Transactions that emptied the table.
    emptied: Vec<u32>,
    /// Transactions whose keys are not known singly.
    unknown: BTreeSet<u32>,
    /// Nothing is known of any transaction up to this one.
    unknown_up_to: Option<u32>,
}

/// Rows of one table that left their key for another, during a copy, while the server did not send all of them. Where the
/// old key was not read yet and the new one was, no chunk has them. Positions tell of which tables there are some.
#[derive(Debug, Default)]
struct Moved {
    /// How the keys are written.
    shape: u64,
    /// The new ones.
    keys: HashSet<Box<[u8]>>,
    /// Whether there are others, too.
    and_others: bool,
}

/// See the module.
#[derive(Debug, Default)]
pub(crate) struct Window {
    /// Whether keys are remembered: a copy is under way.
    on: bool,
    /// Whether no copy is open, not even one that is paused, or goes on soon after a start.
    over: bool,
    tables: HashMap<u32, Touched>,
    bytes: usize,
    moved: HashMap<u32, Moved>,
    moved_bytes: usize,
    /// The transactions that were streamed, newest last.
    recent: VecDeque<u32>,
    /// Whether some that were streamed, perhaps by a process before, are not in `recent`.
    forgot: bool,
}

impl Window {
    /// Of a stream before which others may have been streamed that are not visible yet (`forgot`), and in which rows of
    /// these tables have moved.
    pub(crate) fn new(forgot: bool, moved: &[u32]) -> Window {
        let moved =
            moved.iter().map(|&table| (table, Moved { and_others: true, ..Moved::default() })).collect();
        Window { forgot, moved, ..Window::default() }
    }

    /// Whether keys are remembered.
    pub(crate) fn is_on(&self) -> bool {
        self.on
    }

    /// From here on keys are remembered. What was streamed before is given back: the ids, and whether they are all.
    pub(crate) fn begin(&mut self) -> (HashSet<u32>, bool) {
        (self.on, self.over) = (true, false);
        (self.recent.iter().copied().collect(), !self.forgot)
    }

    /// No copy is under way for now.
    pub(crate) fn rest(&mut self) {
        self.on = false;
        self.tables = HashMap::new();
        self.bytes = 0;
    }

    /// Nothing is left to copy.
    pub(crate) fn end(&mut self) {
        self.rest();
        self.over = true;
        self.moved = HashMap::new();
        self.moved_bytes = 0;
    }

    /// A row has this key now, and the stream has not all of it. While nothing is copied, only the table is remembered.
    pub(crate) fn moved(&mut self, table: u32, shape: u64, key: &[u8]) {
        if self.over {
            return;
        }
        let (on, full) = (self.on, self.moved_bytes > MAX_BYTES);
        let moved = self.moved.entry(table).or_insert_with(|| Moved { shape, ..Moved::default() });
        if !on || full || moved.shape != shape {
            moved.and_others = true;
        } else if moved.keys.insert(key.into()) {
            self.moved_bytes += key.len() + OVERHEAD;
        }
    }

    /// The tables of which rows have moved, in order.
    pub(crate) fn moved_tables(&self) -> Vec<u32> {
        let mut tables: Vec<u32> = self.moved.keys().copied().collect();
        tables.sort_unstable();
        tables
    }

    /// Whether rows of a table have moved.
    pub(crate) fn has_moved(&self, table: u32) -> bool {
        self.moved.contains_key(&table)
    }

    /// Whether the row of this key may be one that has moved.
    pub(crate) fn may_have_moved(&self, table: u32, shape: u64, key: &[u8]) -> bool {
        let Some(moved) = self.moved.get(&table) else { return false };
        moved.and_others || moved.shape != shape || moved.keys.contains(key)
    }

    /// A transaction is streamed.
    pub(crate) fn streamed(&mut self, xid: u32) {
        if self.recent.len() == MAX_RECENT {
            self.recent.pop_front();
            self.forgot = true;
        }
        self.recent.push_back(xid);
    }

    /// A key was changed by a transaction. `shape` says how keys of the table are written.
    pub(crate) fn touch(&mut self, table: u32, shape: u64, xid: u32, key: &[u8], left: Left) {
        if !self.on {
            return;
        }
        if self.bytes > MAX_BYTES {
            self.forget_keys();
        }
        let touched = self.tables.entry(table).or_default();
        if touched.shape != shape {
            if !touched.keys.is_empty() {
                touched.unknown.insert(xid);
            }
            touched.shape = shape;
        }
        if let Some(touches) = touched.keys.get_mut(key) {
            touches.push((xid, left));
            self.bytes += size_of::<(u32, Left)>();
            return;
        }
        self.bytes += key.len() + OVERHEAD;
        touched.keys.insert(key.into(), vec![(xid, left)]);
    }

    /// A table was emptied by a transaction.
    pub(crate) fn emptied(&mut self, table: u32, xid: u32) {
        if self.on {
            self.tables.entry(table).or_default().emptied.push(xid);
        }
    }

    /// Whether all of a chunk must be read again, because it is not known which of its rows were touched: too many were,
    /// or their keys are written in another way than the chunk's.
    pub(crate) fn blurs(&self, table: u32, shape: u64, seen: &Seen) -> bool {
        let Some(touched) = self.tables.get(&table) else { return false };
        let unseen = |xid: u32| seen.sees(xid) != Sees::Yes;
        let is_other = touched.shape != shape
            && touched.keys.values().any(|touches| touches.iter().any(|&(xid, _)| unseen(xid)));
        let is_behind = touched.unknown_up_to.is_some_and(|xid| !seen.sees_up_to(xid));
        is_other || is_behind || touched.unknown.iter().any(|&xid| unseen(xid))
    }

    /// What becomes of a row that a snapshot saw.
    pub(crate) fn judge(&self, table: u32, key: &[u8], seen: &Seen) -> Verdict {
        let Some(touched) = self.tables.get(&table) else { return Verdict::Send };
        let mut verdict = Verdict::Send;
        let emptied = touched.emptied.iter().map(|xid| (*xid, Left::Whole));
        for (xid, left) in touched.keys.get(key).into_iter().flatten().copied().chain(emptied) {
            match (seen.sees(xid), left) {
                (Sees::Yes, _) => {}
                (Sees::Unknown, _) => return Verdict::Again,
                (Sees::No, Left::Whole) => verdict = Verdict::LeaveOut,
                (Sees::No, Left::Part) if verdict == Verdict::Send => verdict = Verdict::Again,
                (Sees::No, Left::Part) => {}
            }
        }
        verdict
    }

    /// Forgets what this snapshot sees, and with it every later one.
    pub(crate) fn forget(&mut self, seen: &Seen) {
        let stays = |xid: u32| seen.sees(xid) != Sees::Yes;
        self.recent.retain(|&xid| stays(xid));
        let mut bytes = 0;
        self.tables.retain(|_, touched| {
            touched.keys.retain(|key, touches| {
                touches.retain(|&(xid, _)| stays(xid));
                bytes += if touches.is_empty() { 0 } else { key.len() + OVERHEAD };
                !touches.is_empty()
            });
            touched.emptied.retain(|&xid| stays(xid));
            touched.unknown.retain(|&xid| stays(xid));
            touched.unknown_up_to = touched.unknown_up_to.filter(|&xid| !seen.sees_up_to(xid));
            let knows_all = touched.unknown.is_empty() && touched.unknown_up_to.is_none();
            !(touched.keys.is_empty() && touched.emptied.is_empty() && knows_all)
        });
        self.bytes = bytes;
    }

    /// Too many keys: only the transactions are remembered.
    fn forget_keys(&mut self) {
        for touched in self.tables.values_mut() {
            let xids = touched.keys.drain().flat_map(|(_, touches)| touches).map(|(xid, _)| xid);
            touched.unknown.extend(xids);
            if touched.unknown.len() > MAX_UNKNOWN {
                let ids = std::mem::take(&mut touched.unknown).into_iter().chain(touched.unknown_up_to);
                // Ids go round.
                touched.unknown_up_to = ids.reduce(|a, b| if b.wrapping_sub(a) < 1 << 31 { b } else { a });
            }
        }
        self.bytes = 0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TABLE: u32 = 7;

    fn seen(text: &str) -> Seen {
        Seen::read(text, true).unwrap()
    }

    fn window() -> Window {
        let mut window = Window::new(false, &[]);
        window.begin();
        window
    }

    #[test]
    fn rows_that_moved_are_known_by_their_new_keys_until_they_are_too_many() {
        let mut window = Window::default();
        window.begin();
        window.moved(1, 7, b"a");
        assert!(window.has_moved(1) && !window.has_moved(2));
        assert_eq!([&b"a"[..], b"b"].map(|key| window.may_have_moved(1, 7, key)), [true, false]);
        assert!(window.may_have_moved(1, 8, b"b"), "keys that are written otherwise cannot be compared");
        window.moved(1, 8, b"c");
        assert!(window.may_have_moved(1, 7, b"b"));
    }

    #[test]
    fn that_rows_moved_is_known_until_nothing_is_left_to_copy_also_over_pauses_and_restarts() {
        let mut window = Window::new(true, &[3]);
        window.moved(1, 7, b"before the copy goes on");
        window.begin();
        window.moved(2, 7, b"a");
        window.rest();
        window.moved(2, 7, b"while it is paused");
        assert_eq!(window.moved_tables(), [1, 2, 3]);
        assert!([1, 2, 3].iter().all(|&table| window.may_have_moved(table, 7, b"any")));
        window.end();
        window.moved(1, 7, b"after it");
        assert!(window.moved_tables().is_empty());
    }

    #[test]
    fn a_row_that_an_unseen_transaction_changed_is_left_out() {
        let mut window = window();
        window.touch(TABLE, 1, 100, b"a", Left::Whole);
        assert_eq!(window.judge(TABLE, b"a", &seen("100:101:100")), Verdict::LeaveOut);
        assert_eq!(window.judge(TABLE, b"a", &seen("101:101:")), Verdict::Send);
        assert_eq!(window.judge(TABLE, b"b", &seen("100:101:100")), Verdict::Send);
        assert_eq!(window.judge(8, b"a", &seen("100:101:100")), Verdict::Send);
    }

    #[test]
    fn a_row_whose_change_was_not_sent_whole_is_read_again() {
        let mut window = window();
        window.touch(TABLE, 1, 100, b"a", Left::Part);
        assert_eq!(window.judge(TABLE, b"a", &seen("100:101:100")), Verdict::Again);
        window.touch(TABLE, 1, 101, b"a", Left::Whole);
        assert_eq!(window.judge(TABLE, b"a", &seen("100:101:100")), Verdict::LeaveOut);
        assert_eq!(window.judge(TABLE, b"a", &seen("101:101:")), Verdict::LeaveOut);
        let standby = Seen::read("100:102:", false).unwrap();
        assert_eq!(window.judge(TABLE, b"a", &standby), Verdict::Again);
    }

    #[test]
    fn what_was_sent_whole_once_needs_no_second_read() {
        let mut window = window();
        window.touch(TABLE, 1, 100, b"a", Left::Whole);
        window.touch(TABLE, 1, 101, b"a", Left::Part);
        assert_eq!(window.judge(TABLE, b"a", &seen("100:100:")), Verdict::LeaveOut);
        assert_eq!(window.judge(TABLE, b"a", &seen("101:101:")), Verdict::Again);
    }

    #[test]
    fn nothing_of_a_table_that_was_emptied_unseen_is_sent() {
        let mut window = window();
        window.emptied(TABLE, 100);
        assert_eq!(window.judge(TABLE, b"a", &seen("100:101:100")), Verdict::LeaveOut);
        assert_eq!(window.judge(TABLE, b"a", &seen("101:101:")), Verdict::Send);
    }

    #[test]
    fn only_what_is_seen_is_forgotten() {
        let mut window = window();
        window.touch(TABLE, 1, 100, b"a", Left::Whole);
        window.touch(TABLE, 1, 101, b"a", Left::Whole);
        window.touch(TABLE, 1, 100, b"b", Left::Whole);
        window.forget(&seen("101:102:101"));
        assert_eq!(window.tables[&TABLE].keys.len(), 1);
        assert_eq!(window.judge(TABLE, b"a", &seen("101:102:101")), Verdict::LeaveOut);
        window.forget(&seen("102:102:"));
        assert!(window.tables.is_empty());
        assert_eq!(window.bytes, 0);
    }

    #[test]
    fn keys_that_take_too_much_blur_the_whole_chunk() {
        let mut window = window();
        let key = vec![b'k'; MAX_BYTES / 2];
        for xid in 100..104u32 {
            window.touch(TABLE, 1, xid, &[&key[..], &xid.to_be_bytes()].concat(), Left::Whole);
        }
        assert!(window.blurs(TABLE, 1, &seen("100:101:100")));
        assert!(!window.blurs(TABLE, 1, &seen("104:104:")));
        assert!(window.bytes <= 2 * MAX_BYTES);
    }

    #[test]
    fn transactions_whose_keys_are_not_known_are_no_more_than_so_many() {
        let mut window = window();
        let many = u32::try_from(MAX_UNKNOWN).unwrap() + 10;
        let first = u32::MAX - 5;
        for n in 0..many {
            window.touch(TABLE, 1, first.wrapping_add(n), &n.to_be_bytes(), Left::Whole);
        }
        window.forget_keys();
        assert!(window.tables[&TABLE].unknown.is_empty());
        let (last, epoch) = (u64::from(first.wrapping_add(many - 1)), 5u64 << 32);
        let sees = |xmin: u64| seen(&format!("{0}:{0}:", epoch + xmin));
        assert!(window.blurs(TABLE, 1, &sees(last)) && !window.blurs(TABLE, 1, &sees(last + 1)));
        window.forget(&sees(last + 1));
        assert!(window.tables.is_empty());
    }

    #[test]
    fn keys_that_are_written_in_another_way_blur_the_whole_chunk() {
        let mut window = window();
        window.touch(TABLE, 1, 100, b"{\"id\":1}", Left::Whole);
        window.touch(TABLE, 2, 101, b"{\"id\":\"1\"}", Left::Whole);
        assert!(window.blurs(TABLE, 1, &seen("101:101:")));
        assert!(!window.blurs(TABLE, 1, &seen("102:102:")));
    }

    #[test]
    fn a_copy_that_begins_knows_what_was_streamed_before() {
        let mut window = Window::new(true, &[]);
        window.touch(TABLE, 1, 99, b"a", Left::Whole);
        window.streamed(99);
        window.streamed(100);
        assert_eq!(window.begin(), (HashSet::from([99, 100]), false));
        assert_eq!(window.judge(TABLE, b"a", &seen("99:101:99")), Verdict::Send, "nothing was remembered");
    }
}
