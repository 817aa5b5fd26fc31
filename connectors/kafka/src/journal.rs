//! A journal in Kafka: one topic for a source, an idempotent producer in, a consumer group for each destination out.
//!
//! ```text
//!  daemon A ─▶ Writer ═╗  ╔═ partition 0 ═▶ daemon A: GroupReader `….lake`
//!  daemon B ─▶ Writer ═╩▶ ╠═ partition 1 ═▶ daemon B: GroupReader `….lake`
//!                         ╚═ partition 2 ═▶ daemon C: GroupReader `….lake`
//! ```
//! Any number of daemons take in and any number deliver. Each partition is a stream of its own, whose marks are offsets;
//! events keep the ids of their origin, so that what came twice can be told. The order of a key holds: its first events
//! are in the order of the source, and a repeat is followed again by all its successors.

pub mod config;
mod intake;
mod partition;
mod writer;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use forebay_api::units::ByteSize;
use forebay_api::{
    Blame, Destination, Fault, Finding, Journal, JournalConnector, JournalSetting, JournalStatus, Mistake,
    Position, ReaderSetting, ReaderStatus, Since, Source, Start,
};
use rdkafka::admin::{AdminClient, AdminOptions};
use rdkafka::config::FromClientConfigAndContext;
use rdkafka::consumer::Consumer;
use rdkafka::types::RDKafkaErrorCode as Code;
use rdkafka::{Offset, TopicPartitionList};

use self::config::JournalConfig;
use self::intake::Decoder;
use self::writer::Writer;
use crate::check::mistaken;
use crate::client::blocking;
use crate::config::{Config, CreateTopics};
use crate::context::Context;
use crate::options::{self, mistake};
use crate::source::cursors::{Cursors, Resumed};
use crate::source::options::{Access, Settings, wrong_group};
use crate::source::session::{ASK_WAIT, Begin, Plan, Session, Sharing};
use crate::source::{GroupReader, wrong};
use crate::topics;

/// How long the brokers may take to delete a group.
const FORGET_WAIT: Duration = Duration::from_secs(15);
/// A message is looked for so much earlier than the event that is wanted, because its time is told by another clock.
const SKEW_MS: i64 = 10 * 60 * 1000;

/// The connector that `journal: kafka` names.
#[derive(Debug)]
pub struct KafkaJournal;

/// The log of one source.
struct Topic {
    source: Arc<str>,
    name: String,
    group: String,
    create: Option<CreateTopics>,
    producer: Arc<options::Settings>,
    consumer: Settings,
    writer: Arc<Writer>,
    /// The readers that this process has.
    readers: Mutex<BTreeSet<String>>,
}

#[async_trait]
impl JournalConnector for KafkaJournal {
    const TYPE: &'static str = "kafka";
    const ABOUT: &'static str = "a topic of Apache Kafka, for any number of daemons";
    /// A producer's and a consumer's.
    const CLIENT_MEMORY: ByteSize = ByteSize::mib(32);
    type Config = JournalConfig;

    fn build(config: JournalConfig, setting: &JournalSetting) -> Result<Arc<dyn Journal>, Vec<Mistake>> {
        Ok(Arc::new(Topic::new(config, setting)?))
    }

    async fn check(config: JournalConfig, setting: &JournalSetting) -> Vec<Finding> {
        match Topic::new(config, setting) {
            Ok(topic) => topic.check().await,
            Err(mistakes) => mistakes.iter().map(mistaken).collect(),
        }
    }

    fn left_behind(_: &JournalSetting, stored: &BTreeMap<String, Position>) -> Result<Option<String>, Fault> {
        let ours = stored.iter().filter(|(_, position)| Resumed::read(position).is_ok());
        let ours: Vec<String> = ours.map(|(name, _)| format!("`{name}`")).collect();
        Ok((!ours.is_empty()).then(|| {
            let readers = ours.join(", ");
            format!(
                "these read a journal in Kafka, and only Kafka knows whether they have all of it: {readers}"
            )
        }))
    }
}

