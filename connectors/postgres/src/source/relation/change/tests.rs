//! What each change of a table comes to, and what the judgement promises.

use forebay_api::SchemaChange::{Addition, Model, Revision};
use proptest::prelude::{Strategy, any, prop_assert, proptest};
use proptest::sample::{Index, select};
use serde_json::json;
use tokio_postgres::types::Type;

use super::*;
use crate::decode::options::{Digits, ValueOptions};
use crate::decode::row::Treatment;
use crate::decode::schema::value_schema;
use crate::decode::types::{CatalogAttribute, CatalogType, TypeCatalog, TypeKind};

const MOOD: u32 = 90_001;
const DOMAIN: u32 = 90_002;
const PAIR: u32 = 90_003;

fn catalog(labels: &[&str], options: ValueOptions) -> TypeCatalog {
    let mut types = TypeCatalog::new(options);
    let labels: Vec<String> = labels.iter().map(|&label| label.to_owned()).collect();
    let attribute =
        |(name, type_oid): (&str, u32)| CatalogAttribute { name: name.to_owned(), type_oid, modifier: -1 };
    let pair = [("a", Type::INT4.oid()), ("mood", MOOD)].map(attribute).to_vec();
    for (oid, name, kind) in [
        (MOOD, "mood", TypeKind::Enum(labels)),
        (DOMAIN, "positive", TypeKind::Domain { base: Type::INT4.oid(), modifier: -1 }),
        (PAIR, "pair", TypeKind::Composite(pair)),
    ] {
        types.insert(oid, CatalogType { namespace: "public".to_owned(), name: name.to_owned(), kind });
    }
    types
}

/// The schema of a value of this type.
fn value(oid: u32, modifier: i32) -> Value {
    let types = catalog(&["sad", "happy"], ValueOptions::default());
    value_schema(&types.column_type(oid), modifier, true, &Treatment::Keep)
}

fn table(columns: &[(&str, Value)], required: &[&str]) -> Value {
    let properties: Map<String, Value> =
        columns.iter().map(|(name, schema)| ((*name).to_owned(), schema.clone())).collect();
    let schema = json!({
        "$schema": "x", "$id": "/s/v/n/1-0-0", "title": "t", "type": "object", "properties": properties,
        "required": required, "additionalProperties": false, "x-pg-key": ["id"],
    });
    canonical(&schema)
}

fn of_types(before: Value, after: Value) -> Option<SchemaChange> {
    change(&table(&[("c", before)], &[]), &table(&[("c", after)], &[]))
}

/// What a length or a precision is in a modifier.
fn length(length: i32) -> i32 {
    length + 4
}

fn digits(precision: i32, scale: i32) -> i32 {
    (precision << 16 | scale) + 4
}

