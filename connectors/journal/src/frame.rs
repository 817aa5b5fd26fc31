//! How one entry stands on disk: a [`Frame`] header of fixed length, then its body.
//!
//! ```text
//!  0 magic · 4 header crc · 8 body crc · 12 body length · 16 at · 24 durable · 32 received · 40 time · 48 major
//!  56 kind · 57 has mark · 58 length of the source's name · 60 nothing yet · 64 body
//!  body of a chunk: epoch · mark · name of the source · the chunk as `forebay_api::chunk::codec` writes it
//! ```
//! Pure. Invariant: a frame is believed only where both checksums hold and it stands at the address that it names, so
//! neither a torn write nor what an earlier use of the disk left is ever taken for one.

use std::sync::Arc;

use bytes::Bytes;
use forebay_api::{Mark, StreamId};

use crate::fields::{Fields, put};

/// The length of a frame's header.
pub(crate) const HEADER: usize = 64;

/// What every frame begins with; zeros and JSON do not.
pub(crate) const MAGIC: [u8; 4] = [0xF0, 0x9B, 0x4A, 0x46];

/// The longest name of a source, so that the heads of segments stay small.
const MAX_NAME: usize = 255;

/// What a frame is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// Events.
    Chunk,
    /// Nothing; what it says of what was durable before it is its use.
    Seal,
    /// In the place of damaged ones, whose bytes were put aside.
    Gap,
}

/// The header of a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Frame {
    /// Its own address.
    pub(crate) at: u64,
    /// All before this address was durable when it was written.
    pub(crate) durable: u64,
    /// When its events were received: microseconds since the Unix epoch.
    pub(crate) received: i64,
    /// The latest time that one of its events bears.
    pub(crate) time: i64,
    /// The highest second half of `major` among its marks.
    pub(crate) major: u64,
    /// What it is.
    pub(crate) kind: Kind,
    /// Whether it moves the mark of its stream.
    has_mark: bool,
    /// Bytes of the source's name.
    name: u16,
    /// Bytes behind the header.
    pub(crate) body: u32,
    body_crc: u32,
}

/// What the body of a chunk's frame says.
#[derive(Debug)]
pub(crate) struct Body {
    /// The stream of its events.
    pub(crate) stream: StreamId,
    /// The highest mark among them, but for schemas, which move none.
    pub(crate) mark: Option<Mark>,
    /// The chunk.
    pub(crate) chunk: Bytes,
}

impl Frame {
    /// The header that is written in the first [`HEADER`] of `bytes`, if it is one and belongs at this address.
    pub(crate) fn read(bytes: &[u8], at: u64) -> Option<Frame> {
        let bytes = bytes.get(..HEADER)?;
        let mut fields = Fields::new(bytes);
        let (magic, crc) = (fields.array::<4>()?, fields.u32()?);
        if magic != MAGIC || crc != crc32fast::hash(&bytes[8..]) {
            return None;
        }
        let (body_crc, body) = (fields.u32()?, fields.u32()?);
        let (found_at, durable) = (fields.u64()?, fields.u64()?);
        let (received, time, major) = (fields.i64()?, fields.i64()?, fields.u64()?);
        let kind = match fields.u8()? {
            0 => Kind::Chunk,
            1 => Kind::Seal,
            2 => Kind::Gap,
            _ => return None,
        };
        let (has_mark, name) = (fields.u8()? == 1, fields.u16()?);
        let frame =
            Frame { at: found_at, durable, received, time, major, kind, has_mark, name, body, body_crc };
        (found_at == at && durable <= at).then_some(frame)
    }

    /// A frame without a stream, and its body.
    pub(crate) fn bare(kind: Kind, at: u64, durable: u64, body: &[u8]) -> Frame {
        Frame {
            at,
            durable,
            received: i64::MIN,
            time: i64::MIN,
            major: 0,
            kind,
            has_mark: false,
            name: 0,
            body: u32::try_from(body.len()).expect("whoever makes a bare frame bounds its body"),
            body_crc: crc32fast::hash(body),
        }
    }

