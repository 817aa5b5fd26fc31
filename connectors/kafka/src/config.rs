//! What the configuration says of a Kafka destination. Its documentation comments are the manual's.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fmt;
use std::num::NonZeroU16;
use std::path::PathBuf;

use forebay_api::template::Template;
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Deserializer};

/// One topic for each table, named as Debezium's users expect it.
const DEFAULT_TOPIC: &str = "{source}.{schema}.{table}";

/// The keys of a destination of type `kafka`.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// Brokers to ask first, as `host:port`; they name all others.
    #[schemars(length(min = 1))]
    pub brokers: Vec<String>,
    /// The topic that an event goes to. In what the placeholders bring, every character but letters, digits, `.`, `_`
    /// and `-` becomes `_`; two tables that would then share a topic are an error.
    #[serde(default = "default_topic")]
    #[schemars(extend("default" = DEFAULT_TOPIC))]
    pub topic: Template,
    /// How an event's key chooses its partition.
    #[serde(default)]
    pub partitioner: Partitioner,
    /// How batches are compressed. A level can be set by `options`: `compression.level`.
    #[serde(default)]
    pub compression: Compression,
    /// Creates a topic that does not exist before the first event is written to it. Absent, such a topic is an error.
    pub create_topics: Option<CreateTopics>,
    /// Writes a second message without a value after each delete event that has a key, so that compaction forgets the
    /// key in the end.
    #[serde(default)]
    pub tombstones: bool,
    /// Writes each batch in a transaction, together with the position that covers it, so that consumers with
    /// `isolation.level=read_committed` see each event once. `{}` suffices. Absent: events may stand in their topics
    /// twice after a crash.
    pub transactions: Option<Transactions>,
    /// Encrypts the connections. Absent: plain text; `{}`: encrypted, with the system's certificate authorities.
    pub tls: Option<Tls>,
    /// Names the user to the brokers. Absent: nobody, or whom `tls.cert` says.
    pub sasl: Option<Sasl>,
    /// Further settings of librdkafka (its CONFIGURATION.md lists them), such as `linger.ms: 5`. Refused is what other
    /// keys set, and what would weaken the guarantee that no event is lost or overtaken.
    #[serde(default)]
    pub options: BTreeMap<String, OptionValue>,
}

fn default_topic() -> Template {
    Template::parse(DEFAULT_TOPIC).expect("the default is a template")
}

/// How a key chooses its partition. Whoever else writes to the same topics must choose alike, or the order of a key is
/// lost between the two.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Partitioner {
    /// As Java clients do, hence Debezium, Kafka Connect and Kafka Streams.
    #[default]
    Murmur2Random,
    /// As librdkafka does on its own: CRC32.
    ConsistentRandom,
    /// As Sarama (Go) does: FNV-1a.
    Fnv1aRandom,
}

impl Partitioner {
    /// librdkafka's word for it.
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Partitioner::Murmur2Random => "murmur2_random",
            Partitioner::ConsistentRandom => "consistent_random",
            Partitioner::Fnv1aRandom => "fnv1a_random",
        }
    }
}

/// How batches are compressed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Compression {
    /// A quarter of the bytes and of the brokers' work, for hardly more work here.
    #[default]
    Lz4,
    /// Fewer bytes yet, for half as much work again here.
    Zstd,
    /// Like `lz4`, for consumers that know nothing else.
    Snappy,
    /// The slowest; for consumers that know nothing else.
    Gzip,
    /// As they are.
    None,
}

impl Compression {
    /// librdkafka's word for it.
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Compression::None => "none",
            Compression::Lz4 => "lz4",
            Compression::Zstd => "zstd",
            Compression::Snappy => "snappy",
            Compression::Gzip => "gzip",
        }
    }
}

/// What a topic that Forebay creates is like; what is absent is as the brokers do by default.
#[derive(Clone, Copy, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct CreateTopics {
    /// How many partitions it has.
    pub partitions: Option<NonZeroU16>,
    /// On how many brokers each partition is kept.
    pub replication: Option<NonZeroU16>,
}

