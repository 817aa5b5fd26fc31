//! `${NAME}`, `${NAME:-default}` and `${file:/path}` in scalars, after YAML parsing.
//!
//! What they bring is never read as YAML, so no secret can break the file or smuggle a key into it. Keys are left
//! alone. A scalar that is nothing but one `${…}` may become a number or a truth where its field wants one; `$${`
//! stands for `${`.

use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io::Read;

use serde_json::Value;

use super::document::{Document, Focus, Missing, Origin, dotted, leaves};
use super::problem::Problem;
use super::shape::{Shape, types};

/// What a file named by `${file:…}` may hold: keys and certificates are smaller, a mistaken path may not be.
const MAX_SECRET_BYTES: u64 = 64 * 1024;

/// The environment variables, taken once, so that tests bring their own.
#[derive(Clone, Default)]
pub struct Environment {
    variables: BTreeMap<String, OsString>,
}

impl Environment {
    /// The process's own. A variable whose name is not UTF-8 cannot be named in a file and is left out.
    pub fn of_process() -> Environment {
        let named = |(name, value): (OsString, OsString)| Some((name.into_string().ok()?, value));
        Environment { variables: std::env::vars_os().filter_map(named).collect() }
    }

    /// The variables whose name begins with a prefix, by name.
    pub(super) fn beginning<'e>(&'e self, prefix: &'e str) -> impl Iterator<Item = (&'e str, &'e OsStr)> {
        self.variables
            .iter()
            .filter(move |(name, _)| name.starts_with(prefix))
            .map(|(name, value)| (name.as_str(), value.as_os_str()))
    }

    fn get(&self, name: &str) -> Option<&OsStr> {
        self.variables.get(name).map(OsString::as_os_str)
    }
}

impl<N: Into<String>, V: Into<OsString>> FromIterator<(N, V)> for Environment {
    fn from_iter<I: IntoIterator<Item = (N, V)>>(pairs: I) -> Environment {
        let variables = pairs.into_iter().map(|(name, value)| (name.into(), value.into())).collect();
        Environment { variables }
    }
}

/// Expands every scalar of the document as text; [`settle_types`] comes after the overrides, which may bring the
/// `type` that a field's type depends on.
pub(super) fn expand(document: &mut Document, environment: &Environment) -> Vec<Problem> {
    let mut problems = Vec::new();
    let mut expanded = Vec::new();
    let mut missing = Vec::new();
    let mut unknown = Vec::new();
    for (pointer, value) in leaves("", &document.tree) {
        let Some(text) = value.as_str().filter(|text| text.contains("${")) else { continue };
        match substitute(text, environment) {
            Ok(value) => expanded.push((pointer, text.to_owned(), value)),
            Err(Failure::Missing(name)) => missing.push((pointer, text.to_owned(), name)),
            Err(Failure::Wrong { message, help }) => {
                problems.push(document.problem(&pointer, Focus::Value, message, Some(help)));
                unknown.push(pointer);
            }
        }
    }
    document.unknown.extend(unknown);
    for (pointer, written, value) in expanded {
        *document.tree.pointer_mut(&pointer).expect("it was just read there") = Value::String(value);
        document.origins.insert(pointer, Origin::Expanded(written));
    }
    for (pointer, written, name) in missing {
        let (line, column) = document.position(&pointer);
        let option = dotted(&pointer);
        document.origins.insert(pointer.clone(), Origin::Expanded(written));
        document.unknown.insert(pointer.clone());
        document.missing.insert(pointer, Missing { name, option, line, column });
    }
    problems
}

/// Gives each scalar that is one `${…}` the type that its field wants, where its text can be read so.
pub(super) fn settle_types(document: &mut Document, shape: Shape<'_>) {
    let mut settled = Vec::new();
    for (pointer, origin) in &document.origins {
        let Origin::Expanded(written) = origin else { continue };
        let Some(Value::String(text)) = document.tree.pointer(pointer) else { continue };
        if is_one_reference(written) && !document.unknown.contains(pointer) {
            let wanted = types(&shape.at(&document.tree, pointer));
            settled.extend(typed(text, &wanted).map(|value| (pointer.clone(), value)));
        }
    }
    for (pointer, value) in settled {
        *document.tree.pointer_mut(&pointer).expect("it was just read there") = value;
    }
}

