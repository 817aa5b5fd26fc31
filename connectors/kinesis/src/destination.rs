//! The destination: puts the records of a delivery by calls, and settles what the service says of each.

use std::sync::{Mutex, MutexGuard, PoisonError};

use async_trait::async_trait;
use aws_sdk_kinesis::Client;
use aws_sdk_kinesis::operation::put_records::PutRecordsOutput;
use aws_sdk_kinesis::primitives::Blob;
use aws_sdk_kinesis::types::PutRecordsRequestEntry;
use forebay_api::{Blame, Delivery, Destination, Fault, InTurn, Progress, Record, Rejection, Routes};

use crate::client;
use crate::config::{KinesisConfig, LONGEST_NAME, forbidden, illegal};
use crate::fault::{self, Failed, WRITING};
use crate::key::partition_key;
use crate::schedule::{Call, Schedule};

/// Writes records to Kinesis.
#[derive(Debug)]
pub(crate) struct Kinesis {
    config: KinesisConfig,
    routes: Mutex<Routes>,
    client: Mutex<Option<Client>>,
    /// The service works on a call also when the delivery that it came from is dropped.
    in_turn: InTurn,
}

/// A record that no stream takes.
#[derive(Debug, thiserror::Error)]
#[error("the record has {bytes} bytes with its partition key, and `max_record` is {most}")]
struct TooLarge {
    bytes: usize,
    most: usize,
}

impl Kinesis {
    /// Connects to nothing yet.
    pub(crate) fn new(config: KinesisConfig) -> Kinesis {
        Kinesis {
            routes: Mutex::new(Routes::new(config.stream.clone(), forbidden)),
            config,
            client: Mutex::new(None),
            in_turn: InTurn::default(),
        }
    }

    async fn client(&self) -> Result<Client, Fault> {
        if let Some(client) = self.kept_client().as_ref() {
            return Ok(client.clone());
        }
        let client = client::connect(&self.config).await?;
        Ok(self.kept_client().insert(client).clone())
    }

    fn kept_client(&self) -> MutexGuard<'_, Option<Client>> {
        self.client.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The fault to return; with it goes a client whose credentials are of no use any more.
    fn fault(&self, failed: Failed) -> Fault {
        if failed.renew {
            *self.kept_client() = None;
        }
        failed.fault
    }

    /// Plans the calls for all records but those that are too large, which are rejected.
    fn schedule(&self, records: &[(usize, Record<'_>)], progress: &mut Progress) -> Result<Schedule, Fault> {
        let most = self.config.max_record.as_usize();
        let mut routes = self.routes.lock().unwrap_or_else(PoisonError::into_inner);
        let mut schedule = Schedule::new(self.config.order);
        for (number, (index, record)) in records.iter().enumerate() {
            let stream = routes.name(*record).map_err(|collision| misnamed(collision.to_string()))?;
            if illegal(&stream) {
                return Err(misnamed(format!("`{stream}` is not a name that a stream can have")));
            }
            let key = partition_key(record.event());
            let bytes = record.body().len() + key.len();
            if bytes > most {
                progress.reject(*index, Rejection::new("too_large", &TooLarge { bytes, most }));
                continue;
            }
            schedule.push(&stream, key, number, bytes);
        }
        Ok(schedule)
    }
}

fn misnamed(error: String) -> Fault {
    let remedy = format!("set `stream` so that names differ and have at most {LONGEST_NAME} characters");
    Fault::fatal("naming a stream", Blame::Configuration, error).with_remedy(remedy)
}

#[async_trait]
impl Destination for Kinesis {
    async fn open(&self) -> Result<(), Fault> {
        self.client().await.map(drop)
    }

    async fn deliver(&self, mut delivery: Delivery) -> Result<(), Fault> {
        let client = self.client().await?;
        let stream = delivery.stream().clone();
        let (records, progress) = delivery.open_with_progress();
        let mut schedule = self.schedule(&records, progress)?;
        while let Some(call) = schedule.next() {
            let put = self.in_turn.run(&stream, put(&client, &call, &records)).await;
            let put = put.map_err(|failed| self.fault(failed))?;
            settle(&call, &put, &records, progress).map_err(|failed| self.fault(failed))?;
        }
        Ok(())
    }
}

/// One call, as a future that owns all it needs. Bodies are not copied.
fn put(
    client: &Client,
    call: &Call,
    records: &[(usize, Record<'_>)],
) -> impl Future<Output = Result<PutRecordsOutput, Failed>> + Send + use<> {
    let entry = |(number, key): &(usize, std::sync::Arc<str>)| {
        let (_, record) = records[*number];
        PutRecordsRequestEntry::builder()
            .partition_key(&**key)
            .data(Blob::from_maybe_shared(record.shared_body()))
            .build()
            .expect("an entry has a key and data")
    };
    let entries = call.records.iter().map(entry).collect();
    let request = client.put_records().stream_name(&*call.stream).set_records(Some(entries));
    let doing = format!("{WRITING}, stream `{}`", call.stream);
    async move { request.send().await.map_err(|error| fault::of_call(&doing, error)) }
}

/// Accepts what has a sequence number; the fault is that of the first record that has none, unless another one's is graver.
fn settle(
    call: &Call,
    put: &PutRecordsOutput,
    records: &[(usize, Record<'_>)],
    progress: &mut Progress,
) -> Result<(), Failed> {
    let said = put.records();
    if said.len() != call.records.len() {
        let text = format!("{} of {} records were answered for", said.len(), call.records.len());
        let fault = Fault::fatal(WRITING, Blame::Defect, text);
        return Err(Failed { fault, renew: false });
    }
    let mut failed: Option<Failed> = None;
    for ((number, _), entry) in call.records.iter().zip(said) {
        if entry.error_code().is_none() && entry.sequence_number().is_some_and(|number| !number.is_empty()) {
            progress.accept(records[*number].0);
            continue;
        }
        let found = fault::of_record(entry);
        let graver = |known: &Failed| known.fault.is_retryable() && !found.fault.is_retryable();
        if failed.as_ref().is_none_or(graver) {
            failed = Some(found);
        }
    }
    failed.map_or(Ok(()), Err)
}
