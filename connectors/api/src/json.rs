//! Writing JSON straight to bytes, for what is written once per row: no tree, no allocation.

/// Appends `text` as a JSON string, quotes included (RFC 8259 §7): `"`, `\` and control characters are escaped,
/// everything else stays as it is.
pub fn write_string(text: &str, out: &mut Vec<u8>) {
    out.push(b'"');
    write_escaped(text.as_bytes(), out);
    out.push(b'"');
}

/// Appends the inside of a JSON string. `utf8` must be valid UTF-8, which the caller knows from its source.
pub fn write_escaped(utf8: &[u8], out: &mut Vec<u8>) {
    // The usual case, in a form that the compiler turns into vector instructions.
    if !utf8.iter().fold(false, |found, &byte| found | (byte < 0x20) | (byte == b'"') | (byte == b'\\')) {
        return out.extend_from_slice(utf8);
    }
    out.reserve(utf8.len());
    let mut clean = 0;
    for (at, &byte) in utf8.iter().enumerate() {
        if !ESCAPED[byte as usize] {
            continue;
        }
        out.extend_from_slice(&utf8[clean..at]);
        clean = at + 1;
        match byte {
            b'"' => out.extend_from_slice(b"\\\""),
            b'\\' => out.extend_from_slice(b"\\\\"),
            b'\n' => out.extend_from_slice(b"\\n"),
            b'\r' => out.extend_from_slice(b"\\r"),
            b'\t' => out.extend_from_slice(b"\\t"),
            0x08 => out.extend_from_slice(b"\\b"),
            0x0c => out.extend_from_slice(b"\\f"),
            control => {
                const HEX: &[u8; 16] = b"0123456789abcdef";
                out.extend_from_slice(b"\\u00");
                out.push(HEX[(control >> 4) as usize]);
                out.push(HEX[(control & 0xf) as usize]);
            }
        }
    }
    out.extend_from_slice(&utf8[clean..]);
}

/// Which bytes RFC 8259 wants escaped inside a string.
const ESCAPED: [bool; 256] = {
    let mut table = [false; 256];
    let mut control = 0;
    while control < 0x20 {
        table[control] = true;
        control += 1;
    }
    table[b'"' as usize] = true;
    table[b'\\' as usize] = true;
    table
};

/// The length of [`write_time`]'s text inside its quotes, for the years 0001 to 9999.
pub const TIME_LEN: usize = 27;

/// Appends microseconds since the Unix epoch as an RFC 3339 string with quotes: `"2026-11-22T18:34:00.123456Z"`.
/// Years outside 0000–9999 take ISO 8601's sign and six digits.
pub fn write_time(micros: i64, out: &mut Vec<u8>) {
    const DAY: i64 = 86_400_000_000;
    let (days, rest) = (micros.div_euclid(DAY), micros.rem_euclid(DAY));
    let (year, month, day) = civil(days);
    let seconds = rest / 1_000_000;
    out.push(b'"');
    if (0..=9999).contains(&year) {
        two(year / 100, out);
        two(year % 100, out);
    } else {
        out.push(if year < 0 { b'-' } else { b'+' });
        let year = year.abs();
        two(year / 10_000, out);
        two(year / 100 % 100, out);
        two(year % 100, out);
    }
    for (separator, value) in
        [(b'-', month), (b'-', day), (b'T', seconds / 3600), (b':', seconds / 60 % 60), (b':', seconds % 60)]
    {
        out.push(separator);
        two(value, out);
    }
    out.push(b'.');
    let fraction = rest % 1_000_000;
    two(fraction / 10_000, out);
    two(fraction / 100 % 100, out);
    two(fraction % 100, out);
    out.extend_from_slice(b"Z\"");
}

/// Days since 1970-01-01 to a proleptic Gregorian date (Howard Hinnant's `civil_from_days`).
fn civil(days: i64) -> (i64, i64, i64) {
    let z = days + 719_468;
    let era = z.div_euclid(146_097);
    let day_of_era = z.rem_euclid(146_097);
    let year_of_era = (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let shifted = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * shifted + 2) / 5 + 1;
    let month = if shifted < 10 { shifted + 3 } else { shifted - 9 };
    (year_of_era + era * 400 + i64::from(month <= 2), month, day)
}

/// Appends a number below 100 as two digits.
fn two(value: i64, out: &mut Vec<u8>) {
    const PAIRS: [[u8; 2]; 100] = {
        let mut pairs = [[b'0'; 2]; 100];
        let mut n = 0u8;
        while n < 100 {
            pairs[n as usize] = [b'0' + n / 10, b'0' + n % 10];
            n += 1;
        }
        pairs
    };
    out.extend_from_slice(&PAIRS[usize::try_from(value).expect("dates and times have no negative parts")]);
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn any_text_comes_back_through_a_json_parser(text in any::<String>()) {
            let mut out = Vec::new();
            write_string(&text, &mut out);
            prop_assert_eq!(serde_json::from_slice::<String>(&out).unwrap(), text);
        }

        #[test]
        fn times_grow_with_their_text(a in 0i64..250_000_000_000_000_000, b in 0i64..250_000_000_000_000_000) {
            let text = |micros| { let mut out = Vec::new(); write_time(micros, &mut out); out };
            prop_assert_eq!(text(a).cmp(&text(b)), a.cmp(&b));
            prop_assert_eq!(text(a).len(), TIME_LEN + 2);
        }
    }

    #[test]
    fn known_times_are_written_as_rfc_3339_says() {
        for (micros, text) in [
            (0, "1970-01-01T00:00:00.000000Z"),
            (951_782_400_000_001, "2000-02-29T00:00:00.000001Z"),
            (1_795_372_440_123_456, "2026-11-22T18:34:00.123456Z"),
            (-1, "1969-12-31T23:59:59.999999Z"),
            (-62_167_219_200_000_001, "-000001-12-31T23:59:59.999999Z"),
            (253_402_300_800_000_000, "+010000-01-01T00:00:00.000000Z"),
        ] {
            let mut out = Vec::new();
            write_time(micros, &mut out);
            assert_eq!(String::from_utf8(out).unwrap(), format!("\"{text}\""));
        }
    }
}
