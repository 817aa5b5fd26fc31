//! One stream's transactional producer and what is known of its position.
//!
//! Invariants: a client is used again only after a transaction that went well from its beginning to its commit; after
//! anything else, also after a future that was dropped half-way, the next one begins anew: it makes the brokers end what
//! the one before left open, and reads what is committed. Nobody writes a stream that another daemon has taken over.

use std::collections::HashSet;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use forebay_api::{Blame, Fault, Op, Record, Rejection, json, step};
use rdkafka::error::KafkaError as LibraryError;
use rdkafka::producer::{BaseRecord, Producer, ThreadedProducer};
use rdkafka::types::RDKafkaErrorCode as Code;
use tokio::time::{Instant, sleep};

use super::Setup;
use super::position::{Position, Seen};
use super::reader::{self, PARTITION, Upto};
use crate::client::{self, Client, NotSent, blocking};
use crate::context::Context;
use crate::destination::headers;
use crate::fault::{self, Judgement, KafkaError, code};
use crate::receipts::Receipts;
use crate::topics::Route;

/// How long one call into librdkafka blocks; it is called again until it is done.
const SLICE: Duration = Duration::from_millis(200);
/// Between two calls.
const RESUME_PAUSE: Duration = Duration::from_millis(10);
/// How long the brokers may take to end what was left open and to let us begin.
const BEGIN_WAIT: Duration = Duration::from_secs(10);
/// How long an abort is waited for, which only spares readers a wait: the next client aborts as well.
const ABORT_WAIT: Duration = Duration::from_secs(2);
/// Refused records that one position remembers, so that it stays far below the size of a message.
const MAX_REFUSED: usize = 100;
/// Schema events that are remembered for a stream.
const MAX_SCHEMAS: usize = 1_000_000;
/// What every fault tells as attempted.
const WRITING: &str = "writing to Kafka";
const COMMITTING: &str = "committing a transaction in Kafka";

/// A record of a delivery, and what is to become of it.
pub(super) struct Planned<'a> {
    /// What settles it.
    pub(super) index: usize,
    /// The record.
    pub(super) record: Record<'a>,
    /// What is to become of it.
    pub(super) fate: Fate,
}

/// What is to become of a record.
pub(super) enum Fate {
    /// It is written.
    Write(Arc<Route>),
    /// It stands in its topic already.
    There,
    /// It is refused for its content.
    Refused(Rejection),
}

/// Writes one stream. See the module.
pub(super) struct Writer {
    /// The transactional id, and the key of the position.
    id: String,
    client: Option<Arc<Client>>,
    /// Whether `client` is outside of any transaction and `position` is what is committed.
    clean: bool,
    /// Whether this daemon has taken the stream over.
    taken: bool,
    /// Whether the stream moves between daemons: that another one has taken it over is then nobody's mistake.
    shared: bool,
    position: Position,
    /// The ids of all schema events that were written.
    schemas: HashSet<Box<[u8]>>,
}

/// How an attempt at a transaction ended, where that is no fault.
enum Attempt {
    /// All is written and committed.
    Committed,
    /// Nothing is, and without what was refused now, or in smaller batches, it can be tried again.
    Again,
}

impl Writer {
    /// Connects to nothing yet.
    pub(super) fn new(id: String) -> Writer {
        let (position, schemas) = (Position::default(), HashSet::new());
        Writer { id, client: None, clean: false, taken: false, shared: false, position, schemas }
    }

    /// What is committed; only after [`Writer::ready`].
    pub(super) fn position(&self) -> &Position {
        &self.position
    }

    /// What is to become of a record, as far as what is committed says it; `None`: it is to be written.
    pub(super) fn known(&self, record: Record<'_>) -> Option<Fate> {
        let event = record.event();
        // A schema that is announced anew takes a mark that may be held already, and is known by its id.
        if event.op() == Op::Schema {
            let mut id = Vec::new();
            event.write_id(&mut id);
            return self.schemas.contains(&*id).then_some(Fate::There);
        }
        match self.position.seen(event.mark()) {
            Seen::New => None,
            Seen::Written => Some(Fate::There),
            Seen::Refused(why) => Some(Fate::Refused(why.clone())),
        }
    }

