//! What a message looks like, and where it goes.

use std::time::Duration;

use forebay_api::Blame;
use forebay_integration::{Kafka, unique};
use tokio::time::Instant;

use super::*;

/// `org.apache.kafka.common.utils.Utils.murmur2`.
fn murmur2(data: &[u8]) -> i32 {
    const M: u32 = 0x5bd1_e995;
    let mut hash = 0x9747_b28c ^ u32::try_from(data.len()).unwrap();
    let mut words = data.chunks_exact(4);
    for word in &mut words {
        let mut word = u32::from_le_bytes(word.try_into().unwrap()).wrapping_mul(M);
        word = (word ^ (word >> 24)).wrapping_mul(M);
        hash = hash.wrapping_mul(M) ^ word;
    }
    let rest = words.remainder();
    if !rest.is_empty() {
        for (at, byte) in rest.iter().enumerate() {
            hash ^= u32::from(*byte) << (8 * at);
        }
        hash = hash.wrapping_mul(M);
    }
    hash = (hash ^ (hash >> 13)).wrapping_mul(M);
    (hash ^ (hash >> 15)).cast_signed()
}

/// As the Java producer chooses a partition for a key.
fn java_partition(key: &[u8], partitions: i32) -> i32 {
    (murmur2(key) & 0x7fff_ffff) % partitions
}

#[tokio::test]
async fn a_key_goes_to_the_partition_that_java_clients_choose() {
    // The vectors of Kafka's own UtilsTest.
    for (text, hash) in [
        ("21", -973_932_308),
        ("foobar", -790_332_482),
        ("a-little-bit-long-string", -985_981_536),
        ("a-little-bit-longer-string", -1_486_304_829),
        ("lkjh234lh9fiuh90y23oiuhsafujhadof229phr9h19h89h8", -58_897_971),
        ("abc", 479_470_107),
    ] {
        assert_eq!(murmur2(text.as_bytes()), hash, "{text}");
    }
    let kafka = Kafka::shared().await;
    let topic = kafka.topic("murmur", 7).await;
    let lake = destination(json!({"brokers": [kafka.bootstrap()], "topic": topic.name()}));
    deliver(&*lake, &mut [Unit::new(Table::new("shop", "orders").batch((0..200).map(insert)))])
        .await
        .unwrap();
    let messages = topic.expect(200).await;
    for message in &messages {
        assert_eq!(message.partition, java_partition(message.key.as_deref().unwrap(), 7), "{message:?}");
    }
    assert!(messages.iter().any(|message| message.partition != messages[0].partition));
}

