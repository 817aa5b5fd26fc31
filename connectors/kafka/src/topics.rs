//! Which topic a record goes to, and whether it is there.
//!
//! A name is rendered once for each table, not for each record. A topic is looked up before the first record goes to it,
//! because librdkafka would find out only after half a minute. Invariant: a route that was given out leads to a topic
//! that was there when this client began, or has been created since.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use forebay_api::template::{Names, Placeholder, Template};
use forebay_api::{Blame, Event, Fault, Op, Record, StreamId, Subject, json};
use rdkafka::admin::{AdminClient, AdminOptions, NewTopic, TopicReplication};
use rdkafka::config::FromClientConfigAndContext;
use rdkafka::error::KafkaError as LibraryError;
use rdkafka::metadata::Metadata;
use rdkafka::producer::Producer;
use rdkafka::types::RDKafkaErrorCode as Code;
use tokio::time::{Instant, sleep};

use crate::client::{Client, blocking};
use crate::config::{Config, CreateTopics};
use crate::context::Context;
use crate::fault;
use crate::options::Settings;

/// Routes kept before all are forgotten and made again; a source with more tables than this pays for it.
const MAX_ROUTES: usize = 10_000;
/// How long the brokers may take to describe or create a topic.
const LOOKUP_WAIT: Duration = Duration::from_secs(5);
/// A cluster that is just starting may not know its own topics yet: so often, and this long apart, a topic must be
/// missing to be missing.
const MISSING_TIMES: u32 = 3;
const MISSING_PAUSE: Duration = Duration::from_millis(200);
/// How long a topic that was created may take until every broker knows it.
const CREATED_WAIT: Duration = Duration::from_secs(10);
const CREATED_PAUSE: Duration = Duration::from_millis(50);
/// Kafka's limit for a name.
const MAX_NAME: usize = 249;

/// Where records of one kind go.
#[derive(Debug)]
pub(crate) struct Route {
    /// The topic.
    pub(crate) topic: String,
    /// The value of the header `forebay-schema`.
    pub(crate) schema: String,
    /// Kept alive, because the route is found by their addresses.
    _alive: (Arc<StreamId>, Arc<Subject>),
}

/// What tells the routes of records apart. Parts that the template does not ask for are always the same.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
struct Key {
    stream: usize,
    subject: usize,
    op: Option<Op>,
    valid: bool,
    hour: i64,
}

/// All routes, and the topics that are known to be there.
#[derive(Debug)]
pub(crate) struct Topics {
    template: Template,
    by_op: bool,
    by_verdict: bool,
    by_time: bool,
    create: Option<CreateTopics>,
    routes: Vec<Arc<Route>>,
    /// Where in `routes`.
    found: HashMap<Key, usize>,
    /// The last record's, for records of one table come in runs.
    last: Option<(Key, usize)>,
    present: HashSet<String>,
    names: Names,
}

impl Topics {
    /// Those that `config` names.
    pub(crate) fn new(config: &Config) -> Topics {
        let asks = |wanted: &[Placeholder]| config.topic.placeholders().any(|found| wanted.contains(&found));
        Topics {
            template: config.topic.clone(),
            by_op: asks(&[Placeholder::Op]),
            by_verdict: asks(&[Placeholder::Valid]),
            by_time: asks(&TIME),
            create: config.create_topics,
            routes: Vec::new(),
            found: HashMap::new(),
            last: None,
            present: HashSet::new(),
            names: Names::default(),
        }
    }

    /// A new client must look again.
    pub(crate) fn forget(&mut self) {
        self.routes.clear();
        self.found.clear();
        self.last = None;
        self.present.clear();
    }

    /// Asks a broker for something small where there was trouble; else there is nothing to ask.
    pub(crate) async fn ask(&self, client: &Arc<Client>) -> Result<(), Fault> {
        if client.trouble().is_some() {
            describe(client, self.present.iter().next().map(String::as_str)).await?;
            client.answered();
        }
        Ok(())
    }

    /// The route of a record; looks the topic up, and creates it where that is configured, when it is the first.
    pub(crate) async fn route(
        &mut self,
        record: Record<'_>,
        client: &Arc<Client>,
        settings: &Settings,
    ) -> Result<&Arc<Route>, Fault> {
        let key = self.key(record);
        let at = match self.last {
            Some((last, at)) if last == key => at,
            _ => match self.found.get(&key) {
                Some(at) => *at,
                None => self.add(key, record, client, settings).await?,
            },
        };
        self.last = Some((key, at));
        Ok(&self.routes[at])
    }

