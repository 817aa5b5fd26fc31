//! The file as a tree of JSON values, with the place of each of them.
//!
//! A value is named by its JSON pointer. The tree changes (expansion, overrides); places do not, and what a value
//! was *written* as is kept, because only that may be shown.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::ops::Range;

use serde_json::{Map, Value};

use super::problem::{Problem, line_and_column};
use super::yaml::{self, Data, Node};

/// Shorter values are masked only where they stand alone: each `a` of a message is not the secret `a`.
const MASK_ANYWHERE_BYTES: usize = 4;

/// A configuration while it is being read.
pub(super) struct Document {
    /// The file's name, as it was given.
    pub file: String,
    /// The file's text.
    pub text: String,
    /// All values.
    pub tree: Value,
    /// Where values came from, if they do not stand in the file as they are.
    pub origins: BTreeMap<String, Origin>,
    /// What `${…}` names and is not there, by the values that need it.
    pub missing: BTreeMap<String, Missing>,
    /// Values that are not known, because what they refer to is missing or wrong: nothing else is said of them.
    pub unknown: BTreeSet<String>,
    places: HashMap<String, Place>,
}

/// Where a value came from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Origin {
    /// A text of the file that has `${…}` in it; this is the text.
    Expanded(String),
    /// An environment variable that overrides the file; this is its name.
    Variable(String),
}

/// Something that `${…}` names and that is not there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Missing {
    /// The variable, or `file:` and the path.
    pub name: String,
    /// The option that needs it: `sources.shop.url`.
    pub option: String,
    /// Line in the file.
    pub line: usize,
    /// Column in the file.
    pub column: usize,
}

/// Where a value stands in the file.
struct Place {
    key: Option<Range<usize>>,
    value: Range<usize>,
    collection: bool,
}

/// Which part of an entry a problem is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Focus {
    /// The key, or the whole entry.
    Key,
    /// The value; of a collection its key is shown, since it may be long.
    Value,
}

impl Document {
    /// Reads the YAML. The second part are mistakes that do not keep the rest from being read.
    pub(super) fn parse(file: &str, text: &str) -> Result<(Document, Vec<Problem>), Problem> {
        let (root, problems) = yaml::parse(text)?;
        let mut places = HashMap::new();
        let tree = index(root, None, String::new(), &mut places);
        let document = Document {
            file: file.to_owned(),
            text: text.to_owned(),
            tree,
            origins: BTreeMap::new(),
            missing: BTreeMap::new(),
            unknown: BTreeSet::new(),
            places,
        };
        Ok((document, problems))
    }

    /// A problem at a value or its key.
    pub(super) fn problem(
        &self,
        pointer: &str,
        focus: Focus,
        message: String,
        help: Option<String>,
    ) -> Problem {
        let path = pointer.to_owned();
        match self.override_of(pointer) {
            Some(variable) => Problem {
                path,
                span: None,
                message: format!("{message} (set by the environment variable `{variable}`)"),
                help,
            },
            None => Problem { path, span: Some(self.span(pointer, focus)), message, help },
        }
    }

    /// The line and column of a value.
    pub(super) fn position(&self, pointer: &str) -> (usize, usize) {
        line_and_column(&self.text, self.span(pointer, Focus::Value).start)
    }

    /// How a scalar may be shown: as it was written. `None` for collections.
    pub(super) fn shown(&self, pointer: &str) -> Option<String> {
        if let Some(variable) = self.override_of(pointer) {
            return Some(format!("${{{variable}}}"));
        }
        if let Some(Origin::Expanded(written)) = self.origins.get(pointer) {
            return Some(written.clone());
        }
        match self.tree.pointer(pointer)? {
            Value::Array(_) | Value::Object(_) => None,
            Value::String(text) => Some(text.clone()),
            scalar => Some(scalar.to_string()),
        }
    }

    /// Whether something at or under a pointer is not known.
    pub(super) fn has_unknown(&self, pointer: &str) -> bool {
        self.unknown.iter().any(|unknown| is_at_or_under(unknown, pointer))
    }

    /// Takes what came out of `${…}` or the environment, at or under a pointer, out of a message of someone else's.
    pub(super) fn mask(&self, pointer: &str, message: String) -> String {
        let mut message = message;
        let Some(value) = self.tree.pointer(pointer) else { return message };
        for (leaf, value) in leaves(pointer, value) {
            if !self.origins.contains_key(&leaf) && self.override_of(&leaf).is_none() {
                continue;
            }
            let shown = self.shown(&leaf).unwrap_or_default();
            let text = value.as_str().map_or_else(|| value.to_string(), str::to_owned);
            message = message.replace(&format!("{text:?}"), &format!("`{shown}`"));
            message = message.replace(&format!("`{text}`"), &format!("`{shown}`"));
            if text.len() >= MASK_ANYWHERE_BYTES {
                message = message.replace(&text, &shown);
            }
        }
        message
    }

