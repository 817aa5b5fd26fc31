//! The suite against Apache Kafka as a source.

use std::cmp::Ordering;
use std::ops::Range;

use forebay_api::testing::source::{SourceRig, conform};
use forebay_api::{Event, Position, Source, SourceConnector, SourceSetting};
use forebay_integration::{Draft, Kafka, Topic, unique};
use forebay_kafka::KafkaSource;
use serde_json::{Value, json};
use tokio::sync::Mutex;

/// Each check has a topic and a group of its own.
struct Rig {
    topic: Topic,
    group: String,
    bootstrap: String,
    /// The check that restarts the server has a server of its own.
    own: Option<Mutex<Kafka>>,
}

impl Rig {
    async fn new(check: &str) -> Rig {
        let own = if check == "a_server_that_restarts_loses_nothing" {
            Some(Kafka::start(forebay_integration::Broker::Plain).await)
        } else {
            None
        };
        let server = match &own {
            Some(server) => server,
            None => Kafka::shared().await,
        };
        let (topic, bootstrap) = (server.topic(check, 1).await, server.bootstrap());
        Rig { topic, group: unique(check), bootstrap, own: own.map(Mutex::new) }
    }
}

#[async_trait::async_trait]
impl SourceRig for Rig {
    async fn build(&self) -> Box<dyn Source> {
        let config = json!({
            "brokers": [self.bootstrap], "topics": [self.topic.name()], "group": self.group,
            "options": {"session.timeout.ms": 6000, "heartbeat.interval.ms": 300},
        });
        let setting =
            SourceSetting { name: "log".to_owned(), vendor: "com.example".to_owned(), dry_run: false };
        let config = serde_json::from_value(config).expect("it has all it needs");
        KafkaSource::build(config, &setting).expect("its configuration is right")
    }

    async fn write(&self, numbers: Range<u64>) {
        let values: Vec<String> = numbers
            .map(|number| format!("{{\"number\":{number},\"text\":\"the {number}th of many\"}}"))
            .collect();
        let drafts: Vec<Draft<'_>> =
            values.iter().map(|value| Draft { value: Some(value.as_bytes()), ..Draft::default() }).collect();
        self.topic.write(0, &drafts).await;
    }

    fn number(&self, event: Event<'_>) -> Option<u64> {
        let row: Value = serde_json::from_slice(event.payload()).expect("a payload is JSON");
        row["number"].as_u64()
    }

    async fn confirmed(&self, position: &Position) -> Option<Ordering> {
        let position: Value = serde_json::from_slice(&position.0).expect("a position is JSON");
        let next = position["topics"][self.topic.name()]["0"].as_i64().expect("there is one partition");
        Some(self.topic.committed(&self.group).await.get(&0).copied().unwrap_or(-1).cmp(&next))
    }

    fn can_restart(&self) -> bool {
        self.own.is_some()
    }

    async fn stop_server(&self) {
        self.own.as_ref().unwrap().lock().await.kill().await;
    }

    async fn start_server(&self) {
        self.own.as_ref().unwrap().lock().await.start_again().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn kafka_conforms_as_a_source() {
    conform(&[], async |check| Rig::new(check).await).await;
}
