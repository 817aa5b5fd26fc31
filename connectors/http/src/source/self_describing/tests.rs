use proptest::prelude::*;
use serde_json::json;

use super::*;
use crate::source::testing::{RECEIVED, Told, run};

const GOOD: &str = r#"{"payload":{"schema":"com.acme/click/1-0-0","data":{"n":1.10}}}"#;

fn post_to(settings: &Settings, body: &[u8]) -> Vec<Told> {
    let read = |request: &Request<'_>, gathered: &mut Gathered| read(request, settings, gathered);
    let (answer, told) = run(read, Method::POST, "/self-describing", &[], body);
    assert_eq!(answer, Answer::ok());
    told
}

fn post(body: &str) -> Vec<Told> {
    post_to(&Settings::default(), body.as_bytes())
}

#[test]
fn an_object_is_an_event_and_an_array_as_many() {
    let one = post(GOOD);
    assert_eq!((&*one[0].schema, &*one[0].raw, one[0].kind()), ("com.acme/click/1-0-0", r#"{"n":1.10}"#, ""));
    assert_eq!((one[0].time, one[0].contexts.len()), (RECEIVED, 0));
    let many = post(&format!(" [{GOOD},\n{GOOD}] "));
    assert_eq!(many.len(), 2);
    assert_ne!(many[0].id, many[1].id);
}

#[test]
fn what_stands_around_the_payload_is_kept_and_entities_with_it() {
    let told = post(
        r#"{"sent":"now","payload":{"schema":"iglu:com.acme/click/jsonschema/1-0-0","data":[1e400],"v":2},
            "contexts":[{"schema":"com.acme/user/1-0-0","data":{"id":7}}]}"#,
    );
    assert_eq!((told[0].kind(), &*told[0].raw), ("", "[1e400]"));
    assert_eq!(told[0].entity("com.acme/user/1-0-0"), Some(&json!({"id": 7})));
    assert_eq!(told[0].entity(SURROUNDINGS), Some(&json!({"sent": "now", "payload.v": 2})));
}

#[test]
fn what_cannot_be_read_is_kept_with_the_reason_beside_its_neighbours() {
    let deep = format!(
        r#"{{"payload":{{"schema":"a/b/1-0-0","data":{}{}}}}}"#,
        "[".repeat(10_000),
        "]".repeat(10_000)
    );
    for (bad, kind, message) in [
        ("null", "invalid_envelope", "the event is null, not an object"),
        ("[1]", "invalid_envelope", "the event is an array, not an object"),
        ("\"x\"", "invalid_envelope", "the event is a string, not an object"),
        ("{}", "invalid_envelope", "`payload.schema` is missing"),
        (r#"{"payload":1}"#, "invalid_envelope", "`payload` is a number, not an object"),
        (r#"{"payload":{"schema":"a/b/1-0-0"}}"#, "invalid_envelope", "`payload.data` is missing"),
        (
            r#"{"payload":{"schema":null,"data":1}}"#,
            "invalid_envelope",
            "`payload.schema` is null, not a string",
        ),
        (
            r#"{"payload":{"schema":"a/../1-0-0","data":1}}"#,
            "invalid_schema_key",
            "`a/../1-0-0` is not a schema key",
        ),
        (
            r#"{"payload":{"schema":"http://evil.example/a/1-0-0","data":1}}"#,
            "invalid_schema_key",
            "`http://evil",
        ),
        (
            r#"{"payload.x":1,"payload":{"schema":"a/b/1-0-0","data":1,"x":2}}"#,
            "invalid_envelope",
            "two members are at `payload.x`",
        ),
        (
            r#"{"payload":{"schema":"a/b/1-0-0","data":1,"data":2}}"#,
            "invalid_envelope",
            "`payload` cannot be read: member `data` is there twice",
        ),
        (
            r#"{"payload":{"schema":"a/b/1-0-0","data":"\ud800"}}"#,
            "invalid_json",
            "the escape at byte 41 is half of a character",
        ),
        (&deep, "too_deep", "it nests deeper than 100 levels"),
    ] {
        let told = post(&format!("[{GOOD},{bad},{GOOD}]"));
        assert_eq!(told.len(), 3, "{bad:.80}");
        assert_eq!((told[0].kind(), told[2].kind()), ("", ""));
        assert_eq!((told[1].kind(), &*told[1].schema), (kind, "io.forebay/unreadable/1-0-0"), "{bad:.80}");
        assert!(told[1].message().starts_with(message), "{}", told[1].message());
        assert_eq!(told[1].payload["body"], bad, "the original is kept");
        assert_eq!(told[1].payload["path"], "/self-describing");
    }
}

#[test]
fn a_body_that_is_no_json_is_one_invalid_event() {
    for (body, kind) in [
        (&b""[..], "empty_body"),
        (b"[]", "empty_body"),
        (b"  ", "invalid_json"),
        (b"{", "invalid_json"),
        (b"[1,]", "invalid_json"),
        (b"{} {}", "invalid_json"),
        (b"NaN", "invalid_json"),
        (b"\xff\xfe", "invalid_utf8"),
        (b"{\"a\":\"\xc0\xa0\"}", "invalid_utf8"),
    ] {
        let told = post_to(&Settings::default(), body);
        assert_eq!((told.len(), told[0].kind()), (1, kind), "{body:?}");
        match str::from_utf8(body) {
            Ok(text) => assert_eq!(told[0].payload["body"], text),
            Err(_) => assert!(told[0].payload["body_base64"].is_string()),
        }
    }
}

#[test]
fn a_bad_entity_makes_its_event_invalid_and_nothing_of_it_is_lost() {
    let told = post(
        r#"[{"payload":{"schema":"a/b/1-0-0","data":{"k":1}},
             "contexts":[{"schema":"a/c/1-0-0","data":1},{"schema":"nope","data":2}]}]"#,
    );
    assert_eq!((&*told[0].schema, &*told[0].raw), ("a/b/1-0-0", r#"{"k":1}"#));
    assert_eq!(told[0].kind(), "invalid_entity");
    assert!(
        told[0]
            .message()
            .starts_with("1 of 2 context entities cannot be read: entity 1: `nope` is not a schema key")
    );
    assert_eq!(told[0].contexts[1]["data"]["body"], r#"{"schema":"nope","data":2}"#);
}

#[test]
fn the_members_can_have_other_names_and_lie_deeper() {
    let settings = |text| serde_json::from_str::<Settings>(text);
    let flat = settings(r#"{"properties":{"payload":"","schema":"$schema","contexts":"meta.ctx"}}"#).unwrap();
    let told = post_to(&flat, br#"{"$schema":"a/b/1-0-0","data":5,"meta":{"ctx":[],"at":1}}"#);
    assert_eq!((&*told[0].schema, &*told[0].raw, told[0].kind()), ("a/b/1-0-0", "5", ""));
    assert_eq!(told[0].entity(SURROUNDINGS), Some(&json!({"meta.at": 1})));
    let inside =
        settings(r#"{"properties":{"payload":"message.event","contexts":"message.event.c"}}"#).unwrap();
    let told =
        post_to(&inside, br#"{"message":{"event":{"schema":"a/b/1-0-0","data":{},"c":{"a/c/1-0-0":1}}}}"#);
    assert_eq!((told[0].kind(), told[0].contexts.len()), ("", 1));
    for wrong in [
        r#"{"properties":{"schema":"a..b"}}"#,
        r#"{"properties":{"schema":""}}"#,
        r#"{"properties":{"schema":"data"}}"#,
        r#"{"properties":{"contexts":"payload"}}"#,
        r#"{"properties":{"contexts":"payload.data.c"}}"#,
        r#"{"properties":{"data":"a.b.c.d.e.f.g.h.i"}}"#,
        r#"{"properties":{"id":"x"}}"#,
        r#"{"path":"self"}"#,
        r#"{"on":true}"#,
    ] {
        assert!(settings(wrong).is_err(), "{wrong}");
    }
}

#[test]
fn other_methods_make_no_event() {
    let settings = Settings::default();
    let read = |request: &Request<'_>, gathered: &mut Gathered| read(request, &settings, gathered);
    let (answer, told) = run(read, Method::PUT, "/self-describing", &[], b"{}");
    assert_eq!((answer.status, told.len()), (StatusCode::METHOD_NOT_ALLOWED, 0));
    assert!(settings.takes("/self-describing") && !settings.takes("/self-describing/x"));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn every_item_is_accounted_for_once(items in prop::collection::vec(crate::source::testing::any_json(), 1..20)) {
        let told = post(&format!("[{}]", items.join(",")));
        prop_assert_eq!(told.len(), items.len());
        for (told, item) in told.iter().zip(&items) {
            prop_assert_eq!(&told.payload["body"], item);
        }
    }

    #[test]
    fn any_bytes_are_one_event_at_least(body: Vec<u8>) {
        prop_assert!(!post_to(&Settings::default(), &body).is_empty());
    }
}
