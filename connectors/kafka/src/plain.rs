//! The source that `type: kafka` names: messages that somebody else wrote, as events.

use async_trait::async_trait;
use forebay_api::units::ByteSize;
use forebay_api::{Finding, Mistake, Position, Source, SourceConnector, SourceSetting};

use crate::check::mistaken;
use crate::options::mistake;
use crate::source::config::{SourceConfig, StartAt};
use crate::source::cursors::Resumed;
use crate::source::options::{Access, Settings, wrong_group};
use crate::source::session::{Begin, Plan, Sharing};
use crate::source::transcribe::{Transcriber, schema_parts};
use crate::source::{GroupReader, check};

/// The forms that `forebay checkpoint set` reads.
const FORMS: &str =
    "write the next offset of each partition: `{\"version\":1,\"topics\":{\"orders\":{\"0\":1200}}}`";

/// The connector that `type: kafka` names among sources.
#[derive(Debug)]
pub struct KafkaSource;

#[async_trait]
impl SourceConnector for KafkaSource {
    const TYPE: &'static str = "kafka";
    const ABOUT: &'static str = "Topics of Apache Kafka and compatible brokers, shared by a consumer group";
    /// librdkafka's queue of 8 MiB of what is fetched ahead, answers that are read, and its threads' share of the heap.
    const CLIENT_MEMORY: ByteSize = ByteSize::mib(20);
    type Config = SourceConfig;

    fn build(config: SourceConfig, setting: &SourceSetting) -> Result<Box<dyn Source>, Vec<Mistake>> {
        let plan = plan(&config, setting)?;
        let (source, vendor, schema) = (setting.name.clone(), setting.vendor.clone(), config.schema);
        let intake = move || Box::new(Transcriber::new(&source, &vendor, schema.clone())) as Box<_>;
        Ok(Box::new(GroupReader::new(plan, intake)))
    }

    async fn check(config: SourceConfig, setting: &SourceSetting) -> Vec<Finding> {
        match plan(&config, setting) {
            Ok(plan) => check::check(plan, config.tls.is_none(), config.sasl.as_ref()).await,
            Err(mistakes) => mistakes.iter().map(mistaken).collect(),
        }
    }

    fn position(text: &str, _: Option<&Position>) -> Result<Position, String> {
        let read = Resumed::read(&Position(text.as_bytes().to_vec().into()));
        let resumed = read.map_err(|error| format!("{error}; {FORMS}"))?;
        if resumed.cursors.is_empty() {
            return Err(format!("it names no partition; {FORMS}"));
        }
        Ok(resumed.cursors.position_set())
    }
}

/// What is read, validated.
fn plan(config: &SourceConfig, setting: &SourceSetting) -> Result<Plan, Vec<Mistake>> {
    let group = config.group.clone().unwrap_or_else(|| format!("forebay-{}", setting.name));
    let mut mistakes: Vec<Mistake> = wrong_group(&group).into_iter().collect();
    mistakes.extend(wrong_topics(&config.topics, setting.dry_run));
    if config.schema.as_deref().is_some_and(|schema| schema_parts(schema).is_none()) {
        let help = "write `vendor/name/1-0-0`";
        mistakes.push(mistake("/schema", "`schema` is not the key of a schema".to_owned(), Some(help)));
    }
    let (brokers, options) = (&config.brokers[..], &config.options);
    let access = Access { brokers, tls: config.tls.as_ref(), sasl: config.sasl.as_ref(), options };
    let settings = match Settings::new(access, &setting.name) {
        Ok(settings) if mistakes.is_empty() => settings,
        Ok(_) => return Err(mistakes),
        Err(more) => return Err([mistakes, more].concat()),
    };
    Ok(Plan {
        settings,
        source: setting.name.as_str().into(),
        group,
        topics: config.topics.clone(),
        start: match config.start {
            StartAt::Earliest => Begin::Earliest,
            StartAt::Latest => Begin::Latest,
        },
        // A dry run leaves nothing behind: it looks where the group is and joins nothing.
        sharing: if setting.dry_run { Sharing::Alone(None) } else { Sharing::Group },
        create: None,
    })
}

fn wrong_topics(topics: &[String], dry_run: bool) -> Vec<Mistake> {
    let wrong = |(at, topic): (usize, &String)| {
        let at = format!("/topics/{at}");
        if topic.starts_with('^') {
            let message = format!("a dry run cannot look for topics like `{topic}`");
            let help = "name the topics for it";
            return dry_run.then(|| mistake(&at, message, Some(help)));
        }
        let help = "Kafka's topics have up to 249 letters, digits, `.`, `_` and `-`; a regular expression begins with `^`";
        crate::topics::illegal(topic)
            .then(|| mistake(&at, format!("`{topic}` is not a name that a topic can have"), Some(help)))
    };
    let mut mistakes: Vec<Mistake> = topics.iter().enumerate().filter_map(wrong).collect();
    if topics.is_empty() {
        mistakes.push(mistake("/topics", "`topics` is empty".to_owned(), Some("name at least one")));
    }
    mistakes
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mistakes(json: serde_json::Value) -> Vec<String> {
        let config: SourceConfig = serde_json::from_value(json).unwrap();
        let setting = SourceSetting { name: "docs".to_owned(), vendor: "v".to_owned(), dry_run: false };
        plan(&config, &setting).unwrap_err().into_iter().map(|mistake| mistake.at).collect()
    }

    #[test]
    fn every_mistake_is_named_at_once() {
        let json = serde_json::json!({
            "brokers": ["a:1,b:1"], "topics": ["a b", "^ok.*"], "group": "", "schema": "orders",
            "options": { "group.id": "x" },
        });
        assert_eq!(mistakes(json), ["/group", "/topics/0", "/schema", "/options/group.id", "/brokers/0"]);
        assert_eq!(mistakes(serde_json::json!({ "brokers": ["a:1"], "topics": [] })), ["/topics"]);
    }

    #[test]
    fn a_position_that_an_operator_writes_moves_the_group() {
        let written = KafkaSource::position(r#"{"version":1,"topics":{"a":{"0":5}}}"#, None).unwrap();
        assert_eq!(written.to_string(), r#"{"version":1,"topics":{"a":{"0":5}},"set":true}"#);
        assert!(KafkaSource::position("5", None).unwrap_err().contains("next offset of each partition"));
        assert!(KafkaSource::position(r#"{"version":1,"topics":{}}"#, None).is_err());
    }
}
