//! `FOREBAY__DESTINATIONS__LAKE__BROKERS`: every key can be set by the environment.
//!
//! A name is matched to the keys that the file has and those that the schema knows at that place; one that matches
//! none is an error, for it was meant to do something. Values are not expanded: what the environment says is final.

use std::ffi::OsStr;

use forebay_api::template::nearest;
use serde_json::Value;

use super::document::{Document, child, dotted};
use super::expand::Environment;
use super::problem::{Problem, list};
use super::shape::{Shape, keys, type_of, types};

/// What an override's name begins with, and what its parts are joined with.
const PREFIX: &str = "FOREBAY__";
const JOINT: &str = "__";

/// Puts every override into the document.
pub(super) fn apply(document: &mut Document, shape: Shape<'_>, environment: &Environment) -> Vec<Problem> {
    let mut overrides: Vec<(&str, &OsStr)> = environment.beginning(PREFIX).collect();
    // a `type` decides which keys there are beside it
    overrides.sort_by_key(|(name, _)| !name.ends_with("__TYPE"));
    let mut problems = Vec::new();
    for (name, value) in overrides {
        match find(document, shape, name).and_then(|pointer| {
            let value = read(name, value, &types(&shape.at(&document.tree, &pointer)))?;
            Ok((pointer, value))
        }) {
            Ok((pointer, value)) => document.set(&pointer, value, name),
            Err(problem) => problems.push(problem),
        }
    }
    problems
}

/// The pointer that a variable's name stands for.
fn find(document: &Document, shape: Shape<'_>, name: &str) -> Result<String, Problem> {
    let mut pointer = String::new();
    for part in name[PREFIX.len()..].split(JOINT) {
        let schemas = shape.at(&document.tree, &pointer);
        let mut known = keys(&schemas);
        if let Some(Value::Object(map)) = document.tree.pointer(&pointer) {
            known.extend(map.keys().map(String::as_str).filter(|key| !schema_has(&schemas, key)));
        }
        let matching: Vec<&str> = known.iter().copied().filter(|key| variable_form(key) == part).collect();
        match matching[..] {
            [key] => pointer = child(&pointer, key),
            [] => return Err(unmatched(name, part, &pointer, &known)),
            _ => {
                return Err(Problem::outside(
                    format!("the environment variable `{name}` could mean any of {}", list(matching)),
                    "rename one of them in the file",
                ));
            }
        }
    }
    Ok(pointer)
}

fn schema_has(schemas: &[&Value], key: &str) -> bool {
    keys(schemas).contains(&key)
}

fn unmatched(name: &str, part: &str, pointer: &str, known: &[&str]) -> Problem {
    let place =
        if pointer.is_empty() { "the configuration".to_owned() } else { format!("`{}`", dotted(pointer)) };
    let forms: Vec<String> = known.iter().map(|key| variable_form(key)).collect();
    let forms = || forms.iter().map(String::as_str);
    let help = match nearest(part, forms()) {
        Some(near) => format!("did you mean `{near}`? known there: {}", list(forms())),
        None if known.is_empty() => format!("{place} has no keys that could be overridden one by one"),
        None => format!("known there: {}", list(forms())),
    };
    Problem::outside(
        format!("the environment variable `{name}` matches no key: {place} has no `{part}`"),
        help,
    )
}

/// A key as a part of a variable's name.
fn variable_form(key: &str) -> String {
    key.chars()
        .map(|char| if char.is_ascii_alphanumeric() { char.to_ascii_uppercase() } else { '_' })
        .collect()
}

/// A variable's value: YAML, but where the field can be text, what is neither quoted nor of another type that fits
/// is taken as it is. A password with a `#` or a `: ` in it must not lose its end.
fn read(name: &str, value: &OsStr, wanted: &[&str]) -> Result<Value, Problem> {
    let Some(text) = value.to_str() else {
        return Err(Problem::outside(
            format!("the environment variable `{name}` is not UTF-8"),
            "set it to UTF-8 text",
        ));
    };
    let parsed = Document::parse(name, text).map(|(value, problems)| (problems.is_empty(), value.tree));
    let text_fits = wanted.contains(&"string");
    match parsed {
        Ok((true, value)) if fits(&value, wanted, text) || !text_fits => Ok(value),
        _ if text_fits => Ok(Value::from(text)),
        _ => Err(Problem::outside(
            format!("the value of the environment variable `{name}` is not YAML"),
            "write it as it would stand in the file, such as `[a, b]` or `{key: value}`",
        )),
    }
}

/// Whether a parsed value is what was meant, where text would do as well.
fn fits(value: &Value, wanted: &[&str], text: &str) -> bool {
    match value {
        Value::String(_) => text.starts_with(['"', '\'']),
        other => wanted.contains(&type_of(other)) || (other.is_i64() && wanted.contains(&"number")),
    }
}
