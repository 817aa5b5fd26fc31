//! Reads the topic of positions to its end.
//!
//! Invariant: what is read is what is committed. Where it must be all that is committed ([`Upto::Stable`]), the end is
//! not taken as reached before no transaction is open below the place at which the topic ended when the reading began:
//! another stream's open transaction hides what was committed behind its beginning.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use forebay_api::{Blame, Fault};
use rdkafka::client::ClientContext;
use rdkafka::config::{FromClientConfigAndContext, RDKafkaLogLevel};
use rdkafka::consumer::{BaseConsumer, Consumer, ConsumerContext};
use rdkafka::error::KafkaError as LibraryError;
use rdkafka::message::Message;
use rdkafka::{ClientConfig, Offset, TopicPartitionList};
use tokio::time::{Instant, sleep};

use crate::client::blocking;
use crate::fault::{self, KafkaError, code};
use crate::options::Settings;

/// The one partition that positions are kept in: so a key is found again whatever becomes of the others.
pub(super) const PARTITION: i32 = 0;
/// How long the brokers may take to answer one question.
const ASK_WAIT: Duration = Duration::from_secs(5);
/// How long to wait for messages at once, so that a daemon that stops does not wait for it.
const SLICE: Duration = Duration::from_millis(200);
/// How many messages are looked at before somebody else may have the thread.
const PIECE: usize = 10_000;
/// How long no message may come although the end is not reached.
const STILL_WAIT: Duration = Duration::from_secs(10);
/// How long others' transactions are waited for in one attempt. One whose daemon has gone is ended by the brokers after
/// its `transaction.timeout.ms`.
const STABLE_WAIT: Duration = Duration::from_secs(10);
const STABLE_PAUSE: Duration = Duration::from_millis(50);

/// How much must be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Upto {
    /// What can be seen now.
    Seen,
    /// Everything that is committed by now.
    Stable,
}

/// The last message of a key.
#[derive(Debug)]
pub(super) struct Kept {
    /// What it holds.
    pub(super) value: Vec<u8>,
    /// When it was written, in milliseconds since 1970, where the brokers say it.
    pub(super) written_ms: Option<i64>,
}

/// The last messages of all keys that begin with `id`, without those that were deleted. Reads in no group's name; `id`
/// is what the brokers know the reader by.
pub(super) async fn read(
    settings: &Settings,
    topic: &str,
    id: &str,
    upto: Upto,
) -> Result<HashMap<Vec<u8>, Kept>, Fault> {
    let committed = Reader::start(settings.reading(id, "read_committed"), topic).await?;
    let found = async {
        if upto == Upto::Stable {
            let anything = Reader::start(settings.reading(id, "read_uncommitted"), topic).await?;
            let end = anything.end().await;
            anything.discard().await;
            committed.until_stable(end?).await?;
        }
        committed.read(id).await
    };
    let found = found.await;
    committed.discard().await;
    found
}

/// A consumer of one topic.
#[derive(Clone)]
struct Reader {
    consumer: Arc<BaseConsumer<Quiet>>,
    topic: Arc<str>,
}

/// What one look at the consumer brought.
#[derive(Default)]
struct Piece {
    messages: Vec<(Vec<u8>, Option<Kept>)>,
    /// Whether the end was seen.
    ended: bool,
    /// Whether anything came, of whatever key.
    moved: bool,
    error: Option<LibraryError>,
}

impl Reader {
    async fn start(native: ClientConfig, topic: &str) -> Result<Reader, Fault> {
        let started =
            blocking(move || BaseConsumer::from_config_and_context(&native, Quiet::default())).await;
        let consumer = started.map_err(|error| {
            Fault::fatal("starting a Kafka consumer", Blame::Configuration, error)
                .with_remedy("correct the setting that the message names")
        })?;
        Ok(Reader { consumer: Arc::new(consumer), topic: topic.into() })
    }

    /// Drops it where blocking does no harm.
    async fn discard(self) {
        blocking(move || drop(self)).await;
    }