    /// Whether nothing must be made ready before the next delivery.
    pub(super) fn is_ready(&self) -> bool {
        self.clean && self.client.as_ref().is_some_and(|client| client.ended().is_none())
    }

    /// Takes the stream over where that is not done: makes the brokers end what was left open, reads what is committed,
    /// and says that we hold the stream.
    pub(super) async fn ready(&mut self, setup: &Setup) -> Result<(), Fault> {
        if self.is_ready() {
            return Ok(());
        }
        self.clean = false;
        self.discard().await;
        if self.taken {
            // Nobody may take back what another daemon has taken.
            self.read(setup, Upto::Seen).await?;
        }
        let settings = setup.settings.transactional(&self.id).map_err(|mistakes| {
            let said: Vec<String> = mistakes.into_iter().map(|mistake| mistake.message).collect();
            Fault::fatal("starting a Kafka client", Blame::Configuration, said.join("; "))
        })?;
        let client = Client::start(&settings, setup.batch_bytes.get()).await?;
        self.client = Some(client.clone());
        let doing = || format!("taking over `{}` in Kafka", self.id);
        let begun = until_done(&client, BEGIN_WAIT, |producer| producer.init_transactions(SLICE)).await;
        begun.map_err(|error| failed(doing(), &client, &error))?;
        step!("kafka-taken-over");
        self.read(setup, Upto::Stable).await?;
        let nothing = Receipts::new(Arc::default());
        self.begin(&client).await?;
        self.send_position(setup, &client, &nothing, &self.position).await?;
        nothing.complete();
        self.reported(&client, &nothing).await?;
        self.commit(setup, &client).await?;
        self.taken = true;
        self.clean = true;
        Ok(())
    }

    /// Takes the stream over whoever has it by now: it moves between daemons, and it is ours again.
    pub(super) async fn take_over(&mut self, setup: &Setup) -> Result<(), Fault> {
        self.clean = false;
        self.taken = false;
        self.shared = true;
        self.ready(setup).await
    }

    /// Ends the client where blocking does no harm.
    pub(super) async fn discard(&mut self) {
        if let Some(client) = self.client.take() {
            client::discard(client).await;
        }
    }

    /// Reads what is committed. That another daemon holds the stream is a fault once we have held it.
    async fn read(&mut self, setup: &Setup, upto: Upto) -> Result<(), Fault> {
        let doing = || format!("reading the position of `{}` in topic `{}`", self.id, setup.positions);
        let found = reader::read(&setup.settings, &setup.positions, &self.id, upto).await?;
        let mut position = None;
        let mut schemas = HashSet::new();
        for (key, kept) in found {
            let Some(rest) = key.strip_prefix(self.id.as_bytes()) else { continue };
            if let Some(schema) = rest.strip_prefix(b" ") {
                schemas.insert(schema.into());
            } else if rest.is_empty() {
                let (read, holder) = Position::from_json(&kept.value).map_err(|why| {
                    Fault::fatal(doing(), Blame::Outside, why).with_remedy(
                        "use the version of Forebay that wrote it; or set `transactions.id_prefix` to another value, \
                         which begins without a position: what comes again is then written again",
                    )
                })?;
                if self.taken && holder != setup.holder {
                    return Err(self.fenced(&holder, kept.written_ms));
                }
                position = Some(read);
            }
        }
        if schemas.len() > MAX_SCHEMAS {
            let said =
                format!("it remembers {} schema events, and the limit is {MAX_SCHEMAS}", schemas.len());
            return Err(Fault::fatal(doing(), Blame::Outside, said).with_remedy(
                "set `transactions.id_prefix` to another value, which begins without a memory",
            ));
        }
        let known = position.as_ref().and_then(|position| position.held);
        if self.taken && (position.is_none() || known < self.position.held) {
            let said = "it is gone, or behind what was committed";
            return Err(Fault::fatal(doing(), Blame::Outside, said).with_remedy(
                "somebody deleted records of that topic, or the brokers lost what they had acknowledged; start again, \
                 and what is read again from the source since then is written again",
            ));
        }
        self.position = position.unwrap_or_default();
        self.schemas = schemas;
        Ok(())
    }