    /// Makes a route; gives its place.
    async fn add(
        &mut self,
        key: Key,
        record: Record<'_>,
        client: &Arc<Client>,
        settings: &Settings,
    ) -> Result<usize, Fault> {
        let route = self.name(record)?;
        if !self.present.contains(&route.topic) {
            find_or_create(client, settings, &route.topic, self.create).await?;
        }
        if self.routes.len() >= MAX_ROUTES {
            self.forget();
        }
        self.present.insert(route.topic.clone());
        self.found.insert(key, self.routes.len());
        self.routes.push(Arc::new(route));
        Ok(self.routes.len() - 1)
    }

    fn key(&self, record: Record<'_>) -> Key {
        let event = record.event();
        Key {
            stream: Arc::as_ptr(event.stream()).addr(),
            subject: Arc::as_ptr(event.subject()).addr(),
            op: self.by_op.then(|| event.op()),
            valid: self.by_verdict && record.verdict().is_valid(),
            hour: if self.by_time { event.row().time.div_euclid(3_600_000_000) } else { 0 },
        }
    }

    /// Renders the name and makes sure that no other table has it.
    fn name(&mut self, record: Record<'_>) -> Result<Route, Fault> {
        let doing = "naming a topic";
        let event = record.event();
        let mut time = Vec::new();
        json::write_time(event.row().time, &mut time);
        let time = String::from_utf8(time).expect("a time is written in ASCII");
        let mut topic = String::new();
        self.template.render(|asked| value(asked, record, &time), forbidden, &mut topic);
        if illegal(&topic) {
            let said = format!("`{topic}` is not a name that a topic can have");
            let remedy = format!("set `topic` so that it makes at most {MAX_NAME} characters");
            return Err(Fault::fatal(doing, Blame::Configuration, said).with_remedy(remedy));
        }
        // Two tables share a name at all times or never, so time is left out here and the names stay few.
        let timeless = |asked| if TIME.contains(&asked) { None } else { value(asked, record, &time) };
        let mut name = String::new();
        self.template.render(timeless, forbidden, &mut name);
        let taken = self.names.take(&name, &self.template.origin(timeless));
        taken.map_err(|collision| {
            Fault::fatal(doing, Blame::Configuration, collision)
                .with_remedy("set `topic` so that names differ")
        })?;
        let _alive = (event.stream().clone(), event.subject().clone());
        Ok(Route { topic, schema: event.subject().schema_key(), _alive })
    }
}

const TIME: [Placeholder; 4] = [Placeholder::Year, Placeholder::Month, Placeholder::Day, Placeholder::Hour];

/// What a record has for a placeholder; `time` is its time as JSON.
fn value<'a>(asked: Placeholder, record: Record<'a>, time: &'a str) -> Option<&'a str> {
    let event: Event<'a> = record.event();
    let subject = event.subject();
    match asked {
        Placeholder::Source => Some(&event.stream().source),
        Placeholder::Database => subject.database.as_deref(),
        Placeholder::Schema => subject.schema.as_deref(),
        Placeholder::Table => subject.table.as_deref(),
        Placeholder::Vendor => Some(&subject.vendor),
        Placeholder::Name => Some(&subject.name),
        Placeholder::Version => Some(&subject.version),
        Placeholder::Op => Some(event.op().as_str()),
        Placeholder::Valid => Some(if record.verdict().is_valid() { "true" } else { "false" }),
        // `"2026-11-22T18:…"`, its year perhaps with a sign and more digits.
        Placeholder::Year => time.split('T').next()?.get(1..time.find('T')? - 6),
        Placeholder::Month => time.get(time.find('T')? - 5..time.find('T')? - 3),
        Placeholder::Day => time.get(time.find('T')? - 2..time.find('T')?),
        Placeholder::Hour => time.get(time.find('T')? + 1..time.find('T')? + 3),
    }
}

/// What no topic's name may have in it.
fn forbidden(char: char) -> bool {
    !(char.is_ascii_alphanumeric() || matches!(char, '.' | '_' | '-'))
}

/// Whether no topic can have this name.
pub(crate) fn illegal(name: &str) -> bool {
    name.is_empty() || name.len() > MAX_NAME || name == "." || name == ".." || name.contains(forbidden)
}

/// Makes sure that a topic is there.
pub(crate) async fn find_or_create(
    client: &Arc<Client>,
    settings: &Settings,
    topic: &str,
    create: Option<CreateTopics>,
) -> Result<(), Fault> {
    if find(client, topic).await? {
        return Ok(());
    }
    let Some(like) = create else { return Err(missing(topic)) };
    create_and_wait(client, settings, topic, like, &[]).await
}

