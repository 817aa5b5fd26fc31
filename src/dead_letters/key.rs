//! What keeps events in order: events of one row, and events without a key with all of their table.
//!
//! Two events depend on each other when they are of one table of one source and have the same key, or one of them has
//! none: a TRUNCATE stands behind every row before it, and every row after it behind the TRUNCATE.

use std::collections::{HashMap, HashSet, VecDeque};

use forebay_api::{Event, Mark, Op};
use sha2::{Digest as _, Sha256};

/// Half a SHA-256: enough that no two of a million meet by chance.
pub(super) type Digest = [u8; 16];

/// A row of a table, or a whole table.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct EventKey {
    table: Digest,
    /// `None`: the event has no key.
    row: Option<Digest>,
}

impl EventKey {
    /// Of an event.
    pub fn of(event: Event<'_>) -> EventKey {
        let subject = event.subject();
        let table = subject.table.as_deref().unwrap_or(&subject.name);
        let key = Some(event.key()).filter(|key| !key.is_empty());
        EventKey::new(&event.stream().source, subject.schema.as_deref(), table, key)
    }

    /// Of its parts; `key` is JSON.
    pub fn new(source: &str, schema: Option<&str>, table: &str, key: Option<&[u8]>) -> EventKey {
        let table = digest(&[source.as_bytes(), schema.unwrap_or_default().as_bytes(), table.as_bytes()]);
        EventKey { table, row: key.map(|key| digest(&[key])) }
    }
}

/// The keys of events that are delivered together, so that none of them depends on another.
#[derive(Debug, Default)]
pub struct Apart {
    rows: HashSet<EventKey>,
    tables: HashSet<Digest>,
    keyless: HashSet<Digest>,
}

impl Apart {
    /// Whether something that was taken in depends on a key, or that on it.
    pub fn has_dependent_on(&self, key: EventKey) -> bool {
        self.keyless.contains(&key.table)
            || self.rows.contains(&key)
            || (key.row.is_none() && self.tables.contains(&key.table))
    }

    /// Takes a key in, unless something depends on it.
    pub fn take(&mut self, key: EventKey) -> bool {
        if self.has_dependent_on(key) {
            return false;
        }
        self.tables.insert(key.table);
        match key.row {
            Some(_) => self.rows.insert(key),
            None => self.keyless.insert(key.table),
        };
        true
    }

    /// Begins anew.
    pub fn clear(&mut self) {
        *self = Apart::default();
    }
}

/// Where a letter stands: in the files, and in its stream.
#[derive(Clone, Copy, Debug)]
struct Place {
    seq: u64,
    epoch: u64,
    mark: Mark,
}

/// The keys of which there are open letters, each with where they stand, oldest first.
#[derive(Debug, Default)]
pub(super) struct Blocked(HashMap<Digest, Table>);

#[derive(Debug, Default)]
struct Table {
    keyless: VecDeque<Place>,
    rows: HashMap<Digest, VecDeque<Place>>,
}

impl Table {
    fn places(&mut self, row: Option<Digest>) -> &mut VecDeque<Place> {
        match row {
            None => &mut self.keyless,
            Some(row) => self.rows.entry(row).or_default(),
        }
    }

    /// The letters that an event with this key depends on, those of each key by themselves.
    fn depends_on(&self, row: Option<Digest>) -> impl Iterator<Item = &VecDeque<Place>> {
        let of_row = row.and_then(|row| self.rows.get(&row)).into_iter();
        let of_all = row.is_none().then(|| self.rows.values()).into_iter().flatten();
        std::iter::once(&self.keyless).chain(of_row).chain(of_all)
    }
}

impl Blocked {
    /// There is a letter of `key`, the `seq`-th that was ever written.
    pub(super) fn add(&mut self, key: EventKey, seq: u64, epoch: u64, mark: Mark) {
        self.0.entry(key.table).or_default().places(key.row).push_back(Place { seq, epoch, mark });
    }

    /// It is settled.
    pub(super) fn remove(&mut self, key: EventKey, seq: u64) {
        let Some(table) = self.0.get_mut(&key.table) else { return };
        let places = table.places(key.row);
        if let Ok(at) = places.binary_search_by_key(&seq, |place| place.seq) {
            places.remove(at);
        }
        if let (true, Some(row)) = (places.is_empty(), key.row) {
            table.rows.remove(&row);
        }
        if table.keyless.is_empty() && table.rows.is_empty() {
            self.0.remove(&key.table);
        }
    }

