use proptest::prelude::*;
use serde_json::{Value, json};

use super::*;
use crate::source::testing::{RECEIVED, Told, any_json, run};

const STRUCTURED: (&str, &str) = ("content-type", "application/cloudevents+json; charset=utf-8");
const BATCH: (&str, &str) = ("content-type", "application/cloudevents-batch+json");
const REQUIRED: [(&str, &str); 4] =
    [("ce-id", "1"), ("ce-source", "/s"), ("ce-type", "com.t"), ("ce-specversion", "1.0")];
const GOOD: &str = r#"{"id":"1","source":"/s","type":"t","specversion":"1.0","data":1.10}"#;

fn send(headers: &[(&str, &str)], body: &[u8]) -> Vec<Told> {
    let settings = Settings::default();
    let read = |request: &Request<'_>, gathered: &mut Gathered| read(request, &settings, gathered);
    let (answer, told) = run(read, Method::POST, "/cloudevents", headers, body);
    assert_eq!(answer, Answer::ok());
    told
}

fn structured(body: &str) -> Told {
    let mut told = send(&[STRUCTURED], body.as_bytes());
    assert_eq!(told.len(), 1);
    told.remove(0)
}

fn binary(more: &[(&str, &str)], body: &[u8]) -> Told {
    let mut told = send(&[&REQUIRED[..], more].concat(), body);
    assert_eq!(told.len(), 1);
    told.remove(0)
}

/// Requests as the official SDKs sent them, byte for byte, beside what the data of each was.
#[test]
fn every_request_of_the_official_sdks_is_read() {
    let node = include_str!("../../../tests/data/cloudevents-node-10.0.0.jsonl");
    let python = include_str!("../../../tests/data/cloudevents-python-2.2.0.jsonl");
    for line in node.lines().chain(python.lines()) {
        let sent: Value = serde_json::from_str(line).unwrap();
        let headers: Vec<(&str, &str)> = sent["headers"]
            .as_object()
            .unwrap()
            .iter()
            .map(|(name, value)| (&**name, value.as_str().unwrap()))
            .collect();
        let body = sent["body"].as_str().unwrap();
        let told = send(&headers, body.as_bytes());
        // Two name a schema that no registry can have: it has no vendor.
        let kind = if line.contains("/s/x/v1.0.json") { "invalid_schema_key" } else { "" };
        assert_eq!((told.len(), told[0].kind()), (1, kind), "{line}\n{}", told[0].message());
        let attributes = told[0].entity(CLOUDEVENT).unwrap();
        assert_eq!((&attributes["source"], &attributes["specversion"]), (&json!("/s"), &json!("1.0")));
        assert_eq!(told[0].id, event_id::stable(&["/s", attributes["id"].as_str().unwrap()]));
        let is_binary = attributes["datacontenttype"] == "application/octet-stream";
        assert_eq!(attributes.get("data_base64").is_some(), is_binary, "{line}");
        let subject = attributes.get("subject").and_then(Value::as_str);
        assert!(matches!(subject, None | Some("Eur x" | "Euro € x")), "{line}");
        assert_eq!(attributes.get("myext").is_some(), subject.is_some(), "{line}");
        match &told[0].payload {
            Value::String(text) if is_binary => assert!(matches!(&**text, "AAEC" | "AAFiaW4="), "{line}"),
            Value::String(text) => assert_eq!(text, "plain"),
            other => assert_eq!(other, &json!({"userId": 10})),
        }
        let schemas = [
            "com.acme/ev/1-0-0",
            "io.silverton/buz/example/gettingStarted/v1.0",
            "io.forebay/arbitrary/1-0-0",
        ];
        assert!(schemas.contains(&&*told[0].schema), "{line}\n{}", told[0].schema);
        assert_ne!(told[0].time, RECEIVED);
    }
    assert_eq!(node.lines().count() + python.lines().count(), 18);
}

