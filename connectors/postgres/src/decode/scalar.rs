//! Booleans, numbers, strings and JSON.

use super::{NotA, escaped, plain};

pub(super) fn boolean(text: &[u8], out: &mut Vec<u8>) -> Result<(), NotA> {
    match text {
        b"t" => out.extend_from_slice(b"true"),
        b"f" => out.extend_from_slice(b"false"),
        _ => return Err(NotA("a boolean")),
    }
    Ok(())
}

pub(super) fn integer(text: &[u8], out: &mut Vec<u8>) -> Result<(), NotA> {
    let digits = text.strip_prefix(b"-").unwrap_or(text);
    let zero_in_front = digits.len() > 1 && digits[0] == b'0';
    if digits.is_empty() || zero_in_front || !digits.iter().all(u8::is_ascii_digit) {
        return Err(NotA("an integer"));
    }
    out.extend_from_slice(text);
    Ok(())
}

pub(super) fn integer_text(text: &[u8], out: &mut Vec<u8>) -> Result<(), NotA> {
    out.push(b'"');
    integer(text, out)?;
    out.push(b'"');
    Ok(())
}

/// What `numeric` and the floats print is JSON's own syntax, but for the three that are no numbers.
pub(super) fn number(text: &[u8], out: &mut Vec<u8>) -> Result<(), NotA> {
    match text {
        b"NaN" | b"Infinity" | b"-Infinity" => plain(text, out),
        _ if is_json_number(text) => out.extend_from_slice(text),
        _ => return Err(NotA("a number")),
    }
    Ok(())
}

pub(super) fn number_text(text: &[u8], out: &mut Vec<u8>) -> Result<(), NotA> {
    match text {
        b"NaN" | b"Infinity" | b"-Infinity" => {}
        _ if is_json_number(text) => {}
        _ => return Err(NotA("a number")),
    }
    plain(text, out);
    Ok(())
}

/// `-?digits(.digits)?(e[+-]?digits)?`, and no zero in front.
pub(super) fn is_json_number(text: &[u8]) -> bool {
    let digits = |from: &[u8]| from.iter().take_while(|byte| byte.is_ascii_digit()).count();
    let mut rest = text.strip_prefix(b"-").unwrap_or(text);
    let whole = digits(rest);
    if whole == 0 || (whole > 1 && rest[0] == b'0') {
        return false;
    }
    rest = &rest[whole..];
    if let Some(fraction) = rest.strip_prefix(b".") {
        let count = digits(fraction);
        if count == 0 {
            return false;
        }
        rest = &fraction[count..];
    }
    if let [b'e' | b'E', exponent @ ..] = rest {
        let exponent = match exponent {
            [b'+' | b'-', digits @ ..] => digits,
            digits => digits,
        };
        let count = digits(exponent);
        if count == 0 {
            return false;
        }
        rest = &exponent[count..];
    }
    rest.is_empty()
}

/// How many bytes are looked at together; the compiler turns the test into vector instructions.
const LANES: usize = 32;

pub(super) fn string(text: &[u8], out: &mut Vec<u8>) -> Result<(), NotA> {
    let special = |byte: u8| (byte < 0x20) | (byte == b'"') | (byte == b'\\') | (byte >= 0x80);
    let any = |bytes: &[u8]| bytes.iter().fold(false, |found, &byte| found | special(byte));
    let (chunks, rest) = text.as_chunks::<LANES>();
    if !chunks.iter().any(|chunk| any(chunk)) && !any(rest) {
        plain(text, out);
        return Ok(());
    }
    escaped(utf8(text)?, out);
    Ok(())
}

/// A byte of `"char"` that is no ASCII is half a character as a rule. PostgreSQL 16 and later print it as here; before,
/// it comes as it is.
pub(super) fn char(text: &[u8], out: &mut Vec<u8>) -> Result<(), NotA> {
    if let &[byte @ 0x80..=0xff] = text {
        let octal = [b'0' + (byte >> 6), b'0' + (byte >> 3 & 7), b'0' + (byte & 7)];
        out.extend_from_slice(b"\"\\\\");
        out.extend_from_slice(&octal);
        out.push(b'"');
        return Ok(());
    }
    string(text, out)
}

pub(super) fn hex(text: &[u8], out: &mut Vec<u8>) -> Result<(), NotA> {
    if !text.iter().all(u8::is_ascii_hexdigit) {
        return Err(NotA("hexadecimal"));
    }
    plain(text, out);
    Ok(())
}

/// A database with encoding SQL_ASCII sends any bytes, whatever the client's encoding.
fn utf8(text: &[u8]) -> Result<&[u8], NotA> {
    std::str::from_utf8(text).map(str::as_bytes).map_err(|_| NotA("UTF-8"))
}

/// Inside its strings JSON has no raw line breaks, so those that are there stand between tokens.
pub(super) fn json(text: &[u8], out: &mut Vec<u8>) -> Result<(), NotA> {
    let mut clean = out.len();
    out.extend_from_slice(utf8(text)?);
    while let Some(at) = memchr::memchr2(b'\n', b'\r', &out[clean..]) {
        out[clean + at] = b' ';
        clean += at + 1;
    }
    Ok(())
}
