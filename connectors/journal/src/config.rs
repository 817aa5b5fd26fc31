//! What a user may say of a journal on disk.

use forebay_api::Mistake;
use forebay_api::units::{ByteSize, Period};
use schemars::JsonSchema;
use serde::Deserialize;

/// The smallest segment: the head of a journal with many streams fits in.
const LEAST_SEGMENT: ByteSize = ByteSize::kib(512);

/// The largest segment.
const MOST_SEGMENT: ByteSize = ByteSize::mib(4096);

/// How many segments must fit below `max_bytes`: the one that is written to, the next one, and two that are read.
const LEAST_SEGMENTS: u64 = 4;

/// A journal on disk.
#[derive(Clone, Copy, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct DiskConfig {
    /// The most bytes on disk, for this source. Only an entry that is larger than a segment goes beyond it.
    pub max_bytes: ByteSize,
    /// What happens when `max_bytes` are full of what has not been read yet.
    pub full: Full,
    /// How long entries are kept that every destination has, for replays; fewer when they do not fit into `max_bytes`.
    pub retain: Period,
    /// The size of a file. Whole files are deleted, once everything in them has been read.
    pub segment: ByteSize,
}

/// What happens when a journal is full of what has not been read yet.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Full {
    /// The source waits until destinations have read more.
    #[default]
    Block,
    /// Destinations with `required: false` that are furthest behind are cut off, and must be started anew. Required
    /// ones make the source wait.
    Park,
}

impl Default for DiskConfig {
    fn default() -> DiskConfig {
        DiskConfig {
            max_bytes: ByteSize::mib(10 << 10),
            full: Full::Block,
            retain: Period::seconds(0),
            segment: ByteSize::mib(64),
        }
    }
}

impl DiskConfig {
    /// What the types cannot refuse.
    pub(crate) fn mistakes(&self) -> Vec<Mistake> {
        let mut mistakes = Vec::new();
        if self.segment < LEAST_SEGMENT || self.segment > MOST_SEGMENT {
            mistakes.push(Mistake {
                at: "/segment".to_owned(),
                message: format!("`segment` is {}", self.segment),
                help: Some(format!("write a size from {LEAST_SEGMENT} to {MOST_SEGMENT}, such as `64MiB`")),
            });
        }
        if self.max_bytes.get() / LEAST_SEGMENTS < self.segment.get() {
            mistakes.push(Mistake {
                at: "/max_bytes".to_owned(),
                message: format!(
                    "`max_bytes` ({}) holds fewer than {LEAST_SEGMENTS} segments of {}",
                    self.max_bytes, self.segment
                ),
                help: Some("raise `max_bytes`, or make `segment` smaller".to_owned()),
            });
        }
        mistakes
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_must_be_said() {
        let config: DiskConfig = serde_json::from_str("{}").unwrap();
        assert_eq!((config.max_bytes.to_string(), config.full), ("10GiB".to_owned(), Full::Block));
        assert!(config.mistakes().is_empty());
    }

    #[test]
    fn what_cannot_work_is_refused_all_at_once() {
        let config: DiskConfig =
            serde_json::from_str(r#"{"segment": "1KiB", "max_bytes": "1KiB", "full": "park"}"#).unwrap();
        let at: Vec<String> = config.mistakes().into_iter().map(|mistake| mistake.at).collect();
        assert_eq!(at, ["/segment", "/max_bytes"]);
        assert!(serde_json::from_str::<DiskConfig>(r#"{"fsync": "never"}"#).is_err());
    }
}
