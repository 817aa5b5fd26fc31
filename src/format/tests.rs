use std::sync::Arc;

use forebay_api::{Chunk, Draft, Mark, Op, Row, Span, StreamId, Subject};
use serde_json::{Value, json};

use super::*;

/// A chunk of one event with every part set, as the PostgreSQL source writes it.
fn chunk(op: Op) -> Chunk {
    let subject = Arc::new(Subject::new(
        ("com.acme.shop", "public.orders", "1-0-0"),
        (Some("shop"), Some("public"), Some("orders")),
        r#""type":"postgres","name":"shop","database":"shop","schema":"public","table":"orders""#.to_owned(),
    ));
    let mut draft = Draft::default();
    let mut part = |text: &str| {
        let start = draft.buf.len();
        draft.buf.extend_from_slice(text.as_bytes());
        draft.since(start)
    };
    let key = part(r#"{"id":42}"#);
    let before = part(r#"{"id":42,"total":1.10}"#);
    let payload = part(r#"{"id":42,"total":2.50,"note":"a \"quoted\" word"}"#);
    let unchanged = part(r#"["body"]"#);
    let extra = part(
        r#""lsn":"0/16B3748","commit_lsn":"0/16B37A0","xid":754,"ordinal":3,"origin":"a,\"b","snapshot":false"#,
    );
    let row = Row {
        mark: Mark { major: (1, 0x016B_37A0), minor: 3, part: 0 },
        time: 1_795_372_440_123_456,
        xid: 754,
        subject: draft.subject(&subject),
        op,
        id: Span::default(),
        key,
        before,
        payload: if matches!(op, Op::Delete | Op::Truncate) { Span::default() } else { payload },
        unchanged,
        contexts: Span::default(),
        extra,
    };
    draft.push(row);
    draft.finish(&Arc::new(StreamId { source: "shop".into(), epoch: 0xabc }), 1_795_372_440_130_012, false)
}

fn record(format: Format, op: Op, verdicts: &[Verdict]) -> (String, Value) {
    let encoded = Encoder::new("edge-1", "production").encode(format, &chunk(op), verdicts);
    let text = String::from_utf8(encoded.get(0).to_vec()).unwrap();
    let value = serde_json::from_str(&text).expect("every format is JSON");
    if format == Format::Forebay {
        let schema = serde_json::from_str(include_str!("../../config/envelope.schema.json")).unwrap();
        let validator = jsonschema::draft202012::new(&schema).unwrap();
        let wrong: Vec<String> = validator.iter_errors(&value).map(|error| error.to_string()).collect();
        assert!(wrong.is_empty(), "the envelope's schema refuses its record: {wrong:?}\n{text}");
    }
    (text, value)
}

#[test]
fn the_envelope_has_its_fields_in_their_order() {
    let (text, _) = record(Format::Forebay, Op::Update, &[]);
    insta::assert_snapshot!(text, @r#"{"id":"shop:0000000000000abc:1:00000000016B37A0:3","schema":"com.acme.shop/public.orders/1-0-0","vendor":"com.acme.shop","name":"public.orders","version":"1-0-0","op":"update","time":"2026-11-22T18:34:00.123456Z","received":"2026-11-22T18:34:00.130012Z","source":{"type":"postgres","name":"shop","database":"shop","schema":"public","table":"orders","lsn":"0/16B3748","commit_lsn":"0/16B37A0","xid":754,"ordinal":3,"origin":"a,\"b","snapshot":false},"key":{"id":42},"before":{"id":42,"total":1.10},"payload":{"id":42,"total":2.50,"note":"a \"quoted\" word"},"unchanged":["body"],"valid":true,"forebay":{"name":"edge-1","environment":"production","version":"0.1.0"}}"#);
}

#[test]
fn every_op_obeys_the_schema_of_the_envelope() {
    for op in Op::ALL {
        assert_eq!(record(Format::Forebay, op, &[]).1["op"], op.as_str());
    }
}

#[test]
fn a_deleted_row_has_a_null_payload() {
    let (_, value) = record(Format::Forebay, Op::Delete, &[]);
    assert_eq!(value["payload"], Value::Null);
    assert_eq!(value["key"], json!({"id": 42}));
}

#[test]
fn an_invalid_event_carries_why() {
    let invalid = Verdict::Invalid(Box::new(Invalid {
        kind: "invalid_payload".into(),
        message: "1 of 3 members is wrong".into(),
        resolution: None,
        details: vec![forebay_api::InvalidDetail {
            path: "/total".into(),
            keyword: "/properties/total/minimum".into(),
            message: "2.5 is less than 3".into(),
        }],
    }));
    let (_, value) = record(Format::Forebay, Op::Update, std::slice::from_ref(&invalid));
    assert_eq!(value["valid"], false);
    assert_eq!(value["error"]["details"][0]["path"], "/total");
    let (_, value) = record(Format::CloudEvents, Op::Update, &[invalid]);
    assert_eq!(value["valid"], false);
}

#[test]
fn debezium_consumers_find_their_fields() {
    let (text, value) = record(Format::Debezium, Op::Update, &[]);
    insta::assert_snapshot!(text, @r#"{"before":{"id":42,"total":1.10},"after":{"id":42,"total":2.50,"note":"a \"quoted\" word"},"source":{"version":"forebay-0.1.0","connector":"postgresql","name":"shop","ts_ms":1795372440123,"ts_us":1795372440123456,"ts_ns":1795372440123456000,"snapshot":"false","db":"shop","schema":"public","table":"orders","sequence":"[\"23803808\",\"23803720\"]","txId":754,"lsn":23803720,"xmin":null,"unchanged":["body"]},"op":"u","ts_ms":1795372440130,"ts_us":1795372440130012,"ts_ns":1795372440130012000,"transaction":null}"#);
    assert_eq!(value["op"], "u");
    for (op, letter) in
        [(Op::Snapshot, "r"), (Op::Insert, "c"), (Op::Delete, "d"), (Op::Truncate, "t"), (Op::Message, "m")]
    {
        assert_eq!(record(Format::Debezium, op, &[]).1["op"], letter);
    }
}

#[test]
fn a_cloudevent_has_the_required_attributes_and_loses_nothing() {
    let (_, value) = record(Format::CloudEvents, Op::Update, &[]);
    for required in ["specversion", "id", "source", "type"] {
        assert!(value[required].as_str().is_some_and(|s| !s.is_empty()), "{required}");
    }
    let names = value.as_object().unwrap().keys();
    assert!(
        names.clone().all(|n| n.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit())),
        "{names:?}"
    );
    let inside = |member: &str| serde_json::from_str::<Value>(value[member].as_str().unwrap()).unwrap();
    assert_eq!(inside("before"), json!({"id": 42, "total": 1.10}));
    assert_eq!(inside("unchanged"), json!(["body"]));
    assert_eq!(inside("origin")["xid"], 754);
    assert_eq!(value["partitionkey"], r#"{"id":42}"#);
    assert_eq!(value["data"]["note"], "a \"quoted\" word");
    assert_eq!(value["dataschema"], "iglu:com.acme.shop/public.orders/jsonschema/1-0-0");
}

/// A tracker's event: a payload, and entities of which two have the same schema.
fn hit(id: &str, contexts: &str) -> Chunk {
    let source = r#""type":"http","name":"web","input":"self_describing""#.to_owned();
    let subject = Arc::new(Subject::new(("com.acme", "click", "1-0-0"), (None, None, None), source));
    let mut draft = Draft::default();
    let mut part = |text: &str| {
        let start = draft.buf.len();
        draft.buf.extend_from_slice(text.as_bytes());
        draft.since(start)
    };
    let (id, payload, contexts) = (part(id), part(r#"{"n":1.10}"#), part(contexts));
    let (mark, op, none) = (Mark::MIN, Op::Track, Span::default());
    let subject = draft.subject(&subject);
    let time = 1_795_372_440_123_456;
    let row = Row {
        mark,
        time,
        xid: 0,
        subject,
        op,
        id,
        payload,
        contexts,
        key: none,
        before: none,
        unchanged: none,
        extra: none,
    };
    draft.push(row);
    draft.finish(&Arc::new(StreamId { source: "web".into(), epoch: 1 }), 1_795_372_440_130_012, false)
}

#[test]
fn readers_of_buz_find_their_envelope() {
    let encode = |chunk: &Chunk, verdicts: &[Verdict]| {
        let encoded = Encoder::new("edge-1", "production").encode(Format::Buz, chunk, verdicts);
        String::from_utf8(encoded.get(0).to_vec()).unwrap()
    };
    let contexts = r#"[{"schema":"com.acme/user/1-0-0","data":{"id":7}},{"schema":"com.acme/ad/1-0-0","data":1},{"schema":"com.acme/user/1-0-0","data":8.0}]"#;
    let text = encode(&hit("0193c2f0-5d1e-7c3a-9b1f-2f6d8e4a7b10", contexts), &[]);
    insta::assert_snapshot!(text, @r#"{"uuid":"0193c2f0-5d1e-7c3a-9b1f-2f6d8e4a7b10","timestamp":"2026-11-22T18:34:00.123456Z","buzTimestamp":"2026-11-22T18:34:00.130012Z","buzVersion":"0.1.0","buzName":"edge-1","buzEnv":"production","protocol":"selfDescribing","schema":"com.acme/click/1-0-0","vendor":"com.acme","namespace":"click","version":"1-0-0","isValid":true,"contexts":{"com.acme/user/1-0-0":[{"id":7},8.0],"com.acme/ad/1-0-0":1},"payload":{"n":1.10}}"#);
    let invalid = Verdict::Invalid(Box::new(Invalid {
        kind: "invalid_payload".into(),
        message: "1 of 3 members is wrong".into(),
        resolution: None,
        details: vec![forebay_api::InvalidDetail {
            path: "/n".into(),
            keyword: "/properties/n/minimum".into(),
            message: "1.10 is less than 3".into(),
        }],
    }));
    let text = encode(&hit("not a uuid", ""), &[invalid]);
    insta::assert_snapshot!(text, @r#"{"uuid":"f3d4b41b-5b5b-5898-8e42-c47d21154504","timestamp":"2026-11-22T18:34:00.123456Z","buzTimestamp":"2026-11-22T18:34:00.130012Z","buzVersion":"0.1.0","buzName":"edge-1","buzEnv":"production","protocol":"selfDescribing","schema":"com.acme/click/1-0-0","vendor":"com.acme","namespace":"click","version":"1-0-0","isValid":false,"validationError":{"errorType":"invalid_payload","errorResolution":null,"payloadValidationErrors":[{"field":"","description":"1 of 3 members is wrong","errorType":"invalid_payload"},{"field":"/n","description":"1.10 is less than 3","errorType":"/properties/n/minimum"}]},"payload":{"n":1.10}}"#);
    insta::assert_snapshot!(encode(&chunk(Op::Update), &[]), @r#"{"uuid":"54033be2-77e0-5237-adde-46d9d70a230a","timestamp":"2026-11-22T18:34:00.123456Z","buzTimestamp":"2026-11-22T18:34:00.130012Z","buzVersion":"0.1.0","buzName":"edge-1","buzEnv":"production","protocol":"postgres","schema":"com.acme.shop/public.orders/1-0-0","vendor":"com.acme.shop","namespace":"public.orders","version":"1-0-0","isValid":true,"contexts":{"io.forebay/change/1-0-0":{"op":"update","key":{"id":42},"before":{"id":42,"total":1.10},"unchanged":["body"],"source":{"type":"postgres","name":"shop","database":"shop","schema":"public","table":"orders","lsn":"0/16B3748","commit_lsn":"0/16B37A0","xid":754,"ordinal":3,"origin":"a,\"b","snapshot":false}}},"payload":{"id":42,"total":2.50,"note":"a \"quoted\" word"}}"#);
    let uuid = |text: &str| serde_json::from_str::<Value>(text).unwrap()["uuid"].clone();
    assert_eq!(
        uuid(&encode(&chunk(Op::Delete), &[])),
        uuid(&encode(&chunk(Op::Update), &[])),
        "of the same id"
    );
    assert_ne!(uuid(&encode(&hit("a", ""), &[])), uuid(&encode(&hit("b", ""), &[])));
}
