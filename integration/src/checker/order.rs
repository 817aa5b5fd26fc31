//! Order, judged for each key by itself: pure.
//!
//! A track is one key's committed changes, in commit order. Its events must walk the track: each one is the next
//! after the last, or goes back to an earlier one and walks on from there. So first deliveries come in commit
//! order, a repeat is followed again by all its successors, and the last event of a key is its last change. A
//! change that never comes is lost, which is reported once and not here as well.

use std::collections::HashMap;

use crate::workload::{Key, Ledger};

/// What order an output has, hence what can be asked of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Order {
    /// One sequence: a change is in order with everything it touches, a key that a row had before and the rows
    /// that a truncation takes away included.
    Total,
    /// Several sequences, such as the partitions of a topic: a change is in order with those of the same `key`.
    PerKey,
    /// A set.
    None,
}

/// One key's changes by their places in the ledger, and how far its events have walked.
struct Track {
    changes: Vec<usize>,
    delivered: Vec<bool>,
    current: Option<usize>,
    highest: Option<usize>,
    partition: Option<i32>,
}

/// One violation, by places in the ledger.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Disorder {
    /// Came for the first time after a successor had come.
    Overtaken { change: usize, by: usize },
    /// After a repeat of `from` came `to`, without what lies between.
    Gap { from: usize, to: usize },
    /// The last event of the key is a repeat of this, not its last change.
    Unfinished { at: usize },
    /// Came in another partition than the events of its key before it.
    Strayed { change: usize },
    /// A copied row as this change left it came after the event of a later one.
    Stale { change: usize, after: usize },
}

impl Disorder {
    /// The violation in words.
    pub(super) fn tell(&self, ledger: &Ledger) -> String {
        let change = |at: usize| &ledger.changes[at];
        match *self {
            Disorder::Overtaken { change: late, by } => format!("{} came after {}", change(late), change(by)),
            Disorder::Gap { from, to } => {
                format!("{} came again, then {}, without what lies between", change(from), change(to))
            }
            Disorder::Unfinished { at } => {
                format!("{} came last, its successors did not come again", change(at))
            }
            Disorder::Strayed { change: at } => {
                format!("{} is in another partition than what its key had before", change(at))
            }
            Disorder::Stale { change: old, after } => {
                format!("a copied row as of {} came after {}", change(old), change(after))
            }
        }
    }
}

/// All tracks of a run.
pub(super) struct Tracks {
    tracks: Vec<Track>,
    /// For each change the tracks it is on, with its place in each.
    places: Vec<Vec<(usize, usize)>>,
}

impl Tracks {
    pub(super) fn new(ledger: &Ledger, order: Order) -> Tracks {
        let mut tracks: Vec<Track> = Vec::new();
        let mut by_key: HashMap<(&'static str, Option<Key>), usize> = HashMap::new();
        let mut places = vec![Vec::new(); ledger.changes.len()];
        for (at, change) in ledger.changes.iter().enumerate() {
            let mut keys = Vec::new();
            if order != Order::None {
                keys.push(change.key());
            }
            if order == Order::Total {
                keys.extend(change.left().into_iter().chain(change.emptied.iter().cloned()).map(Some));
            }
            for key in keys {
                let track = *by_key.entry((change.table.name, key)).or_insert_with(|| {
                    tracks.push(Track::new());
                    tracks.len() - 1
                });
                places[at].push((track, tracks[track].add(at)));
            }
        }
        Tracks { tracks, places }
    }

    /// Moves the tracks of a change that came.
    pub(super) fn take(&mut self, partition: i32, change: usize) -> Vec<Disorder> {
        let mut found = Vec::new();
        for (track, place) in &self.places[change] {
            found.extend(self.tracks[*track].take(partition, *place));
        }
        found
    }

    /// A copied row came as this change left it.
    pub(super) fn see_copied(&self, change: usize) -> Option<Disorder> {
        let (track, place) = *self.places[change].first()?; // of its own key
        let track = &self.tracks[track];
        let current = track.current.filter(|current| *current > place)?;
        Some(Disorder::Stale { change, after: track.changes[current] })
    }

    /// Whether nothing came of what this change follows, on any of its tracks.
    pub(super) fn begins(&self, change: usize) -> bool {
        self.places[change]
            .iter()
            .all(|(track, place)| !self.tracks[*track].delivered[..*place].contains(&true))
    }

    /// What is wrong with where the tracks ended.
    pub(super) fn finish(&self) -> Vec<Disorder> {
        let ended = |track: &Track| {
            let at = track.changes[track.current?];
            (track.current != track.highest).then_some(Disorder::Unfinished { at })
        };
        self.tracks.iter().filter_map(ended).collect()
    }
}

impl Track {
    fn new() -> Track {
        Track { changes: Vec::new(), delivered: Vec::new(), current: None, highest: None, partition: None }
    }

