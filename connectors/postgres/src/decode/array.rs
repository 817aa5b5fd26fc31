//! Arrays of any dimension, and the two vector types.
//!
//! An array whose lower bounds are not 1 is written like any other, so that a column keeps one JSON type; its bounds
//! are told beside the row (see [`super::row::Notes`]), so that nothing is lost.

use std::io::Write;

use super::{ArrayEncoder, Encoder, NotA};

/// PostgreSQL's own limit (`MAXDIM`).
const MAX_DIMENSIONS: usize = 6;

const NOT_AN_ARRAY: NotA = NotA("an array");

/// `{1,NULL,"a \"b\""}`, `{{1,2},{3,4}}`, `[0:1]={1,2}`.
pub(super) fn array(
    encoder: &ArrayEncoder,
    text: &[u8],
    out: &mut Vec<u8>,
    scratch: &mut Vec<u8>,
) -> Result<(), NotA> {
    let (_, mut rest) = split_bounds(text)?;
    let mut depth = 0;
    loop {
        // here an element or an array begins
        match rest.first() {
            Some(b'{') if depth < MAX_DIMENSIONS => {
                depth += 1;
                out.push(b'[');
                rest = &rest[1..];
                if rest.first() != Some(&b'}') {
                    continue;
                }
            }
            Some(_) if depth > 0 => rest = element(encoder, rest, out, scratch)?,
            _ => return Err(NOT_AN_ARRAY),
        }
        // here something has ended
        while let Some(after) = rest.strip_prefix(b"}") {
            depth -= 1;
            out.push(b']');
            rest = after;
            if depth == 0 {
                return if rest.is_empty() { Ok(()) } else { Err(NOT_AN_ARRAY) };
            }
        }
        rest = rest.strip_prefix(&[encoder.delimiter]).ok_or(NOT_AN_ARRAY)?;
        out.push(b',');
    }
}

/// Writes one element and returns what follows it.
fn element<'a>(
    encoder: &ArrayEncoder,
    text: &'a [u8],
    out: &mut Vec<u8>,
    scratch: &mut Vec<u8>,
) -> Result<&'a [u8], NotA> {
    if let Some(quoted) = text.strip_prefix(b"\"") {
        let end = memchr::memchr2(b'"', b'\\', quoted).ok_or(NOT_AN_ARRAY)?;
        if quoted[end] == b'"' {
            // scratch is free for the element: an array holds no arrays as elements
            encoder.element.encode(&quoted[..end], out, scratch)?;
            return Ok(&quoted[end + 1..]);
        }
        let rest = unquote(quoted, scratch)?;
        let unquoted = std::mem::take(scratch);
        let encoded = encoder.element.encode(&unquoted, out, &mut Vec::new());
        *scratch = unquoted;
        return encoded.map(|()| rest);
    }
    let end = memchr::memchr2(encoder.delimiter, b'}', text).ok_or(NOT_AN_ARRAY)?;
    match &text[..end] {
        b"NULL" => out.extend_from_slice(b"null"),
        b"" => return Err(NOT_AN_ARRAY),
        plain => encoder.element.encode(plain, out, scratch)?,
    }
    Ok(&text[end..])
}

/// Takes the backslashes out of what follows an opening quote, into `scratch`; returns what follows the closing one.
fn unquote<'a>(mut quoted: &'a [u8], scratch: &mut Vec<u8>) -> Result<&'a [u8], NotA> {
    scratch.clear();
    loop {
        let end = memchr::memchr2(b'"', b'\\', quoted).ok_or(NOT_AN_ARRAY)?;
        scratch.extend_from_slice(&quoted[..end]);
        if quoted[end] == b'"' {
            return Ok(&quoted[end + 1..]);
        }
        scratch.push(*quoted.get(end + 1).ok_or(NOT_AN_ARRAY)?);
        quoted = &quoted[end + 2..];
    }
}

/// Splits `[0:1][2:3]=` from an array that has it.
fn split_bounds(text: &[u8]) -> Result<(&[u8], &[u8]), NotA> {
    if text.first() != Some(&b'[') {
        return Ok((&[], text));
    }
    let end = memchr::memchr(b'=', text).ok_or(NOT_AN_ARRAY)?;
    Ok((&text[..end], &text[end + 1..]))
}

/// Appends the lower bound of each dimension as a JSON array (`[0,2]`). Only for an array that tells them, which
/// begins with `[`.
pub(super) fn write_lower_bounds(text: &[u8], out: &mut Vec<u8>) -> Result<(), NotA> {
    let (bounds, _) = split_bounds(text)?;
    let bounds = std::str::from_utf8(bounds).map_err(|_| NOT_AN_ARRAY)?;
    out.push(b'[');
    for (dimension, bound) in bounds.trim_matches(['[', ']']).split("][").enumerate() {
        let lower = bound.split_once(':').and_then(|(lower, _)| lower.parse::<i32>().ok());
        let comma = if dimension == 0 { "" } else { "," };
        write!(out, "{comma}{}", lower.ok_or(NOT_AN_ARRAY)?).expect("a vector takes all that is written");
    }
    out.push(b']');
    Ok(())
}

/// `1 2 3`, as `int2vector` and `oidvector` print.
pub(super) fn vector(
    element: &Encoder,
    text: &[u8],
    out: &mut Vec<u8>,
    scratch: &mut Vec<u8>,
) -> Result<(), NotA> {
    out.push(b'[');
    for (at, value) in text.split(|&byte| byte == b' ').filter(|value| !value.is_empty()).enumerate() {
        if at > 0 {
            out.push(b',');
        }
        element.encode(value, out, scratch)?;
    }
    out.push(b']');
    Ok(())
}
