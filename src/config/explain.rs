//! What the validator finds, said in our own words.
//!
//! The validator speaks of keywords; people wrote keys. Each finding becomes one sentence with the remedy. Where a
//! value could be one of several things, only the one that was meant is spoken of.

use forebay_api::template::{Template, nearest};
use forebay_api::units::{ByteSize, Period};
use jsonschema::error::{TypeKind, ValidationErrorKind as Kind};
use jsonschema::{ValidationError, Validator};
use serde_json::Value;

use super::document::{Document, Focus, child, dotted, named, tokens};
use super::problem::{Problem, list};
use super::shape::{Shape, annotation, branches, keys, type_of};

/// Everything in which the document does not obey the schema.
pub(super) fn violations(document: &Document, schema: &Value) -> Vec<Problem> {
    let validator: Validator =
        jsonschema::validator_for(schema).expect("the schema is generated, and a test validates it");
    let explainer = Explainer { document, shape: Shape { root: schema } };
    validator.iter_errors(&document.tree).flat_map(|error| explainer.explain(&error)).collect()
}

/// What every explanation needs.
struct Explainer<'d> {
    document: &'d Document,
    shape: Shape<'d>,
}

impl Explainer<'_> {
    fn explain(&self, error: &ValidationError<'_>) -> Vec<Problem> {
        let at = error.instance_path().as_str();
        if self.document.unknown.contains(at) {
            return Vec::new();
        }
        match error.kind() {
            Kind::AdditionalProperties { unexpected } | Kind::UnevaluatedProperties { unexpected } => {
                unexpected.iter().map(|key| self.unknown_key(at, key)).collect()
            }
            Kind::OneOfNotValid { context } | Kind::AnyOf { context } => self.alternatives(error, context),
            Kind::PropertyNames { error: inner } => vec![self.bad_name(at, inner.instance())],
            Kind::Required { property } => {
                self.lacks(at, property.as_str().unwrap_or_default()).into_iter().collect()
            }
            Kind::Enum { options } => {
                let known = options.as_array().map(Vec::as_slice).unwrap_or_default();
                vec![self.unknown_value(at, &known.iter().filter_map(Value::as_str).collect::<Vec<_>>())]
            }
            Kind::Constant { expected_value } => {
                vec![self.unknown_value(at, &expected_value.as_str().into_iter().collect::<Vec<_>>())]
            }
            Kind::Type { kind } => vec![self.wrong_type(at, &expected(kind))],
            Kind::Pattern { .. } => vec![self.wrong_form(at)],
            kind => vec![self.out_of_bounds(at, kind, error)],
        }
    }

    /// Something that has several forms, and this is none of them.
    fn alternatives(
        &self,
        error: &ValidationError<'_>,
        context: &[Vec<ValidationError<'_>>],
    ) -> Vec<Problem> {
        let at = error.instance_path().as_str();
        // `schema_path` ends with the keyword, whose value are the branches in the order of the context
        let branches: Vec<&Value> = self
            .shape
            .root
            .pointer(error.schema_path().as_str())
            .and_then(Value::as_array)
            .map(|branches| branches.iter().collect())
            .unwrap_or_default();
        let value = error.instance();
        let words: Vec<&str> =
            branches.iter().flat_map(|branch| words(self.shape.resolved(branch))).collect();
        if let Some((tag, known)) = self.tag(&branches, value) {
            return match value.get(tag) {
                Some(_) if self.document.unknown.contains(&child(at, tag)) => Vec::new(),
                Some(_) => vec![self.unknown_value(&child(at, tag), &known)],
                None => self.lacks(at, tag).into_iter().collect(),
            };
        }
        let chosen = self.shape.chosen(&branches, value);
        if let [one] = chosen[..]
            && let Some(index) = branches.iter().position(|branch| std::ptr::eq(*branch, one))
        {
            return context[index].iter().flat_map(|error| self.explain(error)).collect();
        }
        if value.is_string() && !words.is_empty() {
            return vec![self.unknown_value(at, &words)];
        }
        let types: Vec<&str> = branches.iter().flat_map(|branch| self.shape.types(branch)).collect();
        vec![self.wrong_type(at, &types)]
    }

    /// The key that tells the branches apart, with its known values, where none of them is the value's.
    fn tag<'s>(&self, branches: &[&'s Value], value: &Value) -> Option<(&'s str, Vec<&'s str>)>
    where
        Self: 's,
    {
        if !value.is_object() {
            return None;
        }
        let mut tags = Vec::new();
        for branch in branches {
            let Some(properties) = self.shape.resolved(branch).get("properties").and_then(Value::as_object)
            else {
                continue;
            };
            tags.extend(
                properties.iter().filter_map(|(key, schema)| Some((key, schema.get("const")?.as_str()?))),
            );
        }
        let (key, _) = *tags.first()?;
        let known: Vec<&str> = tags.iter().filter(|(tag, _)| *tag == key).map(|(_, word)| *word).collect();
        let fits = value.get(key).and_then(Value::as_str).is_some_and(|word| known.contains(&word));
        if fits { None } else { Some((key, known)) }
    }

    fn unknown_key(&self, at: &str, key: &str) -> Problem {
        let schemas = self.shape.at(&self.document.tree, at);
        let known = keys(&schemas);
        let place = if at.is_empty() { String::new() } else { format!(" in `{}`", dotted(at)) };
        let help = suggest(key, &known, "known here");
        self.problem(&child(at, key), Focus::Key, format!("unknown key `{key}`{place}"), Some(help))
    }

    fn unknown_value(&self, at: &str, known: &[&str]) -> Problem {
        let Some(shown) = self.document.shown(at) else { return self.wrong_type(at, &["string"]) };
        let noun = self.noun(at);
        let value = self.document.tree.pointer(at).and_then(Value::as_str).unwrap_or_default();
        let help = suggest(value, known, "known");
        self.problem(at, Focus::Value, format!("unknown {noun} `{shown}`"), Some(help))
    }

    /// A key that must be there; nothing where another key was probably meant to be it.
    fn lacks(&self, at: &str, key: &str) -> Option<Problem> {
        let known = keys(&self.shape.at(&self.document.tree, at));
        let given = self.document.tree.pointer(at).and_then(Value::as_object);
        let mut strange =
            given.into_iter().flat_map(|map| map.keys()).filter(|key| !known.contains(&key.as_str()));
        if strange.any(|strange| nearest(strange, known.iter().copied()) == Some(key)) {
            return None;
        }
        let schemas = self.shape.at(&self.document.tree, &child(at, key));
        let help = match annotation(&schemas, "description").and_then(Value::as_str) {
            Some(about) => format!("add `{key}:` ({})", first_sentence(about)),
            None => format!("add `{key}:`"),
        };
        Some(self.problem(at, Focus::Key, format!("{} lacks `{key}`", named(at)), Some(help)))
    }

    fn bad_name(&self, at: &str, name: &Value) -> Problem {
        let name = name.as_str().unwrap_or_default();
        self.problem(
            &child(at, name),
            Focus::Key,
            format!("`{name}` cannot be a name in `{}`", dotted(at)),
            Some(
                "begin with a lower-case letter and go on with lower-case letters, digits, `-` and single `_`, at \
                 most 63 in all"
                    .to_owned(),
            ),
        )
    }

    fn wrong_type(&self, at: &str, expected: &[&str]) -> Problem {
        let schemas = self.shape.at(&self.document.tree, at);
        let found = self.document.tree.pointer(at).unwrap_or(&Value::Null);
        let title =
            annotation(&schemas, "title").and_then(Value::as_str).filter(|_| expected.contains(&"string"));
        let mut wanted: Vec<&str> =
            expected.iter().filter(|kind| **kind != "null").map(|kind| noun_of(kind)).collect();
        wanted.dedup();
        let wanted = title.map_or_else(|| wanted.join(" or "), with_article);
        let help = match found {
            Value::Null => Some("give it a value, or remove the line".to_owned()),
            _ if title.is_some() => examples(&schemas),
            Value::Bool(_) | Value::Number(_) if expected.contains(&"string") => {
                Some("put it in quotes".to_owned())
            }
            Value::String(_) if expected.contains(&"array") => Some("write it as a list: `[…]`".to_owned()),
            _ => examples(&schemas),
        };
        let found = noun_of(type_of(found));
        self.problem(at, Focus::Value, format!("{} should be {wanted}, not {found}", named(at)), help)
    }

    /// A text that its field's pattern refuses.
    fn wrong_form(&self, at: &str) -> Problem {
        let schemas = self.shape.at(&self.document.tree, at);
        let text = self.document.tree.pointer(at).and_then(Value::as_str).unwrap_or_default();
        let title = annotation(&schemas, "title").and_then(Value::as_str);
        let why = match title {
            Some("duration") => text.parse::<Period>().err().map(|error| error.to_string()),
            Some("size") => text.parse::<ByteSize>().err().map(|error| error.to_string()),
            Some("template") => {
                Template::parse(text).err().map(|error| self.document.mask(at, error.to_string()))
            }
            _ => None,
        };
        let what = named(at);
        match why {
            Some(why) => self.problem(at, Focus::Value, format!("{what}: {why}"), None),
            None => {
                let noun = title.map_or_else(|| "in the form that is wanted".to_owned(), with_article);
                self.problem(at, Focus::Value, format!("{what} is not {noun}"), examples(&schemas))
            }
        }
    }

    /// Too many, too few, too large, too small, and whatever else a connector's schema may forbid.
    fn out_of_bounds(&self, at: &str, kind: &Kind, error: &ValidationError<'_>) -> Problem {
        let should = match kind {
            Kind::Minimum { limit } => format!("should be at least {limit}"),
            Kind::Maximum { limit } => format!("should be at most {limit}"),
            Kind::ExclusiveMinimum { limit } => format!("should be more than {limit}"),
            Kind::ExclusiveMaximum { limit } => format!("should be less than {limit}"),
            Kind::MinLength { limit: 1 } | Kind::MinItems { limit: 1 } | Kind::MinProperties { limit: 1 } => {
                "should not be empty".to_owned()
            }
            Kind::MinLength { limit } => format!("should have at least {limit} characters"),
            Kind::MaxLength { limit } => format!("should have at most {limit} characters"),
            Kind::MinItems { limit } | Kind::MinProperties { limit } => {
                format!("should have at least {limit} entries")
            }
            Kind::MaxItems { limit } | Kind::MaxProperties { limit } => {
                format!("should have at most {limit} entries")
            }
            Kind::UniqueItems => "should not have the same entry twice".to_owned(),
            _ => format!("is not what it should be: {}", error.masked_with("it")),
        };
        self.problem(at, Focus::Value, format!("{} {should}", named(at)), None)
    }

    /// What an enumerated value is, by its key: `destination type`, `format`, `op`.
    fn noun(&self, at: &str) -> String {
        let tokens: Vec<String> = tokens(at).collect();
        let key = tokens.iter().rev().find(|token| !token.bytes().all(|byte| byte.is_ascii_digit()));
        let key = key.map(|key| key.replace('_', " ")).unwrap_or_default();
        match (tokens.first().map(String::as_str), &key[..], tokens.len()) {
            (Some(section @ ("sources" | "destinations")), "type", 3) => {
                format!("{} type", section.trim_end_matches('s'))
            }
            _ => key,
        }
    }

    fn problem(&self, at: &str, focus: Focus, message: String, help: Option<String>) -> Problem {
        self.document.problem(at, focus, message, help)
    }
}

