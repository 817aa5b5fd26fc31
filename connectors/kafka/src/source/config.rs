//! What the configuration says of a Kafka source. Its documentation comments are the manual's.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::Deserialize;

use crate::config::{OptionValue, Sasl, Tls};

/// The keys of a source of type `kafka`.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct SourceConfig {
    /// Brokers to ask first, as `host:port`; they name all others.
    #[schemars(length(min = 1))]
    pub brokers: Vec<String>,
    /// Topics to read. One that begins with `^` is a regular expression, and topics that match it later are read too.
    #[schemars(length(min = 1))]
    pub topics: Vec<String>,
    /// The consumer group: daemons with the same one share the partitions, and its offsets say what was delivered. By
    /// default `forebay-` and the source's name.
    pub group: Option<String>,
    /// Where a partition begins for which neither the group nor this daemon has an offset.
    #[serde(default)]
    pub start: StartAt,
    /// The schema of the messages, `vendor/name/version`. By default the source's vendor, the topic's name and `1-0-0`.
    /// A message that has a header `forebay-schema` is of that one.
    pub schema: Option<String>,
    /// Encrypts the connections. Absent: plain text; `{}`: encrypted, with the system's certificate authorities.
    pub tls: Option<Tls>,
    /// Names the user to the brokers. Absent: nobody, or whom `tls.cert` says.
    pub sasl: Option<Sasl>,
    /// Further settings of librdkafka (its CONFIGURATION.md lists them), such as `group.instance.id: a`. Refused is what
    /// other keys set, and what would move the group's offsets past messages that are not delivered.
    #[serde(default)]
    pub options: BTreeMap<String, OptionValue>,
}

/// Where a partition begins for which no offset is known.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum StartAt {
    /// With the oldest message that is there.
    #[default]
    Earliest,
    /// With what is written from now on.
    Latest,
}