    fn fenced(&self, holder: &str, since_ms: Option<i64>) -> Fault {
        let mut since = Vec::new();
        match since_ms {
            Some(ms) => json::write_time(ms.saturating_mul(1_000), &mut since),
            None => since.extend_from_slice(b"a time that is not known"),
        }
        let since = String::from_utf8_lossy(&since).replace('"', "");
        let doing = format!("writing `{}` to Kafka", self.id);
        let said =
            format!("another daemon has taken it over (process {holder}, which wrote last at {since})");
        if self.shared {
            // It has our partition too, and our source will hear of that.
            return Fault::retryable(doing, said);
        }
        Fault::fatal(doing, Blame::Outside, said).with_remedy(
            "let one daemon alone write what this source sends to this destination, and stop the other",
        )
    }

    /// Writes all that is planned and the position in one transaction. What is refused meanwhile is said in `planned`,
    /// also where the rest ends in a fault. More refusals than one position remembers end the transaction in front of
    /// them, and what is behind is cut off.
    pub(super) async fn store(&mut self, setup: &Setup, planned: &mut Vec<Planned<'_>>) -> Result<(), Fault> {
        while planned.iter().any(|planned| matches!(planned.fate, Fate::Write(_))) {
            match self.attempt(setup, planned).await? {
                Attempt::Committed => return Ok(()),
                Attempt::Again => self.ready(setup).await?,
            }
        }
        Ok(())
    }

    async fn attempt(&mut self, setup: &Setup, planned: &mut Vec<Planned<'_>>) -> Result<Attempt, Fault> {
        let client = self.client.clone().filter(|_| self.is_ready());
        let client = client.ok_or_else(|| Fault::retryable(WRITING, "not connected"))?;
        self.clean = false;
        cut(planned);
        self.begin(&client).await?;
        step!("kafka-transaction-begun");
        let receipts = Receipts::new(Arc::new(AtomicBool::new(false)));
        let sent = self.send_all(setup, &client, &receipts, planned).await;
        let position = match sent {
            Ok(position) => position,
            Err(fault) => {
                self.abort(&client).await;
                return Err(fault);
            }
        };
        receipts.complete();
        if !self.all_reported(&client, &receipts).await {
            self.abort(&client).await;
            return judge(setup, &client, &receipts, planned);
        }
        step!("kafka-transaction-written");
        self.commit(setup, &client).await?;
        step!("kafka-transaction-committed");
        self.position = position;
        let schemas = planned.iter().filter(|planned| is_written_schema(planned));
        self.schemas.extend(schemas.map(|planned| id_of(planned.record).into()));
        self.clean = true;
        Ok(Attempt::Committed)
    }

    /// Hands over everything; gives the position that the transaction moves to.
    async fn send_all(
        &self,
        setup: &Setup,
        client: &Arc<Client>,
        receipts: &Arc<Receipts>,
        planned: &mut Vec<Planned<'_>>,
    ) -> Result<Position, Fault> {
        let mut place = 0;
        // `cut` may shorten it meanwhile.
        while let Some(Planned { record, fate, .. }) = planned.get(place) {
            if let Fate::Write(route) = fate {
                match send_record(setup, client, receipts, place, *record, route).await {
                    Ok(()) => {}
                    Err(NotSent::Refused(Code::MessageSizeTooLarge)) => {
                        planned[place].fate = refusal("too_large", Code::MessageSizeTooLarge);
                        cut(planned);
                    }
                    Err(why) => return Err(not_sent(why)),
                }
            }
            place += 1;
        }
        let moving = planned.iter().filter(|planned| planned.record.event().op() != Op::Schema);
        let position = self.position.after(moving.map(|planned| {
            let refused = match &planned.fate {
                Fate::Refused(why) => Some(why),
                Fate::Write(_) | Fate::There => None,
            };
            (planned.record.event().mark(), refused)
        }));
        self.send_position(setup, client, receipts, &position).await?;
        for planned in planned.iter().filter(|planned| is_written_schema(planned)) {
            let mut key = self.id.clone().into_bytes();
            key.push(b' ');
            key.extend_from_slice(&id_of(planned.record));
            self.keep(setup, client, receipts, &key, b"{\"version\":1}").await?;
        }
        Ok(position)
    }

