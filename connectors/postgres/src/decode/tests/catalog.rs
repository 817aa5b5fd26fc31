//! What types are made of, and what becomes of them when the catalog changes.

use super::super::types::{CatalogAttribute, CatalogType, TypeKind};
use super::*;

fn base(extension: &str) -> TypeKind {
    TypeKind::Base { extension: extension.to_owned() }
}

fn domain(base: u32) -> TypeKind {
    TypeKind::Domain { base, modifier: -1 }
}

fn composite(attributes: &[(&str, u32)]) -> TypeKind {
    let attribute =
        |&(name, type_oid): &(&str, u32)| CatalogAttribute { name: name.to_owned(), type_oid, modifier: -1 };
    TypeKind::Composite(attributes.iter().map(attribute).collect())
}

fn put(types: &mut TypeCatalog, oid: u32, name: &str, kind: TypeKind) {
    types.insert(oid, CatalogType { namespace: "public".to_owned(), name: name.to_owned(), kind });
}

#[test]
fn types_that_are_not_built_in_are_followed_to_what_they_are_made_of() {
    let mut types = TypeCatalog::default();
    put(&mut types, 20_000, "mood", TypeKind::Enum(vec!["sad".to_owned()]));
    put(&mut types, 20_001, "_mood", TypeKind::Array { element: 20_000, delimiter: b',' });
    put(&mut types, 20_002, "positive", domain(23));
    put(&mut types, 20_003, "Small", domain(20_002));
    put(&mut types, 20_004, "_Small", TypeKind::Array { element: 20_003, delimiter: b',' });
    put(&mut types, 20_005, "address", base(""));
    put(&mut types, 20_006, "citext", base("citext"));
    put(&mut types, 20_007, "loop", domain(20_007));
    put(&mut types, 20_008, "", TypeKind::Gone);
    put(&mut types, 20_009, "vector", base("vectors"));
    put(&mut types, 20_010, "halfvec", base("vector"));
    put(&mut types, 20_011, "hours", TypeKind::Range { subtype: 1083 });
    put(&mut types, 20_012, "hours_set", TypeKind::Multirange { range: 20_011 });
    for (oid, written, mapped, name) in [
        (23, "[7]", true, "integer"),
        (26, r#"["7"]"#, true, "oid"),
        (600, r#"["7"]"#, true, "point"),
        (20_000, r#"["sad"]"#, true, "public.mood"),
        (20_003, "[7]", true, "integer"),
        (20_005, r#"["7"]"#, false, "public.address"),
        (20_006, r#"["7"]"#, true, "public.citext"),
        (20_007, r#"["7"]"#, false, "public.loop"),
        (20_008, r#"["7"]"#, false, "oid 20008"),
        (20_009, r#"["7"]"#, false, "public.vector"),
        (20_010, "[[7]]", true, "public.halfvec"),
        (20_011, r#"[{"lower":"7","upper":null,"bounds":"[)","empty":false}]"#, true, "public.hours"),
        (20_012, r#"[[{"lower":"7","upper":null,"bounds":"[)","empty":false}]]"#, true, "public.hours_set"),
        (29_999, r#"["7"]"#, false, "oid 29999"),
    ] {
        let column = types.column_type(oid);
        assert_eq!((column.mapped, column.name.as_str()), (mapped, name));
        let text = match column.encoder {
            Encoder::Enum(_) => "sad",
            Encoder::Dense => "[7]",
            Encoder::Range(_) => "[7,)",
            Encoder::Multirange(_) => "{[7,)}",
            _ => "7",
        };
        assert_eq!(format!("[{}]", encoded(&column.encoder, text.as_bytes()).unwrap()), written, "{oid}");
    }
    assert_eq!(types.column_type(20_001).name, "public.mood[]");
    assert_eq!(types.column_type(20_004).name, "public.\"Small\"[]");
    assert_eq!(types.column_type(20_003).domain.as_deref(), Some("public.\"Small\""));
    assert_eq!(types.missing([23, 29_999, 20_000, 29_998, 29_999]), [29_998, 29_999]);
}

#[test]
fn a_type_with_too_many_parts_is_text() {
    let mut types = TypeCatalog::default();
    put(&mut types, 20_000, "t0", composite(&[("a", 23), ("b", 23)]));
    for oid in 20_001..20_020 {
        let kind = composite(&[("a", oid - 1), ("b", oid - 1), ("c", oid - 1)]);
        put(&mut types, oid, &format!("t{oid}"), kind);
    }
    let column = types.column_type(20_019);
    let Encoder::Composite(large) = &column.encoder else { panic!("{column:?}") };
    assert!(format!("{large:?}").len() < 100_000_000);
    assert!(!large.attributes[2].kind.mapped, "what is beyond the limit is text");
}

#[test]
fn a_label_that_is_not_known_is_told_and_shows_no_value() {
    let mut types = TypeCatalog::default();
    put(&mut types, 20_000, "mood", TypeKind::Enum(vec!["sad".to_owned()]));
    put(&mut types, 20_001, "_mood", TypeKind::Array { element: 20_000, delimiter: b',' });
    put(&mut types, 20_002, "moods", domain(20_001));
    put(&mut types, 20_003, "pair", composite(&[("a", 20_000), ("b", 20_002)]));
    let text = br#"(sad,"{sad,secret}")"#;
    let error = encoded(&types.column_type(20_003).encoder, text).unwrap_err();
    assert!(!format!("{error} {error:?}").contains("secret"), "{error:?}");
    assert!(matches!(error, EncodeError::Misfit(_)), "{error}");
    put(&mut types, 20_000, "mood", TypeKind::Enum(vec!["sad".to_owned(), "secret".to_owned()]));
    let written = encoded(&types.column_type(20_003).encoder, text).unwrap();
    assert_eq!(written, r#"{"a":"sad","b":["sad","secret"]}"#, "it is one type wherever it stands");
}
