//! What the destination promises with `transactions`: what is committed is there once, whoever dies or is taken over.
//!
//! [`Topic`] reads as a consumer with `isolation.level=read_committed` does.

use std::time::Duration;

use forebay_api::Blame;
use forebay_integration::{Direction, Kafka, PATIENCE, Topic, unique};
use rdkafka::ClientConfig;
use rdkafka::admin::{AdminOptions, AlterConfig, NewTopic, ResourceSpecifier, TopicReplication};
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::producer::{BaseProducer, BaseRecord, Producer};

use super::*;

/// A configuration that creates a topic of positions of the test's own.
fn transactional(brokers: &str, topic: &Topic) -> Value {
    json!({
        "brokers": [brokers], "topic": topic.name(), "create_topics": {},
        "transactions": {"positions_topic": format!("{}_positions", topic.name())},
    })
}

/// Opens and asks what is held until both work.
async fn held(lake: &dyn Destination, table: &Table) -> Result<Option<Mark>, Fault> {
    held_of(lake, &table.stream).await
}

async fn held_of(lake: &dyn Destination, stream: &StreamId) -> Result<Option<Mark>, Fault> {
    let deadline = tokio::time::Instant::now() + PATIENCE;
    loop {
        let asked = match lake.open().await {
            Ok(()) => lake.held(stream).await,
            Err(fault) => Err(fault),
        };
        match asked {
            Err(fault) if fault.is_retryable() => {
                assert!(tokio::time::Instant::now() < deadline, "still after {PATIENCE:?}: {fault}");
            }
            result => return result,
        }
    }
}

impl Unit {
    /// Accepts what is held, as a lane does.
    fn strike_off(&mut self, held: Option<Mark>) {
        let part = &self.parts[0];
        for (index, row) in part.batch.chunk.rows.iter().enumerate() {
            if row.op != Op::Schema && Some(row.mark) <= held {
                self.progress.accept(index);
            }
        }
    }
}

/// Delivers as a lane does until everything is settled.
async fn through(lake: &dyn Destination, unit: &mut Unit) -> Result<(), Fault> {
    loop {
        let stream = unit.parts[0].batch.chunk.stream.clone();
        unit.strike_off(held_of(lake, &stream).await?);
        if unit.progress.open() == 0 {
            return Ok(());
        }
        match unit.attempt(lake).await {
            Ok(()) => return Ok(()),
            Err(fault) if fault.is_retryable() => {}
            Err(fault) => return Err(fault),
        }
    }
}

/// The bodies that stand in a topic, in the order of its one partition.
async fn bodies(topic: &Topic) -> Vec<String> {
    let messages = topic.all().await;
    messages.into_iter().map(|message| String::from_utf8(message.payload.unwrap()).unwrap()).collect()
}

/// The bodies of [`insert`].
fn inserted(ids: impl IntoIterator<Item = u64>) -> Vec<String> {
    ids.into_iter().map(|id| format!("{{\"n\":{id}}}")).collect()
}

fn schema(id: &str) -> Sample {
    let body = format!("{{\"schema\":\"{id}\"}}").into_bytes();
    Sample { op: Op::Schema, key: String::new(), body, id: format!("shop:{id}") }
}

fn too_large(bytes: usize) -> Sample {
    Sample { body: vec![b'x'; bytes], ..insert(1000) }
}

#[tokio::test]
async fn what_is_read_again_after_everything_was_forgotten_here_is_written_once() {
    let kafka = Kafka::shared().await;
    let topic = kafka.topic("forgotten", 1).await;
    let config = transactional(&kafka.bootstrap(), &topic);
    let mut table = Table::new("shop", "orders");
    let batches: Vec<_> = (0..5).map(|n| table.batch((10 * n..10 * n + 10).map(insert))).collect();
    for _ in 0..3 {
        let lake = destination(config.clone());
        for batch in &batches {
            through(&*lake, &mut Unit::new(batch.clone())).await.unwrap();
        }
    }
    assert_eq!(bodies(&topic).await, inserted(0..50));
}

