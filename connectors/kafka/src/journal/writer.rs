//! The journal as a destination: each key's events go to one partition, as chunks.
//!
//! Invariants: those of [`crate::destination`]; and a message has rows of one partition only, in their order, so what is
//! in order in a delivery is in order in each partition.

use std::num::{NonZeroU32, NonZeroUsize};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use forebay_api::{Blame, Delivery, Destination, Fault, Piece, Rejection};
use rdkafka::producer::BaseRecord;
use rdkafka::types::RDKafkaErrorCode as Code;
use tokio::sync::Mutex;
use tokio::time::timeout;

use super::partition::partition;
use crate::client::{self, Client, NotSent};
use crate::config::CreateTopics;
use crate::fault::{self, Judgement, KafkaError};
use crate::line::{Lines, Turn};
use crate::options::Settings;
use crate::receipts::Receipts;
use crate::topics;

/// Deliveries under way at once, as many as the Kafka destination has.
const MAX_IN_FLIGHT: NonZeroUsize = NonZeroUsize::new(4).expect("four is not zero");
/// How long an attempt to connect waits until nobody queues messages.
const TURN_WAIT: Duration = Duration::from_secs(5);
/// What one message holds at most, when it holds more than one event: half of what a broker takes by default, since a
/// chunk in bytes has a little more than its events.
const PIECE_BYTES: usize = 500_000;
/// What an event has beside its parts, roughly.
const ROW_BYTES: usize = 96;
/// By how much messages shrink when a broker calls one too large that held several events.
const SHRINK: usize = 4;
/// What every fault tells as attempted.
const CONNECTING: &str = "connecting to the journal in Kafka";
const WRITING: &str = "writing to the journal in Kafka";

/// Writes chunks to one topic.
pub(crate) struct Writer {
    settings: Arc<Settings>,
    topic: String,
    create: Option<CreateTopics>,
    /// How large a message of several events may be for all that is known of the brokers.
    piece_bytes: AtomicUsize,
    lines: Lines,
    /// A queue of those who want to queue messages, as the Kafka destination has.
    queue: Mutex<Queue>,
}

/// What the delivery whose turn it is works with.
#[derive(Default)]
struct Queue {
    client: Option<Arc<Client>>,
    /// How many partitions the topic has; the first look is remembered, for another number moves keys.
    partitions: Option<NonZeroU32>,
    bytes: Vec<u8>,
}

/// What became of the messages of one delivery while they were queued.
struct Queued {
    client: Arc<Client>,
    receipts: Arc<Receipts>,
    /// The records of each message.
    messages: Vec<Vec<usize>>,
    /// Records that are too large alone.
    too_large: Vec<usize>,
    /// The record at which queueing stopped, and why.
    stopped: Option<(usize, Fault)>,
}

impl Writer {
    /// Connects to nothing yet.
    pub(crate) fn new(settings: Arc<Settings>, topic: String, create: Option<CreateTopics>) -> Writer {
        Writer {
            settings,
            topic,
            create,
            piece_bytes: AtomicUsize::new(PIECE_BYTES),
            lines: Lines::default(),
            queue: Mutex::default(),
        }
    }

