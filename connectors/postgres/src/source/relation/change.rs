//! How far a table's JSON Schema is from the one before it. Pure.
//!
//! Both are schemas that this source has made, so that only the keywords are understood that it writes. What is judged
//! to be an addition or a revision has this property: every row that obeyed the schema before obeys the one after.

mod covers;
mod pg_type;

use forebay_api::SchemaChange;
use serde_json::{Map, Value};

use covers::covers;

/// A schema in the form in which two that say the same are equal: without the version in it, and with all lists sorted
/// whose order means nothing.
pub(super) fn canonical(schema: &Value) -> Value {
    match schema {
        Value::Object(members) => {
            let members = members.iter().filter(|(name, value)| *name != "$id" || !value.is_string());
            Value::Object(
                members.map(|(name, value)| (name.clone(), canonical_member(name, value))).collect(),
            )
        }
        Value::Array(items) => Value::Array(items.iter().map(canonical).collect()),
        other => other.clone(),
    }
}

/// Under `properties` these names are columns, and stand before objects.
fn canonical_member(name: &str, value: &Value) -> Value {
    let mut value = canonical(value);
    if let (Value::Array(items), "enum" | "required" | "type" | "x-pg-key") = (&mut value, name) {
        items.sort_by_key(Value::to_string);
    }
    value
}

/// What lies between two schemas of one table; `None`: nothing. Both are [`canonical`].
pub(super) fn change(before: &Value, after: &Value) -> Option<SchemaChange> {
    if before == after {
        return None;
    }
    let (was, is) = (Rows::of(before), Rows::of(after));
    // Rows are found by their key, and another one finds others.
    let mut found = (before.get("x-pg-key") != after.get("x-pg-key")).then_some(SchemaChange::Model);
    if before.get("description") != after.get("description") {
        found = found.max(Some(SchemaChange::Addition));
    }
    for (name, was_value) in was.columns() {
        let Some(is_value) = is.column(name) else { return Some(SchemaChange::Model) };
        found = found.max(column_change(was_value, is_value));
        found = found.max(match (was.requires(name), is.requires(name)) {
            (true, false) => Some(SchemaChange::Revision),
            (false, true) => Some(SchemaChange::Model),
            _ => None,
        });
    }
    for (name, value) in is.columns().filter(|(name, _)| was.column(name).is_none()) {
        let optional = !is.requires(name) && covers(value, &serde_json::json!({"type": "null"}));
        found = found.max(Some(if optional { SchemaChange::Addition } else { SchemaChange::Model }));
    }
    // They differ in something that is not understood here, so nothing is promised.
    found.or(Some(SchemaChange::Model))
}

/// What a schema says of rows.
struct Rows<'a> {
    columns: Option<&'a Map<String, Value>>,
    required: &'a [Value],
}

impl<'a> Rows<'a> {
    fn of(schema: &'a Value) -> Rows<'a> {
        Rows {
            columns: schema.get("properties").and_then(Value::as_object),
            required: schema.get("required").and_then(Value::as_array).map_or(&[], Vec::as_slice),
        }
    }

    fn columns(&self) -> impl Iterator<Item = (&'a String, &'a Value)> {
        self.columns.into_iter().flatten()
    }

    fn column(&self, name: &str) -> Option<&'a Value> {
        self.columns?.get(name)
    }

    fn requires(&self, column: &str) -> bool {
        self.required.iter().any(|name| name == column)
    }
}

fn column_change(was: &Value, is: &Value) -> Option<SchemaChange> {
    if was == is {
        None
    } else if without_comment(was) == without_comment(is) {
        Some(SchemaChange::Addition)
    } else if covers(is, was) {
        Some(SchemaChange::Revision)
    } else {
        Some(SchemaChange::Model)
    }
}

fn without_comment(schema: &Value) -> Value {
    let mut schema = schema.clone();
    if let Value::Object(members) = &mut schema {
        members.shift_remove("description");
    }
    schema
}

#[cfg(test)]
mod tests;
