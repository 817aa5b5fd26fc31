//! What the harness promises about real servers; every other test leans on it.

use std::time::Duration;

use forebay_integration::{Broker, Kafka, Postgres, Stop};
use rdkafka::ClientConfig;
use rdkafka::producer::{FutureProducer, FutureRecord};
use serde_json::json;
use tokio::time::Instant;

/// Writes one message and returns when the broker has acknowledged it.
async fn produce(bootstrap: &str, topic: &str, payload: &str) {
    let mut config = ClientConfig::new();
    config.set("bootstrap.servers", bootstrap).set("acks", "all");
    let producer: FutureProducer = config.create().unwrap();
    let record = FutureRecord::to(topic).key("k").payload(payload);
    producer.send(record, Duration::from_secs(30)).await.unwrap();
}

#[tokio::test]
async fn databases_of_a_shared_server_do_not_see_each_other() {
    let (first, second) =
        (Postgres::shared(15).await.database("one").await, Postgres::shared(15).await.database("one").await);
    for database in [&first, &second] {
        database.execute("create table orders (id int primary key, note text default 'none')").await;
    }
    first.insert("orders", json!({"id": 1})).await;
    assert_eq!(first.value::<i64>("select count(*) from orders where note = 'none'").await, 1);
    assert_eq!(second.value::<i64>("select count(*) from orders").await, 0);
    assert_ne!(first.name(), second.name());
}

#[tokio::test]
async fn a_server_comes_back_on_its_port_with_its_data_in_two_seconds_however_it_was_stopped() {
    let mut postgres = Postgres::start(15, &[]).await;
    let database = postgres.database("kept").await;
    database.execute("create table orders (id int primary key)").await;
    for (id, how) in [(1, Stop::Fast), (2, Stop::Immediate), (3, Stop::Kill)] {
        database.insert("orders", json!({"id": id})).await;
        let begun = Instant::now();
        postgres.restart(how).await;
        let took = begun.elapsed();
        assert_eq!(
            database.value::<i64>("select count(*) from orders").await,
            i64::from(id),
            "after {how:?}"
        );
        assert!(took < Duration::from_secs(2), "{how:?} and a start took {took:?}");
    }
}

#[tokio::test]
async fn the_oldest_and_the_newest_server_can_stream_their_changes() {
    for major in [13, 18] {
        let database = Postgres::shared(major).await.database("versions").await;
        let version: String = database.value("show server_version").await;
        assert!(version.starts_with(&format!("{major}.")), "{version}");
        let slot = format!(
            "select lsn::text from pg_create_logical_replication_slot('{}', 'pgoutput')",
            database.name()
        );
        assert!(!database.value::<String>(&slot).await.is_empty());
    }
}

#[tokio::test]
async fn a_server_that_does_not_start_says_why() {
    let outcome = tokio::spawn(Postgres::start(15, &[("shared_buffers", "no size")])).await;
    let panic = outcome.unwrap_err().into_panic();
    let message = panic.downcast_ref::<String>().unwrap();
    assert!(message.contains("invalid value for parameter \"shared_buffers\""), "{message}");
}

#[tokio::test]
async fn a_topic_gives_what_was_acknowledged_and_survives_a_killed_broker() {
    let mut kafka = Kafka::start(Broker::Plain).await;
    let topic = kafka.topic("killed", 2).await;
    produce(&kafka.bootstrap(), topic.name(), "before").await;
    kafka.kill().await;
    kafka.start_again().await;
    produce(&kafka.bootstrap(), topic.name(), "after").await;
    let payloads: Vec<_> =
        topic.expect(2).await.into_iter().map(|message| message.payload.unwrap()).collect();
    assert_eq!(payloads, [b"before".to_vec(), b"after".to_vec()]);
}

#[tokio::test]
async fn clients_behind_a_proxy_cannot_reach_the_broker_around_it() {
    let (kafka, proxy) = Kafka::behind_proxy().await;
    let topic = kafka.topic("proxied", 1).await;
    produce(&proxy.address(), topic.name(), "through").await;
    assert_eq!(topic.all().await.len(), 1);

    proxy.pause();
    let mut config = ClientConfig::new();
    config.set("bootstrap.servers", proxy.address()).set("message.timeout.ms", "2000");
    let producer: FutureProducer = config.create().unwrap();
    let held = producer.send(FutureRecord::to(topic.name()).key("k").payload("held"), Duration::ZERO).await;
    assert!(held.is_err(), "a message went around the proxy: {held:?}");
    assert_eq!(topic.all().await.len(), 1);
}

#[tokio::test]
async fn topics_of_the_shared_broker_are_each_tests_own() {
    let kafka = Kafka::shared().await;
    let (first, second) = (kafka.topic("same", 3).await, kafka.topic("same", 3).await);
    produce(&kafka.bootstrap(), first.name(), "1").await;
    assert_eq!((first.all().await.len(), second.all().await.len()), (1, 0));
    assert_eq!(first.all().await[0].key_text(), "k");
}
