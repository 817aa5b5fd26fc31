//! `bytea`: from the hexadecimal form to base64.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;

use super::NotA;

/// Bytes turned at a time: a multiple of three, so that only the last piece is padded.
const PIECE: usize = 768;

pub(super) fn base64(text: &[u8], out: &mut Vec<u8>) -> Result<(), NotA> {
    let hex = text.strip_prefix(b"\\x").ok_or(NOT_HEX)?;
    let (pairs, []) = hex.as_chunks::<2>() else { return Err(NOT_HEX) };
    out.push(b'"');
    let mut bytes = [0; PIECE];
    for piece in pairs.chunks(PIECE) {
        for (byte, &[high, low]) in bytes.iter_mut().zip(piece) {
            let (high, low) = (NIBBLE[usize::from(high)], NIBBLE[usize::from(low)]);
            if high > 0xf || low > 0xf {
                return Err(NOT_HEX);
            }
            *byte = high << 4 | low;
        }
        let start = out.len();
        out.resize(start + piece.len().div_ceil(3) * 4, 0);
        STANDARD
            .encode_slice(&bytes[..piece.len()], &mut out[start..])
            .expect("four characters for each three bytes are enough");
    }
    out.push(b'"');
    Ok(())
}

const NOT_HEX: NotA = NotA("bytea in hexadecimal");

/// The value of each hexadecimal digit; 0xff for all else.
const NIBBLE: [u8; 256] = {
    let mut table = [0xff; 256];
    let mut value = 0;
    while value < 16 {
        table[b"0123456789abcdef"[value as usize] as usize] = value;
        table[b"0123456789ABCDEF"[value as usize] as usize] = value;
        value += 1;
    }
    table
};
