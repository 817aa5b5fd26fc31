//! [`Pace`]: lets messages gather in the socket while a stream is busy.
//!
//! The server sends one message per row, and a reader that wakes for each costs both sides most of their time in
//! the kernel. A short sleep before each read of a busy stream lets some hundreds arrive together: the slower the
//! stream, the longer, within a millisecond. A stream that is not busy never sleeps, so latency is unchanged.

use std::time::Duration;

use tokio::time::Instant;

/// How long bytes are counted before the stream is judged anew.
const WINDOW: Duration = Duration::from_millis(1);

/// From 4 MB/s on a stream is busy; in bytes per microsecond.
const BUSY_BYTES_PER_MICROSECOND: u128 = 4;

/// How much may gather: half of what a kernel lets a server send ahead on a fresh connection, so that it never waits.
const GATHER_BYTES: u128 = 32 * 1024;

/// The least and the most time to gather. With 256 KiB to read into, the least keeps up with 1 GB/s.
const GATHER: std::ops::RangeInclusive<Duration> = Duration::from_micros(200)..=Duration::from_millis(1);

/// Judges how busy a stream is.
#[derive(Debug)]
pub(super) struct Pace {
    /// When the window began.
    since: Instant,
    /// What came in it.
    bytes: usize,
    /// The judgement of the window before: how long to gather, if the stream was busy.
    pause: Option<Duration>,
    /// When anything came last.
    heard: Instant,
}

impl Pace {
    pub(super) fn new() -> Pace {
        let now = Instant::now();
        Pace { since: now, bytes: 0, pause: None, heard: now }
    }

    /// To be called before each read that would not block; sleeps where that pays.
    pub(super) fn gather(&mut self) {
        if let Some(pause) = self.judge(Instant::now()) {
            std::thread::sleep(pause);
        }
    }

    /// To be called after each read that brought something.
    pub(super) fn came(&mut self, bytes: usize) {
        self.bytes += bytes;
        self.heard = Instant::now();
    }

    /// How long nothing came.
    pub(super) fn quiet(&self) -> Duration {
        self.heard.elapsed()
    }

    fn judge(&mut self, now: Instant) -> Option<Duration> {
        let passed = now - self.since;
        if passed >= WINDOW {
            self.pause = pause(self.bytes as u128, passed.as_micros());
            self.since = now;
            self.bytes = 0;
        }
        self.pause
    }
}

/// How long to gather in a stream that brought so many bytes in so many microseconds.
fn pause(bytes: u128, micros: u128) -> Option<Duration> {
    if bytes < BUSY_BYTES_PER_MICROSECOND * micros {
        return None;
    }
    let pause = u64::try_from(GATHER_BYTES * micros / bytes).map_or(*GATHER.end(), Duration::from_micros);
    Some(pause.clamp(*GATHER.start(), *GATHER.end()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_busy_stream_is_made_to_gather() {
        let mut pace = Pace::new();
        let start = pace.since;
        let at = |micros| start + Duration::from_micros(micros);
        pace.came(3_000);
        assert_eq!(pace.judge(at(1_000)), None, "3 MB/s is not busy");
        pace.came(100_000);
        assert_eq!(pace.judge(at(1_900)), None, "the window is not over");
        assert!(pace.judge(at(2_000)).is_some());
        pace.came(4_000);
        assert!(pace.judge(at(3_000)).is_some(), "4 MB/s is busy");
        assert_eq!(pace.judge(at(4_000)), None, "nothing came");
    }

    #[test]
    fn the_slower_a_busy_stream_the_longer_it_gathers_within_bounds() {
        let micros =
            |bytes_per_microsecond: u128| pause(bytes_per_microsecond * 1_000, 1_000).unwrap().as_micros();
        assert_eq!(micros(4), 1_000, "never longer than a millisecond");
        assert_eq!(micros(64), 512, "32 KiB at 64 MB/s");
        assert_eq!(micros(1_000), 200, "never shorter than the sleep is worth");
    }
}
