//! A reader's position: an address in one journal, as text.

use bytes::Bytes;
use forebay_api::Position;
use serde::{Deserialize, Serialize};

use crate::identity::Identity;

/// The format of the text.
const VERSION: u32 = 1;

/// What the text says.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Written {
    version: u32,
    journal: Identity,
    at: u64,
}

/// Why a position is none of this journal.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum NotOurs {
    /// It is not what [`write`] writes.
    #[error("the position is not one of a journal on disk")]
    Unknown,
    /// A newer version wrote it.
    #[error("the position has version {0}, and this version of forebay knows {VERSION}")]
    Newer(u32),
    /// It is another journal's.
    #[error("the position is of the journal `{theirs}`, and this one is `{ours}`")]
    Other {
        /// The one that it is of.
        theirs: Identity,
        /// The one that was asked.
        ours: Identity,
    },
}

/// The position before the frame at an address.
pub(crate) fn write(journal: Identity, at: u64) -> Position {
    let written = Written { version: VERSION, journal, at };
    Position(Bytes::from(serde_json::to_vec(&written).expect("numbers and text can be written")))
}

/// The address of a position in this journal.
pub(crate) fn read(journal: Identity, position: &Position) -> Result<u64, NotOurs> {
    let written: Written = match serde_json::from_slice(&position.0) {
        Ok(written) => written,
        Err(_) => {
            #[derive(Deserialize)]
            struct Versioned {
                version: u32,
            }
            return Err(match serde_json::from_slice::<Versioned>(&position.0) {
                Ok(Versioned { version }) if version > VERSION => NotOurs::Newer(version),
                _ => NotOurs::Unknown,
            });
        }
    };
    if written.version != VERSION {
        return Err(NotOurs::Newer(written.version));
    }
    if written.journal != journal {
        return Err(NotOurs::Other { theirs: written.journal, ours: journal });
    }
    Ok(written.at)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_position_is_an_address_in_one_journal() {
        let (ours, theirs) = (Identity::new(), Identity::new());
        let position = write(ours, 42);
        assert_eq!(position.to_string(), format!(r#"{{"version":1,"journal":"{ours}","at":42}}"#));
        assert_eq!(read(ours, &position), Ok(42));
        assert_eq!(read(theirs, &position), Err(NotOurs::Other { theirs: ours, ours: theirs }));
    }

    #[test]
    fn what_is_not_understood_is_refused() {
        let text = |text: &str| read(Identity::new(), &Position(Bytes::copy_from_slice(text.as_bytes())));
        assert_eq!(text("0/16B3748"), Err(NotOurs::Unknown));
        assert_eq!(text(r#"{"version":2,"journal":"x","shard":1}"#), Err(NotOurs::Newer(2)));
        assert_eq!(text(r#"{"version":1,"journal":"x","at":1}"#), Err(NotOurs::Unknown));
    }
}
