//! [`Cursors`]: which message of each partition comes next. They are the text of a position and what a group's offsets
//! say. Pure.

use std::collections::BTreeMap;

use bytes::Bytes;
use forebay_api::Position;
use rdkafka::{Offset, TopicPartitionList};
use serde::{Deserialize, Serialize};

/// What is written now. A position of another version is refused.
const VERSION: u32 = 1;

/// The next offset of each partition of each topic.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Cursors(BTreeMap<String, BTreeMap<i32, i64>>);

/// The text of a position.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Written {
    version: u32,
    topics: BTreeMap<String, BTreeMap<i32, i64>>,
    /// An operator wrote it: the group's offsets are moved there before anything is read.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    set: bool,
}

/// A position that was read back.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Resumed {
    /// What it says.
    pub(crate) cursors: Cursors,
    /// Whether an operator wrote it.
    pub(crate) set: bool,
}

impl Cursors {
    /// Where one partition goes on, if that is known.
    pub(crate) fn get(&self, topic: &str, partition: i32) -> Option<i64> {
        self.0.get(topic)?.get(&partition).copied()
    }

    /// Sets where one partition goes on.
    pub(crate) fn set(&mut self, topic: &str, partition: i32, next: i64) {
        match self.0.get_mut(topic) {
            Some(partitions) => drop(partitions.insert(partition, next)),
            None => drop(self.0.insert(topic.to_owned(), BTreeMap::from([(partition, next)]))),
        }
    }

    /// Whether it says nothing.
    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Every partition with its next offset.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (&str, i32, i64)> {
        self.0
            .iter()
            .flat_map(|(topic, all)| all.iter().map(|(partition, next)| (topic.as_str(), *partition, *next)))
    }

    /// Whether everything before `sent` is before these too.
    pub(crate) fn cover(&self, sent: &Cursors) -> bool {
        sent.iter().all(|(topic, partition, next)| self.get(topic, partition).is_some_and(|at| at >= next))
    }

    /// What of these is new to `known`, and only partitions that `owned` has.
    pub(crate) fn beyond(&self, known: &Cursors, owned: &Cursors) -> Cursors {
        let mut new = Cursors::default();
        for (topic, partition, next) in self.iter() {
            let is_owned = owned.get(topic, partition).is_some();
            if is_owned && known.get(topic, partition).is_none_or(|at| at < next) {
                new.set(topic, partition, next);
            }
        }
        new
    }

    /// Takes over what `other` says.
    pub(crate) fn merge(&mut self, other: &Cursors) {
        other.iter().for_each(|(topic, partition, next)| self.set(topic, partition, next));
    }

    /// librdkafka's form of them.
    pub(crate) fn list(&self) -> TopicPartitionList {
        self.iter()
            .map(|(topic, partition, next)| (topic.to_owned(), partition, Offset::Offset(next)))
            .collect()
    }

    /// The position of a source that resumes at these.
    pub(crate) fn position(&self) -> Position {
        written(self, false)
    }

    /// The position that makes a source move its group's offsets to these.
    pub(crate) fn position_set(&self) -> Position {
        written(self, true)
    }
}

fn written(cursors: &Cursors, set: bool) -> Position {
    let written = Written { version: VERSION, topics: cursors.0.clone(), set };
    Position(Bytes::from(serde_json::to_vec(&written).expect("maps of numbers can be written as JSON")))
}

impl Resumed {
    /// Reads a position back. The error says what is wrong with it.
    pub(crate) fn read(position: &Position) -> Result<Resumed, String> {
        let written: Written = serde_json::from_slice(&position.0).map_err(|error| error.to_string())?;
        if written.version != VERSION {
            return Err(format!("it has version {}; this Forebay reads version {VERSION}", written.version));
        }
        let cursors = Cursors(written.topics);
        if let Some((topic, partition, next)) = cursors.iter().find(|(_, at, next)| *at < 0 || *next < 0) {
            return Err(format!("partition {partition} of `{topic}` cannot go on at {next}"));
        }
        Ok(Resumed { cursors, set: written.set })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cursors(all: &[(&str, i32, i64)]) -> Cursors {
        let mut cursors = Cursors::default();
        all.iter().for_each(|(topic, partition, next)| cursors.set(topic, *partition, *next));
        cursors
    }

    #[test]
    fn a_position_is_read_back_as_it_was_written() {
        let at = cursors(&[("orders", 0, 12), ("orders", 3, 0), ("users", 0, 7)]);
        let text = r#"{"version":1,"topics":{"orders":{"0":12,"3":0},"users":{"0":7}}}"#;
        assert_eq!(at.position().to_string(), text);
        assert_eq!(Resumed::read(&at.position()), Ok(Resumed { cursors: at.clone(), set: false }));
        assert_eq!(Resumed::read(&at.position_set()), Ok(Resumed { cursors: at, set: true }));
    }

    #[test]
    fn what_is_no_position_is_refused() {
        for text in [
            "",
            "{}",
            r#"{"version":2,"topics":{}}"#,
            r#"{"version":1,"topics":{"a":{"0":-1}}}"#,
            r#"{"version":1,"topics":{},"x":1}"#,
        ] {
            assert!(Resumed::read(&Position(Bytes::from(text))).is_err(), "{text}");
        }
    }

    #[test]
    fn sent_is_covered_only_where_every_partition_is() {
        let sent = cursors(&[("a", 0, 5), ("a", 1, 2)]);
        assert!(cursors(&[("a", 0, 5), ("a", 1, 3)]).cover(&sent));
        assert!(!cursors(&[("a", 0, 5)]).cover(&sent));
        assert!(!cursors(&[("a", 0, 4), ("a", 1, 2)]).cover(&sent));
    }

    #[test]
    fn an_offset_of_a_partition_that_is_not_ours_any_more_is_never_told_to_the_group() {
        let stored = cursors(&[("a", 0, 5), ("a", 1, 9)]);
        let owned = cursors(&[("a", 0, 6)]);
        assert_eq!(stored.beyond(&Cursors::default(), &owned), cursors(&[("a", 0, 5)]));
        assert_eq!(stored.beyond(&cursors(&[("a", 0, 5)]), &owned), Cursors::default());
    }
}
