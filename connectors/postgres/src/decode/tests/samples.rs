//! Random values of many types: as PostgreSQL prints them, and as JSON shall have them. What prints them here is written
//! after the server's output functions, and shares nothing with what reads them.

use proptest::sample::select;

use super::super::types::{CatalogAttribute, CatalogType, TypeKind};
use super::*;

const MOOD: u32 = 20_000;
const NAME: u32 = 20_002;
const TAGS: u32 = 20_005;
const PAIR: u32 = 20_010;
const NEST: u32 = 20_012;
const WORDS: u32 = 20_020;
const LABELS: [&str; 4] = ["sad", "so, so \"la la\"", "ünïcode", ""];

/// The types that values are made of, with a modifier of the column.
pub(super) const OIDS: [(u32, i32); 38] = [
    (16, -1),
    (17, -1),
    (18, -1),
    (20, -1),
    (21, -1),
    (23, -1),
    (25, -1),
    (114, -1),
    (701, -1),
    (1043, 12),
    (1082, -1),
    (1083, -1),
    (1114, -1),
    (1184, -1),
    (1186, -1),
    (1266, -1),
    (1560, 3),
    (1562, 5),
    (1700, -1),
    (2950, -1),
    (1005, -1),
    (1007, -1),
    (1015, 12),
    (1185, -1),
    (3904, -1),
    (3908, -1),
    (3910, -1),
    (4535, -1),
    (MOOD, -1),
    (20_001, -1),
    (20_003, -1),
    (20_004, -1),
    (20_006, -1),
    (PAIR, -1),
    (20_011, -1),
    (NEST, -1),
    (20_013, -1),
    (20_021, -1),
];

/// A catalog with the types beyond the built-in ones.
pub(super) fn catalog() -> TypeCatalog {
    let mut types = TypeCatalog::default();
    let mut put = |oid, kind| {
        types.insert(oid, CatalogType { namespace: "public".to_owned(), name: format!("t{oid}"), kind });
    };
    let array = |element| TypeKind::Array { element, delimiter: b',' };
    let row = |attributes: &[(&str, u32)]| {
        let attribute = |&(name, type_oid): &(&str, u32)| CatalogAttribute {
            name: name.to_owned(),
            type_oid,
            modifier: -1,
        };
        TypeKind::Composite(attributes.iter().map(attribute).collect())
    };
    put(MOOD, TypeKind::Enum(LABELS.map(str::to_owned).to_vec()));
    put(20_001, array(MOOD));
    put(NAME, TypeKind::Domain { base: 1043, modifier: 9 });
    put(20_003, TypeKind::Domain { base: NAME, modifier: -1 });
    put(20_004, array(20_003));
    put(TAGS, TypeKind::Domain { base: 1009, modifier: -1 });
    put(20_006, array(TAGS));
    put(PAIR, row(&[("a", 23), ("b \"c", 25), ("m", MOOD), ("tags", TAGS)]));
    put(20_011, array(PAIR));
    put(NEST, row(&[("p/q", PAIR), ("ps", 20_011), ("w", WORDS), ("d", 20_003)]));
    put(20_013, array(NEST));
    put(WORDS, TypeKind::Range { subtype: 25 });
    put(20_021, TypeKind::Multirange { range: WORDS });
    types
}

/// A value as PostgreSQL prints it, and what it means.
pub(super) type Sample = (String, Json);

/// Random values of a type.
pub(super) fn sample(oid: u32, modifier: i32) -> BoxedStrategy<Sample> {
    match oid {
        16 => select(vec![("t", true), ("f", false)])
            .prop_map(|(text, json)| (text.to_owned(), json.into()))
            .boxed(),
        17 => prop::collection::vec(any::<u8>(), 0..20).prop_map(bytea).boxed(),
        18 => "[ -~]?".prop_map(same).boxed(),
        20 => any::<i64>().prop_map(|value| (value.to_string(), value.into())).boxed(),
        21 => any::<i16>().prop_map(|value| (value.to_string(), value.into())).boxed(),
        23 => any::<i32>().prop_map(|value| (value.to_string(), value.into())).boxed(),
        25 => text().prop_map(same).boxed(),
        114 => any::<Option<String>>()
            .prop_map(|value| (Json::from(value.clone()).to_string(), value.into()))
            .boxed(),
        701 => any::<f64>().prop_map(float).boxed(),
        1043 => limited(modifier - 4),
        1560 => "[01]{3}".prop_map(same).boxed(),
        1562 => "[01]{0,5}".prop_map(same).boxed(),
        1700 => "-?(0|[1-9][0-9]{0,30})(\\.[0-9]{1,20})?".prop_map(numeric).boxed(),
        2950 => any::<u128>().prop_map(uuid).boxed(),
        1082 | 1083 | 1114 | 1184 | 1186 | 1266 => known(oid),
        1005 => array(sample(21, -1)),
        1007 => array(sample(23, -1)),
        1009 => array(sample(25, -1)),
        1015 => array(sample(1043, modifier)),
        1185 => array(sample(1184, -1)),
        3904 => range(sample(23, -1)),
        3908 => range(sample(1114, -1)),
        3910 => range(sample(1184, -1)),
        4535 => multirange(sample(1082, -1)),
        MOOD => select(LABELS.to_vec()).prop_map(|label| same(label.to_owned())).boxed(),
        20_001 => array(sample(MOOD, -1)),
        NAME | 20_003 => limited(5),
        20_004 => array(sample(20_003, -1)),
        TAGS => sample(1009, -1),
        20_006 => array(sample(TAGS, -1)),
        PAIR => row(vec![
            ("a", sample(23, -1)),
            ("b \"c", sample(25, -1)),
            ("m", sample(MOOD, -1)),
            ("tags", sample(TAGS, -1)),
        ]),
        20_011 => array(sample(PAIR, -1)),
        NEST => row(vec![
            ("p/q", sample(PAIR, -1)),
            ("ps", sample(20_011, -1)),
            ("w", sample(WORDS, -1)),
            ("d", sample(NAME, -1)),
        ]),
        20_013 => array(sample(NEST, -1)),
        WORDS => range(sample(25, -1)),
        20_021 => multirange(sample(25, -1)),
        oid => panic!("no values are made of type {oid}"),
    }
}

