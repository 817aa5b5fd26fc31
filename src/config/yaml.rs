//! YAML into a tree that remembers where each piece stood.
//!
//! The parser counts characters; everything that leaves this module counts bytes. Keys are plain text, never
//! numbers or collections; a key that comes twice is a problem, not an overwritten value. Anchors are copied where
//! they are used, within a bound on the whole. No `${…}` here: to YAML that is text like any other.

use std::collections::HashMap;
use std::ops::Range;

use saphyr::Scalar;
use saphyr_parser::{Event, Parser, ScalarStyle, ScanError, Span, Tag};
use serde_json::{Number, Value};

use super::problem::Problem;

/// Levels of nesting that a configuration can have; more is a mistake, and would be recursion without a bound.
const MAX_DEPTH: usize = 32;

/// Pieces that a configuration can have once its anchors are copied to where they are used.
const MAX_NODES: usize = 100_000;

/// A piece of the file.
#[derive(Debug, Clone)]
pub(super) struct Node {
    /// Its bytes.
    pub span: Range<usize>,
    /// What it is.
    pub data: Data,
}

/// What a [`Node`] is.
#[derive(Debug, Clone)]
pub(super) enum Data {
    /// A text, a number, a truth or nothing.
    Scalar(Value),
    /// A list.
    Sequence(Vec<Node>),
    /// A mapping, in the order of the file.
    Mapping(Vec<Entry>),
}

/// A key and what it has.
#[derive(Debug, Clone)]
pub(super) struct Entry {
    /// The key.
    pub key: String,
    /// The key's bytes.
    pub at: Range<usize>,
    /// Its value.
    pub node: Node,
}

/// Reads one document. The second part are mistakes that do not keep the rest from being read.
pub(super) fn parse(text: &str) -> Result<(Node, Vec<Problem>), Problem> {
    let mut builder = Builder::new(text);
    for event in Parser::new_from_str(text) {
        let (event, span) = event.map_err(|error| builder.scan_error(&error))?;
        builder.take(event, span)?;
    }
    let root = builder.root.take().ok_or_else(|| {
        Problem::outside("the file is empty", "start from `config/example.yaml`, which explains every option")
    })?;
    Ok((root, builder.problems))
}

/// A collection whose end has not come yet.
struct Open {
    /// Where it began, in bytes.
    start: usize,
    /// The anchor it can be copied by; 0: none.
    anchor: usize,
    /// Pieces in it so far, itself included.
    nodes: usize,
    /// What it will be.
    data: Data,
    /// In a mapping, the key that waits for its value.
    key: Option<(String, Range<usize>)>,
}

/// Puts the parser's events together.
struct Builder<'t> {
    text: &'t str,
    /// Byte of each character, and the end.
    bytes: Vec<usize>,
    open: Vec<Open>,
    /// Finished pieces that an alias may ask for, with the number of pieces in them.
    anchors: HashMap<usize, (Node, usize)>,
    nodes: usize,
    root: Option<Node>,
    problems: Vec<Problem>,
}

