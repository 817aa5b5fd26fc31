//! The suite against Apache Kafka as a destination.

use std::sync::Arc;
use std::time::Duration;

use forebay_api::testing::destination::{DestinationRig, Disturbance, SOURCE, conform};
use forebay_api::{Destination, DestinationConnector, DestinationSetting};
use forebay_integration::{Kafka, PATIENCE, Proxy, Topic};
use forebay_kafka::KafkaDestination;
use rdkafka::admin::{AdminOptions, AlterConfig, ResourceSpecifier};
use serde_json::json;
use tokio::sync::Mutex;

/// One broker for all checks, which only the destination reaches through a proxy.
type Server = Arc<Mutex<(Kafka, Proxy)>>;

/// Each check has a topic of its own.
struct Rig {
    server: Server,
    topic: Topic,
    /// Whether it writes in transactions.
    transactions: bool,
}

impl Rig {
    async fn new(server: &Server, check: &str, transactions: bool) -> Rig {
        let topic = server.lock().await.0.topic(check, 3).await;
        Rig { server: server.clone(), topic, transactions }
    }

    /// With one replica, two that must be in sync are a cluster that takes nothing.
    async fn demand_replicas(&self, replicas: &str) {
        let admin = self.server.lock().await.0.admin();
        let topic = ResourceSpecifier::Topic(self.topic.name());
        let altered = [AlterConfig::new(topic).set("min.insync.replicas", replicas)];
        let options = AdminOptions::new().request_timeout(Some(PATIENCE));
        for result in admin.alter_configs(&altered, &options).await.unwrap() {
            result.unwrap();
        }
    }
}

#[async_trait::async_trait]
impl DestinationRig for Rig {
    async fn build(&self) -> Arc<dyn Destination> {
        let broker = self.server.lock().await.1.address();
        let mut config = json!({"brokers": [broker], "topic": self.topic.name()});
        if self.transactions {
            config["transactions"] = json!({});
            config["create_topics"] = json!({});
        }
        let config = serde_json::from_value(config).unwrap();
        let setting = DestinationSetting {
            name: "lake".to_owned(),
            format: "forebay".to_owned(),
            data_dir: std::env::temp_dir(),
            sources: vec![SOURCE.to_owned()],
        };
        KafkaDestination::build(config, &setting).unwrap()
    }

    async fn stored(&self) -> Option<Vec<Vec<u8>>> {
        Some(self.topic.all().await.into_iter().map(|message| message.payload.unwrap()).collect())
    }

    fn keeps_marks(&self) -> bool {
        self.transactions
    }

    fn too_large(&self) -> Option<usize> {
        Some(1_000_000)
    }

    fn disturbances(&self) -> &[Disturbance] {
        &[Disturbance::Kill, Disturbance::Cut, Disturbance::Refuse, Disturbance::Slow]
    }

    async fn disturb(&self, how: Disturbance) {
        match how {
            Disturbance::Kill => self.server.lock().await.0.kill().await,
            Disturbance::Cut => self.server.lock().await.1.shut().await,
            Disturbance::Refuse => self.demand_replicas("2").await,
            Disturbance::Slow => self.server.lock().await.1.delay(Duration::from_millis(150)),
        }
    }

    async fn restore(&self, how: Disturbance) {
        match how {
            Disturbance::Kill => self.server.lock().await.0.start_again().await,
            Disturbance::Cut => self.server.lock().await.1.open().await,
            Disturbance::Refuse => self.demand_replicas("1").await,
            Disturbance::Slow => self.server.lock().await.1.delay(Duration::ZERO),
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn kafka_conforms_as_a_destination() {
    let server: Server = Arc::new(Mutex::new(Kafka::behind_proxy().await));
    let exceptions = [
        ("a_refused_record_is_rejected", "Kafka looks at no record's content"),
        ("what_is_held_is_struck_off", "without transactions no mark is stored with the data"),
    ];
    conform(&exceptions, async |check| Rig::new(&server, check, false).await).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn kafka_with_transactions_conforms_as_a_destination() {
    let server: Server = Arc::new(Mutex::new(Kafka::behind_proxy().await));
    let exceptions = [("a_refused_record_is_rejected", "Kafka looks at no record's content")];
    conform(&exceptions, async |check| Rig::new(&server, check, true).await).await;
}
