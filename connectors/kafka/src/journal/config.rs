//! What the configuration says of a journal in Kafka. Its documentation comments are the manual's.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::Deserialize;

use crate::config::{Compression, CreateTopics, OptionValue, Sasl, Tls};

/// The keys of a journal of type `kafka`.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct JournalConfig {
    /// Brokers to ask first, as `host:port`; they name all others.
    #[schemars(length(min = 1))]
    pub brokers: Vec<String>,
    /// The topic, for this source alone. `{instance}` stands for the daemon's `name`, `{source}` for the source's: daemons
    /// that share the work must come to the same name.
    #[serde(default = "default_topic")]
    pub topic: String,
    /// The first part of the consumer groups' names, with the same placeholders; each destination has a group of its own,
    /// `<group>.<destination>`.
    #[serde(default = "default_group")]
    pub group: String,
    /// Creates the topic when it does not exist; `partitions` are the most daemons that can deliver at once. Without it
    /// such a topic is an error.
    #[serde(default = "default_create")]
    #[schemars(extend("default" = {"partitions": 12}))]
    pub create_topic: Option<CreateTopics>,
    /// How batches are compressed.
    #[serde(default)]
    pub compression: Compression,
    /// Encrypts the connections. Absent: plain text; `{}`: encrypted, with the system's certificate authorities.
    pub tls: Option<Tls>,
    /// Names the user to the brokers. Absent: nobody, or whom `tls.cert` says.
    pub sasl: Option<Sasl>,
    /// Further settings of librdkafka for writing. Refused is what would weaken the guarantees.
    #[serde(default)]
    pub options: BTreeMap<String, OptionValue>,
    /// Further settings of librdkafka for reading, such as `session.timeout.ms: 10000`. Refused is what would weaken the
    /// guarantees.
    #[serde(default)]
    pub reader_options: BTreeMap<String, OptionValue>,
}

fn default_topic() -> String {
    "forebay-journal-{instance}-{source}".to_owned()
}

fn default_group() -> String {
    "forebay-{instance}-{source}".to_owned()
}

#[expect(clippy::unnecessary_wraps, reason = "the default of an optional key")]
fn default_create() -> Option<CreateTopics> {
    let partitions = std::num::NonZeroU16::new(12);
    Some(CreateTopics { partitions, replication: None })
}
