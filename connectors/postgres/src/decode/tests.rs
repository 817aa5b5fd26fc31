//! Values made here, printed as PostgreSQL prints them, against a JSON parser that knows nothing of us.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use proptest::prelude::*;
use serde_json::Value as Json;

use super::types::{CatalogType, TypeCatalog, TypeKind};
use super::*;

fn encoded(encoder: &Encoder, text: &[u8]) -> Result<String, NotA> {
    let mut out = b"before".to_vec();
    encoder.encode(text, &mut out, &mut Vec::new())?;
    Ok(String::from_utf8(out.split_off(6)).unwrap())
}

fn json(encoder: &Encoder, text: &str) -> Json {
    serde_json::from_str(&encoded(encoder, text.as_bytes()).unwrap()).unwrap()
}

fn array_of(element: Encoder) -> Encoder {
    Encoder::Array(Box::new(ArrayEncoder { element, delimiter: b',' }))
}

/// As `array_out` does it.
fn array_text(values: &[Option<String>]) -> String {
    let quoted = values.iter().map(|value| match value {
        None => "NULL".to_owned(),
        Some(text) => format!("\"{}\"", text.replace('\\', r"\\").replace('"', "\\\"")),
    });
    format!("{{{}}}", quoted.collect::<Vec<_>>().join(","))
}

fn every_encoder() -> Vec<Encoder> {
    vec![
        Encoder::Bool,
        Encoder::Integer,
        Encoder::Number,
        Encoder::Text,
        Encoder::Bytea,
        Encoder::Date,
        Encoder::Timestamp,
        Encoder::TimestampTz,
        Encoder::Vector(Box::new(Encoder::Integer)),
        array_of(Encoder::Integer),
        array_of(Encoder::Text),
        array_of(Encoder::Bytea),
    ]
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
        prop_assert_eq!(json(&array_of(Encoder::Text), &array_text(&values)), expected);
    }

    #[test]
    fn arrays_of_several_dimensions_keep_them(rows in prop::collection::vec(any::<[Option<String>; 2]>(), 1..4)) {
        let inner: Vec<String> = rows.iter().map(|row| array_text(row)).collect();
        let text = format!("[0:{}][1:2]={{{}}}", rows.len() - 1, inner.join(","));
        let expected: Json = rows.iter().map(|row| Json::from(row.to_vec())).collect::<Vec<_>>().into();
        prop_assert_eq!(json(&array_of(Encoder::Text), &text), expected);
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
            "[-0-9tfeE.+{}\\[\\]=\",\\\\ :BCNUL x]{0,30}".prop_map(String::into_bytes),
        ],
    ) {
        for encoder in every_encoder() {
            let mut out = Vec::new();
            if encoder.encode(&bytes, &mut out, &mut Vec::new()).is_ok() {
                let read = serde_json::from_slice::<&serde_json::value::RawValue>(&out);
                prop_assert!(read.is_ok(), "{:?} wrote {:?}", encoder, String::from_utf8_lossy(&out));
            }
        }
    }
}

#[test]
fn known_values_are_written_as_documented() {
    let tags = array_of(Encoder::Text);
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
        (&Encoder::Vector(Box::new(Encoder::Integer)), "1 2 3", "[1,2,3]"),
        (&Encoder::Vector(Box::new(Encoder::Integer)), "", "[]"),
        (&tags, "{}", "[]"),
        (&tags, "{a,\"NULL\",NULL,\"\"}", "[\"a\",\"NULL\",null,\"\"]"),
        (&tags, "{{a,b},{c,NULL}}", "[[\"a\",\"b\"],[\"c\",null]]"),
    ] {
        assert_eq!(encoded(encoder, text.as_bytes()).unwrap(), expected, "{text}");
    }
}

#[test]
fn what_a_type_does_not_print_is_an_error() {
    let numbers = array_of(Encoder::Integer);
    for (encoder, text) in [
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
    assert_eq!(encoded(&Encoder::Text, b"\xff"), Err(NotA("UTF-8")));
}

#[test]
fn types_that_are_not_built_in_are_followed_to_what_they_are_made_of() {
    let mut types = TypeCatalog::default();
    let mut put = |oid, name: &str, kind| {
        types.insert(oid, CatalogType { namespace: "public".to_owned(), name: name.to_owned(), kind });
    };
    put(20_000, "mood", TypeKind::Enum(vec!["sad".to_owned()]));
    put(20_001, "_mood", TypeKind::Array { element: 20_000, delimiter: b',' });
    put(20_002, "positive", TypeKind::Domain(23));
    put(20_003, "small", TypeKind::Domain(20_002));
    put(20_004, "_small", TypeKind::Array { element: 20_003, delimiter: b',' });
    put(20_005, "address", TypeKind::Other);
    put(20_006, "citext", TypeKind::Other);
    put(20_007, "loop", TypeKind::Domain(20_007));
    put(20_008, "", TypeKind::Gone);
    for (oid, encoder, mapped, name) in [
        (23, Encoder::Integer, true, "int4"),
        (26, Encoder::Text, true, "oid"),
        (1009, array_of(Encoder::Text), true, "text[]"),
        (600, Encoder::Text, false, "point"),
        (20_000, Encoder::Text, true, "public.mood"),
        (20_001, array_of(Encoder::Text), true, "public._mood"),
        (20_003, Encoder::Integer, true, "public.small"),
        (20_004, array_of(Encoder::Integer), true, "public._small"),
        (20_005, Encoder::Text, false, "public.address"),
        (20_006, Encoder::Text, true, "public.citext"),
        (20_007, Encoder::Text, false, "public.loop"),
        (20_008, Encoder::Text, false, "oid 20008"),
        (29_999, Encoder::Text, false, "oid 29999"),
    ] {
        let column = types.column_type(oid);
        assert_eq!((column.encoder, column.mapped, column.name.as_str()), (encoder, mapped, name));
    }
    assert_eq!(types.missing([23, 29_999, 20_000, 29_998, 29_999]), [29_998, 29_999]);
}
