//! What is known of everything up to one address: [`Head`]. Pure.
//!
//! Each segment begins with the head at its start, so that opening a journal reads its last segment and no other, and
//! an address for a time is found without reading what lies before it.

use std::collections::HashMap;
use std::sync::Arc;

use forebay_api::{Mark, StreamId};

use crate::fields::{Fields, put};
use crate::frame::Frame;

/// The most streams that are remembered: those that were written last. A source whose sequence begins anew with each
/// start leaves one behind each time. Of a stream that is forgotten nothing is held, so it may come twice.
pub(crate) const MAX_STREAMS: usize = 1000;

/// What is known of everything before one address.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Head {
    /// The highest mark of each stream, and where it was written.
    streams: HashMap<Arc<StreamId>, (Mark, u64)>,
    /// The latest time that an event bears; never falls.
    pub(crate) time: i64,
    /// The latest time at which something was received; never falls, whatever the clock does.
    pub(crate) received: i64,
    /// The highest second half of `major`.
    pub(crate) major: u64,
}

impl Default for Head {
    fn default() -> Head {
        Head { streams: HashMap::new(), time: i64::MIN, received: i64::MIN, major: 0 }
    }
}

impl Head {
    /// The highest mark of a stream.
    pub(crate) fn mark(&self, stream: &StreamId) -> Option<Mark> {
        self.streams.get(stream).map(|(mark, _)| *mark)
    }

    /// Goes on behind a frame that moves the mark of `stream` to `mark`, if to any.
    pub(crate) fn pass(&mut self, frame: &Frame, stream: &Arc<StreamId>, mark: Option<Mark>) {
        self.time = self.time.max(frame.time);
        self.received = self.received.max(frame.received);
        self.major = self.major.max(frame.major);
        let Some(mark) = mark else { return };
        match self.streams.get_mut(stream) {
            Some(known) => *known = (known.0.max(mark), frame.at),
            None => {
                if self.streams.len() >= MAX_STREAMS {
                    let oldest = self.streams.iter().min_by_key(|(_, (_, at))| *at);
                    let oldest = oldest.map(|(stream, _)| stream.clone());
                    oldest.map(|stream| self.streams.remove(&stream));
                }
                self.streams.insert(stream.clone(), (mark, frame.at));
            }
        }
    }

    /// Appends it.
    pub(crate) fn write(&self, out: &mut Vec<u8>) {
        put(out, &self.time.to_le_bytes());
        put(out, &self.received.to_le_bytes());
        put(out, &self.major.to_le_bytes());
        let count = u32::try_from(self.streams.len()).expect("they are at most `MAX_STREAMS`");
        put(out, &count.to_le_bytes());
        let mut streams: Vec<_> = self.streams.iter().collect();
        streams.sort_unstable_by_key(|(_, (_, at))| *at);
        for (stream, (mark, at)) in streams {
            let name = u16::try_from(stream.source.len()).expect("a frame has a shorter name");
            put(out, &stream.epoch.to_le_bytes());
            put(out, &mark.to_bytes());
            put(out, &at.to_le_bytes());
            put(out, &name.to_le_bytes());
            put(out, stream.source.as_bytes());
        }
    }

    /// The inverse of [`Head::write`]; `None` is damage.
    pub(crate) fn read(fields: &mut Fields<'_>) -> Option<Head> {
        let (time, received, major) = (fields.i64()?, fields.i64()?, fields.u64()?);
        let mut head = Head { streams: HashMap::new(), time, received, major };
        for _ in 0..fields.u32()? {
            let epoch = fields.u64()?;
            let mark = Mark::from_bytes(&fields.array::<{ Mark::BYTES }>()?)?;
            let (at, name) = (fields.u64()?, fields.u16()?);
            let source = std::str::from_utf8(fields.take(usize::from(name))?).ok()?.into();
            head.streams.insert(Arc::new(StreamId { source, epoch }), (mark, at));
        }
        Some(head)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::frame::Kind;

    fn stream(epoch: u64) -> Arc<StreamId> {
        Arc::new(StreamId { source: "shop".into(), epoch })
    }

    fn mark(lsn: u64) -> Mark {
        Mark { major: (0, lsn), minor: 0, part: 0 }
    }

    fn frame(at: u64, time: i64) -> Frame {
        let mut frame = Frame::bare(Kind::Chunk, at, 0, b"");
        (frame.time, frame.received) = (time, time);
        frame
    }

    #[test]
    fn it_comes_back_as_it_was_written() {
        let mut head = Head::default();
        head.pass(&frame(0, 5), &stream(1), Some(mark(3)));
        head.pass(&frame(9, 4), &stream(2), Some(mark(1)));
        head.pass(&frame(20, 3), &stream(3), None);
        let mut bytes = Vec::new();
        head.write(&mut bytes);
        assert_eq!(Head::read(&mut Fields::new(&bytes)), Some(head.clone()));
        assert_eq!((head.time, head.mark(&stream(1)), head.mark(&stream(3))), (5, Some(mark(3)), None));
        for end in 0..bytes.len() {
            assert_eq!(Head::read(&mut Fields::new(&bytes[..end])), None);
        }
    }

    #[test]
    fn the_streams_that_were_written_last_are_remembered() {
        let mut head = Head::default();
        let most = MAX_STREAMS as u64;
        for epoch in 0..most {
            head.pass(&frame(epoch, 0), &stream(epoch), Some(mark(1)));
        }
        head.pass(&frame(most, 0), &stream(0), Some(mark(2)));
        head.pass(&frame(most + 1, 0), &stream(most), Some(mark(1)));
        assert_eq!(head.streams.len(), MAX_STREAMS);
        assert_eq!(head.mark(&stream(0)), Some(mark(2)));
        assert_eq!(head.mark(&stream(1)), None);
    }
}
