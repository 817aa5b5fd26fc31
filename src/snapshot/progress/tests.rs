//! Random orders of everything that can happen, with crashes at any point, against a table that is a set of rows.

use std::collections::BTreeSet;

use forebay_api::{SnapshotMode, SnapshotPlan, Table};
use proptest::prelude::*;

use super::super::command::Command;
use super::super::table;
use super::*;

const ROWS: u32 = 12;
const TABLES: [&str; 3] = ["a", "b", "c"];

/// A source, its destinations and a disk, around a progress.
struct World {
    progress: Progress,
    disk: Kept,
    plan: SnapshotPlan,
    work: Vec<Work>,
    tickets: Vec<(ChunkId, String, u32, Vec<u32>)>,
    put: Option<Changes>,
    /// The rows that are durable, of each copy.
    durable: BTreeMap<(String, u32), BTreeSet<u32>>,
    divisions_on_disk: BTreeSet<(Arc<str>, u64)>,
}

fn rows_of(range: &Range) -> Vec<u32> {
    let (from, to) = range.0.trim_start_matches("last ").split_once("..").unwrap();
    (from.parse().unwrap()..to.parse().unwrap()).collect()
}

fn listed() -> Vec<Table> {
    TABLES
        .map(|name| Table { name: name.to_owned(), incarnation: "1".to_owned(), estimated_rows: None })
        .to_vec()
}

impl World {
    fn new() -> World {
        let plan = SnapshotPlan {
            mode: SnapshotMode::Initial,
            parallel: 2,
            identity: "i".to_owned(),
            first_start: true,
            anew: false,
        };
        let mut world = World {
            progress: Progress::default(),
            disk: Kept::default(),
            plan,
            work: Vec::new(),
            tickets: Vec::new(),
            put: None,
            durable: BTreeMap::new(),
            divisions_on_disk: BTreeSet::new(),
        };
        world.progress.settle(&world.plan, &listed(), true);
        world
    }

    fn take_work(&mut self) {
        let Some(work) = self.progress.next() else { return };
        let place = match &work {
            Work::Divide { place, .. } => {
                let same = |other: &Work| place_of(other).table == place.table;
                assert!(!self.work.iter().any(same), "a table is divided while work on it is under way");
                place
            }
            Work::Read { copy, place, range } => {
                let division = (place.table.clone(), place.division);
                assert!(self.divisions_on_disk.contains(&division), "read before its division is stored");
                let pending = self.tickets.iter().filter(|(chunk, ..)| chunk.place == *place).count();
                assert!(pending < table::PENDING_CHUNKS);
                if range.0.starts_with("last") {
                    let durable = self.durable.get(&(copy.table.clone(), copy.number));
                    assert_eq!(
                        durable.map_or(0, BTreeSet::len),
                        ROWS as usize,
                        "the last one is read too soon"
                    );
                }
                place
            }
        };
        assert!(self.work.iter().all(|other| place_of(other) != place), "a range is read twice at a time");
        self.work.push(work);
    }

    fn end_work(&mut self, which: usize, choice: u8) {
        if self.work.is_empty() {
            return;
        }
        match self.work.swap_remove(which % self.work.len()) {
            Work::Divide { place, .. } => {
                let cut = u32::from(choice) % (ROWS + 1);
                let range = |from, to| Range(format!("{from}..{to}"));
                let division = Division {
                    ranges: vec![range(0, cut), range(cut, ROWS)],
                    last: choice.is_multiple_of(3).then(|| Range("last 3..5".to_owned())),
                    estimated_rows: None,
                };
                // changes of the table meanwhile can be many here, and never are too many
                let _ = self.progress.divided(&place, Some(division), 0);
            }
            Work::Read { copy, place, range } => {
                if choice.is_multiple_of(16) {
                    assert!(self.progress.read(&place, Read::Divide).is_none());
                    return;
                }
                let rows = rows_of(&range);
                let (taken, left) = rows.split_at(rows.len().min(usize::from(choice % 4)));
                let last = if range.0.starts_with("last") { "last " } else { "" };
                let to = rows.last().map_or(0, |last| last + 1);
                let rest = left.first().map(|from| Range(format!("{last}{from}..{to}")));
                let read = Read::Chunk { rest, rows: taken.len() as u64, bytes: 1 };
                if let Some(chunk) = self.progress.read(&place, read) {
                    self.tickets.push((chunk, copy.table, copy.number, taken.to_vec()));
                }
            }
        }
    }

    fn end_ticket(&mut self, which: usize) {
        if self.tickets.is_empty() {
            return;
        }
        let (chunk, table, number, rows) = self.tickets.swap_remove(which % self.tickets.len());
        self.durable.entry((table, number)).or_default().extend(rows);
        self.progress.durable(&chunk, 1);
    }

    fn begin_put(&mut self) {
        if self.put.is_none() && self.progress.has_changes() {
            self.put = Some(self.progress.changes());
        }
    }

    fn end_put(&mut self, works: bool) {
        let Some(changes) = self.put.take() else { return };
        if !works {
            self.progress.not_stored(changes);
            return;
        }
        self.write(&changes);
        self.progress.stored(&changes);
        self.divisions_on_disk.extend(changes.divisions);
    }

    fn write(&mut self, changes: &Changes) {
        if let Some(whole) = &changes.values.whole {
            self.disk.whole = Some(whole.clone());
        }
        for (table, record) in &changes.values.tables {
            match record {
                Some(record) => drop(self.disk.tables.insert(table.clone(), record.clone())),
                None => drop(self.disk.tables.remove(table)),
            }
        }
        self.disk_loses_nothing();
    }