impl Topic {
    /// Validates; connects to nothing.
    fn new(config: JournalConfig, setting: &JournalSetting) -> Result<Topic, Vec<Mistake>> {
        let fill =
            |text: &str| text.replace("{instance}", &setting.instance).replace("{source}", &setting.source);
        let legal =
            |char: char| if char.is_ascii_alphanumeric() || "._-".contains(char) { char } else { '_' };
        let name: String = fill(&config.topic).chars().map(legal).collect();
        let group = fill(&config.group);
        let mut mistakes: Vec<Mistake> = wrong_group(&group).into_iter().collect();
        if topics::illegal(&name) {
            let help = "Kafka's topics have up to 249 letters, digits, `.`, `_` and `-`";
            mistakes.push(mistake(
                "/topic",
                format!("`{name}` is not a name that a topic can have"),
                Some(help),
            ));
        }
        let consumer = Settings::new(
            Access {
                brokers: &config.brokers,
                tls: config.tls.as_ref(),
                sasl: config.sasl.as_ref(),
                options: &config.reader_options,
            },
            &setting.source,
        );
        let consumer = consumer.map_err(|more| {
            let at = |mistake: Mistake| Mistake {
                at: mistake.at.replacen("/options", "/reader_options", 1),
                ..mistake
            };
            more.into_iter().map(at).collect::<Vec<Mistake>>()
        });
        let create = config.create_topic;
        let producer = options::Settings::new(&destination(config), &setting.source);
        match (consumer, producer) {
            (Ok(consumer), Ok(producer)) if mistakes.is_empty() => {
                let producer = Arc::new(producer);
                let writer = Arc::new(Writer::new(producer.clone(), name.clone(), create));
                let (source, readers) = (setting.source.as_str().into(), Mutex::default());
                Ok(Topic { source, name, group, create, producer, consumer, writer, readers })
            }
            (consumer, producer) => {
                mistakes.extend(consumer.err().unwrap_or_default());
                mistakes.extend(producer.err().unwrap_or_default());
                mistakes.dedup();
                Err(mistakes)
            }
        }
    }

    /// What a reader of this name reads; nobody has a place by looking.
    fn plan(&self, reader: &str, start: Begin, sharing: Sharing) -> Plan {
        Plan {
            settings: self.consumer.clone(),
            source: self.source.clone(),
            group: self.group_of(reader),
            topics: vec![self.name.clone()],
            start,
            sharing,
            create: self.create.map(|like| (self.producer.clone(), like)),
        }
    }

    fn group_of(&self, reader: &str) -> String {
        format!("{}.{reader}", self.group)
    }

    /// Looks something up with a consumer that joins nothing.
    async fn look<T: Send + 'static>(
        &self,
        look: impl FnOnce(&Session, &str) -> Result<T, Fault> + Send + 'static,
    ) -> Result<T, Fault> {
        let plan = Arc::new(self.plan("look-up", Begin::Earliest, Sharing::Alone(None)));
        let name = self.name.clone();
        blocking(move || {
            let session = Session::start(&plan, Box::new(Decoder::default()), || {})?;
            look(&session, &name)
        })
        .await
    }

    /// Whether the brokers answer and the topic is there, or will be.
    async fn check(&self) -> Vec<Finding> {
        let may_create = self.create.is_some();
        let looked = self.look(move |session, name| {
            let cluster = session.describe(None)?;
            let mut findings = vec![Finding::good(format!("{} broker(s) answer", cluster.brokers().len()))];
            let found = cluster.topics().iter().find(|found| found.name() == name);
            findings.push(match found.map(|found| found.partitions().len()) {
                Some(partitions @ 1..) => {
                    let fact = format!(
                        "topic `{name}` has {partitions} partition(s): so many daemons can deliver at once"
                    );
                    Finding::good(fact)
                }
                _ if may_create => Finding::good(format!("topic `{name}` will be created")),
                _ => Finding::fault(&topics::missing(name)),
            });
            Ok(findings)
        });
        looked.await.unwrap_or_else(|fault| vec![Finding::fault(&fault)])
    }
}

#[async_trait]
impl Journal for Topic {
    fn writer(&self) -> Arc<dyn Destination> {
        self.writer.clone()
    }

    fn reader(&self, setting: ReaderSetting) -> Box<dyn Source> {
        let cursors = |position: &Position| Resumed::read(position).map(|resumed| resumed.cursors);
        let start = match &setting.start {
            Start::Oldest => Ok(Begin::Earliest),
            Start::Newest => Ok(Begin::Latest),
            Start::At(position) => cursors(position).map(Begin::At),
        };
        let until = setting.until.as_ref().map(cursors).transpose();
        let (start, until) = match (start, until) {
            (Ok(start), Ok(until)) => (start, until),
            (Err(error), _) | (_, Err(error)) => return Box::new(Unreadable(error)),
        };
        // A replay is one reader's affair, and where it stands is kept by the core.
        let sharing = match until {
            None => Sharing::Group,
            Some(until) => Sharing::Alone(Some(until)),
        };
        if sharing == Sharing::Group {
            self.readers.lock().unwrap_or_else(PoisonError::into_inner).insert(setting.name.to_string());
        }
        let plan = self.plan(&setting.name, start, sharing);
        Box::new(GroupReader::new(plan, || Box::new(Decoder::default())))
    }

