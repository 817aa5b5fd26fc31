use proptest::prelude::*;
use serde_json::json;

use super::*;
use crate::source::testing::{RECEIVED, Told, any_json, run};

const JSON: (&str, &str) = ("content-type", "application/json");
const FORM: (&str, &str) = ("content-type", "application/x-www-form-urlencoded");

fn send_to(
    settings: &str,
    method: Method,
    target: &str,
    headers: &[(&str, &str)],
    body: &[u8],
) -> (Answer, Vec<Told>) {
    let settings: Settings = serde_json::from_str(settings).unwrap();
    run(|request, gathered| read(request, &settings, gathered), method, target, headers, body)
}

fn post(target: &str, headers: &[(&str, &str)], body: &[u8]) -> Vec<Told> {
    let (answer, told) = send_to("{}", Method::POST, target, headers, body);
    assert_eq!(answer, Answer::ok());
    told
}

#[test]
fn a_webhook_without_a_schema_is_arbitrary_and_one_with_names_it_in_the_path() {
    for (target, schema) in [
        ("/webhook", "io.forebay/arbitrary/1-0-0"),
        ("/webhook/", "io.forebay/arbitrary/1-0-0"),
        ("/webhook/com.acme/order/1-0-0", "com.acme/order/1-0-0"),
        ("/webhook/com.acme/some/order/v1.0.json", "com.acme/some/order/v1.0"),
        ("/webhook/iglu%3Acom.acme/order/jsonschema/1-0-0?x=1", "com.acme/order/1-0-0"),
    ] {
        let told = post(target, &[JSON], b"{\"n\":1.10}");
        assert_eq!(
            (&*told[0].schema, &*told[0].raw, told[0].kind()),
            (schema, "{\"n\":1.10}", ""),
            "{target}"
        );
        assert_eq!((told[0].time, told[0].contexts.len()), (RECEIVED, 0));
    }
    for target in [
        "/webhook/../../etc/passwd",
        "/webhook/a/%2e%2e/1-0-0",
        "/webhook/https://evil.example/a/1-0-0",
        "/webhook/x",
        "/webhook/a/b/%",
        "/webhook/a/b/%ff",
        "/webhook//",
    ] {
        let told = post(target, &[JSON], b"[{\"n\":1},2]");
        assert_eq!((told.len(), told[0].kind()), (1, "invalid_schema_key"), "{target}");
        assert_eq!(told[0].payload["body"], json!("[{\"n\":1},2]"));
        assert_eq!(told[0].payload["path"], json!(target));
    }
}

#[test]
fn bodies_are_json_forms_or_text_by_their_content_type() {
    let media = |value| [("content-type", value)];
    for (headers, body, payload) in [
        (&media("application/json")[..], "{\"a\":1}", json!({"a": 1})),
        (&media("application/vnd.acme+json"), " \"x\" ", json!("x")),
        (&[], "{\"a\":1}", json!({"a": 1})),
        (&media("text/plain"), "{\"a\":1}", json!("{\"a\":1}")),
        (&media("application/xml"), "<a b=\"c\"/>\n", json!("<a b=\"c\"/>\n")),
        (&[FORM], "a=1&b=x+y%26z&a=2&c", json!({"a": ["1", "2"], "b": "x y&z", "c": ""})),
        (&[FORM], "&&", json!({})),
    ] {
        let told = post("/webhook", headers, body.as_bytes());
        assert_eq!((told.len(), told[0].kind(), &told[0].payload), (1, "", &payload), "{body}");
    }
}

#[test]
fn every_item_of_an_array_is_an_event_and_a_bad_one_stays_beside_its_neighbours() {
    let deep = format!("{}{}", "[".repeat(10_000), "]".repeat(10_000));
    let body = format!("[{{\"a\":1}},null,[1,2],\"x\",1e999,{deep},\"\\ud800\",{{\"a\":1,\"a\":2}}]");
    let told = post("/webhook/a/b/1-0-0", &[JSON], body.as_bytes());
    let kinds: Vec<&str> = told.iter().map(Told::kind).collect();
    assert_eq!(kinds, ["", "invalid_envelope", "", "", "", "too_deep", "invalid_json", ""]);
    assert_eq!((&*told[2].raw, &*told[4].raw), ("[1,2]", "1e999"));
    assert_eq!(told[5].payload["body"], json!(deep));
    assert_eq!(told[7].raw, "{\"a\":1,\"a\":2}", "a payload is not looked into");
}