/// The nearest known name and all of them.
pub(super) fn suggest(given: &str, known: &[&str], known_where: &str) -> String {
    match nearest(given, known.iter().copied()) {
        Some(near) => format!("did you mean `{near}`? {known_where}: {}", list(known.iter().copied())),
        None => format!("{known_where}: {}", list(known.iter().copied())),
    }
}

/// The words that a branch stands for, where it stands for words.
fn words(branch: &Value) -> Vec<&str> {
    let own = branch
        .get("const")
        .into_iter()
        .chain(branch.get("enum").and_then(Value::as_array).into_iter().flatten());
    own.chain(branches(branch).into_iter().filter_map(|branch| branch.get("const")))
        .filter_map(Value::as_str)
        .collect()
}

fn expected(kind: &TypeKind) -> Vec<&'static str> {
    match kind {
        TypeKind::Single(kind) => vec![kind.as_str()],
        TypeKind::Multiple(kinds) => kinds.iter().map(jsonschema::JsonType::as_str).collect(),
    }
}

/// A JSON type as people say it.
fn noun_of(kind: &str) -> &str {
    match kind {
        "string" => "text",
        "integer" => "a whole number",
        "number" => "a number",
        "boolean" => "`true` or `false`",
        "array" => "a list",
        "object" => "a mapping of keys",
        "null" => "empty",
        other => other,
    }
}

fn examples(schemas: &[&Value]) -> Option<String> {
    let examples = annotation(schemas, "examples")?.as_array()?;
    let shown: Vec<String> = examples
        .iter()
        .map(|example| example.as_str().map_or_else(|| example.to_string(), str::to_owned))
        .collect();
    Some(format!("write it like {}", list(shown.iter().map(String::as_str))))
}

/// The first sentence of a description, to stand inside another one.
fn first_sentence(text: &str) -> String {
    let sentence =
        text.split_once(". ").map_or(text, |(first, _)| first).trim_end_matches('.').replace('\n', " ");
    let mut characters = sentence.chars();
    characters.next().map_or_else(String::new, |first| first.to_lowercase().chain(characters).collect())
}

fn with_article(noun: &str) -> String {
    let article = if noun.starts_with(['a', 'e', 'i', 'o', 'u']) { "an" } else { "a" };
    format!("{article} {noun}")
}
