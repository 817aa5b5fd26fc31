//! Brokers that go away or refuse, and clients that end.

use std::time::Duration;

use forebay_api::Blame;
use forebay_integration::{Broker, Kafka, free_ports};
use rdkafka::ClientConfig;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::KafkaError;
use rdkafka::message::{Headers, Message as _};
use rdkafka::mocking::MockCluster;
use rdkafka::types::{RDKafkaApiKey, RDKafkaRespErr};
use rdkafka::{Offset, TopicPartitionList};
use tokio::time::Instant;

use super::*;

#[tokio::test]
async fn a_broker_that_is_not_there_is_told_at_once_and_tried_again() {
    let nobody = format!("127.0.0.1:{}", free_ports(1));
    let begun = Instant::now();
    let fault = destination(json!({"brokers": [nobody]})).open().await.unwrap_err();
    assert!(fault.is_retryable(), "{fault:?}");
    assert!(
        fault.to_string().contains(&nobody) && fault.to_string().contains("Connection refused"),
        "{fault}"
    );
    assert!(fault.remedy().unwrap().contains("`brokers`"));
    assert!(begun.elapsed() < Duration::from_secs(8), "{:?}", begun.elapsed());
    let findings = check(json!({"brokers": [nobody]})).await;
    assert_eq!(findings[0].trouble.as_ref().unwrap().blame, Some(Blame::Outside));
}

#[tokio::test]
async fn a_broker_that_does_not_answer_is_given_up_within_a_bound() {
    let (_kafka, proxy) = Kafka::behind_proxy().await;
    proxy.pause();
    let begun = Instant::now();
    let fault = destination(json!({"brokers": [proxy.address()]})).open().await.unwrap_err();
    assert!(fault.is_retryable(), "{fault:?}");
    assert!(begun.elapsed() < Duration::from_secs(20), "{:?}", begun.elapsed());
}

#[tokio::test]
async fn a_topic_that_was_deleted_is_found_missing_after_the_brokers_say_so_more_than_once() {
    let kafka = Kafka::start(Broker::Plain).await;
    let topic = kafka.topic("deleted", 2).await;
    let lake = destination(json!({"brokers": [kafka.bootstrap()], "topic": topic.name()}));
    let mut table = Table::new("shop", "orders");
    deliver(&*lake, &mut [Unit::new(table.batch([insert(1)]))]).await.unwrap();
    let options = rdkafka::admin::AdminOptions::new();
    kafka.admin().delete_topics(&[topic.name()], &options).await.unwrap()[0].as_ref().unwrap();
    let fault = deliver(&*lake, &mut [Unit::new(table.batch([insert(2)]))]).await.unwrap_err();
    assert!(matches!(fault, Fault::Fatal { blame: Blame::Configuration, .. }), "{fault:?}");
    assert!(fault.remedy().unwrap().contains("--create"), "{fault:?}");
}

#[tokio::test]
async fn a_broker_that_went_away_is_told_by_open_until_it_is_back_and_the_records_wait_for_it() {
    let (kafka, mut proxy) = Kafka::behind_proxy().await;
    let topic = kafka.topic("away", 1).await;
    let lake = destination(json!({"brokers": [proxy.address()], "topic": topic.name()}));
    let mut table = Table::new("shop", "orders");
    deliver(&*lake, &mut [Unit::new(table.batch([insert(1)]))]).await.unwrap();
    proxy.shut().await;
    let mut unit = Unit::new(table.batch([insert(2)]));
    let waiting = unit.attempt(&*lake);
    let meanwhile = async {
        let fault = loop {
            match lake.open().await {
                Ok(()) => tokio::time::sleep(Duration::from_millis(20)).await,
                Err(fault) => break fault,
            }
        };
        assert!(fault.is_retryable() && fault.to_string().contains("refused"), "{fault:?}");
        proxy.open().await;
    };
    let (written, ()) = tokio::join!(waiting, meanwhile);
    written.unwrap();
    lake.open().await.unwrap();
    assert_in_order(&topic.all().await, 2);
}

/// A cluster of librdkafka's own, only because it gives the errors that it is told to give.
struct Mock {
    cluster: MockCluster<'static, rdkafka::producer::DefaultProducerContext>,
}

const TOPIC: &str = "mock";

