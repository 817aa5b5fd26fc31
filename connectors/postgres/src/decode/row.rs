//! [`Columns`]: a relation's columns, prepared so that a row costs one walk over its values.

pub use super::column::{Column, Treatment};
use super::types::TypeCatalog;
use super::{Misfit, NotA, Scratch};
use crate::protocol::{Relation, Tuple, Value};

/// The columns of one relation.
#[derive(Clone, Debug, Default)]
pub struct Columns(pub Vec<Column>);

/// What is said of a row beside its values. Reused from row to row; each row clears it.
#[derive(Clone, Debug, Default)]
pub struct Notes {
    /// The columns that the server did not send, as strings separated by commas; empty where it sent all.
    pub unchanged: Vec<u8>,
    /// Arrays whose lower bounds are not 1, as members separated by commas: `"tags":[0]`. An array inside of another
    /// value is named by a JSON pointer into the row: `"/address/lines":[0]`.
    pub lower_bounds: Vec<u8>,
    /// Room for encoders.
    pub(super) scratch: Scratch,
}

impl Notes {
    /// Forgets what was said of the row before.
    pub fn clear(&mut self) {
        self.unchanged.clear();
        self.lower_bounds.clear();
    }
}

/// A row that cannot be written. What was appended of it is of no use.
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
    /// A value does not fit what the catalog said of the column: the catalog has changed, before or after.
    #[error("column `{column}` is not what the catalog said of it")]
    Unfitting {
        /// The column.
        column: String,
        /// What does not fit.
        source: Misfit,
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

impl RowError {
    /// Whether what is known of the columns may be too old (or too new) for the row: then it can be written when the
    /// catalog was asked again, or with what the error says.
    pub fn is_stale(&self) -> bool {
        matches!(self, RowError::Unfitting { .. })
    }
}

impl Columns {
    /// Prepares the columns of a relation. All their types should be in the catalog by now.
    pub fn new(relation: &Relation<'_>, types: &TypeCatalog) -> Columns {
        Columns(relation.columns().map(|column| Column::new(column, types)).collect())
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
                    if notes.scratch.has_bounds() {
                        column.note_bounds(notes);
                    }
                }
                Value::Null => column.write_null(out)?,
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
        let written = self.write_key_parts(row, old, out, notes);
        // The row that the key is of tells its bounds, whether or not there is a key.
        notes.scratch.reset();
        written
    }

    fn write_key_parts(
        &self,
        row: &Tuple<'_>,
        old: Option<&Tuple<'_>>,
        out: &mut Vec<u8>,
        notes: &mut Notes,
    ) -> Result<(), RowError> {
        let start = out.len();
        // What follows the key's last column, most of a row as a rule, is not walked at all.
        let end = self.0.iter().rposition(|column| column.key).map_or(0, |last| last + 1);
        let columns = self.0[..end].iter().zip(row.values()).enumerate();
        for (at, (column, value)) in columns.filter(|(_, (column, _))| column.key) {
            match sent_or_old(value, old, at) {
                Value::Text(text) => column.write(text, out, notes)?,
                Value::Null => column.write_null(out)?,
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

/// The value, or where the server did not send it, that of the old row.
#[inline]
fn sent_or_old<'a>(value: Value<'a>, old: Option<&Tuple<'a>>, at: usize) -> Value<'a> {
    match (value, old) {
        (Value::Unchanged, Some(old)) => old.values().nth(at).unwrap_or(Value::Unchanged),
        (value, _) => value,
    }
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
mod tests;
