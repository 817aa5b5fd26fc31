//! Amazon Kinesis Data Streams as a destination.
//!
//! ```text
//!  deliver ──▶ Schedule (one record of each key at a time) ──▶ PutRecords ──▶ Kinesis
//!     ▲                                                           │
//!     └── accept, reject ◀────────── of each record ◀─────────────┘
//! ```
//!
//! A record is **durable** when Kinesis has given it a sequence number, which it does when it has it in three
//! availability zones.
//!
//! Invariant: PutRecords goes on behind a record that it could not write, so a call has one record of each key, and the
//! next of a key is sent when the one before is written. (`order: eventual` gives that up for speed.)
//!
//! Reading order: `config`, `key`, `schedule` (pure: what goes into which call), `destination`, `client`, `fault` (how
//! errors are judged), `check`.

mod check;
mod client;
pub mod config;
mod destination;
mod fault;
mod key;
mod schedule;

use std::sync::Arc;

use async_trait::async_trait;
use forebay_api::{Destination, DestinationConnector, DestinationSetting, Finding, Mistake};

use crate::config::KinesisConfig;
use crate::destination::Kinesis;

/// The connector that `type: kinesis` names.
#[derive(Debug)]
pub struct KinesisDestination;

#[async_trait]
impl DestinationConnector for KinesisDestination {
    const TYPE: &'static str = "kinesis";
    const ABOUT: &'static str = "Amazon Kinesis Data Streams, one record an event";
    const EXAMPLE: &'static str = "\
type: kinesis
stream: events                   # also {source} {schema} {table} …
# region: eu-central-1           # default: as for the AWS command line, like the credentials
";
    type Config = KinesisConfig;

    fn build(config: KinesisConfig, _: &DestinationSetting) -> Result<Arc<dyn Destination>, Vec<Mistake>> {
        let mistakes = config.mistakes();
        if mistakes.is_empty() { Ok(Arc::new(Kinesis::new(config))) } else { Err(mistakes) }
    }

    async fn check(config: KinesisConfig, setting: &DestinationSetting) -> Vec<Finding> {
        let mistakes = config.mistakes();
        if mistakes.is_empty() {
            check::check(&config, setting).await
        } else {
            mistakes.into_iter().map(check::mistaken).collect()
        }
    }
}
