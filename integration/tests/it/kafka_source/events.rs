//! What an event looks like.

use serde_json::json;

use super::*;

#[tokio::test(flavor = "multi_thread")]
async fn a_message_becomes_an_event_that_says_where_it_stood() {
    let reading = Reading::new("values", 1).await;
    let drafts = [
        Draft {
            key: Some(b"{\"id\":7}"),
            value: Some(b"{\"total\": 12345678901234567890.50,\n \"text\":\"\\u00e9\"}"),
            headers: &[("trace", b"abc")],
        },
        Draft { key: Some(b"plain"), value: Some(b"[1,null]"), headers: &[] },
        Draft { key: Some(b"{\"id\":7}"), value: None, headers: &[] },
        Draft { key: None, value: Some(b"not JSON"), headers: &[] },
        Draft { key: None, value: Some(b"\xff\xfe"), headers: &[] },
        Draft {
            key: None,
            value: Some(b"true"),
            headers: &[("forebay-id", b"shop:1:2"), ("forebay-schema", b"com.shop/public.orders/2-0-1")],
        },
    ];
    reading.topic.write(0, &drafts).await;
    let mut daemon = reading.daemon("");
    daemon.start().await;
    let events = written(&mut daemon, 6).await;
    let text = std::fs::read_to_string(daemon.path("out.ndjson")).unwrap();
    assert!(
        text.contains("\"payload\":{\"total\": 12345678901234567890.50,  \"text\":\"\\u00e9\"}"),
        "{text}"
    );

    let first = &events[0];
    assert_eq!((&first["op"], &first["valid"]), (&json!("message"), &json!(true)));
    assert_eq!(first["schema"], format!("com.acme/{}/1-0-0", reading.topic.name()));
    let source = json!({
        "type": "kafka", "name": "log", "topic": reading.topic.name(), "partition": 0, "offset": 0,
        "headers": [["trace", "abc"]],
    });
    assert_eq!(first["source"], source);
    assert_eq!(first["key"], json!({"id": 7}));
    assert_eq!((&events[1]["key"], &events[1]["payload"]), (&json!({"key": "plain"}), &json!([1, null])));
    assert_eq!(
        (&events[2]["op"], &events[2]["key"], &events[2]["payload"]),
        (&json!("delete"), &json!({"id": 7}), &json!(null))
    );
    for (event, payload) in [(&events[3], "not JSON"), (&events[4], "//4=")] {
        assert_eq!((&event["valid"], &event["payload"]), (&json!(false), &json!(payload)));
        assert_eq!(event["error"]["type"], "invalid_json");
    }
    assert_eq!(
        (&events[5]["id"], &events[5]["schema"]),
        (&json!("shop:1:2"), &json!("com.shop/public.orders/2-0-1"))
    );
    assert_eq!(daemon.stop().await, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn every_topic_that_matches_a_pattern_is_read_and_schema_says_what_it_is() {
    let reading = Reading::new("pattern_a", 1).await;
    reading.write(0, 0..3).await;
    let pattern = format!("^{}$", reading.topic.name());
    let mut daemon = reading.daemon("    schema: com.other/thing/3-1-0");
    let config = std::fs::read_to_string(daemon.path("forebay.yaml")).unwrap();
    daemon.configure(&config.replace(&format!("'{}'", reading.topic.name()), &format!("'{pattern}'")));
    daemon.start().await;
    let events = written(&mut daemon, 3).await;
    assert!(events.iter().all(|event| event["schema"] == "com.other/thing/3-1-0"), "{events:?}");
    assert_eq!(daemon.stop().await, 0);
}
