//! [`Document`]: JSON parsed once, in place, for validation: one flat list of items, strings and numbers borrowed from
//! the bytes.
//!
//! It is stricter than most parsers, because what a validator sees must be what every consumer sees: an object that has
//! a key twice is no document (one parser takes the first, another the last). Depth and the number of values are
//! bounded.

use std::borrow::Cow;
use std::str::from_utf8;

/// Arrays and objects inside each other.
pub(super) const MAX_DEPTH: usize = 128;

/// Values in one document; an item takes 32 bytes.
pub(super) const MAX_ITEMS: usize = 1_000_000;

/// One value or key. A container's contents follow it, up to `end`; in an object keys and values alternate.
#[derive(Clone, Debug)]
pub(super) enum Item<'b> {
    Null,
    Bool(bool),
    Number(&'b str),
    Text(Cow<'b, str>),
    Array { count: u32, end: u32 },
    Object { count: u32, end: u32 },
}

/// A parsed text. Its items can be used again for the next one.
#[derive(Debug, Default)]
pub(super) struct Document<'b> {
    pub(super) items: Vec<Item<'b>>,
}

/// Why a text is no document.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum Malformed {
    /// It is not UTF-8.
    #[error("it is not UTF-8")]
    NotUtf8,
    /// It is not JSON.
    #[error("it is not JSON: unexpected {what} at byte {at}")]
    Unexpected {
        /// What stands there.
        what: &'static str,
        /// Where.
        at: usize,
    },
    /// A key is there twice.
    #[error("the key `{0}` is in an object twice, so readers would not agree on its value")]
    Twice(String),
    /// Containers inside each other.
    #[error("it is nested deeper than {MAX_DEPTH} levels")]
    Deep,
    /// Values.
    #[error("it has more than {MAX_ITEMS} values")]
    Large,
}

impl<'b> Document<'b> {
    /// Reads a text in place of the one before; empty bytes are `null`.
    pub(super) fn read(&mut self, bytes: &'b [u8]) -> Result<(), Malformed> {
        self.items.clear();
        if bytes.is_empty() {
            self.items.push(Item::Null);
            return Ok(());
        }
        let text = from_utf8(bytes).map_err(|_| Malformed::NotUtf8)?;
        let mut reader = Reader { text, at: 0, items: &mut self.items };
        reader.value(0)?;
        reader.space();
        if reader.at < text.len() { Err(reader.unexpected("text behind the value")) } else { Ok(()) }
    }
}

