//! Values made here, printed as PostgreSQL prints them, against a JSON parser that knows nothing of us.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use proptest::prelude::*;
use serde_json::Value as Json;

use super::types::TypeCatalog;
use super::*;

mod catalog;
mod samples;
mod schemas;

fn encoded(encoder: &Encoder, text: &[u8]) -> Result<String, EncodeError> {
    let mut out = b"before".to_vec();
    encoder.encode(text, &mut out, &mut Scratch::default())?;
    Ok(String::from_utf8(out.split_off(6)).unwrap())
}

fn json(encoder: &Encoder, text: &str) -> Json {
    serde_json::from_str(&encoded(encoder, text.as_bytes()).unwrap()).unwrap()
}

/// The encoder of a built-in type.
fn built_in(oid: u32) -> Encoder {
    TypeCatalog::default().column_type(oid).encoder
}

/// The encoder of a composite type of built-in types.
fn composite(attributes: &[(&str, u32)]) -> Encoder {
    let types = TypeCatalog::default();
    let attributes = attributes.iter().map(|&(name, oid)| Attribute::new(name, types.column_type(oid), -1));
    Encoder::Composite(Box::new(CompositeEncoder { oid: 20_000, attributes: attributes.collect() }))
}

const INT2_VECTOR: u32 = 22;
const INT4: u32 = 23;
const TEXT: u32 = 25;
const BYTEA_ARRAY: u32 = 1001;
const INT4_ARRAY: u32 = 1007;
const TEXT_ARRAY: u32 = 1009;
const BOX_ARRAY: u32 = 1020;
const JSONB: u32 = 3802;
const INT4_RANGE: u32 = 3904;
const TSTZ_RANGE: u32 = 3910;
const INT4_MULTIRANGE: u32 = 4451;

/// As `array_out` may do it: it leaves quotes out where none are needed.
fn array_text(values: &[Option<String>]) -> String {
    let quoted = values.iter().map(|value| match value {
        None => "NULL".to_owned(),
        Some(text) => format!("\"{}\"", text.replace('\\', r"\\").replace('"', "\\\"")),
    });
    format!("{{{}}}", quoted.collect::<Vec<_>>().join(","))
}

/// Every encoder, but for JSON's, which takes the server's word.
fn every_encoder() -> Vec<Encoder> {
    let mut encoders = vec![
        Encoder::Bool,
        Encoder::Integer,
        Encoder::IntegerText,
        Encoder::Number,
        Encoder::NumberText,
        Encoder::Text,
        Encoder::Char,
        Encoder::Hex,
        Encoder::Bytea,
        Encoder::Date,
        Encoder::Timestamp,
        Encoder::TimestampTz,
        Encoder::Hstore,
        Encoder::Dense,
        Encoder::Sparse,
    ];
    for oid in [INT2_VECTOR, BYTEA_ARRAY, INT4_ARRAY, TEXT_ARRAY, BOX_ARRAY, INT4_RANGE, INT4_MULTIRANGE] {
        encoders.push(built_in(oid));
    }
    let types = samples::catalog();
    encoders.extend(samples::OIDS.iter().map(|&(oid, _)| types.column_type(oid).encoder));
    encoders.retain(|encoder| *encoder != Encoder::Json);
    encoders
}