    /// Hands every open record to the client, when it is this delivery's turn.
    async fn queue(&self, delivery: &Delivery, turn: &Turn<'_>) -> Result<Queued, Fault> {
        let mut queue = self.queue.lock().await;
        if turn.is_held_back() {
            return Err(Fault::retryable(WRITING, "an earlier delivery failed and comes first"));
        }
        let (Some(client), Some(partitions)) = (queue.client.clone(), queue.partitions) else {
            return Err(Fault::retryable(WRITING, "not connected"));
        };
        if let Some(end) = client.ended() {
            return Err(Fault::retryable(WRITING, end));
        }
        let receipts = Receipts::new(turn.failed());
        let (messages, too_large) = (Vec::new(), Vec::new());
        let mut queued = Queued { client, receipts, messages, too_large, stopped: None };
        let limit = self.piece_bytes.load(Ordering::Relaxed);
        'all: for piece in delivery.pieces() {
            for (to, part) in spread(&piece, partitions) {
                let mut rest = vec![part];
                while let Some(part) = rest.pop() {
                    if part.rows.len() > 1 && weight(&part) > limit {
                        rest.extend(halves(part).into_iter().rev());
                        continue;
                    }
                    queue.bytes.clear();
                    part.encode(&mut queue.bytes);
                    if part.rows.len() > 1 && queue.bytes.len() > limit {
                        rest.extend(halves(part).into_iter().rev());
                        continue;
                    }
                    let receipt = queued.receipts.receipt(queued.messages.len());
                    let message = BaseRecord::with_opaque_to(&self.topic, receipt)
                        .partition(to)
                        .payload(&queue.bytes[..]);
                    match queued.client.send(message).await {
                        Ok(()) => queued.messages.push(part.numbers),
                        Err(NotSent::Refused(Code::MessageSizeTooLarge)) if part.rows.len() == 1 => {
                            queued.too_large.extend(part.numbers);
                        }
                        Err(NotSent::Refused(Code::MessageSizeTooLarge)) => {
                            rest.extend(halves(part).into_iter().rev());
                        }
                        Err(why) => {
                            // Before the queue is released: whatever is behind must not be queued.
                            turn.fail();
                            let first = part.numbers.first().copied().unwrap_or_default();
                            queued.stopped = Some((first, not_sent(why)));
                            break 'all;
                        }
                    }
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
        let mut rejected: Vec<(usize, Code)> =
            queued.too_large.iter().map(|index| (*index, Code::MessageSizeTooLarge)).collect();
        // Events are spread over partitions, so what was queued in front of a stop need not be in front of it.
        let mut again = fault.is_some().then_some(0);
        for (message, code) in failures {
            let records = &queued.messages[message];
            match (fault::judge(code), records.as_slice()) {
                (Judgement::TooLarge, [alone]) => rejected.push((*alone, code)),
                (judgement, _) => {
                    if judgement == Judgement::TooLarge {
                        self.shrink();
                    }
                    let first = records.first().copied().unwrap_or_default();
                    again = Some(again.map_or(first, |known| known.min(first)));
                    let found = fault_of(code, &queued.client);
                    if fault.as_ref().is_none_or(|(_, known)| known.is_retryable() && !found.is_retryable()) {
                        fault = Some((first, found));
                    }
                }
            }
        }
        for (index, code) in rejected {
            delivery.reject(index, Rejection::new("too_large", &KafkaError { code, said: None }));
        }
        // What follows a record that comes again stays open even where it is acknowledged, so that a repeat is
        // followed again by all its successors.
        let written = |index: &usize| again.is_none_or(|first| *index < first);
        let accepted: Vec<usize> = delivery.open().map(|(index, _)| index).filter(written).collect();
        accepted.into_iter().for_each(|index| delivery.accept(index));
        fault.map_or(Ok(()), |(_, fault)| Err(fault))
    }

    fn shrink(&self) {
        let smaller = (self.piece_bytes.load(Ordering::Relaxed) / SHRINK).max(1);
        self.piece_bytes.fetch_min(smaller, Ordering::Relaxed);
        tracing::warn!(bytes = smaller, "a broker refuses our messages as too large; making smaller ones");
    }

    /// How many partitions there are; the topic is created where that is configured.
    async fn partitions(&self, client: &Arc<Client>) -> Result<NonZeroU32, Fault> {
        topics::find_or_create(client, &self.settings, &self.topic, self.create).await?;
        let metadata = topics::describe(client, Some(&self.topic)).await?;
        let found = metadata.topics().iter().find(|found| found.name() == self.topic);
        let count = found.and_then(|found| u32::try_from(found.partitions().len()).ok());
        count.and_then(NonZeroU32::new).ok_or_else(|| topics::missing(&self.topic))
    }
}

#[async_trait]
impl Destination for Writer {
    async fn open(&self) -> Result<(), Fault> {
        let Ok(mut queue) = timeout(TURN_WAIT, self.queue.lock()).await else {
            return Err(Fault::retryable(CONNECTING, "other records wait for the brokers"));
        };
        if let Some(client) = &queue.client {
            if client.ended().is_none() {
                if client.trouble().is_some() {
                    topics::describe(client, Some(&self.topic)).await?;
                    client.answered();
                }
                return Ok(());
            }
            // What it still has under way must not arrive behind what the next one sends.
            if !client.drained().await {
                let why = "requests of the connection before are still unanswered";
                return Err(Fault::retryable(CONNECTING, why));
            }
        }
        if let Some(client) = queue.client.take() {
            client::discard(client).await;
        }
        let client = Client::start(&self.settings, self.settings.batch_bytes).await?;
        let found = match self.partitions(&client).await {
            Ok(found) => found,
            Err(fault) => {
                client::discard(client).await;
                return Err(fault);
            }
        };
        if let Some(known) = queue.partitions.filter(|known| *known != found) {
            client::discard(client).await;
            let error = format!("topic `{}` had {known} partitions and has {found} now", self.topic);
            return Err(Fault::fatal(CONNECTING, Blame::Outside, error).with_remedy(
                "another number moves keys to other partitions: let every destination deliver what is in the journal, then \
                 start the daemons again",
            ));
        }
        queue.partitions = Some(found);
        queue.client = Some(client);
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

    fn max_in_flight(&self) -> NonZeroUsize {
        MAX_IN_FLIGHT
    }

    /// What librdkafka has queued cannot be taken back.
    fn interruptible(&self) -> bool {
        false
    }
}

fn not_sent(why: NotSent) -> Fault {
    match why {
        NotSent::Refused(code) => fault::fault(WRITING, code, None),
        NotSent::Ended(end) => fault::ended(WRITING, end),
    }
}

/// The fault of a message that was not written. One that was thrown out of the queue says why its client ended.
fn fault_of(code: Code, client: &Client) -> Fault {
    let thrown_out = matches!(code, Code::PurgeQueue | Code::PurgeInflight | Code::Fatal);
    let end = client.ended().filter(|_| thrown_out);
    fault::ended(WRITING, end.unwrap_or(KafkaError { code, said: None }))
}

/// The rows of a piece by their partition, each in their order.
fn spread<'a>(piece: &Piece<'a>, partitions: NonZeroU32) -> Vec<(i32, Piece<'a>)> {
    let mut parts: Vec<(i32, Piece<'a>)> = Vec::new();
    let mut key = Vec::new();
    for (&row, &number) in piece.rows.iter().zip(&piece.numbers) {
        key.clear();
        piece.batch.chunk.event(row).write_partition_key(&mut key);
        let to = partition(&key, partitions);
        let at = parts.iter().position(|(known, _)| *known == to).unwrap_or_else(|| {
            parts.push((to, Piece { batch: piece.batch, rows: Vec::new(), numbers: Vec::new() }));
            parts.len() - 1
        });
        parts[at].1.rows.push(row);
        parts[at].1.numbers.push(number);
    }
    parts
}

/// Roughly what a piece is as bytes.
fn weight(piece: &Piece<'_>) -> usize {
    let part = |row: &usize| {
        let event = piece.batch.chunk.event(*row);
        let row = event.row();
        let spans = [row.id, row.key, row.before, row.payload, row.unchanged, row.contexts, row.extra];
        ROW_BYTES + spans.iter().map(|span| event.part(*span).len()).sum::<usize>()
    };
    piece.rows.iter().map(part).sum()
}

/// A piece in two.
fn halves(mut piece: Piece<'_>) -> [Piece<'_>; 2] {
    let middle = piece.rows.len() / 2;
    let (rows, numbers) = (piece.rows.split_off(middle), piece.numbers.split_off(middle));
    let batch = piece.batch;
    [piece, Piece { batch, rows, numbers }]
}