#[test]
fn another_type_is_a_revision_where_it_holds_all_that_the_one_before_did() {
    let t = |of: Type| of.oid();
    let types = [
        ((t(Type::INT2), -1), (t(Type::INT4), -1), Revision),
        ((t(Type::INT4), -1), (t(Type::INT8), -1), Revision),
        ((t(Type::INT8), -1), (t(Type::INT4), -1), Model),
        ((t(Type::INT4), -1), (t(Type::NUMERIC), -1), Revision),
        ((t(Type::INT4), -1), (t(Type::NUMERIC), digits(12, 2)), Revision),
        ((t(Type::INT4), -1), (t(Type::NUMERIC), digits(10, 2)), Model),
        ((t(Type::INT8), -1), (t(Type::FLOAT8), -1), Model),
        ((t(Type::FLOAT4), -1), (t(Type::FLOAT8), -1), Revision),
        ((t(Type::NUMERIC), digits(10, 2)), (t(Type::NUMERIC), digits(12, 2)), Revision),
        ((t(Type::NUMERIC), digits(10, 2)), (t(Type::NUMERIC), -1), Revision),
        ((t(Type::NUMERIC), digits(10, 2)), (t(Type::NUMERIC), digits(10, 3)), Model),
        ((t(Type::NUMERIC), -1), (t(Type::NUMERIC), digits(10, 2)), Model),
        ((t(Type::VARCHAR), length(10)), (t(Type::VARCHAR), length(20)), Revision),
        ((t(Type::VARCHAR), length(20)), (t(Type::VARCHAR), length(10)), Model),
        ((t(Type::VARCHAR), length(10)), (t(Type::TEXT), -1), Revision),
        ((t(Type::TEXT), -1), (t(Type::VARCHAR), length(10)), Model),
        ((t(Type::TEXT), -1), (t(Type::UUID), -1), Model),
        ((t(Type::UUID), -1), (t(Type::TEXT), -1), Model),
        ((t(Type::TEXT), -1), (t(Type::BYTEA), -1), Model),
        ((t(Type::JSON), -1), (t(Type::JSONB), -1), Model),
        ((t(Type::TIMESTAMPTZ), 3), (t(Type::TIMESTAMPTZ), -1), Revision),
        ((t(Type::TIMESTAMPTZ), -1), (t(Type::TIMESTAMPTZ), 3), Model),
        ((t(Type::TIMESTAMP), -1), (t(Type::TIMESTAMPTZ), -1), Model),
        ((t(Type::INT4_ARRAY), -1), (t(Type::INT8_ARRAY), -1), Revision),
        ((t(Type::INT8_ARRAY), -1), (t(Type::TEXT_ARRAY), -1), Model),
        ((t(Type::TEXT_ARRAY), -1), (t(Type::BYTEA_ARRAY), -1), Model),
        ((t(Type::INT4_RANGE), -1), (t(Type::INT8_RANGE), -1), Model),
        ((DOMAIN, -1), (t(Type::INT4), -1), Revision),
        ((t(Type::INT4), -1), (DOMAIN, -1), Model),
        ((MOOD, -1), (t(Type::TEXT), -1), Model),
        ((PAIR, -1), (t(Type::TEXT), -1), Model),
    ];
    for ((was, was_modifier), (is, is_modifier), expected) in types {
        let (was, is) = (value(was, was_modifier), value(is, is_modifier));
        assert_eq!(of_types(was.clone(), is.clone()), Some(expected), "{was} to {is}");
    }
}

#[test]
fn a_label_that_was_added_is_a_revision_also_inside_of_other_types() {
    let with = |labels: &[&str], oid| {
        let types = catalog(labels, ValueOptions::default());
        value_schema(&types.column_type(oid), -1, true, &Treatment::Keep)
    };
    for oid in [MOOD, PAIR] {
        let change = |before: &[&str], after: &[&str]| of_types(with(before, oid), with(after, oid));
        assert_eq!(change(&["a", "b"], &["a", "c", "b"]), Some(Revision));
        assert_eq!(
            change(&["a", "b"], &["b", "a"]),
            None,
            "the order says nothing of which values there are"
        );
        assert_eq!(change(&["a", "b"], &["a"]), Some(Model));
        assert_eq!(change(&["a", "b"], &["a", "c"]), Some(Model));
    }
}

#[test]
fn values_that_are_written_in_another_way_are_a_new_model() {
    let digits = ValueOptions { int8: Digits::String, ..ValueOptions::default() };
    let as_string = catalog(&[], digits).column_type(Type::INT8.oid());
    let as_string = value_schema(&as_string, -1, true, &Treatment::Keep);
    assert_eq!(of_types(value(Type::INT8.oid(), -1), as_string), Some(Model));
    let text = catalog(&[], ValueOptions::default()).column_type(Type::TEXT.oid());
    let hashed = value_schema(&text, -1, true, &Treatment::hash("salt"));
    assert_eq!(of_types(value(Type::TEXT.oid(), -1), hashed.clone()), Some(Model));
    assert_eq!(of_types(hashed, value(Type::TEXT.oid(), -1)), Some(Model));
}

