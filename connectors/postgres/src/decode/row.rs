//! [`Columns`]: a relation's columns, prepared so that a row costs one walk over its values.

use forebay_api::json;
use hmac::{Hmac, KeyInit, Mac};
use sha2::Sha256;

use super::types::{ColumnType, TypeCatalog};
use super::{Encoder, NotA, array};
use crate::protocol::{Relation, Tuple, Value};

/// The columns of one relation.
#[derive(Clone, Debug, Default)]
pub struct Columns(pub Vec<Column>);

/// One column.
#[derive(Clone, Debug)]
pub struct Column {
    /// Its name.
    pub name: String,
    /// Whether it belongs to the key of events. At first: whether it belongs to the replica identity.
    pub key: bool,
    /// How its values are written.
    pub kind: ColumnType,
    /// What the configuration wants done with its values.
    pub treatment: Treatment,
    /// `,"name":`, written before each value.
    label: Vec<u8>,
}

/// What is done with a column's values before anything is stored.
#[derive(Clone, Debug, Default)]
pub enum Treatment {
    /// Nothing.
    #[default]
    Keep,
    /// They are left out, name and all.
    Exclude,
    /// Each becomes the HMAC-SHA-256 of its text, in hexadecimal digits: equal values stay equal.
    Hash(Box<Hmac<Sha256>>),
}

impl Treatment {
    /// Hashing with this salt as the key.
    pub fn hash(salt: &str) -> Treatment {
        let mac = Hmac::new_from_slice(salt.as_bytes()).expect("HMAC takes keys of any length");
        Treatment::Hash(Box::new(mac))
    }
}

/// What is said of a row beside its values. Reused from row to row; each row clears it.
#[derive(Clone, Debug, Default)]
pub struct Notes {
    /// The columns that the server did not send, as strings separated by commas; empty where it sent all.
    pub unchanged: Vec<u8>,
    /// Arrays whose lower bounds are not 1, as members separated by commas: `"tags":[0]`.
    pub lower_bounds: Vec<u8>,
    /// Room for [`Encoder::encode`].
    scratch: Vec<u8>,
}

impl Notes {
    /// Forgets what was said of the row before.
    pub fn clear(&mut self) {
        self.unchanged.clear();
        self.lower_bounds.clear();
    }
}

/// A row that cannot be written.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RowError {
    /// It has another number of values than its relation has columns.
    #[error("a row has {values} values for {columns} columns")]
    Count {
        /// How many values.
        values: usize,
        /// How many columns.
        columns: usize,
    },
    /// A value is not what its type prints.
    #[error("column `{column}` cannot be written")]
    Value {
        /// The column.
        column: String,
        /// What is wrong, without the value.
        source: NotA,
    },
    /// Binary was never asked for.
    #[error("column `{column}` came in binary form, which was not asked for")]
    Binary {
        /// The column.
        column: String,
    },
    /// A key without a value would mix up rows.
    #[error("column `{column}` belongs to the key, and the server did not send it")]
    KeyNotSent {
        /// The column.
        column: String,
    },
}

impl Columns {
    /// Prepares the columns of a relation. All their types should be in the catalog by now.
    pub fn new(relation: &Relation<'_>, types: &TypeCatalog) -> Columns {
        let prepared = relation.columns().map(|column| {
            let mut label = vec![b','];
            json::write_string(column.name, &mut label);
            label.push(b':');
            let kind = types.column_type(column.type_oid);
            Column { name: column.name.to_owned(), key: column.key, kind, treatment: Treatment::Keep, label }
        });
        Columns(prepared.collect())
    }

    /// Appends the row as a JSON object. A value that the server did not send is taken from `old`, the full old row,
    /// if there is one; else its column is absent from the object and named in the notes.
    pub fn write_row(
        &self,
        new: &Tuple<'_>,
        old: Option<&Tuple<'_>>,
        out: &mut Vec<u8>,
        notes: &mut Notes,
    ) -> Result<(), RowError> {
        self.check(new)?;
        notes.clear();
        let start = out.len();
        for (at, (column, value)) in self.0.iter().zip(new.values()).enumerate() {
            if matches!(column.treatment, Treatment::Exclude) {
                continue;
            }
            match sent_or_old(value, old, at) {
                Value::Text(text) => {
                    column.write(text, out, notes)?;
                    column.note_bounds(text, notes)?;
                }
                Value::Null => column.write_null(out),
                Value::Unchanged => column.note_unchanged(notes),
                Value::Binary(_) => return Err(RowError::Binary { column: column.name.clone() }),
            }
        }
        close(start, out);
        Ok(())
    }