#[test]
fn a_body_that_cannot_be_read_is_one_invalid_event() {
    for (headers, body, kind) in [
        (&[JSON][..], &b""[..], "empty_body"),
        (&[], b"", "empty_body"),
        (&[FORM], b"", "empty_body"),
        (&[("content-type", "text/plain")], b"", "empty_body"),
        (&[JSON], b"[]", "empty_body"),
        (&[JSON], b"{a:1}", "invalid_json"),
        (&[], b"hello", "invalid_json"),
        (&[JSON], b"[1", "invalid_json"),
        (&[JSON], b"\xff\xfe{}", "invalid_utf8"),
        (&[("content-type", "image/gif")], b"GIF89a\xff", "invalid_utf8"),
        (&[FORM], b"a=%zz", "invalid_encoding"),
        (&[FORM], b"a=%ff", "invalid_encoding"),
        (&[JSON], b"null", "invalid_envelope"),
    ] {
        let told = post("/webhook/a/b/1-0-0", headers, body);
        assert_eq!((told.len(), told[0].kind()), (1, kind), "{body:?} {}", told[0].message());
        assert_eq!(told[0].schema, "io.forebay/unreadable/1-0-0");
        assert!(told[0].payload.get("body").or(told[0].payload.get("body_base64")).is_some());
    }
    let many = format!("[{}]", vec!["1"; json::MAX_ITEMS + 1].join(","));
    assert_eq!(post("/webhook", &[JSON], many.as_bytes())[0].kind(), "too_many_items");
    let names: Vec<String> = (0..=json::MAX_MEMBERS).map(|at| format!("n{at}=1")).collect();
    assert_eq!(post("/webhook", &[FORM], names.join("&").as_bytes())[0].kind(), "invalid_envelope");
}

