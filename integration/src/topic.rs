//! A topic and what stands in it, read from its beginning as a consumer would: in order per partition, without what
//! aborted transactions wrote.

use std::collections::{BTreeMap, HashSet};
use std::time::Duration;

use rdkafka::consumer::{BaseConsumer, Consumer, StreamConsumer};
use rdkafka::error::KafkaError;
use rdkafka::message::{Header, Headers, Message as _, OwnedHeaders, OwnedMessage};
use rdkafka::producer::{FutureProducer, FutureRecord};
use rdkafka::topic_partition_list::TopicPartitionListElem;
use rdkafka::{ClientConfig, Offset, TopicPartitionList};
use serde_json::Value;
use tokio::task::spawn_blocking;
use tokio::time::{Instant, timeout_at};

use crate::{PATIENCE, unique};

/// How long the broker may take to say which partitions a topic has.
const METADATA_LIMIT: Duration = Duration::from_secs(30);

/// One topic of one broker.
#[derive(Debug, Clone)]
pub struct Topic {
    bootstrap: String,
    name: String,
}

/// A message to be written.
#[derive(Debug, Clone, Copy, Default)]
pub struct Draft<'a> {
    /// Its key.
    pub key: Option<&'a [u8]>,
    /// Its value; nothing makes a tombstone.
    pub value: Option<&'a [u8]>,
    /// Its headers.
    pub headers: &'a [(&'a str, &'a [u8])],
}

/// One message as it stands in its partition.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Message {
    /// Which of the topic's partitions.
    pub partition: i32,
    /// Where in it; gaps are normal where there are transactions.
    pub offset: i64,
    /// What decides about the partition.
    pub key: Option<Vec<u8>>,
    /// Nothing in a tombstone.
    pub payload: Option<Vec<u8>>,
    /// In the order of the message; a header may have no value.
    pub headers: Vec<(String, Option<Vec<u8>>)>,
    /// Milliseconds since 1970, as the producer or the broker set it.
    pub timestamp_ms: Option<i64>,
}

impl Topic {
    pub(crate) fn new(bootstrap: String, name: String) -> Self {
        Self { bootstrap, name }
    }

    /// Its name, for a configuration.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Writes messages into one partition, in this order; returns when the broker has them.
    pub async fn write(&self, partition: i32, drafts: &[Draft<'_>]) {
        let mut config = ClientConfig::new();
        config.set("bootstrap.servers", &self.bootstrap).set("enable.idempotence", "true");
        let producer: FutureProducer = config.create().expect("the configuration is right");
        let mut written = Vec::new();
        for draft in drafts {
            let mut record: FutureRecord<'_, [u8], [u8]> = FutureRecord::to(&self.name).partition(partition);
            (record.key, record.payload) = (draft.key, draft.value);
            let headers = draft.headers.iter().fold(OwnedHeaders::new(), |headers, (key, value)| {
                headers.insert(Header { key, value: Some(*value) })
            });
            record = record.headers(headers);
            let queued = producer.send_result(record);
            written
                .push(queued.unwrap_or_else(|(error, _)| panic!("cannot write to `{}`: {error}", self.name)));
        }
        for report in written {
            let report = report.await.expect("the producer lives");
            report.unwrap_or_else(|(error, _)| panic!("cannot write to `{}`: {error}", self.name));
        }
        spawn_blocking(move || drop(producer)); // librdkafka joins its threads here
    }

    /// Where the next message of each partition will stand.
    pub async fn ends(&self) -> BTreeMap<i32, i64> {
        let mut config = ClientConfig::new();
        config.set("bootstrap.servers", &self.bootstrap);
        let name = self.name.clone();
        let ask = move || {
            let consumer: BaseConsumer = config.create().expect("the configuration is right");
            let metadata = consumer.fetch_metadata(Some(&name), METADATA_LIMIT).expect("the broker answers");
            let end = |partition: i32| {
                let found = consumer.fetch_watermarks(&name, partition, METADATA_LIMIT);
                (partition, found.expect("the leader answers").1)
            };
            metadata.topics()[0].partitions().iter().map(|partition| end(partition.id())).collect()
        };
        spawn_blocking(ask).await.unwrap_or_else(|panic| std::panic::resume_unwind(panic.into_panic()))
    }

    /// What a consumer group has for each partition.
    pub async fn committed(&self, group: &str) -> BTreeMap<i32, i64> {
        let mut config = ClientConfig::new();
        config.set("bootstrap.servers", &self.bootstrap).set("group.id", group);
        let name = self.name.clone();
        let ask = move || {
            let consumer: BaseConsumer = config.create().expect("the configuration is right");
            let metadata = consumer.fetch_metadata(Some(&name), METADATA_LIMIT).expect("the broker answers");
            let mut asked = TopicPartitionList::new();
            for partition in metadata.topics()[0].partitions() {
                asked.add_partition(&name, partition.id());
            }
            let answer = consumer.committed_offsets(asked, METADATA_LIMIT).expect("the coordinator answers");
            let known = |element: &TopicPartitionListElem<'_>| match element.offset() {
                Offset::Offset(at) => Some((element.partition(), at)),
                _ => None,
            };
            answer.elements().iter().filter_map(known).collect()
        };
        spawn_blocking(ask).await.unwrap_or_else(|panic| std::panic::resume_unwind(panic.into_panic()))
    }

