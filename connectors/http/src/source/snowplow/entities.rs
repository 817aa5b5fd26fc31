//! Self-describing JSON: data that names its schema.

use std::borrow::Cow;
use std::fmt;

use forebay_api::SchemaKey;
use serde::de::{Deserializer, Visitor};
use serde::{Deserialize, de};
use serde_json::value::RawValue;

use crate::source::text::decode_base64;

/// How deep JSON may be nested: what reads it later must not run out of stack.
const MAX_DEPTH: usize = 64;

/// `{"schema": "iglu:…", "data": …}`, and nothing else in it.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct SelfDescribing<'a> {
    /// The key of the schema, as it was written.
    #[serde(borrow)]
    pub schema: Text<'a>,
    /// The data, not looked into.
    #[serde(borrow)]
    pub data: &'a RawValue,
}

impl SelfDescribing<'_> {
    /// The key of its schema.
    pub(super) fn key(&self) -> Result<SchemaKey, String> {
        self.schema.0.parse().map_err(|error| format!("{error}"))
    }
}

/// A string, borrowed where it has no escapes.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Text<'a>(pub Cow<'a, str>);

impl<'de: 'a, 'a> Deserialize<'de> for Text<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Text<'a>, D::Error> {
        struct Borrowing;
        impl<'de> Visitor<'de> for Borrowing {
            type Value = Cow<'de, str>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a string")
            }

            fn visit_borrowed_str<E: de::Error>(self, text: &'de str) -> Result<Cow<'de, str>, E> {
                Ok(Cow::Borrowed(text))
            }

            fn visit_str<E: de::Error>(self, text: &str) -> Result<Cow<'de, str>, E> {
                Ok(Cow::Owned(text.to_owned()))
            }
        }
        deserializer.deserialize_str(Borrowing).map(Text)
    }
}

/// The text of one of two parameters, the first of which is base64. `None`: neither is given.
pub(super) fn either<'p>(
    (encoded_name, encoded): (&str, Option<&str>),
    (plain_name, plain): (&str, Option<&'p str>),
) -> Result<Option<Cow<'p, str>>, String> {
    match (encoded, plain) {
        (Some(_), Some(_)) => Err(format!("`{encoded_name}` and `{plain_name}` are both given")),
        (None, plain) => Ok(plain.map(Cow::Borrowed)),
        (Some(encoded), None) => {
            // A form decodes the `+` of an alphabet to a space.
            let encoded =
                if encoded.contains(' ') { encoded.replace(' ', "+").into() } else { Cow::Borrowed(encoded) };
            let bytes = decode_base64(&encoded).map_err(|error| error.to_string())?;
            let text = String::from_utf8(bytes)
                .map_err(|error| format!("what base64 holds is not UTF-8: {}", error.utf8_error()))?;
            Ok(Some(Cow::Owned(text)))
        }
    }
}

/// What is inside of a self-describing JSON whose schema must be a certain one.
pub(super) fn opened<'a>(json: &'a str, name: &str) -> Result<&'a RawValue, String> {
    let outer: SelfDescribing<'a> = serde_json::from_str(json).map_err(|error| error.to_string())?;
    let key = outer.key()?;
    if (key.vendor(), key.name()) != ("com.snowplowanalytics.snowplow", name)
        || !key.version().starts_with("1-0-")
    {
        return Err(format!(
            "it is of schema `{key}`, and not `iglu:com.snowplowanalytics.snowplow/{name}/jsonschema/1-0-*`"
        ));
    }
    Ok(outer.data)
}

/// One self-describing JSON.
pub(super) fn described<'a>(json: &'a str) -> Result<(SchemaKey, &'a str), String> {
    let described: SelfDescribing<'a> = serde_json::from_str(json).map_err(|error| error.to_string())?;
    let data = described.data.get();
    if !is_shallow(data) {
        return Err(format!("its data is nested deeper than {MAX_DEPTH} levels"));
    }
    Ok((described.key()?, data))
}

/// Appends an entity to an array that is not closed yet.
pub(super) fn push_entity(entities: &mut Vec<u8>, schema: &str, data: &[u8]) {
    entities.extend_from_slice(if entities.len() > 1 { b",{\"schema\":\"" } else { b"{\"schema\":\"" });
    // Keys have no character that would have to be escaped.
    entities.extend_from_slice(schema.as_bytes());
    entities.extend_from_slice(b"\",\"data\":");
    entities.extend_from_slice(data);
    entities.push(b'}');
}

/// Whether JSON is not nested too deep. It must be JSON.
pub(super) fn is_shallow(json: &str) -> bool {
    let (mut depth, mut in_string, mut escaped) = (0usize, false, false);
    for byte in json.bytes() {
        match byte {
            _ if escaped => escaped = false,
            b'\\' if in_string => escaped = true,
            b'"' => in_string = !in_string,
            _ if in_string => {}
            b'{' | b'[' => {
                depth += 1;
                if depth > MAX_DEPTH {
                    return false;
                }
            }
            b'}' | b']' => depth = depth.saturating_sub(1),
            _ => {}
        }
    }
    true
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn depth_is_counted_outside_of_strings() {
        let deep = |n: usize| format!("{}{}", "[".repeat(n), "]".repeat(n));
        assert!(is_shallow(&deep(64)) && !is_shallow(&deep(65)));
        assert!(is_shallow(&format!("\"{}\"", "[".repeat(1000))));
        assert!(is_shallow(&format!("{{\"a\\\"{}\":1}}", "[".repeat(1000))));
        assert!(is_shallow(&"[],".repeat(1000)));
    }

    #[test]
    fn base64_of_a_form_may_have_lost_its_plus() {
        let both = either(("cx", Some("Pj4 Pz8/")), ("co", None)).unwrap();
        assert_eq!(both.as_deref(), Some(">>>???"));
        assert!(either(("cx", Some("e30=")), ("co", Some("{}"))).unwrap_err().contains("`cx` and `co`"));
        assert!(either(("cx", Some("/w==")), ("co", None)).unwrap_err().contains("not UTF-8"));
    }
}
