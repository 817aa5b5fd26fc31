//! What a user may say of this destination.

use std::collections::BTreeMap;
use std::fmt;
use std::path::PathBuf;

use forebay_api::units::Period;
use schemars::JsonSchema;
use serde::Deserialize;

/// The keys of a destination of type `http`.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct HttpDestinationConfig {
    /// Where events are sent: `https://…` or `http://…`. Redirects are not followed.
    #[schemars(extend("pattern" = "^https?://"))]
    pub url: String,
    /// The request's method.
    #[serde(default)]
    pub method: Method,
    /// How events stand in a request.
    #[serde(default)]
    pub body: Body,
    /// Further headers. No log line shows their values.
    #[serde(default)]
    pub headers: BTreeMap<String, Secret>,
    /// Names us to the receiver: `{bearer: …}`, or `{username: …, password: …}`.
    pub auth: Option<Auth>,
    /// For `https`: whom we trust and who we are. Absent: the system's certificate authorities, and nobody.
    pub tls: Option<Tls>,
    /// How bodies are compressed; the receiver learns it from `Content-Encoding`.
    #[serde(default)]
    pub compression: Compression,
    /// How long one request may take, its answer included. What takes longer is sent again.
    #[serde(default = "default_request_timeout")]
    #[schemars(extend("default" = DEFAULT_REQUEST_TIMEOUT))]
    pub request_timeout: Period,
    /// Signs each request, so that the receiver can tell that it is ours, whole and fresh.
    pub signature: Option<Signature>,
}

const DEFAULT_REQUEST_TIMEOUT: &str = "30s";

fn default_request_timeout() -> Period {
    DEFAULT_REQUEST_TIMEOUT.parse().expect("the default is a duration")
}

/// The request's method.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema)]
pub enum Method {
    /// What most receivers want.
    #[default]
    #[serde(rename = "POST")]
    Post,
    /// For receivers that want it.
    #[serde(rename = "PUT")]
    Put,
}

/// How events stand in a request.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Body {
    /// A batch, one JSON object a line.
    #[default]
    Ndjson,
    /// A batch, as one JSON array.
    Array,
    /// One event, as one JSON object.
    Single,
}

/// How bodies are compressed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Compression {
    /// As they are.
    #[default]
    None,
    /// What every receiver knows that knows any.
    Gzip,
    /// Fewer bytes for less work.
    Zstd,
}

/// Who we are to the receiver: a token, or a name with a password.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Auth {
    /// Sent as `Authorization: Bearer …`.
    pub bearer: Option<Secret>,
    /// Sent as `Authorization: Basic …`, with the password.
    pub username: Option<String>,
    /// The user's password.
    pub password: Option<Secret>,
}

/// Whom we trust and who we are. Files are PEM, read at the start.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Tls {
    /// Certificates of the authorities that may have signed the receiver's. Absent: the system's.
    pub ca: Option<PathBuf>,
    /// Our own certificate, where the receiver asks for one.
    pub cert: Option<PathBuf>,
    /// Its private key.
    pub key: Option<PathBuf>,
}

/// How requests are signed.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Signature {
    /// What both sides know and nobody else.
    pub secret: Secret,
    /// The header that holds the signature.
    #[serde(default = "default_header")]
    #[schemars(extend("default" = DEFAULT_HEADER))]
    pub header: String,
}

const DEFAULT_HEADER: &str = "X-Forebay-Signature";

fn default_header() -> String {
    DEFAULT_HEADER.to_owned()
}

/// A text that no log line shows.
#[derive(Clone, Deserialize, JsonSchema)]
#[schemars(inline)]
pub struct Secret(String);

impl Secret {
    /// For the request alone.
    pub(crate) fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(…)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_secret_is_shown() {
        let config: HttpDestinationConfig = serde_json::from_value(serde_json::json!({
            "url": "https://a.example", "headers": {"X-Key": "hidden1"},
            "auth": {"username": "u", "password": "hidden2"}, "signature": {"secret": "hidden3"},
        }))
        .unwrap();
        let shown = format!("{config:?}");
        assert!(shown.contains("X-Key") && !shown.contains("hidden"), "{shown}");
    }
}
