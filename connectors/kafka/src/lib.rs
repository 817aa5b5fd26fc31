//! Apache Kafka as a destination and as a source (and whatever speaks its protocol: Redpanda, MSK, Event Hubs).
//!
//! ```text
//!  deliver ──▶ turn in the queue ──▶ Client (librdkafka, idempotent) ══▶ brokers
//!     ▲                                 │
//!     └── settle ◀── Receipts ◀── delivery reports
//! ```
//!
//! A record is **durable** when the partition's leader and every replica in sync have it (`acks=all`). Without
//! transactions a record may stand in its topic twice after a crash, with the same `forebay-id`.
//!
//! With transactions (`transactions`) it is durable when its transaction is committed, and a client for each stream
//! writes each delivery in one, together with the position that covers it:
//! ```text
//!  deliver ──▶ begin ─▶ records, position ─▶ commit ─▶ accept
//!  held ────▶ fence ─▶ the position ◀──────────┘
//! ```
//!
//! Invariant, on which order stands: a client ends with the first message that it could not write. What was queued
//! behind that message is thrown out of the queue, nothing more is given to that client, and `line` holds
//! back whatever the lane had already handed over; then a new client begins where the old one failed.
//!
//! Reading as a member of a consumer group is in `source`: `plain` makes a source of it.
//!
//! Reading order: `config`, `options` (what librdkafka is told), `destination` (deliver and settle), `line`, `client`
//! (one producer), `receipts` and `context` (what it reports), `topics` (which topic a record goes to), `fault` (how
//! errors are judged), `check`; then `transactions`.

mod batch_bytes;
mod check;
mod client;
pub mod config;
mod context;
mod destination;
mod fault;
pub mod journal;
mod line;
mod options;
mod plain;
mod receipts;
mod schemas;
pub mod source;
mod topics;
mod transactions;

use std::sync::Arc;

use async_trait::async_trait;
use forebay_api::units::ByteSize;
use forebay_api::{
    Destination, DestinationConnector, DestinationSetting, Finding, Mistake, SchemaStore, SchemaStoreSetting,
};

use crate::config::Config;
use crate::destination::Kafka;
use crate::options::Settings;
use crate::source::options::Access;
use crate::transactions::Transactional;

pub use crate::journal::KafkaJournal;
pub use crate::plain::KafkaSource;
pub use crate::schemas::KafkaSchemas;

/// The connector that `type: kafka` names.
#[derive(Debug)]
pub struct KafkaDestination;

#[async_trait]
impl DestinationConnector for KafkaDestination {
    const TYPE: &'static str = "kafka";
    const ABOUT: &'static str = "Apache Kafka and compatible brokers, one message an event";
    /// librdkafka's queue of 8 MiB, batches in the making, requests and answers, and its threads' share of the heap.
    const CLIENT_MEMORY: ByteSize = ByteSize::mib(20);
    const EXAMPLE: &'static str = "\
type: kafka
brokers: [127.0.0.1:9092]
topic: '{source}.{schema}.{table}'
# create_topics: {partitions: 12, replication: 3}   # default: a topic that is missing is an error
# transactions: {}               # readers of what is committed see each event once
# format: debezium               # forebay | debezium | cloudevents
";
    type Config = Config;

    fn build(config: Config, setting: &DestinationSetting) -> Result<Arc<dyn Destination>, Vec<Mistake>> {
        let settings = Settings::new(&config, &setting.name)?;
        match &config.transactions {
            None => Ok(Arc::new(Kafka::new(settings, &config))),
            Some(transactions) => {
                Ok(Arc::new(Transactional::new(settings, &config, transactions, &setting.name)?))
            }
        }
    }

    /// The topic `forebay-schemas` of the same brokers.
    fn schema_store(
        config: Config,
        setting: &SchemaStoreSetting,
    ) -> Result<Arc<dyn SchemaStore>, Vec<Mistake>> {
        // Its options are those of a producer.
        let Config { brokers, tls, sasl, .. } = &config;
        let options = std::collections::BTreeMap::new();
        let access = Access { brokers, tls: tls.as_ref(), sasl: sasl.as_ref(), options: &options };
        schemas::topic_of_schemas(access, schemas::DEFAULT_TOPIC, setting)
    }

    async fn check(config: Config, setting: &DestinationSetting) -> Vec<Finding> {
        match Settings::new(&config, &setting.name) {
            Ok(settings) => check::check(&settings, &config, setting).await,
            Err(mistakes) => mistakes.iter().map(check::mistaken).collect(),
        }
    }
}
