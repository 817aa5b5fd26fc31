//! Each store: what is there is found, what is not there is known not to be, and a server that is down says neither.

use std::sync::Arc;

use forebay_api::{
    DestinationConnector, Mistake, SchemaKey, SchemaStore, SchemaStoreConnector, SchemaStoreSetting,
};
use forebay_integration::{Broker, Draft, Kafka, Postgres, Proxy, S3, Stop};
use forebay_kafka::{KafkaDestination, KafkaSchemas};
use forebay_postgres::{PostgresDestination, PostgresSchemas};
use forebay_schemas::S3Store;
use serde_json::{Value, json};

fn setting() -> SchemaStoreSetting {
    SchemaStoreSetting { name: "store-1".to_owned(), data_dir: std::env::temp_dir() }
}

fn built<C: SchemaStoreConnector>(config: Value) -> Arc<dyn SchemaStore> {
    match C::build(serde_json::from_value(config).unwrap(), &setting()) {
        Ok(store) => store,
        Err(mistakes) => panic!("{mistakes:?}"),
    }
}

fn of_destination<C: DestinationConnector>(config: Value) -> Result<Arc<dyn SchemaStore>, Vec<Mistake>> {
    C::schema_store(serde_json::from_value(config).unwrap(), &setting())
}

fn key(text: &str) -> SchemaKey {
    text.parse().unwrap()
}

async fn fetched(store: &Arc<dyn SchemaStore>, name: &str) -> Option<String> {
    let found = store.fetch(&key(name)).await.unwrap_or_else(|fault| panic!("{fault}"));
    found.map(|text| String::from_utf8(text.to_vec()).unwrap())
}