/// Any text, and often what needs quoting.
fn text() -> BoxedStrategy<String> {
    prop_oneof![
        any::<String>(),
        "[a\"\\\\,(){}\\[\\] \t=;é]{0,8}",
        Just("NULL".to_owned()),
        Just("null".to_owned())
    ]
    .prop_map(|text| text.replace('\0', ""))
    .boxed()
}

fn limited(characters: i32) -> BoxedStrategy<Sample> {
    let limit = usize::try_from(characters).unwrap();
    text().prop_map(move |text| same(text.chars().take(limit).collect())).boxed()
}

fn same(text: String) -> Sample {
    let json = text.clone().into();
    (text, json)
}

fn bytea(bytes: Vec<u8>) -> Sample {
    let hex: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
    (format!("\\x{hex}"), STANDARD.encode(bytes).into())
}

fn float(value: f64) -> Sample {
    match value {
        _ if value.is_nan() => same("NaN".to_owned()),
        _ if value.is_infinite() => same(if value > 0.0 { "Infinity" } else { "-Infinity" }.to_owned()),
        _ => (format!("{value:e}"), value.into()),
    }
}

fn numeric(text: String) -> Sample {
    let json = serde_json::from_str(&text).unwrap();
    (text, json)
}

fn uuid(bits: u128) -> Sample {
    let hex = format!("{bits:032x}");
    same(format!("{}-{}-{}-{}-{}", &hex[..8], &hex[8..12], &hex[12..16], &hex[16..20], &hex[20..]))
}

/// Values that are more telling than random ones.
fn known(oid: u32) -> BoxedStrategy<Sample> {
    let pairs: &[(&str, &str)] = match oid {
        1082 => &[
            ("2026-11-22", "2026-11-22"),
            ("0001-01-01", "0001-01-01"),
            ("0001-12-31 BC", "0000-12-31"),
            ("4714-11-24 BC", "-004713-11-24"),
            ("5874897-12-31", "+5874897-12-31"),
            ("infinity", "infinity"),
        ],
        1083 => &[("24:00:00", "24:00:00"), ("00:00:00.000001", "00:00:00.000001")],
        1114 => &[
            ("2026-11-22 18:34:00.5", "2026-11-22T18:34:00.5"),
            ("0001-12-31 23:59:59 BC", "0000-12-31T23:59:59"),
            ("294276-12-31 23:59:59.999999", "+294276-12-31T23:59:59.999999"),
            ("-infinity", "-infinity"),
        ],
        1184 => &[
            ("2026-11-22 18:34:00.5+00", "2026-11-22T18:34:00.5Z"),
            ("0044-03-15 12:00:00+00 BC", "-000043-03-15T12:00:00Z"),
            ("10000-01-01 00:00:00+00", "+010000-01-01T00:00:00Z"),
            ("infinity", "infinity"),
        ],
        1186 => &[
            ("PT0S", "PT0S"),
            ("P1Y2M3DT4H5M6.789S", "P1Y2M3DT4H5M6.789S"),
            ("P-1DT-0.5S", "P-1DT-0.5S"),
            ("-infinity", "-infinity"),
        ],
        1266 => &[("24:00:00-15:59:59", "24:00:00-15:59:59"), ("12:00:00.5+05:30", "12:00:00.5+05:30")],
        oid => panic!("no values are known of type {oid}"),
    };
    let pairs: Vec<Sample> = pairs.iter().map(|(text, json)| ((*text).to_owned(), (*json).into())).collect();
    select(pairs).boxed()
}

