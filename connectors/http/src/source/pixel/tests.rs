use base64::Engine;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use proptest::prelude::*;
use serde_json::json;

use super::*;
use crate::source::testing::{RECEIVED, Told, any_json, run};

fn get(target: &str) -> (Answer, Told) {
    let settings = Settings::default();
    let allowed = |host: &str| host == "shop.example.com" || host.ends_with(".example.org");
    let read = |request: &Request<'_>, gathered: &mut Gathered| read(request, &settings, &allowed, gathered);
    let (answer, mut told) = run(read, Method::GET, target, &[], b"");
    assert_eq!(told.len(), 1, "{target}");
    (answer, told.remove(0))
}

#[test]
fn parameters_are_the_payload() {
    for (target, schema, payload) in [
        (
            "/pixel?a=1&b=x+y%26&a=2&c",
            "io.forebay/arbitrary/1-0-0",
            json!({"a": ["1", "2"], "b": "x y&", "c": ""}),
        ),
        ("/pixel/com.acme/open/1-0-0?e=%E2%82%AC", "com.acme/open/1-0-0", json!({"e": "€"})),
        ("/pixel/com.acme/open/v1.0.json", "com.acme/open/v1.0", json!({})),
        ("/pixel?&&", "io.forebay/arbitrary/1-0-0", json!({})),
    ] {
        let (answer, told) = get(target);
        assert_eq!(answer, Answer::gif());
        assert_eq!((&*told.schema, &told.payload, told.kind()), (schema, &payload, ""), "{target}");
        assert_eq!((told.time, told.contexts.len()), (RECEIVED, 0));
    }
}

#[test]
fn a_payload_in_base64_of_any_alphabet_keeps_its_bytes() {
    let payload = r#"{"n":1.10,"big":1e999,"t":">>>???~"}"#;
    let standard = STANDARD.encode(payload);
    for encoded in [
        URL_SAFE_NO_PAD.encode(payload),
        standard.clone(),
        standard.trim_end_matches('=').to_owned(),
        standard.replace('=', "%3D").replace('+', "%2B").replace('/', "%2f"),
    ] {
        let (answer, told) = get(&format!("/pixel/a/b/1-0-0?x=1&hbp={encoded}"));
        assert_eq!((answer, told.kind(), &*told.raw), (Answer::gif(), "", payload), "{encoded}");
        assert_eq!(told.entity(SURROUNDINGS), Some(&json!({"x": "1"})));
    }
}

#[test]
fn a_query_that_cannot_be_read_is_an_invalid_event_with_all_of_it() {
    let encode = |bytes: &[u8]| URL_SAFE_NO_PAD.encode(bytes);
    let deep = encode(("[".repeat(10_000) + &"]".repeat(10_000)).as_bytes());
    for (target, kind, message) in [
        ("/pixel?a=%zz", "invalid_encoding", "a pair cannot be decoded: the `%` at byte 0"),
        ("/pixel?%ff=1", "invalid_encoding", "a name in the query cannot be decoded: it is not UTF-8"),
        ("/pixel?hbp=%", "invalid_encoding", "`hbp`: the `%` at byte 0"),
        ("/pixel?hbp=a!b", "invalid_encoding", "`hbp`: the byte at 1 (0x21) is in no alphabet of base64"),
        ("/pixel?hbp", "empty_body", "`hbp`: the body is empty"),
        ("/pixel?hbp=e30&hbp=e30", "invalid_envelope", "`hbp` is there twice"),
        (&format!("/pixel?hbp={}", encode(b"nope")), "invalid_json", "`hbp`: it is not JSON"),
        (&format!("/pixel?hbp={}", encode(b"\xff")), "invalid_utf8", "`hbp`: the body is not UTF-8"),
        (&format!("/pixel?hbp={deep}"), "too_deep", "`hbp`: it nests deeper"),
        ("/pixel/../x?a=1", "invalid_schema_key", "`../x` is not a schema key"),
        ("/pixel/http://evil.example/1-0-0?a=1", "invalid_schema_key", "`http://evil.example/1-0-0` is not"),
    ] {
        let (answer, told) = get(target);
        assert_eq!((answer, told.kind()), (Answer::gif(), kind), "{target:.80}");
        assert!(told.message().starts_with(message), "{}", told.message());
        let (path, query) = target.split_once('?').unwrap();
        assert_eq!((&told.payload["path"], &told.payload["query"]), (&json!(path), &json!(query)));
        assert_eq!(told.schema, "io.forebay/unreadable/1-0-0");
    }
}