#[tokio::test]
async fn a_schema_event_is_written_once_and_one_at_a_mark_that_is_held_is_written() {
    let kafka = Kafka::shared().await;
    let topic = kafka.topic("schemas", 1).await;
    let config = transactional(&kafka.bootstrap(), &topic);
    let mut table = Table::new("shop", "orders");
    let first = table.batch([schema("a"), insert(1), insert(2)]);
    let lake = destination(config.clone());
    through(&*lake, &mut Unit::new(first.clone())).await.unwrap();
    // Another daemon announces what it does not know to be announced, at marks that are held.
    table.next = 1;
    let again = table.batch([schema("a"), schema("b"), insert(2), insert(3)]);
    let lake = destination(config);
    for _ in 0..2 {
        let mut unit = Unit::new(again.clone());
        through(&*lake, &mut unit).await.unwrap();
        assert_eq!(unit.progress.open(), 0);
    }
    let wanted = [r#"{"schema":"a"}"#, r#"{"n":1}"#, r#"{"n":2}"#, r#"{"schema":"b"}"#, r#"{"n":3}"#];
    assert_eq!(bodies(&topic).await, wanted);
}

#[tokio::test]
async fn a_refused_record_leaves_its_neighbours_once_even_where_nobody_buried_it() {
    let kafka = Kafka::shared().await;
    // librdkafka refuses the first before anybody sees it, the broker the second, in the middle of the transaction.
    for (limit, bytes) in [("1048588", 2_000_000), ("300000", 400_000)] {
        let topic = kafka.topic_with("poison", 1, &[("max.message.bytes", limit)]).await;
        let mut config = transactional(&kafka.bootstrap(), &topic);
        config["compression"] = json!("none");
        let mut table = Table::new("shop", "orders");
        let batch = table.batch([insert(1), too_large(bytes), insert(2), too_large(bytes), insert(3)]);
        let lake = destination(config.clone());
        let mut unit = Unit::new(batch.clone());
        through(&*lake, &mut unit).await.unwrap();
        assert_eq!(unit.rejected(), [(1, "too_large".to_owned()), (3, "too_large".to_owned())]);
        assert_eq!(bodies(&topic).await, inserted(1..4), "of {bytes} bytes");
        // The daemon died before the dead letters were stored, and now the topic would take what it refused, behind what
        // followed it: it stays refused.
        let resource = ResourceSpecifier::Topic(topic.name());
        let larger = AlterConfig::new(resource).set("max.message.bytes", "1048588");
        kafka.admin().alter_configs([&larger], &AdminOptions::new()).await.unwrap()[0].as_ref().unwrap();
        let lake = destination(config);
        assert_eq!(held(&*lake, &table).await.unwrap(), Some(batch.chunk.rows[0].mark));
        let mut unit = Unit::new(batch);
        through(&*lake, &mut unit).await.unwrap();
        assert_eq!(unit.rejected(), [(1, "too_large".to_owned()), (3, "too_large".to_owned())]);
        assert!(unit.progress.rejected.iter().all(|(_, why)| !why.chain.is_empty()));
        assert_eq!(bodies(&topic).await, inserted(1..4), "of {bytes} bytes, after a restart");
        // The lane goes on only when they are.
        let next = table.batch([insert(4)]);
        let mark = next.chunk.rows[0].mark;
        through(&*lake, &mut Unit::new(next)).await.unwrap();
        lake.close().await.unwrap();
        assert_eq!(held(&*lake, &table).await.unwrap(), Some(mark));
        assert_eq!(bodies(&topic).await, inserted(1..5));
    }
}

#[tokio::test]
async fn more_refusals_than_a_position_remembers_are_told_part_by_part() {
    let kafka = Kafka::shared().await;
    let topic = kafka.topic("many_refused", 1).await;
    let lake = destination(transactional(&kafka.bootstrap(), &topic));
    let mut table = Table::new("shop", "orders");
    let samples = (0..250).flat_map(|id| [insert(id), too_large(1_100_000)]);
    let mut unit = Unit::new(table.batch(samples));
    let mut attempts = 0;
    let mut rejected = 0;
    while unit.progress.open() > 0 {
        unit.strike_off(held(&*lake, &table).await.unwrap());
        let outcome = unit.attempt(&*lake).await;
        rejected += unit.rejected().len();
        unit.progress.rejected.clear(); // the lane has stored them
        attempts += 1;
        assert!(outcome.is_ok() || outcome.unwrap_err().is_retryable());
    }
    assert_eq!((attempts, rejected), (3, 250));
    assert_eq!(bodies(&topic).await, inserted(0..250));
}

#[tokio::test]
async fn whoever_was_taken_over_is_told_so_and_writes_nothing_any_more() {
    let kafka = Kafka::shared().await;
    let topic = kafka.topic("fenced", 1).await;
    let config = transactional(&kafka.bootstrap(), &topic);
    let mut table = Table::new("shop", "orders");
    let (first, second) = (destination(config.clone()), destination(config));
    through(&*first, &mut Unit::new(table.batch([insert(1)]))).await.unwrap();
    assert!(held(&*second, &table).await.unwrap().is_some());
    let mut unit = Unit::new(table.batch([insert(2)]));
    let fault = unit.attempt(&*first).await.unwrap_err();
    assert!(fault.is_retryable(), "it may also be its own transaction that took too long: {fault:?}");
    let fault = held(&*first, &table).await.unwrap_err();
    assert!(matches!(fault, Fault::Fatal { blame: Blame::Outside, .. }), "{fault:?}");
    assert!(fault.to_string().contains("another daemon has taken it over"), "{fault}");
    assert!(fault.remedy().unwrap().contains("one daemon alone"), "{fault:?}");
    through(&*second, &mut unit).await.unwrap();
    assert_eq!(bodies(&topic).await, inserted(1..3));
}

#[tokio::test]
async fn daemons_that_write_other_things_do_not_take_over_from_each_other() {
    let kafka = Kafka::shared().await;
    let (topic, copy) = (kafka.topic("mine", 1).await, kafka.topic("theirs", 1).await);
    let config = transactional(&kafka.bootstrap(), &topic);
    let mut theirs = config.clone();
    theirs["topic"] = json!(copy.name());
    let mut prefixed = config.clone();
    prefixed["transactions"]["id_prefix"] = json!("staging");
    let mut table = Table::new("shop", "orders");
    let mut other = Table::new("web", "orders");
    let lakes = [destination(config), destination(theirs), destination(prefixed)];
    for round in 0..3 {
        let batch = table.batch([insert(round)]);
        for lake in &lakes {
            through(&**lake, &mut Unit::new(batch.clone())).await.unwrap();
            through(&**lake, &mut Unit::new(other.batch([insert(100 + round)]))).await.unwrap();
        }
    }
    assert_eq!(topic.all().await.len(), 12, "two writers, two streams, three rounds");
    assert_eq!(copy.all().await.len(), 6);
}

#[tokio::test]
async fn an_open_transaction_of_another_writer_hides_no_position() {
    let kafka = Kafka::shared().await;
    let topic = kafka.topic("hidden", 1).await;
    let config = transactional(&kafka.bootstrap(), &topic);
    let positions = config["transactions"]["positions_topic"].as_str().unwrap().to_owned();
    let mut table = Table::new("shop", "orders");
    let lake = destination(config.clone());
    through(&*lake, &mut Unit::new(table.batch([insert(1)]))).await.unwrap();
    let mut native = ClientConfig::new();
    native.set("bootstrap.servers", kafka.bootstrap()).set("transactional.id", unique("other"));
    let other: BaseProducer = native.create().unwrap();
    other.init_transactions(PATIENCE).unwrap();
    other.begin_transaction().unwrap();
    other.send(BaseRecord::<str, str>::to(&positions).partition(0).key("other").payload("{}")).unwrap();
    other.flush(PATIENCE).unwrap();
    let next = table.batch([insert(2)]);
    let mark = next.chunk.rows[0].mark;
    through(&*lake, &mut Unit::new(next)).await.unwrap();
    let again = destination(config);
    again.open().await.unwrap();
    let fault = again.held(&table.stream).await.unwrap_err();
    assert!(fault.is_retryable() && fault.to_string().contains("another writer's transaction"), "{fault:?}");
    other.commit_transaction(PATIENCE).unwrap();
    assert_eq!(held(&*again, &table).await.unwrap(), Some(mark));
}

#[tokio::test]
async fn a_position_that_cannot_be_read_or_is_gone_is_an_error_and_no_fresh_start() {
    let kafka = Kafka::shared().await;
    let topic = kafka.topic("damaged", 1).await;
    let config = transactional(&kafka.bootstrap(), &topic);
    let positions = config["transactions"]["positions_topic"].as_str().unwrap().to_owned();
    let mut table = Table::new("shop", "orders");
    let lake = destination(config.clone());
    through(&*lake, &mut Unit::new(table.batch([insert(1)]))).await.unwrap();
    let key = kafka.existing(&positions).all().await.pop().unwrap().key.unwrap();
    let mut native = ClientConfig::new();
    native.set("bootstrap.servers", kafka.bootstrap());
    let vandal: BaseProducer = native.create().unwrap();
    let write = |value: Option<&'static str>| {
        let mut record = BaseRecord::<[u8], str>::to(&positions).partition(0).key(&key);
        record.payload = value;
        vandal.send(record).unwrap();
        vandal.flush(PATIENCE).unwrap();
    };
    write(Some("{\"version\":7}"));
    let fault = held(&*destination(config.clone()), &table).await.unwrap_err();
    assert!(matches!(fault, Fault::Fatal { blame: Blame::Outside, .. }), "{fault:?}");
    assert!(fault.remedy().unwrap().contains("id_prefix"), "{fault:?}");
    write(None);
    // Whoever knows better does not believe it; the close makes it look again.
    let mut unit = Unit::new(table.batch([insert(2)]));
    futures::future::select(Box::pin(unit.attempt(&*lake)), futures::future::ready(())).await;
    let fault = held(&*lake, &table).await.unwrap_err();
    assert!(fault.to_string().contains("it is gone"), "{fault:?}");
    assert!(!fault.is_retryable(), "{fault:?}");
}

