//! [`Lsn`], a place in the write-ahead log. Pure: no I/O.

use std::fmt;
use std::str::FromStr;

/// A byte position in PostgreSQL's write-ahead log, written `16/B374D848` by the server.
///
/// A type of its own, so that it is never mixed up with a count or a time.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Lsn(pub u64);

impl fmt::Display for Lsn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:X}/{:X}", self.0 >> 32, self.0 & 0xffff_ffff)
    }
}

/// Text that is not a WAL position.
#[derive(Debug, thiserror::Error)]
#[error("`{0}` is not a WAL position; write it as the server does, like `16/B374D848`")]
pub struct NotAnLsn(String);

impl FromStr for Lsn {
    type Err = NotAnLsn;

    fn from_str(text: &str) -> Result<Lsn, NotAnLsn> {
        let refuse = || NotAnLsn(text.to_owned());
        let half = |digits: &str| {
            let hexadecimal = !digits.is_empty() && digits.bytes().all(|b| b.is_ascii_hexdigit());
            let value = if hexadecimal { u32::from_str_radix(digits, 16).ok() } else { None };
            value.map(u64::from).ok_or_else(refuse)
        };
        let (high, low) = text.split_once('/').ok_or_else(refuse)?;
        Ok(Lsn(half(high)? << 32 | half(low)?))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_position_is_read_as_it_is_written() {
        for text in ["0/0", "0/16B3748", "16/B374D848", "FFFFFFFF/FFFFFFFF"] {
            assert_eq!(text.parse::<Lsn>().unwrap().to_string(), text);
        }
        assert_eq!("16/b374d848".parse::<Lsn>().unwrap(), Lsn(0x16_B374_D848));
    }

    #[test]
    fn what_is_no_position_is_refused() {
        for text in ["", "/", "1/", "/1", "1", "1/2/3", "+1/2", "1/100000000", "g/0"] {
            assert!(text.parse::<Lsn>().is_err(), "{text}");
        }
    }
}
