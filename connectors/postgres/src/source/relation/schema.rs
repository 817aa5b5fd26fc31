//! The JSON Schema (draft 2020-12) of a table's rows. Pure.
//!
//! Payloads of inserts, updates and snapshots obey it. A column is `required` where it is in all of them: where it has a
//! value in every row, and one that the server sends even when it did not change.

use std::fmt::Write;

use serde_json::{Map, Value, json};

use super::outline::Outline;
use crate::decode::row::{Columns, Treatment};

/// What every schema begins with.
const DRAFT: &str = "https://json-schema.org/draft/2020-12/schema";

/// The schema of a table's rows; `columns` are the outline's, with what the configuration does to them.
pub(super) fn of_table(title: &str, outline: &Outline, columns: &Columns) -> Value {
    let mut properties = Map::new();
    let (mut required, mut key) = (Vec::new(), Vec::new());
    for column in columns.0.iter().filter(|column| !matches!(column.treatment, Treatment::Exclude)) {
        let part = outline.part(&column.name);
        let mut schema = column.schema();
        if let (Some(comment), Value::Object(members)) =
            (part.and_then(|part| part.comment.as_deref()), &mut schema)
        {
            members.insert("description".to_owned(), comment.into());
        }
        properties.insert(column.name.clone(), schema);
        if column.not_null && part.is_some_and(|part| part.inline) {
            required.push(column.name.as_str());
        }
        if column.key {
            key.push(column.name.as_str());
        }
    }
    let mut schema = Map::new();
    schema.insert("$schema".to_owned(), DRAFT.into());
    schema.insert("title".to_owned(), title.into());
    if let Some(comment) = &outline.comment {
        schema.insert("description".to_owned(), comment.as_str().into());
    }
    schema.insert("type".to_owned(), "object".into());
    schema.insert("properties".to_owned(), properties.into());
    schema.insert("required".to_owned(), required.into());
    schema.insert("additionalProperties".to_owned(), false.into());
    if !key.is_empty() {
        schema.insert("x-pg-key".to_owned(), key.into());
    }
    Value::Object(schema)
}

/// The schema of what applications write with `pg_logical_emit_message`.
pub(super) fn of_messages() -> Value {
    json!({
        "$schema": DRAFT,
        "title": super::MESSAGES,
        "description": "A message that an application wrote with pg_logical_emit_message.",
        "type": "object",
        "properties": {
            "prefix": {"type": "string", "description": "What it is for."},
            "encoding": {
                "enum": ["utf-8", "base64"],
                "description": "How its bytes are written: as they are, or in base64 where they are no UTF-8.",
            },
            "content": {"type": "string"},
        },
        "required": ["prefix", "encoding", "content"],
        "additionalProperties": false,
    })
}

/// The schema as a version of it is published, under the path that serves it.
pub(super) fn published(schema: &Value, vendor: &str, name: &str, version: &str) -> String {
    let mut whole = Map::new();
    let path = format!("/s/{}/{}/{version}", segment(vendor), segment(name));
    for (keyword, value) in schema.as_object().into_iter().flatten() {
        whole.insert(keyword.clone(), value.clone());
        if keyword == "$schema" {
            whole.insert("$id".to_owned(), path.as_str().into());
        }
    }
    Value::Object(whole).to_string()
}

/// A name as a part of a path (RFC 3986).
fn segment(name: &str) -> String {
    let mut path = String::with_capacity(name.len());
    for byte in name.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
            path.push(char::from(byte));
        } else {
            write!(path, "%{byte:02X}").expect("writing to a string succeeds");
        }
    }
    path
}