    /// Runs a question to the brokers beside the runtime's threads.
    async fn ask<T: Send + 'static>(
        &self,
        question: impl FnOnce(&Reader) -> Result<T, LibraryError> + Send + 'static,
    ) -> Result<T, Fault> {
        let reader = self.clone();
        let answer = blocking(move || question(&reader)).await;
        answer.map_err(|error| self.fault(&error))
    }

    fn fault(&self, error: &LibraryError) -> Fault {
        fault::fault(self.doing(), code(error), self.consumer.context().trouble())
    }

    fn doing(&self) -> String {
        format!("reading topic `{}`", self.topic)
    }

    /// Where the topic ends, for what this consumer may see.
    async fn end(&self) -> Result<i64, Fault> {
        let asked =
            self.ask(|reader| reader.consumer.fetch_watermarks(&reader.topic, PARTITION, ASK_WAIT)).await;
        asked.map(|(_, end)| end)
    }

    /// Waits until no transaction is open below `end`.
    async fn until_stable(&self, end: i64) -> Result<(), Fault> {
        let deadline = Instant::now() + STABLE_WAIT;
        while self.end().await? < end {
            if Instant::now() >= deadline {
                return Err(Fault::retryable(
                    self.doing(),
                    "another writer's transaction is open and hides what was committed behind it",
                ));
            }
            sleep(STABLE_PAUSE).await;
        }
        Ok(())
    }

    async fn read(&self, id: &str) -> Result<HashMap<Vec<u8>, Kept>, Fault> {
        let mut all = TopicPartitionList::new();
        let added = all.add_partition_offset(&self.topic, PARTITION, Offset::Beginning);
        added.map_err(|error| self.fault(&error))?;
        self.ask(move |reader| reader.consumer.assign(&all)).await?;
        let mut found: HashMap<Vec<u8>, Kept> = HashMap::new();
        let mut moved = Instant::now();
        loop {
            let (reader, id) = (self.clone(), id.as_bytes().to_vec());
            let piece = blocking(move || reader.look(&id)).await;
            for (key, kept) in piece.messages {
                match kept {
                    Some(kept) => drop(found.insert(key, kept)),
                    None => drop(found.remove(&key)),
                }
            }
            if piece.ended {
                return Ok(found);
            }
            let fault = piece.error.map(|error| self.fault(&error));
            if let Some(fault) = fault.filter(|fault| !fault.is_retryable()) {
                return Err(fault);
            }
            if piece.moved {
                moved = Instant::now();
            } else if moved.elapsed() >= STILL_WAIT {
                let said = self.consumer.context().trouble().unwrap_or_else(|| "no message comes".to_owned());
                return Err(Fault::retryable(self.doing(), said));
            }
        }
    }

    /// What is there now, or comes soon.
    fn look(&self, id: &[u8]) -> Piece {
        let mut piece = Piece::default();
        let mut wait = SLICE;
        for _ in 0..PIECE {
            match self.consumer.poll(wait) {
                None => break,
                Some(Ok(message)) => {
                    piece.moved = true;
                    let Some(key) = message.key().filter(|key| key.starts_with(id)) else { continue };
                    let written_ms = message.timestamp().to_millis();
                    let kept = message.payload().map(|value| Kept { value: value.to_vec(), written_ms });
                    piece.messages.push((key.to_vec(), kept));
                }
                Some(Err(LibraryError::PartitionEOF(_))) => {
                    piece.ended = true;
                    break;
                }
                // A group's coordinator that will not have us is no loss: we are in no group.
                Some(Err(error)) if is_of_group(&error) => {}
                Some(Err(error)) => piece.error = Some(error),
            }
            wait = Duration::ZERO;
        }
        piece
    }
}

fn is_of_group(error: &LibraryError) -> bool {
    use rdkafka::types::RDKafkaErrorCode as Code;
    matches!(
        code(error),
        Code::GroupAuthorizationFailed | Code::NotCoordinator | Code::CoordinatorNotAvailable
    )
}

/// Keeps the last trouble for whoever waits; says nothing in the log, for a consumer lives for moments.
#[derive(Default)]
struct Quiet(Mutex<Option<KafkaError>>);

impl Quiet {
    fn trouble(&self) -> Option<String> {
        let trouble = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        trouble.as_ref().map(ToString::to_string)
    }
}

impl ClientContext for Quiet {
    fn log(&self, _: RDKafkaLogLevel, facility: &str, line: &str) {
        tracing::trace!(facility, "{line}");
    }

    fn error(&self, error: LibraryError, reason: &str) {
        let error = KafkaError { code: code(&error), said: Some(reason.to_owned()) };
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Some(error);
    }
}

impl ConsumerContext for Quiet {}