#[tokio::test]
async fn a_message_tells_what_it_is_without_being_parsed() {
    let kafka = Kafka::shared().await;
    let topic = kafka.topic("headers", 1).await;
    let lake = destination(json!({"brokers": [kafka.bootstrap()], "topic": topic.name()}));
    let truncate = Sample { op: Op::Truncate, key: String::new(), body: b"{}".to_vec(), id: String::new() };
    let batch = Table::new("shop", "orders").batch([insert(4), truncate]);
    deliver(&*lake, &mut [Unit::new(batch)]).await.unwrap();
    let messages = topic.expect(2).await;
    let header = |at: usize, name: &str| {
        let (_, value) = messages[at].headers.iter().find(|(header, _)| header == name).unwrap();
        String::from_utf8(value.clone().unwrap()).unwrap()
    };
    assert_eq!(messages[0].key_text(), r#"{"id":4}"#);
    assert_eq!(messages[0].payload.as_deref(), Some(&br#"{"n":4}"#[..]));
    assert_eq!(header(0, "forebay-id"), "shop:0000000000000007:1:0000000000000001:0");
    assert_eq!(header(0, "forebay-schema"), "com.acme/public.orders/1-0-0");
    assert_eq!(
        (header(0, "forebay-op"), header(0, "forebay-valid")),
        ("insert".to_owned(), "true".to_owned())
    );
    assert_eq!(messages[1].key_text(), "public.orders", "what has no key keeps its table's order");
    assert_eq!(header(1, "forebay-op"), "truncate");
}

#[tokio::test]
async fn a_delete_is_followed_by_a_tombstone_where_that_is_wanted() {
    let kafka = Kafka::shared().await;
    let topic = kafka.topic("tombstones", 3).await;
    let config = json!({"brokers": [kafka.bootstrap()], "topic": topic.name(), "tombstones": true});
    let lake = destination(config);
    let delete = Sample { op: Op::Delete, ..insert(1) };
    let keyless = Sample { key: String::new(), ..delete.clone() };
    let batch = Table::new("shop", "orders").batch([insert(1), delete, keyless, insert(1)]);
    deliver(&*lake, &mut [Unit::new(batch)]).await.unwrap();
    let messages = topic.expect(5).await;
    let of_key: Vec<_> = messages.iter().filter(|message| message.key_text() == r#"{"id":1}"#).collect();
    let payloads: Vec<bool> = of_key.iter().map(|message| message.payload.is_some()).collect();
    assert_eq!(payloads, [true, true, false, true]);
    assert_eq!(of_key[1].headers, of_key[2].headers, "a tombstone says whose it is");
}

#[tokio::test]
async fn each_table_has_its_topic_and_a_missing_one_is_created_where_that_is_wanted() {
    let kafka = Kafka::shared().await;
    let source = unique("shop");
    let config =
        json!({"brokers": [kafka.bootstrap()], "create_topics": {"partitions": 5, "replication": 1}});
    let lake = destination(config);
    let mut units =
        ["orders", "größe/2"].map(|table| Unit::new(Table::new(&source, table).batch([insert(1)])));
    deliver(&*lake, &mut units).await.unwrap();
    for name in [format!("{source}.public.orders"), format!("{source}.public.gr__e_2")] {
        let metadata = kafka.admin();
        let metadata = metadata.inner().fetch_metadata(Some(&name), Duration::from_secs(10)).unwrap();
        assert_eq!(metadata.topics()[0].partitions().len(), 5, "{name}");
        assert_eq!(kafka.existing(&name).expect(1).await[0].key_text(), r#"{"id":1}"#);
    }
}

#[tokio::test]
async fn two_tables_that_would_share_a_topic_are_an_error() {
    let kafka = Kafka::shared().await;
    let source = unique("shop");
    let lake = destination(json!({"brokers": [kafka.bootstrap()], "create_topics": {}}));
    let mut units = ["a/b", "a_b"].map(|table| Unit::new(Table::new(&source, table).batch([insert(1)])));
    let fault = deliver(&*lake, &mut units).await.unwrap_err();
    assert!(matches!(fault, Fault::Fatal { blame: Blame::Configuration, .. }), "{fault:?}");
    let message = fault.to_string();
    assert!(message.contains("a/b") && message.contains("a_b"), "{message}");
}

#[tokio::test]
async fn a_missing_topic_is_found_before_anything_is_written_and_the_remedy_is_told() {
    let kafka = Kafka::shared().await;
    let source = unique("nowhere");
    let lake = destination(json!({"brokers": [kafka.bootstrap()]}));
    let mut unit = Unit::new(Table::new(&source, "orders").batch([insert(1), insert(2)]));
    lake.open().await.unwrap();
    let begun = Instant::now();
    let fault = unit.attempt(&*lake).await.unwrap_err();
    assert!(begun.elapsed() < Duration::from_secs(5), "{:?}", begun.elapsed());
    assert!(matches!(fault, Fault::Fatal { blame: Blame::Configuration, .. }), "{fault:?}");
    assert_eq!(fault.to_string(), format!("looking up topic `{source}.public.orders`: it does not exist"));
    let remedy = fault.remedy().unwrap();
    assert!(remedy.contains("kafka-topics.sh") && remedy.contains("create_topics"), "{remedy}");
    assert_eq!(unit.progress.open(), 2);
}

#[tokio::test]
async fn a_record_that_only_the_broker_finds_too_large_is_rejected_and_its_neighbours_are_written_in_order() {
    let kafka = Kafka::shared().await;
    let topic = kafka.topic_with("limited", 2, &[("max.message.bytes", "30000")]).await;
    let config = json!({"brokers": [kafka.bootstrap()], "topic": topic.name(), "compression": "none"});
    let lake = destination(config);
    let mut table = Table::new("shop", "orders");
    // Batches of many small records are too large as well: they must shrink, and none of these may be rejected.
    let padded = |id: u64| Sample { body: vec![b'x'; 700], ..insert(id % 50) };
    let mut units: Vec<Unit> = (0..4).map(|_| Unit::new(table.batch((0..500).map(padded)))).collect();
    let poison = Sample { body: vec![b'x'; 200_000], ..insert(7) };
    let samples = (0..100).map(|id| if id == 57 { poison.clone() } else { padded(id) });
    units.push(Unit::new(table.batch(samples)));
    deliver(&*lake, &mut units).await.unwrap();
    for unit in &units[..4] {
        assert_eq!(unit.rejected(), []);
    }
    assert_eq!(units[4].rejected(), [(57, "too_large".to_owned())]);
    assert_in_order(&topic.all().await, 4 * 500 + 99);
}

#[tokio::test]
async fn a_check_tells_whether_the_topics_are_there() {
    let kafka = Kafka::shared().await;
    let topic = kafka.topic("checked", 1).await;
    let with = |topic: &str| json!({"brokers": [kafka.bootstrap()], "topic": topic});
    assert_eq!(
        told(&check(with(topic.name())).await),
        ["1 broker(s) answer".to_owned(), format!("topic `{}` exists", topic.name())]
    );
    let missing = told(&check(with("nobody-made-this")).await);
    assert!(
        missing[1]
            .starts_with("looking up topic `nobody-made-this`: it does not exist -> Some(Configuration)")
    );
    let unknown = told(&check(with("{source}.nobody.{table}")).await);
    assert!(unknown[1].starts_with("no topic is named `shop.nobody.*` -> None"), "{unknown:?}");
    let created = json!({"brokers": [kafka.bootstrap()], "topic": "nobody-made-this", "create_topics": {}});
    assert_eq!(told(&check(created).await)[1], "topic `nobody-made-this` will be created");
}
