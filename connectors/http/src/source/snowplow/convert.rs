//! From a parameter's text to the JSON of its field. What is not what it should be is an error, never a default.

use std::net::IpAddr;

use forebay_api::json;

use super::parameters::{Kind, PLATFORMS, Parameter};
use super::url::Parts;
use crate::source::text::short;

/// The first and the last millisecond of the years 0001 to 9999.
const TIMES: std::ops::RangeInclusive<i64> = -62_135_596_800_000..=253_402_300_799_999;

/// Members of an object in the making.
#[derive(Debug)]
pub(super) struct Members {
    /// `{` and the members so far.
    pub json: Vec<u8>,
}

impl Default for Members {
    fn default() -> Members {
        Members { json: vec![b'{'] }
    }
}

impl Members {
    /// Begins a member; its value comes next.
    pub(super) fn key(&mut self, name: &str) {
        if self.json.len() > 1 {
            self.json.push(b',');
        }
        json::write_string(name, &mut self.json);
        self.json.push(b':');
    }

    /// A member that is text.
    pub(super) fn text(&mut self, name: &str, text: &str) {
        self.key(name);
        json::write_string(text, &mut self.json);
    }

    /// A member that is a whole number.
    pub(super) fn number(&mut self, name: &str, number: i64) {
        self.raw(name, itoa::Buffer::new().format(number));
    }

    /// A member that is JSON already.
    pub(super) fn raw(&mut self, name: &str, json: &str) {
        self.key(name);
        self.json.extend_from_slice(json.as_bytes());
    }

    /// The whole object.
    pub(super) fn finish(mut self) -> Vec<u8> {
        self.json.push(b'}');
        self.json
    }
}

/// Writes the fields of one parameter. The error says what its text is not.
pub(super) fn write(parameter: &Parameter, text: &str, members: &mut Members) -> Result<(), String> {
    let field = parameter.field;
    match parameter.kind {
        Kind::Text => members.text(field, text),
        Kind::Integer => members.number(field, integer(text)?),
        Kind::Number => members.raw(field, number(text)?),
        Kind::Flag => members.raw(field, flag(text)?),
        Kind::Time => {
            let micros = time(text)?;
            members.key(field);
            json::write_time(micros, &mut members.json);
        }
        Kind::Size(height) => {
            let (w, h) = size(text)?;
            members.number(field, w);
            members.number(height, h);
        }
        Kind::Url(prefix) => url((field, prefix), text, members)?,
        Kind::Platform if PLATFORMS.contains(&text) => members.text(field, text),
        Kind::Platform => return Err(format!("`{}` is not one of {}", short(text), PLATFORMS.join(", "))),
        Kind::Special => {}
    }
    Ok(())
}

fn integer(text: &str) -> Result<i64, String> {
    text.parse().map_err(|_| format!("`{}` is not a whole number of 64 bits", short(text)))
}

/// A JSON number that a double can hold, to the letter.
fn number(text: &str) -> Result<&str, String> {
    let refused = || format!("`{}` is not a number", short(text));
    let is_json =
        serde_json::from_str::<&serde_json::value::RawValue>(text).is_ok_and(|raw| raw.get() == text);
    if !is_json || !text.starts_with(|first: char| first == '-' || first.is_ascii_digit()) {
        return Err(refused());
    }
    match text.parse::<f64>() {
        Ok(value) if value.is_finite() => Ok(text),
        Ok(_) => Err(format!("`{}` is beyond what a double can hold", short(text))),
        Err(_) => Err(refused()),
    }
}

fn flag(text: &str) -> Result<&'static str, String> {
    match text {
        "1" | "true" => Ok("true"),
        "0" | "false" => Ok("false"),
        _ => Err(format!("`{}` is neither `1` nor `0`", short(text))),
    }
}

/// Milliseconds as text to microseconds.
pub(super) fn time(text: &str) -> Result<i64, String> {
    let millis: i64 = text.parse().map_err(|_| format!("`{}` is not a time in milliseconds", short(text)))?;
    if TIMES.contains(&millis) {
        Ok(millis * 1000)
    } else {
        Err(format!("{millis} ms is not in the years 1 to 9999"))
    }
}

fn size(text: &str) -> Result<(i64, i64), String> {
    let part = |text: &str| text.parse::<u32>().ok().filter(|_| text.as_bytes()[0] != b'+').map(i64::from);
    let parts = text.split_once('x').and_then(|(w, h)| Some((part(w)?, part(h)?)));
    parts.ok_or_else(|| format!("`{}` is not a width and a height such as `1920x1080`", short(text)))
}

/// An address.
pub(super) fn address(text: &str) -> Result<IpAddr, String> {
    text.parse().map_err(|_| format!("`{}` is not an IP address", short(text)))
}

fn url((field, prefix): (&str, &str), text: &str, members: &mut Members) -> Result<(), String> {
    let parts = Parts::of(text).map_err(|why| format!("`{}` is not a URL: {why}", short(text)))?;
    members.text(field, text);
    for (part, value) in [("scheme", parts.scheme), ("host", parts.host)] {
        if let Some(value) = value {
            members.text(&[prefix, part].concat(), value);
        }
    }
    if let Some(port) = parts.port {
        members.number(&[prefix, "port"].concat(), i64::from(port));
    }
    for (part, value) in [("path", parts.path), ("query", parts.query), ("fragment", parts.fragment)] {
        if let Some(value) = value {
            members.text(&[prefix, part].concat(), value);
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_keep_their_digits_and_what_is_no_number_is_refused() {
        for right in ["1.5", "-0", "0.10", "12345678901234567890.123456789", "1e5", "9007199254740993"] {
            assert_eq!(number(right), Ok(right));
        }
        for wrong in [
            "", "NaN", "Infinity", "1e999", "+1", "1.", ".5", "0x10", "1 ", " 1", "1,5", "true", "\"1\"",
            "[1]", "01",
        ] {
            assert!(number(wrong).is_err(), "{wrong:?}");
        }
    }

    #[test]
    fn times_flags_and_sizes_are_what_they_say_or_nothing() {
        assert_eq!(time("1795373460975"), Ok(1_795_373_460_975_000));
        assert_eq!(time("-1"), Ok(-1000));
        for wrong in ["", "x", "1.5", "1795373460975000000", "99999999999999999999", "2026-01-01"] {
            assert!(time(wrong).is_err(), "{wrong}");
        }
        assert_eq!((flag("1"), flag("0")), (Ok("true"), Ok("false")));
        assert!(flag("yes").is_err() && flag("").is_err());
        assert_eq!(size("100x200"), Ok((100, 200)));
        for wrong in ["", "x", "100", "100x", "x200", "-1x2", "1x2x3", "100X200", "+1x2", "99999999999x1"] {
            assert!(size(wrong).is_err(), "{wrong}");
        }
        assert!(integer("1.0").is_err() && integer("99999999999999999999").is_err());
    }
}
