//! The destination with transactions: each delivery and the position that covers it become visible together.
//!
//! ```text
//!  held ────▶ Writer of the stream ─▶ init_transactions ─▶ read the positions ─▶ say that we hold the stream
//!  deliver ─▶ plan (strike off, route) ─▶ Writer: begin ─▶ records + position ─▶ commit ─▶ settle
//! ```
//! Each stream has a producer of its own (`writer`), whose transactional id is made of what tells streams apart at this
//! destination, so that whoever begins to write a stream ends what another one left open. Where it stands is kept in a
//! compacted topic (`position`, `reader`).
//!
//! Invariant: nothing is accepted before its transaction is committed. Deliveries may be dropped anywhere: the writer
//! then begins anew, and finds out what was committed.

mod position;
mod reader;
mod topic;
mod writer;

use std::collections::HashMap;
use std::collections::hash_map::RandomState;
use std::hash::{BuildHasher, Hasher};
use std::sync::{Arc, Mutex as StdMutex, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use forebay_api::{Blame, Delivery, Destination, Fault, Mark, Mistake, Record, StreamId};
use tokio::sync::Mutex;
use tokio::time::timeout;

pub(crate) use self::topic::look as check;

use self::writer::{Fate, Planned, Writer};
use crate::batch_bytes::BatchBytes;
use crate::client::{self, Client};
use crate::config::{Config, CreateTopics, Transactions};
use crate::options::Settings;
use crate::topics::{self, Route, Topics};

/// How long an attempt to connect waits until nobody looks topics up.
const TURN_WAIT: Duration = Duration::from_secs(5);
/// How long a commit is waited for where a transaction may take so long.
const COMMIT_WAIT: Duration = Duration::from_secs(30);
/// The longest `transactions.id_prefix`.
const MAX_PREFIX: usize = 200;
/// What every fault tells as attempted.
const CONNECTING: &str = "connecting to Kafka";

/// Writes records to Kafka in transactions. See the module.
pub(crate) struct Transactional {
    setup: Setup,
    /// What transactional ids begin and end with; the stream stands between them.
    id: (String, String),
    create: Option<CreateTopics>,
    /// Looks topics up, and writes nothing.
    lookup: Mutex<Lookup>,
    /// As many as there are streams.
    writers: StdMutex<HashMap<StreamId, Arc<Mutex<Writer>>>>,
}

/// What all writers need.
struct Setup {
    settings: Settings,
    tombstones: bool,
    batch_bytes: BatchBytes,
    /// How long a commit is waited for. What became of it is then found out by the next client.
    commit_wait: Duration,
    /// The topic of positions.
    positions: String,
    /// Who we are in the positions: this process, and no other one before or after it.
    holder: String,
}

struct Lookup {
    client: Option<Arc<Client>>,
    topics: Topics,
}

impl Transactional {
    /// Connects to nothing yet.
    pub(crate) fn new(
        settings: Settings,
        config: &Config,
        transactions: &Transactions,
        name: &str,
    ) -> Result<Transactional, Vec<Mistake>> {
        let mut mistakes = wrong(transactions);
        // Whether librdkafka takes the options together with transactions.
        mistakes.extend(settings.transactional("check").err().into_iter().flatten());
        if !mistakes.is_empty() {
            return Err(mistakes);
        }
        // The hasher's keys are random.
        let holder = format!("{}-{:016x}", std::process::id(), RandomState::new().build_hasher().finish());
        let setup = Setup {
            commit_wait: settings.transaction_timeout().min(COMMIT_WAIT),
            tombstones: config.tombstones,
            batch_bytes: BatchBytes::new(settings.batch_bytes),
            positions: transactions.positions_topic.clone(),
            holder,
            settings,
        };
        Ok(Transactional {
            setup,
            id: (format!("{}:{name}:", transactions.id_prefix), format!(":{}", config.topic)),
            create: config.create_topics,
            lookup: Mutex::new(Lookup { client: None, topics: Topics::new(config) }),
            writers: StdMutex::default(),
        })
    }

    fn writer(&self, stream: &StreamId) -> Arc<Mutex<Writer>> {
        let mut writers = self.writers.lock().unwrap_or_else(PoisonError::into_inner);
        let made = || Arc::new(Mutex::new(Writer::new(format!("{}{stream}{}", self.id.0, self.id.1))));
        writers.entry(stream.clone()).or_insert_with(made).clone()
    }

    /// What is to become of every open record.
    async fn plan<'a>(&self, writer: &Writer, delivery: &'a Delivery) -> Result<Vec<Planned<'a>>, Fault> {
        let mut planned = Vec::with_capacity(delivery.len());
        let mut lookup = self.lookup.lock().await;
        for (index, record) in delivery.open() {
            let fate = match writer.known(record) {
                Some(fate) => fate,
                None => Fate::Write(self.route(&mut lookup, record).await?),
            };
            planned.push(Planned { index, record, fate });
        }
        Ok(planned)
    }

    async fn route(&self, lookup: &mut Lookup, record: Record<'_>) -> Result<Arc<Route>, Fault> {
        let client = lookup.client.clone();
        let client = client.ok_or_else(|| Fault::retryable("looking up a topic", "not connected"))?;
        let route = lookup.topics.route(record, &client, &self.setup.settings).await?;
        if route.topic == self.setup.positions {
            let said = format!("`{}` is where positions are kept", route.topic);
            return Err(Fault::fatal("naming a topic", Blame::Configuration, said)
                .with_remedy("set `topic` or `transactions.positions_topic` so that they differ"));
        }
        Ok(route.clone())
    }
}

