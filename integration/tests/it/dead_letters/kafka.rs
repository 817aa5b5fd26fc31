//! Messages that are too large for Kafka.

use forebay_integration::Kafka;

use super::*;

#[tokio::test(flavor = "multi_thread")]
async fn a_message_that_is_too_large_is_kept_and_delivered_without_a_daemon_once_it_fits() {
    let shop = Postgres::shared(15).await.database("large").await;
    shop.execute("create table orders (id int primary key, note text)").await;
    let kafka = Kafka::shared().await;
    let [topic, twin] = ["too-large", "twin"].map(forebay_integration::unique);
    let [topic, twin] = [kafka.topic(&topic, 1).await, kafka.topic(&twin, 1).await];
    let config = |bytes: u32| {
        let to = |topic: &str, bytes| {
            format!(
                "{{type: kafka, brokers: [\"{}\"], topic: {topic}, options: {{message.max.bytes: {bytes}}}, on_poison: block_key}}",
                kafka.bootstrap()
            )
        };
        format!(
            "{}destinations:\n  lake: {}\n  twin: {}\n",
            reading(&shop),
            to(topic.name(), bytes),
            to(twin.name(), 1_000_000)
        )
    };
    let mut daemon = Daemon::new(FOREBAY, &config(20_000));
    daemon.start().await;
    until_reading(&shop, &mut daemon).await;
    shop.execute("insert into orders values (1, 'a')").await;
    shop.execute("update orders set note = repeat('x', 30000)").await;
    shop.execute("insert into orders values (2, 'b')").await;
    shop.execute("update orders set note = 'c' where id = 1").await;
    until_metric(&mut daemon, "forebay_dead_letters", &[("destination", "lake")], 2.0).await;
    settled(&shop, &mut daemon).await;
    assert_adds_up(&daemon, &["lake", "twin"]).await;
    let (shown, _) = dlq(&daemon, &["show", "lake"], 0).await;
    for part in
        ["too_large, 1 attempt", "blocked, 0 attempts", r#"public.orders {"id":1}"#, "`--json` shows all"]
    {
        assert!(shown.contains(part), "`{part}` is not in: {shown}");
    }
    assert_eq!(daemon.stop().await, 0);

    daemon.configure(&config(1_000_000));
    let (said, _) = dlq(&daemon, &["replay", "lake", "--key", r#"{"id": 1}"#], 0).await;
    assert_eq!(said, "2 letters of `lake`: 2 replayed, 0 refused again, 0 left\n");
    let (said, _) = dlq(&daemon, &["list"], 0).await;
    assert_eq!(said, "there are no dead letters\n");
    // Key, headers and body are what they would have been, and those of each row in their order.
    let (arrived, wanted) = (topic.all().await, twin.all().await);
    for id in [1, 2] {
        let of_row = |messages: &[forebay_integration::Message]| -> Vec<_> {
            let key = format!(r#"{{"id":{id}}}"#);
            let messages = messages.iter().filter(|message| message.key.as_deref() == Some(key.as_bytes()));
            messages.map(|message| (message.headers.clone(), message.payload.clone())).collect()
        };
        assert!(!of_row(&wanted).is_empty());
        assert!(of_row(&arrived) == of_row(&wanted), "{arrived:?}");
    }
}
