//! [`Column`]: one column of a relation, and what the configuration wants done with it.

use forebay_api::json;
use hmac::{Hmac, KeyInit, Mac};
use serde_json::Value as Json;
use sha2::Sha256;

use super::column_type::{ColumnType, pointer_token};
use super::row::{Notes, RowError};
use super::types::TypeCatalog;
use super::{EncodeError, Misfit, schema};
use crate::protocol;

/// One column.
#[derive(Clone, Debug)]
pub struct Column {
    /// Its name.
    pub name: String,
    /// Whether it belongs to the key of events. At first: whether it belongs to the replica identity.
    pub key: bool,
    /// Its type's oid; a domain's own.
    pub type_oid: u32,
    /// Its type's modifier; -1 where there is none.
    pub modifier: i32,
    /// How its values are written.
    pub kind: ColumnType,
    /// Whether every row is known to have a value. The stream does not say, so that at first it is not.
    pub not_null: bool,
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

impl Column {
    /// Prepares a column as the stream introduces it.
    pub(super) fn new(column: protocol::Column<'_>, types: &TypeCatalog) -> Column {
        let mut label = vec![b','];
        json::write_string(column.name, &mut label);
        label.push(b':');
        Column {
            name: column.name.to_owned(),
            key: column.key,
            type_oid: column.type_oid,
            modifier: column.type_modifier,
            kind: types.column_type(column.type_oid),
            not_null: false,
            treatment: Treatment::Keep,
            label,
        }
    }

    /// The JSON Schema of what is written for it.
    pub fn schema(&self) -> Json {
        schema::value_schema(&self.kind, self.modifier, !self.not_null, &self.treatment)
    }

    #[inline]
    pub(super) fn write(&self, text: &[u8], out: &mut Vec<u8>, notes: &mut Notes) -> Result<(), RowError> {
        out.extend_from_slice(&self.label);
        if let Treatment::Hash(mac) = &self.treatment {
            write_hash(mac, text, out);
            return Ok(());
        }
        let encoded = self.kind.encoder.encode(text, out, &mut notes.scratch);
        encoded.map_err(|error| self.failed(error, notes))
    }

    pub(super) fn write_null(&self, out: &mut Vec<u8>) -> Result<(), RowError> {
        if self.not_null {
            return Err(RowError::Unfitting { column: self.name.clone(), source: Misfit::Null });
        }
        out.extend_from_slice(&self.label);
        out.extend_from_slice(b"null");
        Ok(())
    }

    pub(super) fn note_unchanged(&self, notes: &mut Notes) {
        if !notes.unchanged.is_empty() {
            notes.unchanged.push(b',');
        }
        json::write_string(&self.name, &mut notes.unchanged);
    }

    /// Says which arrays of the value that was just written do not begin at 1.
    #[cold]
    pub(super) fn note_bounds(&self, notes: &mut Notes) {
        for bounds in notes.scratch.take_bounds() {
            if !notes.lower_bounds.is_empty() {
                notes.lower_bounds.push(b',');
            }
            if bounds.path.is_empty() {
                json::write_string(&self.name, &mut notes.lower_bounds);
            } else {
                let mut pointer = format!("/{}", pointer_token(&self.name));
                self.kind.point(&bounds.path, &mut pointer);
                json::write_string(&pointer, &mut notes.lower_bounds);
            }
            let lower: Vec<String> = bounds.lower.iter().map(i32::to_string).collect();
            notes.lower_bounds.extend_from_slice(format!(":[{}]", lower.join(",")).as_bytes());
        }
    }

    #[cold]
    fn failed(&self, error: EncodeError, notes: &mut Notes) -> RowError {
        notes.scratch.reset();
        let column = self.name.clone();
        match error {
            EncodeError::NotA(source) => RowError::Value { column, source },
            EncodeError::Misfit(source) => RowError::Unfitting { column, source: *source },
        }
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
