//! Finds addresses in the log without reading all of it.

use std::sync::Arc;

use forebay_api::{Fault, JournalSetting, Since};

use crate::fault::judge;
use crate::folder::Folder;
use crate::frame::{Frame, Kind};
use crate::frames::{Frames, Unread};
use crate::head::Head;
use crate::recovery::{damaged_until, recover};
use crate::segment::Segment;
use crate::store::Store;

/// An address from which all comes that `since` asks for.
///
/// Everything before a segment is older than what is asked for when its head is; the latest such segment is read frame
/// by frame.
pub(crate) fn locate(store: &Arc<Store>, since: &Since) -> Result<u64, Fault> {
    let (before, frame_before): (Box<dyn Fn(&Head) -> bool>, Box<dyn Fn(&Frame) -> bool>) = match *since {
        Since::Oldest => return Ok(store.oldest()),
        Since::Time(time) => {
            (Box::new(move |head| head.time < time), Box::new(move |frame| frame.time < time))
        }
        Since::Major(major) => {
            (Box::new(move |head| head.major < major), Box::new(move |frame| frame.major < major))
        }
    };
    let segments = store.segments();
    let Some(segment) = segments.iter().rev().find(|segment| before(&segment.head)) else {
        return Ok(store.oldest());
    };
    let Some((segment, end)) = store.find(segment.base) else { return Ok(store.oldest()) };
    let mut frames = Frames::new(segment.clone(), segment.base, end);
    loop {
        let at = frames.at();
        match frames.next() {
            Ok(Some((frame, _))) if frame_before(&frame) => {}
            Ok(_) => return Ok(at),
            Err(Unread::NoFrame(at)) => return Err(damaged_until(&segment, &store.source, at, end)),
            Err(Unread::Io(error)) => {
                return Err(judge(format!("reading `{}`", segment.path.display()), error));
            }
        }
    }
}

/// Where the last events of a journal end that is not open here. Changes nothing.
pub(crate) fn events_end_on_disk(
    folder: &Folder,
    setting: &JournalSetting,
    proven: u64,
) -> Result<u64, Fault> {
    let identity = folder.identity(&setting.source)?;
    let Some(base) = folder.bases()?.last().copied() else { return Ok(proven) };
    let path = folder.file(&Segment::name(base));
    let segment = Segment::open(path.clone(), base, identity)
        .map_err(|refused| crate::log::not_ours(&path, &setting.source, refused))?;
    let segment = Arc::new(segment);
    let end = recover(&segment, &setting.source, proven)?.at;
    let mut frames = Frames::new(segment.clone(), base, end);
    let mut events_end = base;
    loop {
        match frames.next() {
            Ok(Some((frame, _))) if frame.kind == Kind::Seal => {}
            Ok(Some((frame, _))) => events_end = frame.end(),
            Ok(None) => return Ok(events_end),
            Err(Unread::NoFrame(at)) => return Err(damaged_until(&segment, &setting.source, at, end)),
            Err(Unread::Io(error)) => {
                return Err(judge(format!("reading `{}`", segment.path.display()), error));
            }
        }
    }
}