/// The index behind the value at `at`.
pub(super) fn behind(items: &[Item<'_>], at: usize) -> usize {
    match items[at] {
        Item::Array { end, .. } | Item::Object { end, .. } => end as usize,
        _ => at + 1,
    }
}

struct Reader<'r, 'b> {
    text: &'b str,
    at: usize,
    items: &'r mut Vec<Item<'b>>,
}

impl<'b> Reader<'_, 'b> {
    fn value(&mut self, depth: usize) -> Result<(), Malformed> {
        self.space();
        let Some(first) = self.peek() else { return Err(self.unexpected("end")) };
        match first {
            b'{' => self.container(depth, true),
            b'[' => self.container(depth, false),
            b'"' => {
                let text = self.string()?;
                self.push(Item::Text(text))
            }
            b't' => self.word("true", Item::Bool(true)),
            b'f' => self.word("false", Item::Bool(false)),
            b'n' => self.word("null", Item::Null),
            _ => {
                let number = self.number()?;
                self.push(Item::Number(number))
            }
        }
    }

    fn container(&mut self, depth: usize, object: bool) -> Result<(), Malformed> {
        if depth >= MAX_DEPTH {
            return Err(Malformed::Deep);
        }
        let close = if object { b'}' } else { b']' };
        let head = self.items.len();
        self.push(Item::Null)?;
        self.at += 1;
        let mut count = 0;
        self.space();
        if self.peek() == Some(close) {
            self.at += 1;
        } else {
            loop {
                if object {
                    self.space();
                    if self.peek() != Some(b'"') {
                        return Err(self.unexpected("byte where a key should be"));
                    }
                    let key = self.string()?;
                    self.push(Item::Text(key))?;
                    self.space();
                    if self.peek() != Some(b':') {
                        return Err(self.unexpected("byte where `:` should be"));
                    }
                    self.at += 1;
                }
                self.value(depth + 1)?;
                count += 1;
                self.space();
                match self.peek() {
                    Some(b',') => self.at += 1,
                    Some(byte) if byte == close => {
                        self.at += 1;
                        break;
                    }
                    Some(_) => return Err(self.unexpected("byte behind a value")),
                    None => return Err(self.unexpected("end")),
                }
            }
        }
        let end = u32::try_from(self.items.len()).expect("there are at most `MAX_ITEMS`");
        self.items[head] = match object {
            true => Item::Object { count, end },
            false => Item::Array { count, end },
        };
        if object { self.keys_differ(head, count) } else { Ok(()) }
    }

    fn keys_differ(&self, head: usize, count: u32) -> Result<(), Malformed> {
        /// Up to so many keys it is quicker to compare each with each.
        const FEW: u32 = 12;
        let twice = |key: &str| Err(Malformed::Twice(key.chars().take(100).collect()));
        let keys = || Keys { items: self.items, at: head + 1, left: count };
        if count <= FEW {
            for (index, key) in keys().enumerate() {
                if keys().take(index).any(|other| other == key) {
                    return twice(key);
                }
            }
            return Ok(());
        }
        let mut sorted: Vec<&str> = keys().collect();
        sorted.sort_unstable();
        match sorted.windows(2).find(|pair| pair[0] == pair[1]) {
            Some(pair) => twice(pair[0]),
            None => Ok(()),
        }
    }

    fn string(&mut self) -> Result<Cow<'b, str>, Malformed> {
        let bytes = self.text.as_bytes();
        let start = self.at + 1;
        let mut at = start;
        let mut escaped = false;
        loop {
            match bytes.get(at) {
                None => return Err(Malformed::Unexpected { what: "end", at }),
                Some(b'"') => break,
                Some(b'\\') => {
                    escaped = true;
                    at += 2;
                }
                Some(0..0x20) => {
                    return Err(Malformed::Unexpected { what: "control character in a string", at });
                }
                Some(_) => at += 1,
            }
        }
        self.at = at + 1;
        let raw = &self.text[start..at];
        if !escaped {
            return Ok(Cow::Borrowed(raw));
        }
        // Rare, so the standard parser does it.
        let unescaped = serde_json::from_str::<String>(&self.text[start - 1..=at]);
        unescaped.map(Cow::Owned).map_err(|_| Malformed::Unexpected { what: "escape in a string", at: start })
    }

    /// RFC 8259: `-`? (`0` | digits) (`.` digits)? ([eE] [+-]? digits)?
    fn number(&mut self) -> Result<&'b str, Malformed> {
        let start = self.at;
        if self.peek() == Some(b'-') {
            self.at += 1;
        }
        let zero = self.peek() == Some(b'0');
        let whole = self.digits()?;
        if zero && whole > 1 {
            return Err(Malformed::Unexpected { what: "zero before a number", at: start });
        }
        if self.peek() == Some(b'.') {
            self.at += 1;
            self.digits()?;
        }
        if matches!(self.peek(), Some(b'e' | b'E')) {
            self.at += 1;
            if matches!(self.peek(), Some(b'+' | b'-')) {
                self.at += 1;
            }
            self.digits()?;
        }
        Ok(&self.text[start..self.at])
    }

    fn digits(&mut self) -> Result<usize, Malformed> {
        let start = self.at;
        while matches!(self.peek(), Some(b'0'..=b'9')) {
            self.at += 1;
        }
        if self.at == start { Err(self.unexpected("byte")) } else { Ok(self.at - start) }
    }

    fn word(&mut self, word: &'static str, item: Item<'b>) -> Result<(), Malformed> {
        if !self.text[self.at..].starts_with(word) {
            return Err(self.unexpected("byte"));
        }
        self.at += word.len();
        self.push(item)
    }

    fn push(&mut self, item: Item<'b>) -> Result<(), Malformed> {
        if self.items.len() >= MAX_ITEMS {
            return Err(Malformed::Large);
        }
        self.items.push(item);
        Ok(())
    }

    fn space(&mut self) {
        while matches!(self.peek(), Some(b' ' | b'\t' | b'\n' | b'\r')) {
            self.at += 1;
        }
    }

    fn peek(&self) -> Option<u8> {
        self.text.as_bytes().get(self.at).copied()
    }

    fn unexpected(&self, what: &'static str) -> Malformed {
        Malformed::Unexpected { what, at: self.at }
    }
}

