//! The quoted parts of arrays, composites, ranges and hstore.

use super::{EncodeError, NotA, Scratch};

/// How quotes and backslashes are written inside of quotes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Quoting {
    /// Behind a backslash: arrays and hstore.
    Escaped,
    /// Twice: composites and ranges. A backslash escapes, too.
    Doubled,
}

const NOT_CLOSED: NotA = NotA("closed by a quote");

/// Hands to `write` what stands behind an opening quote, with its quoting undone, and returns what follows the closing
/// quote.
pub(super) fn quoted<'a>(
    text: &'a [u8],
    quoting: Quoting,
    scratch: &mut Scratch,
    write: impl FnOnce(&[u8], &mut Scratch) -> Result<(), EncodeError>,
) -> Result<&'a [u8], EncodeError> {
    let end = memchr::memchr2(b'"', b'\\', text).ok_or(NOT_CLOSED)?;
    if closes(&text[end..], quoting) {
        write(&text[..end], scratch)?;
        return Ok(&text[end + 1..]);
    }
    let mut inside = scratch.take();
    let rest = undo(text, quoting, &mut inside)?;
    let written = write(&inside, scratch);
    scratch.give(inside);
    written.map(|()| rest)
}

/// Whether the quote or backslash at the beginning of `text` is the closing quote.
fn closes(text: &[u8], quoting: Quoting) -> bool {
    text[0] == b'"' && !(quoting == Quoting::Doubled && text.get(1) == Some(&b'"'))
}

/// Appends the part to `inside` and returns what follows its closing quote.
fn undo<'a>(mut text: &'a [u8], quoting: Quoting, inside: &mut Vec<u8>) -> Result<&'a [u8], NotA> {
    loop {
        let end = memchr::memchr2(b'"', b'\\', text).ok_or(NOT_CLOSED)?;
        inside.extend_from_slice(&text[..end]);
        if closes(&text[end..], quoting) {
            return Ok(&text[end + 1..]);
        }
        // a backslash or the first of two quotes; what follows stands for itself
        inside.push(*text.get(end + 1).ok_or(NOT_CLOSED)?);
        text = &text[end + 2..];
    }
}
