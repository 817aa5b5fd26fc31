//! [`Exact`]: JSON with the digits of its numbers, which no float has touched.

use std::collections::BTreeMap;

use serde_json::Value;
use serde_json::value::RawValue;

/// A JSON value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Exact {
    Null,
    Bool(bool),
    /// As it stands there.
    Number(String),
    Text(String),
    Array(Vec<Exact>),
    /// The order of members says nothing.
    Object(BTreeMap<String, Exact>),
}

impl Exact {
    /// Reads a text that must be JSON.
    pub(super) fn read(json: &str) -> Exact {
        Exact::of(serde_json::from_str(json).unwrap_or_else(|error| panic!("{error} in {json}")))
    }

    fn of(raw: &RawValue) -> Exact {
        let json = raw.get();
        match json.as_bytes()[0] {
            b'n' => Exact::Null,
            b't' => Exact::Bool(true),
            b'f' => Exact::Bool(false),
            b'"' => Exact::Text(serde_json::from_str(json).unwrap()),
            b'[' => {
                let elements: Vec<&RawValue> = serde_json::from_str(json).unwrap();
                Exact::Array(elements.into_iter().map(Exact::of).collect())
            }
            b'{' => {
                let members: BTreeMap<String, &RawValue> = serde_json::from_str(json).unwrap();
                Exact::Object(members.into_iter().map(|(name, value)| (name, Exact::of(value))).collect())
            }
            _ => Exact::Number(json.to_owned()),
        }
    }

    /// The same for a validator, whose numbers are floats or integers of 64 bits: what is greater becomes 0.
    pub(super) fn to_value(&self) -> Value {
        match self {
            Exact::Null => Value::Null,
            Exact::Bool(value) => Value::Bool(*value),
            Exact::Number(digits) => serde_json::from_str(digits).unwrap_or_else(|_| 0.into()),
            Exact::Text(text) => Value::String(text.clone()),
            Exact::Array(elements) => elements.iter().map(Exact::to_value).collect(),
            Exact::Object(members) => {
                members.iter().map(|(name, value)| (name.clone(), value.to_value())).collect()
            }
        }
    }

    /// The member of an object that must have it.
    pub(super) fn member(&self, name: &str) -> &Exact {
        match self {
            Exact::Object(members) => {
                members.get(name).unwrap_or_else(|| panic!("there is no `{name}` in {self:?}"))
            }
            other => panic!("{other:?} is no object with `{name}`"),
        }
    }
}
