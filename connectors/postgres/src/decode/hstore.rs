//! `hstore`: an object of strings and nulls.

use super::quoted::{Quoting, quoted};
use super::{EncodeError, NotA, Scratch, scalar};

const NOT_HSTORE: NotA = NotA("hstore");

/// `"a"=>"1", "b"=>NULL`; no key comes twice.
pub(super) fn object(text: &[u8], out: &mut Vec<u8>, scratch: &mut Scratch) -> Result<(), EncodeError> {
    let mut rest = text;
    out.push(b'{');
    while !rest.is_empty() {
        if rest.len() < text.len() {
            rest = rest.strip_prefix(b", ").ok_or(NOT_HSTORE)?;
            out.push(b',');
        }
        rest = string(rest, out, scratch)?.strip_prefix(b"=>").ok_or(NOT_HSTORE)?;
        out.push(b':');
        rest = match rest.strip_prefix(b"NULL") {
            Some(rest) => {
                out.extend_from_slice(b"null");
                rest
            }
            None => string(rest, out, scratch)?,
        };
    }
    out.push(b'}');
    Ok(())
}

/// Writes a quoted string and returns what follows it.
fn string<'a>(text: &'a [u8], out: &mut Vec<u8>, scratch: &mut Scratch) -> Result<&'a [u8], EncodeError> {
    let inside = text.strip_prefix(b"\"").ok_or(NOT_HSTORE)?;
    quoted(inside, Quoting::Escaped, scratch, |value, _| Ok(scalar::string(value, out)?))
}
