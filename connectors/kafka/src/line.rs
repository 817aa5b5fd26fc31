//! The deliveries of one stream stand in a line: once one of them has failed, none behind it may be written.
//!
//! A lane hands over several deliveries before it learns that the first one failed. Those that have not been queued by
//! then must not be, or their records would land before the ones that failed. Invariant: between a failure and the
//! moment in which no delivery of the stream is left, [`Turn::is_held_back`] is true for all of them. Then the lane,
//! which waits for all of them too, begins again with the one that failed.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use forebay_api::StreamId;

/// The lines of all streams that have a delivery here now; hence as many as there are lanes.
#[derive(Debug, Default)]
pub(crate) struct Lines(Mutex<HashMap<StreamId, Line>>);

#[derive(Debug, Default)]
struct Line {
    /// How many deliveries are in it.
    length: usize,
    /// Whether one of them has failed, or was dropped half-way.
    failed: Arc<AtomicBool>,
}

impl Lines {
    /// Takes the place behind all deliveries of this stream that were handed over before.
    pub(crate) fn enter(&self, stream: &StreamId) -> Turn<'_> {
        let mut lines = self.lock();
        let line = lines.entry(stream.clone()).or_default();
        line.length += 1;
        Turn { lines: self, stream: stream.clone(), failed: line.failed.clone(), done: false }
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<StreamId, Line>> {
        // A panic between two assignments of plain numbers is impossible, so what is inside is sound.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// One delivery's place in its line. Dropped before [`Turn::done`], it counts as failed: absence of an
/// acknowledgement is not one.
#[derive(Debug)]
pub(crate) struct Turn<'a> {
    lines: &'a Lines,
    stream: StreamId,
    failed: Arc<AtomicBool>,
    done: bool,
}

impl Turn<'_> {
    /// Whether a delivery of this line has failed, so that this one must not be queued.
    pub(crate) fn is_held_back(&self) -> bool {
        self.failed.load(Ordering::Acquire)
    }

    /// This delivery has failed and will be handed over again: whatever is behind it is held back from now on.
    pub(crate) fn fail(&self) {
        self.failed.store(true, Ordering::Release);
    }

    /// Where to tell of a failure as soon as it is known, before this delivery itself learns of it.
    pub(crate) fn failed(&self) -> Arc<AtomicBool> {
        self.failed.clone()
    }

    /// Every record of this delivery is settled.
    pub(crate) fn done(mut self) {
        self.done = true;
    }
}

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        if !self.done {
            self.fail();
        }
        let mut lines = self.lines.lock();
        let line = lines.get_mut(&self.stream).expect("a line is there as long as a delivery stands in it");
        line.length -= 1;
        if line.length == 0 {
            lines.remove(&self.stream);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stream(source: &str) -> StreamId {
        StreamId { source: source.into(), epoch: 1 }
    }

    #[test]
    fn a_failed_delivery_holds_back_all_of_its_stream_until_none_is_left() {
        let lines = Lines::default();
        let (first, second) = (lines.enter(&stream("a")), lines.enter(&stream("a")));
        assert!(!second.is_held_back());
        drop(first);
        let third = lines.enter(&stream("a"));
        assert!(second.is_held_back() && third.is_held_back());
        drop(second);
        assert!(third.is_held_back());
        drop(third);
        assert!(!lines.enter(&stream("a")).is_held_back());
    }

    #[test]
    fn a_failure_is_seen_before_the_failed_delivery_returns() {
        let lines = Lines::default();
        let (first, second) = (lines.enter(&stream("a")), lines.enter(&stream("a")));
        first.fail();
        assert!(second.is_held_back());
    }

    #[test]
    fn other_streams_and_successes_hold_nothing_back() {
        let lines = Lines::default();
        let (first, second, other) =
            (lines.enter(&stream("a")), lines.enter(&stream("a")), lines.enter(&stream("b")));
        first.done();
        assert!(!second.is_held_back());
        drop(second);
        assert!(!other.is_held_back());
        other.done();
        assert!(lines.lock().is_empty());
    }
}
