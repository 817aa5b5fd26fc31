//! What a session reads, and how much of it is shared. Pure.

use std::sync::Arc;

use crate::config::CreateTopics;
use crate::source::cursors::Cursors;
use crate::source::entry::Entry;
use crate::source::options::Settings;

/// What a session reads, the same in all its runs.
#[derive(Debug)]
pub(crate) struct Plan {
    /// What librdkafka is told.
    pub(crate) settings: Settings,
    /// The first part of the streams' names.
    pub(crate) source: Arc<str>,
    /// The consumer group.
    pub(crate) group: String,
    /// Names, or patterns that begin with `^`.
    pub(crate) topics: Vec<String>,
    /// Where a partition begins without any offset.
    pub(crate) start: Begin,
    /// Whether the work is shared.
    pub(crate) sharing: Sharing,
    /// Creates a topic that is missing, by a producer's settings. Absent, such a topic is an error.
    pub(crate) create: Option<(Arc<crate::options::Settings>, CreateTopics)>,
}

/// Where a partition begins without any offset.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Begin {
    /// With the oldest message.
    Earliest,
    /// With what is written from now on.
    Latest,
    /// At these; a partition that is not among them is new and begins with its oldest message.
    At(Cursors),
}

/// Whether the partitions are shared with others.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Sharing {
    /// With the members of the group, whose offsets are the checkpoint.
    Group,
    /// With nobody: all partitions, from the position that the core keeps; the group is only looked at. It ends where
    /// each partition has reached what is said here, if anything is.
    Alone(Option<Cursors>),
}

impl Sharing {
    /// Whether a message is behind the end of what is wanted.
    pub(crate) fn ends_before(&self, entry: &Entry<'_>) -> bool {
        let Sharing::Alone(Some(until)) = self else { return false };
        until.get(entry.topic, entry.partition).is_none_or(|end| entry.offset >= end)
    }
}

impl Plan {
    /// The topics that are no patterns.
    pub(crate) fn named_topics(&self) -> impl Iterator<Item = &str> {
        self.topics.iter().map(String::as_str).filter(|topic| !topic.starts_with('^'))
    }
}
