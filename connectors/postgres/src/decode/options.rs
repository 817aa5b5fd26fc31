//! [`ValueOptions`]: what the configuration says about how values are written.

use schemars::JsonSchema;
use serde::Deserialize;

/// How numbers are written that many consumers read as floats.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
#[schemars(inline)]
pub struct ValueOptions {
    /// `int8` (`bigint`), wherever one is: JavaScript rounds numbers beyond 2^53.
    pub int8: Digits,
    /// `numeric`, wherever one is: most JSON parsers keep 15 digits of a number.
    pub numeric: Digits,
}

/// How the digits of a number are written. None is lost in either way.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
#[schemars(inline)]
pub enum Digits {
    /// As a JSON number.
    #[default]
    Number,
    /// In a string.
    String,
}
