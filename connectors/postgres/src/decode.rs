//! From PostgreSQL's text of a value to its JSON, straight into the caller's buffer.
//!
//! Which [`Encoder`] a column needs is found once per relation ([`types::TypeCatalog::column_type`]); per value there
//! is one `match`, no allocation and no float. The session settings pinned in [`crate::connect`] are what makes the
//! texts that are expected here the only ones that come. A text that is not what its type prints is an error, and no
//! error shows a value. Pure, but for the one query that fills the catalog.

mod array;
mod bytea;
mod moment;
pub mod row;
mod scalar;
pub mod types;

use forebay_api::json;

/// How a column's values are written. Several types share one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Encoder {
    /// `true` or `false`.
    Bool,
    /// A number with its digits as they are.
    Integer,
    /// A number with its digits as they are; NaN and the infinities are strings, since JSON has no word for them.
    Number,
    /// A string.
    Text,
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
    Vector(Box<Encoder>),
    /// Nested JSON arrays.
    Array(Box<ArrayEncoder>),
}

/// How the values of an array type are written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ArrayEncoder {
    /// How one element is.
    pub element: Encoder,
    /// What stands between two: `,` for all types but `box`.
    pub delimiter: u8,
}

/// A text that is not what its type prints.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a value is not {0}")]
pub struct NotA(pub(crate) &'static str);

impl Encoder {
    /// Appends the JSON of one value. `scratch` is room for elements that must be unquoted first; whatever it holds
    /// is lost. After an error, what was appended is of no use.
    #[inline]
    pub fn encode(&self, text: &[u8], out: &mut Vec<u8>, scratch: &mut Vec<u8>) -> Result<(), NotA> {
        match self {
            Encoder::Integer => scalar::integer(text, out),
            Encoder::Text => scalar::string(text, out),
            Encoder::Number => scalar::number(text, out),
            Encoder::TimestampTz => moment::timestamptz(text, out),
            Encoder::Timestamp => moment::timestamp(text, out),
            Encoder::Bool => scalar::boolean(text, out),
            Encoder::Date => moment::date(text, out),
            Encoder::Json => scalar::json(text, out),
            Encoder::Bytea => bytea::base64(text, out),
            Encoder::Vector(element) => array::vector(element, text, out, scratch),
            Encoder::Array(array) => array::array(array, text, out, scratch),
        }
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
