//! Reads `Retry-After`: seconds, or a date of HTTP.

use std::time::Duration;

use jiff::Timestamp;
use jiff::civil::DateTime;
use jiff::tz::TimeZone;

/// A receiver that wants to be left alone for longer is asked again after this: a slip of its clock must not stop the
/// stream for a day.
pub(crate) const LONGEST: Duration = Duration::from_secs(300);

/// How long to wait, at most [`LONGEST`]; `None` where the text says nothing that we understand.
pub(crate) fn read(text: &str, now: Timestamp) -> Option<Duration> {
    let text = text.trim();
    if !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit()) {
        // More digits than a number has are a long time all the same.
        return Some(text.parse().map_or(LONGEST, Duration::from_secs).min(LONGEST));
    }
    let date = DateTime::strptime("%a, %d %b %Y %H:%M:%S GMT", text).ok()?;
    let then = date.to_zoned(TimeZone::UTC).ok()?.timestamp();
    // A time that is over means at once.
    Some(Duration::try_from(then.duration_since(now)).unwrap_or_default().min(LONGEST))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read_at_noon(text: &str) -> Option<u64> {
        let now = "2026-11-25T12:00:00Z".parse().unwrap();
        read(text, now).map(|wait| wait.as_secs())
    }

    #[test]
    fn seconds_and_dates_are_understood() {
        assert_eq!(read_at_noon("0"), Some(0));
        assert_eq!(read_at_noon(" 17 "), Some(17));
        assert_eq!(read_at_noon("Wed, 25 Nov 2026 12:00:42 GMT"), Some(42));
        assert_eq!(read_at_noon("Wed, 25 Nov 2026 11:00:00 GMT"), Some(0));
    }

    #[test]
    fn no_receiver_stops_the_stream_for_long() {
        assert_eq!(read_at_noon("86400"), Some(300));
        assert_eq!(read_at_noon("99999999999999999999999999"), Some(300));
        assert_eq!(read_at_noon("Thu, 25 Nov 2027 12:00:00 GMT"), Some(300));
    }

    #[test]
    fn what_is_not_understood_is_nothing() {
        for text in ["", "soon", "-5", "1.5", "2026-11-25T12:00:42Z", "Wed, 25 Nov 2026"] {
            assert_eq!(read_at_noon(text), None, "{text}");
        }
    }
}
