//! From PostgreSQL's text of a value to its JSON, straight into the caller's buffer.
//!
//! Which [`Encoder`] a column needs is found once per relation ([`types::TypeCatalog::column_type`]); per value there
//! is one `match`, no allocation for scalars and no float. The session settings pinned in [`crate::connect`] are what
//! makes the texts that are expected here the only ones that come. A text that is not what its type prints is an
//! error, and no error shows a value. Pure, but for the one query that fills the catalog.
//!
//! The catalog is asked for how types are now, and the texts are of when they were written. Where the two differ in a
//! way that can be seen, the error is a [`Misfit`], which can be mended: see [`row::RowError::is_stale`].

mod array;
mod built_in;
mod bytea;
mod column;
pub mod column_type;
mod composite;
mod enumeration;
mod hstore;
mod moment;
pub mod options;
mod pgvector;
mod quoted;
mod range;
pub mod row;
mod scalar;
pub mod schema;
mod scratch;
pub mod types;

use forebay_api::json;

use column_type::ColumnType;
pub use composite::{Attribute, CompositeEncoder};
pub use enumeration::EnumEncoder;
pub use scratch::Scratch;

/// How a column's values are written. Several types share one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Encoder {
    /// `true` or `false`.
    Bool,
    /// A number with its digits as they are.
    Integer,
    /// The same in a string, for consumers whose numbers are floats.
    IntegerText,
    /// A number with its digits as they are; NaN and the infinities are strings, since JSON has no word for them.
    Number,
    /// The same in a string.
    NumberText,
    /// A string.
    Text,
    /// A string of the one byte that `"char"` is.
    Char,
    /// A string of hexadecimal digits.
    Hex,
    /// The value itself; only line breaks between its tokens become spaces, so that a line holds an event.
    Json,
    /// Base64 in a string.
    Bytea,
    /// An ISO 8601 date, `±YYYYYY` outside the years 0000 to 9999; `infinity` and `-infinity` as they are.
    Date,
    /// The same with a time, without a zone.
    Timestamp,
    /// The same in UTC, with `Z`.
    TimestampTz,
    /// A JSON array of a vector's elements, which PostgreSQL separates by spaces.
    Vector(Box<ColumnType>),
    /// Nested JSON arrays.
    Array(Box<ArrayEncoder>),
    /// A string, one of the type's labels.
    Enum(Box<EnumEncoder>),
    /// An object of its attributes.
    Composite(Box<CompositeEncoder>),
    /// `{"lower":1,"upper":5,"bounds":"[)","empty":false}`, with values of this type.
    Range(Box<ColumnType>),
    /// A JSON array of such ranges.
    Multirange(Box<ColumnType>),
    /// An object of strings and nulls.
    Hstore,
    /// A JSON array of numbers: pgvector's `vector` and `halfvec`.
    Dense,
    /// `{"dimensions":5,"elements":{"1":0.5}}`: pgvector's `sparsevec`.
    Sparse,
}

/// How the values of an array type are written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ArrayEncoder {
    /// What one element is.
    pub element: ColumnType,
    /// What stands between two: `,` for all types but `box`.
    pub delimiter: u8,
}

/// A text that is not what its type prints.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a value is not {0}")]
pub struct NotA(pub(crate) &'static str);

/// A value that its type does not have as far as it is known here: the catalog has changed since it was asked, or
/// between the writing of the row and the asking.
#[derive(Clone, PartialEq, Eq, thiserror::Error)]
pub enum Misfit {
    /// No value, where the column was known to have one in every row.
    #[error("it is NULL, and the column is known as NOT NULL")]
    Null,
    /// A label that is none of those known of an enumeration.
    #[error("its type (oid {oid}) has a label that is not known")]
    Label {
        /// The enumeration.
        oid: u32,
        /// The label.
        label: String,
    },
    /// Other attributes than those known of a composite type.
    #[error("its type (oid {oid}) has other attributes than those known")]
    Attributes {
        /// The composite type.
        oid: u32,
    },
}

/// Hand-written because a label is part of a row.
impl std::fmt::Debug for Misfit {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Misfit::Null => formatter.write_str("Null"),
            Misfit::Label { oid, .. } => {
                formatter.debug_struct("Label").field("oid", oid).finish_non_exhaustive()
            }
            Misfit::Attributes { oid } => formatter.debug_struct("Attributes").field("oid", oid).finish(),
        }
    }
}

/// Why a text cannot be written.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum EncodeError {
    /// It is not what its type prints.
    #[error(transparent)]
    NotA(#[from] NotA),
    /// It is not what its type, as it is known here, prints. Boxed because it is rare, and every value returns a
    /// `Result`.
    #[error(transparent)]
    Misfit(#[from] Box<Misfit>),
}

impl Encoder {
    /// Appends the JSON of one value. After an error, what was appended is of no use.
    #[inline]
    pub fn encode(&self, text: &[u8], out: &mut Vec<u8>, scratch: &mut Scratch) -> Result<(), EncodeError> {
        match self {
            Encoder::Integer => scalar::integer(text, out)?,
            Encoder::Text => scalar::string(text, out)?,
            Encoder::Number => scalar::number(text, out)?,
            Encoder::TimestampTz => moment::timestamptz(text, out)?,
            Encoder::Timestamp => moment::timestamp(text, out)?,
            Encoder::Bool => scalar::boolean(text, out)?,
            Encoder::Date => moment::date(text, out)?,
            Encoder::Json => scalar::json(text, out)?,
            Encoder::Bytea => bytea::base64(text, out)?,
            Encoder::IntegerText => scalar::integer_text(text, out)?,
            Encoder::NumberText => scalar::number_text(text, out)?,
            Encoder::Char => scalar::char(text, out)?,
            Encoder::Hex => scalar::hex(text, out)?,
            Encoder::Enum(labels) => labels.encode(text, out)?,
            Encoder::Vector(element) => array::vector(element, text, out, scratch)?,
            Encoder::Array(array) => array::array(array, text, out, scratch)?,
            Encoder::Composite(composite) => composite.encode(text, out, scratch)?,
            Encoder::Range(element) => range::range(element, text, out, scratch)?,
            Encoder::Multirange(element) => range::multirange(element, text, out, scratch)?,
            Encoder::Hstore => hstore::object(text, out, scratch)?,
            Encoder::Dense => pgvector::dense(text, out)?,
            Encoder::Sparse => pgvector::sparse(text, out)?,
        }
        Ok(())
    }
}

/// A string that is known to need no escaping.
fn plain(text: &[u8], out: &mut Vec<u8>) {
    out.push(b'"');
    out.extend_from_slice(text);
    out.push(b'"');
}

/// Any UTF-8 as a JSON string.
fn escaped(utf8: &[u8], out: &mut Vec<u8>) {
    out.push(b'"');
    json::write_escaped(utf8, out);
    out.push(b'"');
}

#[cfg(test)]
mod tests;