#[tokio::test]
async fn a_topic_of_positions_that_is_missing_or_forgets_is_refused_with_what_mends_it() {
    let kafka = Kafka::shared().await;
    let topic = kafka.topic("no_positions", 1).await;
    let mut config = transactional(&kafka.bootstrap(), &topic);
    let positions = config["transactions"]["positions_topic"].as_str().unwrap().to_owned();
    let told_when_created = told(&check(config.clone()).await);
    assert!(
        told_when_created.contains(&format!("topic `{positions}` will be created")),
        "{told_when_created:?}"
    );
    config.as_object_mut().unwrap().remove("create_topics");
    let fault = destination(config.clone()).open().await.unwrap_err();
    assert!(matches!(fault, Fault::Fatal { blame: Blame::Configuration, .. }), "{fault:?}");
    assert!(fault.remedy().unwrap().contains("--config cleanup.policy=compact"), "{fault:?}");
    let wanted = NewTopic::new(&positions, 1, TopicReplication::Fixed(1));
    kafka.admin().create_topics([&wanted], &AdminOptions::new()).await.unwrap()[0].as_ref().unwrap();
    let fault = loop {
        // The broker that is asked may not know it yet.
        match destination(config.clone()).open().await {
            Err(fault) if fault.to_string().contains("does not exist") => {}
            outcome => break outcome.unwrap_err(),
        }
    };
    assert!(matches!(fault, Fault::Fatal { blame: Blame::Configuration, .. }), "{fault:?}");
    assert!(fault.remedy().unwrap().contains("--add-config cleanup.policy=compact"), "{fault:?}");
    let mut same = transactional(&kafka.bootstrap(), &topic);
    same["transactions"]["positions_topic"] = json!(format!("{positions}_2"));
    same["topic"] = json!(format!("{positions}_2"));
    let mut table = Table::new("shop", "orders");
    let fault = through(&*destination(same), &mut Unit::new(table.batch([insert(1)]))).await.unwrap_err();
    assert!(fault.to_string().contains("is where positions are kept"), "{fault:?}");
}

