//! The JSON Schema (draft 2020-12) of what is written for a type: the other side of [`Encoder`].
//!
//! A schema is true of everything that its encoder writes, also to a validator that asserts formats: what a format does
//! not allow (infinity, years beyond 9999 or before 1) has a branch beside it. It says as much as keywords of JSON Schema
//! can, and in `x-pg-type` and `x-pg-domain` what only PostgreSQL knows.

use serde_json::{Map, Value, json};
use tokio_postgres::types::Type;

use super::column::Treatment;
use super::column_type::ColumnType;
use super::{CompositeEncoder, Encoder, built_in};

/// The schema of a value of this type, with the modifier of the column that it stands in; `nullable`: or of none. A
/// column that is left out has none either, so that its schema allows nothing.
pub fn value_schema(kind: &ColumnType, modifier: i32, nullable: bool, treatment: &Treatment) -> Value {
    let schema = match treatment {
        Treatment::Keep => of_type(kind, modifier),
        Treatment::Hash(_) => matching("^[0-9a-f]{64}$"),
        Treatment::Exclude => return Value::Bool(false),
    };
    Value::Object(if nullable { or_null(schema) } else { schema })
}

fn of_type(kind: &ColumnType, modifier: i32) -> Map<String, Value> {
    let modifier = kind.effective(modifier);
    let mut schema = match &kind.encoder {
        Encoder::Bool => typed("boolean"),
        Encoder::Integer => integer(kind.oid),
        Encoder::IntegerText => matching("^-?[0-9]+$"),
        Encoder::Number => {
            any_of([json!({"type": "number"}), json!({"enum": ["NaN", "Infinity", "-Infinity"]})])
        }
        Encoder::NumberText => matching("^(-?[0-9]+(\\.[0-9]+)?([eE][+-]?[0-9]+)?|NaN|-?Infinity)$"),
        Encoder::Text => text(kind, modifier),
        Encoder::Char => typed("string"),
        Encoder::Hex => encoded("base16"),
        // any value at all
        Encoder::Json => Map::new(),
        Encoder::Bytea => encoded("base64"),
        Encoder::Date => moment(Some("date"), ""),
        Encoder::Timestamp => moment(None, "T[0-9]{2}:[0-9]{2}:[0-9]{2}(\\.[0-9]+)?"),
        Encoder::TimestampTz => moment(Some("date-time"), "T[0-9]{2}:[0-9]{2}:[0-9]{2}(\\.[0-9]+)?Z"),
        Encoder::Vector(element) => array(Value::Object(of_type(element, -1))),
        Encoder::Array(encoder) => {
            // PostgreSQL does not hold a column to a number of dimensions.
            let element = Value::Object(or_null(of_type(&encoder.element, modifier)));
            array(Value::Object(any_of([element, json!({"type": "array"})])))
        }
        Encoder::Enum(labels) => object(json!({"type": "string", "enum": labels.labels()})),
        Encoder::Composite(composite) => of_composite(composite),
        Encoder::Range(element) => of_range(element),
        Encoder::Multirange(element) => array(Value::Object(of_range(element))),
        Encoder::Hstore => {
            object(json!({"type": "object", "additionalProperties": {"type": ["string", "null"]}}))
        }
        Encoder::Dense => dense(modifier),
        Encoder::Sparse => sparse(modifier),
    };
    schema.insert("x-pg-type".to_owned(), type_name(kind, modifier).into());
    if let Some(domain) = &kind.domain {
        schema.insert("x-pg-domain".to_owned(), domain.as_str().into());
    }
    schema
}

/// What SQL calls the type with this modifier. The catalog's own function would be needed for the modifiers of types
/// that are not built in; of those that are known here only pgvector's have any.
fn type_name(kind: &ColumnType, modifier: i32) -> String {
    if let Encoder::Array(array) = &kind.encoder {
        let element = &array.element;
        let name = element.domain.clone().unwrap_or_else(|| type_name(element, modifier));
        return format!("{name}[]");
    }
    match Type::from_oid(kind.oid) {
        Some(built_in) => built_in::name(&built_in, modifier),
        None if modifier >= 0 && matches!(kind.encoder, Encoder::Dense | Encoder::Sparse) => {
            format!("{}({modifier})", kind.name)
        }
        None => kind.name.clone(),
    }
}

fn integer(oid: u32) -> Map<String, Value> {
    let (least, greatest) = match Type::from_oid(oid) {
        Some(Type::INT2) => (i16::MIN.into(), i16::MAX.into()),
        Some(Type::INT4) => (i32::MIN.into(), i32::MAX.into()),
        _ => (i64::MIN, i64::MAX),
    };
    object(json!({"type": "integer", "minimum": least, "maximum": greatest}))
}

