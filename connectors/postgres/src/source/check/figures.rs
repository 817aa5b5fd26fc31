//! Numbers as people read them. Pure.

use std::time::Duration;

/// `8 KiB`, `1.2 GiB`.
pub(in crate::source) fn size(bytes: u64) -> String {
    const UNITS: [&str; 6] = ["B", "KiB", "MiB", "GiB", "TiB", "PiB"];
    let mut unit = 0;
    let mut tenths = u128::from(bytes) * 10;
    // 1023.96 KiB would be written as 1024 KiB
    while tenths >= 10_235 && unit + 1 < UNITS.len() {
        tenths = (tenths + 512) / 1024;
        unit += 1;
    }
    match (tenths, unit) {
        (tenths, 1..) if tenths < 100 && tenths % 10 > 0 => {
            format!("{}.{} {}", tenths / 10, tenths % 10, UNITS[unit])
        }
        (tenths, unit) => format!("{} {}", (tenths + 5) / 10, UNITS[unit]),
    }
}

/// `1,234,567`.
pub(in crate::source) fn count(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::new();
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// `40 s`, `3 min`, `5 h`, `12 days`: the largest unit of which there are two.
pub(in crate::source) fn span(length: Duration) -> String {
    let seconds = length.as_secs();
    match seconds {
        0..120 => format!("{seconds} s"),
        120..7_200 => format!("{} min", seconds / 60),
        7_200..172_800 => format!("{} h", seconds / 3_600),
        _ => format!("{} days", count(seconds / 86_400)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn figures_are_written_as_people_read_them() {
        let sizes = [0, 1023, 1024, 8192, 1_258_291, 1 << 20, 325_058_560, 1 << 40, u64::MAX].map(size);
        let expected =
            ["0 B", "1023 B", "1 KiB", "8 KiB", "1.2 MiB", "1 MiB", "310 MiB", "1 TiB", "16384 PiB"];
        assert_eq!(sizes, expected);
        assert_eq!([0, 999, 1_000, 1_234_567].map(count), ["0", "999", "1,000", "1,234,567"]);
        let spans = [0, 119, 120, 7_199, 7_200, 172_799, 172_800];
        let expected = ["0 s", "119 s", "2 min", "119 min", "2 h", "47 h", "2 days"];
        assert_eq!(spans.map(|s| span(Duration::from_secs(s))), expected);
    }
}