/// How transactions are told apart from those of others.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Transactions {
    /// What the transactional ids begin with; the destination, the source with its epoch, and `topic` follow. Two daemons
    /// whose ids are equal take the stream away from each other, which is right where both write the same events to the
    /// same topics.
    #[serde(default = "default_id_prefix")]
    #[schemars(extend("default" = DEFAULT_ID_PREFIX))]
    pub id_prefix: String,
    /// The compacted topic that positions are kept in. It may be shared; its name must not be one that `topic` makes.
    /// Where it does not exist, `create_topics` has it created.
    #[serde(default = "default_positions_topic")]
    #[schemars(extend("default" = DEFAULT_POSITIONS_TOPIC))]
    pub positions_topic: String,
}

const DEFAULT_ID_PREFIX: &str = "forebay";
const DEFAULT_POSITIONS_TOPIC: &str = "__forebay_positions";

fn default_id_prefix() -> String {
    DEFAULT_ID_PREFIX.to_owned()
}

fn default_positions_topic() -> String {
    DEFAULT_POSITIONS_TOPIC.to_owned()
}

/// How connections are encrypted. Files are PEM.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Tls {
    /// Certificates of the authorities that may have signed the brokers'. Absent: the system's.
    pub ca: Option<PathBuf>,
    /// Our own certificate, where the brokers ask for one.
    pub cert: Option<PathBuf>,
    /// Its private key. A password for it is an option: `ssl.key.password`.
    pub key: Option<PathBuf>,
    /// What must be right about a broker's certificate.
    #[serde(default)]
    pub verify: Verify,
}

/// What must be right about a broker's certificate.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Verify {
    /// Who signed it and whose name it bears.
    #[default]
    Full,
    /// Who signed it; it may bear any name.
    Ca,
    /// Nothing: encrypted, but perhaps by somebody else.
    None,
}

/// Who we are to the brokers.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Sasl {
    /// How the password is proven. `PLAIN` sends it as it is: use `tls` with it.
    pub mechanism: Mechanism,
    /// The user's name.
    pub username: String,
    /// The user's password.
    pub password: Password,
}

/// How a password is proven.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
pub enum Mechanism {
    /// Sends it as it is.
    #[serde(rename = "PLAIN")]
    Plain,
    /// Proves to know it.
    #[serde(rename = "SCRAM-SHA-256")]
    ScramSha256,
    /// The same, with a longer hash.
    #[serde(rename = "SCRAM-SHA-512")]
    ScramSha512,
}

impl Mechanism {
    /// Kafka's word for it.
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Mechanism::Plain => "PLAIN",
            Mechanism::ScramSha256 => "SCRAM-SHA-256",
            Mechanism::ScramSha512 => "SCRAM-SHA-512",
        }
    }
}

/// A password, which no log line shows.
#[derive(Deserialize, JsonSchema)]
#[schemars(inline)]
pub struct Password(String);

impl Password {
    /// For librdkafka alone.
    pub(crate) fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Password {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Password(…)")
    }
}

/// The value of one option, as text; YAML may write it as a number or a boolean. No log line shows it, for it may be
/// the password of a key.
pub struct OptionValue(String);

impl OptionValue {
    /// For librdkafka alone.
    pub(crate) fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for OptionValue {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("OptionValue(…)")
    }
}

impl<'de> Deserialize<'de> for OptionValue {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<OptionValue, D::Error> {
        #[derive(Deserialize)]
        #[serde(untagged)]
        enum Scalar {
            Text(String),
            Whole(i64),
            Fraction(f64),
            Switch(bool),
        }
        Ok(OptionValue(match Scalar::deserialize(deserializer)? {
            Scalar::Text(text) => text,
            Scalar::Whole(number) => number.to_string(),
            Scalar::Fraction(number) => number.to_string(),
            Scalar::Switch(switch) => switch.to_string(),
        }))
    }
}

impl JsonSchema for OptionValue {
    fn inline_schema() -> bool {
        true
    }

    fn schema_name() -> Cow<'static, str> {
        "OptionValue".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({ "type": ["string", "number", "boolean"] })
    }
}