/// Types that are written as PostgreSQL prints them.
fn text(kind: &ColumnType, modifier: i32) -> Map<String, Value> {
    let Some(built_in) = Type::from_oid(kind.oid) else { return typed("string") };
    let mut schema = match built_in {
        Type::UUID => object(json!({"type": "string", "format": "uuid"})),
        // 24:00:00 is a time
        Type::TIME => matching("^[0-9]{2}:[0-9]{2}:[0-9]{2}(\\.[0-9]+)?$"),
        Type::TIMETZ => matching("^[0-9]{2}:[0-9]{2}:[0-9]{2}(\\.[0-9]+)?[+-][0-9]{2}(:[0-9]{2}){0,2}$"),
        // the format `duration` knows neither signs nor fractions
        Type::INTERVAL => matching(
            "^(-?infinity|P(-?[0-9]+Y)?(-?[0-9]+M)?(-?[0-9]+D)?\
             (T(-?[0-9]+H)?(-?[0-9]+M)?(-?[0-9]+(\\.[0-9]+)?S)?)?)$",
        ),
        Type::BIT | Type::VARBIT => matching("^[01]*$"),
        _ => typed("string"),
    };
    if let Some(length) = built_in::length(&built_in, modifier) {
        schema.insert("maxLength".to_owned(), length.into());
    }
    schema
}

/// `beyond` is what follows the date.
fn moment(format: Option<&str>, beyond: &str) -> Map<String, Value> {
    let usual = match format {
        Some(format) => json!({"type": "string", "format": format}),
        None => Value::Object(matching(&format!("^[0-9]{{4}}-[0-9]{{2}}-[0-9]{{2}}{beyond}$"))),
    };
    let far = matching(&format!("^(0000|[+-][0-9]{{6,}})-[0-9]{{2}}-[0-9]{{2}}{beyond}$"));
    any_of([usual, Value::Object(far), json!({"enum": ["infinity", "-infinity"]})])
}

fn of_composite(composite: &CompositeEncoder) -> Map<String, Value> {
    let properties: Map<String, Value> = composite
        .attributes
        .iter()
        .map(|part| (part.name.clone(), Value::Object(or_null(of_type(&part.kind, part.modifier)))))
        .collect();
    let required: Vec<&str> = composite.attributes.iter().map(|part| part.name.as_str()).collect();
    closed(json!(properties), &required)
}

fn of_range(element: &ColumnType) -> Map<String, Value> {
    let end = or_null(of_type(element, -1));
    let properties = json!({
        "lower": end,
        "upper": end,
        "bounds": {"type": "string", "enum": ["[)", "[]", "()", "(]"]},
        "empty": {"type": "boolean"},
    });
    closed(properties, &["lower", "upper", "bounds", "empty"])
}

fn dense(dimensions: i32) -> Map<String, Value> {
    let mut schema = array(json!({"type": "number"}));
    if dimensions >= 0 {
        schema.insert("minItems".to_owned(), dimensions.into());
        schema.insert("maxItems".to_owned(), dimensions.into());
    }
    schema
}

fn sparse(dimensions: i32) -> Map<String, Value> {
    let count = if dimensions >= 0 { json!({"const": dimensions}) } else { json!({"type": "integer"}) };
    let elements = json!({
        "type": "object",
        "patternProperties": {"^[1-9][0-9]*$": {"type": "number"}},
        "additionalProperties": false,
    });
    closed(json!({"dimensions": count, "elements": elements}), &["dimensions", "elements"])
}

/// The schema that allows null, too.
fn or_null(mut schema: Map<String, Value>) -> Map<String, Value> {
    if let Some(Value::Array(branches)) = schema.get_mut("anyOf") {
        branches.push(json!({"type": "null"}));
    }
    if let Some(of) = schema.get_mut("type") {
        *of = json!([of.take(), "null"]);
    }
    if let Some(Value::Array(values)) = schema.get_mut("enum") {
        values.push(Value::Null);
    }
    schema
}

fn typed(of: &str) -> Map<String, Value> {
    object(json!({"type": of}))
}

fn matching(pattern: &str) -> Map<String, Value> {
    object(json!({"type": "string", "pattern": pattern}))
}

fn encoded(encoding: &str) -> Map<String, Value> {
    object(json!({"type": "string", "contentEncoding": encoding}))
}

fn array(items: Value) -> Map<String, Value> {
    object(json!({"type": "array", "items": items}))
}

fn any_of<const N: usize>(branches: [Value; N]) -> Map<String, Value> {
    object(json!({"anyOf": branches.to_vec()}))
}

/// An object that has all of these properties and no others.
fn closed(properties: Value, required: &[&str]) -> Map<String, Value> {
    object(json!({
        "type": "object",
        "properties": properties,
        "required": required,
        "additionalProperties": false,
    }))
}

fn object(schema: Value) -> Map<String, Value> {
    match schema {
        Value::Object(members) => members,
        _ => unreachable!("every schema here is written as an object"),
    }
}