    /// Waits until at least `count` messages stand in it and gives the first `count` that were read.
    pub async fn expect(&self, count: usize) -> Vec<Message> {
        self.read(Some(count)).await
    }

    /// All that stands in it now.
    pub async fn all(&self) -> Vec<Message> {
        self.read(None).await
    }

    /// Reads until there are `count` messages, or else until the end of every partition was seen.
    async fn read(&self, count: Option<usize>) -> Vec<Message> {
        let (consumer, mut unread) = self.consumer().await;
        let deadline = Instant::now() + PATIENCE;
        let mut messages = Vec::new();
        while count.map_or(!unread.is_empty(), |count| messages.len() < count) {
            let Ok(next) = timeout_at(deadline, consumer.recv()).await else {
                panic!("after {PATIENCE:?} `{}` has {} messages of {count:?}", self.name, messages.len());
            };
            match next {
                Ok(message) => messages.push(Message::from(message.detach())),
                Err(KafkaError::PartitionEOF(partition)) => drop(unread.remove(&partition)),
                // librdkafka reports a broker that went away and goes on by itself; the deadline ends it.
                Err(error) => eprintln!("reading `{}`: {error}", self.name),
            }
        }
        spawn_blocking(move || drop(consumer)); // librdkafka joins its threads here
        messages
    }

    /// A consumer at the beginning of every partition, and their numbers.
    async fn consumer(&self) -> (StreamConsumer, HashSet<i32>) {
        let mut config = ClientConfig::new();
        config.set("bootstrap.servers", &self.bootstrap).set("group.id", unique("harness"));
        config.set("enable.auto.commit", "false").set("enable.partition.eof", "true");
        let name = self.name.clone();
        let connect = move || {
            let consumer: StreamConsumer = config.create().expect("the configuration is right");
            let metadata = consumer.fetch_metadata(Some(&name), METADATA_LIMIT);
            let metadata = metadata.unwrap_or_else(|error| panic!("cannot ask for topic `{name}`: {error}"));
            let partitions: HashSet<i32> =
                metadata.topics()[0].partitions().iter().map(|part| part.id()).collect();
            assert!(!partitions.is_empty(), "there is no topic `{name}`");
            let mut assigned = TopicPartitionList::new();
            for partition in &partitions {
                let added = assigned.add_partition_offset(&name, *partition, Offset::Beginning);
                added.expect("the beginning is an offset");
            }
            consumer.assign(&assigned).expect("the partitions exist");
            (consumer, partitions)
        };
        spawn_blocking(connect).await.unwrap_or_else(|panic| std::panic::resume_unwind(panic.into_panic()))
    }
}

impl Message {
    /// The payload as JSON.
    pub fn json(&self) -> Value {
        let payload =
            self.payload.as_deref().unwrap_or_else(|| panic!("a tombstone has no payload: {self:?}"));
        serde_json::from_slice(payload).unwrap_or_else(|error| panic!("{error} in {self:?}"))
    }

    /// The key as text.
    pub fn key_text(&self) -> String {
        String::from_utf8(self.key.clone().unwrap_or_default())
            .unwrap_or_else(|error| panic!("{error} in {self:?}"))
    }
}

impl From<OwnedMessage> for Message {
    fn from(message: OwnedMessage) -> Self {
        let headers = message.headers().map(|headers| {
            let owned = |header: Header<'_, &[u8]>| (header.key.to_owned(), header.value.map(<[u8]>::to_vec));
            headers.iter().map(owned).collect()
        });
        Self {
            partition: message.partition(),
            offset: message.offset(),
            key: message.key().map(<[u8]>::to_vec),
            payload: message.payload().map(<[u8]>::to_vec),
            headers: headers.unwrap_or_default(),
            timestamp_ms: message.timestamp().to_millis(),
        }
    }
}
