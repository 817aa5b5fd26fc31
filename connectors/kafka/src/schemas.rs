//! `type: kafka` of the schema registry: a compacted topic whose messages' keys are the keys of schemas.
//!
//! Everything in the topic is read once and kept, bounded; each question reads on to its end first, so that a schema is
//! found as soon as it was written. A topic that is not there is a fault, not an empty registry.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use forebay_api::{
    Blame, Fault, MAX_SCHEMA_BYTES, Mistake, SchemaKey, SchemaStore, SchemaStoreConnector, SchemaStoreSetting,
};
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::KafkaError as LibraryError;
use rdkafka::{Message, Offset, TopicPartitionList};
use schemars::JsonSchema;
use serde::Deserialize;
use tokio::time::Instant;

use crate::client::blocking;
use crate::config::{OptionValue, Sasl, Tls};
use crate::fault::{self, code};
use crate::options::mistake;
use crate::source::options::{Access, Settings};
use crate::topics::illegal;

/// How long one question to the brokers, and one look for messages, may take.
const ASK_WAIT: Duration = Duration::from_secs(5);
const LOOK_WAIT: Duration = Duration::from_millis(200);

/// Reading on to the end may take so long.
const CATCH_UP_WAIT: Duration = Duration::from_secs(8);

/// The schemas of a topic together.
const MAX_BYTES: usize = 64 << 20;

/// The connector, for the registry.
#[derive(Debug)]
pub struct KafkaSchemas;

/// A compacted topic whose messages' keys are the keys of schemas.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct KafkaSchemasConfig {
    /// Brokers to ask first, as `host:port`; they name all others.
    #[schemars(length(min = 1))]
    pub brokers: Vec<String>,
    /// The topic. Its messages have the key of a schema (`com.acme/order/1-0-0`) as key and the schema as value; a message
    /// without a value takes the schema back.
    #[serde(default = "default_topic")]
    pub topic: String,
    /// Encrypts the connections. Absent: plain text; `{}`: encrypted, with the system's certificate authorities.
    pub tls: Option<Tls>,
    /// Names the user to the brokers.
    pub sasl: Option<Sasl>,
    /// Further settings of librdkafka.
    #[serde(default)]
    pub options: BTreeMap<String, OptionValue>,
}

fn default_topic() -> String {
    DEFAULT_TOPIC.to_owned()
}

pub(crate) const DEFAULT_TOPIC: &str = "forebay-schemas";

impl SchemaStoreConnector for KafkaSchemas {
    const TYPE: &'static str = "kafka";
    const ABOUT: &'static str = "Schemas in a compacted topic of Kafka";
    type Config = KafkaSchemasConfig;

    fn build(
        config: KafkaSchemasConfig,
        setting: &SchemaStoreSetting,
    ) -> Result<Arc<dyn SchemaStore>, Vec<Mistake>> {
        let KafkaSchemasConfig { brokers, topic, tls, sasl, options } = &config;
        let access = Access { brokers, tls: tls.as_ref(), sasl: sasl.as_ref(), options };
        topic_of_schemas(access, topic, setting)
    }
}

/// The store in a topic.
pub(crate) fn topic_of_schemas(
    access: Access<'_>,
    topic: &str,
    setting: &SchemaStoreSetting,
) -> Result<Arc<dyn SchemaStore>, Vec<Mistake>> {
    if illegal(topic) {
        let message = format!("`{topic}` is not a name for a topic");
        return Err(vec![mistake("/topic", message, Some("use letters, digits, `.`, `_` and `-`"))]);
    }
    let mut settings = Settings::new(access, &setting.name)?;
    // librdkafka wants one; nothing is ever committed for it.
    settings.native.set("group.id", format!("forebay-{}", setting.name));
    Ok(Arc::new(Topic { settings, topic: topic.to_owned(), reader: Arc::default() }))
}

struct Topic {
    settings: Settings,
    topic: String,
    reader: Arc<Mutex<Option<Reader>>>,
}

/// A consumer, where it stands, and what it has found.
struct Reader {
    consumer: BaseConsumer,
    next: HashMap<i32, i64>,
    found: HashMap<String, Bytes>,
    bytes: usize,
}

impl Topic {
    /// Reads on to the end of the topic, then looks into what is there.
    async fn look<T: Send + 'static>(
        &self,
        into: impl FnOnce(&HashMap<String, Bytes>) -> T + Send + 'static,
    ) -> Result<T, Fault> {
        let (reader, settings, topic) = (self.reader.clone(), self.settings.clone(), self.topic.clone());
        blocking(move || {
            let mut kept = reader.lock().unwrap_or_else(PoisonError::into_inner);
            let mut reader = match kept.take() {
                Some(reader) => reader,
                None => Reader::start(&settings)?,
            };
            // One that failed is not kept: another consumer begins anew.
            reader.catch_up(&topic)?;
            let answer = into(&reader.found);
            *kept = Some(reader);
            Ok(answer)
        })
        .await
    }
}

