//! How far all tables of a source are, and what is read next. No I/O, no clock.
//!
//! | what happens        | what changes                                                                       |
//! |---------------------|------------------------------------------------------------------------------------|
//! | `settle`            | tables that came are to be copied or not, those that went are forgotten            |
//! | `next`              | a table is being divided, or a stretch of it read                                  |
//! | `divided`           | its stretches are there; none is read before they are stored                       |
//! | `read`              | a chunk is on its way                                                              |
//! | `durable`           | what is left of the stretch becomes less, once all chunks before it are durable    |
//! | `changes`, `stored` | what is left is on disk                                                            |
//!
//! Invariant: whatever is lost of this and loaded again from what was stored, every row is read at least once after
//! its copy began, and a copy is done only when every row of it was durable.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use forebay_api::{Division, Range, TableCopy};

use super::record::{Kept, Reason, Record, State, Values, Whole};
use super::table::{Durable, TableProgress};

/// So many chunks of all tables may wait for their destinations. Each holds memory of the pipeline too, so this is only
/// for tables of a few rows: a thousand of them are not begun while a destination is down.
pub(super) const PENDING_CHUNKS: usize = 256;

/// A table that is changed so often before one chunk of it is read is given back to the source's retries.
pub(super) const BARREN_DIVISIONS: u32 = 20;

/// All tables of a source.
#[derive(Debug, Default)]
pub(super) struct Progress {
    /// `None`: the source's tables were never looked at.
    pub(super) whole: Option<Whole>,
    /// By name, which is the order in which they are copied.
    pub(super) tables: BTreeMap<Arc<str>, TableProgress>,
    /// Divisions and reads under way, of whatever copy. A table is divided only when there are none.
    busy: BTreeMap<Arc<str>, usize>,
    /// Chunks that are not durable.
    pending: usize,
    /// Counts divisions, so that none is taken for another.
    divisions: u64,
    /// Tables whose record is to be stored, or removed where there is none.
    changed: BTreeSet<Arc<str>>,
    whole_changed: bool,
    turns: Vec<Turn>,
}

/// Something to do. Whoever does it says what came of it: [`Progress::divided`], [`Progress::read`],
/// [`Progress::refused`].
#[derive(Clone, Debug)]
pub(super) enum Work {
    /// A table's turn has come.
    Divide { copy: TableCopy, place: Place },
    /// A chunk can be read.
    Read { copy: TableCopy, place: Place, range: Range },
}

/// What work is about.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Place {
    pub(super) table: Arc<str>,
    division: u64,
    stretch: u32,
}

/// A chunk that is on its way.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct ChunkId {
    pub(super) place: Place,
    chunk: u64,
}

/// What came of reading.
#[derive(Clone, Debug)]
pub(super) enum Read {
    Chunk { rest: Option<Range>, rows: u64, bytes: u64 },
    Divide,
    Gone,
}

/// A change that an operator wants to read of.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Turn {
    Begun(Arc<str>),
    Done(Arc<str>),
    Again(Arc<str>),
    Gone(Arc<str>),
}

/// What is to be stored, and which divisions are stored with it.
#[derive(Debug)]
pub(super) struct Changes {
    pub(super) values: Values,
    divisions: Vec<(Arc<str>, u64)>,
}

impl Progress {
    /// From what is stored.
    pub(super) fn of(kept: Kept) -> Progress {
        let mut progress = Progress { whole: kept.whole, ..Progress::default() };
        for (name, record) in kept.tables {
            let division = progress.new_division();
            progress.tables.insert(name.into(), TableProgress::of(record, division));
        }
        progress
    }

    /// Whether something is left to copy and may go on.
    pub(super) fn is_wanted(&self) -> bool {
        !self.is_paused() && self.open().any(|(_, table)| !table.record.paused)
    }

    /// Whether something is left to copy.
    pub(super) fn is_open(&self) -> bool {
        self.open().next().is_some()
    }

    /// The tables that are not copied to their end.
    pub(super) fn open(&self) -> impl Iterator<Item = (&Arc<str>, &TableProgress)> {
        self.tables.iter().filter(|(_, table)| table.record.state.is_open())
    }

    /// Whether an operator holds everything.
    pub(super) fn is_paused(&self) -> bool {
        self.whole.as_ref().is_some_and(|whole| whole.paused)
    }

