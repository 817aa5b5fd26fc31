//! What tells one journal from all others.

use std::fmt;

use serde::{Deserialize, Serialize};

/// A random number of 128 bits, made with the journal; 32 hexadecimal digits as text.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub(crate) struct Identity(pub(crate) u128);

impl Identity {
    /// One that no other journal has.
    pub(crate) fn new() -> Identity {
        Identity(rand::random())
    }

    /// The upper half, for a stream that has no events.
    pub(crate) fn upper(self) -> u64 {
        u64::try_from(self.0 >> 64).expect("64 bits are left")
    }
}

impl fmt::Display for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:032x}", self.0)
    }
}

impl From<Identity> for String {
    fn from(identity: Identity) -> String {
        identity.to_string()
    }
}

impl TryFrom<String> for Identity {
    type Error = &'static str;

    fn try_from(text: String) -> Result<Identity, &'static str> {
        let number = u128::from_str_radix(&text, 16).ok().map(Identity);
        number.filter(|identity| identity.to_string() == text).ok_or("an identity has 32 hexadecimal digits")
    }
}
