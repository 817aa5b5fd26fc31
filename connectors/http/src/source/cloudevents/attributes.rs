//! [`Attributes`]: what a CloudEvent says of itself.

use std::borrow::Cow;

use forebay_api::{Invalid, SchemaKey};
use jiff::Timestamp;
use serde_json::value::RawValue;

use crate::source::entities::key;
use crate::source::json;
use crate::source::object::Object;
use crate::source::text::short;
use crate::source::unreadable::because;

/// How many attributes an event may have.
const MAX_ATTRIBUTES: usize = 128;

/// The value of an attribute.
#[derive(Clone, Debug)]
pub(super) enum Scalar<'s> {
    /// A string, and whatever is written as one.
    Text(Cow<'s, str>),
    /// A number or a boolean, as it was written.
    Bare(&'s str),
}

impl<'s> Scalar<'s> {
    /// A string, number or boolean; nothing else can be an attribute.
    pub(super) fn of_json(value: &'s RawValue) -> Result<Scalar<'s>, Invalid> {
        match value.get().as_bytes().first() {
            Some(b'{' | b'[') => {
                let message =
                    format!("attributes are strings, numbers or booleans, one is {}", json::kind(value));
                Err(because("invalid_envelope", message))
            }
            _ => Ok(json::string(value).map_or(Scalar::Bare(value.get()), Scalar::Text)),
        }
    }
}

/// The attributes of one event, in the order in which they came.
#[derive(Debug, Default)]
pub(super) struct Attributes<'a>(Vec<(Cow<'a, str>, Scalar<'a>)>);

/// What the collector reads from them.
#[derive(Debug)]
pub(super) struct Known<'k> {
    /// Unique together with `source`.
    pub(super) id: &'k str,
    /// Who tells.
    pub(super) source: &'k str,
    /// When it happened: microseconds since the Unix epoch.
    pub(super) time: Option<i64>,
    /// What `dataschema` names, or why that is no schema of a registry.
    pub(super) schema: Option<Result<SchemaKey, Invalid>>,
}

impl<'a> Attributes<'a> {
    /// Adds one.
    pub(super) fn set(&mut self, name: Cow<'a, str>, value: Scalar<'a>) -> Result<(), Invalid> {
        let wrong = |message: String| Err(because("invalid_envelope", message));
        if name.is_empty() || !name.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit()) {
            return wrong(format!(
                "`{}` cannot be the name of an attribute: it may have lowercase letters and digits alone",
                short(&name)
            ));
        }
        if self.0.len() == MAX_ATTRIBUTES {
            return wrong(format!("it has more than {MAX_ATTRIBUTES} attributes"));
        }
        self.0.push((name, value));
        Ok(())
    }

    /// Whether there are none.
    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The text of one.
    pub(super) fn get(&self, name: &str) -> Option<&str> {
        self.0.iter().find(|(known, _)| known == name).and_then(|(_, value)| match value {
            Scalar::Text(text) => Some(&**text),
            Scalar::Bare(_) => None,
        })
    }

    /// Checks what the specification asks of those it defines.
    pub(super) fn check(&self) -> Result<Known<'_>, Invalid> {
        let wrong = |message: String| because("invalid_envelope", message);
        for name in
            ["specversion", "id", "source", "type", "subject", "datacontenttype", "dataschema", "time"]
        {
            let value = self.0.iter().find(|(known, _)| known == name).map(|(_, value)| value);
            match value {
                None if matches!(name, "specversion" | "id" | "source" | "type") => {
                    return Err(wrong(format!("the attribute `{name}` is missing")));
                }
                None => {}
                Some(Scalar::Bare(bare)) => {
                    return Err(wrong(format!("the attribute `{name}` is `{}`, not a string", short(bare))));
                }
                Some(Scalar::Text(text)) if text.is_empty() => {
                    return Err(wrong(format!("the attribute `{name}` is empty")));
                }
                Some(Scalar::Text(_)) => {}
            }
        }
        let text = |name| self.get(name).expect("required attributes are strings, as was seen above");
        if text("specversion") != "1.0" {
            let message = format!("`specversion` is `{}`, only `1.0` is read", short(text("specversion")));
            return Err(wrong(message));
        }
        let time = self.get("time").map(|time| {
            micros(time).ok_or_else(|| {
                let time = short(time);
                wrong(format!("`time` is `{time}`, not a time such as `2026-11-22T18:34:00.123Z` (RFC 3339)"))
            })
        });
        Ok(Known {
            id: text("id"),
            source: text("source"),
            time: time.transpose()?,
            schema: self.get("dataschema").map(schema),
        })
    }

    /// The data of the entity with them. `is_base64` says that the payload is a string of base64.
    pub(super) fn to_json(&self, is_base64: bool) -> Vec<u8> {
        let mut object = Object::default();
        for (name, value) in &self.0 {
            match value {
                Scalar::Text(text) => object.push_string(name, text),
                Scalar::Bare(bare) => object.push(name, bare.as_bytes()),
            }
        }
        if is_base64 {
            object.push("data_base64", b"true");
        }
        object.finish()
    }
}