    async fn send_position(
        &self,
        setup: &Setup,
        client: &Arc<Client>,
        receipts: &Arc<Receipts>,
        position: &Position,
    ) -> Result<(), Fault> {
        let value = position.to_json(&setup.holder);
        self.keep(setup, client, receipts, self.id.as_bytes(), &value).await
    }

    /// Writes a message to the topic of positions.
    async fn keep(
        &self,
        setup: &Setup,
        client: &Arc<Client>,
        receipts: &Arc<Receipts>,
        key: &[u8],
        value: &[u8],
    ) -> Result<(), Fault> {
        let receipt = receipts.receipt(usize::MAX);
        let message = BaseRecord::with_opaque_to(&setup.positions, receipt).partition(PARTITION);
        let sent = client.send(message.key(key).payload(value)).await;
        sent.map_err(not_sent)
    }

    async fn begin(&self, client: &Arc<Client>) -> Result<(), Fault> {
        let begun = until_done(client, BEGIN_WAIT, Producer::begin_transaction).await;
        begun.map_err(|error| failed("beginning a transaction in Kafka", client, &error))
    }

    /// Waits until every message is reported or the first has failed; whether all are written.
    async fn all_reported(&self, client: &Client, receipts: &Receipts) -> bool {
        tokio::select! {
            biased;
            () = client.until_ended() => false,
            () = receipts.all_reported() => client.ended().is_none(),
        }
    }

    /// The same where nothing but the position was written.
    async fn reported(&self, client: &Arc<Client>, receipts: &Receipts) -> Result<(), Fault> {
        if self.all_reported(client, receipts).await {
            return Ok(());
        }
        self.abort(client).await;
        let end = client.ended().unwrap_or(KafkaError { code: Code::Unknown, said: None });
        Err(fault::fault(WRITING, end.code, end.said))
    }

    /// Makes the transaction durable. After a fault nobody knows whether it is, before the next client has looked.
    async fn commit(&self, setup: &Setup, client: &Arc<Client>) -> Result<(), Fault> {
        let done = until_done(client, setup.commit_wait, |producer| producer.commit_transaction(SLICE)).await;
        let Err(error) = done else { return Ok(()) };
        if matches!(&error, LibraryError::Transaction(error) if error.txn_requires_abort()) {
            self.abort(client).await;
        }
        Err(failed(COMMITTING, client, &error))
    }

    /// Ends the transaction, so that readers need not wait for the next client to do so. What fails here does no harm.
    async fn abort(&self, client: &Arc<Client>) {
        let aborted = until_done(client, ABORT_WAIT, |producer| producer.abort_transaction(SLICE)).await;
        if let Err(error) = aborted {
            tracing::debug!(id = self.id, %error, "a transaction was not aborted; the next client does it");
        }
    }
}

/// Calls into librdkafka again and again until it is done, for its transactional calls can be resumed: so none blocks
/// for long, and a daemon that stops does not wait for it.
async fn until_done(
    client: &Arc<Client>,
    within: Duration,
    call: fn(&ThreadedProducer<Context>) -> Result<(), LibraryError>,
) -> Result<(), LibraryError> {
    let deadline = Instant::now() + within;
    loop {
        let at = client.clone();
        match blocking(move || call(at.producer())).await {
            Ok(()) => return Ok(()),
            Err(error) if !can_be_resumed(&error) || Instant::now() >= deadline => return Err(error),
            Err(_) if client.ended().is_some() => return Err(LibraryError::Global(Code::Fatal)),
            Err(_) => sleep(RESUME_PAUSE).await,
        }
    }
}