#[test]
fn columns_come_as_additions_where_they_are_optional_and_go_as_new_models() {
    let text = catalog(&[], ValueOptions::default()).column_type(Type::TEXT.oid());
    let (maybe, surely) =
        (value_schema(&text, -1, true, &Treatment::Keep), value_schema(&text, -1, false, &Treatment::Keep));
    let id = || ("id", value(Type::INT4.oid(), -1));
    let one = table(&[id()], &["id"]);
    let two = table(&[id(), ("c", maybe.clone())], &["id"]);
    let two_sure = table(&[id(), ("c", surely.clone())], &["id"]);
    let two_always = table(&[id(), ("c", surely.clone())], &["c", "id"]);
    assert_eq!(change(&one, &two), Some(Addition));
    assert_eq!(change(&one, &two_sure), Some(Model), "no row from before has a value");
    assert_eq!(change(&two, &one), Some(Model));
    assert_eq!(change(&two, &two_always), Some(Model), "NOT NULL was set");
    assert_eq!(change(&two_always, &two), Some(Revision), "NOT NULL was dropped");
    let renamed = table(&[id(), ("d", maybe.clone())], &["id"]);
    assert_eq!(change(&two, &renamed), Some(Model));
    let moved = table(&[("c", maybe), id()], &["id"]);
    assert_eq!(change(&two, &moved), None, "the order of members means nothing in JSON");
}

#[test]
fn a_comment_is_an_addition_and_another_key_a_new_model() {
    let plain = || json!({"type": "integer", "x-pg-type": "integer"});
    let mut described = plain();
    described["description"] = "of whom".into();
    assert_eq!(of_types(plain(), described.clone()), Some(Addition));
    assert_eq!(of_types(described, plain()), Some(Addition));
    let before = table(&[("c", plain())], &[]);
    let mut after = before.clone();
    after["description"] = "all orders".into();
    assert_eq!(change(&before, &after), Some(Addition));
    after["x-pg-key"] = json!(["c"]);
    assert_eq!(change(&before, &after), Some(Model));
    let mut unknown = before.clone();
    unknown["minProperties"] = 1.into();
    assert_eq!(change(&before, &unknown), Some(Model), "nothing is promised of what is not understood");
}

#[test]
fn two_schemas_that_say_the_same_are_equal_whatever_their_version_is() {
    let with = |id: &str| {
        canonical(
            &json!({"$id": id, "properties": {"$id": {"type": ["string", "null"]}, "enum": {"enum": ["b", "a"]}}}),
        )
    };
    assert_eq!(with("1-0-0"), with("2-0-0"));
    assert_eq!(with("")["properties"]["enum"]["enum"], json!(["a", "b"]));
    assert!(with("")["properties"].get("$id").is_some(), "a column of that name stays");
}

/// Schemas of all kinds of types, with and without null, some of them with other labels.
fn value_schemas() -> Vec<Value> {
    let built_in = [
        (Type::INT2, -1),
        (Type::INT4, -1),
        (Type::INT8, -1),
        (Type::NUMERIC, -1),
        (Type::NUMERIC, digits(4, 2)),
        (Type::NUMERIC, digits(20, 4)),
        (Type::FLOAT4, -1),
        (Type::FLOAT8, -1),
        (Type::TEXT, -1),
        (Type::VARCHAR, length(3)),
        (Type::VARCHAR, length(30)),
        (Type::BPCHAR, length(3)),
        (Type::UUID, -1),
        (Type::BYTEA, -1),
        (Type::DATE, -1),
        (Type::TIMESTAMP, 3),
        (Type::TIMESTAMP, -1),
        (Type::JSONB, -1),
        (Type::BOOL, -1),
        (Type::BIT, 3),
        (Type::VARBIT, 5),
        (Type::INT4_ARRAY, -1),
        (Type::INT8_ARRAY, -1),
        (Type::TEXT_ARRAY, -1),
        (Type::INT4_RANGE, -1),
        (Type::INT8_RANGE, -1),
    ];
    let mut schemas = Vec::new();
    for nullable in [true, false] {
        let types = catalog(&["sad"], ValueOptions::default());
        let schema = |oid| {
            move |types: &TypeCatalog, modifier| {
                value_schema(&types.column_type(oid), modifier, nullable, &Treatment::Keep)
            }
        };
        schemas.extend(built_in.iter().map(|(of, modifier)| schema(of.oid())(&types, *modifier)));
        for labels in [&["sad"][..], &["sad", "happy"]] {
            let types = catalog(labels, ValueOptions::default());
            schemas.extend([MOOD, DOMAIN, PAIR].map(|oid| schema(oid)(&types, -1)));
        }
        schemas.push(value_schema(&types.column_type(25), -1, nullable, &Treatment::hash("salt")));
    }
    schemas
}

