//! JSON as senders write it: split, looked into and checked, never rebuilt. Values stay the bytes that came, so numbers
//! keep their digits.
//!
//! Nothing here recurses, so the depth of a text cannot exhaust the stack; [`check`] refuses what would exhaust that of
//! a reader after us.

use std::borrow::Cow;
use std::fmt;

use forebay_api::Invalid;
use serde::de::{Deserialize, Deserializer, Error, MapAccess, SeqAccess, Visitor};
use serde_json::value::RawValue;

use super::unreadable::because;

/// How deep a value may nest. Readers of the envelope, which adds a few levels, commonly stop at 128.
pub const MAX_DEPTH: usize = 100;

/// How many events a request may bring, and how many entities an event.
pub const MAX_ITEMS: usize = 10_000;

/// How many members an object may have that an input looks into; payloads are not looked into.
pub const MAX_MEMBERS: usize = 256;

/// The body as text.
pub fn text(body: &[u8]) -> Result<&str, Invalid> {
    if body.is_empty() {
        return Err(because("empty_body", "the body is empty"));
    }
    str::from_utf8(body).map_err(|error| {
        because("invalid_utf8", format!("the body is not UTF-8 from byte {} on", error.valid_up_to()))
    })
}

/// The one value that `text` is. It has yet to pass [`check`].
pub fn value(text: &str) -> Result<&RawValue, Invalid> {
    serde_json::from_str(text).map_err(not_json)
}

/// The values of an array, or the one value that is no array. They have yet to pass [`check`].
pub fn items(text: &str) -> Result<Vec<&RawValue>, Invalid> {
    if text.trim_ascii_start().starts_with('[') {
        let Items(items) = serde_json::from_str(text).map_err(not_json)?;
        return match items.len() {
            len if len > MAX_ITEMS => {
                let message = format!("the array has more than {MAX_ITEMS} items");
                Err(because("too_many_items", message))
            }
            _ => Ok(items),
        };
    }
    Ok(vec![value(text)?])
}

fn not_json(error: serde_json::Error) -> Invalid {
    because("invalid_json", format!("it is not JSON: {error}"))
}

/// Refuses what is JSON by its grammar and still not fit to be passed on: nested too deep, or with a `\u` escape that is
/// half of a character.
pub fn check(value: &RawValue) -> Result<(), Invalid> {
    let bytes = value.get().as_bytes();
    let (mut depth, mut at) = (0_usize, 0);
    while let Some(&byte) = bytes.get(at) {
        at += 1;
        match byte {
            b'{' | b'[' => {
                depth += 1;
                if depth > MAX_DEPTH {
                    let message = format!("it nests deeper than {MAX_DEPTH} levels at byte {}", at - 1);
                    return Err(because("too_deep", message));
                }
            }
            b'}' | b']' => depth -= 1,
            b'"' => at = end_of_string(bytes, at)?,
            _ => {}
        }
    }
    Ok(())
}

/// Where the string that began before `at` is over.
fn end_of_string(bytes: &[u8], mut at: usize) -> Result<usize, Invalid> {
    while let Some(found) = memchr::memchr2(b'"', b'\\', &bytes[at..]) {
        at += found;
        if bytes[at] == b'"' {
            return Ok(at + 1);
        }
        match escaped_unit(bytes, at) {
            None => at += 2,
            Some(0xD800..=0xDBFF) if matches!(escaped_unit(bytes, at + 6), Some(0xDC00..=0xDFFF)) => at += 12,
            Some(0xD800..=0xDFFF) => {
                let message = format!("the escape at byte {at} is half of a character");
                return Err(because("invalid_json", message));
            }
            Some(_) => at += 6,
        }
    }
    Ok(bytes.len())
}

/// The UTF-16 unit of the escape `\uXXXX` at `at`; `None` where there is another escape, or none.
fn escaped_unit(bytes: &[u8], at: usize) -> Option<u16> {
    let digits = bytes.get(at..at + 6)?.strip_prefix(b"\\u")?;
    u16::from_str_radix(str::from_utf8(digits).ok()?, 16).ok()
}