/// As `array_out`: up to three dimensions, lower bounds that are told where one is not 1.
fn array(element: BoxedStrategy<Sample>) -> BoxedStrategy<Sample> {
    let shape = prop::collection::vec((1u8..3, -1i32..2), 0..4);
    let made = shape.prop_flat_map(move |shape| {
        let count: usize = shape.iter().map(|(length, _)| usize::from(*length)).product();
        let count = if shape.is_empty() { 0 } else { count };
        (Just(shape), prop::collection::vec(prop::option::of(element.clone()), count))
    });
    let printed = made.prop_map(|(shape, elements)| {
        let quoted = |text: String| {
            let special = |byte: u8| b"\"\\{},".contains(&byte) || byte.is_ascii_whitespace() || byte == 0x0b;
            if text.is_empty() || text.eq_ignore_ascii_case("null") || text.bytes().any(special) {
                format!("\"{}\"", text.replace('\\', r"\\").replace('"', "\\\""))
            } else {
                text
            }
        };
        let mut level: Vec<Sample> = elements
            .into_iter()
            .map(|element| {
                element.map_or(("NULL".to_owned(), Json::Null), |(text, json)| (quoted(text), json))
            })
            .collect();
        for (length, _) in shape.iter().rev() {
            let joined = level.chunks(usize::from(*length)).map(|chunk| {
                let texts: Vec<&str> = chunk.iter().map(|(text, _)| text.as_str()).collect();
                let values: Vec<Json> = chunk.iter().map(|(_, json)| json.clone()).collect();
                (format!("{{{}}}", texts.join(",")), values.into())
            });
            level = joined.collect();
        }
        let (text, json) = level.pop().unwrap_or(("{}".to_owned(), Json::Array(Vec::new())));
        let bounds = |(length, lower): &(u8, i32)| format!("[{lower}:{}]", lower + i32::from(*length) - 1);
        let bounds: String = if shape.iter().any(|(_, lower)| *lower != 1) {
            shape.iter().map(bounds).collect::<String>() + "="
        } else {
            String::new()
        };
        (bounds + &text, json)
    });
    printed.boxed()
}

/// As `record_out` and `range_out` quote.
fn doubled(text: &str) -> String {
    let special = |byte: u8| b"\"\\()[],".contains(&byte) || byte.is_ascii_whitespace() || byte == 0x0b;
    if text.is_empty() || text.bytes().any(special) {
        format!("\"{}\"", text.replace('\\', r"\\").replace('"', "\"\""))
    } else {
        text.to_owned()
    }
}

fn row(attributes: Vec<(&'static str, BoxedStrategy<Sample>)>) -> BoxedStrategy<Sample> {
    let (names, values): (Vec<_>, Vec<_>) =
        attributes.into_iter().map(|(name, value)| (name, prop::option::of(value))).unzip();
    let made = values.prop_map(move |values| {
        let texts: Vec<String> = values
            .iter()
            .map(|value| value.as_ref().map_or(String::new(), |(text, _)| doubled(text)))
            .collect();
        let json = values.into_iter().map(|value| value.map_or(Json::Null, |(_, json)| json));
        let object: serde_json::Map<String, Json> =
            names.iter().map(|name| (*name).to_owned()).zip(json).collect();
        (format!("({})", texts.join(",")), object.into())
    });
    made.boxed()
}

fn range(element: BoxedStrategy<Sample>) -> BoxedStrategy<Sample> {
    prop_oneof![
        1 => Just(("empty".to_owned(), serde_json::json!({"lower": null, "upper": null, "bounds": "()", "empty": true}))),
        9 => ends(element),
    ]
    .boxed()
}

fn ends(element: BoxedStrategy<Sample>) -> BoxedStrategy<Sample> {
    let end = prop::option::of(element);
    let made = (end.clone(), end, select(vec!["[]", "[)", "(]", "()"])).prop_map(|(lower, upper, bounds)| {
        let text = |end: &Option<Sample>| end.as_ref().map_or(String::new(), |(text, _)| doubled(text));
        let text = format!("{}{},{}{}", &bounds[..1], text(&lower), text(&upper), &bounds[1..]);
        let json = |end: Option<Sample>| end.map_or(Json::Null, |(_, json)| json);
        (
            text,
            serde_json::json!({"lower": json(lower), "upper": json(upper), "bounds": bounds, "empty": false}),
        )
    });
    made.boxed()
}

fn multirange(element: BoxedStrategy<Sample>) -> BoxedStrategy<Sample> {
    let made = prop::collection::vec(ends(element), 0..4).prop_map(|ranges| {
        let (texts, values): (Vec<String>, Vec<Json>) = ranges.into_iter().unzip();
        (format!("{{{}}}", texts.join(",")), values.into())
    });
    made.boxed()
}