#[test]
fn what_a_column_held_obeys_each_schema_that_widens_it() {
    let schemas: Vec<_> = value_schemas()
        .into_iter()
        .map(|schema| (jsonschema::validator_for(&schema).unwrap(), canonical(&schema)))
        .collect();
    let values = values();
    let mut widened = 0;
    for (allowed, before) in &schemas {
        assert!(values.iter().any(|value| allowed.is_valid(value)), "no value to try {before} with");
        for (allows, after) in
            schemas.iter().filter(|(_, after)| column_change(before, after) == Some(Revision))
        {
            widened += 1;
            for value in values.iter().filter(|value| allowed.is_valid(value)) {
                assert!(allows.is_valid(value), "{value} obeys {before} and not {after}");
            }
        }
    }
    assert!(widened > 100, "only {widened} pairs");
}

fn any_table() -> impl Strategy<Value = Value> {
    let column = (select(vec!["a", "b", "c"]), select(value_schemas()), any::<bool>());
    proptest::collection::vec(column, 0..4).prop_map(|mut columns| {
        columns.sort_by_key(|(name, ..)| *name);
        columns.dedup_by_key(|(name, ..)| *name);
        let required: Vec<&str> =
            columns.iter().filter(|(_, _, required)| *required).map(|(name, ..)| *name).collect();
        let columns: Vec<_> = columns.iter().map(|(name, schema, _)| (*name, schema.clone())).collect();
        table(&columns, &required)
    })
}

/// Values of many types, of which each schema allows some.
fn values() -> Vec<Value> {
    vec![
        Value::Null,
        json!(true),
        json!(0),
        json!(-40_000),
        json!(3_000_000_000_u64),
        json!(1.5),
        json!("NaN"),
        json!("sad"),
        json!("happy"),
        json!("abc"),
        json!("a longer text than three"),
        json!("010"),
        json!("YWJj"),
        json!("a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11"),
        json!("2026-11-22"),
        json!("0123456789abcdef".repeat(4)),
        json!("2026-11-22T18:34:00.123456"),
        json!("infinity"),
        json!([]),
        json!([1, null, [3_000_000_000_u64]]),
        json!([1, 2]),
        json!(["a"]),
        json!({"lower": 1, "upper": null, "bounds": "[)", "empty": false}),
        json!({"a": 1, "mood": "sad"}),
        json!({"a": 1, "mood": "happy"}),
    ]
}

/// A row of allowed values, picked by chance; a column that is not required may be missing.
fn row(schema: &Value, picks: &[Index]) -> Option<Value> {
    let rows = Rows::of(schema);
    let mut row = Map::new();
    for ((name, of), pick) in rows.columns().zip(picks) {
        let validator = jsonschema::validator_for(of).unwrap();
        let allowed: Vec<Value> = values().into_iter().filter(|value| validator.is_valid(value)).collect();
        let choices = allowed.len() + usize::from(!rows.requires(name));
        match allowed.get(pick.index(choices.max(1))) {
            Some(value) => drop(row.insert(name.clone(), value.clone())),
            None if rows.requires(name) => return None,
            None => {}
        }
    }
    Some(row.into())
}

proptest! {
    #[test]
    fn rows_from_before_an_addition_or_a_revision_obey_the_schema_after(
        before in any_table(),
        after in any_table(),
        picks: [Index; 3],
    ) {
        let change = change(&before, &after);
        if matches!(change, None | Some(Addition | Revision)) && let Some(row) = row(&before, &picks) {
            let plain = |schema: &Value| {
                let mut schema = schema.clone();
                schema.as_object_mut().unwrap().shift_remove("$schema");
                jsonschema::validator_for(&schema).unwrap()
            };
            prop_assert!(plain(&before).is_valid(&row));
            prop_assert!(plain(&after).is_valid(&row), "{change:?}: {row} does not obey {after}");
        }
    }

    #[test]
    fn every_change_has_a_name(before in any_table(), after in any_table()) {
        prop_assert!(change(&before, &after).is_none() == (before == after));
        prop_assert!(change(&before, &before).is_none());
    }
}
