//! Versions of generated schemas: [`SchemaVersion`] counts them, [`Schemas`] keeps them.
//!
//! A source that makes JSON Schemas of its tables looks a shape up among the versions that are kept, and adds one only
//! for a shape never seen: so reading an old log again makes no new versions.

use std::fmt;
use std::str::FromStr;

use async_trait::async_trait;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::fault::Fault;

/// `MODEL-REVISION-ADDITION`, as in SchemaVer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SchemaVersion {
    /// Counts changes after which older data is not valid any more.
    pub model: u32,
    /// Counts changes after which some older data may not be valid.
    pub revision: u32,
    /// Counts changes after which all older data is valid.
    pub addition: u32,
}

/// How far a shape is from the one before it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum SchemaChange {
    /// Something optional was added.
    Addition,
    /// Something was widened.
    Revision,
    /// Something was removed or has another type now.
    Model,
}

impl SchemaVersion {
    /// The first one, `1-0-0`.
    pub const FIRST: SchemaVersion = SchemaVersion { model: 1, revision: 0, addition: 0 };

    /// The version after this one.
    pub fn after(self, change: SchemaChange) -> SchemaVersion {
        let SchemaVersion { model, revision, addition } = self;
        match change {
            SchemaChange::Addition => SchemaVersion { model, revision, addition: addition + 1 },
            SchemaChange::Revision => SchemaVersion { model, revision: revision + 1, addition: 0 },
            SchemaChange::Model => SchemaVersion { model: model + 1, revision: 0, addition: 0 },
        }
    }
}

impl fmt::Display for SchemaVersion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}-{}", self.model, self.revision, self.addition)
    }
}

/// A text that is no version.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is not a version such as `1-0-0`")]
pub struct NotAVersion(String);

impl FromStr for SchemaVersion {
    type Err = NotAVersion;

    fn from_str(text: &str) -> Result<SchemaVersion, NotAVersion> {
        let not = || NotAVersion(text.to_owned());
        let parts: Vec<u32> = text.split('-').map(str::parse).collect::<Result<_, _>>().map_err(|_| not())?;
        match parts[..] {
            [model, revision, addition] if model > 0 => Ok(SchemaVersion { model, revision, addition }),
            _ => Err(not()),
        }
    }
}

impl Serialize for SchemaVersion {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for SchemaVersion {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<SchemaVersion, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
    }
}

/// A version that is kept.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct KeptSchema {
    /// Which.
    pub version: SchemaVersion,
    /// The shape that it was made of, in the source's own form, by which the source finds it again.
    pub shape: String,
    /// The JSON Schema.
    pub schema: String,
    /// Whether a `schema` event of it is durable in every required destination.
    #[serde(default)]
    pub announced: bool,
}

/// Where a source's generated schemas are kept. Blocking on the disk is the implementation's affair.
#[async_trait]
pub trait Schemas: Send + Sync + fmt::Debug {
    /// All versions of `vendor/name`, oldest first.
    async fn versions(&self, vendor: &str, name: &str) -> Result<Vec<KeptSchema>, Fault>;

    /// Keeps versions, in place of what was there.
    async fn keep(&self, vendor: &str, name: &str, versions: &[KeptSchema]) -> Result<(), Fault>;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_count_as_schemaver_does() {
        let version = SchemaVersion { model: 2, revision: 3, addition: 4 };
        assert_eq!(version.after(SchemaChange::Addition).to_string(), "2-3-5");
        assert_eq!(version.after(SchemaChange::Revision).to_string(), "2-4-0");
        assert_eq!(version.after(SchemaChange::Model).to_string(), "3-0-0");
    }

    #[test]
    fn a_version_is_read_back_and_nothing_else_is() {
        assert_eq!("1-0-0".parse(), Ok(SchemaVersion::FIRST));
        for wrong in ["", "1", "1-0", "1-0-0-0", "0-1-0", "a-b-c", "1-0-x"] {
            assert!(wrong.parse::<SchemaVersion>().is_err(), "{wrong}");
        }
    }
}
