//! [`Resume`]: the source's position, as JSON that an operator can read and write.
//!
//! It carries the identity of what it belongs to, so that a checkpoint is never applied to another cluster, database
//! or slot. Pure.

use bytes::Bytes;
use forebay_api::Position;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::lsn::Lsn;

/// The form that is written now.
const VERSION: u32 = 2;

/// The form before there were copies, which is read still.
const BEFORE_COPIES: u32 = 1;

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
    /// Where the slot stood when this daemon created it or took it over: what was copied belongs to it. `None`: that was
    /// before there were copies.
    #[serde(
        default,
        skip_serializing_if = "Option::is_none",
        serialize_with = "maybe_as_text",
        deserialize_with = "maybe_from_text"
    )]
    pub born: Option<Lsn>,
    /// Tables of which rows may have moved to other keys during a copy that is not over, without all of their values in
    /// the stream: those rows are read once more at its end.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub moved: Vec<u32>,
    /// Everything was copied, nothing more was wanted, and the slot is dropped.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub finished: bool,
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
        Resume {
            v: VERSION,
            system,
            timeline,
            database,
            slot,
            owner,
            lsn,
            born: None,
            moved: Vec::new(),
            finished: false,
        }
    }

    /// Reads what [`Resume::position`] wrote.
    pub(super) fn read(position: &Position) -> Result<Resume, PositionError> {
        #[derive(Deserialize)]
        struct Form {
            v: u32,
        }
        let form: Form = serde_json::from_slice(&position.0).map_err(PositionError::Unreadable)?;
        if ![VERSION, BEFORE_COPIES].contains(&form.v) {
            return Err(PositionError::Newer(form.v));
        }
        serde_json::from_slice(&position.0).map_err(PositionError::Unreadable)
    }

    /// As the core stores it.
    pub(super) fn position(&self) -> Position {
        Position(Bytes::from(serde_json::to_vec(self).expect("strings and numbers are JSON")))
    }

    /// The end of a stream that was only to be copied.
    pub(super) fn finished(&self, lsn: Lsn) -> Resume {
        Resume { finished: true, ..self.at(self.timeline, lsn) }
    }

    /// The same stream, at another place.
    pub(super) fn at(&self, timeline: u32, lsn: Lsn) -> Resume {
        Resume { v: VERSION, timeline, lsn: Some(lsn), ..self.clone() }
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
        let text = r#"{"v":2,"system":"7123456789012345678","timeline":2,"database":"shop","slot":"forebay_shop","owner":"ab12","lsn":"0/16B37A0"}"#;
        assert_eq!(position.to_string(), text);
        assert_eq!(Resume::read(&position).unwrap(), resume);
    }

    #[test]
    fn a_position_from_before_there_were_copies_is_read() {
        let text = r#"{"v":1,"system":"7","timeline":2,"database":"d","slot":"s","owner":"o","lsn":"0/1"}"#;
        let resume = Resume::read(&Position(Bytes::from(text))).unwrap();
        assert_eq!((resume.born, resume.finished), (None, false));
        let next = Resume { born: Some(Lsn(1)), ..resume.at(2, Lsn(2)) };
        assert_eq!(Resume::read(&next.position()).unwrap(), next);
    }

    #[test]
    fn what_is_damaged_or_newer_is_refused() {
        let read = |text: &str| Resume::read(&Position(Bytes::copy_from_slice(text.as_bytes())));
        assert!(matches!(read("0/1"), Err(PositionError::Unreadable(_))));
        assert!(matches!(read(r#"{"v":3,"anything":1}"#), Err(PositionError::Newer(3))));
        assert!(matches!(read(r#"{"v":1}"#), Err(PositionError::Unreadable(_))));
    }
}
