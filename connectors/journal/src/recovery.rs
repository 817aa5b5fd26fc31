//! Finds the end of the log after a start, and tells a torn end from damage. Reads only.
//!
//! What follows the last intact frame was never acknowledged if it is the torn end of a write that was not synced. It
//! was, if a later frame says that it was durable when that frame was written, or if a reader has been there. The first
//! is cut off, the second is an error for the operator.

use std::sync::Arc;

use forebay_api::{Blame, Fault};
use memchr::memmem;

use crate::fault::judge;
use crate::frame::{Frame, HEADER, Kind, MAGIC};
use crate::frames::{AHEAD, Frames, Unread};
use crate::head::Head;
use crate::segment::Segment;

/// Where the log ends.
#[derive(Debug)]
pub(crate) struct End {
    /// The address behind the last intact frame.
    pub(crate) at: u64,
    /// All before this address was durable before the start; what is between it and `at` may be in the kernel's memory
    /// only.
    pub(crate) proven: u64,
    /// The address behind the last byte that is not zero.
    pub(crate) dirty: u64,
    /// What is known at `at`.
    pub(crate) head: Head,
    /// Whether the last frame is a seal, or there is none.
    pub(crate) sealed: bool,
}

/// Finds the end of the log in its last segment, where all before `proven` is known to have been durable.
pub(crate) fn recover(segment: &Arc<Segment>, source: &str, proven: u64) -> Result<End, Fault> {
    let failed = |error| judge(format!("reading `{}`", segment.path.display()), error);
    let mut end = End {
        at: segment.base,
        proven: proven.max(segment.base),
        dirty: segment.base,
        head: segment.head.clone(),
        sealed: true,
    };
    let mut frames = Frames::new(segment.clone(), segment.base, segment.limit());
    loop {
        match frames.next() {
            Ok(None) | Err(Unread::NoFrame(_)) => break,
            Err(Unread::Io(error)) => return Err(failed(error)),
            Ok(Some((frame, body))) => {
                end.at = frame.end();
                end.proven = end.proven.max(frame.durable);
                end.sealed = frame.kind == Kind::Seal;
                if frame.kind == Kind::Chunk {
                    let body = frame.open(&body).ok_or_else(|| foreign(segment, frame.at))?;
                    end.head.pass(&frame, &Arc::new(body.stream), body.mark);
                }
            }
        }
    }
    end.dirty = last_byte(segment, end.at).map_err(failed)?;
    let mut from = end.at;
    while let Some(later) = next_frame(segment, from, end.dirty).map_err(failed)? {
        if later.durable > end.at {
            return Err(damaged(segment, source, end.at, later.at));
        }
        from = later.end();
    }
    if end.proven > end.at {
        return Err(damaged(segment, source, end.at, end.proven));
    }
    Ok(end)
}

/// The address behind the last byte at or behind `from` that is not zero; `from` if there is none.
pub(crate) fn last_byte(segment: &Segment, from: u64) -> std::io::Result<u64> {
    let zeros = vec![0; AHEAD];
    let mut bytes = vec![0; AHEAD];
    let (mut at, mut last) = (from, from);
    while at < segment.limit() {
        let length = usize::try_from(segment.limit() - at).map_or(AHEAD, |left| left.min(AHEAD));
        let piece = &mut bytes[..length];
        segment.read(at, piece)?;
        if piece != &zeros[..length] {
            last = at + piece.iter().rposition(|byte| *byte != 0).map_or(0, |index| index as u64 + 1);
        }
        at += length as u64;
    }
    Ok(last)
}

/// The first intact frame that begins between two addresses.
pub(crate) fn next_frame(segment: &Arc<Segment>, from: u64, until: u64) -> std::io::Result<Option<Frame>> {
    let mut at = from;
    while at + HEADER as u64 <= until {
        let length = usize::try_from(until - at).map_or(AHEAD, |left| left.min(AHEAD));
        let mut bytes = vec![0; length];
        segment.read(at, &mut bytes)?;
        for index in memmem::find_iter(&bytes, &MAGIC) {
            let candidate = at + index as u64;
            let mut frames = Frames::new(segment.clone(), candidate, segment.limit());
            match frames.next() {
                Ok(Some((frame, _))) => return Ok(Some(frame)),
                Ok(None) | Err(Unread::NoFrame(_)) => {}
                Err(Unread::Io(error)) => return Err(error),
            }
        }
        // The magic may lie across two pieces.
        at += (length - (MAGIC.len() - 1)) as u64;
    }
    Ok(None)
}

/// What a reader meets at `at`: what is before `end` was durable, so it is damaged.
pub(crate) fn damaged_until(segment: &Arc<Segment>, source: &str, at: u64, end: u64) -> Fault {
    match next_frame(segment, at, end) {
        Ok(next) => damaged(segment, source, at, next.map_or(end, |frame| frame.at)),
        Err(error) => judge(format!("reading `{}`", segment.path.display()), error),
    }
}

/// Entries that were durable are damaged.
fn damaged(segment: &Segment, source: &str, from: u64, until: u64) -> Fault {
    let why = format!("what was stored from address {from} to {until} is damaged");
    Fault::fatal(format!("reading `{}`", segment.path.display()), Blame::Outside, why).with_remedy(format!(
        "restore this file from a copy; or run `forebay journal salvage {source}`, which puts the damaged bytes aside \
         so that what stands behind them is delivered: what they held is then lost and must be copied anew. See the \
         kernel's log for errors of the disk first"
    ))
}

/// A frame whose checksums hold, but that this version cannot read.
pub(crate) fn foreign(segment: &Segment, at: u64) -> Fault {
    let why = format!("the entry at address {at} is intact but not understood");
    Fault::fatal(format!("reading `{}`", segment.path.display()), Blame::Defect, why)
        .with_remedy("run the version of forebay that wrote it, or a newer one")
}