/// The key that `dataschema` names: `iglu:…`, the key alone, or the address of a registry that serves it below `/s/`.
fn schema(uri: &str) -> Result<SchemaKey, Invalid> {
    let lower = uri.get(..8).unwrap_or(uri).to_ascii_lowercase();
    if !lower.starts_with("https://") && !lower.starts_with("http://") {
        return key(uri);
    }
    let (_, rest) = uri.split_once("://").expect("it begins with a scheme");
    let named = rest.split_once('/').and_then(|(_, path)| path.strip_prefix("s/"));
    named.and_then(|named| named.parse().ok()).ok_or_else(|| {
        let uri = short(uri);
        let message = format!(
            "`dataschema` is `{uri}`, which does not end in `/s/` and a key such as `com.acme/order/1-0-0`"
        );
        because("invalid_schema_key", message)
    })
}

/// Microseconds since the Unix epoch of a time as RFC 3339 writes it. What is finer than that stays in the attribute.
fn micros(text: &str) -> Option<i64> {
    let (date, rest) = text.split_at_checked(10)?;
    let digits = |text: &str, shape: &[u8]| {
        text.len() == shape.len()
            && text.bytes().zip(shape).all(|(byte, &wanted)| match wanted {
                b'0' => byte.is_ascii_digit(),
                other => byte == other,
            })
    };
    let (separator, rest) = rest.split_at_checked(1)?;
    let (time, rest) = rest.split_at_checked(8)?;
    let (fraction, offset) = match rest.strip_prefix('.') {
        None => (None, rest),
        Some(rest) => {
            let end = rest.find(|char: char| !char.is_ascii_digit())?;
            (Some(&rest[..end]), &rest[end..])
        }
    };
    let shaped = digits(date, b"0000-00-00")
        && matches!(separator, "T" | "t" | " ")
        && digits(time, b"00:00:00")
        && fraction.is_none_or(|digits| !digits.is_empty())
        && (matches!(offset, "Z" | "z") || digits(offset, b"+00:00") || digits(offset, b"-00:00"));
    // jiff reads nine digits of a fraction.
    let fraction = fraction.map_or("0", |digits| &digits[..digits.len().min(9)]);
    let whole = shaped.then(|| format!("{date}T{time}.{fraction}{offset}"))?;
    let micros = whole.parse::<Timestamp>().ok()?.as_microsecond();
    // An offset can lead out of the years that the envelope can write.
    const YEARS: std::ops::Range<i64> = -62_167_219_200_000_000..253_402_300_800_000_000;
    YEARS.contains(&micros).then_some(micros)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn times_are_read_as_rfc_3339_writes_them_and_not_otherwise() {
        for (text, expected) in [
            ("2026-11-22T18:34:00.123456Z", Some(1_795_372_440_123_456)),
            ("2026-11-22T18:34:00.123456999999999Z", Some(1_795_372_440_123_456)),
            ("2026-11-22t18:34:00z", Some(1_795_372_440_000_000)),
            ("2026-11-22 20:34:00+02:00", Some(1_795_372_440_000_000)),
            ("1969-12-31T23:59:59.999999-00:00", Some(-1)),
            ("2016-12-31T23:59:60Z", Some(1_483_228_799_000_000)),
            ("2024-01-02T03:04:05", None),
            ("2024-01-02T03:04Z", None),
            ("2024-01-02", None),
            ("2024-02-30T00:00:00Z", None),
            ("2024-01-02T25:00:00Z", None),
            ("2024-01-02T03:04:05.Z", None),
            ("2024-01-02T03:04:05+0200", None),
            ("2024-01-02T03:04:05Z[UTC]", None),
            ("0000-01-01T00:00:00+23:59", None),
            ("9999-12-31T23:59:59-23:59", None),
            ("1795372440", None),
            ("２０２４-01-02T03:04:05Z", None),
            ("", None),
        ] {
            assert_eq!(micros(text), expected, "{text}");
        }
    }

    #[test]
    fn a_schema_is_taken_from_its_address_and_never_fetched() {
        for (uri, named) in [
            ("iglu:com.acme/ev/jsonschema/1-0-0", Some("com.acme/ev/1-0-0")),
            ("com.acme/ev/1-0-0", Some("com.acme/ev/1-0-0")),
            ("https://reg.example/s/a/b/v1.0.json", Some("a/b/v1.0")),
            ("HTTPS://reg.example:8443/s/a/b/1-0-0", Some("a/b/1-0-0")),
            ("http://10.0.0.1/s/a/b/1-0-0", Some("a/b/1-0-0")),
            ("https://reg.example/s/a/../1-0-0", None),
            ("https://reg.example/s/https://x/a/b/1-0-0", None),
            ("https://reg.example/s/a/b/1-0-0?x", None),
            ("https://reg.example/schemas/a/b/1-0-0", None),
            ("https://reg.example/s/", None),
            ("https:///s/a/b/1-0-0", Some("a/b/1-0-0")),
            ("file:///s/a/b/1-0-0", None),
            ("urn:a:b", None),
        ] {
            assert_eq!(schema(uri).ok().as_ref().map(SchemaKey::as_str), named, "{uri}");
        }
    }

    proptest! {
        #[test]
        fn any_text_is_a_time_or_none(text in "[0-9TtZz:+. -]{0,40}|\\PC*") {
            let _ = (micros(&text), schema(&text));
        }
    }
}
