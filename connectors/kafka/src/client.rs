//! One producer of librdkafka and what it reports.
//!
//! Invariant: a client *ends* with the first message that it could not write, or when librdkafka gives it up. From then
//! on [`Client::send`] refuses everything, and whoever waits for reports empties the queue, so that every message that
//! was handed over is reported: written or not. Nothing behind the failed message is written by this client later.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use forebay_api::{Blame, Fault};
use rdkafka::config::FromClientConfigAndContext;
use rdkafka::error::KafkaError as LibraryError;
use rdkafka::producer::{BaseRecord, Producer, PurgeConfig, ThreadedProducer};
use rdkafka::types::RDKafkaErrorCode as Code;
use tokio::time::{Instant, sleep};

use crate::context::Context;
use crate::fault::{self, KafkaError, code};
use crate::options::Settings;
use crate::receipts::{Receipt, Receipts};

/// How long a broker may take to answer a client that begins.
const REACH_WAIT: Duration = Duration::from_secs(10);
/// How long one blocking call waits, so that a daemon that stops does not wait for it.
const SLICE: Duration = Duration::from_millis(200);
/// How long to wait for room in a queue that is full.
const ROOM_PAUSE: Duration = Duration::from_millis(1);
/// How often to empty the queue of a client that has ended, until all its messages are reported.
const PURGE_PAUSE: Duration = Duration::from_millis(10);
/// How long one attempt to connect waits for what became of an ended client's last requests. librdkafka gives up on a
/// connection after `socket.timeout.ms`, a minute by default; further attempts wait on.
const DRAIN_WAIT: Duration = Duration::from_secs(10);

/// A producer that was started and has reached a broker.
pub(crate) struct Client {
    producer: ThreadedProducer<Context>,
    context: Context,
    /// The most bytes that it puts into one batch of several records.
    pub(crate) batch_bytes: usize,
}

/// Why a message is not in the client's queue.
#[derive(Debug)]
pub(crate) enum NotSent {
    /// The client has ended, for this reason.
    Ended(KafkaError),
    /// librdkafka does not take this message.
    Refused(Code),
}

/// A message to be written.
pub(crate) type Message<'a> = BaseRecord<'a, [u8], [u8], Box<Receipt>>;

impl Client {
    /// Starts a producer and waits, within a bound, until a broker has answered it. `batch_bytes`: see the field.
    pub(crate) async fn start(settings: &Settings, batch_bytes: usize) -> Result<Arc<Client>, Fault> {
        let doing = "starting a Kafka client";
        for file in &settings.files {
            readable(file).await?;
        }
        let mut native = settings.native.clone();
        native.set("batch.size", batch_bytes.to_string());
        let context = Context::default();
        let started = blocking(move || {
            let producer = ThreadedProducer::from_config_and_context(&native, context.clone())?;
            Ok(Arc::new(Client { producer, context, batch_bytes }))
        });
        let client = started.await.map_err(|error: LibraryError| {
            let remedy = "correct the setting that the message names";
            Fault::fatal(doing, Blame::Configuration, error).with_remedy(remedy)
        })?;
        match client.reach().await {
            Ok(()) => Ok(client),
            Err(fault) => {
                discard(client).await;
                Err(fault)
            }
        }
    }

    /// Waits until a broker answers, or until librdkafka has found out that none will.
    async fn reach(self: &Arc<Client>) -> Result<(), Fault> {
        let doing = "connecting to Kafka";
        let deadline = Instant::now() + REACH_WAIT;
        loop {
            let client = self.clone();
            let answer = blocking(move || client.producer.client().fetch_cluster_id(SLICE)).await;
            if answer.is_some() {
                self.context.set_reached();
                return Ok(());
            }
            let trouble = self.context.trouble();
            let error =
                trouble.error.unwrap_or(KafkaError { code: Code::OperationTimedOut, said: trouble.failure });
            if error.is_refusal() || trouble.all_down || Instant::now() >= deadline {
                let fault = fault::fault(doing, error.code, error.said);
                return Err(match fault.is_retryable() {
                    true => fault.with_remedy("start the brokers, or correct `brokers`, `tls` and `sasl`"),
                    false => fault,
                });
            }
        }
    }

