//! Reads the log from an address on, as far as it is durable: [`Cursor`]. Blocking.

use std::sync::Arc;

use forebay_api::{Blame, Chunk, Fault};
use tracing::warn;

use crate::fault::judge;
use crate::frame::{Frame, Kind};
use crate::frames::{AHEAD, Frames, Unread};
use crate::recovery::{damaged_until, foreign};
use crate::segment::Segment;
use crate::store::Store;

/// A chunk, and the address behind it.
pub(crate) type Item = (Chunk, u64);

/// Where a reader is.
#[derive(Debug)]
pub(crate) struct Cursor {
    store: Arc<Store>,
    /// Who reads, for messages.
    name: Arc<str>,
    /// The address of the next frame.
    pub(crate) at: u64,
    /// Where it ends.
    until: Option<u64>,
    /// What is read ahead.
    frames: Option<(Arc<Segment>, Frames)>,
    /// Whether a frame was read since the start.
    entered: bool,
}

impl Cursor {
    /// Before the frame at `at`, which exists.
    pub(crate) fn new(store: Arc<Store>, name: Arc<str>, at: u64, until: Option<u64>) -> Cursor {
        Cursor { store, name, at, until, frames: None, entered: false }
    }

    /// Whether it has come to where it ends.
    pub(crate) fn is_done(&self) -> bool {
        self.until.is_some_and(|until| self.at >= until)
    }

    /// The next chunks, some [`AHEAD`] bytes of them; fewer at the durable end.
    pub(crate) fn read(&mut self) -> Result<Vec<Item>, Fault> {
        if let Some(fault) = self.store.cut_off(&self.name) {
            return Err(fault);
        }
        let mut items = Vec::new();
        let mut bytes = 0;
        while bytes < AHEAD as u64 && !self.is_done() {
            let before = self.at;
            match self.next()? {
                None => break,
                Some(chunk) => items.extend(chunk.map(|chunk| (chunk, self.at))),
            }
            bytes += self.at - before;
        }
        Ok(items)
    }

    /// Passes one frame; `None` at the durable end, `Some(None)` where it holds no events.
    fn next(&mut self) -> Result<Option<Option<Chunk>>, Fault> {
        if self.frames.as_ref().is_none_or(|(_, frames)| frames.is_at_end()) {
            let Some((segment, end)) = self.store.find(self.at) else {
                self.store.exists(self.at, &self.doing())?;
                return Ok(None);
            };
            self.frames = Some((segment.clone(), Frames::new(segment, self.at, end)));
        }
        let (segment, frames) = self.frames.as_mut().expect("it was just made");
        let segment = segment.clone();
        let (frame, body) = match frames.next() {
            Ok(None) => return Ok(None),
            Ok(Some(read)) => read,
            Err(Unread::Io(error)) => {
                return Err(judge(format!("reading `{}`", segment.path.display()), error));
            }
            Err(Unread::NoFrame(at)) => {
                let end = frames.end();
                self.frames = None;
                return self.lost(&segment, at, end).map(|()| Some(None));
            }
        };
        self.entered = true;
        self.at = frame.end();
        match frame.kind {
            Kind::Seal => Ok(Some(None)),
            Kind::Gap => {
                self.tell_of_gap(&frame);
                Ok(Some(None))
            }
            Kind::Chunk => {
                let body = frame.open(&body).ok_or_else(|| foreign(&segment, frame.at))?;
                let chunk = Chunk::decode(body.chunk).map_err(|error| {
                    let doing =
                        format!("reading the entry at address {} of `{}`", frame.at, segment.path.display());
                    Fault::fatal(doing, Blame::Defect, error)
                        .with_remedy("run the version of forebay that wrote it, or a newer one")
                })?;
                Ok(Some(Some(chunk)))
            }
        }
    }

    /// No frame begins where one should. A position that was stored before damaged entries were put aside may be in
    /// the gap that stands for them: then it goes on behind it.
    fn lost(&mut self, segment: &Arc<Segment>, at: u64, end: u64) -> Result<(), Fault> {
        if self.entered {
            return Err(damaged_until(segment, &self.store.source, at, end));
        }
        let mut frames = Frames::new(segment.clone(), segment.base, end);
        while frames.at() < at {
            match frames.next() {
                Ok(Some((frame, _))) if frame.end() <= at => {}
                Ok(Some((frame, _))) if frame.kind == Kind::Gap => {
                    self.tell_of_gap(&frame);
                    self.at = frame.end();
                    self.entered = true;
                    return Ok(());
                }
                Ok(Some(_)) => {
                    let why = format!("no entry begins at the position {at}");
                    return Err(Fault::fatal(self.doing(), Blame::Outside, why)
                        .with_remedy("correct the position that is stored (`forebay checkpoint`)"));
                }
                Ok(None) => break,
                Err(Unread::NoFrame(at)) => return Err(damaged_until(segment, &self.store.source, at, end)),
                Err(Unread::Io(error)) => {
                    return Err(judge(format!("reading `{}`", segment.path.display()), error));
                }
            }
        }
        Err(damaged_until(segment, &self.store.source, at, end))
    }

    fn tell_of_gap(&self, gap: &Frame) {
        warn!(
            source = %self.store.source, reader = %self.name, from = gap.at, until = gap.end(),
            remedy = "copy the tables anew whose changes are lost",
            "damaged entries passed over, as `forebay journal salvage` was told"
        );
    }

    fn doing(&self) -> String {
        self.store.reading(&self.name)
    }
}