    /// Whether an event has to wait: something that it depends on is a letter. What stood before the letter in the same
    /// stream is only read again, and was delivered before it. A schema goes before its rows, and waits for none of
    /// them.
    pub(super) fn blocks(&self, event: &Waiting) -> bool {
        let Some(table) = self.0.get(&event.key.table) else { return false };
        let stands_behind = |place: &Place| place.epoch != event.epoch || place.mark <= event.mark;
        if event.is_schema {
            return table.keyless.iter().any(stands_behind);
        }
        table.depends_on(event.key.row).any(|places| places.iter().any(stands_behind))
    }

    /// Whether a letter that is older than the `seq`-th has to be delivered before it.
    pub(super) fn is_behind_another(&self, key: EventKey, seq: u64) -> bool {
        let table = self.0.get(&key.table);
        let older = |places: &VecDeque<Place>| places.front().is_some_and(|oldest| oldest.seq < seq);
        table.is_some_and(|table| table.depends_on(key.row).any(older))
    }
}

/// What decides whether an event has to wait.
#[derive(Clone, Copy, Debug)]
pub struct Waiting {
    /// Its row or table.
    pub key: EventKey,
    epoch: u64,
    mark: Mark,
    is_schema: bool,
}

impl Waiting {
    /// Of an event.
    pub fn of(event: Event<'_>) -> Waiting {
        Waiting {
            key: EventKey::of(event),
            epoch: event.stream().epoch,
            mark: event.mark(),
            is_schema: event.op() == Op::Schema,
        }
    }
}

/// Half a SHA-256 of parts, none of which can pass for a piece of another.
pub(super) fn digest(parts: &[&[u8]]) -> Digest {
    let mut hash = Sha256::new();
    for part in parts {
        hash.update((part.len() as u64).to_be_bytes());
        hash.update(part);
    }
    *hash.finalize().first_chunk().expect("SHA-256 has 32 bytes")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(table: &str, key: Option<&str>) -> EventKey {
        EventKey::new("shop", Some("public"), table, key.map(str::as_bytes))
    }

    fn waiting(key: EventKey, lsn: u64) -> Waiting {
        Waiting { key, epoch: 1, mark: at(lsn), is_schema: false }
    }

    fn at(lsn: u64) -> Mark {
        Mark { major: (1, lsn), ..Mark::MIN }
    }

    #[test]
    fn a_key_comes_once_and_an_event_without_one_has_its_table_for_itself() {
        let mut apart = Apart::default();
        assert!(
            apart.take(key("a", Some("1")))
                && apart.take(key("a", Some("2")))
                && apart.take(key("b", Some("1")))
        );
        assert!(!apart.take(key("a", Some("1"))) && !apart.take(key("a", None)));
        assert!(
            apart.take(key("c", None)) && !apart.take(key("c", Some("1"))) && !apart.take(key("c", None))
        );
        apart.clear();
        assert!(apart.take(key("a", Some("1"))));
    }

    #[test]
    fn a_letter_blocks_what_stands_behind_it_and_depends_on_it_until_it_is_settled() {
        let mut blocked = Blocked::default();
        blocked.add(key("a", Some("1")), 7, 1, at(10));
        assert!(blocked.blocks(&waiting(key("a", Some("1")), 11)));
        assert!(blocked.blocks(&waiting(key("a", Some("1")), 10)), "itself, read again");
        assert!(!blocked.blocks(&waiting(key("a", Some("1")), 9)), "a repeat of what came before it");
        let elsewhere = Waiting { epoch: 2, ..waiting(key("a", Some("1")), 9) };
        assert!(blocked.blocks(&elsewhere), "marks of two streams do not compare");
        assert!(blocked.blocks(&waiting(key("a", None), 11)), "a TRUNCATE");
        let schema = Waiting { is_schema: true, ..waiting(key("a", None), 11) };
        assert!(!blocked.blocks(&schema));
        assert!(!blocked.blocks(&waiting(key("a", Some("2")), 11)));
        assert!(!blocked.blocks(&waiting(key("b", Some("1")), 11)));
        assert!(
            blocked.is_behind_another(key("a", Some("1")), 8)
                && !blocked.is_behind_another(key("a", Some("1")), 7)
        );
        blocked.remove(key("a", Some("1")), 7);
        assert!(!blocked.blocks(&waiting(key("a", Some("1")), 11)));
        assert!(blocked.0.is_empty());
    }

    #[test]
    fn a_letter_without_a_key_blocks_its_table() {
        let mut blocked = Blocked::default();
        blocked.add(key("a", None), 1, 1, at(10));
        for row in [None, Some("1")] {
            assert!(blocked.blocks(&waiting(key("a", row), 11)));
            assert!(!blocked.blocks(&waiting(key("b", row), 11)));
        }
    }
}