#[test]
fn what_is_sent_again_has_the_same_ids_and_headers_beside_it() {
    let settings = r#"{"headers":["X-GitHub-Event","x-none"],"id_header":"X-GitHub-Delivery"}"#;
    let headers = [JSON, ("x-github-event", "push"), ("x-github-delivery", "72d3162e"), ("cookie", "secret")];
    let send = || send_to(settings, Method::POST, "/webhook/a/b/1-0-0", &headers, b"[1,2]").1;
    let (first, second) = (send(), send());
    assert_eq!(
        first.iter().map(|told| &told.id).collect::<Vec<_>>(),
        second.iter().map(|told| &told.id).collect::<Vec<_>>()
    );
    assert_ne!(first[0].id, first[1].id);
    assert_eq!(first[0].entity(HEADERS), Some(&json!({"x-github-event": ["push"]})));
    let (_, without) = send_to(settings, Method::POST, "/webhook", &[JSON], b"[1,2]");
    assert_ne!(without[0].id, without[1].id);
    assert_eq!(without[0].contexts.len(), 0);
    for credentials in ["authorization", "Cookie", "proxy-authorization"] {
        assert!(serde_json::from_str::<Settings>(&format!(r#"{{"headers":["{credentials}"]}}"#)).is_err());
    }
}

#[test]
fn a_wrong_signature_is_401_and_stores_nothing() {
    let settings = r#"{"signature":{"type":"github","secret":"It's a Secret to Everybody"},
        "signatures":{"com.acme":{"type":"hmac","header":"x-sig","secret":"k"}}}"#;
    let good =
        ("x-hub-signature-256", "sha256=757107ea0eb2509fc211221cce984b8a37570b6d7586c22c46f4379c8b043e17");
    let text = ("content-type", "text/plain");
    let acme = ("x-sig", "11316937114e6970aa59bd5326a6f38dd525f4ade64670e402bff41e2f7c4071");
    for (target, headers, stored) in [
        ("/webhook", &[text, good][..], true),
        ("/webhook", &[text], false),
        ("/webhook", &[text, acme], false),
        ("/webhook/org.other/a/1-0-0", &[text, good], true),
        ("/webhook/nonsense", &[text], false),
        ("/webhook/nonsense", &[text, good], true),
        ("/webhook/com.acme/a/1-0-0", &[text, good], false),
        ("/webhook/com.acme/a/1-0-0", &[text, acme], true),
        ("/webhook/iglu:com.acme/a/jsonschema/1-0-0", &[text], false),
    ] {
        let (answer, told) = send_to(settings, Method::POST, target, headers, b"Hello, World!");
        assert_eq!(told.len(), usize::from(stored), "{target} {headers:?}");
        assert_eq!(answer.status, if stored { StatusCode::OK } else { StatusCode::UNAUTHORIZED });
    }
}

#[test]
fn challenges_are_answered_and_are_no_events() {
    let slack = r#"{"challenge":{"type":"slack"}}"#;
    let body = br#"{"token":"t","challenge":"3eZbrw1aB","type":"url_verification"}"#;
    let (answer, told) = send_to(slack, Method::POST, "/webhook", &[JSON], body);
    assert_eq!((&*answer.body, told.len()), (&b"3eZbrw1aB"[..], 0));
    let header =
        |name: &str| answer.headers.iter().find(|(known, _)| known.as_str() == name).unwrap().1.clone();
    assert_eq!(
        (header("x-content-type-options"), header("content-security-policy")),
        ("nosniff".parse().unwrap(), "sandbox".parse().unwrap())
    );
    for event in
        [&br#"{"type":"event_callback","challenge":"x"}"#[..], br#"{"type":"url_verification"}"#, b"{", b"[]"]
    {
        assert_eq!(send_to(slack, Method::POST, "/webhook", &[JSON], event).1.len(), 1);
    }
    assert_eq!(post("/webhook", &[JSON], body).len(), 1, "only where the settings say so");
    let signed = r#"{"challenge":{"type":"slack"},"signature":{"type":"slack","secret":"k"}}"#;
    assert_eq!(send_to(signed, Method::POST, "/webhook", &[JSON], body).0.status, StatusCode::UNAUTHORIZED);

    let echo = r#"{"challenge":{"type":"echo","parameter":"hub.challenge",
        "token":{"parameter":"hub.verify_token","value":"t0k"}}}"#;
    let ask = |method, query: &str, body: &[u8]| {
        let (answer, told) = send_to(echo, method, &format!("/webhook?{query}"), &[JSON], body);
        (answer.status.as_u16(), String::from_utf8(answer.body.to_vec()).unwrap(), told.len())
    };
    assert_eq!(
        ask(Method::GET, "hub.mode=subscribe&hub.challenge=a%2Bb&hub.verify_token=t0k", b""),
        (200, "a+b".to_owned(), 0)
    );
    assert_eq!(ask(Method::POST, "hub.challenge=c&hub.verify_token=t0k", b"").0, 200);
    assert_eq!(ask(Method::GET, "hub.challenge=c&hub.verify_token=no", b"").0, 403);
    assert_eq!(ask(Method::GET, "hub.challenge=c", b"").0, 403);
    assert_eq!(ask(Method::GET, "", b"").0, 405);
    assert_eq!(ask(Method::POST, "hub.challenge=c&hub.verify_token=t0k", b"{}"), (200, "ok".to_owned(), 1));
    assert_eq!(
        ask(Method::GET, &format!("hub.verify_token=t0k&hub.challenge={}", "x".repeat(1025)), b"").0,
        400
    );
    for wrong in [
        r#"{"type":"slack","token":{}}"#,
        r#"{"type":"echo"}"#,
        r#"{"type":"echo","parameter":"p","token":"t"}"#,
    ] {
        assert!(serde_json::from_str::<Challenge>(wrong).is_err(), "{wrong}");
    }
}

#[test]
fn other_methods_make_no_event() {
    for method in [Method::GET, Method::PUT, Method::HEAD, Method::OPTIONS] {
        let (answer, told) = send_to("{}", method, "/webhook", &[JSON], b"{}");
        assert_eq!((answer.status, told.len()), (StatusCode::METHOD_NOT_ALLOWED, 0));
    }
    let settings = Settings::default();
    assert!(
        settings.takes("/webhook/a/b/1-0-0") && settings.takes("/webhook") && !settings.takes("/webhooks")
    );
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn every_item_is_accounted_for_once(items in prop::collection::vec(any_json(), 1..20)) {
        let told = post("/webhook", &[JSON], format!("[{}]", items.join(",")).as_bytes());
        prop_assert_eq!(told.len(), items.len());
        for (told, item) in told.iter().zip(&items) {
            match told.kind() {
                "" => prop_assert_eq!(&told.raw, item),
                _ => prop_assert_eq!(&told.payload["body"], item),
            }
        }
    }

    #[test]
    fn any_bytes_anywhere_are_one_event_at_least(body: Vec<u8>, path in "[!-~]{0,30}", media in "[!-~]{0,12}|application/json|application/x-www-form-urlencoded") {
        let target = format!("/webhook/{}", path.replace('?', ""));
        prop_assert!(!post(&target, &[("content-type", &*media)], &body).is_empty());
    }
}