    /// Whatever happens next: every row of every copy that is not given up is durable, or is left to be read.
    fn disk_loses_nothing(&self) {
        for (table, record) in &self.disk.tables {
            let durable = self.durable.get(&(table.clone(), record.number));
            let mut covered = durable.cloned().unwrap_or_default();
            match record.state {
                State::Done => {}
                State::Copying => {
                    let left = record.ranges.iter().filter(|range| !range.0.starts_with("last"));
                    covered.extend(left.flat_map(rows_of));
                }
                _ => continue,
            }
            assert_eq!(covered.len(), ROWS as usize, "{table} loses rows: {record:?}");
            assert!(record.rows <= u64::from(ROWS) + 2, "rows are counted twice");
        }
    }

    /// The process dies; a put that was under way was done or not.
    fn crash(&mut self, put_done: bool) {
        if let Some(changes) = self.put.take()
            && put_done
        {
            self.write(&changes);
        }
        self.work.clear();
        self.tickets.clear();
        self.divisions_on_disk.clear();
        self.progress = Progress::of(self.disk.clone());
        // what is loaded was stored
        for (name, table) in &self.progress.tables {
            self.divisions_on_disk.insert((name.clone(), table.division));
        }
        self.progress.settle(&self.plan, &listed(), true);
    }

    fn command(&mut self, choice: u8) {
        let name = TABLES[usize::from(choice / 8) % 3].to_owned();
        let table = Some(name.clone());
        let command = match choice % 8 {
            0 => Command::Pause { table: None },
            1 => Command::Pause { table },
            2 | 3 => Command::Resume { table: None },
            4 => Command::Resume { table },
            5 => Command::Stop { table },
            _ => Command::Start { table: name, filter: None },
        };
        let before = format!("{:?}", self.progress.tables);
        if self.progress.obey(&command, &self.plan, &listed()).is_err() {
            assert_eq!(before, format!("{:?}", self.progress.tables), "what is refused changes nothing");
        }
    }

    fn step(&mut self, what: u8, which: usize, choice: u8) {
        match what % 16 {
            0..=3 => self.take_work(),
            4..=7 => self.end_work(which, choice),
            8..=10 => self.end_ticket(which),
            11 => self.begin_put(),
            12 | 13 => self.end_put(!choice.is_multiple_of(8)),
            14 => self.command(choice),
            _ if choice < 64 => self.crash(choice < 32),
            _ => {}
        }
    }

    /// Goes on without disturbance until nothing is left.
    fn finish(&mut self) {
        // refused where nothing is paused
        let _ = self.progress.obey(&Command::Resume { table: None }, &self.plan, &listed());
        for _ in 0..1000 {
            self.take_work();
            self.end_work(0, 7);
            self.end_ticket(0);
            self.begin_put();
            self.end_put(true);
        }
        assert!(!self.progress.is_open(), "it never ends: {:?}", self.progress);
        assert!(!self.progress.has_changes());
        assert!(self.progress.busy.is_empty());
        assert_eq!(self.progress.pending, 0);
        self.crash(false);
        assert!(!self.progress.is_open(), "what was done is begun again");
    }
}

fn place_of(work: &Work) -> &Place {
    match work {
        Work::Divide { place, .. } | Work::Read { place, .. } => place,
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(600))]

    #[test]
    fn every_row_is_durable_before_its_table_is_done_whatever_happens_in_whatever_order(
        steps in prop::collection::vec((any::<u8>(), any::<usize>(), any::<u8>()), 0..400)
    ) {
        let mut world = World::new();
        for (what, which, choice) in steps {
            world.step(what, which, choice);
        }
        world.finish();
    }
}

#[test]
fn a_table_that_comes_back_gets_a_number_that_it_never_had() {
    let mut world = World::new();
    world.finish();
    assert_eq!(world.disk.tables["b"].number, 1);
    let others: Vec<Table> = listed().into_iter().filter(|table| table.name != "b").collect();
    world.progress.settle(&world.plan, &others, false);
    world.begin_put();
    world.end_put(true);
    assert!(!world.disk.tables.contains_key("b"));
    world.crash(false);
    assert_eq!(world.progress.tables["b"].record.number, 2, "ids of the first copy would come again");
    assert_eq!(world.progress.tables["b"].record.reason, Reason::Added);
    assert_eq!(world.progress.tables["a"].record.state, State::Done);
}

#[test]
fn tables_are_begun_in_the_order_of_their_names_and_shared_out_to_free_workers() {
    let mut world = World::new();
    let mut begun = Vec::new();
    for _ in 0..200 {
        world.take_work();
        if let Some(Work::Divide { place, .. }) = world.work.first() {
            begun.push(place.table.to_string());
        }
        world.end_work(0, 1);
        world.begin_put();
        world.end_put(true);
    }
    assert_eq!(begun, TABLES, "while chunks of `a` wait for a destination, the others go on");
}

#[test]
fn a_table_that_is_only_ever_divided_is_given_back() {
    let mut world = World::new();
    let mut in_vain = 0;
    loop {
        world.begin_put();
        world.end_put(true);
        match world.progress.next().unwrap() {
            Work::Divide { place, .. } => {
                let division = Division { ranges: vec![Range("0..12".to_owned())], ..Division::default() };
                if !world.progress.divided(&place, Some(division), 0) {
                    break;
                }
                in_vain += 1;
            }
            Work::Read { place, .. } => assert!(world.progress.read(&place, Read::Divide).is_none()),
        }
    }
    assert_eq!(in_vain, BARREN_DIVISIONS);
}
