//! The destination: hands records to a client in the order in which the lane hands them over, and settles what the
//! brokers say of each.
//!
//! Invariants: there is one queue, and a delivery that is being queued has it for itself, so that records never
//! overtake each other; a delivery is queued only while none of its stream has failed; a record is accepted only when
//! all its messages are acknowledged and no record before it in the delivery is still open.

use std::num::NonZeroUsize;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use forebay_api::{Delivery, Destination, Fault, Op, Record, Rejection};
use rdkafka::message::{Header, OwnedHeaders};
use rdkafka::producer::BaseRecord;
use rdkafka::types::RDKafkaErrorCode as Code;
use tokio::sync::Mutex;
use tokio::time::timeout;

use crate::batch_bytes::BatchBytes;
use crate::client::{self, Client, NotSent};
use crate::config::Config;
use crate::fault::{self, Judgement, KafkaError};
use crate::line::{Lines, Turn};
use crate::options::Settings;
use crate::receipts::Receipts;
use crate::topics::{Route, Topics};

/// Deliveries under way at once: while one waits for its acknowledgements the next are sent. More are no faster, for
/// the copies that librdkafka makes of them no longer fit into the processor's cache.
const MAX_IN_FLIGHT: NonZeroUsize = NonZeroUsize::new(4).expect("four is not zero");
/// How long an attempt to connect waits until nobody queues records.
const TURN_WAIT: Duration = Duration::from_secs(5);
/// What every fault tells as attempted.
const CONNECTING: &str = "connecting to Kafka";
const WRITING: &str = "writing to Kafka";

/// Writes records to Kafka.
pub(crate) struct Kafka {
    settings: Settings,
    tombstones: bool,
    batch_bytes: BatchBytes,
    lines: Lines,
    /// Tokio's mutex is fair, hence a queue of those who want to queue records; it is held across awaits because a
    /// place in that order must not be lost while librdkafka's own queue is full.
    queue: Mutex<Queue>,
}

/// What the delivery whose turn it is works with.
struct Queue {
    client: Option<Arc<Client>>,
    topics: Topics,
    key: Vec<u8>,
    id: Vec<u8>,
}

/// What became of the records of one delivery while they were queued.
struct Queued {
    client: Arc<Client>,
    receipts: Arc<Receipts>,
    /// Records that librdkafka did not take, by their number.
    too_large: Vec<usize>,
    /// The record at which queueing stopped, and why.
    stopped: Option<(usize, Fault)>,
}

impl Kafka {
    /// Connects to nothing yet.
    pub(crate) fn new(settings: Settings, config: &Config) -> Kafka {
        Kafka {
            batch_bytes: BatchBytes::new(settings.batch_bytes),
            tombstones: config.tombstones,
            lines: Lines::default(),
            queue: Mutex::new(Queue {
                client: None,
                topics: Topics::new(config),
                key: Vec::new(),
                id: Vec::new(),
            }),
            settings,
        }
    }

    /// Hands every open record to the client, when it is this delivery's turn.
    async fn queue(&self, delivery: &Delivery, turn: &Turn<'_>) -> Result<Queued, Fault> {
        let mut queue = self.queue.lock().await;
        let queue = &mut *queue;
        if turn.is_held_back() {
            return Err(Fault::retryable(WRITING, "an earlier delivery failed and comes first"));
        }
        let Some(client) = queue.client.clone() else {
            return Err(Fault::retryable(WRITING, "not connected"));
        };
        if let Some(end) = client.ended() {
            return Err(Fault::retryable(WRITING, end));
        }
        let receipts = Receipts::new(turn.failed());
        let mut queued = Queued { client, receipts, too_large: Vec::new(), stopped: None };
        for (index, record) in delivery.open() {
            match queue.write(&queued, index, record, &self.settings, self.tombstones).await {
                Ok(()) => {}
                Err(Unqueued::TooLarge) => queued.too_large.push(index),
                Err(Unqueued::Fault(fault)) => {
                    // Before the queue is released: whatever is behind must not be queued.
                    turn.fail();
                    queued.stopped = Some((index, fault));
                    break;
                }
            }
        }
        queued.receipts.complete();
        Ok(queued)
    }

    /// Settles what was reported; the fault says why the rest is open.
    fn settle(&self, delivery: &mut Delivery, queued: Queued) -> Result<(), Fault> {
        let failures = queued.receipts.failures();
        let mut fault = queued.stopped;
        if failures.is_empty() && queued.too_large.is_empty() && fault.is_none() {
            delivery.accept_all();
            return Ok(());
        }
        let mut rejected: Vec<(usize, &str, Code)> = Vec::new();
        rejected
            .extend(queued.too_large.iter().map(|index| (*index, "too_large", Code::MessageSizeTooLarge)));
        let mut again = fault.as_ref().map(|(index, _)| *index);
        for (index, code) in failures {
            match fault::judge(code) {
                Judgement::TooLarge if self.was_alone(delivery, index, &queued.client) => {
                    rejected.push((index, "too_large", code));
                }
                Judgement::Refused => rejected.push((index, "refused", code)),
                _ => {
                    again = Some(again.map_or(index, |first| first.min(index)));
                    let found = self.fault_of(code, &queued.client);
                    // The gravest is the one to tell.
                    if fault.as_ref().is_none_or(|(_, known)| known.is_retryable() && !found.is_retryable()) {
                        fault = Some((index, found));
                    }
                }
            }
        }
        for (index, reason, code) in rejected {
            delivery.reject(index, Rejection::new(reason, &KafkaError { code, said: None }));
        }
        // What follows a record that comes again stays open even where it is acknowledged, so that a repeat is
        // followed again by all its successors.
        let written = |index: &usize| again.is_none_or(|first| *index < first);
        let accepted: Vec<usize> = delivery.open().map(|(index, _)| index).take_while(written).collect();
        for index in accepted {
            delivery.accept(index);
        }
        fault.map_or(Ok(()), |(_, fault)| Err(fault))
    }