/// A problem for each thing that is missing, for when that is fatal.
pub(super) fn refuse_missing(document: &Document) -> Vec<Problem> {
    document
        .missing
        .iter()
        .map(|(pointer, missing)| {
            let (message, help) = match missing.name.strip_prefix("file:") {
                Some(path) => (
                    format!("the file `{path}` cannot be read"),
                    "create it, or let this user read it; `forebay check --offline` goes without".to_owned(),
                ),
                None => (
                    format!("the environment variable `{}` is not set", missing.name),
                    format!("set it, or give a default: `${{{}:-…}}`", missing.name),
                ),
            };
            document.problem(pointer, Focus::Value, message, Some(help))
        })
        .collect()
}

/// Why a text cannot be expanded.
enum Failure {
    /// It names something that is not there.
    Missing(String),
    /// It is not what it should be.
    Wrong { message: String, help: String },
}

impl Failure {
    fn wrong(message: impl Into<String>, help: impl Into<String>) -> Failure {
        Failure::Wrong { message: message.into(), help: help.into() }
    }
}

fn substitute(text: &str, environment: &Environment) -> Result<String, Failure> {
    let mut out = String::new();
    let mut rest = text;
    while let Some(at) = rest.find("${") {
        let (before, reference) = rest.split_at(at);
        if let Some(escaped) = before.strip_suffix('$') {
            out.push_str(escaped);
            out.push_str("${");
            rest = &reference[2..];
            continue;
        }
        out.push_str(before);
        let (inside, after) = reference[2..].split_once('}').ok_or_else(|| {
            Failure::wrong(
                "a `${` is never closed",
                "close it with `}`, or write `$${` for the characters themselves",
            )
        })?;
        out.push_str(&resolve(inside, environment)?);
        rest = after;
    }
    out.push_str(rest);
    Ok(out)
}

/// What stands for `${inside}`.
fn resolve(inside: &str, environment: &Environment) -> Result<String, Failure> {
    if let Some(path) = inside.strip_prefix("file:") {
        return read_secret(path).ok_or_else(|| Failure::Missing(inside.to_owned()))?;
    }
    let (name, default) = match inside.split_once(":-") {
        Some((name, default)) => (name, Some(default)),
        None => (inside, None),
    };
    let letter = |byte: u8| byte == b'_' || byte.is_ascii_alphabetic();
    if !name.bytes().next().is_some_and(letter)
        || !name.bytes().all(|byte| letter(byte) || byte.is_ascii_digit())
    {
        return Err(Failure::wrong(
            format!("`${{{inside}}}` names no environment variable"),
            "write `${NAME}`, `${NAME:-default}` or `${file:/path}`, or `$${` for the characters themselves",
        ));
    }
    match (environment.get(name), default) {
        (Some(value), Some(default)) if value.is_empty() => Ok(default.to_owned()),
        (Some(value), _) => value.to_str().map(str::to_owned).ok_or_else(|| {
            Failure::wrong(format!("the environment variable `{name}` is not UTF-8"), "set it to UTF-8 text")
        }),
        (None, Some(default)) => Ok(default.to_owned()),
        (None, None) => Err(Failure::Missing(name.to_owned())),
    }
}

/// A file's text without its last line break; `None` where it cannot be read.
fn read_secret(path: &str) -> Option<Result<String, Failure>> {
    let mut bytes = Vec::new();
    File::open(path).ok()?.take(MAX_SECRET_BYTES + 1).read_to_end(&mut bytes).ok()?;
    if bytes.len() as u64 > MAX_SECRET_BYTES {
        return Some(Err(Failure::wrong(
            format!("the file `{path}` has more than {MAX_SECRET_BYTES} bytes"),
            "name a file that holds only the secret",
        )));
    }
    let Ok(text) = String::from_utf8(bytes) else {
        return Some(Err(Failure::wrong(
            format!("the file `{path}` is not UTF-8"),
            "write it as UTF-8 text",
        )));
    };
    let line = text.strip_suffix('\n').unwrap_or(&text);
    Some(Ok(line.strip_suffix('\r').unwrap_or(line).to_owned()))
}

/// Whether a text is one `${…}` and nothing else.
fn is_one_reference(written: &str) -> bool {
    written.starts_with("${") && written.find('}') == Some(written.len() - 1)
}

/// A text as one of the types that are wanted, if it is none of text.
fn typed(text: &str, wanted: &[&str]) -> Option<Value> {
    if wanted.contains(&"string") {
        return None;
    }
    match text {
        "true" | "false" if wanted.contains(&"boolean") => Some(Value::Bool(text == "true")),
        _ if wanted.contains(&"integer") || wanted.contains(&"number") => {
            text.parse::<serde_json::Number>().ok().map(Value::Number)
        }
        _ => None,
    }
}