impl Reader {
    fn start(settings: &Settings) -> Result<Reader, Fault> {
        let consumer = settings.native.create().map_err(|error: LibraryError| {
            Fault::fatal("starting a Kafka consumer", Blame::Configuration, error)
                .with_remedy("correct the setting that the message names")
        })?;
        Ok(Reader { consumer, next: HashMap::new(), found: HashMap::new(), bytes: 0 })
    }

    fn catch_up(&mut self, topic: &str) -> Result<(), Fault> {
        let doing = || format!("reading the schemas of topic `{topic}`");
        let judged = |error: LibraryError| fault::fault(doing(), code(&error), None);
        let deadline = Instant::now() + CATCH_UP_WAIT;
        let metadata = self.consumer.fetch_metadata(Some(topic), ASK_WAIT).map_err(judged)?;
        let partitions = metadata.topics().iter().find(|found| found.name() == topic);
        let partitions: Vec<i32> =
            partitions.into_iter().flat_map(|found| found.partitions()).map(|found| found.id()).collect();
        if partitions.is_empty() {
            return Err(Fault::retryable(doing(), "there is no such topic").with_remedy(format!(
                "create it, compacted: `kafka-topics.sh --create --topic {topic} --config cleanup.policy=compact`"
            )));
        }
        let mut behind = HashMap::new();
        let mut wanted = TopicPartitionList::new();
        for partition in partitions {
            let (low, high) = self.consumer.fetch_watermarks(topic, partition, ASK_WAIT).map_err(judged)?;
            let next = self.next.get(&partition).copied().unwrap_or(low).max(low);
            if next < high {
                behind.insert(partition, high);
                wanted.add_partition_offset(topic, partition, Offset::Offset(next)).map_err(judged)?;
            }
        }
        if behind.is_empty() {
            return Ok(());
        }
        self.consumer.assign(&wanted).map_err(judged)?;
        while !behind.is_empty() {
            if Instant::now() >= deadline {
                return Err(Fault::retryable(
                    doing(),
                    format!("its end was not reached within {CATCH_UP_WAIT:?}"),
                ));
            }
            match self.consumer.poll(LOOK_WAIT) {
                None => {}
                Some(Ok(message)) => {
                    let (partition, offset) = (message.partition(), message.offset());
                    let key = message.key().and_then(|key| std::str::from_utf8(key).ok()).map(str::to_owned);
                    let value = message.payload().map(Bytes::copy_from_slice);
                    drop(message);
                    self.next.insert(partition, offset + 1);
                    self.take(key, value).map_err(|error| {
                        Fault::fatal(doing(), Blame::Outside, error).with_remedy("keep schemas only in it")
                    })?;
                    if behind.get(&partition).is_some_and(|high| offset + 1 >= *high) {
                        behind.remove(&partition);
                    }
                }
                // What is behind the last message that we may see belongs to transactions.
                Some(Err(LibraryError::PartitionEOF(partition))) => {
                    if let Some(high) = behind.remove(&partition) {
                        let next = self.next.entry(partition).or_insert(high);
                        *next = (*next).max(high);
                    }
                }
                Some(Err(error)) => {
                    let fault = judged(error);
                    // librdkafka goes on by itself, and the deadline ends it.
                    if !fault.is_retryable() {
                        return Err(fault);
                    }
                }
            }
        }
        self.consumer.unassign().map_err(judged)
    }

    fn take(&mut self, key: Option<String>, value: Option<Bytes>) -> Result<(), String> {
        let Some(key) = key else { return Ok(()) };
        let before = match value {
            None => self.found.remove(&key),
            Some(value) => {
                if value.len() > MAX_SCHEMA_BYTES {
                    return Err(format!("`{key}` is longer than {MAX_SCHEMA_BYTES} bytes"));
                }
                self.bytes += value.len();
                self.found.insert(key, value)
            }
        };
        self.bytes -= before.map_or(0, |value| value.len());
        match self.bytes > MAX_BYTES {
            true => Err(format!("there are more than {MAX_BYTES} bytes of schemas in it")),
            false => Ok(()),
        }
    }
}

#[async_trait]
impl SchemaStore for Topic {
    async fn fetch(&self, key: &SchemaKey) -> Result<Option<Bytes>, Fault> {
        let key = key.as_str().to_owned();
        self.look(move |found| found.get(&key).cloned()).await
    }

    async fn list(&self, most: usize) -> Result<Option<Vec<SchemaKey>>, Fault> {
        let keys = |found: &HashMap<String, Bytes>| {
            let mut keys: Vec<SchemaKey> = found.keys().filter_map(|key| key.parse().ok()).collect();
            keys.sort_unstable();
            keys
        };
        let mut keys = self.look(keys).await?;
        keys.truncate(most);
        Ok(Some(keys))
    }
}
