//! Text as HTTP carries it: percent-encoding, query pairs, base64. Pure; each error says which byte is wrong.

use std::borrow::Cow;

use base64::alphabet;
use base64::engine::{DecodePaddingMode, Engine, GeneralPurpose, GeneralPurposeConfig};

/// A text that is not encoded as it should be.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Misencoded {
    /// `%` without what belongs to it.
    #[error("the `%` at byte {0} is not followed by two hexadecimal digits")]
    Percent(usize),
    /// What was decoded is not text.
    #[error("it is not UTF-8 from byte {0} on, once it is decoded")]
    Utf8(usize),
    /// A character that neither alphabet of base64 has.
    #[error("the byte at {at} (0x{byte:02x}) is in no alphabet of base64")]
    Base64Byte {
        /// Where it is.
        at: usize,
        /// What it is.
        byte: u8,
    },
    /// `+` or `/`, and `-` or `_` too.
    #[error("it mixes the standard and the URL-safe alphabet of base64")]
    Base64Mixed,
    /// It ends in the middle.
    #[error("base64 cannot be {0} characters long")]
    Base64Length(usize),
    /// The wrong number of `=`.
    #[error("the padding of base64 is wrong")]
    Base64Padding,
    /// Bits of the last character belong to no byte.
    #[error("the last character of base64, at {0}, carries bits of no byte")]
    Base64Bits(usize),
}

/// What a `%` is that no two hexadecimal digits follow.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Lone {
    Refused,
    Itself,
}

/// Decodes a value of a form or a query: `%XX`, and `+` is a space.
pub fn decode_form(text: &str) -> Result<Cow<'_, str>, Misencoded> {
    decode(text, true, Lone::Refused)
}

/// Decodes a part of a path: `%XX`, and `+` is itself.
pub fn decode_path(text: &str) -> Result<Cow<'_, str>, Misencoded> {
    decode(text, false, Lone::Refused)
}

/// Decodes a header of an SDK that may have forgotten to encode it: as [`decode_path`], but a `%` that nothing follows
/// is itself.
pub fn decode_header(text: &str) -> Result<Cow<'_, str>, Misencoded> {
    decode(text, false, Lone::Itself)
}

fn decode(text: &str, plus: bool, lone: Lone) -> Result<Cow<'_, str>, Misencoded> {
    let bytes = text.as_bytes();
    let Some(first) = bytes.iter().position(|&byte| byte == b'%' || plus && byte == b'+') else {
        return Ok(Cow::Borrowed(text));
    };
    let mut decoded = Vec::with_capacity(bytes.len());
    decoded.extend_from_slice(&bytes[..first]);
    let mut at = first;
    while let Some(&byte) = bytes.get(at) {
        let pair = || Some(16 * hex(*bytes.get(at + 1)?)? + hex(*bytes.get(at + 2)?)?);
        match byte {
            b'+' if plus => decoded.push(b' '),
            b'%' => match pair() {
                Some(value) => {
                    decoded.push(value);
                    at += 2;
                }
                None if lone == Lone::Itself => decoded.push(b'%'),
                None => return Err(Misencoded::Percent(at)),
            },
            other => decoded.push(other),
        }
        at += 1;
    }
    match String::from_utf8(decoded) {
        Ok(text) => Ok(Cow::Owned(text)),
        Err(error) => Err(Misencoded::Utf8(error.utf8_error().valid_up_to())),
    }
}

/// The value of a hexadecimal digit.
pub fn hex(digit: u8) -> Option<u8> {
    char::from(digit).to_digit(16).and_then(|value| u8::try_from(value).ok())
}

/// The pairs of a query or form, still encoded: `a=1&b` gives `("a", "1")` and `("b", "")`. What lies between two `&`
/// without a character is no pair.
pub fn raw_pairs(query: &str) -> impl Iterator<Item = (&str, &str)> {
    let parts = query.split('&').filter(|part| !part.is_empty());
    parts.map(|part| part.split_once('=').unwrap_or((part, "")))
}

/// The pairs of a query or form, decoded each for itself.
pub fn pairs(query: &str) -> impl Iterator<Item = Result<(Cow<'_, str>, Cow<'_, str>), Misencoded>> {
    raw_pairs(query).map(|(name, value)| Ok((decode_form(name)?, decode_form(value)?)))
}

