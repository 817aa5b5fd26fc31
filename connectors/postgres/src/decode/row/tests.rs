//! Rows of a relation, from values as the stream brings them.

use super::*;
use crate::decode::types::{CatalogAttribute, CatalogType, TypeKind};
use crate::protocol::{Message, Old, message};

/// A relation of `id int4` (the key), `body text`, `tags int4[]`.
fn columns() -> Columns {
    columns_of(&[(1, "id", 23), (0, "bo\"dy", 25), (0, "tags", 1007)], &TypeCatalog::default())
}

fn columns_of(columns: &[(u8, &str, u32)], types: &TypeCatalog) -> Columns {
    let mut bytes = b"R\0\0\0\x07public\0t\0d\0".to_vec();
    bytes.push(u8::try_from(columns.len()).unwrap());
    for &(key, name, oid) in columns {
        bytes.push(key);
        bytes.extend_from_slice(name.as_bytes());
        bytes.push(0);
        bytes.extend_from_slice(&oid.to_be_bytes());
        bytes.extend_from_slice(&[0xff; 4]);
    }
    let Message::Relation(relation) = message(&bytes).unwrap() else { unreachable!() };
    Columns::new(&relation, types)
}

fn update(old: Option<&[Value<'_>]>, new: &[Value<'_>]) -> Vec<u8> {
    let mut bytes = b"U\0\0\0\x07".to_vec();
    let mut put = |tag, values: &[Value<'_>]| {
        bytes.push(tag);
        bytes.extend_from_slice(&u16::try_from(values.len()).unwrap().to_be_bytes());
        for value in values {
            match value {
                Value::Text(text) => {
                    bytes.push(b't');
                    bytes.extend_from_slice(&u32::try_from(text.len()).unwrap().to_be_bytes());
                    bytes.extend_from_slice(text);
                }
                Value::Null => bytes.push(b'n'),
                Value::Unchanged => bytes.push(b'u'),
                Value::Binary(_) => bytes.extend_from_slice(b"b\0\0\0\0"),
            }
        }
    };
    if let Some(old) = old {
        put(b'O', old);
    }
    put(b'N', new);
    bytes
}

fn written(old: Option<&[Value<'_>]>, new: &[Value<'_>]) -> Result<(String, Notes), RowError> {
    written_by(&columns(), old, new)
}

