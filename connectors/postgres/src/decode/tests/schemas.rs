//! Values and their schemas: what is written is what it shall be, and obeys.

use std::sync::LazyLock;

use jsonschema::Validator;

use super::super::column_type::ColumnType;
use super::super::options::{Digits, ValueOptions};
use super::super::row::Treatment;
use super::super::schema::value_schema;
use super::*;

/// A validator that asserts formats, as the strictest consumer does. The schema itself must be one.
fn validator(schema: &Json) -> Validator {
    jsonschema::draft202012::meta::validate(schema).unwrap();
    let options = jsonschema::draft202012::options().should_validate_formats(true);
    options.build(schema).unwrap_or_else(|error| panic!("{error} in {schema:#}"))
}

/// Each type of the samples, how it is written and what it must obey.
static TYPES: LazyLock<Vec<(u32, i32, ColumnType, Validator)>> = LazyLock::new(|| {
    let types = samples::catalog();
    let with_schema = samples::OIDS.iter().map(|&(oid, modifier)| {
        let kind = types.column_type(oid);
        let schema = value_schema(&kind, modifier, false, &Treatment::Keep);
        (oid, modifier, kind, validator(&schema))
    });
    with_schema.collect()
});

fn schema(oid: u32, modifier: i32) -> Json {
    value_schema(&samples::catalog().column_type(oid), modifier, false, &Treatment::Keep)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    #[test]
    fn what_a_type_prints_becomes_what_it_means_and_obeys_its_schema(
        (at, (text, expected)) in (0..samples::OIDS.len()).prop_flat_map(|at| {
            let (oid, modifier) = samples::OIDS[at];
            (Just(at), samples::sample(oid, modifier))
        }),
    ) {
        let (oid, _, kind, validator) = &TYPES[at];
        let written = json(&kind.encoder, &text);
        prop_assert_eq!(&written, &expected, "type {} printed {}", oid, text);
        prop_assert!(validator.is_valid(&written), "type {}: {}", oid, written);
    }
}

#[test]
fn a_schema_says_the_exact_type_and_what_json_schema_can_say() {
    for (oid, modifier, expected) in [
        (16, -1, serde_json::json!({"type": "boolean", "x-pg-type": "boolean"})),
        (
            21,
            -1,
            serde_json::json!({"type": "integer", "minimum": -32768, "maximum": 32767, "x-pg-type": "smallint"}),
        ),
        (
            1043,
            24,
            serde_json::json!({"type": "string", "maxLength": 20, "x-pg-type": "character varying(20)"}),
        ),
        (1042, 7, serde_json::json!({"type": "string", "maxLength": 3, "x-pg-type": "character(3)"})),
        (
            1560,
            3,
            serde_json::json!({"type": "string", "pattern": "^[01]*$", "maxLength": 3, "x-pg-type": "bit(3)"}),
        ),
        (17, -1, serde_json::json!({"type": "string", "contentEncoding": "base64", "x-pg-type": "bytea"})),
        (2950, -1, serde_json::json!({"type": "string", "format": "uuid", "x-pg-type": "uuid"})),
        (3802, -1, serde_json::json!({"x-pg-type": "jsonb"})),
        (600, -1, serde_json::json!({"type": "string", "x-pg-type": "point"})),
        (
            1700,
            655_366,
            serde_json::json!({"anyOf": [{"type": "number"}, {"enum": ["NaN", "Infinity", "-Infinity"]}], "x-pg-type": "numeric(10,2)"}),
        ),
        (
            20_000,
            -1,
            serde_json::json!({"type": "string", "enum": ["sad", "so, so \"la la\"", "ünïcode", ""], "x-pg-type": "public.t20000"}),
        ),
        (
            20_003,
            -1,
            serde_json::json!({"type": "string", "maxLength": 5, "x-pg-type": "character varying(5)", "x-pg-domain": "public.t20003"}),
        ),
        (
            1015,
            24,
            serde_json::json!({
                "type": "array",
                "items": {"anyOf": [
                    {"type": ["string", "null"], "maxLength": 20, "x-pg-type": "character varying(20)"},
                    {"type": "array"},
                ]},
                "x-pg-type": "character varying(20)[]",
            }),
        ),
        (29_999, -1, serde_json::json!({"type": "string", "x-pg-type": "oid 29999"})),
    ] {
        assert_eq!(schema(oid, modifier), expected);
    }
    assert_eq!(schema(20_004, -1)["x-pg-type"], "public.t20003[]");
    let pair = schema(20_010, -1);
    assert_eq!(pair["required"], serde_json::json!(["a", "b \"c", "m", "tags"]));
    assert_eq!(pair["properties"]["tags"]["x-pg-domain"], "public.t20005");
    assert_eq!(pair["additionalProperties"], false);
}