    fn add(&mut self, change: usize) -> usize {
        self.changes.push(change);
        self.delivered.push(false);
        self.changes.len() - 1
    }

    fn take(&mut self, partition: i32, place: usize) -> Option<Disorder> {
        let first = !self.delivered[place];
        let next = self.current.map_or(0, |current| current + 1);
        let strayed = *self.partition.get_or_insert(partition) != partition;
        let overtaken_by = self.highest.filter(|highest| first && *highest > place);
        let skipped = place > next && self.delivered[next..place].contains(&true);
        self.delivered[place] = true;
        let from = self.current.replace(place);
        self.highest = self.highest.max(Some(place));
        if strayed {
            Some(Disorder::Strayed { change: self.changes[place] })
        } else if let Some(by) = overtaken_by {
            Some(Disorder::Overtaken { change: self.changes[place], by: self.changes[by] })
        } else if skipped {
            let from = from.expect("what was skipped came before, so there was an event before");
            Some(Disorder::Gap { from: self.changes[from], to: self.changes[place] })
        } else {
            None
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn walk(places: &[usize]) -> Vec<Disorder> {
        let mut track = Track::new();
        (0..4).for_each(|change| assert_eq!(track.add(change), change));
        let mut found: Vec<Disorder> = places.iter().filter_map(|place| track.take(0, *place)).collect();
        let tracks = Tracks { tracks: vec![track], places: Vec::new() };
        found.extend(tracks.finish());
        found
    }

    #[test]
    fn a_repeat_followed_by_its_successors_is_in_order() {
        for legal in
            [&[0, 1, 2, 3][..], &[0, 0, 1, 2, 1, 1, 2, 3], &[0, 1, 2, 3, 0, 1, 2, 3], &[0, 1, 0, 1, 2, 3, 3]]
        {
            assert_eq!(walk(legal), [], "{legal:?}");
        }
    }

    #[test]
    fn what_never_comes_is_not_out_of_order_too() {
        assert_eq!(walk(&[0, 2, 3]), []);
        assert_eq!(walk(&[0, 2, 0, 2, 3]), []);
    }

    #[test]
    fn a_successor_must_not_come_first() {
        assert_eq!(walk(&[0, 2, 1, 2, 3]), [Disorder::Overtaken { change: 1, by: 2 }]);
    }

    #[test]
    fn a_repeat_must_bring_all_its_successors() {
        assert_eq!(walk(&[0, 1, 2, 0, 3]), [Disorder::Gap { from: 0, to: 3 }]);
        assert_eq!(walk(&[0, 1, 2, 3, 1]), [Disorder::Unfinished { at: 1 }]);
    }

    #[test]
    fn a_key_stays_in_its_partition() {
        let mut track = Track::new();
        (0..2).for_each(|change| assert_eq!(track.add(change), change));
        assert_eq!(track.take(1, 0), None);
        assert_eq!(track.take(2, 1), Some(Disorder::Strayed { change: 1 }));
    }

    /// Any walk: the track complains if and only if the rule, stated the slow way, is broken.
    #[test]
    fn every_short_walk_is_judged_by_the_rule() {
        for code in 0..4_usize.pow(6) {
            let places: Vec<usize> = (0..6).map(|digit| code / 4_usize.pow(digit) % 4).collect();
            if (0..4).any(|place| !places.contains(&place)) {
                continue;
            }
            let in_order = places[0] == 0
                && places.windows(2).all(|pair| pair[1] <= pair[0] + 1)
                && places.last() == Some(&3);
            assert_eq!(walk(&places).is_empty(), in_order, "{places:?}");
        }
    }
}