fn written_by(
    columns: &Columns,
    old: Option<&[Value<'_>]>,
    new: &[Value<'_>],
) -> Result<(String, Notes), RowError> {
    let bytes = update(old, new);
    let Message::Update(update) = message(&bytes).unwrap() else { unreachable!() };
    let old = update.old.map(|(Old::Key(row) | Old::Full(row))| row);
    let (mut out, mut notes) = (b"before".to_vec(), Notes::default());
    notes.unchanged = b"of the row before".to_vec();
    columns.write_row(&update.new, old.as_ref(), &mut out, &mut notes)?;
    Ok((String::from_utf8(out.split_off(6)).unwrap(), notes))
}

#[test]
fn a_row_is_an_object_of_its_columns() {
    let row = [Value::Text(b"1"), Value::Text(b"a\"b"), Value::Null];
    let (json, notes) = written(None, &row).unwrap();
    assert_eq!(json, r#"{"id":1,"bo\"dy":"a\"b","tags":null}"#);
    assert!(notes.unchanged.is_empty() && notes.lower_bounds.is_empty());
}

#[test]
fn what_was_not_sent_is_named_and_absent() {
    let row = [Value::Text(b"1"), Value::Unchanged, Value::Unchanged];
    let (json, notes) = written(None, &row).unwrap();
    assert_eq!(json, r#"{"id":1}"#);
    assert_eq!(notes.unchanged, br#""bo\"dy","tags""#);
    let (json, _) = written(None, &[Value::Unchanged; 3]).unwrap();
    assert_eq!(json, "{}");
}

#[test]
fn a_full_old_row_fills_what_was_not_sent() {
    let old = [Value::Text(b"1"), Value::Text(b"long"), Value::Null];
    let new = [Value::Text(b"2"), Value::Unchanged, Value::Unchanged];
    let (json, notes) = written(Some(&old), &new).unwrap();
    assert_eq!(json, r#"{"id":2,"bo\"dy":"long","tags":null}"#);
    assert!(notes.unchanged.is_empty());
}

#[test]
fn bounds_other_than_one_are_noted_beside_the_array() {
    let row = [Value::Text(b"1"), Value::Null, Value::Text(b"[0:1]={5,6}")];
    let (json, notes) = written(None, &row).unwrap();
    assert_eq!(json, r#"{"id":1,"bo\"dy":null,"tags":[5,6]}"#);
    assert_eq!(notes.lower_bounds, br#""tags":[0]"#);
}

#[test]
fn a_row_that_does_not_fit_is_an_error_that_shows_no_value() {
    let count = written(None, &[Value::Null]).unwrap_err();
    assert_eq!(count, RowError::Count { values: 1, columns: 3 });
    let value = written(None, &[Value::Text(b"secret"), Value::Null, Value::Null]).unwrap_err();
    assert_eq!(value, RowError::Value { column: "id".to_owned(), source: NotA("an integer") });
    let binary = written(None, &[Value::Binary(b""), Value::Null, Value::Null]).unwrap_err();
    assert_eq!(binary, RowError::Binary { column: "id".to_owned() });
}

#[test]
fn an_excluded_column_is_absent_and_a_hashed_one_can_only_be_compared() {
    let mut columns = columns();
    columns.0[1].treatment = Treatment::Exclude;
    columns.0[2].treatment = Treatment::hash("salt");
    let bytes = update(None, &[Value::Text(b"1"), Value::Text(b"secret"), Value::Text(b"{1}")]);
    let Message::Update(update) = message(&bytes).unwrap() else { unreachable!() };
    let mut out = Vec::new();
    columns.write_row(&update.new, None, &mut out, &mut Notes::default()).unwrap();
    // HMAC-SHA-256 of `{1}` under `salt`, by another implementation
    let expected = r#"{"id":1,"tags":"79cd3f995c440e1875a051039940f9f77f0555634967c75c0d3c82b5df35706d"}"#;
    assert_eq!(String::from_utf8(out).unwrap(), expected);
}

#[test]
fn a_key_has_the_columns_of_the_key_and_never_misses_one() {
    let columns = columns();
    let key = |row: &[Value<'_>]| {
        let bytes = update(None, row);
        let Message::Update(update) = message(&bytes).unwrap() else { unreachable!() };
        let mut out = Vec::new();
        columns.write_key(&update.new, None, &mut out, &mut Notes::default()).map(|()| out)
    };
    assert!(columns.has_key());
    assert_eq!(key(&[Value::Text(b"7"), Value::Unchanged, Value::Null]).unwrap(), br#"{"id":7}"#);
    let missing = key(&[Value::Unchanged, Value::Null, Value::Null]).unwrap_err();
    assert_eq!(missing, RowError::KeyNotSent { column: "id".to_owned() });
}

/// An enumeration `mood` (20000), arrays of it (20001), and `nest` (20002): a row of `a/b int4[]` and `moods mood[]`; arrays
/// of that (20003); ranges of `int4[]` (20004), and multiranges of them (20005).
fn nested() -> TypeCatalog {
    let mut types = TypeCatalog::default();
    let mut put = |oid, name: &str, kind| {
        types.insert(oid, CatalogType { namespace: "public".to_owned(), name: name.to_owned(), kind });
    };
    put(20_000, "mood", TypeKind::Enum(vec!["sad".to_owned()]));
    put(20_001, "_mood", TypeKind::Array { element: 20_000, delimiter: b',' });
    let attributes = [("a/b", 1007), ("moods", 20_001)].map(|(name, type_oid)| CatalogAttribute {
        name: name.to_owned(),
        type_oid,
        modifier: -1,
    });
    put(20_002, "nest", TypeKind::Composite(attributes.to_vec()));
    put(20_003, "_nest", TypeKind::Array { element: 20_002, delimiter: b',' });
    put(20_004, "lists", TypeKind::Range { subtype: 1007 });
    put(20_005, "lists_set", TypeKind::Multirange { range: 20_004 });
    types
}

#[test]
fn bounds_inside_of_other_values_are_noted_by_a_pointer() {
    let columns = columns_of(&[(0, "n/s", 20_003), (0, "r", 3904), (0, "tags", 1007)], &nested());
    let nests = br#"[2:2]={{"({1},)","(\"[-1:0]={1,2}\",\"[0:0][3:3]={{sad}}\")"}}"#;
    let row = [Value::Text(nests), Value::Text(b"[1,2)"), Value::Text(b"[0:0]={1}")];
    let (_, notes) = written_by(&columns, None, &row).unwrap();
    let expected = r#""n/s":[2],"/n~1s/0/1/a~1b":[-1],"/n~1s/0/1/moods":[0,3],"tags":[0]"#;
    assert_eq!(String::from_utf8(notes.lower_bounds).unwrap(), expected);
}

#[test]
fn bounds_of_arrays_in_ranges_are_noted_at_the_end_that_they_are() {
    let columns = columns_of(&[(0, "r", 20_004), (0, "rs", 20_005)], &nested());
    let range = br#"["[0:0]={1}","[2:2]={2}")"#;
    let ranges = br#"{[{1},"[3:3]={2}"),["[4:4]={3}",)}"#;
    let (json, notes) = written_by(&columns, None, &[Value::Text(range), Value::Text(ranges)]).unwrap();
    assert!(
        json.starts_with(r#"{"r":{"lower":[1],"upper":[2],"bounds":"[)","empty":false},"rs":[{"#),
        "{json}"
    );
    let expected = r#""/r/lower":[0],"/r/upper":[2],"/rs/0/upper":[3],"/rs/1/lower":[4]"#;
    assert_eq!(String::from_utf8(notes.lower_bounds).unwrap(), expected);
}

#[test]
fn bounds_of_a_key_or_of_a_row_that_failed_are_not_those_of_the_next_row() {
    let columns = columns_of(&[(1, "tags", 1007), (0, "n", 23)], &TypeCatalog::default());
    let row = |tags: &'static [u8]| update(None, &[Value::Text(tags), Value::Text(b"1")]);
    let (with_bounds, broken, plain) = (row(b"[0:0]={1}"), row(b"[0:0]={x}"), row(b"{1}"));
    let new = |bytes| match message(bytes).unwrap() {
        Message::Update(update) => update.new,
        other => panic!("{other:?}"),
    };
    let (mut out, mut notes) = (Vec::new(), Notes::default());
    columns.write_key(&new(&with_bounds), None, &mut out, &mut notes).unwrap();
    columns.write_row(&new(&plain), None, &mut out, &mut notes).unwrap();
    assert!(notes.lower_bounds.is_empty(), "after a key");
    columns.write_row(&new(&broken), None, &mut out, &mut notes).unwrap_err();
    columns.write_row(&new(&plain), None, &mut out, &mut notes).unwrap();
    assert!(notes.lower_bounds.is_empty(), "after an error");
}

#[test]
fn a_row_that_the_catalog_has_outgrown_is_stale_and_says_what_does_not_fit() {
    let mut columns = columns_of(&[(1, "id", 23), (0, "nests", 20_003), (0, "mood", 20_000)], &nested());
    columns.0[1].not_null = true;
    let outgrown: [(&[Value<'_>], &str); 4] = [
        (
            &[Value::Text(b"1"), Value::Null, Value::Text(b"sad")],
            "nests: it is NULL, and the column is known as NOT NULL",
        ),
        (
            &[Value::Text(b"1"), Value::Text(b"{}"), Value::Text(b"secret")],
            "mood: its type (oid 20000) has a label that is not known",
        ),
        (
            &[Value::Text(b"2"), Value::Text(br#"{"({1},\"{sad,secret}\")"}"#), Value::Text(b"sad")],
            "nests: its type (oid 20000) has a label that is not known",
        ),
        (
            &[Value::Text(b"2"), Value::Text(b"{(3)}"), Value::Text(b"sad")],
            "nests: its type (oid 20002) has other attributes than those known",
        ),
    ];
    for (row, reason) in outgrown {
        let error = written_by(&columns, None, row).unwrap_err();
        assert!(error.is_stale(), "{error}");
        let RowError::Unfitting { column, source } = error else { unreachable!() };
        let said = format!("{column}: {source}");
        assert_eq!(said, reason, "and no value is in it");
    }
}

#[test]
fn a_broken_value_is_not_taken_for_an_old_one() {
    let value = written(None, &[Value::Text(b"x"), Value::Null, Value::Null]).unwrap_err();
    assert!(!value.is_stale());
}

#[test]
fn a_key_that_failed_leaves_nothing_to_the_next_row() {
    let columns = columns_of(&[(1, "tags", 1007), (1, "body", 25)], &TypeCatalog::default());
    let bytes = update(None, &[Value::Text(b"[0:0]={1}"), Value::Unchanged]);
    let Message::Update(update) = message(&bytes).unwrap() else { unreachable!() };
    let mut notes = Notes::default();
    let key = columns.write_key(&update.new, None, &mut Vec::new(), &mut notes);
    assert_eq!(key, Err(RowError::KeyNotSent { column: "body".to_owned() }));
    columns.write_row(&update.new, None, &mut Vec::new(), &mut notes).unwrap();
    assert_eq!(notes.lower_bounds, br#""tags":[0]"#);
}