    /// Appends the key of a row as a JSON object. A value that the server did not send, because it is large and did not
    /// change, is taken from `old`.
    pub fn write_key(
        &self,
        row: &Tuple<'_>,
        old: Option<&Tuple<'_>>,
        out: &mut Vec<u8>,
        notes: &mut Notes,
    ) -> Result<(), RowError> {
        self.check(row)?;
        let start = out.len();
        // What follows the key's last column, most of a row as a rule, is not walked at all.
        let end = self.0.iter().rposition(|column| column.key).map_or(0, |last| last + 1);
        let columns = self.0[..end].iter().zip(row.values()).enumerate();
        for (at, (column, value)) in columns.filter(|(_, (column, _))| column.key) {
            match sent_or_old(value, old, at) {
                Value::Text(text) => column.write(text, out, notes)?,
                Value::Null => column.write_null(out),
                Value::Unchanged => return Err(RowError::KeyNotSent { column: column.name.clone() }),
                Value::Binary(_) => return Err(RowError::Binary { column: column.name.clone() }),
            }
        }
        close(start, out);
        Ok(())
    }

    /// Whether events have a key at all.
    pub fn has_key(&self) -> bool {
        self.0.iter().any(|column| column.key)
    }

    fn check(&self, row: &Tuple<'_>) -> Result<(), RowError> {
        let (values, columns) = (row.len(), self.0.len());
        if values == columns { Ok(()) } else { Err(RowError::Count { values, columns }) }
    }
}

impl Column {
    #[inline]
    fn write(&self, text: &[u8], out: &mut Vec<u8>, notes: &mut Notes) -> Result<(), RowError> {
        out.extend_from_slice(&self.label);
        if let Treatment::Hash(mac) = &self.treatment {
            write_hash(mac, text, out);
            return Ok(());
        }
        self.kind.encoder.encode(text, out, &mut notes.scratch).map_err(|source| self.failed(source))
    }

    fn write_null(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(&self.label);
        out.extend_from_slice(b"null");
    }

    fn note_unchanged(&self, notes: &mut Notes) {
        if !notes.unchanged.is_empty() {
            notes.unchanged.push(b',');
        }
        json::write_string(&self.name, &mut notes.unchanged);
    }

    #[inline]
    fn note_bounds(&self, text: &[u8], notes: &mut Notes) -> Result<(), RowError> {
        let plain = !matches!(self.kind.encoder, Encoder::Array(_)) || text.first() != Some(&b'[');
        if plain || matches!(self.treatment, Treatment::Hash(_)) {
            return Ok(());
        }
        if !notes.lower_bounds.is_empty() {
            notes.lower_bounds.push(b',');
        }
        json::write_string(&self.name, &mut notes.lower_bounds);
        notes.lower_bounds.push(b':');
        let written = array::write_lower_bounds(text, &mut notes.lower_bounds);
        written.map_err(|source| self.failed(source))
    }

    fn failed(&self, source: NotA) -> RowError {
        RowError::Value { column: self.name.clone(), source }
    }
}

/// The value, or where the server did not send it, that of the old row.
#[inline]
fn sent_or_old<'a>(value: Value<'a>, old: Option<&Tuple<'a>>, at: usize) -> Value<'a> {
    match (value, old) {
        (Value::Unchanged, Some(old)) => old.values().nth(at).unwrap_or(Value::Unchanged),
        (value, _) => value,
    }
}

fn write_hash(mac: &Hmac<Sha256>, text: &[u8], out: &mut Vec<u8>) {
    const HEX: &[u8; 16] = b"0123456789abcdef";
    let mut mac = mac.clone();
    mac.update(text);
    out.push(b'"');
    for byte in mac.finalize().into_bytes() {
        out.extend_from_slice(&[HEX[usize::from(byte >> 4)], HEX[usize::from(byte & 0xf)]]);
    }
    out.push(b'"');
}

/// The first label's comma becomes the object's brace.
fn close(start: usize, out: &mut Vec<u8>) {
    match out.get_mut(start) {
        Some(comma) => *comma = b'{',
        None => out.push(b'{'),
    }
    out.push(b'}');
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protocol::{Message, Old, message};

    /// A relation of `id int4` (the key), `body text`, `tags int4[]`.
    fn columns() -> Columns {
        let mut bytes = b"R\0\0\0\x07public\0t\0d\0\x03".to_vec();
        for (key, name, oid) in [(1, "id", 23u32), (0, "bo\"dy", 25), (0, "tags", 1007)] {
            bytes.push(key);
            bytes.extend_from_slice(name.as_bytes());
            bytes.push(0);
            bytes.extend_from_slice(&oid.to_be_bytes());
            bytes.extend_from_slice(&[0xff; 4]);
        }
        let Message::Relation(relation) = message(&bytes).unwrap() else { unreachable!() };
        Columns::new(&relation, &TypeCatalog::default())
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
        let bytes = update(old, new);
        let Message::Update(update) = message(&bytes).unwrap() else { unreachable!() };
        let old = update.old.map(|(Old::Key(row) | Old::Full(row))| row);
        let (mut out, mut notes) = (b"before".to_vec(), Notes::default());
        notes.unchanged = b"of the row before".to_vec();
        columns().write_row(&update.new, old.as_ref(), &mut out, &mut notes)?;
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
        let expected =
            r#"{"id":1,"tags":"79cd3f995c440e1875a051039940f9f77f0555634967c75c0d3c82b5df35706d"}"#;
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
}