/// The keys of an object.
struct Keys<'r, 'b> {
    items: &'r [Item<'b>],
    at: usize,
    left: u32,
}

impl<'r> Iterator for Keys<'r, '_> {
    type Item = &'r str;

    fn next(&mut self) -> Option<&'r str> {
        self.left = self.left.checked_sub(1)?;
        let Item::Text(key) = &self.items[self.at] else { unreachable!("keys and values alternate") };
        self.at = behind(self.items, self.at + 1);
        Some(key)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::Value;

    use super::super::node::Node;
    use super::*;

    fn json() -> impl Strategy<Value = Value> {
        let leaf = prop_oneof![
            Just(Value::Null),
            any::<bool>().prop_map(Value::from),
            any::<i64>().prop_map(Value::from),
            any::<u64>().prop_map(Value::from),
            any::<f64>().prop_filter("finite", |float| float.is_finite()).prop_map(Value::from),
            any::<String>().prop_map(Value::from),
        ];
        leaf.prop_recursive(5, 64, 20, |inner| {
            prop_oneof![
                prop::collection::vec(inner.clone(), 0..20).prop_map(Value::from),
                prop::collection::btree_map(".{0,8}", inner, 0..20)
                    .prop_map(|map| Value::Object(map.into_iter().collect())),
            ]
        })
    }

    proptest! {
        #[test]
        fn every_json_text_is_read_as_the_standard_parser_does(value in json(), pretty: bool) {
            let text = if pretty { format!("{value:#}") } else { value.to_string() };
            let mut document = Document::default();
            document.read(text.as_bytes()).unwrap();
            let node = Node::root(&document.items);
            prop_assert_eq!(jsonschema::json::Node::to_value(&node).into_owned(), value);
        }

        #[test]
        fn what_is_no_json_is_refused_as_the_standard_parser_does(text in "[-{}\\[\\]\",:.0-9eE+a-z \\\\]{0,12}") {
            let ours = Document::default().read(text.as_bytes());
            let theirs = serde_json::from_str::<&serde_json::value::RawValue>(&text);
            let stricter = matches!(ours, Err(Malformed::Twice(_))) || text.is_empty();
            prop_assert!(stricter || ours.is_ok() == theirs.is_ok(), "{text}: {ours:?} {theirs:?}");
        }
    }

    #[test]
    fn keys_that_are_there_twice_are_refused_in_small_and_large_objects() {
        let read = |text: &str| Document::default().read(text.as_bytes());
        assert_eq!(read(r#"{"a": 1, "b": {"c": 1, "\u0063": 2}}"#), Err(Malformed::Twice("c".into())));
        let many: Vec<String> = (0..100).map(|n| format!("\"k{}\": {n}", n % 99)).collect();
        assert_eq!(read(&format!("{{{}}}", many.join(","))), Err(Malformed::Twice("k0".into())));
    }

    #[test]
    fn depth_and_size_are_bounded() {
        let read = |text: &str| Document::default().read(text.as_bytes());
        let deep = |levels: usize| "[".repeat(levels) + &"]".repeat(levels);
        assert_eq!(read(&deep(MAX_DEPTH)), Ok(()));
        assert_eq!(read(&deep(MAX_DEPTH + 1)), Err(Malformed::Deep));
        let large = format!("[0{}]", ",0".repeat(MAX_ITEMS));
        assert_eq!(read(&large), Err(Malformed::Large));
    }
}
