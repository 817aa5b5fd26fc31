//! One producer of librdkafka and what it reports.
//!
//! Invariant: a client *ends* with the first message that it could not write, or when librdkafka gives it up. From then
//! on [`Client::send`] refuses everything, and whoever waits for reports empties the queue, so that every message that
//! was handed over is reported: written or not. Nothing behind the failed message is written by this client later.

use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use forebay_api::{Blame, Fault};
use rdkafka::client::ClientContext;
use rdkafka::config::{FromClientConfigAndContext, RDKafkaLogLevel};
use rdkafka::error::KafkaError as LibraryError;
use rdkafka::message::DeliveryResult;
use rdkafka::producer::{BaseRecord, Producer, ProducerContext, PurgeConfig, ThreadedProducer};
use rdkafka::types::RDKafkaErrorCode as Code;
use tokio::sync::{Notify, watch};
use tokio::time::{Instant, sleep};

use crate::fault::{self, KafkaError};
use crate::options::Settings;

/// How long a broker may take to answer a client that begins.
const REACH_WAIT: Duration = Duration::from_secs(10);
/// How long one blocking call waits, so that a daemon that stops does not wait for it.
const SLICE: Duration = Duration::from_millis(200);
/// How long to wait for room in a queue that is full, and for reports after it was emptied.
const PAUSE: Duration = Duration::from_millis(1);
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
                return Ok(());
            }
            let trouble = self.context.trouble().clone();
            let error =
                trouble.error.unwrap_or(KafkaError { code: Code::OperationTimedOut, said: trouble.failure });
            let refused = matches!(error.code, Code::Authentication | Code::SSL);
            if refused || trouble.all_down || Instant::now() >= deadline {
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
            sleep(PAUSE).await;
        }
    }

    /// Waits until every message of `receipts` is reported.
    pub(crate) async fn reported(&self, receipts: &Receipts) {
        let mut end = self.context.0.end.subscribe();
        tokio::select! {
            () = receipts.all.notified() => return,
            // The sender lives in `self.context`, so this is an end and never a closed channel.
            _ = end.wait_for(Option::is_some) => {}
        }
        // What is in flight is answered, or comes back into the queue when its connection is lost.
        loop {
            self.producer.purge(PurgeConfig::default().queue());
            tokio::select! {
                () = receipts.all.notified() => return,
                () = sleep(PAUSE) => {}
            }
        }
    }

    /// Why it ended, if it has.
    pub(crate) fn ended(&self) -> Option<KafkaError> {
        let end = self.context.ended()?;
        match self.producer.client().fatal_error() {
            // librdkafka gave up by itself: its reason says more than that it is fatal.
            Some((code, said)) if end.code == Code::Fatal => Some(KafkaError { code, said: Some(said) }),
            _ => Some(end),
        }
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
            sleep(PAUSE).await;
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

/// The code of an error that carries one; otherwise one that is judged unknown.
fn code(error: &LibraryError) -> Code {
    error.rdkafka_error_code().unwrap_or(Code::Unknown)
}

/// What has been reported of the messages of one delivery.
#[derive(Debug)]
pub(crate) struct Receipts {
    /// Messages not yet reported, and one more while they are still being queued.
    open: AtomicUsize,
    failures: Mutex<Vec<(usize, Code)>>,
    all: Notify,
}

impl Receipts {
    /// Of a delivery that is about to be queued.
    pub(crate) fn new() -> Arc<Receipts> {
        Arc::new(Receipts { open: AtomicUsize::new(1), failures: Mutex::default(), all: Notify::new() })
    }

    /// The receipt of one message of record `index`.
    pub(crate) fn receipt(self: &Arc<Receipts>, index: usize) -> Box<Receipt> {
        self.open.fetch_add(1, Ordering::Relaxed);
        Box::new(Receipt { receipts: self.clone(), index, outcome: Err(Code::PurgeInflight) })
    }

    /// All messages are queued: nothing but their reports is awaited now.
    pub(crate) fn complete(&self) {
        self.one_less();
    }

    /// The records that could not be written, by their number, each with the reason.
    pub(crate) fn failures(&self) -> Vec<(usize, Code)> {
        let mut failures = std::mem::take(&mut *self.failures.lock().unwrap_or_else(PoisonError::into_inner));
        failures.sort_by_key(|(index, _)| *index);
        failures
    }

    fn one_less(&self) {
        if self.open.fetch_sub(1, Ordering::AcqRel) == 1 {
            self.all.notify_one();
        }
    }
}

/// Travels with a message through librdkafka and comes back with its report. Dropped without one, it counts as a
/// failure: absence of an acknowledgement is not one.
#[derive(Debug)]
pub(crate) struct Receipt {
    receipts: Arc<Receipts>,
    index: usize,
    outcome: Result<(), Code>,
}

impl Receipt {
    /// The message was not sent; whoever tried to is told in another way.
    fn withdraw(self) {
        self.report(Ok(()));
    }

    fn report(mut self, outcome: Result<(), Code>) {
        self.outcome = outcome;
    }
}

impl Drop for Receipt {
    fn drop(&mut self) {
        if let Err(code) = self.outcome {
            self.receipts.failures.lock().unwrap_or_else(PoisonError::into_inner).push((self.index, code));
        }
        self.receipts.one_less();
    }
}

/// What librdkafka calls back. Cheap to clone; clones share what they know.
#[derive(Clone, Default)]
pub(crate) struct Context(Arc<Known>);

#[derive(Default)]
struct Known {
    /// Why the client ended; `None` while it lives.
    end: watch::Sender<Option<KafkaError>>,
    trouble: Mutex<Trouble>,
    /// Whether there is an error in `trouble`: asked for each message, without a lock.
    troubled: AtomicBool,
}

/// What is wrong with the way to the brokers, until a message is written again.
#[derive(Clone, Default)]
struct Trouble {
    /// The last error that concerns no message.
    error: Option<KafkaError>,
    /// Whether librdkafka has tried every broker that it knows.
    all_down: bool,
    /// Why a connection failed last, as librdkafka logged it.
    failure: Option<String>,
}

impl Context {
    fn ended(&self) -> Option<KafkaError> {
        self.0.end.borrow().clone()
    }

    fn end(&self, error: KafkaError) {
        self.0.end.send_if_modified(|end| {
            let first = end.is_none();
            if first {
                *end = Some(error);
            }
            first
        });
    }

    fn trouble(&self) -> MutexGuard<'_, Trouble> {
        // Every change is one assignment, so what a panic leaves is sound.
        self.0.trouble.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// One line when trouble begins or changes its kind, none while it lasts.
    fn set_trouble(&self, error: KafkaError) {
        let mut trouble = self.trouble();
        let known = trouble.error.as_ref().map(|error| error.code);
        trouble.all_down |= error.code == Code::AllBrokersDown;
        let error = match (error.code, known) {
            // That none is left says less than why the last one failed.
            (Code::AllBrokersDown, Some(_)) => return,
            (Code::AllBrokersDown, None) => {
                KafkaError { said: trouble.failure.clone().or(error.said), ..error }
            }
            _ => error,
        };
        if known != Some(error.code) {
            tracing::warn!(code = ?error.code, %error, "trouble with kafka");
        }
        trouble.error = Some(error);
        self.0.troubled.store(true, Ordering::Relaxed);
    }

    /// One line when trouble ends.
    fn clear_trouble(&self) {
        self.0.troubled.store(false, Ordering::Relaxed);
        if std::mem::take(&mut *self.trouble()).error.is_some() {
            tracing::info!("kafka takes messages again");
        }
    }
}

impl ClientContext for Context {
    /// librdkafka's own lines. What it calls an error comes to [`ClientContext::error`] too, where it is said once.
    fn log(&self, level: RDKafkaLogLevel, facility: &str, line: &str) {
        if facility == "FAIL" {
            self.trouble().failure = Some(line.to_owned());
            return tracing::debug!(facility, "{line}");
        }
        match level {
            RDKafkaLogLevel::Warning => tracing::warn!(facility, "{line}"),
            RDKafkaLogLevel::Debug => tracing::trace!(facility, "{line}"),
            _ => tracing::debug!(facility, "{line}"),
        }
    }

    fn error(&self, error: LibraryError, reason: &str) {
        let error = KafkaError { code: code(&error), said: Some(reason.to_owned()) };
        if error.code == Code::Fatal {
            return self.end(error);
        }
        self.set_trouble(error);
    }

    /// Statistics are for those who read them through an option of their own; nobody here does.
    fn stats_raw(&self, _: &[u8]) {}
}

impl ProducerContext for Context {
    type DeliveryOpaque = Box<Receipt>;

    fn delivery(&self, result: &DeliveryResult<'_>, receipt: Box<Receipt>) {
        if let Err((error, _)) = result {
            let code = code(error);
            self.end(KafkaError { code, said: None });
            return receipt.report(Err(code));
        }
        if self.0.troubled.load(Ordering::Relaxed) {
            self.clear_trouble();
        }
        receipt.report(Ok(()));
    }
}
