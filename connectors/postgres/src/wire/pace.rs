//! [`Pace`]: lets messages gather in the socket while a stream is busy.
//!
//! The server sends one message per row, and a reader that wakes for each costs both sides most of their time in
//! the kernel. A short sleep before each read of a busy stream lets some dozens arrive together. A stream that is not
//! busy never sleeps, so latency is unchanged.

use std::time::Duration;

use tokio::time::Instant;

/// How long bytes are counted before the stream is judged anew.
const WINDOW: Duration = Duration::from_millis(1);

/// From 8 MB/s on a stream is busy; in bytes per microsecond.
const BUSY_BYTES_PER_MICROSECOND: u128 = 8;

/// How long messages may gather; with 256 KiB to read into, this keeps up with 1 GB/s.
const GATHER: Duration = Duration::from_micros(200);

/// Judges how busy a stream is.
#[derive(Debug)]
pub(super) struct Pace {
    /// When the window began.
    since: Instant,
    /// What came in it.
    bytes: usize,
    /// The judgement of the window before.
    busy: bool,
    /// When anything came last.
    heard: Instant,
}

impl Pace {
    pub(super) fn new() -> Pace {
        let now = Instant::now();
        Pace { since: now, bytes: 0, busy: false, heard: now }
    }

    /// To be called before each read that would not block; sleeps where that pays.
    pub(super) fn gather(&mut self) {
        if self.judge(Instant::now()) {
            std::thread::sleep(GATHER);
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

    fn judge(&mut self, now: Instant) -> bool {
        let passed = now - self.since;
        if passed >= WINDOW {
            self.busy = self.bytes as u128 >= BUSY_BYTES_PER_MICROSECOND * passed.as_micros();
            self.since = now;
            self.bytes = 0;
        }
        self.busy
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_busy_stream_is_made_to_gather() {
        let mut pace = Pace::new();
        let start = pace.since;
        let at = |micros| start + Duration::from_micros(micros);
        pace.came(7_000);
        assert!(!pace.judge(at(1_000)), "7 MB/s is not busy");
        pace.came(100_000);
        assert!(!pace.judge(at(1_900)), "the window is not over");
        assert!(pace.judge(at(2_000)));
        pace.came(8_000);
        assert!(pace.judge(at(3_000)), "8 MB/s is busy");
        assert!(!pace.judge(at(4_000)), "nothing came");
    }
}