/// Whether the same call may be made again: it took longer than a slice, or the brokers are still busy with the
/// transaction before.
fn can_be_resumed(error: &LibraryError) -> bool {
    match error {
        LibraryError::Transaction(error) => {
            error.is_retriable() || error.code() == Code::ConcurrentTransactions
        }
        other => code(other) == Code::OperationTimedOut,
    }
}

/// The fault of a call that failed. Why the client ended says more than the call.
fn failed(doing: impl Into<String>, client: &Client, error: &LibraryError) -> Fault {
    match client.ended() {
        Some(end) => fault::ended(doing, end),
        None => fault::fault(doing, code(error), Some(error.to_string())),
    }
}

/// Judges why messages were not written, after their transaction was aborted.
fn judge(
    setup: &Setup,
    client: &Client,
    receipts: &Receipts,
    planned: &mut [Planned<'_>],
) -> Result<Attempt, Fault> {
    let mut again = false;
    let mut other = None;
    for (place, code) in receipts.failures() {
        let Some(planned) = planned.get_mut(place) else {
            other = other.or(Some(code));
            continue;
        };
        match (fault::judge(code), code) {
            // Thrown out of the queue because of another one.
            (_, Code::PurgeQueue | Code::PurgeInflight | Code::InvalidDifferentRecord) => {}
            (Judgement::TooLarge, _) => {
                again = true;
                if setup.batch_bytes.was_alone(planned.record.body().len(), client.batch_bytes) {
                    planned.fate = refusal("too_large", code);
                }
            }
            (Judgement::Refused, _) => {
                again = true;
                planned.fate = refusal("refused", code);
            }
            _ => other = Some(code),
        }
    }
    let thrown_out = matches!(other, Some(Code::PurgeQueue | Code::PurgeInflight));
    if again && (other.is_none() || thrown_out) {
        return Ok(Attempt::Again);
    }
    let code = other.unwrap_or(Code::PurgeQueue);
    Err(fault::ended(WRITING, client.ended().unwrap_or(KafkaError { code, said: None })))
}

/// Leaves what is behind more refusals than a position remembers to the next delivery.
fn cut(planned: &mut Vec<Planned<'_>>) {
    let mut refused = planned.iter().enumerate().filter(|(_, it)| matches!(it.fate, Fate::Refused(_)));
    if let Some((place, _)) = refused.nth(MAX_REFUSED) {
        planned.truncate(place);
    }
}

fn not_sent(why: NotSent) -> Fault {
    match why {
        NotSent::Refused(code) => fault::fault(WRITING, code, None),
        NotSent::Ended(end) => fault::ended(WRITING, end),
    }
}

fn refusal(reason: &str, code: Code) -> Fate {
    Fate::Refused(Rejection::new(reason, &KafkaError { code, said: None }))
}

fn is_written_schema(planned: &Planned<'_>) -> bool {
    planned.record.event().op() == Op::Schema && matches!(planned.fate, Fate::Write(_))
}

fn id_of(record: Record<'_>) -> Vec<u8> {
    let mut id = Vec::new();
    record.event().write_id(&mut id);
    id
}

/// Hands over the messages of one record.
async fn send_record(
    setup: &Setup,
    client: &Client,
    receipts: &Arc<Receipts>,
    place: usize,
    record: Record<'_>,
    route: &Route,
) -> Result<(), NotSent> {
    let event = record.event();
    let mut key = Vec::new();
    event.write_partition_key(&mut key);
    let id = id_of(record);
    let message = |receipt| {
        BaseRecord::with_opaque_to(&route.topic, receipt).key(&key[..]).headers(headers(&id, route, record))
    };
    client.send(message(receipts.receipt(place)).payload(record.body())).await?;
    if setup.tombstones && event.op() == Op::Delete && !event.key().is_empty() {
        client.send(message(receipts.receipt(place))).await?;
    }
    Ok(())
}
