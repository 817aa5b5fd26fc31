//! pgvector's types.

use super::NotA;
use super::scalar::is_json_number;

/// `[1,2.5,-3e-07]`, as `vector` and `halfvec` print: finite numbers only.
pub(super) fn dense(text: &[u8], out: &mut Vec<u8>) -> Result<(), NotA> {
    const NOT_A_VECTOR: NotA = NotA("a vector");
    let inside = text.strip_prefix(b"[").and_then(|text| text.strip_suffix(b"]")).ok_or(NOT_A_VECTOR)?;
    let numbers = inside.split(|&byte| byte == b',').all(is_json_number);
    if !numbers && !inside.is_empty() {
        return Err(NOT_A_VECTOR);
    }
    out.extend_from_slice(text);
    Ok(())
}

/// `{1:0.5,3:2}/5`, as `sparsevec` prints: the elements that are not zero, from 1 on, and how many there are in all.
pub(super) fn sparse(text: &[u8], out: &mut Vec<u8>) -> Result<(), NotA> {
    const NOT_SPARSE: NotA = NotA("a sparse vector");
    let split = memchr::memrchr(b'/', text).ok_or(NOT_SPARSE)?;
    let (elements, dimensions) = (&text[..split], &text[split + 1..]);
    let inside = elements.strip_prefix(b"{").and_then(|text| text.strip_suffix(b"}")).ok_or(NOT_SPARSE)?;
    if !is_count(dimensions) {
        return Err(NOT_SPARSE);
    }
    out.extend_from_slice(br#"{"dimensions":"#);
    out.extend_from_slice(dimensions);
    out.extend_from_slice(br#","elements":{"#);
    for (at, element) in inside.split(|&byte| byte == b',').filter(|_| !inside.is_empty()).enumerate() {
        let (index, value) = element.split_at(memchr::memchr(b':', element).ok_or(NOT_SPARSE)?);
        if !is_count(index) || !is_json_number(&value[1..]) {
            return Err(NOT_SPARSE);
        }
        out.extend_from_slice(if at == 0 { b"\"" } else { b",\"" });
        out.extend_from_slice(index);
        out.push(b'"');
        out.extend_from_slice(value);
    }
    out.extend_from_slice(b"}}");
    Ok(())
}

/// Digits without a zero in front.
fn is_count(text: &[u8]) -> bool {
    text.first().is_some_and(|first| (b'1'..=b'9').contains(first)) && text.iter().all(u8::is_ascii_digit)
}