    /// What to do next, if there is something.
    pub(super) fn next(&mut self) -> Option<Work> {
        if self.is_paused() {
            return None;
        }
        let has_room = self.pending < PENDING_CHUNKS;
        for (name, table) in &mut self.tables {
            let busy = self.busy.get(name).copied().unwrap_or(0);
            let place = |stretch| Place { table: name.clone(), division: table.division, stretch };
            let work = match table.record.state {
                _ if table.record.paused => continue,
                State::Waiting if busy == 0 && has_room => {
                    Work::Divide { copy: copy_of(name, &table.record), place: place(0) }
                }
                State::Copying if table.division_is_stored && has_room => {
                    let Some((stretch, range)) = table.next() else { continue };
                    let place = Place { table: name.clone(), division: table.division, stretch };
                    Work::Read { copy: copy_of(name, &table.record), place, range }
                }
                _ => continue,
            };
            *self.busy.entry(name.clone()).or_default() += 1;
            return Some(work);
        }
        None
    }

    /// A table was divided, or is gone. Whether it can be divided again: not when that was done too often.
    pub(super) fn divided(&mut self, place: &Place, made: Option<Division>, now: i64) -> bool {
        self.is_free(place);
        let Some(table) = current(&mut self.tables, place) else { return true };
        let Some(made) = made else {
            self.gone(&place.table);
            return true;
        };
        self.turns.push(Turn::Begun(place.table.clone()));
        if table.divide(made, now) {
            self.turns.push(Turn::Done(place.table.clone()));
        }
        let in_vain = table.barren > BARREN_DIVISIONS;
        self.changed.insert(place.table.clone());
        !in_vain
    }

    /// Something was read; `None`: what is not waited for, because the table's copy is another one now.
    pub(super) fn read(&mut self, place: &Place, read: Read) -> Option<ChunkId> {
        self.is_free(place);
        let division = self.new_division();
        let table = current(&mut self.tables, place)?;
        match read {
            Read::Chunk { rest, rows, bytes } => {
                self.pending += 1;
                let chunk = table.chunk(place.stretch, rest, rows, bytes);
                return Some(ChunkId { place: place.clone(), chunk });
            }
            Read::Divide => {
                table.forget_stretches(division);
                table.record.state = State::Waiting;
                // Its rows may be called otherwise now, so that ids would mean others than before.
                table.record.number += 1;
                self.turns.push(Turn::Again(place.table.clone()));
                self.changed.insert(place.table.clone());
            }
            Read::Gone => self.gone(&place.table),
        }
        None
    }

    /// Work was ended before its time, because its copy is another one now.
    pub(super) fn taken_back(&mut self, place: &Place) {
        self.is_free(place);
    }

    /// Why the copy is made that work is about; `None` where it is another one now.
    pub(super) fn reason(&mut self, place: &Place) -> Option<Reason> {
        current(&mut self.tables, place).map(|table| table.record.reason)
    }

    /// The source refuses to copy the table as it was asked to: the copy is given up.
    pub(super) fn refused(&mut self, place: &Place, why: String) {
        self.is_free(place);
        if let Some(table) = current(&mut self.tables, place) {
            table.record.problem = Some(why);
            self.give_up(&place.table, State::Stopped);
        }
    }

    /// A chunk is durable wherever it must be.
    pub(super) fn durable(&mut self, chunk: &ChunkId, now: i64) {
        self.pending -= 1;
        let Some(table) = current(&mut self.tables, &chunk.place) else { return };
        let moved = table.durable(chunk.place.stretch, chunk.chunk, now);
        if moved == Durable::Later {
            return;
        }
        self.changed.insert(chunk.place.table.clone());
        if moved == Durable::Done {
            self.turns.push(Turn::Done(chunk.place.table.clone()));
        }
    }

    /// What an operator wants to read of, since this was asked last.
    pub(super) fn turns(&mut self) -> Vec<Turn> {
        std::mem::take(&mut self.turns)
    }

    /// Whether something is to be stored.
    pub(super) fn has_changes(&self) -> bool {
        self.whole_changed || !self.changed.is_empty()
    }

    /// Whether reading waits for something to be stored.
    pub(super) fn waits_for_the_store(&self) -> bool {
        let is_unstored = |name: &Arc<str>| self.tables.get(name).is_some_and(|t| !t.division_is_stored);
        self.changed.iter().any(is_unstored)
    }

    /// What is to be stored, all of it at once.
    pub(super) fn changes(&mut self) -> Changes {
        let mut changes = Changes { values: Values::default(), divisions: Vec::new() };
        if std::mem::take(&mut self.whole_changed) {
            changes.values.whole.clone_from(&self.whole);
        }
        for name in std::mem::take(&mut self.changed) {
            let table = self.tables.get(&name);
            changes.values.tables.insert(name.to_string(), table.map(TableProgress::to_record));
            changes.divisions.extend(table.map(|table| (name, table.division)));
        }
        changes
    }