/// Whether a topic is there, after it was looked for more than once.
pub(crate) async fn find(client: &Arc<Client>, topic: &str) -> Result<bool, Fault> {
    for look in 0..MISSING_TIMES {
        if look > 0 {
            sleep(MISSING_PAUSE).await;
        }
        if exists(client, topic).await? {
            return Ok(true);
        }
    }
    Ok(false)
}

/// Creates a topic with these settings and waits until the brokers show it.
pub(crate) async fn create_and_wait(
    client: &Arc<Client>,
    settings: &Settings,
    topic: &str,
    like: CreateTopics,
    with: &[(&str, &str)],
) -> Result<(), Fault> {
    create_topic(settings, topic, like, with).await?;
    tracing::info!(topic, "created a topic");
    let deadline = Instant::now() + CREATED_WAIT;
    while !exists(client, topic).await? {
        if Instant::now() >= deadline {
            return Err(Fault::retryable(
                format!("creating topic `{topic}`"),
                "the brokers do not show it yet",
            ));
        }
        sleep(CREATED_PAUSE).await;
    }
    Ok(())
}

/// A topic that is not there and may not be created.
pub(crate) fn missing(topic: &str) -> Fault {
    let remedy = format!(
        "create it with `kafka-topics.sh --bootstrap-server … --create --topic {topic}`, or let Forebay create what is \
         missing: `create_topics: {{}}`"
    );
    let doing = format!("looking up topic `{topic}`");
    Fault::fatal(doing, Blame::Configuration, "it does not exist").with_remedy(remedy)
}

/// Whether a topic is there and has partitions that can be written.
pub(crate) async fn exists(client: &Arc<Client>, topic: &str) -> Result<bool, Fault> {
    let doing = format!("looking up topic `{topic}`");
    let metadata = describe(client, Some(topic)).await?;
    let found = metadata.topics().iter().find(|found| found.name() == topic);
    match found.and_then(|found| found.error()).map(Code::from) {
        None => Ok(found.is_some_and(|found| !found.partitions().is_empty())),
        Some(Code::UnknownTopicOrPartition | Code::UnknownTopic | Code::LeaderNotAvailable) => Ok(false),
        Some(code) => Err(fault::fault(doing, code, None)),
    }
}

/// Asks the brokers about one topic, or about all of them.
pub(crate) async fn describe(client: &Arc<Client>, topic: Option<&str>) -> Result<Metadata, Fault> {
    let (asked, name) = (client.clone(), topic.map(str::to_owned));
    let answer =
        blocking(move || asked.producer().client().fetch_metadata(name.as_deref(), LOOKUP_WAIT)).await;
    answer.map_err(|error| {
        let doing =
            topic.map_or("looking up topics".to_owned(), |topic| format!("looking up topic `{topic}`"));
        // Why no connection works says more than that no answer came.
        fault::fault(doing, fault::code(&error), client.trouble().and_then(|trouble| trouble.said))
    })
}

/// Creates a topic; that somebody else did so meanwhile is as good.
pub(crate) async fn create_topic(
    settings: &Settings,
    topic: &str,
    like: CreateTopics,
    with: &[(&str, &str)],
) -> Result<(), Fault> {
    let doing = || format!("creating topic `{topic}`");
    let native = settings.native.clone();
    let admin = blocking(move || AdminClient::from_config_and_context(&native, Context::default())).await;
    let unable = |error: LibraryError| Fault::fatal(doing(), Blame::Defect, error);
    let admin = admin.map_err(unable)?;
    // Less than one asks for the brokers' default.
    let or_default = |count: Option<std::num::NonZeroU16>| count.map_or(-1, |count| i32::from(count.get()));
    let replication = TopicReplication::Fixed(or_default(like.replication));
    let mut wanted = NewTopic::new(topic, or_default(like.partitions), replication);
    for (setting, value) in with {
        wanted = wanted.set(setting, value);
    }
    let options = AdminOptions::new().request_timeout(Some(LOOKUP_WAIT)).operation_timeout(Some(LOOKUP_WAIT));
    let answer = admin.create_topics([&wanted], &options).await;
    blocking(move || drop(admin)).await;
    match answer {
        Ok(results) => match results.into_iter().next() {
            Some(Ok(_) | Err((_, Code::TopicAlreadyExists))) => Ok(()),
            Some(Err((_, code))) => Err(fault::fault(doing(), code, None)),
            None => Err(Fault::fatal(doing(), Blame::Defect, "the broker did not say what became of it")),
        },
        // The only variant that carries no code although it has one.
        Err(LibraryError::AdminOp(code)) => Err(fault::fault(doing(), code, None)),
        Err(error) => Err(unable(error)),
    }
}
