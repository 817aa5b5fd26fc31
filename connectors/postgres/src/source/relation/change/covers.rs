//! Whether one schema of a value allows all that another one does. Pure.

use serde_json::{Map, Value};

use super::pg_type;

/// Whether every value that `before` allows is allowed by `after`, and means the same there.
pub(super) fn covers(after: &Value, before: &Value) -> bool {
    let (Some(wide), Some(narrow)) = (branches(after, None), branches(before, None)) else { return false };
    narrow.iter().all(|narrow| wide.iter().any(|wide| wide.covers(narrow)))
}

/// One of the ways in which a value may obey a schema.
struct Branch<'a> {
    /// The schema around it that names its type.
    named: Option<&'a Map<String, Value>>,
    allows: Allows<'a>,
}

/// What obeys a branch.
enum Allows<'a> {
    Any,
    Null,
    Is(&'a Value),
    /// What is of this type and obeys the keywords for it.
    Typed(&'a str, &'a Map<String, Value>),
}

/// All ways; `None` where a schema is not understood.
fn branches<'a>(schema: &'a Value, outer: Option<&'a Map<String, Value>>) -> Option<Vec<Branch<'a>>> {
    let members = match schema {
        Value::Bool(true) => return Some(vec![Branch { named: outer, allows: Allows::Any }]),
        Value::Bool(false) => return Some(Vec::new()),
        other => other.as_object()?,
    };
    let named = if members.contains_key("x-pg-type") { Some(members) } else { outer };
    if let Some(Value::Array(any)) = members.get("anyOf") {
        let parts: Option<Vec<_>> = any.iter().map(|part| branches(part, named)).collect();
        return Some(parts?.into_iter().flatten().collect());
    }
    let allowed: Vec<Allows<'a>> = match (members.get("enum"), members.get("const"), members.get("type")) {
        (Some(Value::Array(values)), None, _) => values.iter().map(one).collect(),
        (None, Some(value), _) => vec![one(value)],
        (None, None, Some(Value::String(of))) => vec![typed(of, members)],
        (None, None, Some(Value::Array(of))) => {
            of.iter().map(|of| of.as_str().map(|of| typed(of, members))).collect::<Option<_>>()?
        }
        (None, None, None) if members.keys().all(|name| pg_type::is_annotation(name)) => vec![Allows::Any],
        _ => return None,
    };
    Some(allowed.into_iter().map(|allows| Branch { named, allows }).collect())
}

fn one(value: &Value) -> Allows<'_> {
    if value.is_null() { Allows::Null } else { Allows::Is(value) }
}

fn typed<'a>(of: &'a str, members: &'a Map<String, Value>) -> Allows<'a> {
    if of == "null" { Allows::Null } else { Allows::Typed(of, members) }
}

impl Branch<'_> {
    fn covers(&self, narrow: &Branch<'_>) -> bool {
        let means_the_same = pg_type::widens(narrow.named, self.named);
        match (&self.allows, &narrow.allows) {
            // no value at all means the same for every type
            (Allows::Null, Allows::Null) => true,
            (Allows::Any, _) => means_the_same,
            (Allows::Is(wide), Allows::Is(narrow)) => means_the_same && wide == narrow,
            (Allows::Typed(wide, after), Allows::Typed(narrow, before)) => {
                let fits = wide == narrow || (*wide, *narrow) == ("number", "integer");
                means_the_same && fits && keywords(wide, after, before)
            }
            _ => false,
        }
    }
}

/// Whether the keywords for a type allow all that those before did.
fn keywords(of: &str, after: &Map<String, Value>, before: &Map<String, Value>) -> bool {
    let same_or_gone = |name| after.get(name).is_none_or(|is| before.get(name) == Some(is));
    let at_most = |name| limit(after, before, name, |is, was| is >= was);
    let at_least = |name| limit(after, before, name, |is, was| is <= was);
    match of {
        "number" | "integer" => at_least("minimum") && at_most("maximum"),
        "string" => {
            // Text is not what its encoding was of.
            at_most("maxLength")
                && same_or_gone("pattern")
                && same_or_gone("format")
                && after.get("contentEncoding") == before.get("contentEncoding")
        }
        "array" => at_least("minItems") && at_most("maxItems") && part(after, before, "items"),
        "object" => object(after, before),
        "boolean" => true,
        _ => false,
    }
}

fn limit(
    after: &Map<String, Value>,
    before: &Map<String, Value>,
    name: &str,
    holds: fn(i64, i64) -> bool,
) -> bool {
    match (after.get(name), before.get(name)) {
        (None, _) => true,
        (Some(_), None) => false,
        (Some(is), Some(was)) => is.as_i64().zip(was.as_i64()).is_some_and(|(is, was)| holds(is, was)),
    }
}

/// The schema of parts of a value, where there is one.
fn part(after: &Map<String, Value>, before: &Map<String, Value>, name: &str) -> bool {
    match (after.get(name), before.get(name)) {
        (None, _) => true,
        (Some(_), None) => false,
        (Some(is), Some(was)) => covers(is, was),
    }
}

/// Objects have the same properties, each of which covers the one before.
fn object(after: &Map<String, Value>, before: &Map<String, Value>) -> bool {
    let none = Map::new();
    let is = after.get("properties").and_then(Value::as_object).unwrap_or(&none);
    let was = before.get("properties").and_then(Value::as_object).unwrap_or(&none);
    let covered = |(name, was): (&String, &Value)| is.get(name).is_some_and(|is| covers(is, was));
    is.len() == was.len()
        && was.iter().all(covered)
        && after.get("required") == before.get("required")
        && after.get("patternProperties") == before.get("patternProperties")
        && part(after, before, "additionalProperties")
}