impl Mock {
    fn new() -> Mock {
        let cluster = MockCluster::new(1).unwrap();
        cluster.create_topic(TOPIC, 3, 1).unwrap();
        Mock { cluster }
    }

    /// One request at a time: unlike a broker, the mock cluster takes a batch whose predecessor it has refused, and a
    /// busy machine has several on their way.
    fn destination(&self) -> Arc<dyn Destination> {
        let options = json!({"max.in.flight.requests.per.connection": 1});
        destination(
            json!({"brokers": [self.cluster.bootstrap_servers()], "topic": TOPIC, "options": options}),
        )
    }

    /// All that stands in the topic.
    async fn messages(&self) -> Vec<Message> {
        let brokers = self.cluster.bootstrap_servers();
        let read = move || {
            let mut config = ClientConfig::new();
            config
                .set("bootstrap.servers", brokers)
                .set("group.id", "eyes")
                .set("enable.partition.eof", "true");
            let consumer: BaseConsumer = config.create().unwrap();
            let mut all = TopicPartitionList::new();
            for partition in 0..3 {
                all.add_partition_offset(TOPIC, partition, Offset::Beginning).unwrap();
            }
            consumer.assign(&all).unwrap();
            let (mut messages, mut read) = (Vec::new(), BTreeSet::new());
            while read.len() < 3 {
                match consumer.poll(Duration::from_secs(20)).expect("the mock cluster answers") {
                    Ok(message) => messages.push(owned(&message)),
                    Err(KafkaError::PartitionEOF(partition)) => drop(read.insert(partition)),
                    Err(error) => eprintln!("reading: {error}"), // it goes on by itself
                }
            }
            messages
        };
        tokio::task::spawn_blocking(read).await.unwrap()
    }
}

fn owned(message: &rdkafka::message::BorrowedMessage<'_>) -> Message {
    let headers = message.headers().unwrap().iter();
    Message {
        partition: message.partition(),
        offset: message.offset(),
        key: message.key().map(<[u8]>::to_vec),
        payload: message.payload().map(<[u8]>::to_vec),
        headers: headers.map(|header| (header.key.to_owned(), header.value.map(<[u8]>::to_vec))).collect(),
        timestamp_ms: None,
    }
}

/// Several deliveries at once of few keys, while the brokers answer some requests with an error.
async fn survives(errors: &[RDKafkaRespErr]) {
    let mock = Mock::new();
    let lake = mock.destination();
    lake.open().await.unwrap();
    let mut table = Table::new("shop", "orders");
    let mut units: Vec<Unit> =
        (0..20).map(|unit| Unit::new(table.batch((0..50).map(|id| insert((unit + id) % 9))))).collect();
    let good = RDKafkaRespErr::RD_KAFKA_RESP_ERR_NO_ERROR;
    let answers: Vec<_> = errors.iter().flat_map(|error| [good, good, *error]).collect();
    mock.cluster.request_errors(RDKafkaApiKey::Produce, &answers);
    deliver(&*lake, &mut units).await.unwrap();
    for unit in &units {
        assert_eq!((unit.progress.open(), unit.rejected()), (0, Vec::new()), "{errors:?}");
    }
    assert_in_order(&mock.messages().await, 20 * 50);
}

#[tokio::test]
async fn what_librdkafka_mends_by_itself_overtakes_nothing() {
    use RDKafkaRespErr::*;
    survives(&[
        RD_KAFKA_RESP_ERR_NOT_LEADER_FOR_PARTITION,
        RD_KAFKA_RESP_ERR_NOT_ENOUGH_REPLICAS,
        RD_KAFKA_RESP_ERR_REQUEST_TIMED_OUT,
        RD_KAFKA_RESP_ERR_LEADER_NOT_AVAILABLE,
    ])
    .await;
}

#[tokio::test]
async fn a_client_that_librdkafka_gives_up_is_replaced_and_nothing_is_lost_or_overtaken() {
    survives(&[
        RDKafkaRespErr::RD_KAFKA_RESP_ERR_OUT_OF_ORDER_SEQUENCE_NUMBER,
        RDKafkaRespErr::RD_KAFKA_RESP_ERR_OUT_OF_ORDER_SEQUENCE_NUMBER,
    ])
    .await;
}

