//! PostgreSQL's clock: microseconds since 2000. Pure.

use std::time::{SystemTime, UNIX_EPOCH};

/// Microseconds from 1970 to 2000, when PostgreSQL's time begins.
const EPOCH: i64 = 946_684_800_000_000;

/// Microseconds since 1970 of a time on the wire; times beyond what fits (no server sends any) stop at the end.
pub fn unix_micros(server: i64) -> i64 {
    server.saturating_add(EPOCH)
}

/// The other way round, for what we tell the server.
pub(crate) fn server_clock(now: SystemTime) -> i64 {
    let since_1970 = now.duration_since(UNIX_EPOCH).map_or(0, |passed| passed.as_micros());
    i64::try_from(since_1970).map_or(i64::MAX, |micros| micros - EPOCH)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn both_directions_agree() {
        let now = UNIX_EPOCH + Duration::from_micros(1_700_000_000_123_456);
        assert_eq!(unix_micros(server_clock(now)), 1_700_000_000_123_456);
        assert_eq!(unix_micros(0), EPOCH);
        assert_eq!(unix_micros(i64::MAX), i64::MAX);
    }
}
