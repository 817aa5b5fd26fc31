//! Enumerations: strings that the schema lists, hence strings that must be known.

use super::{EncodeError, Misfit, NotA, scalar};

/// How the values of an enumeration are written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EnumEncoder {
    /// The type.
    pub oid: u32,
    /// Its labels in the type's order; at the end those that it has no more, and that rows still have.
    labels: Vec<String>,
    /// The same, to be found.
    sorted: Vec<String>,
}

impl EnumEncoder {
    /// An enumeration with these labels.
    pub fn new(oid: u32, labels: Vec<String>) -> EnumEncoder {
        let mut sorted = labels.clone();
        sorted.sort_unstable();
        EnumEncoder { oid, labels, sorted }
    }

    /// What the schema lists.
    pub fn labels(&self) -> &[String] {
        &self.labels
    }

    pub(super) fn encode(&self, text: &[u8], out: &mut Vec<u8>) -> Result<(), EncodeError> {
        if self.sorted.binary_search_by(|label| label.as_bytes().cmp(text)).is_ok() {
            return Ok(scalar::string(text, out)?);
        }
        let label = std::str::from_utf8(text).map_err(|_| NotA("UTF-8"))?.to_owned();
        Err(Box::new(Misfit::Label { oid: self.oid, label }).into())
    }
}