#[async_trait]
impl Destination for Transactional {
    async fn open(&self) -> Result<(), Fault> {
        let Ok(mut lookup) = timeout(TURN_WAIT, self.lookup.lock()).await else {
            return Err(Fault::retryable(CONNECTING, "topics are still being looked up"));
        };
        if let Some(client) = &lookup.client
            && client.ended().is_none()
        {
            return lookup.topics.ask(client).await;
        }
        if let Some(client) = lookup.client.take() {
            client::discard(client).await;
        }
        lookup.topics.forget();
        let client = Client::start(&self.setup.settings, self.setup.batch_bytes.get()).await?;
        topic::find_or_create(&client, &self.setup.settings, &self.setup.positions, self.create).await?;
        lookup.client = Some(client);
        Ok(())
    }

    async fn held(&self, stream: &StreamId) -> Result<Option<Mark>, Fault> {
        let writer = self.writer(stream);
        let mut writer = writer.lock().await;
        writer.ready(&self.setup).await?;
        Ok(writer.position().held)
    }

    async fn take_over(&self, stream: &StreamId) -> Result<Option<Mark>, Fault> {
        let writer = self.writer(stream);
        let mut writer = writer.lock().await;
        writer.take_over(&self.setup).await?;
        Ok(writer.position().held)
    }

    async fn deliver(&self, mut delivery: Delivery) -> Result<(), Fault> {
        let writer = self.writer(delivery.stream());
        let mut writer = writer.lock().await;
        if !writer.is_ready() {
            return Err(Fault::retryable("writing to Kafka", "not connected"));
        }
        let mut planned = self.plan(&writer, &delivery).await?;
        let all = planned.len();
        let stored = writer.store(&self.setup, &mut planned).await;
        let settled: Vec<(usize, Fate)> = planned.into_iter().map(|it| (it.index, it.fate)).collect();
        let left = all - settled.len();
        for (index, fate) in settled {
            match fate {
                Fate::Write(_) | Fate::There if stored.is_ok() => delivery.accept(index),
                Fate::Write(_) | Fate::There => {}
                // True whatever became of the others: the next attempt is then without it.
                Fate::Refused(why) => delivery.reject(index, why),
            }
        }
        stored?;
        match left {
            0 => Ok(()),
            _ => Err(Fault::retryable(
                "writing to Kafka",
                "so many records were refused that the rest waits until their dead letters are stored",
            )),
        }
    }

    async fn close(&self) -> Result<(), Fault> {
        let writers = std::mem::take(&mut *self.writers.lock().unwrap_or_else(PoisonError::into_inner));
        for writer in writers.into_values() {
            writer.lock().await.discard().await;
        }
        if let Some(client) = self.lookup.lock().await.client.take() {
            client::discard(client).await;
        }
        Ok(())
    }
}

fn wrong(transactions: &Transactions) -> Vec<Mistake> {
    let mut mistakes = Vec::new();
    let prefix = &transactions.id_prefix;
    if prefix.is_empty()
        || prefix.len() > MAX_PREFIX
        || prefix.contains(|c: char| c.is_whitespace() || c == ':')
    {
        mistakes.push(Mistake {
            at: "/transactions/id_prefix".to_owned(),
            message: format!("`{prefix}` cannot begin a transactional id"),
            help: Some(format!("write up to {MAX_PREFIX} characters without spaces and colons")),
        });
    }
    if topics::illegal(&transactions.positions_topic) {
        mistakes.push(Mistake {
            at: "/transactions/positions_topic".to_owned(),
            message: format!("`{}` is not a name that a topic can have", transactions.positions_topic),
            help: Some("up to 249 letters, digits, `.`, `_` and `-`".to_owned()),
        });
    }
    mistakes
}
