//! Identifiers that nobody chose.

/// A random UUID, version 4.
pub(super) fn uuid() -> String {
    let bits: u128 = rand::random();
    let bits = bits & !(0xf << 76) & !(0x3 << 62) | (0x4 << 76) | (0x2 << 62);
    let hex = format!("{bits:032x}");
    format!("{}-{}-{}-{}-{}", &hex[..8], &hex[8..12], &hex[12..16], &hex[16..20], &hex[20..])
}

/// A UUID as it is written everywhere, in lower case; `None`: it is none.
pub(super) fn canonical_uuid(text: &str) -> Option<String> {
    let shaped = text.len() == 36
        && text.bytes().enumerate().all(|(at, byte)| match at {
            8 | 13 | 18 | 23 => byte == b'-',
            _ => byte.is_ascii_hexdigit(),
        });
    shaped.then(|| text.to_ascii_lowercase())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_fresh_one_is_a_uuid_and_no_other() {
        let (a, b) = (uuid(), uuid());
        assert!(a != b && canonical_uuid(&a) == Some(a.clone()), "{a} {b}");
        assert_eq!(&a[14..15], "4");
        assert!("89ab".contains(&a[19..20]));
        for wrong in ["", "x", "5641e14e-0e90-412b-8649-ec1229ede7eg", "5641e14e0e90412b8649ec1229ede7e4"] {
            assert_eq!(canonical_uuid(wrong), None, "{wrong}");
        }
    }
}
