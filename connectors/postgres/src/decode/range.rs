//! Ranges and multiranges: objects that say both ends.

use super::column_type::ColumnType;
use super::quoted::{Quoting, quoted};
use super::{EncodeError, NotA, Scratch};

const NOT_A_RANGE: NotA = NotA("a range");
const NOT_A_MULTIRANGE: NotA = NotA("a multirange");

/// What an empty range is written as. PostgreSQL, too, says that neither of its ends is inside.
const EMPTY: &[u8] = br#"{"lower":null,"upper":null,"bounds":"()","empty":true}"#;

/// `[1,5)`, `("a b",]`, `empty`; no value means no end.
pub(super) fn range(
    element: &ColumnType,
    text: &[u8],
    out: &mut Vec<u8>,
    scratch: &mut Scratch,
) -> Result<(), EncodeError> {
    if text == b"empty" {
        out.extend_from_slice(EMPTY);
        return Ok(());
    }
    let rest = ends(element, text, out, scratch)?;
    if rest.is_empty() { Ok(()) } else { Err(NOT_A_RANGE.into()) }
}

/// `{[1,3),[5,7)}`, `{}`. None of its ranges is empty.
pub(super) fn multirange(
    element: &ColumnType,
    text: &[u8],
    out: &mut Vec<u8>,
    scratch: &mut Scratch,
) -> Result<(), EncodeError> {
    let mut rest = text.strip_prefix(b"{").ok_or(NOT_A_MULTIRANGE)?;
    out.push(b'[');
    scratch.enter_array();
    if rest.first() != Some(&b'}') {
        rest = ends(element, rest, out, scratch)?;
        while let Some(next) = rest.strip_prefix(b",") {
            out.push(b',');
            scratch.next_element();
            rest = ends(element, next, out, scratch)?;
        }
    }
    scratch.leave();
    out.push(b']');
    if rest == b"}" { Ok(()) } else { Err(NOT_A_MULTIRANGE.into()) }
}

/// Writes a range that is not empty and returns what follows it.
fn ends<'a>(
    element: &ColumnType,
    text: &'a [u8],
    out: &mut Vec<u8>,
    scratch: &mut Scratch,
) -> Result<&'a [u8], EncodeError> {
    let (&open, rest) =
        text.split_first().filter(|(open, _)| matches!(open, b'[' | b'(')).ok_or(NOT_A_RANGE)?;
    out.extend_from_slice(br#"{"lower":"#);
    scratch.enter_part(0);
    let rest = end(element, rest, out, scratch)?.strip_prefix(b",").ok_or(NOT_A_RANGE)?;
    scratch.leave();
    out.extend_from_slice(br#","upper":"#);
    scratch.enter_part(1);
    let rest = end(element, rest, out, scratch)?;
    scratch.leave();
    let (&close, rest) =
        rest.split_first().filter(|(close, _)| matches!(close, b']' | b')')).ok_or(NOT_A_RANGE)?;
    out.extend_from_slice(br#","bounds":""#);
    out.extend_from_slice(&[open, close]);
    out.extend_from_slice(br#"","empty":false}"#);
    Ok(rest)
}

/// Writes one end and returns what follows it.
fn end<'a>(
    element: &ColumnType,
    text: &'a [u8],
    out: &mut Vec<u8>,
    scratch: &mut Scratch,
) -> Result<&'a [u8], EncodeError> {
    let encoder = &element.encoder;
    if let Some(inside) = text.strip_prefix(b"\"") {
        return quoted(inside, Quoting::Doubled, scratch, |value, scratch| {
            encoder.encode(value, out, scratch)
        });
    }
    let end = memchr::memchr3(b',', b')', b']', text).ok_or(NOT_A_RANGE)?;
    match &text[..end] {
        b"" => out.extend_from_slice(b"null"),
        plain => encoder.encode(plain, out, scratch)?,
    }
    Ok(&text[end..])
}
