//! Where an event stands: [`StreamId`] says in which stream, [`Mark`] where in it, [`Position`] where a source
//! can resume.
//!
//! Invariant: an event that is read again has the same stream and the same mark. Everything that makes
//! redelivery harmless (ids, struck-off records, upserts) stands on it.

use std::fmt;
use std::sync::Arc;

use bytes::Bytes;

/// The stream that marks belong to. Marks of different streams are never compared.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct StreamId {
    /// The source's name in the configuration; the first part of every id.
    pub source: Arc<str>,
    /// A fingerprint of all that makes marks comparable: for PostgreSQL the system identifier, the database
    /// and the publications, for instance. It holds nothing of our own state, so ids survive a lost checkpoint. A
    /// source without a log of its own, whose sequence begins anew with each start, takes a fresh one each time. Two
    /// readers of parts of one log (partitions) have streams of their own, because neither's marks say anything of
    /// what the other has delivered.
    pub epoch: u64,
}

impl fmt::Display for StreamId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{:016x}", self.source, self.epoch)
    }
}

/// Where an event stands in its stream: ordered, and the same whenever the event is read again.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Mark {
    /// What orders transactions. PostgreSQL: the timeline that owns the commit, and the commit LSN. A source
    /// with a plain sequence of its own leaves the first half 0.
    pub major: (u32, u64),
    /// The event's ordinal inside its transaction.
    pub minor: u32,
    /// Numbers what one message becomes when it becomes several events (TRUNCATE of several tables).
    pub part: u16,
}

impl Mark {
    /// Below every mark that a source gives.
    pub const MIN: Mark = Mark { major: (0, 0), minor: 0, part: 0 };
    /// The length of [`Mark::to_bytes`].
    pub const BYTES: usize = 18;

    /// Big-endian, so that the bytes order as the marks do: a SQL destination can keep and compare them.
    pub fn to_bytes(self) -> [u8; Mark::BYTES] {
        let mut bytes = [0; Mark::BYTES];
        bytes[..4].copy_from_slice(&self.major.0.to_be_bytes());
        bytes[4..12].copy_from_slice(&self.major.1.to_be_bytes());
        bytes[12..16].copy_from_slice(&self.minor.to_be_bytes());
        bytes[16..].copy_from_slice(&self.part.to_be_bytes());
        bytes
    }

    /// The inverse of [`Mark::to_bytes`]; `None` when the length is another, which is damage, not a mark.
    pub fn from_bytes(bytes: &[u8]) -> Option<Mark> {
        let bytes: &[u8; Mark::BYTES] = bytes.try_into().ok()?;
        let (timeline, rest) = bytes.split_first_chunk::<4>()?;
        let (lsn, rest) = rest.split_first_chunk::<8>()?;
        let (minor, rest) = rest.split_first_chunk::<4>()?;
        let (part, _) = rest.split_first_chunk::<2>()?;
        Some(Mark {
            major: (u32::from_be_bytes(*timeline), u64::from_be_bytes(*lsn)),
            minor: u32::from_be_bytes(*minor),
            part: u16::from_be_bytes(*part),
        })
    }

    /// Appends the mark as it stands in an event's id: `<timeline>:<commit lsn, 16 hex digits>:<ordinal>`, and
    /// `.<part>` where it is not 0. The fixed width makes ids of one timeline sort by commit.
    pub fn write(self, out: &mut Vec<u8>) {
        let mut number = itoa::Buffer::new();
        out.extend_from_slice(number.format(self.major.0).as_bytes());
        out.push(b':');
        out.extend_from_slice(&hex16(self.major.1));
        out.push(b':');
        out.extend_from_slice(number.format(self.minor).as_bytes());
        if self.part != 0 {
            out.push(b'.');
            out.extend_from_slice(number.format(self.part).as_bytes());
        }
    }
}

impl fmt::Display for Mark {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{:016X}:{}", self.major.0, self.major.1, self.minor)?;
        if self.part != 0 {
            write!(f, ".{}", self.part)?;
        }
        Ok(())
    }
}

fn hex16(value: u64) -> [u8; 16] {
    const DIGITS: &[u8; 16] = b"0123456789ABCDEF";
    let mut out = [0; 16];
    for (at, digit) in out.iter_mut().enumerate() {
        *digit = DIGITS[((value >> (60 - 4 * at)) & 0xf) as usize];
    }
    out
}

/// Where a source can resume. Opaque to all but the source that made it: no order, no arithmetic.
///
/// A source makes it of text (JSON, with a version), because `forebay checkpoint show` prints it and `set` reads it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Position(pub Bytes);

impl fmt::Display for Position {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match std::str::from_utf8(&self.0) {
            Ok(text) => f.write_str(text),
            Err(_) => write!(f, "{:x?}", self.0),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn bytes_order_as_marks_do_and_come_back(
            a in any::<(u32, u64, u32, u16)>(), b in any::<(u32, u64, u32, u16)>()
        ) {
            let mark = |(t, l, m, p)| Mark { major: (t, l), minor: m, part: p };
            let (a, b) = (mark(a), mark(b));
            prop_assert_eq!(a.to_bytes().cmp(&b.to_bytes()), a.cmp(&b));
            prop_assert_eq!(Mark::from_bytes(&a.to_bytes()), Some(a));
        }

        #[test]
        fn the_written_form_is_the_displayed_one(t in any::<u32>(), l in any::<u64>(), m in any::<u32>(), p in any::<u16>()) {
            let mark = Mark { major: (t, l), minor: m, part: p };
            let mut out = Vec::new();
            mark.write(&mut out);
            prop_assert_eq!(String::from_utf8(out).unwrap(), mark.to_string());
        }
    }

    #[test]
    fn damaged_bytes_are_no_mark() {
        assert_eq!(Mark::from_bytes(b"short"), None);
    }
}
