//! What a user may say of this destination, and the limits of the service.

use std::fmt;

use forebay_api::Mistake;
use forebay_api::template::Template;
use forebay_api::units::ByteSize;
use schemars::JsonSchema;
use serde::Deserialize;

// The limits of the service, from its API reference (PutRecords) and its developer guide (quotas and limits; large
// records).

/// Records of one call.
pub(crate) const MOST_RECORDS: usize = 500;
/// Bytes of a call, partition keys included. The service takes 10 MiB; emulators and regions that are behind take 5.
pub(crate) const MOST_BYTES: usize = 5 << 20;
/// Bytes of a record with its partition key that a stream takes unless it was told to take more.
const DEFAULT_RECORD: ByteSize = ByteSize::mib(1);
/// What a stream can be told to take.
const LARGEST_RECORD: ByteSize = ByteSize::mib(10);
/// Characters of a partition key.
pub(crate) const LONGEST_KEY: usize = 256;
/// Characters of a stream's name.
pub(crate) const LONGEST_NAME: usize = 128;

/// The keys of a destination of type `kinesis`.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct KinesisConfig {
    /// The stream that an event goes to. In what the placeholders bring, every character but letters, digits, `.`, `_`
    /// and `-` becomes `_`; two tables that would then share a stream are an error. Streams are not created.
    pub stream: Template,
    /// The region. Absent: as for the AWS command line (`AWS_REGION`, the profile, the machine's own).
    #[schemars(length(min = 1))]
    pub region: Option<String>,
    /// The profile of `~/.aws/config`. Absent: `AWS_PROFILE`, else `default`.
    #[schemars(length(min = 1))]
    pub profile: Option<String>,
    /// Who we are. Absent: found as by every AWS SDK, in the environment, the profile (SSO, roles, processes), a web
    /// identity, the container or the machine.
    pub credentials: Option<Credentials>,
    /// Where the service is, such as a VPC endpoint or an emulator. Absent: the region's.
    #[schemars(extend("pattern" = "^https?://"))]
    pub endpoint: Option<String>,
    /// What is kept when Kinesis refuses some records of a call, as it does beyond a shard's limits.
    #[serde(default)]
    pub order: Order,
    /// The largest record that the stream takes, with its partition key, up to `10MiB`; a larger one is a dead letter.
    /// More than the default is for streams whose maximum record size was raised.
    #[serde(default = "default_max_record")]
    #[schemars(extend("default" = "1MiB"))]
    pub max_record: ByteSize,
}

fn default_max_record() -> ByteSize {
    DEFAULT_RECORD
}

/// Keys of AWS that are kept by nobody else.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Credentials {
    /// Begins with `AKIA`, or `ASIA` for a session.
    pub access_key_id: String,
    /// Its secret.
    pub secret_access_key: Secret,
    /// For the keys of a session.
    pub session_token: Option<Secret>,
}

/// A text that no log line shows.
#[derive(Clone, Deserialize, JsonSchema)]
#[schemars(inline)]
pub struct Secret(String);

impl Secret {
    /// For the client alone.
    pub(crate) fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(…)")
    }
}

/// What is kept when Kinesis refuses some records of a call.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Order {
    /// The order of each key, always: a call has one record of each key.
    #[default]
    Strict,
    /// Fast also where many events share a key. Later records of a key may stand before a refused one; they are written
    /// again behind it, so that the last record of each key is the last in the stream.
    Eventual,
}

impl KinesisConfig {
    /// What the types cannot refuse.
    pub(crate) fn mistakes(&self) -> Vec<Mistake> {
        let mut mistakes = Vec::new();
        if self.stream.placeholders().next().is_none() && illegal(&self.stream.to_string()) {
            let help = "a stream's name has up to 128 letters, digits, `.`, `_` and `-`";
            mistakes.push(mistake("/stream", "`stream` is not a name that a stream can have", help));
        }
        let https = |url: &String| url.starts_with("https://") || url.starts_with("http://");
        if self.endpoint.as_ref().is_some_and(|url| !https(url)) {
            mistakes.push(mistake("/endpoint", "`endpoint` is no URL", "write `https://host:port`"));
        }
        for (at, text) in [("/region", &self.region), ("/profile", &self.profile)] {
            if text.as_ref().is_some_and(String::is_empty) {
                mistakes.push(mistake(at, "this is empty", "write a name, or leave it out"));
            }
        }
        let absent =
            |keys: &Credentials| keys.access_key_id.is_empty() || keys.secret_access_key.0.is_empty();
        if self.credentials.as_ref().is_some_and(absent) {
            let help = "write both keys, or leave `credentials` out";
            mistakes.push(mistake("/credentials", "a key is empty", help));
        }
        if self.max_record.get() == 0 || self.max_record > LARGEST_RECORD {
            let message = "`max_record` is not between `1B` and `10MiB`";
            mistakes.push(mistake("/max_record", message, "write what the stream takes, such as `1MiB`"));
        }
        mistakes
    }
}

/// What no stream's name may have in it.
pub(crate) fn forbidden(char: char) -> bool {
    !(char.is_ascii_alphanumeric() || matches!(char, '.' | '_' | '-'))
}

/// Whether no stream can have this name.
pub(crate) fn illegal(name: &str) -> bool {
    name.is_empty() || name.len() > LONGEST_NAME || name.contains(forbidden)
}

fn mistake(at: &str, message: &str, help: &str) -> Mistake {
    Mistake { at: at.to_owned(), message: message.to_owned(), help: Some(help.to_owned()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_mistake_is_named_at_once() {
        let json = serde_json::json!({
            "stream": "a b", "region": "", "profile": "", "endpoint": "localhost:4566",
            "credentials": {"access_key_id": "AKIA", "secret_access_key": ""}, "max_record": "11MiB",
        });
        let config: KinesisConfig = serde_json::from_value(json).unwrap();
        let at: Vec<String> = config.mistakes().into_iter().map(|mistake| mistake.at).collect();
        assert_eq!(at, ["/stream", "/endpoint", "/region", "/profile", "/credentials", "/max_record"]);
    }

    #[test]
    fn a_stream_is_all_that_must_be_said() {
        let config: KinesisConfig = serde_json::from_str(r#"{"stream": "{table}"}"#).unwrap();
        assert!(config.mistakes().is_empty());
        assert_eq!((config.order, config.max_record), (Order::Strict, ByteSize::mib(1)));
    }
}