/// Decodes base64 of either alphabet, padded or not. Nothing else is let pass: no white space, no second spelling.
pub fn decode_base64(text: &str) -> Result<Vec<u8>, Misencoded> {
    let has = |a, b| text.bytes().any(|byte| byte == a || byte == b);
    let alphabet = match (has(b'+', b'/'), has(b'-', b'_')) {
        (true, true) => return Err(Misencoded::Base64Mixed),
        (_, true) => &alphabet::URL_SAFE,
        (_, false) => &alphabet::STANDARD,
    };
    let padding = match text.ends_with('=') {
        true => DecodePaddingMode::RequireCanonical,
        false => DecodePaddingMode::RequireNone,
    };
    let config = GeneralPurposeConfig::new().with_decode_padding_mode(padding);
    let decoded = GeneralPurpose::new(alphabet, config).decode(text);
    decoded.map_err(|error| match error {
        base64::DecodeError::InvalidByte(_, b'=') | base64::DecodeError::InvalidPadding => {
            Misencoded::Base64Padding
        }
        base64::DecodeError::InvalidByte(at, byte) => Misencoded::Base64Byte { at, byte },
        base64::DecodeError::InvalidLength(len) => Misencoded::Base64Length(len),
        base64::DecodeError::InvalidLastSymbol { offset, .. } => Misencoded::Base64Bits(offset),
    })
}

/// The first characters of what came, for a message: a sender must not be able to fill a log.
pub fn short(text: &str) -> Cow<'_, str> {
    const MOST: usize = 80;
    match text.char_indices().nth(MOST) {
        None => Cow::Borrowed(text),
        Some((end, _)) => Cow::Owned(format!("{}…", &text[..end])),
    }
}

#[cfg(test)]
mod tests {
    use base64::engine::general_purpose::{STANDARD, STANDARD_NO_PAD, URL_SAFE, URL_SAFE_NO_PAD};
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_plus_is_a_space_in_forms_alone() {
        assert_eq!(decode_form("a+b%2B%20c").unwrap(), "a b+ c");
        assert_eq!(decode_path("a+b%2b").unwrap(), "a+b+");
        assert_eq!(decode_form("Euro%20%E2%82%AC").unwrap(), "Euro €");
        assert!(matches!(decode_form("plain-ü").unwrap(), Cow::Borrowed(_)));
    }

    #[test]
    fn what_is_misencoded_is_refused_with_its_place() {
        for (text, error) in [
            ("100%", Misencoded::Percent(3)),
            ("%", Misencoded::Percent(0)),
            ("a%4", Misencoded::Percent(1)),
            ("%zz", Misencoded::Percent(0)),
            ("%+1", Misencoded::Percent(0)),
            ("%€", Misencoded::Percent(0)),
            ("ab%C0%A0", Misencoded::Utf8(2)),
            ("%ff", Misencoded::Utf8(0)),
        ] {
            assert_eq!(decode_form(text), Err(error), "{text}");
        }
        assert_eq!(decode_header("50% of %E2%82%AC").unwrap(), "50% of €");
        assert_eq!(decode_header("%C0%A0"), Err(Misencoded::Utf8(0)));
    }

    #[test]
    fn pairs_are_what_stands_between_ampersands() {
        let all: Vec<_> = raw_pairs("a=1&&b&=c&d=e=f&").collect();
        assert_eq!(all, [("a", "1"), ("b", ""), ("", "c"), ("d", "e=f")]);
        let each: Vec<_> = pairs("a=%&b=%31").collect();
        assert_eq!(each[0], Err(Misencoded::Percent(0)));
        assert_eq!(each[1], Ok(("b".into(), "1".into())));
    }

    #[test]
    fn base64_that_no_encoder_writes_is_refused() {
        for (text, error) in [
            ("QUJD\n", Misencoded::Base64Byte { at: 4, byte: b'\n' }),
            ("QU JD", Misencoded::Base64Byte { at: 2, byte: b' ' }),
            ("+-aa", Misencoded::Base64Mixed),
            ("QUJDR", Misencoded::Base64Length(5)),
            ("QR==", Misencoded::Base64Bits(1)),
            ("QR", Misencoded::Base64Bits(1)),
            ("QQ=", Misencoded::Base64Padding),
            ("=QQ=", Misencoded::Base64Padding),
            ("QQ==QQ==", Misencoded::Base64Padding),
        ] {
            assert_eq!(decode_base64(text), Err(error), "{text}");
        }
        assert_eq!(decode_base64(""), Ok(Vec::new()));
    }

    proptest! {
        #[test]
        fn every_alphabet_of_base64_comes_back(bytes: Vec<u8>) {
            for text in [
                STANDARD.encode(&bytes), STANDARD_NO_PAD.encode(&bytes),
                URL_SAFE.encode(&bytes), URL_SAFE_NO_PAD.encode(&bytes),
            ] {
                let decoded = decode_base64(&text).unwrap();
                prop_assert_eq!(&decoded, &bytes);
            }
        }

        #[test]
        fn any_text_comes_back_through_percent_encoding(text: String) {
            let encoded: String = text.bytes().map(|byte| format!("%{byte:02X}")).collect();
            prop_assert_eq!(decode_form(&encoded).unwrap(), &*text);
            prop_assert_eq!(decode_path(&encoded).unwrap(), &*text);
            let _ = (decode_form(&text), decode_header(&text), decode_base64(&text));
        }
    }
}
