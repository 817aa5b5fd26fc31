//! How a session begins, and how it ends.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use forebay_api::{Blame, Fault};
use rdkafka::config::FromClientConfigAndContext;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::metadata::Metadata;
use rdkafka::types::RDKafkaErrorCode as Code;
use tokio::time::Instant;

use super::{Generation, Plan, Session, Sharing};
use crate::fault::{self, KafkaError};
use crate::source::cursors::Cursors;
use crate::source::entry::Intake;
use crate::source::membership::Membership;
use crate::source::teller::Teller;
use crate::source::wrong;
use crate::topics;

/// How long a broker may take to answer a client that begins.
const REACH_WAIT: Duration = Duration::from_secs(10);
/// How long one blocking call waits.
const SLICE: Duration = Duration::from_millis(200);
/// How long the brokers may take to describe a topic.
const LOOKUP_WAIT: Duration = Duration::from_secs(5);
/// A cluster that is just starting may not know its own topics yet.
const MISSING_WAIT: Duration = Duration::from_millis(500);
/// How long a topic that was created may take until every broker knows it.
const CREATED_WAIT: Duration = Duration::from_secs(10);

impl Session {
    /// Starts a consumer, waits until a broker answers, and joins the group. Blocks.
    pub(crate) fn open(
        plan: &Arc<Plan>,
        intake: Box<dyn Intake>,
        generation: &Generation,
    ) -> Result<Session, Fault> {
        let mut session = Session::start(plan, intake, || generation.report.turned())?;
        generation.report.set_connected(true);
        for topic in plan.named_topics() {
            session.must_exist(topic, generation)?;
        }
        if plan.sharing != Sharing::Group {
            return Ok(session);
        }
        if generation.resume.set {
            session.set_group(&generation.resume.cursors)?;
        }
        let topics: Vec<&str> = plan.topics.iter().map(String::as_str).collect();
        let subscribed = session.consumer.subscribe(&topics);
        subscribed.map_err(|error| {
            Fault::fatal("subscribing", Blame::Configuration, error)
                .with_remedy("correct `topics`: what begins with `^` must be a regular expression")
        })?;
        Ok(session)
    }

    /// Starts a consumer that joins nothing yet, and waits until a broker answers.
    pub(crate) fn start(
        plan: &Arc<Plan>,
        intake: Box<dyn Intake>,
        turned: impl Fn(),
    ) -> Result<Session, Fault> {
        let doing = "starting a Kafka client";
        for file in &plan.settings.files {
            std::fs::read(file).map_err(|error| {
                Fault::fatal(format!("reading `{}`", file.display()), Blame::Configuration, error)
                    .with_remedy("correct the path in `tls`, or let us read the file")
            })?;
        }
        let mut native = plan.settings.native.clone();
        native.set("group.id", &plan.group);
        let started = BaseConsumer::from_config_and_context(&native, Membership::default());
        let consumer = started.map_err(|error| {
            Fault::fatal(doing, Blame::Configuration, error)
                .with_remedy("correct the setting that the message names")
        })?;
        let consumer = Arc::new(consumer);
        let cluster = reach(&consumer, turned)?;
        let teller = Some(Teller::start(consumer.clone())?);
        Ok(Session {
            plan: plan.clone(),
            consumer,
            teller,
            intake,
            cluster,
            streams: BTreeMap::new(),
            waiting: None,
            owned: Cursors::default(),
            revoked: false,
            sent: Cursors::default(),
            stored: Cursors::default(),
            told: Cursors::default(),
            ahead: VecDeque::new(),
            ended: BTreeSet::new(),
            probed: Instant::now(),
            beat: Instant::now(),
        })
    }

    /// A topic that is named must be there, or is created.
    fn must_exist(&self, topic: &str, generation: &Generation) -> Result<(), Fault> {
        if self.exists_within(topic, MISSING_WAIT)? {
            return Ok(());
        }
        let Some((settings, like)) = &self.plan.create else { return Err(wrong::missing(topic)) };
        generation.runtime.block_on(topics::create_topic(settings, topic, *like, &[]))?;
        tracing::info!(topic, "created a topic");
        match self.exists_within(topic, CREATED_WAIT)? {
            true => Ok(()),
            false => {
                let doing = format!("creating topic `{topic}`");
                Err(Fault::retryable(doing, "the brokers do not show it yet"))
            }
        }
    }

    fn exists_within(&self, topic: &str, wait: Duration) -> Result<bool, Fault> {
        let deadline = Instant::now() + wait;
        loop {
            let described = self.describe(Some(topic))?;
            let found = described.topics().iter().find(|found| found.name() == topic);
            if found.is_some_and(|found| found.error().is_none() && !found.partitions().is_empty()) {
                return Ok(true);
            }
            if Instant::now() >= deadline {
                return Ok(false);
            }
            drop(self.consumer.poll(SLICE));
        }
    }

    /// Asks the brokers about one topic, or about all of them.
    pub(crate) fn describe(&self, topic: Option<&str>) -> Result<Metadata, Fault> {
        let answer = self.consumer.fetch_metadata(topic, LOOKUP_WAIT);
        answer.map_err(|error| {
            wrong::of(
                topic.map_or("looking up topics".to_owned(), |topic| format!("looking up topic `{topic}`")),
                &error,
            )
        })
    }

    /// Whether librdkafka has given the consumer up.
    pub(crate) fn is_dead(&self) -> bool {
        self.consumer.client().fatal_error().is_some()
    }

    /// Its consumer, for look-ups.
    pub(crate) fn consumer(&self) -> &BaseConsumer<Membership> {
        &self.consumer
    }
}

impl Drop for Session {
    /// Dropping the consumer closes it: it leaves the group, which needs nobody's consent any more.
    fn drop(&mut self) {
        self.consumer.context().close();
        if let Some(teller) = self.teller.take() {
            teller.end();
        }
        if !self.owned.is_empty() {
            // What was not acted on is answered here, for librdkafka waits for it.
            if let Err(error) = self.consumer.unassign() {
                tracing::debug!(%error, "giving partitions back while closing failed");
            }
        }
    }
}

/// Waits until a broker answers; gives the name of its cluster.
fn reach(consumer: &BaseConsumer<Membership>, turned: impl Fn()) -> Result<String, Fault> {
    let context = &consumer.context().context;
    let deadline = Instant::now() + REACH_WAIT;
    loop {
        turned();
        if let Some(cluster) = consumer.client().fetch_cluster_id(SLICE) {
            context.set_reached();
            context.clear_trouble();
            return Ok(cluster);
        }
        drop(consumer.poll(Duration::ZERO));
        let trouble = context.trouble();
        let error =
            trouble.error.unwrap_or(KafkaError { code: Code::OperationTimedOut, said: trouble.failure });
        if error.is_refusal() || trouble.all_down || Instant::now() >= deadline {
            let fault = fault::fault("connecting to Kafka", error.code, error.said);
            return Err(match fault.is_retryable() {
                true => fault.with_remedy("start the brokers, or correct `brokers`, `tls` and `sasl`"),
                false => fault,
            });
        }
    }
}
