//! [`Resume`]: the source's position, as JSON that an operator can read and write.
//!
//! It carries the identity of what it belongs to, so that a checkpoint is never applied to another cluster, database
//! or slot. Pure.

use bytes::Bytes;
use forebay_api::Position;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::lsn::Lsn;

/// The form that is written now.
const VERSION: u32 = 1;

/// Where a stream resumes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Resume {
    /// The form of this.
    v: u32,
    /// The cluster's system identifier; a string, since it is too large for some readers of JSON.
    #[serde(serialize_with = "as_text", deserialize_with = "from_text")]
    pub system: u64,
    /// The timeline that the position is on.
    pub timeline: u32,
    /// The database that the slot is bound to.
    pub database: String,
    /// The slot.
    pub slot: String,
    /// Names this daemon's data folder to the server, so that its own lost connections can be told from others'.
    pub owner: String,
    /// Everything before it is stored. `None`: the slot was about to be created.
    #[serde(serialize_with = "maybe_as_text", deserialize_with = "maybe_from_text")]
    pub lsn: Option<Lsn>,
}

/// A position that this version cannot use.
#[derive(Debug, thiserror::Error)]
pub(super) enum PositionError {
    /// Not what this source writes.
    #[error("the stored position is not one of a PostgreSQL source")]
    Unreadable(#[source] serde_json::Error),
    /// A newer Forebay wrote it.
    #[error("the stored position has form {0}; this Forebay reads form {VERSION}")]
    Newer(u32),
}

impl Resume {
    /// A position of this daemon's.
    pub(super) fn new(
        system: u64,
        timeline: u32,
        (database, slot, owner): (&str, &str, &str),
        lsn: Option<Lsn>,
    ) -> Resume {
        let (database, slot, owner) = (database.to_owned(), slot.to_owned(), owner.to_owned());
        Resume { v: VERSION, system, timeline, database, slot, owner, lsn }
    }

    /// Reads what [`Resume::position`] wrote.
    pub(super) fn read(position: &Position) -> Result<Resume, PositionError> {
        #[derive(Deserialize)]
        struct Form {
            v: u32,
        }
        let form: Form = serde_json::from_slice(&position.0).map_err(PositionError::Unreadable)?;
        if form.v != VERSION {
            return Err(PositionError::Newer(form.v));
        }
        serde_json::from_slice(&position.0).map_err(PositionError::Unreadable)
    }

    /// As the core stores it.
    pub(super) fn position(&self) -> Position {
        Position(Bytes::from(serde_json::to_vec(self).expect("strings and numbers are JSON")))
    }

    /// The same stream, at another place.
    pub(super) fn at(&self, timeline: u32, lsn: Lsn) -> Resume {
        Resume { timeline, lsn: Some(lsn), ..self.clone() }
    }
}

fn as_text<S: Serializer>(value: &u64, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_str(value)
}

fn from_text<'de, D: Deserializer<'de>>(deserializer: D) -> Result<u64, D::Error> {
    String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
}

fn maybe_as_text<S: Serializer>(value: &Option<Lsn>, serializer: S) -> Result<S::Ok, S::Error> {
    value.map(|lsn| lsn.to_string()).serialize(serializer)
}

fn maybe_from_text<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Lsn>, D::Error> {
    let text = Option::<String>::deserialize(deserializer)?;
    text.map(|text| text.parse().map_err(serde::de::Error::custom)).transpose()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_position_is_readable_text_and_comes_back() {
        let resume = Resume::new(
            7_123_456_789_012_345_678,
            2,
            ("shop", "forebay_shop", "ab12"),
            Some(Lsn(0x16B_37A0)),
        );
        let position = resume.position();
        let text = r#"{"v":1,"system":"7123456789012345678","timeline":2,"database":"shop","slot":"forebay_shop","owner":"ab12","lsn":"0/16B37A0"}"#;
        assert_eq!(position.to_string(), text);
        assert_eq!(Resume::read(&position).unwrap(), resume);
    }

    #[test]
    fn what_is_damaged_or_newer_is_refused() {
        let read = |text: &str| Resume::read(&Position(Bytes::copy_from_slice(text.as_bytes())));
        assert!(matches!(read("0/1"), Err(PositionError::Unreadable(_))));
        assert!(matches!(read(r#"{"v":2,"anything":1}"#), Err(PositionError::Newer(2))));
        assert!(matches!(read(r#"{"v":1}"#), Err(PositionError::Unreadable(_))));
    }
}