    /// What [`Progress::changes`] gave is on disk.
    pub(super) fn stored(&mut self, changes: &Changes) {
        for (name, division) in &changes.divisions {
            if let Some(table) = self.tables.get_mut(name).filter(|table| table.division == *division) {
                table.division_is_stored = true;
            }
        }
    }

    /// What [`Progress::changes`] gave could not be stored: it is to be stored another time, as it is then.
    pub(super) fn not_stored(&mut self, changes: Changes) {
        self.whole_changed |= changes.values.whole.is_some();
        self.changed.extend(changes.values.tables.into_keys().map(Arc::from));
    }

    /// Begins a copy of a table, from its first row on.
    pub(super) fn begin(&mut self, table: &Arc<str>, reason: Reason, identity: &str) -> &mut Record {
        let round = self.open_round();
        let vanished = self.whole.as_ref().map_or(0, |whole| whole.vanished);
        let known = self.tables.get(table).map(|known| &known.record);
        let before = known.map_or(vanished, |record| record.number);
        let incarnation = known.map(|record| record.incarnation.clone()).unwrap_or_default();
        let division = self.new_division();
        let record = Record { incarnation, ..Record::waiting(before + 1, round, reason, identity) };
        self.tables.insert(table.clone(), TableProgress::of(record, division));
        self.changed.insert(table.clone());
        &mut self.tables.get_mut(table).expect("it was just put there").record
    }

    /// Has a table recorded as one that is not copied.
    pub(super) fn leave(&mut self, table: &Arc<str>, identity: &str) {
        let number = self.whole.as_ref().map_or(0, |whole| whole.vanished);
        let mut record = Record::waiting(number, 0, Reason::Initial, identity);
        record.state = State::NotCopied;
        let division = self.new_division();
        self.tables.insert(table.clone(), TableProgress::of(record, division));
        self.changed.insert(table.clone());
    }

    /// Ends a copy before its time.
    pub(super) fn give_up(&mut self, table: &Arc<str>, state: State) {
        let division = self.new_division();
        let known = self.tables.get_mut(table).expect("whoever gives it up has seen it");
        known.forget_stretches(division);
        (known.record.state, known.record.paused) = (state, false);
        self.changed.insert(table.clone());
        self.tidy();
    }

    /// Forgets a table, but not the number of its last copy.
    pub(super) fn forget(&mut self, table: &Arc<str>) {
        let Some(known) = self.tables.remove(table) else { return };
        let whole = self.whole.get_or_insert_default();
        if known.record.number > whole.vanished {
            whole.vanished = known.record.number;
            self.whole_changed = true;
        }
        self.changed.insert(table.clone());
        self.tidy();
    }

    /// Changes what holds for all tables.
    pub(super) fn set_whole(&mut self, whole: Whole) {
        self.whole_changed |= self.whole.as_ref() != Some(&whole);
        self.whole = Some(whole);
    }

    /// A table's record was changed.
    pub(super) fn touch(&mut self, table: &Arc<str>) {
        self.changed.insert(table.clone());
    }

    fn gone(&mut self, table: &Arc<str>) {
        self.forget(table);
        self.turns.push(Turn::Gone(table.clone()));
    }

    /// The round that a copy which begins now belongs to.
    fn open_round(&mut self) -> u32 {
        let is_open = self.is_open();
        let whole = self.whole.get_or_insert_default();
        if !is_open {
            whole.round += 1;
            self.whole_changed = true;
        }
        whole.round
    }

    /// Nothing that is not left can be paused: else what comes later would be, and nobody would know why.
    fn tidy(&mut self) {
        if self.is_paused() && !self.is_open() {
            let whole = self.whole.clone().unwrap_or_default();
            self.set_whole(Whole { paused: false, ..whole });
        }
    }

    fn new_division(&mut self) -> u64 {
        self.divisions += 1;
        self.divisions
    }

    /// Work on a table has ended.
    fn is_free(&mut self, place: &Place) {
        let busy = self.busy.get_mut(&place.table).expect("what ends was begun");
        *busy -= 1;
        if *busy == 0 {
            self.busy.remove(&place.table);
        }
    }
}

/// The table that work was about, unless its copy is another one now.
fn current<'t>(
    tables: &'t mut BTreeMap<Arc<str>, TableProgress>,
    place: &Place,
) -> Option<&'t mut TableProgress> {
    tables.get_mut(&place.table).filter(|table| table.division == place.division)
}

fn copy_of(table: &str, record: &Record) -> TableCopy {
    TableCopy { table: table.to_owned(), number: record.number, filter: record.filter.clone() }
}

#[cfg(test)]
mod tests;