    async fn locate(&self, since: &Since) -> Result<Position, Fault> {
        let since = since.clone();
        self.look(move |session, name| {
            let partitions = session.partitions_of(name)?;
            let mut at = Cursors::default();
            for partition in &partitions {
                at.set(name, *partition, bounds(session, name, *partition)?.0);
            }
            // Marks of the origin are not in order across partitions, so all is read for them.
            let Since::Time(time) = since else { return Ok(at.position()) };
            let mut asked = TopicPartitionList::new();
            let wanted = (time.div_euclid(1000) - SKEW_MS).max(0);
            for partition in &partitions {
                let added = asked.add_partition_offset(name, *partition, Offset::Offset(wanted));
                added.map_err(|error| wrong::of("looking for a time", &error))?;
            }
            let found = session.consumer().offsets_for_times(asked, ASK_WAIT);
            for element in found.map_err(|error| wrong::of("looking for a time", &error))?.elements() {
                let next = match element.offset() {
                    Offset::Offset(next) => next,
                    // Nothing is as young as that.
                    _ => bounds(session, name, element.partition())?.1,
                };
                at.set(name, element.partition(), next);
            }
            Ok(at.position())
        })
        .await
    }

    async fn end(&self) -> Result<Position, Fault> {
        self.look(|session, name| {
            let mut at = Cursors::default();
            for partition in session.partitions_of(name)? {
                at.set(name, partition, bounds(session, name, partition)?.1);
            }
            Ok(at.position())
        })
        .await
    }

    /// Deletes the reader's group, which must have no members any more.
    fn is_local(&self) -> bool {
        false
    }

    async fn forget(&self, reader: &str) -> Result<(), Fault> {
        let group = self.group_of(reader);
        let doing = format!("deleting consumer group `{group}`");
        let native = self.producer.native.clone();
        let admin = blocking(move || AdminClient::from_config_and_context(&native, Context::default())).await;
        let admin = admin.map_err(|error| Fault::fatal(doing.clone(), Blame::Defect, error))?;
        let options = AdminOptions::new().request_timeout(Some(FORGET_WAIT));
        let answer = admin.delete_groups(&[&group], &options).await;
        blocking(move || drop(admin)).await;
        let results = answer.map_err(|error| wrong::of(&doing, &error))?;
        match results.into_iter().next() {
            Some(Err((_, Code::NonEmptyGroup))) => {
                Err(Fault::fatal(doing, Blame::Outside, "it still has members")
                    .with_remedy("take the destination out of every daemon's configuration first"))
            }
            Some(Ok(_) | Err((_, Code::GroupIdNotFound))) => {
                self.readers.lock().unwrap_or_else(PoisonError::into_inner).remove(reader);
                Ok(())
            }
            Some(Err((_, code))) => Err(wrong::judged(doing, code, None)),
            None => Err(Fault::fatal(doing, Blame::Defect, "the broker did not say what became of it")),
        }
    }

    /// Bytes are the brokers' business; how far a reader is behind is told by its lag.
    fn status(&self) -> JournalStatus {
        let readers = self.readers.lock().unwrap_or_else(PoisonError::into_inner);
        let status =
            |name: &String| ReaderStatus { name: name.clone(), behind: None, parked: false, running: true };
        JournalStatus { readers: readers.iter().map(status).collect(), ..JournalStatus::default() }
    }
}

/// The first offset of a partition, and the one behind its last.
fn bounds(session: &Session, topic: &str, partition: i32) -> Result<(i64, i64), Fault> {
    let found = session.consumer().fetch_watermarks(topic, partition, ASK_WAIT);
    found.map_err(|error| wrong::of(format!("looking for the bounds of `{topic}`"), &error))
}

/// The same keys as those of a destination, which say how the producer is.
fn destination(config: JournalConfig) -> Config {
    let fixed = "journal";
    let topic = forebay_api::template::Template::parse(fixed).expect("plain text is a template");
    Config {
        transactions: None,
        brokers: config.brokers,
        topic,
        partitioner: crate::config::Partitioner::default(),
        compression: config.compression,
        create_topics: config.create_topic,
        tombstones: false,
        tls: config.tls,
        sasl: config.sasl,
        options: config.options,
    }
}

/// A reader whose bounds are no positions: it says so when it runs.
struct Unreadable(String);

#[async_trait]
impl Source for Unreadable {
    async fn run(&mut self, _: forebay_api::SourceContext) -> Result<(), Fault> {
        Err(wrong::position(self.0.clone()))
    }
}