    /// Puts a value of the environment into the tree. Everything on the way is a mapping or not there.
    pub(super) fn set(&mut self, pointer: &str, value: Value, variable: &str) {
        let mut target = &mut self.tree;
        for token in tokens(pointer) {
            if !target.is_object() {
                *target = Value::Object(Map::new());
            }
            target =
                target.as_object_mut().expect("it was just made one").entry(token).or_insert(Value::Null);
        }
        *target = value;
        self.origins.retain(|origin, _| !is_at_or_under(origin, pointer));
        self.missing.retain(|missing, _| !is_at_or_under(missing, pointer));
        self.unknown.retain(|unknown| !is_at_or_under(unknown, pointer));
        self.origins.insert(pointer.to_owned(), Origin::Variable(variable.to_owned()));
    }

    /// The variable that set a value, or something that it is part of.
    fn override_of(&self, pointer: &str) -> Option<&str> {
        self.origins.iter().find_map(|(at, origin)| match origin {
            Origin::Variable(variable) if is_at_or_under(pointer, at) => Some(variable.as_str()),
            _ => None,
        })
    }

    /// The bytes to show for a pointer; for one that is not in the file, those of what it would stand in.
    fn span(&self, pointer: &str, focus: Focus) -> Range<usize> {
        let mut at = pointer;
        loop {
            if let Some(place) = self.places.get(at) {
                let span = match &place.key {
                    Some(key) if place.collection || focus == Focus::Key => key,
                    _ => &place.value,
                };
                return self.first_line(span);
            }
            let Some(slash) = at.rfind('/') else { return 0..0 };
            at = &at[..slash];
        }
    }

    /// A span cut to its first line.
    fn first_line(&self, span: &Range<usize>) -> Range<usize> {
        let line = self.text[span.clone()].lines().next().unwrap_or_default();
        span.start..span.start + line.trim_end().len()
    }
}

/// A pointer for a message: `` `limits.memory` ``, or the file itself.
pub(super) fn named(pointer: &str) -> String {
    if pointer.is_empty() { "the file".to_owned() } else { format!("`{}`", dotted(pointer)) }
}

/// Turns a piece into a value and notes the places of everything in it.
fn index(
    node: Node,
    key: Option<Range<usize>>,
    pointer: String,
    places: &mut HashMap<String, Place>,
) -> Value {
    let collection = !matches!(node.data, Data::Scalar(_));
    let value = match node.data {
        Data::Scalar(value) => value,
        Data::Sequence(items) => items
            .into_iter()
            .enumerate()
            .map(|(at, item)| index(item, None, format!("{pointer}/{at}"), places))
            .collect(),
        Data::Mapping(entries) => {
            let mut map = Map::new();
            for entry in entries {
                let value = index(entry.node, Some(entry.at), child(&pointer, &entry.key), places);
                map.insert(entry.key, value);
            }
            Value::Object(map)
        }
    };
    places.insert(pointer, Place { key, value: node.span, collection });
    value
}

/// The pointer of an entry of a mapping.
pub(super) fn child(pointer: &str, key: &str) -> String {
    format!("{pointer}/{}", key.replace('~', "~0").replace('/', "~1"))
}

/// The keys and numbers that a pointer is made of.
pub(super) fn tokens(pointer: &str) -> impl Iterator<Item = String> {
    pointer.split('/').skip(1).map(|token| token.replace("~1", "/").replace("~0", "~"))
}

/// A pointer as people write it: `destinations.lake.where.op[0]`.
pub(super) fn dotted(pointer: &str) -> String {
    let mut out = String::new();
    for token in tokens(pointer) {
        if token.bytes().all(|byte| byte.is_ascii_digit()) {
            out += &format!("[{token}]");
        } else {
            if !out.is_empty() {
                out.push('.');
            }
            out += &token;
        }
    }
    out
}

/// Every scalar of a value with its pointer.
pub(super) fn leaves<'v>(pointer: &str, value: &'v Value) -> Vec<(String, &'v Value)> {
    match value {
        Value::Array(items) => {
            items.iter().enumerate().flat_map(|(at, item)| leaves(&format!("{pointer}/{at}"), item)).collect()
        }
        Value::Object(map) => {
            map.iter().flat_map(|(key, value)| leaves(&child(pointer, key), value)).collect()
        }
        scalar => vec![(pointer.to_owned(), scalar)],
    }
}

/// Whether a pointer is another or leads into it.
pub(super) fn is_at_or_under(pointer: &str, other: &str) -> bool {
    pointer.strip_prefix(other).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
}