#[test]
fn a_schema_refuses_what_its_type_has_not() {
    for (oid, modifier, wrong) in [
        (21, -1, serde_json::json!(32768)),
        (20, -1, serde_json::json!(1.5)),
        (1043, 7, serde_json::json!("four")),
        (1700, -1, serde_json::json!("nan")),
        (1082, -1, serde_json::json!("2026-13-01")),
        (1082, -1, serde_json::json!("26-01-01")),
        (1114, -1, serde_json::json!("2026-11-22 18:34:00")),
        (1184, -1, serde_json::json!("2026-11-22T18:34:00")),
        (1083, -1, serde_json::json!("1:2:3")),
        (1186, -1, serde_json::json!("1 day")),
        (1560, -1, serde_json::json!("012")),
        (2950, -1, serde_json::json!("x")),
        (1007, -1, serde_json::json!(["a"])),
        (3904, -1, serde_json::json!({"lower": "a", "upper": null, "bounds": "[)", "empty": false})),
        (3904, -1, serde_json::json!({"lower": 1, "upper": 2, "bounds": "[[", "empty": false})),
        (20_000, -1, serde_json::json!("glad")),
        (20_010, -1, serde_json::json!({"a": 1})),
        (23, -1, serde_json::json!(null)),
        (20_000, -1, serde_json::json!(null)),
        (20_010, -1, serde_json::json!(null)),
    ] {
        assert!(!validator(&schema(oid, modifier)).is_valid(&wrong), "{wrong} for {oid}");
    }
}

#[test]
fn every_type_may_be_null_where_its_column_may() {
    for (oid, modifier, kind, _) in TYPES.iter() {
        let nullable = value_schema(kind, *modifier, true, &Treatment::Keep);
        assert!(validator(&nullable).is_valid(&Json::Null), "{oid}: {nullable}");
    }
}

#[test]
fn numbers_are_strings_wherever_it_is_wished() {
    let options = ValueOptions { int8: Digits::String, numeric: Digits::String };
    let types = TypeCatalog::new(options);
    for (oid, text, expected) in [
        (20, "9223372036854775807", serde_json::json!("9223372036854775807")),
        (23, "7", serde_json::json!(7)),
        (701, "0.5", serde_json::json!(0.5)),
        (1700, "1.10", serde_json::json!("1.10")),
        (1700, "NaN", serde_json::json!("NaN")),
        (1700, "-Infinity", serde_json::json!("-Infinity")),
        (1016, "{1,NULL}", serde_json::json!(["1", null])),
        (3906, "[1.5,)", serde_json::json!({"lower": "1.5", "upper": null, "bounds": "[)", "empty": false})),
    ] {
        let kind = types.column_type(oid);
        let written = json(&kind.encoder, text);
        assert_eq!(written, expected);
        assert!(validator(&value_schema(&kind, -1, false, &Treatment::Keep)).is_valid(&written), "{text}");
    }
}

#[test]
fn types_of_extensions_obey_too() {
    for (encoder, modifier, text, wrong) in [
        (Encoder::Hstore, -1, r#""a"=>"1", "b"=>NULL"#, serde_json::json!({"a": 1})),
        (Encoder::Dense, 3, "[1,2,3.5]", serde_json::json!([1, 2])),
        (Encoder::Sparse, 5, "{1:0.5}/5", serde_json::json!({"dimensions": 4, "elements": {}})),
        (Encoder::Sparse, -1, "{}/3", serde_json::json!({"dimensions": 3, "elements": {"x": 1}})),
        (Encoder::Hex, -1, "01FF", serde_json::json!(1)),
    ] {
        let name = "public.extended".to_owned();
        let kind = ColumnType { encoder, oid: 30_000, name, domain: None, modifier: -1, mapped: true };
        let schema = value_schema(&kind, modifier, false, &Treatment::Keep);
        let validator = validator(&schema);
        let written = json(&kind.encoder, text);
        assert!(validator.is_valid(&written), "{written} for {schema}");
        assert!(!validator.is_valid(&wrong), "{wrong} for {schema}");
    }
    let name = "public.vector".to_owned();
    let kind =
        ColumnType { encoder: Encoder::Dense, oid: 30_000, name, domain: None, modifier: -1, mapped: true };
    assert_eq!(value_schema(&kind, 3, false, &Treatment::Keep)["x-pg-type"], "public.vector(3)");
}

#[test]
fn what_is_hashed_has_the_schema_of_a_hash_and_what_is_left_out_has_none() {
    let kind = TypeCatalog::default().column_type(23);
    let hashed = value_schema(&kind, -1, true, &Treatment::hash("salt"));
    let validator = validator(&hashed);
    assert!(
        validator
            .is_valid(&serde_json::json!("79cd3f995c440e1875a051039940f9f77f0555634967c75c0d3c82b5df35706d"))
    );
    assert!(validator.is_valid(&serde_json::json!(null)));
    assert!(!validator.is_valid(&serde_json::json!(1)));
    assert_eq!(value_schema(&kind, -1, true, &Treatment::Exclude), serde_json::json!(false));
}