#[tokio::test]
async fn a_table_of_postgres_keeps_schemas_and_one_that_is_down_is_not_one_without_them() {
    let mut server = Postgres::start(15, &[]).await;
    let database = server.database("registry").await;
    let store = built::<PostgresSchemas>(json!({"url": database.url(), "table": "public.\"My Schemas\""}));
    assert_eq!(fetched(&store, "com.acme/order/1-0-0").await, None);
    database.execute(
        "insert into \"My Schemas\" (key, schema) values ('com.acme/order/1-0-0', '{\"type\": \"object\"}'), ('no key', '{}')",
    )
    .await;
    assert_eq!(fetched(&store, "com.acme/order/1-0-0").await.unwrap(), r#"{"type": "object"}"#);
    assert_eq!(store.list(10).await.unwrap().unwrap(), [key("com.acme/order/1-0-0")]);
    store.put(&key("com.acme/user/1-0-0"), r#"{"maximum": 12345678901234567890123}"#.into()).await.unwrap();
    assert_eq!(
        fetched(&store, "com.acme/user/1-0-0").await.unwrap(),
        r#"{"maximum": 12345678901234567890123}"#
    );
    server.restart(Stop::Immediate).await;
    // the connection that was kept is gone, and the next one is a new one
    let after = store.fetch(&key("com.acme/user/1-0-0")).await;
    let again = store.fetch(&key("com.acme/user/1-0-0")).await;
    assert!(after.is_err_and(|fault| fault.is_retryable()) || again.as_ref().is_ok_and(Option::is_some));
    assert!(again.unwrap().is_some());
    let proxy = Proxy::to(server.server.port()).await;
    let url = format!("postgres://postgres@{}/{}", proxy.address(), database.name());
    let behind = built::<PostgresSchemas>(json!({"url": url, "table": "public.\"My Schemas\""}));
    assert!(fetched(&behind, "com.acme/user/1-0-0").await.is_some());
    drop(proxy);
    assert!(behind.fetch(&key("com.acme/nobody/1-0-0")).await.unwrap_err().is_retryable());
}

#[tokio::test]
async fn a_destination_keeps_schemas_beside_the_events() {
    let database = Postgres::shared(17).await.database("beside").await;
    let store = of_destination::<PostgresDestination>(json!({"url": database.url()}));
    let store = store.unwrap_or_else(|mistakes| panic!("{mistakes:?}"));
    assert_eq!(fetched(&store, "com.acme/order/1-0-0").await, None);
    database.execute("insert into forebay_schemas (key, schema) values ('com.acme/order/1-0-0', '{}')").await;
    assert_eq!(fetched(&store, "com.acme/order/1-0-0").await.unwrap(), "{}");
    let mistakes = of_destination::<forebay_file::FileDestination>(json!({"path": "x"})).err().unwrap();
    assert!(mistakes[0].message.contains("keeps no schemas"), "{mistakes:?}");
}

#[tokio::test]
async fn a_topic_of_kafka_keeps_schemas_and_a_newer_message_wins() {
    let mut kafka = Kafka::start(Broker::Plain).await;
    let topic = kafka.topic_with("schemas", 3, &[("cleanup.policy", "compact")]).await;
    let config = json!({"brokers": [kafka.bootstrap()], "topic": topic.name()});
    let store = built::<KafkaSchemas>(config);
    assert_eq!(fetched(&store, "com.acme/order/1-0-0").await, None);
    let order = Some(&b"com.acme/order/1-0-0"[..]);
    let draft = |value: Option<&'static [u8]>| Draft { key: order, value, ..Draft::default() };
    topic.write(1, &[draft(Some(b"{}")), draft(Some(br#"{"type": "object"}"#))]).await;
    assert_eq!(fetched(&store, "com.acme/order/1-0-0").await.unwrap(), r#"{"type": "object"}"#);
    assert_eq!(store.list(10).await.unwrap().unwrap(), [key("com.acme/order/1-0-0")]);
    topic.write(1, &[draft(None)]).await;
    assert_eq!(fetched(&store, "com.acme/order/1-0-0").await, None);
    let missing = built::<KafkaSchemas>(json!({"brokers": [kafka.bootstrap()], "topic": "no-such-topic"}));
    let fault = missing.fetch(&key("com.acme/order/1-0-0")).await.unwrap_err();
    assert!(fault.to_string().contains("no-such-topic"), "{fault}");
    let beside = of_destination::<KafkaDestination>(json!({"brokers": [kafka.bootstrap()]}));
    assert!(beside.is_ok_and(|store| !store.is_writable()));
    kafka.kill().await;
    assert!(store.fetch(&key("com.acme/order/1-0-0")).await.is_err(), "down is not empty");
}

#[tokio::test]
async fn a_bucket_keeps_schemas_in_each_layout_and_one_that_does_not_exist_is_not_empty() {
    let mut server = S3::start().await;
    let bucket = server.bucket("acme-schemas");
    let keep = |path: &str, text: &str| {
        let path = bucket.join(path);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, text).unwrap();
    };
    keep("s/com.acme/order/1-0-0.json", "nested");
    keep("s/com.acme/order/jsonschema/1-0-0", "iglu");
    keep("s/com.acme.order.1-0-0.json", "flat");
    let store = |bucket: &str, layout: &str, secret: &str| {
        built::<S3Store>(json!({
            "bucket": bucket, "prefix": "s", "layout": layout, "endpoint": server.endpoint(),
            "options": {"region": "us-east-1", "access_key_id": "accesskey", "secret_access_key": secret},
        }))
    };
    for layout in ["nested", "iglu", "flat"] {
        let store = store("acme-schemas", layout, "secretkey");
        assert_eq!(fetched(&store, "com.acme/order/1-0-0").await.as_deref(), Some(layout));
        assert_eq!(fetched(&store, "com.acme/user/1-0-0").await, None);
        store.put(&key("com.acme/new/1-0-0"), "{}".into()).await.unwrap();
        assert_eq!(fetched(&store, "com.acme/new/1-0-0").await.as_deref(), Some("{}"));
    }
    let nested = store("acme-schemas", "nested", "secretkey");
    let mut listed = nested.list(10).await.unwrap().unwrap();
    listed.sort_unstable();
    assert_eq!(listed, [key("com.acme/new/1-0-0"), key("com.acme/order/1-0-0")]);
    let fault = store("no-such-bucket", "nested", "secretkey").fetch(&key("com.acme/order/1-0-0")).await;
    assert!(fault.is_err(), "{fault:?}");
    let fault =
        store("acme-schemas", "nested", "wrong").fetch(&key("com.acme/order/1-0-0")).await.unwrap_err();
    assert!(!fault.is_retryable(), "{fault}");
    let down = store("acme-schemas", "nested", "secretkey");
    server.kill().await;
    assert!(down.fetch(&key("com.acme/user/1-0-0")).await.unwrap_err().is_retryable());
}
