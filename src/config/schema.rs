//! The JSON Schema of the whole file: the core's keys and each connector's own, merged by `type`.
//!
//! It is generated, and everything else follows it: validation, the names in messages, the types of `${…}`, the
//! names that the environment can override, editors' completion. A branch is chosen by `if type is …`, so that a
//! validator speaks of the branch that was meant and of no other.

use forebay_api::Registry;
use schemars::{JsonSchema, Schema, generate::SchemaSettings};
use serde_json::{Map, Value, json};

use super::settings::{DestinationSettings, JournalSettings, NO_JOURNAL, Settings, SourceSettings};
use super::validation::{CommonStoreKeys, DESTINATION_STORE, DestinationStore};

/// Names of sources and destinations: they are in metrics, paths and names of environment variables.
const NAME_PATTERN: &str = "^(?!.*__)[a-z][a-z0-9_-]{0,62}$";

/// The schema of `forebay.yaml` with the connectors of this build.
pub fn schema(registry: &Registry) -> Value {
    let mut core = of::<Settings>();
    let mut definitions = take_map(&mut core, "$defs");
    let sources: Kinds =
        registry.sources().iter().map(|(name, entry)| (*name, entry.about, &entry.schema)).collect();
    let destinations: Kinds =
        registry.destinations().iter().map(|(name, entry)| (*name, entry.about, &entry.schema)).collect();
    let journals: Kinds =
        registry.journals().iter().map(|(name, entry)| (*name, entry.about, &entry.schema)).collect();
    let mut properties = Map::new();
    for (key, value) in take_map(&mut core, "properties") {
        if key == "journal" {
            properties
                .insert("sources".into(), section("source", "The databases that changes are read from."));
        }
        if key == "limits" {
            properties
                .insert("destinations".into(), section("destination", "Where every event is delivered."));
        }
        properties.insert(key, value);
    }
    define::<SourceSettings>("source", &sources, &mut definitions);
    define::<DestinationSettings>("destination", &destinations, &mut definitions);
    if !journals.is_empty() {
        define::<JournalSettings>("journal", &journals, &mut definitions);
    }
    definitions.insert("journal_choice".into(), journal_choice(&journals));
    let of_destination = schemars::schema_for!(DestinationStore);
    let mut stores: Kinds =
        registry.schema_stores().iter().map(|(name, entry)| (*name, entry.about, &entry.schema)).collect();
    stores.push((DESTINATION_STORE, "A destination keeps the schemas too.", &of_destination));
    define::<CommonStoreKeys>("schema_store", &stores, &mut definitions);
    let mut schema = json!({
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "Configuration of Forebay",
        "type": "object",
        "properties": properties,
        "required": ["sources", "destinations"],
        "additionalProperties": false,
        "$defs": definitions,
    });
    unwrap_descriptions(&mut schema);
    schema
}

/// The keys that all sources, or all destinations, have: those that a connector does not see.
pub(super) fn common_keys<T: JsonSchema>() -> Vec<String> {
    take_map(&mut of::<T>(), "properties").into_iter().map(|(key, _)| key).collect()
}

/// Type, description and own keys of each connector.
type Kinds<'r> = Vec<(&'r str, &'r str, &'r Schema)>;

fn of<T: JsonSchema>() -> Value {
    SchemaSettings::draft2020_12().into_generator().into_root_schema_for::<T>().to_value()
}

/// `sources` or `destinations`: names with an entry each.
fn section(noun: &str, description: &str) -> Value {
    json!({
        "description": description,
        "type": "object",
        "minProperties": 1,
        "propertyNames": {"title": "name", "pattern": NAME_PATTERN},
        "additionalProperties": {"$ref": format!("#/$defs/{noun}")},
    })
}

/// A kind of journal that needs no keys, or a mapping.
fn journal_choice(kinds: &Kinds<'_>) -> Value {
    let bare = |own: &Schema| own.get("required").and_then(Value::as_array).is_none_or(Vec::is_empty);
    let words = kinds.iter().filter(|(.., own)| bare(own)).map(|(kind, ..)| *kind);
    let words: Vec<&str> = std::iter::once(NO_JOURNAL).chain(words).collect();
    let mut branches = vec![json!({"type": "string", "enum": words})];
    if !kinds.is_empty() {
        branches.push(json!({"$ref": "#/$defs/journal"}));
    }
    json!({"anyOf": branches})
}

/// Adds the definition of an entry (`source`) and of each of its kinds (`source.postgres`).
fn define<T: JsonSchema>(noun: &str, kinds: &Kinds<'_>, definitions: &mut Map<String, Value>) {
    let mut common = of::<T>();
    definitions.extend(take_map(&mut common, "$defs"));
    let common = take_map(&mut common, "properties");
    let mut branches = Vec::new();
    for (kind, about, own) in kinds {
        let place = format!("{noun}.{kind}");
        branches.push(json!({
            "if": {"properties": {"type": {"const": kind}}, "required": ["type"]},
            "then": {"$ref": format!("#/$defs/{place}")},
        }));
        let mut own = Schema::clone(own).to_value();
        for (name, mut definition) in take_map(&mut own, "$defs") {
            move_references(&mut definition, &place);
            definitions.insert(format!("{place}.{name}"), definition);
        }
        move_references(&mut own, &place);
        definitions.insert(place, merged(kind, about, &common, own));
    }
    let names: Vec<&str> = kinds.iter().map(|(kind, ..)| *kind).collect();
    let entry = json!({
        "type": "object",
        "properties": {"type": {"description": format!("Which kind of {noun} this is."), "enum": names}},
        "required": ["type"],
        "allOf": branches,
    });
    definitions.insert(noun.to_owned(), entry);
}

/// One kind's whole mapping.
fn merged(kind: &str, about: &str, common: &Map<String, Value>, mut own: Value) -> Value {
    let mut properties = Map::new();
    properties.insert("type".into(), json!({"description": about, "const": kind}));
    for (key, value) in take_map(&mut own, "properties") {
        assert!(!common.contains_key(&key) && key != "type", "`{kind}` has a key `{key}` that all have");
        properties.insert(key, value);
    }
    properties.extend(common.clone());
    let mut required = vec![Value::from("type")];
    required.extend(own.get("required").and_then(Value::as_array).into_iter().flatten().cloned());
    json!({
        "description": about,
        "type": "object",
        "properties": properties,
        "required": required,
        "additionalProperties": false,
    })
}

/// Makes a connector's references point to where its definitions went.
fn move_references(schema: &mut Value, place: &str) {
    match schema {
        Value::Object(map) => {
            for (key, value) in map {
                match value {
                    Value::String(target) if key == "$ref" => {
                        *target = target.replace("#/$defs/", &format!("#/$defs/{place}."));
                    }
                    value => move_references(value, place),
                }
            }
        }
        Value::Array(items) => items.iter_mut().for_each(|item| move_references(item, place)),
        _ => {}
    }
}

/// Descriptions come from comments that are broken into lines; editors break them where it suits them.
fn unwrap_descriptions(schema: &mut Value) {
    match schema {
        Value::Object(map) => {
            for (key, value) in map {
                match value {
                    Value::String(text) if key == "description" => *text = text.replace('\n', " "),
                    value => unwrap_descriptions(value),
                }
            }
        }
        Value::Array(items) => items.iter_mut().for_each(unwrap_descriptions),
        _ => {}
    }
}

/// Takes a mapping out of a schema; an empty one where it has none.
fn take_map(schema: &mut Value, key: &str) -> Map<String, Value> {
    match schema.get_mut(key).map(Value::take) {
        Some(Value::Object(map)) => map,
        _ => Map::new(),
    }
}