proptest! {
    #[test]
    fn any_text_is_a_json_string(text in any::<String>()) {
        prop_assert_eq!(json(&Encoder::Text, &text), Json::String(text));
    }

    #[test]
    fn long_texts_are_escaped_wherever_it_is_needed(at in 0usize..200, special in "[\"\\\\\n\u{1}é]") {
        let text = format!("{}{special}{}", "a".repeat(at), "b".repeat(200 - at));
        prop_assert_eq!(json(&Encoder::Text, &text), Json::String(text));
    }

    #[test]
    fn integers_keep_their_digits(value: i64) {
        prop_assert_eq!(encoded(&Encoder::Integer, value.to_string().as_bytes()).unwrap(), value.to_string());
    }

    #[test]
    fn floats_come_back_bit_by_bit(value in any::<f64>().prop_filter("finite", |value| value.is_finite())) {
        for text in [format!("{value:?}"), format!("{value:e}").replace("e", "e+").replace("e+-", "e-")] {
            let back: f64 = encoded(&Encoder::Number, text.as_bytes()).unwrap().parse().unwrap();
            prop_assert_eq!(back.to_bits(), value.to_bits());
            serde_json::from_str::<Json>(&text).unwrap();
        }
    }

    #[test]
    fn numerics_keep_all_their_digits(text in "-?(0|[1-9][0-9]{0,200})(\\.[0-9]{1,200})?") {
        let written = encoded(&Encoder::Number, text.as_bytes()).unwrap();
        let raw: &serde_json::value::RawValue = serde_json::from_str(&written).unwrap();
        prop_assert_eq!(raw.get(), text);
    }

    #[test]
    fn bytes_come_back_through_base64(bytes in prop::collection::vec(any::<u8>(), 0..2000)) {
        let hex: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
        let written = json(&Encoder::Bytea, &format!("\\x{hex}"));
        prop_assert_eq!(STANDARD.decode(written.as_str().unwrap()).unwrap(), bytes);
    }

    #[test]
    fn arrays_of_any_texts_come_back(values in prop::collection::vec(any::<Option<String>>(), 0..8)) {
        let expected: Json = values.clone().into();
        prop_assert_eq!(json(&built_in(TEXT_ARRAY), &array_text(&values)), expected);
    }

    #[test]
    fn arrays_of_several_dimensions_keep_them(rows in prop::collection::vec(any::<[Option<String>; 2]>(), 1..4)) {
        let inner: Vec<String> = rows.iter().map(|row| array_text(row)).collect();
        let text = format!("[0:{}][1:2]={{{}}}", rows.len() - 1, inner.join(","));
        let expected: Json = rows.iter().map(|row| Json::from(row.to_vec())).collect::<Vec<_>>().into();
        prop_assert_eq!(json(&built_in(TEXT_ARRAY), &text), expected);
    }

    #[test]
    fn timestamps_are_the_same_as_another_way_of_writing_them(
        micros in -210_866_803_200_000_000i64..9_223_372_036_854_775_807,
    ) {
        let mut expected = Vec::new();
        json::write_time(micros, &mut expected);
        let expected = String::from_utf8(expected).unwrap();
        let body = expected.trim_matches('"').trim_end_matches('Z');
        let (year, rest) = body.split_at(body.len() - "-MM-DDTHH:MM:SS.ffffff".len());
        let year: i32 = year.parse().unwrap();
        let (shown, era) = if year > 0 { (year, "") } else { (1 - year, " BC") };
        let text = format!("{shown:04}{}+00{era}", rest.replace('T', " "));
        prop_assert_eq!(encoded(&Encoder::TimestampTz, text.as_bytes()).unwrap(), expected.clone());
        let text = format!("{shown:04}{}{era}", rest.replace('T', " "));
        let local = encoded(&Encoder::Timestamp, text.as_bytes()).unwrap();
        prop_assert_eq!(local, expected.replace('Z', ""));
    }

    #[test]
    fn whatever_comes_no_encoder_panics_or_writes_what_is_no_json(
        bytes in prop_oneof![
            prop::collection::vec(any::<u8>(), 0..60),
            "[-0-9tfeE.+{}()/>\\[\\]=\",\\\\ :BCNUL x]{0,30}".prop_map(String::into_bytes),
        ],
    ) {
        for encoder in every_encoder() {
            let mut out = Vec::new();
            if encoder.encode(&bytes, &mut out, &mut Scratch::default()).is_ok() {
                let read = serde_json::from_slice::<&serde_json::value::RawValue>(&out);
                prop_assert!(read.is_ok(), "{:?} wrote {:?}", encoder, String::from_utf8_lossy(&out));
            }
        }
    }
}