/// What a transaction needs of a broker is cut at every place, in both directions, one after the other.
#[tokio::test(flavor = "multi_thread")]
async fn wherever_the_connection_is_cut_each_record_is_there_once_and_in_order() {
    let (kafka, proxy) = Kafka::behind_proxy().await;
    let topic = kafka.topic("cut", 1).await;
    let lake = destination(transactional(&proxy.address(), &topic));
    let mut table = Table::new("shop", "orders");
    let mut made = 0;
    for direction in [Direction::ToServer, Direction::ToClient] {
        for bytes in (0..1_600).step_by(80) {
            held(&*lake, &table).await.unwrap();
            proxy.cut_after(direction, bytes);
            let mut unit = Unit::new(table.batch((made..made + 5).map(insert)));
            made += 5;
            through(&*lake, &mut unit).await.unwrap();
            assert!(unit.rejected().is_empty());
        }
    }
    assert_eq!(bodies(&topic).await, inserted(0..made));
}

/// The lane gives an attempt up, at every moment of a transaction, while nothing comes through: whether it was committed
/// is known only to the broker.
#[tokio::test(flavor = "multi_thread")]
async fn an_attempt_that_is_given_up_at_any_moment_leaves_each_record_once_and_in_order() {
    let (kafka, proxy) = Kafka::behind_proxy().await;
    let topic = kafka.topic("given_up", 1).await;
    let lake = destination(transactional(&proxy.address(), &topic));
    let mut table = Table::new("shop", "orders");
    let mut made = 0;
    for millis in 0..24 {
        held(&*lake, &table).await.unwrap();
        let mut unit = Unit::new(table.batch((made..made + 5).map(insert)));
        made += 5;
        {
            let mut attempt = std::pin::pin!(unit.attempt(&*lake));
            let moment = Duration::from_millis(millis);
            if tokio::time::timeout(moment, &mut attempt).await.is_err() {
                proxy.swallow();
                let patience = Duration::from_millis(50);
                drop(tokio::time::timeout(patience, &mut attempt).await);
            }
        }
        proxy.reset_all().await;
        proxy.resume();
        // What the given-up attempt had settled is lost with it.
        unit.progress = Progress::new(unit.parts[0].len());
        through(&*lake, &mut unit).await.unwrap();
    }
    assert_eq!(bodies(&topic).await, inserted(0..made));
}

