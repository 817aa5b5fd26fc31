//! Which sends are settled, hence how far the checkpoint may move. Pure: no I/O, no clock, no channel.
//!
//! ```text
//!   open(1) open(2) open(3) open(4)          a send is opened before any lane can settle it
//!     ✓       ·       ✓       ✓              lanes settle in any order
//!   advance() → position of 1                 positions leave from the front only
//! ```
//! Invariant: a position leaves [`Ledger::advance`] only when its send and every one opened before it are settled
//! by every destination that they awaited. A best-effort destination is never awaited; what it still owes of sends
//! that have left is counted, so that a loss across a restart is counted too.

use std::collections::{BTreeMap, VecDeque};

use forebay_api::{Claim, Position, outlet};

/// The destinations that a send awaits, by their index in the pipeline.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct DestinationSet(u64);

impl DestinationSet {
    /// How many destinations one pipeline may have.
    pub const MAX: usize = u64::BITS as usize;

    /// Adds one.
    pub fn insert(&mut self, destination: usize) {
        assert!(destination < DestinationSet::MAX, "the configuration bounds the number of destinations");
        self.0 |= 1 << destination;
    }

    /// Removes one; whether it was there.
    fn remove(&mut self, destination: usize) -> bool {
        let was_there = self.0 & (1 << destination) != 0;
        self.0 &= !(1 << destination);
        was_there
    }

    /// Whether nobody is awaited.
    pub fn is_empty(self) -> bool {
        self.0 == 0
    }
}

/// One send that has not left yet.
#[derive(Debug)]
struct Entry {
    awaiting: DestinationSet,
    position: Option<Position>,
    /// Most of its bytes are given back when the send is settled. What an entry itself costs is held until it leaves,
    /// so that the memory budget bounds the ledger too.
    claim: Claim,
}

/// See the module.
#[derive(Debug, Default)]
pub struct Ledger {
    /// The number of the first entry.
    first: u64,
    entries: VecDeque<Entry>,
    /// For each best-effort destination, the records of each send that it has not settled.
    courtesy: BTreeMap<usize, BTreeMap<u64, u64>>,
    /// The newest position of sends that were settled when they were opened, with nothing before them.
    ready: Option<Position>,
}

impl Ledger {
    /// Opens a send and gives its number. `courtesy` are the best-effort destinations that got it, with how many
    /// records. A send that awaits nobody (a heartbeat, or all its events filtered) merges with the one before it.
    pub fn open(&mut self, awaiting: DestinationSet, courtesy: &[(usize, u64)], mut claim: Claim) -> u64 {
        let position = claim.position.take();
        if awaiting.is_empty() {
            claim.fulfil();
            claim.permit.keep(outlet::MIN_WEIGHT);
        }
        if awaiting.is_empty() && courtesy.is_empty() {
            match self.entries.back_mut() {
                Some(back) => back.position = position.or(back.position.take()),
                None => self.ready = position.or(self.ready.take()),
            }
            return self.first + self.entries.len() as u64;
        }
        let seq = self.first + self.entries.len() as u64;
        for &(destination, records) in courtesy {
            self.courtesy.entry(destination).or_default().insert(seq, records);
        }
        self.entries.push_back(Entry { awaiting, position, claim });
        seq
    }

    /// A destination has settled a send: every record of it is accepted, dead-lettered or dropped there.
    pub fn settle(&mut self, seq: u64, destination: usize) {
        if let Some(owed) = self.courtesy.get_mut(&destination) {
            assert!(
                owed.remove(&seq).is_some(),
                "send {seq} is settled once by best-effort destination {destination}"
            );
            return;
        }
        let index = seq.checked_sub(self.first).and_then(|i| usize::try_from(i).ok());
        let entry =
            index.and_then(|i| self.entries.get_mut(i)).expect("a send leaves only after it is settled");
        assert!(
            entry.awaiting.remove(destination),
            "send {seq} is settled once by destination {destination}"
        );
        if entry.awaiting.is_empty() {
            entry.claim.fulfil();
            entry.claim.permit.keep(outlet::MIN_WEIGHT);
        }
    }

