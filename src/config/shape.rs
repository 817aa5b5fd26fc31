//! Walking a JSON Schema beside a value: which keys may stand here, of which type may this be.
//!
//! It knows the schemas that we generate: references, `allOf`, branches by `if`, and `oneOf`/`anyOf` whose branch is
//! chosen by a tag (`type: kafka`) or by the value's type. It judges nothing: that is the validator's part.

use serde_json::{Map, Value};

use super::document::tokens;

/// A schema to walk in.
#[derive(Debug, Clone, Copy)]
pub(super) struct Shape<'s> {
    /// The whole of it, which references point into.
    pub root: &'s Value,
}

impl<'s> Shape<'s> {
    /// The schemas that speak of the value at a pointer (which need not be there).
    pub(super) fn at(&self, tree: &Value, pointer: &str) -> Vec<&'s Value> {
        let mut instance = tree;
        let mut parts = self.parts(self.root, instance);
        for token in tokens(pointer) {
            instance = step(instance, &token);
            let inside: Vec<&Value> = parts.iter().filter_map(|part| inside(part, &token)).collect();
            parts = inside.into_iter().flat_map(|schema| self.parts(schema, instance)).collect();
        }
        parts
    }

    /// Everything that a schema says of a value, taken apart into schemas without branches.
    pub(super) fn parts(&self, schema: &'s Value, instance: &Value) -> Vec<&'s Value> {
        let mut out = vec![schema];
        if let Some(target) = self.target(schema) {
            out.extend(self.parts(target, instance));
        }
        for part in array(schema, "allOf") {
            out.extend(self.parts(part, instance));
        }
        if let Some(condition) = schema.get("if") {
            let branch = if tag_fits(condition, instance) == Some(true) { "then" } else { "else" };
            out.extend(schema.get(branch).into_iter().flat_map(|branch| self.parts(branch, instance)));
        }
        for branch in self.chosen(&branches(schema), instance) {
            out.extend(self.parts(branch, instance));
        }
        out
    }

    /// The branches that are meant for a value: by their tag, else by its type, else all.
    pub(super) fn chosen(&self, branches: &[&'s Value], instance: &Value) -> Vec<&'s Value> {
        let tagged: Vec<&Value> = branches
            .iter()
            .copied()
            .filter(|branch| tag_fits(self.resolved(branch), instance) == Some(true))
            .collect();
        if !tagged.is_empty() {
            return tagged;
        }
        let typed: Vec<&Value> = branches
            .iter()
            .copied()
            .filter(|branch| self.types(branch).contains(&type_of(instance)))
            .collect();
        if typed.is_empty() { branches.to_vec() } else { typed }
    }

    /// A schema behind its references.
    pub(super) fn resolved(&self, schema: &'s Value) -> &'s Value {
        self.target(schema).map_or(schema, |target| self.resolved(target))
    }

    /// The JSON types that a schema and its alternatives allow together.
    pub(super) fn types(&self, schema: &'s Value) -> Vec<&'s str> {
        let schema = self.resolved(schema);
        let below = branches(schema).into_iter().flat_map(|branch| self.types(branch));
        types(&[schema]).into_iter().chain(below).collect()
    }

    fn target(&self, schema: &'s Value) -> Option<&'s Value> {
        self.root.pointer(schema.get("$ref")?.as_str()?.strip_prefix('#')?)
    }
}

/// The keys that schemas name.
pub(super) fn keys<'s>(parts: &[&'s Value]) -> Vec<&'s str> {
    let mut keys: Vec<&str> =
        parts.iter().filter_map(|part| properties(part)).flat_map(Map::keys).map(String::as_str).collect();
    let mut seen = std::collections::HashSet::new();
    keys.retain(|key| seen.insert(*key));
    keys
}

/// The JSON types that schemas allow; none named: all.
pub(super) fn types<'s>(parts: &[&'s Value]) -> Vec<&'s str> {
    let mut types = Vec::new();
    for part in parts {
        match part.get("type") {
            Some(Value::String(name)) => types.push(name.as_str()),
            Some(Value::Array(names)) => types.extend(names.iter().filter_map(Value::as_str)),
            _ => {}
        }
        for value in part.get("const").into_iter().chain(array(part, "enum")) {
            types.push(type_of(value));
        }
    }
    types
}

/// The first word that schemas have for something.
pub(super) fn annotation<'s>(parts: &[&'s Value], keyword: &str) -> Option<&'s Value> {
    parts.iter().find_map(|part| part.get(keyword))
}

/// All alternatives of a schema.
pub(super) fn branches(schema: &Value) -> Vec<&Value> {
    array(schema, "oneOf").chain(array(schema, "anyOf")).collect()
}

/// The JSON Schema type of a value; integers are `integer`.
pub(super) fn type_of(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "boolean",
        Value::Number(number) if number.is_f64() => "number",
        Value::Number(_) => "integer",
        Value::String(_) => "string",
        Value::Array(_) => "array",
        Value::Object(_) => "object",
    }
}

/// Whether the constants that a schema wants of a mapping are there; `None` where it wants none.
fn tag_fits(schema: &Value, instance: &Value) -> Option<bool> {
    let mut tags =
        properties(schema)?.iter().filter_map(|(key, schema)| Some((key, schema.get("const")?))).peekable();
    tags.peek()?;
    Some(tags.all(|(key, constant)| instance.get(key) == Some(constant)))
}

fn properties(schema: &Value) -> Option<&Map<String, Value>> {
    schema.get("properties")?.as_object()
}

fn array<'s>(schema: &'s Value, keyword: &str) -> impl Iterator<Item = &'s Value> {
    schema.get(keyword).and_then(Value::as_array).into_iter().flatten()
}

/// What a schema says of one entry of a mapping or list.
fn inside<'s>(schema: &'s Value, token: &str) -> Option<&'s Value> {
    properties(schema)
        .and_then(|properties| properties.get(token))
        .or_else(|| schema.get("additionalProperties"))
        .or_else(|| schema.get("items"))
}

fn step<'v>(value: &'v Value, token: &str) -> &'v Value {
    match value {
        Value::Object(map) => map.get(token),
        Value::Array(items) => token.parse::<usize>().ok().and_then(|at| items.get(at)),
        _ => None,
    }
    .unwrap_or(&Value::Null)
}