/// The brokers end a transaction that takes too long, and nobody has taken the stream over.
#[tokio::test(flavor = "multi_thread")]
async fn a_transaction_that_took_too_long_is_written_again_and_is_no_other_daemon() {
    let (kafka, mut proxy) = Kafka::behind_proxy().await;
    let topic = kafka.topic("too_long", 1).await;
    let mut config = transactional(&proxy.address(), &topic);
    config["options"] = json!({"transaction.timeout.ms": 2000, "socket.timeout.ms": 1000});
    let lake = destination(config);
    let mut table = Table::new("shop", "orders");
    through(&*lake, &mut Unit::new(table.batch([insert(0)]))).await.unwrap();
    let mut unit = Unit::new(table.batch((1..6).map(insert)));
    proxy.delay(Duration::from_millis(700));
    let attempt = unit.attempt(&*lake).await;
    let fault = attempt.expect_err("a transaction of two seconds cannot pass a line that is so slow");
    assert!(fault.is_retryable(), "{fault:?}");
    proxy.delay(Duration::ZERO);
    proxy.shut().await;
    proxy.open().await;
    through(&*lake, &mut unit).await.unwrap();
    assert_eq!(bodies(&topic).await, inserted(0..6));
}

/// Sees where the topic's one partition ends, with what is not committed.
fn watcher(kafka: &Kafka, topic: &Topic) -> impl Fn() -> i64 + Clone + Send + 'static {
    let mut native = ClientConfig::new();
    native.set("bootstrap.servers", kafka.bootstrap()).set("isolation.level", "read_uncommitted");
    let consumer: Arc<BaseConsumer> = Arc::new(native.create().unwrap());
    let name = topic.name().to_owned();
    move || consumer.fetch_watermarks(&name, 0, PATIENCE).unwrap().1
}

/// The request to commit is lost on its way, or the answer is: at moments around both, on a line that is slow enough to
/// hit them.
#[tokio::test(flavor = "multi_thread")]
async fn a_commit_whose_answer_never_comes_is_looked_up_and_neither_lost_nor_repeated() {
    const LATENCY: Duration = Duration::from_millis(150);
    let (kafka, mut proxy) = Kafka::behind_proxy().await;
    let topic = kafka.topic("unanswered", 1).await;
    let mut config = transactional(&proxy.address(), &topic);
    config["options"] = json!({"transaction.timeout.ms": 4000});
    let lake = destination(config);
    let mut table = Table::new("shop", "orders");
    let end = watcher(&kafka, &topic);
    let mut unanswered = BTreeSet::new();
    let mut made = 0;
    // Whether a moment hits is the machine's affair; both kinds are waited for.
    for millis in [210, 240, 180, 270, 150, 300, 330].into_iter().cycle().take(14) {
        held(&*lake, &table).await.unwrap();
        let before = end();
        let mut unit = Unit::new(table.batch([insert(made)]));
        made += 1;
        proxy.delay(LATENCY);
        let disturb = async {
            let end = end.clone();
            tokio::task::spawn_blocking(move || while end() <= before {}).await.unwrap();
            tokio::time::sleep(Duration::from_millis(millis)).await;
            proxy.swallow();
        };
        let (outcome, ()) = tokio::join!(unit.attempt(&*lake), disturb);
        proxy.delay(Duration::ZERO);
        proxy.shut().await;
        proxy.resume();
        proxy.open().await;
        if let Err(fault) = outcome {
            assert!(fault.is_retryable(), "{fault:?}");
            let mark = unit.parts[0].batch.chunk.rows[0].mark;
            let committed = held(&*lake, &table).await.unwrap() == Some(mark);
            eprintln!("after {millis} ms, committed: {committed}: {fault}");
            if fault.to_string().contains("committing") {
                unanswered.insert(committed);
            }
        }
        through(&*lake, &mut unit).await.unwrap();
        if unanswered.len() == 2 {
            break;
        }
    }
    assert!(!unanswered.is_empty(), "no commit was hit");
    assert_eq!(bodies(&topic).await, inserted(0..made));
}
