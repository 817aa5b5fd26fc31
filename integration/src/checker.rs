//! A black box's judge: holds what a destination received against the ledger of what was committed.
//!
//! It knows nothing of the daemon but the envelope. Every event is bound to the one committed change that it
//! tells of; what remains unbound on either side was lost or never committed. An id binds for good: the same
//! change under two ids, or one id with two bodies, is a defect. Order is judged for each key (`order.rs`), and
//! the events are replayed into tables as a reader would (`replay.rs`).
//!
//! At least once allows one thing only: a repeat that is followed again by all its successors of that key.
//!
//! Where rows are copied too ([`Checker::with_copies`]), each must be one that was committed, and none may be older
//! than the last event of its key. What was committed before the stream began needs no event: then the copy has it.

mod event;
mod order;
mod replay;
mod report;
#[cfg(test)]
mod tests;

use std::collections::HashMap;
use std::fs::{self, File};
use std::io::{self, BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::sync::Arc;

pub use order::Order;
pub use report::{Defect, Report};

use crate::workload::{Contents, Key, Ledger, Op};
use event::Event;
use order::Tracks;
use replay::Replay;

/// An id that was seen, and what it stands for since.
struct Seen {
    digest: u64,
    /// The place of its change in the ledger; none where there is no such change.
    change: Option<usize>,
}

/// Takes the events of one destination in the order in which a reader gets them, then reports.
pub struct Checker<'a> {
    ledger: &'a Ledger,
    by_version: HashMap<i64, usize>,
    /// Deletes and truncations carry no version, but a transaction makes only one of each key, or of each table.
    by_transaction: HashMap<(u64, Op, &'static str, Option<Key>), usize>,
    /// For each change the id under which it came first.
    ids: Vec<Option<Arc<str>>>,
    seen: HashMap<Arc<str>, Seen>,
    tracks: Tracks,
    replay: Replay,
    /// Rows are copied too, and changes up to this version may be from before the stream began.
    copied_until: Option<i64>,
    report: Report,
}

impl<'a> Checker<'a> {
    /// A checker of one destination's output against what was committed.
    pub fn new(ledger: &'a Ledger, order: Order) -> Checker<'a> {
        let mut by_version = HashMap::new();
        let mut by_transaction = HashMap::new();
        for (at, change) in ledger.changes.iter().enumerate() {
            if change.new.is_some() {
                by_version.insert(change.version, at);
            } else {
                let known_by = (change.short_xid(), change.op, change.table.name, change.key());
                let twin = by_transaction.insert(known_by, at);
                assert_eq!(twin, None, "a transaction deletes a key only once: {change}");
            }
        }
        Checker {
            ledger,
            by_version,
            by_transaction,
            ids: vec![None; ledger.changes.len()],
            seen: HashMap::new(),
            tracks: Tracks::new(ledger, order),
            replay: Replay::new(order),
            copied_until: None,
            report: Report::default(),
        }
    }

    /// Takes copied rows too. Changes up to `version` may have been committed before the stream began; what follows in
    /// their keys must have come from there on. Only for an output that is one sequence.
    pub fn with_copies(mut self, version: i64) -> Checker<'a> {
        assert_eq!(self.replay.order, Order::Total, "a copied row has a place in the stream only");
        self.copied_until = Some(version);
        self.replay.copies = true;
        self
    }

    /// Takes the next event of a partition; an output that has none is partition 0.
    pub fn take(&mut self, partition: i32, json: &[u8]) {
        self.report.events += 1;
        let event = match Event::parse(json) {
            Ok(Some(event)) => event,
            Ok(None) => {
                self.report.others += 1;
                return;
            }
            Err(why) => {
                self.report.note(Defect::Malformed, || {
                    format!("{why}: {}", String::from_utf8_lossy(&json[..json.len().min(400)]))
                });
                return;
            }
        };
        if event.is_copied() {
            self.take_copied(event);
            return;
        }
        let change = match self.seen.get(&event.id) {
            Some(seen) => {
                let same = seen.digest == event.digest;
                let defect = if same { Defect::Repeated } else { Defect::SecondBody };
                self.report.note(defect, || event.to_string());
                seen.change
            }
            None => self.bind(event),
        };
        if let Some(change) = change {
            for disorder in self.tracks.take(partition, change) {
                self.report.note(Defect::OutOfOrder, || disorder.tell(self.ledger));
            }
        }
    }

    /// Takes a copied row. It may come again under its id as another change left it.
    fn take_copied(&mut self, event: Event) {
        self.report.copied += 1;
        let change = event.version().and_then(|version| self.by_version.get(&version).copied());
        let Some(at) = change.filter(|_| self.copied_until.is_some()) else {
            self.report.note(Defect::NeverCommitted, || event.to_string());
            return;
        };
        let change = &self.ledger.changes[at];
        if let Err(why) = event.shows(change) {
            self.report.note(Defect::Altered, || format!("{event}: {why}; it was {change}"));
        }
        if let Some(disorder) = self.tracks.see_copied(at) {
            self.report.note(Defect::OutOfOrder, || disorder.tell(self.ledger));
        }
        self.replay.take(event, &mut self.report);
    }

    /// Takes every line of every file of a folder, the files in the order of their names.
    pub fn take_folder(&mut self, folder: &Path) -> io::Result<()> {
        let mut files: Vec<PathBuf> =
            fs::read_dir(folder)?.map(|entry| Ok(entry?.path())).collect::<io::Result<_>>()?;
        files.sort();
        let mut line = Vec::new();
        for file in files {
            let mut reader = BufReader::new(File::open(file)?);
            while reader.read_until(b'\n', &mut line)? > 0 {
                self.take(0, &line);
                line.clear();
            }
        }
        Ok(())
    }

    /// Finds the change that an event tells of, when its id comes for the first time.
    fn bind(&mut self, event: Event) -> Option<usize> {
        let change = self.find(&event);
        match change {
            None => {
                let rolled_back = event.version().and_then(|version| self.ledger.rolled_back.get(&version));
                self.report.note(Defect::NeverCommitted, || match rolled_back {
                    Some(tag) => format!("{event}, rolled back in transaction {tag}"),
                    None => event.to_string(),
                });
            }
            Some(at) => match &self.ids[at] {
                Some(first) => {
                    self.report.note(Defect::SecondId, || format!("{event}, which came as {first}"));
                }
                None => {
                    self.ids[at] = Some(Arc::clone(&event.id));
                    if let Err(why) = event.tells_of(&self.ledger.changes[at]) {
                        let change = &self.ledger.changes[at];
                        self.report.note(Defect::Altered, || format!("{event}: {why}; it was {change}"));
                    }
                }
            },
        }
        self.seen.insert(Arc::clone(&event.id), Seen { digest: event.digest, change });
        self.replay.take(event, &mut self.report);
        change
    }

    fn find(&self, event: &Event) -> Option<usize> {
        if let Some(version) = event.version() {
            return self.by_version.get(&version).copied();
        }
        let op = [Op::Delete, Op::Truncate].into_iter().find(|op| op.name() == event.op)?;
        let known_by = (event.source.xid?, op, event.table()?.name, event.key_values());
        self.by_transaction.get(&known_by).copied()
    }

    /// Says what is wrong, now that nothing more will come. `contents` is what the tables hold.
    pub fn finish(mut self, contents: &Contents) -> Report {
        for (at, change) in self.ledger.changes.iter().enumerate() {
            let before = self.copied_until.is_some_and(|until| change.version <= until);
            if self.ids[at].is_some() {
                continue;
            } else if before && self.tracks.begins(at) {
                self.report.before += 1;
            } else {
                self.report.note(Defect::Lost, || change.to_string());
            }
        }
        for disorder in self.tracks.finish() {
            self.report.note(Defect::OutOfOrder, || disorder.tell(self.ledger));
        }
        for difference in
            self.replay.finish(&mut self.report).differences("the replay", contents, "the table")
        {
            self.report.note(Defect::Replay, || difference);
        }
        self.report.changes = self.ledger.changes.len() as u64;
        self.report.ids = self.ids;
        self.report
    }
}
