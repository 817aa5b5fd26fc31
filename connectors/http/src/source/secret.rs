//! [`Secret`]: what no log line shows.

use std::fmt;

use schemars::JsonSchema;
use serde::Deserialize;

/// A secret, which no log line shows.
#[derive(Clone, Deserialize, JsonSchema)]
#[schemars(inline)]
pub struct Secret(String);

impl Secret {
    /// The text itself.
    pub(crate) fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(…)")
    }
}