#[test]
fn the_same_event_is_the_same_in_every_mode() {
    let object = r#"{"specversion":"1.0","id":"1","source":"/s","type":"com.t","datacontenttype":"application/json",
        "time":"2024-01-02T03:04:05Z","dataschema":"com.acme/ev/1-0-0","subject":"Euro € \"x\"","n":5,"data":{"a":1.0}}"#;
    let one = structured(object);
    let batched = send(&[BATCH], format!("[{object}]").as_bytes()).remove(0);
    let headers = binary(
        &[
            ("ce-time", "2024-01-02T03:04:05Z"),
            ("ce-dataschema", "com.acme/ev/1-0-0"),
            ("ce-subject", r#""Euro%20%e2%82%ac \"x\"""#),
            ("ce-n", "5"),
            ("content-type", "application/json"),
        ],
        b" {\"a\":1.0}\n",
    );
    for other in [&batched, &headers] {
        assert_eq!(
            (&one.id, one.time, &one.schema, &one.raw),
            (&other.id, other.time, &other.schema, &other.raw)
        );
        assert_eq!(one.entity(CLOUDEVENT).unwrap()["subject"], other.entity(CLOUDEVENT).unwrap()["subject"]);
    }
    assert_eq!((one.time, &*one.raw), (1_704_164_645_000_000, r#"{"a":1.0}"#));
    // A header cannot say whether it is a number.
    assert_eq!(one.entity(CLOUDEVENT).unwrap()["n"], json!(5));
    assert_eq!(headers.entity(CLOUDEVENT).unwrap()["n"], json!("5"));
}

#[test]
fn data_is_json_text_or_bytes_by_its_media_type_in_every_mode() {
    for (media, bytes, encoded, payload, is_base64) in [
        ("application/json", &b"[1e999]"[..], "WzFlOTk5XQ", "[1e999]", false),
        ("application/vnd.acme+json", b"\"s\"", "InMi", "\"s\"", false),
        ("text/plain", b"plain", "cGxhaW4=", "\"plain\"", false),
        ("application/xml", b"<a b=\"c\"/>", "PGEgYj0iYyIvPg==", r#""<a b=\"c\"/>""#, false),
        ("application/octet-stream", b"plain", "cGxhaW4", "\"cGxhaW4=\"", true),
        ("image/gif", b">>>???\xff", "Pj4-Pz8__w", "\"Pj4+Pz8//w==\"", true),
        ("text/plain; charset=latin1", b"\xe9", "6Q==", "\"6Q==\"", true),
    ] {
        let object = format!(
            r#"{{"id":"1","source":"/s","type":"t","specversion":"1.0","datacontenttype":"{media}","data_base64":"{encoded}"}}"#
        );
        for told in [binary(&[("content-type", media)], bytes), structured(&object)] {
            assert_eq!((&*told.raw, told.kind()), (payload, ""), "{media}");
            let flag = told.entity(CLOUDEVENT).unwrap().get("data_base64").cloned();
            assert_eq!(flag, is_base64.then_some(json!(true)), "{media}");
        }
    }
    assert_eq!(structured(&GOOD.replace(r#","data":1.10"#, "")).payload, Value::Null);
    assert_eq!(structured(&GOOD.replace("1.10", "null")).kind(), "");
    assert_eq!(structured(&GOOD.replace("1.10", r#""<a/>","datacontenttype":"text/xml""#)).raw, "\"<a/>\"");
    assert_eq!(binary(&[], b"").payload, Value::Null);
    assert_eq!(binary(&[], b"7").raw, "7");
}

#[test]
fn data_that_is_not_what_it_should_be_keeps_its_schema_and_what_came() {
    let deep = "[".repeat(10_000) + &"]".repeat(10_000);
    for (body, kind, message) in [
        (&b"plain"[..], "invalid_json", "the data should be JSON: it is not JSON: expected value"),
        (b"{\"a\":1}{", "invalid_json", "the data should be JSON: it is not JSON: trailing characters"),
        (b"\xff", "invalid_utf8", "the data should be JSON: the body is not UTF-8 from byte 0 on"),
        (deep.as_bytes(), "too_deep", "the data should be JSON: it nests deeper"),
        (b"[\"\\udfff\"]", "invalid_json", "the data should be JSON: the escape at byte 2"),
    ] {
        let told = binary(&[("ce-dataschema", "a/b/1-0-0"), ("content-type", "application/json")], body);
        assert_eq!((&*told.schema, told.kind()), ("a/b/1-0-0", kind));
        assert!(told.message().starts_with(message), "{}", told.message());
        let expected = str::from_utf8(body).unwrap_or("/w==");
        assert_eq!(told.payload, json!(expected));
    }
    for bad in ["QUJ", "A===", "QUJDRA!", "+-aa", " QUI="] {
        let told = structured(&GOOD.replace(r#""data":1.10"#, &format!(r#""data_base64":"{bad}""#)));
        if bad == "QUJ" {
            // Its last character carries bits of no byte.
            assert!(told.message().contains("carries bits of no byte"), "{}", told.message());
        }
        assert_eq!((told.kind(), &told.payload), ("invalid_encoding", &json!(bad)));
    }
}

#[test]
fn an_envelope_that_is_none_is_refused_with_the_reason_beside_its_neighbours() {
    let with = |from: &str, to: &str| GOOD.replace(from, to);
    for (bad, kind, message) in [
        ("null".to_owned(), "invalid_envelope", "the event is null, not an object"),
        ("[]".to_owned(), "invalid_envelope", "the event is an array, not an object"),
        (with(r#""id":"1","#, ""), "invalid_envelope", "the attribute `id` is missing"),
        (with(r#""1","#, "null,"), "invalid_envelope", "the attribute `id` is missing"),
        (with(r#""1","#, r#""","#), "invalid_envelope", "the attribute `id` is empty"),
        (with(r#""1","#, "1,"), "invalid_envelope", "the attribute `id` is `1`, not a string"),
        (with(r#""source":"/s","#, ""), "invalid_envelope", "the attribute `source` is missing"),
        (with(r#""type":"t","#, ""), "invalid_envelope", "the attribute `type` is missing"),
        (with(r#","specversion":"1.0""#, ""), "invalid_envelope", "the attribute `specversion` is missing"),
        (with("1.0\"", "0.3\""), "invalid_envelope", "`specversion` is `0.3`, only `1.0` is read"),
        (with("data", "Data"), "invalid_envelope", "`Data` cannot be the name of an attribute"),
        (
            with("\"data\":1.10", "\"x\":{}"),
            "invalid_envelope",
            "attributes are strings, numbers or booleans",
        ),
        (with("1.10", r#"1,"data_base64":"""#), "invalid_envelope", "it has both `data` and `data_base64`"),
        (
            with("\"data\":1.10", "\"data_base64\":7"),
            "invalid_envelope",
            "`data_base64` is a number, not a string",
        ),
        (
            with("1.10", r#"1,"id":"2""#),
            "invalid_envelope",
            "the event cannot be read: member `id` is there twice",
        ),
        (with("1.10", r#"1,"time":"yesterday""#), "invalid_envelope", "`time` is `yesterday`, not a time"),
        (with("1.10", r#""\ud800""#), "invalid_json", "the escape at byte"),
        (
            with("1.10", &format!("{}{}", "[".repeat(10_000), "]".repeat(10_000))),
            "too_deep",
            "it nests deeper",
        ),
    ] {
        let told = send(&[BATCH], format!("[{GOOD},{bad},{GOOD}]").as_bytes());
        assert_eq!(told.iter().map(Told::kind).collect::<Vec<_>>(), ["", kind, ""], "{bad:.200}");
        assert!(told[1].message().starts_with(message), "{}", told[1].message());
        assert_eq!(
            (&*told[1].schema, &told[1].payload["body"]),
            ("io.forebay/unreadable/1-0-0", &json!(bad))
        );
    }
}

#[test]
fn a_schema_that_no_registry_has_is_told_and_the_event_stays_readable() {
    for (uri, message) in [
        ("a/../1-0-0", "`a/../1-0-0` is not a schema key"),
        ("http://x/y", "`dataschema` is `http://x/y`, which does not end in `/s/` and a key"),
        ("https://x/s/%2e%2e/b/1-0-0", "`dataschema` is `https://x/s/%2e%2e/b/1-0-0`, which"),
    ] {
        let told = structured(&GOOD.replace("1.10", &format!(r#"1,"dataschema":"{uri}""#)));
        assert_eq!((&*told.schema, &*told.raw), ("io.forebay/arbitrary/1-0-0", "1"));
        assert_eq!((told.kind(), &*told.id), ("invalid_schema_key", &*event_id::stable(&["/s", "1"])));
        assert!(told.message().starts_with(message), "{}", told.message());
        assert_eq!(told.entity(CLOUDEVENT).unwrap()["dataschema"], json!(uri));
    }
}

#[test]
fn a_request_that_is_no_event_is_kept_whole() {
    for (headers, body, kind) in [
        (&[STRUCTURED][..], &b""[..], "empty_body"),
        (&[STRUCTURED], b"{", "invalid_json"),
        (&[STRUCTURED], b"\xff", "invalid_utf8"),
        (&[STRUCTURED], b"[]", "invalid_envelope"),
        (&[BATCH], b"", "empty_body"),
        (&[BATCH], b"{}", "invalid_envelope"),
        (&[BATCH], b"[{}", "invalid_json"),
        (&[("content-type", "application/cloudevents+avro")], b"x", "unsupported_content_type"),
        (&[("content-type", "application/json")], b"{}", "unsupported_content_type"),
        (&[], b"", "unsupported_content_type"),
        (&[("ce-id", "1")], b"{}", "invalid_envelope"),
        (&[("ce-id", "1"), ("ce-id", "2")], b"{}", "invalid_envelope"),
        (&[("ce-id", "%C0%A0")], b"{}", "invalid_encoding"),
        (&[("ce-my-ext", "1")], b"{}", "invalid_envelope"),
        (&[("ce-datacontenttype", "text/plain")], b"{}", "invalid_envelope"),
        (&[("ce-", "1")], b"{}", "invalid_envelope"),
    ] {
        let told = send(headers, body);
        assert_eq!((told.len(), told[0].kind()), (1, kind), "{headers:?}: {}", told[0].message());
        assert_eq!(told[0].schema, "io.forebay/unreadable/1-0-0");
        for (name, value) in headers.iter().filter(|(name, _)| name.starts_with("ce-")) {
            assert!(told[0].payload["headers"][name].as_array().unwrap().contains(&json!(value)), "{name}");
        }
    }
    assert_eq!(send(&[BATCH], b" [] ").len(), 0, "an empty batch is allowed, and holds nothing");
}

#[test]
fn a_header_that_nobody_encoded_is_taken_as_it_is() {
    let told = binary(&[("ce-subject", "100% of 5 € \\o/")], b"1");
    assert_eq!(told.entity(CLOUDEVENT).unwrap()["subject"], json!("100% of 5 € \\o/"));
}

#[test]
fn a_sender_is_told_whether_it_may_send() {
    let ask = |settings: &str, origin: &[(&str, &str)]| {
        let settings: Settings = serde_json::from_str(settings).unwrap();
        let read = |request: &Request<'_>, gathered: &mut Gathered| read(request, &settings, gathered);
        let (answer, told) = run(read, Method::OPTIONS, "/cloudevents", origin, b"");
        assert_eq!((answer.status, told.len()), (StatusCode::OK, 0));
        let header = |name: &str| {
            let found = answer.headers.iter().find(|(known, _)| known.as_str() == name);
            found.map_or("-".to_owned(), |(_, value)| value.to_str().unwrap().to_owned())
        };
        assert_eq!(header("allow"), "OPTIONS, POST");
        (header("webhook-allowed-origin"), header("webhook-allowed-rate"))
    };
    let origin = |name| [("WebHook-Request-Origin", name)];
    let consent = |name: &str, rate: &str| (name.to_owned(), rate.to_owned());
    assert_eq!(ask("{}", &origin("e.example.com")), consent("e.example.com", "*"));
    assert_eq!(ask(r#"{"allowed_rate":120}"#, &origin("e")), consent("e", "120"));
    assert_eq!(ask("{}", &[]), consent("-", "-"));
    let rules = r#"{"allowed_origins":["a.example.com","*.b.example"]}"#;
    for (name, allowed) in [
        ("a.example.com", true),
        ("A.Example.com", true),
        ("x.b.example", true),
        ("b.example", false),
        ("evilb.example", false),
        (".b.example", false),
        ("c.example.com", false),
    ] {
        assert_eq!(ask(rules, &origin(name)).0 != "-", allowed, "{name}");
    }
    let no_domain = r#"{"allowed_origins":["*b.example"]}"#;
    assert_eq!(ask(no_domain, &origin("evilb.example")).0, "-", "a domain begins with a dot");
    assert!(serde_json::from_str::<Settings>(r#"{"allowed_rate":0}"#).is_err());
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn every_item_of_a_batch_is_accounted_for_once(items in prop::collection::vec(any_json(), 0..20)) {
        let told = send(&[BATCH], format!("[{}]", items.join(",")).as_bytes());
        prop_assert_eq!(told.len(), items.len());
        for (told, item) in told.iter().zip(&items) {
            prop_assert_eq!(&told.payload["body"], item);
        }
    }

    #[test]
    fn any_data_passes_through_untouched(data in any_json()) {
        let told = structured(&GOOD.replace("1.10", &data));
        match told.kind() {
            "" => prop_assert_eq!(&told.raw, &data),
            _ => prop_assert_eq!(&told.payload["body"], &json!(GOOD.replace("1.10", &data))),
        }
    }

    #[test]
    fn any_bytes_in_any_mode_are_one_event(body: Vec<u8>, media in "application/(cloudevents(\\+json)?|json)|text/x|\\PC{0,9}") {
        for headers in [&[("content-type", &*media)][..], &[&REQUIRED[..], &[("content-type", &*media)]].concat()] {
            if http::HeaderValue::from_bytes(media.as_bytes()).is_ok() {
                prop_assert_eq!(send(headers, &body).len(), 1);
            }
        }
    }

    #[test]
    fn any_header_is_safe(value in "[ -~é€\t]{0,20}") {
        prop_assert_eq!(send(&[&REQUIRED[..], &[("ce-subject", &*value), ("ce-time", &*value)]].concat(), b"1").len(), 1);
    }
}