#[test]
fn a_redirect_leads_to_allowed_hosts_alone_and_the_event_is_kept_in_any_case() {
    for (rto, location) in [
        ("https%3A%2F%2Fshop.example.com%2Fp%3Fa%3D1", "https://shop.example.com/p?a=1"),
        ("http://a.example.org:8080/", "http://a.example.org:8080/"),
    ] {
        let (answer, told) = get(&format!("/pixel/a/b/1-0-0?rto={rto}&a=1"));
        assert_eq!(answer.status, StatusCode::FOUND);
        let found = answer.headers.iter().find(|(name, _)| name == LOCATION).unwrap();
        assert_eq!(found.1.to_str().unwrap(), location);
        assert_eq!((told.kind(), &told.payload), ("", &json!({"a": "1"})));
        assert_eq!(told.entity(SURROUNDINGS), Some(&json!({"rto": location})));
    }
    for (rto, message) in [
        ("https://evil.example/", "no redirect may lead to `evil.example`"),
        ("https://shop.example.com.evil.example/", "no redirect may lead to"),
        ("https://evilexample.org/", "no redirect may lead to"),
        (
            "https://shop.example.com@evil.example/",
            "`rto`: `https://shop.example.com@evil.example/` is no target: it has a user",
        ),
        ("https://shop.example.com%5C@evil.example/", "`rto`: "),
        ("//shop.example.com", "`rto`: "),
        ("/local", "`rto`: "),
        ("javascript:alert(1)", "`rto`: "),
        ("https://shop.example.com%0d%0aSet-Cookie:x", "`rto`: "),
        ("", "`rto`: "),
        ("https://shop.example.com&rto=https://shop.example.com", "`rto` is there twice"),
    ] {
        let (answer, told) = get(&format!("/pixel/a/b/1-0-0?a=1&rto={rto}"));
        assert_eq!(answer.status, StatusCode::FORBIDDEN, "{rto}");
        assert!(answer.headers.iter().all(|(name, _)| name != LOCATION));
        assert_eq!(
            (told.kind(), &*told.schema, &told.payload),
            ("redirect_refused", "a/b/1-0-0", &json!({"a": "1"}))
        );
        assert!(told.message().starts_with(message), "{}", told.message());
        assert!(told.entity(SURROUNDINGS).unwrap().get("rto").is_some());
    }
    let (answer, told) = get("/pixel?rto=%zz");
    assert_eq!((answer.status, told.kind()), (StatusCode::FORBIDDEN, "invalid_encoding"));
}

#[test]
fn other_methods_make_no_event() {
    let settings: Settings = serde_json::from_str("{}").unwrap();
    let read = |request: &Request<'_>, gathered: &mut Gathered| read(request, &settings, &|_| true, gathered);
    for (method, events) in [(Method::POST, 0), (Method::HEAD, 1)] {
        assert_eq!(run(read, method, "/pixel?a=1", &[], b"").1.len(), events);
    }
    assert!(settings.takes("/pixel/a/b/1-0-0") && !settings.takes("/pixels"));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn any_json_in_base64_passes_through_untouched(payload in any_json()) {
        let (_, told) = get(&format!("/pixel?hbp={}", URL_SAFE_NO_PAD.encode(&payload)));
        match told.kind() {
            "" => prop_assert_eq!(told.raw, payload),
            _ => prop_assert!(told.payload["query"].is_string()),
        }
    }

    #[test]
    fn any_query_is_one_event(query in "([!-~]|&|=|%|hbp=|rto=|https://){0,20}", path in "[!-~]{0,20}") {
        let (answer, _) = get(&format!("/pixel/{}?{query}", path.replace('?', "")));
        prop_assert!(answer.headers.iter().all(|(name, value)| name != LOCATION || !value.to_str().unwrap().contains('\\')));
    }
}