#[test]
fn known_values_are_written_as_documented() {
    let (tags, int4_range) = (built_in(TEXT_ARRAY), built_in(INT4_RANGE));
    let pair = composite(&[("a", INT4), ("b \"c", TEXT)]);
    for (encoder, text, expected) in [
        (&Encoder::Bool, "t", "true"),
        (&Encoder::Bool, "f", "false"),
        (&Encoder::Number, "NaN", "\"NaN\""),
        (&Encoder::Number, "-Infinity", "\"-Infinity\""),
        (&Encoder::Number, "1e+20", "1e+20"),
        (&Encoder::Number, "1.00000000000000000000", "1.00000000000000000000"),
        (&Encoder::Number, "-0", "-0"),
        (&Encoder::Date, "2026-11-22", "\"2026-11-22\""),
        (&Encoder::Date, "0044-03-15 BC", "\"-000043-03-15\""),
        (&Encoder::Date, "0001-12-31 BC", "\"0000-12-31\""),
        (&Encoder::Date, "5874897-12-31", "\"+5874897-12-31\""),
        (&Encoder::Date, "10000-01-01", "\"+010000-01-01\""),
        (&Encoder::Date, "infinity", "\"infinity\""),
        (&Encoder::TimestampTz, "2026-11-22 18:34:00.1+00", "\"2026-11-22T18:34:00.1Z\""),
        (&Encoder::TimestampTz, "-infinity", "\"-infinity\""),
        (&Encoder::TimestampTz, "4713-01-01 00:00:00+00 BC", "\"-004712-01-01T00:00:00Z\""),
        (&Encoder::Timestamp, "294276-12-31 23:59:59.999999", "\"+294276-12-31T23:59:59.999999\""),
        (&Encoder::Json, "{\"a\" :\r\n 1.10, \"b\": \"\\n\"}", "{\"a\" :   1.10, \"b\": \"\\n\"}"),
        (&Encoder::Bytea, "\\x", "\"\""),
        (&Encoder::Bytea, "\\x00FFab", "\"AP+r\""),
        (&Encoder::Text, "24:00:00", "\"24:00:00\""),
        (&built_in(INT2_VECTOR), "1 2 3", "[1,2,3]"),
        (&built_in(INT2_VECTOR), "", "[]"),
        (&tags, "{}", "[]"),
        (&tags, "{a,\"NULL\",NULL,\"\"}", "[\"a\",\"NULL\",null,\"\"]"),
        (&tags, "{{a,b},{c,NULL}}", "[[\"a\",\"b\"],[\"c\",null]]"),
        (&built_in(BOX_ARRAY), "{(1,1),(0,0);NULL}", "[\"(1,1),(0,0)\",null]"),
        (&Encoder::IntegerText, "-9223372036854775808", "\"-9223372036854775808\""),
        (&Encoder::NumberText, "1.10", "\"1.10\""),
        (&Encoder::NumberText, "NaN", "\"NaN\""),
        (&Encoder::Char, "x", "\"x\""),
        (&Encoder::Char, "", "\"\""),
        (&Encoder::Char, "\\200", "\"\\\\200\""),
        (&Encoder::Hex, "0101000020E6100000", "\"0101000020E6100000\""),
        (&int4_range, "[1,5)", r#"{"lower":1,"upper":5,"bounds":"[)","empty":false}"#),
        (&int4_range, "(,)", r#"{"lower":null,"upper":null,"bounds":"()","empty":false}"#),
        (&int4_range, "empty", r#"{"lower":null,"upper":null,"bounds":"()","empty":true}"#),
        (
            &built_in(TSTZ_RANGE),
            "[\"2026-11-22 18:34:00+00\",infinity]",
            r#"{"lower":"2026-11-22T18:34:00Z","upper":"infinity","bounds":"[]","empty":false}"#,
        ),
        (&built_in(INT4_MULTIRANGE), "{}", "[]"),
        (
            &built_in(INT4_MULTIRANGE),
            "{(,1),[3,4)}",
            r#"[{"lower":null,"upper":1,"bounds":"()","empty":false},{"lower":3,"upper":4,"bounds":"[)","empty":false}]"#,
        ),
        (&Encoder::Hstore, "", "{}"),
        (&Encoder::Hstore, r#""a"=>"1", "b\"\\"=>NULL"#, r#"{"a":"1","b\"\\":null}"#),
        (&Encoder::Dense, "[1,-2.5,3e-07]", "[1,-2.5,3e-07]"),
        (&Encoder::Sparse, "{1:0.5,3:2}/5", r#"{"dimensions":5,"elements":{"1":0.5,"3":2}}"#),
        (&Encoder::Sparse, "{}/3", r#"{"dimensions":3,"elements":{}}"#),
        (&pair, "(,)", r#"{"a":null,"b \"c":null}"#),
        (&pair, r#"(1,"")"#, r#"{"a":1,"b \"c":""}"#),
        (&pair, r#"(1,"a ""b\\,)")"#, r#"{"a":1,"b \"c":"a \"b\\,)"}"#),
        (&composite(&[]), "()", "{}"),
        (
            &composite(&[("j", JSONB)]),
            r#"("{""n"": 1.10, ""s"": ""\\""""}")"#,
            r#"{"j":{"n": 1.10, "s": "\""}}"#,
        ),
    ] {
        assert_eq!(encoded(encoder, text.as_bytes()).unwrap(), expected, "{text}");
    }
}

#[test]
fn what_a_type_does_not_print_is_an_error() {
    let (numbers, int4_range) = (built_in(INT4_ARRAY), built_in(INT4_RANGE));
    let many = built_in(INT4_MULTIRANGE);
    for (encoder, text) in [
        (&Encoder::Integer, "007"),
        (&Encoder::IntegerText, "1x"),
        (&Encoder::NumberText, "1,0"),
        (&Encoder::Hex, "0g"),
        (&int4_range, ""),
        (&int4_range, "[1,5"),
        (&int4_range, "[1)"),
        (&int4_range, "[1,2,3)"),
        (&int4_range, "[1,2)x"),
        (&int4_range, "{1,2}"),
        (&int4_range, "[a,b)"),
        (&many, "[1,2)"),
        (&many, "{[1,2)"),
        (&many, "{[1,2),}"),
        (&many, "{[1,2)}}"),
        (&many, "{empty}"),
        (&Encoder::Hstore, r#""a""#),
        (&Encoder::Hstore, r#""a"=>"#),
        (&Encoder::Hstore, r#""a"=>1"#),
        (&Encoder::Hstore, r#""a"=>"1","b"=>"2""#),
        (&Encoder::Hstore, r#""a"=>"1", "#),
        (&Encoder::Dense, "1,2"),
        (&Encoder::Dense, "[1,,2]"),
        (&Encoder::Dense, "[NaN]"),
        (&Encoder::Sparse, "{1:1}"),
        (&Encoder::Sparse, "{1}/2"),
        (&Encoder::Sparse, "{0:1}/2"),
        (&Encoder::Sparse, "{1:1,}/2"),
        (&numbers, "[0:1]{1}"),
        (&numbers, "[0]={1}"),
        (&numbers, "[a:1]={1}"),
        (&Encoder::Bool, "true"),
        (&Encoder::Integer, ""),
        (&Encoder::Integer, "-"),
        (&Encoder::Integer, "1.0"),
        (&Encoder::Number, "01"),
        (&Encoder::Number, "1."),
        (&Encoder::Number, "1e"),
        (&Encoder::Number, "nan"),
        (&Encoder::Date, "22.11.2026"),
        (&Encoder::Date, "0000-01-01 BC"),
        (&Encoder::Timestamp, "2026-11-22"),
        (&Encoder::TimestampTz, "2026-11-22 18:34:00+02"),
        (&Encoder::Bytea, "\\x0"),
        (&Encoder::Bytea, "abc"),
        (&numbers, ""),
        (&numbers, "{"),
        (&numbers, "{1"),
        (&numbers, "{1,}"),
        (&numbers, "{1}}"),
        (&numbers, "1}"),
        (&numbers, "{\"1}"),
        (&numbers, "{{{{{{{1}}}}}}}"),
    ] {
        assert!(encoded(encoder, text.as_bytes()).is_err(), "{text}");
    }
    assert_eq!(encoded(&Encoder::Text, b"\xff"), Err(EncodeError::NotA(NotA("UTF-8"))));
}

#[test]
fn a_row_of_other_attributes_is_told_apart_from_a_broken_value() {
    let pair = composite(&[("a", INT4), ("b", TEXT)]);
    for text in ["", "()", "(1)", "(1,2,3)", "(1,2", "1,2)", "(x,2)", "(1,\"2)", "(1,2)x"] {
        let misfit = Box::new(Misfit::Attributes { oid: 20_000 });
        assert_eq!(encoded(&pair, text.as_bytes()), Err(EncodeError::Misfit(misfit)), "{text}");
    }
}
