//! Signs requests: HMAC-SHA256 over the time and the body.
//!
//! The header says `t=<seconds since 1970>,v1=<hex>`. The signature is over the digits of the time, a dot, and the bytes
//! of the body as they were sent, hence before a receiver decompresses them. A receiver that refuses old times refuses
//! requests that somebody has recorded.

use std::fmt::Write;

use hmac::{Hmac, KeyInit, Mac};
use sha2::Sha256;

/// The header's value.
pub(crate) fn sign(secret: &[u8], seconds: u64, body: &[u8]) -> String {
    let mut mac = Hmac::<Sha256>::new_from_slice(secret).expect("HMAC takes keys of any length");
    mac.update(seconds.to_string().as_bytes());
    mac.update(b".");
    mac.update(body);
    let mut out = format!("t={seconds},v1=");
    hex(&mac.finalize().into_bytes(), &mut out);
    out
}

/// Appends bytes as hex.
pub(crate) fn hex(bytes: &[u8], out: &mut String) {
    for byte in bytes {
        write!(out, "{byte:02x}").expect("a String takes all that is written");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Made by Python: `hmac.new(b"secret", b"1700000000.{}\n", "sha256").hexdigest()`.
    #[test]
    fn another_implementation_says_the_same() {
        let signed = sign(b"secret", 1_700_000_000, b"{}\n");
        assert_eq!(
            signed,
            "t=1700000000,v1=dc2e07c928691c3fdecbdca708e89415b4ad6f1c9ddb31cd2da8967da29cd435"
        );
    }
}