    /// A gap of `length` bytes with its header, the rest of them zeros.
    pub(crate) fn gap(at: u64, length: u64) -> Frame {
        let body = length - HEADER as u64;
        let mut hasher = crc32fast::Hasher::new();
        let zeros = [0; 4096];
        let mut left = body;
        while left > 0 {
            let piece = usize::try_from(left).map_or(zeros.len(), |left| left.min(zeros.len()));
            hasher.update(&zeros[..piece]);
            left -= piece as u64;
        }
        Frame {
            body: u32::try_from(body)
                .expect("it takes the place of entries in one segment, of 4 GiB at most"),
            body_crc: hasher.finalize(),
            ..Frame::bare(Kind::Gap, at, at, b"")
        }
    }

    /// Writes the header.
    pub(crate) fn write(&self, header: &mut [u8; HEADER]) {
        let mut out = Vec::with_capacity(HEADER);
        put(&mut out, &MAGIC);
        put(&mut out, &[0; 4]);
        put(&mut out, &self.body_crc.to_le_bytes());
        put(&mut out, &self.body.to_le_bytes());
        put(&mut out, &self.at.to_le_bytes());
        put(&mut out, &self.durable.to_le_bytes());
        put(&mut out, &self.received.to_le_bytes());
        put(&mut out, &self.time.to_le_bytes());
        put(&mut out, &self.major.to_le_bytes());
        let kind = match self.kind {
            Kind::Chunk => 0,
            Kind::Seal => 1,
            Kind::Gap => 2,
        };
        put(&mut out, &[kind, u8::from(self.has_mark)]);
        put(&mut out, &self.name.to_le_bytes());
        out.resize(HEADER, 0);
        let crc = crc32fast::hash(&out[8..]);
        out[4..8].copy_from_slice(&crc.to_le_bytes());
        header.copy_from_slice(&out);
    }

    /// The address behind it.
    pub(crate) fn end(&self) -> u64 {
        self.at + HEADER as u64 + u64::from(self.body)
    }

    /// Whether this is what was written behind the header.
    pub(crate) fn has_body(&self, body: &[u8]) -> bool {
        body.len() == self.body as usize && crc32fast::hash(body) == self.body_crc
    }

    /// Takes a body that was checked apart; `None` where it is not what a chunk's frame has.
    pub(crate) fn open(&self, body: &Bytes) -> Option<Body> {
        let mut fields = Fields::new(body);
        let epoch = fields.u64()?;
        let mark = Mark::from_bytes(&fields.array::<{ Mark::BYTES }>()?)?;
        let source: Arc<str> = std::str::from_utf8(fields.take(usize::from(self.name))?).ok()?.into();
        let chunk = body.slice(8 + Mark::BYTES + usize::from(self.name)..);
        Some(Body { stream: StreamId { source, epoch }, mark: self.has_mark.then_some(mark), chunk })
    }
}

/// An entry that waits to be written: all but where it will stand.
#[derive(Debug)]
pub(crate) struct Entry {
    /// The stream of its events.
    pub(crate) stream: Arc<StreamId>,
    /// The lowest and the highest mark among its events, but for schemas.
    pub(crate) marks: Option<(Mark, Mark)>,
    frame: Frame,
    /// Room for the header, then the body.
    bytes: Vec<u8>,
}

/// What is said of the events of an entry.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Summary {
    /// The lowest and the highest mark, but for schemas.
    pub(crate) marks: Option<(Mark, Mark)>,
    /// When they were received.
    pub(crate) received: i64,
    /// The latest time that one of them bears.
    pub(crate) time: i64,
    /// The highest second half of `major`.
    pub(crate) major: u64,
}

/// An entry that no frame can hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a frame holds less than 4 GiB, and the name of a source at most 255 bytes")]
pub(crate) struct TooLarge;

