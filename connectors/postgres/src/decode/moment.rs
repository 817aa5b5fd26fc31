//! Dates and timestamps: PostgreSQL's ISO style to ISO 8601, by patching bytes.

use std::io::Write;

use super::{NotA, plain};

pub(super) fn date(text: &[u8], out: &mut Vec<u8>) -> Result<(), NotA> {
    moment(text, Shape { time: false, zone: false }, out).ok_or(NotA("a date"))
}

pub(super) fn timestamp(text: &[u8], out: &mut Vec<u8>) -> Result<(), NotA> {
    moment(text, Shape { time: true, zone: false }, out).ok_or(NotA("a timestamp"))
}

pub(super) fn timestamptz(text: &[u8], out: &mut Vec<u8>) -> Result<(), NotA> {
    moment(text, Shape { time: true, zone: true }, out).ok_or(NotA("a timestamp with time zone in UTC"))
}

#[derive(Clone, Copy)]
struct Shape {
    time: bool,
    zone: bool,
}

/// `YYYY-MM-DD[ HH:MM:SS[.ffffff][+00]][ BC]`, with as many digits of the year as it needs.
fn moment(text: &[u8], shape: Shape, out: &mut Vec<u8>) -> Option<()> {
    if text == b"infinity" || text == b"-infinity" {
        plain(text, out);
        return Some(());
    }
    let (text, before_christ) = match text.strip_suffix(b" BC") {
        Some(text) => (text, true),
        None => (text, false),
    };
    let text = if shape.zone { text.strip_suffix(b"+00")? } else { text };
    let year_digits = memchr::memchr(b'-', text)?;
    let (year, rest) = text.split_at(year_digits);
    let well_formed = year_digits >= 4 && year.iter().all(u8::is_ascii_digit) && has_shape(rest, shape.time);
    if !well_formed {
        return None;
    }
    out.push(b'"');
    if year_digits == 4 && !before_christ {
        out.extend_from_slice(year);
    } else {
        extended_year(year, before_christ, out)?;
    }
    let date_ends = out.len() + MONTH_AND_DAY;
    out.extend_from_slice(rest);
    if shape.time {
        out[date_ends] = b'T';
    }
    if shape.zone {
        out.push(b'Z');
    }
    out.push(b'"');
    Some(())
}

/// The length of `-MM-DD`.
const MONTH_AND_DAY: usize = 6;

/// `-MM-DD`, and with a time ` HH:MM:SS` and any fraction.
fn has_shape(rest: &[u8], time: bool) -> bool {
    const DATE: &[u8] = b"-00-00";
    const DATE_AND_TIME: &[u8] = b"-00-00 00:00:00";
    let pattern = if time { DATE_AND_TIME } else { DATE };
    let Some((fixed, fraction)) = rest.split_at_checked(pattern.len()) else { return false };
    let matches =
        |(&byte, &like): (&u8, &u8)| if like == b'0' { byte.is_ascii_digit() } else { byte == like };
    let fraction_fits = match fraction {
        [] => true,
        [b'.', digits @ ..] => time && !digits.is_empty() && digits.iter().all(u8::is_ascii_digit),
        _ => false,
    };
    fraction_fits && fixed.iter().zip(pattern).all(matches)
}

/// ISO 8601 counts the year before 1 as 0, and wants a sign and six digits outside 0000 to 9999.
#[cold]
fn extended_year(digits: &[u8], before_christ: bool, out: &mut Vec<u8>) -> Option<()> {
    let year: u32 = std::str::from_utf8(digits).ok()?.parse().ok()?;
    let written = match (before_christ, year) {
        (true, 0) => return None,
        (true, 1) => write!(out, "0000"),
        (true, year) => write!(out, "-{:06}", year - 1),
        (false, year) => write!(out, "+{year:06}"),
    };
    written.ok()
}
