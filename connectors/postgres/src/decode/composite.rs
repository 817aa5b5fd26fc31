//! Composite types: from a row's text to an object by the catalog.

use forebay_api::json;

use super::column_type::ColumnType;
use super::quoted::{Quoting, quoted};
use super::{EncodeError, Misfit, NotA, Scratch};

/// How the values of a composite type are written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CompositeEncoder {
    /// The type.
    pub oid: u32,
    /// What it has, without those that were dropped: a text has no place for them.
    pub attributes: Vec<Attribute>,
}

/// One attribute of a composite type.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Attribute {
    /// Its name.
    pub name: String,
    /// What its values are.
    pub kind: ColumnType,
    /// Its type's modifier; -1 where there is none.
    pub modifier: i32,
    /// `"name":`, written before each value.
    label: Vec<u8>,
}

impl Attribute {
    /// Prepares an attribute.
    pub fn new(name: &str, kind: ColumnType, modifier: i32) -> Attribute {
        let mut label = Vec::new();
        json::write_string(name, &mut label);
        label.push(b':');
        Attribute { name: name.to_owned(), kind, modifier, label }
    }
}

const NOT_A_ROW: NotA = NotA("a row of a composite type");

impl CompositeEncoder {
    /// `(1,"a ""b""",)`: no value between two commas is NULL, an empty string is quoted.
    ///
    /// A text that this type does not print may well be one that it printed when it had other attributes.
    pub(super) fn encode(
        &self,
        text: &[u8],
        out: &mut Vec<u8>,
        scratch: &mut Scratch,
    ) -> Result<(), EncodeError> {
        match self.object(text, out, scratch) {
            Err(EncodeError::NotA(_)) => Err(Box::new(Misfit::Attributes { oid: self.oid }).into()),
            written => written,
        }
    }

    fn object(&self, text: &[u8], out: &mut Vec<u8>, scratch: &mut Scratch) -> Result<(), EncodeError> {
        let mut rest = text.strip_prefix(b"(").ok_or(NOT_A_ROW)?;
        out.push(b'{');
        for (part, attribute) in (0..).zip(&self.attributes) {
            if part > 0 {
                rest = rest.strip_prefix(b",").ok_or(NOT_A_ROW)?;
                out.push(b',');
            }
            out.extend_from_slice(&attribute.label);
            scratch.enter_part(part);
            rest = value(attribute, rest, out, scratch)?;
            scratch.leave();
        }
        out.push(b'}');
        if rest == b")" { Ok(()) } else { Err(NOT_A_ROW.into()) }
    }
}

/// Writes one value and returns what follows it.
fn value<'a>(
    attribute: &Attribute,
    text: &'a [u8],
    out: &mut Vec<u8>,
    scratch: &mut Scratch,
) -> Result<&'a [u8], EncodeError> {
    let encoder = &attribute.kind.encoder;
    if let Some(inside) = text.strip_prefix(b"\"") {
        return quoted(inside, Quoting::Doubled, scratch, |value, scratch| {
            encoder.encode(value, out, scratch)
        });
    }
    let end = memchr::memchr2(b',', b')', text).ok_or(NOT_A_ROW)?;
    match &text[..end] {
        b"" => out.extend_from_slice(b"null"),
        plain => encoder.encode(plain, out, scratch)?,
    }
    Ok(&text[end..])
}
