//! The topic of positions itself: that it is there, and that it keeps the last message of each key for ever.

use std::num::NonZeroU16;
use std::sync::Arc;
use std::time::Duration;

use forebay_api::{Blame, Fault, Finding};
use rdkafka::admin::{AdminClient, AdminOptions, ResourceSpecifier};
use rdkafka::config::FromClientConfigAndContext;
use rdkafka::types::RDKafkaErrorCode as Code;

use crate::client::{Client, blocking};
use crate::config::CreateTopics;
use crate::context::Context;
use crate::fault;
use crate::options::Settings;
use crate::topics;

/// How long the brokers may take to say how the topic is set.
const LOOKUP_WAIT: Duration = Duration::from_secs(5);
/// How it is created: small segments, compacted soon, so that it is read in no time. Marks of transactions that ended,
/// which would gather for a day by default, go after ten minutes, much longer than it takes to read it.
const SETTINGS: [(&str, &str); 4] = [
    ("cleanup.policy", "compact"),
    ("segment.bytes", "16777216"),
    ("min.cleanable.dirty.ratio", "0.1"),
    ("delete.retention.ms", "600000"),
];
/// Positions are kept in one partition.
const PARTITIONS: NonZeroU16 = NonZeroU16::MIN;

/// Makes sure that the topic is there and compacted.
pub(super) async fn find_or_create(
    client: &Arc<Client>,
    settings: &Settings,
    topic: &str,
    create: Option<CreateTopics>,
) -> Result<(), Fault> {
    if topics::find(client, topic).await? {
        return compacted(settings, topic).await;
    }
    let Some(like) = create else { return Err(missing(topic)) };
    let like = CreateTopics { partitions: Some(PARTITIONS), ..like };
    topics::create_and_wait(client, settings, topic, like, &SETTINGS).await
}

/// What `forebay check` says of it.
pub(crate) async fn look(
    client: &Arc<Client>,
    settings: &Settings,
    topic: &str,
    created: bool,
) -> Result<Finding, Fault> {
    if topics::exists(client, topic).await? {
        compacted(settings, topic).await?;
        return Ok(Finding::good(format!("topic `{topic}` exists and is compacted")));
    }
    Ok(match created {
        true => Finding::good(format!("topic `{topic}` will be created")),
        false => Finding::fault(&missing(topic)),
    })
}

fn missing(topic: &str) -> Fault {
    let with: Vec<String> = SETTINGS.iter().map(|(key, value)| format!("--config {key}={value}")).collect();
    let remedy = format!(
        "create it with `kafka-topics.sh --bootstrap-server … --create --topic {topic} --partitions {PARTITIONS} {}`, or \
         let Forebay create what is missing: `create_topics: {{}}`",
        with.join(" ")
    );
    let doing = format!("looking up topic `{topic}`, in which positions are kept");
    Fault::fatal(doing, Blame::Configuration, "it does not exist").with_remedy(remedy)
}

/// Makes sure that no position is deleted by its age.
async fn compacted(settings: &Settings, topic: &str) -> Result<(), Fault> {
    let doing = format!("looking how topic `{topic}` is set");
    let native = settings.native.clone();
    let admin =
        blocking(move || AdminClient::<Context>::from_config_and_context(&native, Context::default()));
    let admin = admin.await.map_err(|error| Fault::fatal(&doing, Blame::Defect, error))?;
    let options = AdminOptions::new().request_timeout(Some(LOOKUP_WAIT));
    let answer = admin.describe_configs([&ResourceSpecifier::Topic(topic)], &options).await;
    blocking(move || drop(admin)).await;
    let answer = answer.map_err(|error| fault::fault(&doing, fault::code(&error), None))?;
    let policy = match answer.into_iter().next() {
        Some(Ok(found)) => found.get("cleanup.policy").and_then(|entry| entry.value.clone()),
        Some(Err(Code::TopicAuthorizationFailed | Code::ClusterAuthorizationFailed)) => {
            tracing::warn!(topic, "not allowed to look whether the topic of positions is compacted");
            return Ok(());
        }
        Some(Err(code)) => return Err(fault::fault(doing, code, None)),
        None => None,
    };
    match policy.as_deref() {
        Some("compact") => Ok(()),
        found => {
            let said = format!(
                "its `cleanup.policy` is `{}`, so positions may be lost",
                found.unwrap_or("not known")
            );
            let remedy = format!(
                "set it with `kafka-configs.sh --bootstrap-server … --alter --topic {topic} --add-config \
                 cleanup.policy=compact`"
            );
            Err(Fault::fatal(doing, Blame::Configuration, said).with_remedy(remedy))
        }
    }
}