    /// Whether a record that was called too large was the only one in its batch.
    fn was_alone(&self, delivery: &Delivery, index: usize, client: &Client) -> bool {
        let record = delivery.open().find(|(open, _)| *open == index);
        let bytes = record.map_or(0, |(_, record)| record.body().len());
        self.batch_bytes.was_alone(bytes, client.batch_bytes)
    }

    /// The fault of a record that was not written. One that was thrown out of the queue says why its client ended.
    fn fault_of(&self, code: Code, client: &Client) -> Fault {
        let thrown_out = matches!(code, Code::PurgeQueue | Code::PurgeInflight | Code::Fatal);
        let end = client.ended().filter(|_| thrown_out);
        fault::ended(WRITING, end.unwrap_or(KafkaError { code, said: None }))
    }
}

/// Why a record is not in the client's queue.
enum Unqueued {
    /// librdkafka takes no message of this size.
    TooLarge,
    /// Queueing must stop here.
    Fault(Fault),
}

impl Queue {
    /// Hands over the messages of one record.
    async fn write(
        &mut self,
        queued: &Queued,
        index: usize,
        record: Record<'_>,
        settings: &Settings,
        tombstones: bool,
    ) -> Result<(), Unqueued> {
        let event = record.event();
        let route = self.topics.route(record, &queued.client, settings).await.map_err(Unqueued::Fault)?;
        self.key.clear();
        event.write_partition_key(&mut self.key);
        self.id.clear();
        event.write_id(&mut self.id);
        let message = |receipt| {
            BaseRecord::with_opaque_to(&route.topic, receipt)
                .key(&self.key[..])
                .headers(headers(&self.id, route, record))
        };
        let receipt = queued.receipts.receipt(index);
        let sent = queued.client.send(message(receipt).payload(record.body())).await;
        sent.map_err(Unqueued::of)?;
        if tombstones && event.op() == Op::Delete && !event.key().is_empty() {
            let receipt = queued.receipts.receipt(index);
            queued.client.send(message(receipt)).await.map_err(Unqueued::of)?;
        }
        Ok(())
    }
}

impl Unqueued {
    fn of(why: NotSent) -> Unqueued {
        match why {
            NotSent::Refused(Code::MessageSizeTooLarge) => Unqueued::TooLarge,
            NotSent::Refused(code) => Unqueued::Fault(fault::fault(WRITING, code, None)),
            NotSent::Ended(end) => Unqueued::Fault(fault::ended(WRITING, end)),
        }
    }
}

/// What consumers read without parsing the message.
pub(crate) fn headers(id: &[u8], route: &Route, record: Record<'_>) -> OwnedHeaders {
    let valid = if record.verdict().is_valid() { "true" } else { "false" };
    OwnedHeaders::new_with_capacity(4)
        .insert(Header { key: "forebay-id", value: Some(id) })
        .insert(Header { key: "forebay-schema", value: Some(route.schema.as_bytes()) })
        .insert(Header { key: "forebay-op", value: Some(record.event().op().as_str().as_bytes()) })
        .insert(Header { key: "forebay-valid", value: Some(valid.as_bytes()) })
}

#[async_trait]
impl Destination for Kafka {
    async fn open(&self) -> Result<(), Fault> {
        let Ok(mut queue) = timeout(TURN_WAIT, self.queue.lock()).await else {
            return Err(Fault::retryable(CONNECTING, "another source's records wait for the brokers"));
        };
        if let Some(client) = &queue.client {
            if client.ended().is_none() {
                return queue.topics.ask(client).await;
            }
            // What it still has under way must not arrive behind what the next one sends.
            if !client.drained().await {
                return Err(Fault::retryable(
                    CONNECTING,
                    "requests of the connection before are still unanswered",
                ));
            }
        }
        if let Some(client) = queue.client.take() {
            client::discard(client).await;
        }
        queue.topics.forget();
        queue.client = Some(Client::start(&self.settings, self.batch_bytes.get()).await?);
        Ok(())
    }

    async fn deliver(&self, mut delivery: Delivery) -> Result<(), Fault> {
        let turn = self.lines.enter(delivery.stream());
        let queued = self.queue(&delivery, &turn).await?;
        queued.client.reported(&queued.receipts).await;
        self.settle(&mut delivery, queued)?;
        turn.done();
        Ok(())
    }

    async fn close(&self) -> Result<(), Fault> {
        if let Some(client) = self.queue.lock().await.client.take() {
            client::discard(client).await;
        }
        Ok(())
    }

    /// The lane delivers again what follows a failed delivery; `line` keeps it from being queued before that.
    fn max_in_flight(&self) -> NonZeroUsize {
        MAX_IN_FLIGHT
    }

    /// What librdkafka has queued cannot be taken back record by record.
    fn interruptible(&self) -> bool {
        false
    }
}
