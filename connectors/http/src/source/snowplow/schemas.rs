//! The JSON Schemas of what this input makes, printed from the table that it reads by.

use serde_json::{Map, Value, json};

use super::event::{ENTITY, KINDS, REDIRECT};
use super::parameters::{Group, Kind, PARAMETERS, PLATFORMS};

/// Every schema of events and entities that this input makes itself, by its key.
pub fn schemas() -> Vec<(String, Value)> {
    let mut schemas: Vec<(String, Value)> = KINDS
        .iter()
        .map(|(word, key, groups)| {
            let about = format!("An event of the Snowplow tracker protocol with `e={word}`");
            ((*key).to_owned(), schema(key, &about, fields(|group| groups.contains(&group))))
        })
        .collect();
    let mut common = fields(|_| true);
    for (name, about) in [
        ("network_userid", "The visitor, as the collector's cookie or the tracker says"),
        ("user_ipaddress", "The visitor's address, or what is kept of it"),
        ("useragent", "What the visitor's browser calls itself"),
    ] {
        common.insert(name.to_owned(), json!({ "type": "string", "description": about }));
    }
    let other = json!({
        "type": "object", "description": "Parameters that the protocol does not know", "additionalProperties": { "type": "string" },
    });
    common.insert("other".to_owned(), other);
    let about = "What goes with every event of the Snowplow tracker protocol";
    schemas.push((ENTITY.to_owned(), schema(ENTITY, about, common)));
    let uri = Map::from_iter([("uri".to_owned(), json!({ "type": "string" }))]);
    schemas.push((
        REDIRECT.to_owned(),
        schema(REDIRECT, "A link that was followed by way of the collector", uri),
    ));
    schemas
}

fn schema(key: &str, about: &str, properties: Map<String, Value>) -> Value {
    let mut parts = key.split('/');
    let mut part = || parts.next().expect("a key has three parts");
    json!({
        "$schema": "http://json-schema.org/draft-07/schema#",
        "description": about,
        "self": { "vendor": part(), "name": part(), "format": "jsonschema", "version": part() },
        "type": "object",
        "properties": properties,
        "additionalProperties": false,
    })
}

fn fields(wanted: impl Fn(Group) -> bool) -> Map<String, Value> {
    let mut fields = Map::new();
    let text = || json!({ "type": "string" });
    let whole = || json!({ "type": "integer" });
    for parameter in PARAMETERS.iter().filter(|parameter| wanted(parameter.group)) {
        let field = parameter.field.to_owned();
        match parameter.kind {
            Kind::Special => {}
            Kind::Text => drop(fields.insert(field, text())),
            Kind::Platform => drop(fields.insert(field, json!({ "enum": PLATFORMS }))),
            Kind::Integer => drop(fields.insert(field, whole())),
            Kind::Number => drop(fields.insert(field, json!({ "type": "number" }))),
            Kind::Flag => drop(fields.insert(field, json!({ "type": "boolean" }))),
            Kind::Time => drop(fields.insert(field, json!({ "type": "string", "format": "date-time" }))),
            Kind::Size(height) => {
                fields.insert(field, whole());
                fields.insert(height.to_owned(), whole());
            }
            Kind::Url(prefix) => {
                fields.insert(field, text());
                for part in ["scheme", "host", "path", "query", "fragment"] {
                    fields.insert(format!("{prefix}{part}"), text());
                }
                fields.insert(format!("{prefix}port"), whole());
            }
        }
    }
    fields
}
