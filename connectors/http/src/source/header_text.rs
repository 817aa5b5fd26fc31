//! [`HeaderText`]: the name of a header, as the configuration writes it.

use std::borrow::Cow;

use http::HeaderName;
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Deserializer, de};

/// Headers that never go into an event.
const CREDENTIALS: [&str; 4] = ["authorization", "cookie", "proxy-authorization", "set-cookie"];

/// The name of a header that holds no credentials.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HeaderText(HeaderName);

impl HeaderText {
    /// The name.
    pub fn as_name(&self) -> &HeaderName {
        &self.0
    }
}

impl<'de> Deserialize<'de> for HeaderText {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<HeaderText, D::Error> {
        let text = String::deserialize(deserializer)?;
        let name = HeaderName::from_bytes(text.as_bytes())
            .map_err(|_| de::Error::custom("not the name of a header such as `x-request-id`"))?;
        match CREDENTIALS.contains(&name.as_str()) {
            true => {
                Err(de::Error::custom(format!("the header `{name}` holds credentials, which are never kept")))
            }
            false => Ok(HeaderText(name)),
        }
    }
}

impl JsonSchema for HeaderText {
    fn inline_schema() -> bool {
        true
    }

    fn schema_name() -> Cow<'static, str> {
        "HeaderText".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({ "title": "header", "type": "string", "minLength": 1, "examples": ["x-github-event"] })
    }
}
