//! What goes into which call. Pure: no I/O, no clock.
//!
//! Records wait in a queue for each key of each stream. A call takes the first of as many queues as its limits allow, in
//! turn; the next of a key comes when the call before is over. Invariant: of two records in one queue, the first is in an
//! earlier call.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;

use crate::config::{MOST_BYTES, MOST_RECORDS, Order};

/// A record that waits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Waiting {
    /// Which it is among the delivery's records.
    number: usize,
    /// Its bytes, partition key included.
    bytes: usize,
}

/// The records of one key, in order.
#[derive(Debug)]
struct Line {
    key: Arc<str>,
    records: VecDeque<Waiting>,
}

/// The records of one Kinesis stream.
#[derive(Debug)]
struct Lines {
    stream: Arc<str>,
    lines: Vec<Line>,
    by_key: HashMap<Arc<str>, usize>,
    /// Which of `lines` have records, in the order in which it is their turn.
    ready: VecDeque<usize>,
}

/// One call: a stream, and the records to put into it.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Call {
    /// The stream's name.
    pub(crate) stream: Arc<str>,
    /// The delivery's record and its partition key, in order.
    pub(crate) records: Vec<(usize, Arc<str>)>,
}

/// The records of a delivery that wait for their call.
#[derive(Debug)]
pub(crate) struct Schedule {
    order: Order,
    streams: Vec<Lines>,
    by_stream: HashMap<Arc<str>, usize>,
}

impl Schedule {
    /// One without records.
    pub(crate) fn new(order: Order) -> Schedule {
        Schedule { order, streams: Vec::new(), by_stream: HashMap::new() }
    }

    /// Adds the delivery's next record.
    pub(crate) fn push(&mut self, stream: &Arc<str>, key: String, number: usize, bytes: usize) {
        let at = *self.by_stream.entry(stream.clone()).or_insert_with(|| {
            self.streams.push(Lines::new(stream.clone()));
            self.streams.len() - 1
        });
        self.streams[at].push(self.order, key.into(), Waiting { number, bytes });
    }

    /// The next call; those of before are over. `None`: nothing waits any more.
    pub(crate) fn next(&mut self) -> Option<Call> {
        self.streams.iter_mut().find(|lines| !lines.ready.is_empty()).map(Lines::next)
    }
}

impl Lines {
    fn new(stream: Arc<str>) -> Lines {
        Lines { stream, lines: Vec::new(), by_key: HashMap::new(), ready: VecDeque::new() }
    }

    fn push(&mut self, order: Order, key: Arc<str>, record: Waiting) {
        let new = self.lines.len();
        let at = match order {
            Order::Strict => *self.by_key.entry(key.clone()).or_insert(new),
            // A line of its own: whatever else has its key, it waits for nobody.
            Order::Eventual => new,
        };
        if at == new {
            self.lines.push(Line { key, records: VecDeque::new() });
            self.ready.push_back(at);
        }
        self.lines[at].records.push_back(record);
    }

    fn next(&mut self) -> Call {
        let mut records = Vec::new();
        let mut taken = Vec::new();
        let mut bytes = 0;
        while let Some(&at) = self.ready.front()
            && records.len() < MOST_RECORDS
        {
            let line = &mut self.lines[at];
            let first = *line.records.front().expect("a line that is ready has records");
            bytes += first.bytes;
            if bytes > MOST_BYTES && !records.is_empty() {
                break;
            }
            line.records.pop_front();
            records.push((first.number, line.key.clone()));
            self.ready.pop_front();
            taken.push(at);
        }
        // Behind all others, in the same order.
        self.ready.extend(taken.into_iter().filter(|&at| !self.lines[at].records.is_empty()));
        Call { stream: self.stream.clone(), records }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The numbers of the records in each call.
    fn calls(order: Order, records: &[(&str, &str, usize)]) -> Vec<Vec<usize>> {
        let mut schedule = Schedule::new(order);
        for (number, (stream, key, bytes)) in records.iter().enumerate() {
            schedule.push(&Arc::from(*stream), (*key).to_owned(), number, *bytes);
        }
        let calls = std::iter::from_fn(|| schedule.next());
        calls.map(|call| call.records.into_iter().map(|(number, _)| number).collect()).collect()
    }

    #[test]
    fn a_call_has_one_record_of_each_key() {
        let records =
            [("s", "a", 1), ("s", "a", 1), ("s", "b", 1), ("s", "c", 1), ("s", "a", 1), ("s", "b", 1)];
        assert_eq!(calls(Order::Strict, &records), [vec![0, 2, 3], vec![1, 5], vec![4]]);
        assert_eq!(calls(Order::Eventual, &records), [vec![0, 1, 2, 3, 4, 5]]);
    }

    #[test]
    fn a_call_is_for_one_stream() {
        let records = [("s", "a", 1), ("t", "a", 1), ("s", "b", 1), ("t", "a", 1)];
        assert_eq!(calls(Order::Strict, &records), [vec![0, 2], vec![1], vec![3]]);
    }

    #[test]
    fn a_call_keeps_to_the_limits_of_the_service() {
        let keys: Vec<String> = (0..1201).map(|n| n.to_string()).collect();
        let many: Vec<_> = keys.iter().map(|key| ("s", key.as_str(), 10)).collect();
        for order in [Order::Strict, Order::Eventual] {
            let sizes: Vec<usize> = calls(order, &many).iter().map(Vec::len).collect();
            assert_eq!(sizes, [500, 500, 201]);
        }
        let mib = 1 << 20;
        let large: Vec<_> = keys[..8].iter().map(|key| ("s", key.as_str(), 2 * mib)).collect();
        assert_eq!(calls(Order::Strict, &large), [vec![0, 1], vec![2, 3], vec![4, 5], vec![6, 7]]);
        // One that is larger than what we fill a call with goes alone.
        let huge = [("s", "a", 1), ("s", "b", 9 * mib), ("s", "c", 1)];
        assert_eq!(calls(Order::Strict, &huge), [vec![0], vec![1], vec![2]]);
    }

    #[test]
    fn one_key_that_has_many_records_does_not_hold_up_the_others() {
        let mut records = vec![("s", "hot", 1); 700];
        let keys: Vec<String> = (0..499).map(|n| n.to_string()).collect();
        records.extend(keys.iter().map(|key| ("s", key.as_str(), 1)));
        let calls = calls(Order::Strict, &records);
        assert_eq!(calls[0].len(), 500);
        assert_eq!(calls.len(), 700);
    }
}
