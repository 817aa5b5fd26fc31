//! The files in `config/`, which are for people and editors: true to what this build takes, and complete.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use forebay_api::units::ByteSize;
use serde_json::Value;

use super::super::document::Document;
use super::super::settings::Limits;
use super::super::{Environment, read, schema};
use crate::connectors::registry;

fn shipped(name: &str) -> (PathBuf, String) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("config").join(name);
    let text = fs::read_to_string(&path).unwrap();
    (path, text)
}

#[test]
fn the_schema_for_editors_is_that_of_this_build() {
    let (path, written) = shipped("schema.json");
    let fresh = format!("{:#}\n", schema(&registry()));
    assert!(
        written == fresh,
        "`{}` is not what the options are; renew it: `cargo run -- schema config > config/schema.json`",
        path.display()
    );
}

#[test]
fn the_example_is_a_configuration() {
    let (_, text) = shipped("example.yaml");
    let secret = tempfile::NamedTempFile::new().unwrap();
    fs::write(&secret, "secret\n").unwrap();
    let text = text.replace("/run/secrets/billing}", &format!("{}}}", secret.path().display()));
    let url = "postgres://forebay@db.internal/shop";
    let secrets = [
        "FOREBAY_SALT",
        "KAFKA_PASSWORD",
        "IGLU_KEY",
        "SCHEMAS_TOKEN",
        "HOOK_TOKEN",
        "HOOK_SECRET",
        "HOOK_PASSWORD",
        "STREAM_KEY_ID",
        "STREAM_SECRET",
        "STREAM_TOKEN",
    ];
    let environment: Environment = secrets
        .map(|name| (name, "secret"))
        .into_iter()
        .chain([("DATABASE_URL", url), ("COPY_URL", url)])
        .collect();
    let settings = read("example.yaml", &text, &registry(), &environment);
    let settings = settings.unwrap_or_else(|error| panic!("{}", error.render(false)));
    assert_eq!((settings.sources.len(), settings.destinations.len()), (4, 9));
}

#[test]
fn the_example_has_every_option_and_every_type() {
    let (_, text) = shipped("example.yaml");
    let schema = schema(&registry());
    let mut known = BTreeSet::new();
    options(&schema, &schema, "", &mut known);
    let (document, problems) = Document::parse("example.yaml", &text).unwrap();
    assert!(problems.is_empty());
    let mut given = BTreeSet::new();
    keys(&document.tree, "", &mut given);
    // one that excludes another can only stand in a comment
    let shown = |(_, key): &&(String, String)| text.contains(&format!("\n      # {key}: "));
    let lacking: Vec<_> = known.difference(&given).filter(|option| !shown(option)).collect();
    assert!(lacking.is_empty(), "`config/example.yaml` lacks (inside of, option): {lacking:?}");
    let types = |section: &str| {
        let entries = document.tree[section].as_object().unwrap().values();
        entries.map(|entry| entry["type"].as_str().unwrap().to_owned()).collect::<BTreeSet<_>>()
    };
    let registry = registry();
    let stores = document.tree["validation"]["registry"].as_array().unwrap().iter();
    let stores: BTreeSet<&str> = stores.map(|store| store["type"].as_str().unwrap()).collect();
    for kind in registry.schema_stores().keys().filter(|kind| !["gcs", "azure"].contains(*kind)) {
        assert!(stores.contains(kind), "`validation.registry` lacks `{kind}`");
    }
    assert_eq!(types("sources"), registry.sources().keys().map(ToString::to_string).collect());
    assert_eq!(types("destinations"), registry.destinations().keys().map(ToString::to_string).collect());
}

/// Every option of a schema, with the option that it stands in.
fn options(root: &Value, schema: &Value, inside: &str, found: &mut BTreeSet<(String, String)>) {
    let Some(schema) = schema.as_object() else { return };
    for (keyword, value) in schema {
        match (keyword.as_str(), value) {
            ("$ref", Value::String(target)) => {
                options(root, root.pointer(&target[1..]).unwrap(), inside, found);
            }
            ("properties", Value::Object(properties)) => {
                for (key, schema) in properties {
                    found.insert((inside.to_owned(), key.clone()));
                    options(root, schema, key, found);
                }
            }
            ("allOf" | "anyOf" | "oneOf", Value::Array(branches)) => {
                branches.iter().for_each(|branch| options(root, branch, inside, found));
            }
            ("then" | "items" | "additionalProperties", schema) => options(root, schema, inside, found),
            _ => {}
        }
    }
}

/// Every key of a document, with the key that it stands in. The names of sources, destinations and
/// vendors are no options.
fn keys(value: &Value, inside: &str, found: &mut BTreeSet<(String, String)>) {
    for item in value.as_array().into_iter().flatten() {
        keys(item, inside, found);
    }
    let Some(map) = value.as_object() else { return };
    for (key, value) in map {
        if ["sources", "destinations", "signatures"].contains(&inside) {
            for (key, value) in value.as_object().unwrap() {
                found.insert((inside.to_owned(), key.clone()));
                keys(value, key, found);
            }
        } else {
            found.insert((inside.to_owned(), key.clone()));
            keys(value, key, found);
        }
    }
}

#[test]
fn what_clients_take_for_themselves_is_not_for_events() {
    let mut limits = Limits { memory: Some(ByteSize::mib(64)), clients: ByteSize::mib(20) };
    assert_eq!(limits.events_budget(), ByteSize::mib(8));
    limits.clients = ByteSize::mib(0);
    assert_eq!(limits.events_budget(), ByteSize::mib(18));
    limits.clients = ByteSize::mib(100);
    assert_eq!(limits.events_budget(), ByteSize::mib(8), "some is left, however many there are");
    let text = "sources: {a: {type: postgres, url: 'postgres://u@h/d', tables: ['*.*']}}\n\
                destinations: {k: {type: kafka, brokers: ['b:1']}, l: {type: kafka, brokers: ['b:1']}}\n";
    let settings = read("forebay.yaml", text, &registry(), &Environment::default()).unwrap();
    assert_eq!(settings.limits.clients, ByteSize::mib(40));
}