impl Entry {
    /// Makes and checksums the body; `write` appends the chunk.
    pub(crate) fn new(
        stream: &Arc<StreamId>,
        summary: Summary,
        write: impl FnOnce(&mut Vec<u8>),
    ) -> Result<Entry, TooLarge> {
        let mut bytes = vec![0; HEADER];
        put(&mut bytes, &stream.epoch.to_le_bytes());
        put(&mut bytes, &summary.marks.map_or(Mark::MIN, |(_, last)| last).to_bytes());
        put(&mut bytes, stream.source.as_bytes());
        write(&mut bytes);
        let body = &bytes[HEADER..];
        let name = u16::try_from(stream.source.len()).map_err(|_| TooLarge)?;
        if usize::from(name) > MAX_NAME {
            return Err(TooLarge);
        }
        let frame = Frame {
            at: 0,
            durable: 0,
            received: summary.received,
            time: summary.time,
            major: summary.major,
            kind: Kind::Chunk,
            has_mark: summary.marks.is_some(),
            name,
            body: u32::try_from(body.len()).map_err(|_| TooLarge)?,
            body_crc: crc32fast::hash(body),
        };
        Ok(Entry { stream: stream.clone(), marks: summary.marks, frame, bytes })
    }

    /// What it takes on disk.
    pub(crate) fn len(&self) -> u64 {
        self.bytes.len() as u64
    }

    /// Gives it its place; the frame as it is then to be written.
    pub(crate) fn place(&mut self, at: u64, durable: u64) -> Frame {
        self.frame.at = at;
        self.frame.durable = durable;
        let header = self.bytes.first_chunk_mut().expect("an entry has room for its header");
        self.frame.write(header);
        self.frame
    }

    /// Header and body.
    pub(crate) fn bytes(&self) -> &[u8] {
        &self.bytes
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn entry(name: &str, marks: Option<(Mark, Mark)>, chunk: &[u8]) -> Entry {
        let stream = Arc::new(StreamId { source: name.into(), epoch: 7 });
        let summary = Summary { marks, received: 5, time: -3, major: 9 };
        Entry::new(&stream, summary, |out| out.extend_from_slice(chunk)).unwrap()
    }

    proptest! {
        #[test]
        fn a_frame_says_what_was_written(
            name in "[a-zé]{1,9}", chunk in proptest::collection::vec(any::<u8>(), 0..99), at in 9..u64::MAX / 2
        ) {
            let mark = Mark { major: (1, 9), minor: 2, part: 3 };
            let mut entry = entry(&name, Some((Mark::MIN, mark)), &chunk);
            let frame = entry.place(at, at - 9);
            let bytes = Bytes::copy_from_slice(entry.bytes());
            prop_assert_eq!(Frame::read(&bytes, at), Some(frame));
            prop_assert_eq!(frame.end(), at + entry.len());
            let body = bytes.slice(HEADER..);
            prop_assert!(frame.has_body(&body));
            let read = frame.open(&body).unwrap();
            prop_assert_eq!(&read.stream, &*entry.stream);
            prop_assert_eq!((read.mark, &read.chunk[..]), (Some(mark), &chunk[..]));
        }

        #[test]
        fn a_changed_byte_or_another_address_is_no_frame(change in 0..70usize, by in 1..=255u8) {
            let mut entry = entry("shop", None, b"a chunk");
            entry.place(100, 50);
            let mut bytes = entry.bytes().to_vec();
            prop_assert!(Frame::read(&bytes, 101).is_none());
            bytes[change] ^= by;
            let believed = Frame::read(&bytes, 100).is_some_and(|frame| frame.has_body(&bytes[HEADER..]));
            prop_assert!(!believed);
        }
    }

    #[test]
    fn a_schema_moves_no_mark() {
        let mut entry = entry("shop", None, b"");
        let frame = entry.place(0, 0);
        assert_eq!(frame.open(&Bytes::copy_from_slice(&entry.bytes()[HEADER..])).unwrap().mark, None);
    }
}