impl<'t> Builder<'t> {
    fn new(text: &'t str) -> Builder<'t> {
        let bytes = text.char_indices().map(|(at, _)| at).chain([text.len()]).collect();
        Builder {
            text,
            bytes,
            open: Vec::new(),
            anchors: HashMap::new(),
            nodes: 0,
            root: None,
            problems: Vec::new(),
        }
    }

    fn take(&mut self, event: Event<'_>, span: Span) -> Result<(), Problem> {
        let range = self.byte(span.start.index())..self.byte(span.end.index());
        match event {
            Event::Scalar(text, style, anchor, tag) => {
                if self.awaits_key() {
                    return self.key(text.into_owned(), range);
                }
                let data = scalar(&text, style, tag.as_deref())
                    .ok_or_else(|| problem(&range, "the tag does not fit the value", "remove the tag"))?;
                self.place(Node { span: range, data: Data::Scalar(data) }, anchor, 1)
            }
            Event::Alias(anchor) => {
                let Some((node, nodes)) = self.anchors.get(&anchor).cloned() else {
                    return Err(problem(&range, "the alias names an anchor that is not finished", "move it"));
                };
                self.place(Node { span: range, ..node }, 0, nodes)
            }
            Event::SequenceStart(anchor, _) => self.begin(range, anchor, Data::Sequence(Vec::new())),
            Event::MappingStart(anchor, _) => self.begin(range, anchor, Data::Mapping(Vec::new())),
            Event::SequenceEnd | Event::MappingEnd => self.end(&range),
            Event::DocumentStart(_) if self.root.is_some() => Err(problem(
                &range,
                "the file has a second document",
                "keep one and remove the `---` between them",
            )),
            Event::DocumentStart(_)
            | Event::DocumentEnd
            | Event::StreamStart
            | Event::StreamEnd
            | Event::Nothing => Ok(()),
        }
    }

    fn awaits_key(&self) -> bool {
        self.open.last().is_some_and(|open| matches!(open.data, Data::Mapping(_)) && open.key.is_none())
    }

    fn key(&mut self, key: String, at: Range<usize>) -> Result<(), Problem> {
        let open = self.open.last_mut().expect("only a mapping awaits a key");
        let Data::Mapping(entries) = &open.data else { unreachable!("only a mapping awaits a key") };
        if let Some(first) = entries.iter().find(|entry| entry.key == key) {
            let line = super::problem::line_and_column(self.text, first.at.start).0;
            self.problems.push(problem(
                &at,
                format!("the key `{key}` is here twice; it was first given in line {line}"),
                "remove one of the two or rename it",
            ));
        }
        open.key = Some((key, at));
        Ok(())
    }

    fn begin(&mut self, range: Range<usize>, anchor: usize, data: Data) -> Result<(), Problem> {
        if self.awaits_key() {
            return Err(problem(
                &range,
                "a key cannot be a list or a mapping",
                "put quotes around it if it is text",
            ));
        }
        if self.open.len() == MAX_DEPTH {
            return Err(problem(
                &range,
                format!("this is nested deeper than {MAX_DEPTH} levels"),
                "flatten it",
            ));
        }
        self.open.push(Open { start: range.start, anchor, nodes: 1, data, key: None });
        Ok(())
    }

    fn end(&mut self, range: &Range<usize>) -> Result<(), Problem> {
        let open = self.open.pop().expect("the parser ends what it began");
        self.place(Node { span: open.start..range.end, data: open.data }, open.anchor, open.nodes)
    }

    /// Puts a finished piece where it belongs.
    fn place(&mut self, node: Node, anchor: usize, nodes: usize) -> Result<(), Problem> {
        if anchor > 0 {
            self.anchors.insert(anchor, (node.clone(), nodes));
        }
        self.nodes += nodes;
        if self.nodes > MAX_NODES {
            return Err(problem(
                &node.span,
                format!("the file has more than {MAX_NODES} values"),
                "use fewer aliases",
            ));
        }
        let Some(open) = self.open.last_mut() else {
            self.root = Some(node);
            return Ok(());
        };
        open.nodes += nodes;
        match &mut open.data {
            Data::Sequence(items) => items.push(node),
            Data::Mapping(entries) => {
                let (key, at) = open
                    .key
                    .take()
                    .ok_or_else(|| problem(&node.span, "a key cannot be an alias", "write the key out"))?;
                entries.push(Entry { key, at, node });
            }
            Data::Scalar(_) => unreachable!("only collections are opened"),
        }
        Ok(())
    }

    fn scan_error(&self, error: &ScanError) -> Problem {
        let at = self.byte(error.marker().index());
        let line = self.text[..at].rfind('\n').map_or(0, |newline| newline + 1);
        let end = self.text[at..].find('\n').map_or(self.text.len(), |newline| at + newline);
        let help = if self.text[line..end].contains("${") {
            "put quotes around a `${…}` that stands inside `[…]` or `{…}`"
        } else {
            "YAML wants spaces for indentation, `key: value` with a space, and quotes around special characters"
        };
        let width = self.text[at..end].chars().next().map_or(0, char::len_utf8);
        problem(&(at..at + width), format!("this is not YAML: {}", error.info()), help)
    }

    fn byte(&self, character: usize) -> usize {
        self.bytes.get(character).copied().unwrap_or(self.text.len())
    }
}

/// A problem of the file's form, which has no path yet.
fn problem(span: &Range<usize>, message: impl Into<String>, help: &str) -> Problem {
    Problem {
        path: String::new(),
        span: Some(span.clone()),
        message: message.into(),
        help: Some(help.to_owned()),
    }
}

/// What a scalar means; `None` where its tag says that it is something else.
fn scalar(text: &str, style: ScalarStyle, tag: Option<&Tag>) -> Option<Value> {
    let tag = tag.map(std::borrow::Cow::Borrowed);
    Some(match Scalar::parse_from_cow_and_metadata(text.into(), style, tag.as_ref())? {
        Scalar::Null => Value::Null,
        Scalar::Boolean(value) => Value::Bool(value),
        Scalar::Integer(value) => Value::from(value),
        // infinities and NaN are not JSON; as text they meet the message of the field that wanted a number
        Scalar::FloatingPoint(value) => {
            Number::from_f64(value.0).map_or_else(|| Value::from(text), Value::Number)
        }
        Scalar::String(value) => Value::from(value.into_owned()),
    })
}
