//! Arrays of any dimension, and the two vector types of the catalogs.
//!
//! An array whose lower bounds are not 1 is written like any other, so that a column keeps one JSON type; its bounds
//! are told beside the row (see [`super::row::Notes`]), so that nothing is lost.

use super::column_type::ColumnType;
use super::quoted::{Quoting, quoted};
use super::{ArrayEncoder, EncodeError, NotA, Scratch};

/// PostgreSQL's own limit (`MAXDIM`).
const MAX_DIMENSIONS: usize = 6;

const NOT_AN_ARRAY: NotA = NotA("an array");

/// `{1,NULL,"a \"b\""}`, `{{1,2},{3,4}}`, `[0:1]={1,2}`.
pub(super) fn array(
    encoder: &ArrayEncoder,
    text: &[u8],
    out: &mut Vec<u8>,
    scratch: &mut Scratch,
) -> Result<(), EncodeError> {
    let mut rest = if text.first() == Some(&b'[') { note_bounds(text, scratch)? } else { text };
    let mut depth = 0;
    loop {
        // here an element or an array begins
        match rest.first() {
            Some(b'{') if depth < MAX_DIMENSIONS => {
                depth += 1;
                scratch.enter_array();
                out.push(b'[');
                rest = &rest[1..];
                if rest.first() != Some(&b'}') {
                    continue;
                }
            }
            Some(_) if depth > 0 => rest = element(encoder, rest, out, scratch)?,
            _ => return Err(NOT_AN_ARRAY.into()),
        }
        // here something has ended
        while let Some(after) = rest.strip_prefix(b"}") {
            depth -= 1;
            scratch.leave();
            out.push(b']');
            rest = after;
            if depth == 0 {
                return if rest.is_empty() { Ok(()) } else { Err(NOT_AN_ARRAY.into()) };
            }
        }
        rest = rest.strip_prefix(&[encoder.delimiter]).ok_or(NOT_AN_ARRAY)?;
        scratch.next_element();
        out.push(b',');
    }
}

/// Writes one element and returns what follows it.
fn element<'a>(
    encoder: &ArrayEncoder,
    text: &'a [u8],
    out: &mut Vec<u8>,
    scratch: &mut Scratch,
) -> Result<&'a [u8], EncodeError> {
    let element = &encoder.element.encoder;
    if let Some(inside) = text.strip_prefix(b"\"") {
        return quoted(inside, Quoting::Escaped, scratch, |value, scratch| {
            element.encode(value, out, scratch)
        });
    }
    let end = memchr::memchr2(encoder.delimiter, b'}', text).ok_or(NOT_AN_ARRAY)?;
    match &text[..end] {
        b"NULL" => out.extend_from_slice(b"null"),
        b"" => return Err(NOT_AN_ARRAY.into()),
        plain => element.encode(plain, out, scratch)?,
    }
    Ok(&text[end..])
}

/// Takes `[0:1][2:3]=` off an array that has it, and remembers the lower bounds.
fn note_bounds<'a>(text: &'a [u8], scratch: &mut Scratch) -> Result<&'a [u8], NotA> {
    let (bounds, rest) = text.split_at(memchr::memchr(b'=', text).ok_or(NOT_AN_ARRAY)?);
    let bounds = std::str::from_utf8(bounds).map_err(|_| NOT_AN_ARRAY)?;
    let bounds = bounds.strip_prefix('[').and_then(|bounds| bounds.strip_suffix(']')).ok_or(NOT_AN_ARRAY)?;
    let lower =
        |bound: &str| bound.split_once(':').and_then(|(lower, _)| lower.parse().ok()).ok_or(NOT_AN_ARRAY);
    scratch.note_bounds(bounds.split("][").map(lower).collect::<Result<_, _>>()?);
    Ok(&rest[1..])
}

/// `1 2 3`, as `int2vector` and `oidvector` print.
pub(super) fn vector(
    element: &ColumnType,
    text: &[u8],
    out: &mut Vec<u8>,
    scratch: &mut Scratch,
) -> Result<(), EncodeError> {
    out.push(b'[');
    for (at, value) in text.split(|&byte| byte == b' ').filter(|value| !value.is_empty()).enumerate() {
        if at > 0 {
            out.push(b',');
        }
        element.encoder.encode(value, out, scratch)?;
    }
    out.push(b']');
    Ok(())
}