    /// Removes what is settled from the front; the newest position among it may be stored.
    pub fn advance(&mut self) -> Option<Position> {
        let mut newest = self.ready.take();
        while self.entries.front().is_some_and(|entry| entry.awaiting.is_empty()) {
            let entry = self.entries.pop_front().expect("it was just looked at");
            self.first += 1;
            newest = entry.position.or(newest);
        }
        newest
    }

    /// Whether every send is settled and has left.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty() && self.ready.is_none()
    }

    /// What each best-effort destination still owes of sends that have left: lost if the process dies now.
    pub fn owed(&self) -> BTreeMap<usize, u64> {
        let owed = |sends: &BTreeMap<u64, u64>| sends.range(..self.first).map(|(_, records)| records).sum();
        self.courtesy
            .iter()
            .map(|(&destination, sends)| (destination, owed(sends)))
            .filter(|(_, n)| *n > 0)
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use forebay_api::{Budget, Permit};
    use proptest::prelude::*;

    use super::*;

    /// What each send of these tests weighs.
    const WEIGHT: usize = 10 * outlet::MIN_WEIGHT;

    fn permit(budget: &Budget) -> Permit {
        budget.try_take(WEIGHT).expect("the budget is large")
    }

    fn claim(budget: &Budget, position: Option<u8>) -> Claim {
        Claim::new(position.map(|p| Position(Bytes::copy_from_slice(&[p]))), permit(budget), None)
    }

    fn at(position: u8) -> Position {
        Position(Bytes::copy_from_slice(&[position]))
    }

    fn awaiting(destinations: &[usize]) -> DestinationSet {
        let mut set = DestinationSet::default();
        destinations.iter().for_each(|&d| set.insert(d));
        set
    }

    /// Every order in which `n` things can happen.
    fn orders(n: usize) -> Vec<Vec<usize>> {
        if n == 0 {
            return vec![Vec::new()];
        }
        let insert_last = |order: Vec<usize>| {
            (0..n).map(move |at| {
                let mut order = order.clone();
                order.insert(at, n - 1);
                order
            })
        };
        orders(n - 1).into_iter().flat_map(insert_last).collect()
    }

    #[test]
    fn in_every_order_of_acknowledgements_a_position_leaves_when_all_before_it_are_settled() {
        let budget = Budget::new(1 << 20);
        // Three sends, two destinations: six acknowledgements in all 720 orders.
        for order in orders(6) {
            let mut ledger = Ledger::default();
            let sends: Vec<u64> =
                (1..=3).map(|p| ledger.open(awaiting(&[0, 1]), &[], claim(&budget, Some(p)))).collect();
            let mut settled = [[false; 2]; 3];
            let mut left = 0;
            for acknowledgement in &order {
                let (send, destination) = (acknowledgement / 2, acknowledgement % 2);
                ledger.settle(sends[send], destination);
                settled[send][destination] = true;
                let may_leave = settled.iter().take_while(|s| s[0] && s[1]).count();
                let expected = (may_leave > left).then(|| at(u8::try_from(may_leave).unwrap()));
                assert_eq!(ledger.advance(), expected, "after {acknowledgement} in {order:?}");
                left = may_leave;
            }
            assert!(ledger.is_empty());
            assert_eq!(budget.used(), 0);
        }
    }

    proptest! {
        /// Sends with and without positions, some awaiting nobody, settled in any order, advanced at any time.
        #[test]
        fn no_position_leaves_before_what_it_covers(
            sends in prop::collection::vec((0u8..4, any::<bool>()), 1..30),
            picks in prop::collection::vec(any::<prop::sample::Index>(), 100),
        ) {
            let budget = Budget::new(1 << 20);
            let mut ledger = Ledger::default();
            let mut open = Vec::new();
            let mut unsettled_upto = Vec::new(); // (position, acknowledgements that must come before it)
            let mut given = 0u8;
            for (mask, with_position) in sends {
                let set: Vec<usize> = (0..2).filter(|d| mask & (1 << d) != 0).collect();
                let position = with_position.then(|| { given += 1; given });
                let seq = ledger.open(awaiting(&set), &[], claim(&budget, position));
                open.extend(set.iter().map(|&d| (seq, d)));
                if let Some(p) = position {
                    unsettled_upto.push((p, open.clone()));
                }
            }
            let mut settled = Vec::new();
            let mut left = 0;
            let mut check = |ledger: &mut Ledger, settled: &Vec<(u64, usize)>| {
                if let Some(p) = ledger.advance() {
                    assert!(p.0[0] > left, "positions never go back");
                    left = p.0[0];
                    let (_, needed) = unsettled_upto.iter().find(|(q, _)| *q == p.0[0]).unwrap();
                    assert!(needed.iter().all(|ack| settled.contains(ack)), "everything before {p:?} is settled");
                }
            };
            check(&mut ledger, &settled);
            let mut todo = open.clone();
            for pick in picks {
                if todo.is_empty() { break }
                let (seq, destination) = todo.swap_remove(pick.index(todo.len()));
                ledger.settle(seq, destination);
                settled.push((seq, destination));
                check(&mut ledger, &settled);
            }
            if todo.is_empty() {
                prop_assert!(ledger.is_empty());
                prop_assert_eq!(left, given);
                prop_assert_eq!(budget.used(), 0);
            }
        }
    }

    #[test]
    fn a_heartbeat_keeps_its_place_behind_what_is_open() {
        let budget = Budget::new(1 << 20);
        let mut ledger = Ledger::default();
        let seq = ledger.open(awaiting(&[0]), &[], claim(&budget, Some(1)));
        for position in 2..=9 {
            ledger.open(DestinationSet::default(), &[], claim(&budget, Some(position)));
        }
        assert_eq!(ledger.entries.len(), 1, "heartbeats merge");
        assert_eq!(ledger.advance(), None);
        ledger.settle(seq, 0);
        assert_eq!(ledger.advance(), Some(at(9)));
    }

    #[test]
    fn bytes_go_back_when_a_send_is_settled_even_if_its_position_must_wait() {
        let budget = Budget::new(1 << 20);
        let mut ledger = Ledger::default();
        let slow = ledger.open(awaiting(&[0]), &[], claim(&budget, Some(1)));
        let fast = ledger.open(awaiting(&[1]), &[], claim(&budget, Some(2)));
        ledger.settle(fast, 1);
        assert_eq!(budget.used(), WEIGHT + outlet::MIN_WEIGHT, "what the entry itself costs is still held");
        assert_eq!(ledger.advance(), None);
        ledger.settle(slow, 0);
        assert_eq!(ledger.advance(), Some(at(2)));
    }

    #[test]
    fn a_best_effort_destination_holds_nothing_up_and_what_it_owes_is_counted() {
        let budget = Budget::new(1 << 20);
        let mut ledger = Ledger::default();
        let first = ledger.open(awaiting(&[0]), &[(1, 10)], claim(&budget, Some(1)));
        let second = ledger.open(DestinationSet::default(), &[(1, 5)], claim(&budget, Some(2)));
        assert_eq!(ledger.advance(), None);
        assert!(ledger.owed().is_empty(), "what has not left comes again");
        ledger.settle(first, 0);
        assert_eq!(ledger.advance(), Some(at(2)));
        assert_eq!(ledger.owed(), BTreeMap::from([(1, 15)]));
        ledger.settle(first, 1);
        ledger.settle(second, 1);
        assert!(ledger.owed().is_empty());
    }

    #[test]
    fn what_waits_behind_a_stuck_send_is_bounded_by_the_budget() {
        let budget = Budget::new(1 << 20);
        let mut ledger = Ledger::default();
        ledger.open(awaiting(&[0]), &[], claim(&budget, Some(1)));
        let mut sends = 0;
        while let Some(permit) = budget.try_take(WEIGHT) {
            // Only a best-effort destination wants these.
            ledger.open(DestinationSet::default(), &[(1, 1)], Claim::new(None, permit, None));
            sends += 1;
            assert!(sends <= (1 << 20) / outlet::MIN_WEIGHT, "nothing bounds the ledger");
        }
    }

    #[test]
    #[should_panic(expected = "settled once")]
    fn settling_twice_is_a_defect() {
        let mut ledger = Ledger::default();
        let seq = ledger.open(awaiting(&[0, 1]), &[], claim(&Budget::new(1 << 20), None));
        ledger.settle(seq, 0);
        ledger.settle(seq, 0);
    }
}
