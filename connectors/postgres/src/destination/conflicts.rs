//! Events that came under an id that is stored with another body.
//!
//! Where senders choose ids, two events may share one. The first stays; the others are not kept, so they are counted and
//! told, at most once in a while, for a sender who errs errs often.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use tokio::time::Instant;
use tracing::warn;

/// The least time between two warnings.
const TELL_EVERY: Duration = Duration::from_secs(60);

/// What was counted.
#[derive(Debug, Default)]
pub(super) struct Conflicts(Mutex<Counted>);

#[derive(Debug, Default)]
struct Counted {
    /// Since the start.
    total: i64,
    /// Since the last warning.
    untold: i64,
    told: Option<Instant>,
}

impl Conflicts {
    /// Counts `count` more, of which `first` is one.
    pub(super) fn count(&self, table: &str, count: i64, first: &str) {
        if count == 0 {
            return;
        }
        let Some((untold, total)) = self.to_tell(count, Instant::now()) else { return };
        warn!(
            table,
            events = untold,
            total,
            first,
            "events came under an id that is stored with another body; the first is kept"
        );
    }

    /// What a warning would say, when one is due.
    fn to_tell(&self, count: i64, now: Instant) -> Option<(i64, i64)> {
        let mut counted = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        counted.total += count;
        counted.untold += count;
        if counted.told.is_some_and(|told| now < told + TELL_EVERY) {
            return None;
        }
        counted.told = Some(now);
        Some((std::mem::take(&mut counted.untold), counted.total))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_warning_tells_of_all_since_the_last() {
        let (conflicts, start) = (Conflicts::default(), Instant::now());
        assert_eq!(conflicts.to_tell(2, start), Some((2, 2)));
        assert_eq!(conflicts.to_tell(3, start), None);
        assert_eq!(conflicts.to_tell(1, start + TELL_EVERY), Some((4, 6)));
    }
}
