//! Reads the frames of one segment one after the other: [`Frames`].

use std::io;
use std::sync::Arc;

use bytes::Bytes;

use crate::frame::{Frame, HEADER};
use crate::segment::Segment;

/// How much is read ahead; a frame that is larger is read whole.
pub(crate) const AHEAD: usize = 1 << 20;

/// Where frames cannot be read.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Unread {
    /// The file cannot be read.
    #[error("reading failed")]
    Io(#[from] io::Error),
    /// What stands at this address is no frame.
    #[error("what stands at {0:016x} is no frame")]
    NoFrame(u64),
}

/// A cursor in one segment.
#[derive(Debug)]
pub(crate) struct Frames {
    segment: Arc<Segment>,
    /// The address of the next frame.
    at: u64,
    /// Nothing is read from here on.
    end: u64,
    /// What was read ahead, from `at` on.
    ahead: Bytes,
}

impl Frames {
    /// The frames of `segment` that stand between two addresses.
    pub(crate) fn new(segment: Arc<Segment>, at: u64, end: u64) -> Frames {
        assert!(segment.base <= at && at <= end && end <= segment.limit(), "they are in this segment");
        Frames { segment, at, end, ahead: Bytes::new() }
    }

    /// The address of the next frame.
    pub(crate) fn at(&self) -> u64 {
        self.at
    }

    /// Where it ends.
    pub(crate) fn end(&self) -> u64 {
        self.end
    }

    /// Whether nothing is left.
    pub(crate) fn is_at_end(&self) -> bool {
        self.at == self.end
    }

    /// The next frame and its body; `None` at the end.
    pub(crate) fn next(&mut self) -> Result<Option<(Frame, Bytes)>, Unread> {
        if self.at == self.end {
            return Ok(None);
        }
        self.read_ahead(HEADER as u64)?;
        let frame = Frame::read(&self.ahead, self.at).ok_or(Unread::NoFrame(self.at))?;
        if frame.end() > self.end {
            return Err(Unread::NoFrame(self.at));
        }
        self.read_ahead(frame.end() - self.at)?;
        let length = HEADER + frame.body as usize;
        let body = self.ahead.slice(HEADER..length);
        if !frame.has_body(&body) {
            return Err(Unread::NoFrame(self.at));
        }
        self.ahead = self.ahead.slice(length..);
        self.at = frame.end();
        Ok(Some((frame, body)))
    }

    /// Makes sure that `least` bytes were read ahead, or all that there are.
    fn read_ahead(&mut self, least: u64) -> io::Result<()> {
        if self.ahead.len() as u64 >= least {
            return Ok(());
        }
        let length = (self.end - self.at).min(least.max(AHEAD as u64));
        let mut bytes = vec![0; usize::try_from(length).map_err(io::Error::other)?];
        self.segment.read(self.at, &mut bytes)?;
        self.ahead = Bytes::from(bytes);
        Ok(())
    }
}