/// What a value is, in a message.
pub fn kind(value: &RawValue) -> &'static str {
    match value.get().as_bytes().first() {
        Some(b'{') => "an object",
        Some(b'[') => "an array",
        Some(b'"') => "a string",
        Some(b't' | b'f') => "a boolean",
        Some(b'n') => "null",
        _ => "a number",
    }
}

/// Whether the value is `null`.
pub fn is_null(value: &RawValue) -> bool {
    value.get() == "null"
}

/// The text of a string; `None` where it is no string.
pub fn string(value: &RawValue) -> Option<Cow<'_, str>> {
    let text = value.get();
    if !text.starts_with('"') {
        return None;
    }
    match text.contains('\\') {
        false => Some(Cow::Borrowed(&text[1..text.len() - 1])),
        true => serde_json::from_str(text).ok().map(Cow::Owned),
    }
}

/// The members of an object, in their order, each name once.
#[derive(Debug)]
pub struct Members<'m>(pub Vec<(Cow<'m, str>, &'m RawValue)>);

impl<'m> Members<'m> {
    /// Those of `value`, which `what` names in messages.
    pub fn of(what: &str, value: &'m RawValue) -> Result<Members<'m>, Invalid> {
        if !value.get().starts_with('{') {
            let message = format!("{what} is {}, not an object", kind(value));
            return Err(because("invalid_envelope", message));
        }
        serde_json::from_str(value.get())
            .map_err(|error| because("invalid_envelope", format!("{what} cannot be read: {error}")))
    }
}

impl<'de: 'm, 'm> Deserialize<'de> for Members<'m> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Members<'m>, D::Error> {
        struct Reader;
        impl<'de> Visitor<'de> for Reader {
            type Value = Members<'de>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Members<'de>, A::Error> {
                let mut members: Vec<(Cow<'de, str>, &'de RawValue)> = Vec::new();
                while let Some((Name(name), value)) = map.next_entry()? {
                    if members.iter().any(|(known, _)| *known == name) {
                        let name = super::text::short(&name);
                        return Err(A::Error::custom(format_args!("member `{name}` is there twice")));
                    }
                    if members.len() == MAX_MEMBERS {
                        return Err(A::Error::custom(format_args!("it has more than {MAX_MEMBERS} members")));
                    }
                    members.push((name, value));
                }
                Ok(Members(members))
            }
        }
        deserializer.deserialize_map(Reader)
    }
}

/// A member's name, borrowed where it has no escapes.
struct Name<'n>(Cow<'n, str>);

impl<'de: 'n, 'n> Deserialize<'de> for Name<'n> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Name<'n>, D::Error> {
        struct Reader;
        impl<'de> Visitor<'de> for Reader {
            type Value = Name<'de>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a name")
            }

            fn visit_borrowed_str<E: Error>(self, name: &'de str) -> Result<Name<'de>, E> {
                Ok(Name(Cow::Borrowed(name)))
            }

            fn visit_str<E: Error>(self, name: &str) -> Result<Name<'de>, E> {
                Ok(Name(Cow::Owned(name.to_owned())))
            }
        }
        deserializer.deserialize_str(Reader)
    }
}

/// The values of an array, and one more than [`MAX_ITEMS`] at most.
struct Items<'i>(Vec<&'i RawValue>);