#[tokio::test]
async fn a_batch_that_is_refused_ends_its_client_and_nothing_is_lost_or_overtaken() {
    survives(&[
        RDKafkaRespErr::RD_KAFKA_RESP_ERR_MSG_SIZE_TOO_LARGE,
        RDKafkaRespErr::RD_KAFKA_RESP_ERR_RECORD_LIST_TOO_LARGE,
    ])
    .await;
}

#[tokio::test]
async fn an_error_that_nobody_knows_is_fatal_and_leaves_its_records_open() {
    let mock = Mock::new();
    let lake = mock.destination();
    lake.open().await.unwrap();
    mock.cluster.request_errors(RDKafkaApiKey::Produce, &[RDKafkaRespErr::RD_KAFKA_RESP_ERR_INVALID_REQUEST]);
    let mut unit = Unit::new(Table::new("shop", "orders").batch([insert(1)]));
    let fault = unit.attempt(&*lake).await.unwrap_err();
    assert!(matches!(fault, Fault::Fatal { blame: Blame::Defect, .. }), "{fault:?}");
    assert_eq!(unit.progress.open(), 1);
}

#[tokio::test]
async fn a_poisoned_source_delays_another_source_and_loses_and_overtakes_nothing_of_it() {
    let kafka = Kafka::shared().await;
    let topic = kafka.topic_with("shared", 3, &[("max.message.bytes", "30000")]).await;
    let config = json!({"brokers": [kafka.bootstrap()], "topic": topic.name(), "compression": "none"});
    let lake = destination(config);
    let poison = Sample { body: vec![b'x'; 200_000], ..insert(1000) };
    let units = |source: &str, poisoned: bool| -> Vec<Unit> {
        let mut table = Table::new(source, "orders");
        let samples = |unit: u64| {
            (0..40).map(move |id| insert((unit + id) % 11)).chain(poisoned.then(|| poison.clone()))
        };
        (0..12).map(|unit| Unit::new(table.batch(samples(unit)))).collect()
    };
    let (mut healthy, mut sick) = (units("healthy", false), units("sick", true));
    let (first, second) = tokio::join!(deliver(&*lake, &mut healthy), deliver(&*lake, &mut sick));
    first.unwrap();
    second.unwrap();
    assert!(sick.iter().all(|unit| unit.rejected() == [(40, "too_large".to_owned())]));
    let messages = topic.all().await;
    for source in ["healthy:", "sick:"] {
        let of_source = |message: &&Message| {
            let (_, id) = message.headers.iter().find(|(name, _)| name == "forebay-id").unwrap();
            id.as_deref().unwrap().starts_with(source.as_bytes())
        };
        let own: Vec<Message> = messages.iter().filter(of_source).cloned().collect();
        assert_in_order(&own, 12 * 40);
    }
}

#[tokio::test]
async fn a_delivery_that_was_dropped_half_way_is_not_overtaken_by_the_one_behind_it() {
    let kafka = Kafka::shared().await;
    let topic = kafka.topic("dropped", 1).await;
    let options = json!({"queue.buffering.max.messages": 50});
    let config = json!({"brokers": [kafka.bootstrap()], "topic": topic.name(), "options": options});
    let lake = destination(config);
    lake.open().await.unwrap();
    let mut table = Table::new("shop", "orders");
    let units = || Vec::from_iter((0..2).map(|_| (0..2000).map(|id| insert(id % 3))));
    let mut units: Vec<Unit> = units().into_iter().map(|samples| Unit::new(table.batch(samples))).collect();
    {
        // The first fills librdkafka's small queue and waits for room, the second waits for its turn.
        let [first, second] = &mut units[..] else { unreachable!("there are two") };
        let mut second = std::pin::pin!(second.attempt(&*lake));
        {
            let first = std::pin::pin!(first.attempt(&*lake));
            let started = futures::future::select(first, &mut second);
            assert!(
                tokio::time::timeout(Duration::from_millis(3), started).await.is_err(),
                "neither can be done yet"
            );
        }
        let fault = second.await.unwrap_err();
        assert!(fault.is_retryable(), "{fault:?}");
    }
    deliver(&*lake, &mut units).await.unwrap();
    assert_in_order(&topic.all().await, 2 * 2000);
}