    /// Hands a message to librdkafka's queue; waits while that is full, keeping its place.
    pub(crate) async fn send(&self, mut message: Message<'_>) -> Result<(), NotSent> {
        loop {
            if let Some(end) = self.ended() {
                message.delivery_opaque.withdraw();
                return Err(NotSent::Ended(end));
            }
            match self.producer.send(message) {
                Ok(()) => return Ok(()),
                Err((error, refused)) => match code(&error) {
                    Code::QueueFull => message = refused,
                    code => {
                        refused.delivery_opaque.withdraw();
                        return Err(NotSent::Refused(code));
                    }
                },
            }
            sleep(ROOM_PAUSE).await;
        }
    }

    /// Waits until every message of `receipts` is reported.
    pub(crate) async fn reported(&self, receipts: &Receipts) {
        tokio::select! {
            () = receipts.all_reported() => return,
            () = self.context.until_ended() => {}
        }
        // What is in flight is answered, or comes back into the queue when its connection is lost.
        loop {
            self.producer.purge(PurgeConfig::default().queue());
            tokio::select! {
                () = receipts.all_reported() => return,
                () = sleep(PURGE_PAUSE) => {}
            }
        }
    }

    /// Waits until it has ended.
    pub(crate) async fn until_ended(&self) {
        self.context.until_ended().await;
    }

    /// Why it ended, if it has.
    pub(crate) fn ended(&self) -> Option<KafkaError> {
        let end = self.context.ended()?;
        match self.producer.client().fatal_error() {
            // librdkafka gave up by itself: its reason says more than that it is fatal.
            Some((code, said))
                if matches!(end.code, Code::Fatal | Code::PurgeQueue | Code::PurgeInflight) =>
            {
                Some(KafkaError { code, said: Some(said) })
            }
            _ => Some(end),
        }
    }

    /// What is wrong with the way to the brokers, as long as none has answered since.
    pub(crate) fn trouble(&self) -> Option<KafkaError> {
        self.context.trouble().error
    }

    /// A broker has answered.
    pub(crate) fn answered(&self) {
        self.context.clear_trouble();
    }

    /// For look-ups.
    pub(crate) fn producer(&self) -> &ThreadedProducer<Context> {
        &self.producer
    }

    /// Waits, within a bound, until nothing that this ended client sent can still arrive; whether that is so.
    pub(crate) async fn drained(&self) -> bool {
        let deadline = Instant::now() + DRAIN_WAIT;
        while self.producer.in_flight_count() > 0 {
            if Instant::now() >= deadline {
                return false;
            }
            self.producer.purge(PurgeConfig::default().queue());
            sleep(PURGE_PAUSE).await;
        }
        true
    }
}

/// Makes sure that librdkafka will be able to read a file, for it does not say which one it could not.
async fn readable(file: &Path) -> Result<(), Fault> {
    let path = file.to_owned();
    let read = blocking(move || std::fs::read(path)).await;
    read.map(drop).map_err(|error| {
        let doing = format!("reading `{}`", file.display());
        Fault::fatal(doing, Blame::Configuration, error)
            .with_remedy("correct the path in `tls`, or let us read the file")
    })
}

/// Drops a client where blocking does no harm: librdkafka joins its threads.
pub(crate) async fn discard(client: Arc<Client>) {
    blocking(move || drop(client)).await;
}

/// Runs what blocks for at most some [`SLICE`]s beside the runtime's threads.
pub(crate) async fn blocking<T: Send + 'static>(call: impl FnOnce() -> T + Send + 'static) -> T {
    match tokio::task::spawn_blocking(call).await {
        Ok(value) => value,
        Err(error) => match error.try_into_panic() {
            Ok(panic) => std::panic::resume_unwind(panic),
            // Cancelled before it began: the runtime is going down, and nobody waits for this any more.
            Err(_) => std::future::pending().await,
        },
    }
}