impl<'de: 'i, 'i> Deserialize<'de> for Items<'i> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Items<'i>, D::Error> {
        struct Reader;
        impl<'de> Visitor<'de> for Reader {
            type Value = Items<'de>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an array")
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Items<'de>, A::Error> {
                let mut items = Vec::new();
                while let Some(item) = seq.next_element()? {
                    // Read on to the end all the same: what is wrong there is told first.
                    if items.len() <= MAX_ITEMS {
                        items.push(item);
                    }
                }
                Ok(Items(items))
            }
        }
        deserializer.deserialize_seq(Reader)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn checked(text: &str) -> Result<&RawValue, Invalid> {
        let value = value(text)?;
        check(value).map(|()| value)
    }

    #[test]
    fn depth_is_bounded_and_brackets_in_strings_do_not_count() {
        let nested = |depth: usize| format!("{}{}", "[".repeat(depth), "]".repeat(depth));
        assert!(checked(&nested(MAX_DEPTH)).is_ok());
        let why = checked(&nested(MAX_DEPTH + 1)).unwrap_err();
        assert_eq!((&*why.kind, &*why.message), ("too_deep", "it nests deeper than 100 levels at byte 100"));
        for depth in [10_000, 1_000_000] {
            assert_eq!(checked(&nested(depth)).unwrap_err().kind, "too_deep");
            assert_eq!(checked(&"[".repeat(depth)).unwrap_err().kind, "invalid_json");
        }
        assert!(checked(&format!("[\"{}\\\"{}\"]", "[".repeat(200), "{".repeat(200))).is_ok());
        assert!(checked(&format!("[{}1]", "[],".repeat(1000))).is_ok());
    }

    #[test]
    fn half_a_character_is_refused() {
        for text in [
            r#""\ud800""#,
            r#""\udc00""#,
            r#""\ud800\ud800""#,
            r#""\ud83dx""#,
            r#"{"\udfff":1}"#,
            r#"["a\\\uDBFF"]"#,
        ] {
            assert_eq!(checked(text).unwrap_err().kind, "invalid_json", "{text}");
        }
        for text in [r#""\ud83d\ude00""#, r#""\\ud800""#, r#""\u00e9\ud83d\uDE00\n""#, r#""\uD7FF\uE000""#] {
            assert!(checked(text).is_ok(), "{text}");
        }
    }

    #[test]
    fn numbers_keep_their_digits() {
        let text = "[1e999,-0,0.10,12345678901234567890123456789,1E+2]";
        let numbers: Vec<&str> = items(text).unwrap().iter().map(|item| item.get()).collect();
        assert_eq!(numbers, ["1e999", "-0", "0.10", "12345678901234567890123456789", "1E+2"]);
    }

    #[test]
    fn a_member_that_is_there_twice_is_refused_however_it_is_spelled() {
        let members = |text| Members::of("it", value(text).unwrap());
        let why = members(r#"{"a":1,"b":2,"\u0061":3}"#).unwrap_err();
        assert!(why.message.starts_with("it cannot be read: member `a` is there twice"), "{}", why.message);
        let many: Vec<String> = (0..=MAX_MEMBERS).map(|at| format!("\"{at}\":0")).collect();
        let (too_many, most) = (format!("{{{}}}", many.join(",")), format!("{{{}}}", many[1..].join(",")));
        assert!(members(&too_many).is_err());
        assert_eq!(members(&most).unwrap().0.len(), MAX_MEMBERS);
        assert_eq!(members("[1]").unwrap_err().message, "it is an array, not an object");
    }

    #[test]
    fn more_items_than_the_limit_are_refused_together() {
        let array = |count: usize| format!("[{}]", vec!["0"; count].join(","));
        assert_eq!(items(&array(MAX_ITEMS)).unwrap().len(), MAX_ITEMS);
        assert_eq!(items(&array(MAX_ITEMS + 1)).unwrap_err().kind, "too_many_items");
        assert_eq!(items("[0,").unwrap_err().kind, "invalid_json");
    }

    proptest! {
        #[test]
        fn what_passes_can_be_read_by_a_parser_that_recurses(text in r#"[\[\]{}":,0-9\\ud8cDe+.a-]{0,40}"#) {
            if let Ok(value) = checked(&text) {
                // A number beyond f64 is JSON all the same.
                let read = serde_json::from_str::<serde::de::IgnoredAny>(value.get());
                prop_assert!(read.is_ok());
                if let Some(text) = string(value) {
                    prop_assert_eq!(serde_json::from_str::<String>(value.get()).unwrap(), text);
                }
            }
        }

        #[test]
        fn any_bytes_are_safe(bytes: Vec<u8>) {
            if let Ok(text) = text(&bytes) {
                let _ = items(text).map(|items| items.iter().filter(|item| check(item).is_ok()).count());
            }
        }
    }
}
