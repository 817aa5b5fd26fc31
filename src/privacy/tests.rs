use std::sync::Arc;

use forebay_api::{Chunk, Draft, Mark, Op, Row, Span, StreamId, Subject, Verdict};
use globset::Glob;
use proptest::prelude::*;
use serde_json::{Value, json};

use super::*;

fn rule(path: &str, action: Action, schema: Option<&str>) -> Rule {
    let schema = schema.map(|glob| Glob::new(glob).unwrap().compile_matcher());
    Rule { path: path.parse().unwrap(), action, schema }
}

/// Key, before, payload and contexts of one event.
fn chunk(events: &[[&str; 4]]) -> Chunk {
    let subject = Arc::new(Subject::new(("com.acme", "order", "1-0-0"), (None, None, None), String::new()));
    let mut draft = Draft::default();
    for (at, parts) in events.iter().enumerate() {
        let subject = draft.subject(&subject);
        let [key, before, payload, contexts] = parts.map(|text| {
            let start = draft.buf.len();
            draft.buf.extend_from_slice(text.as_bytes());
            draft.since(start)
        });
        let none = Span::default();
        let mark = Mark { major: (1, at as u64 + 1), minor: 0, part: 0 };
        draft.push(Row {
            mark,
            time: 0,
            xid: 0,
            subject,
            op: Op::Track,
            id: none,
            key,
            before,
            payload,
            unchanged: none,
            contexts,
            extra: none,
        });
    }
    draft.finish(&Arc::new(StreamId { source: "web".into(), epoch: 1 }), 0, false)
}

fn applied(rules: Vec<Rule>, events: &[[&str; 4]]) -> Chunk {
    let mut chunk = chunk(events);
    Privacy { rules }.apply(&mut chunk);
    chunk
}

fn payload(rules: Vec<Rule>, text: &str) -> String {
    let chunk = applied(rules, &[["", "", text, ""]]);
    String::from_utf8(chunk.event(0).payload().to_vec()).unwrap()
}

#[test]
fn each_action_changes_its_field_and_nothing_else() {
    let text =
        r#"{"a": 1.50, "email": "a\u0040b.c", "ip": "203.0.113.77", "list": [{"x": 1}, {"x": 2, "y": 3}]}"#;
    for (path, action, expected) in [
        ("$.payload.a", Action::Drop, text.replace(r#""a": 1.50, "#, "")),
        ("$.payload.list", Action::Drop, text.replace(r#", "list": [{"x": 1}, {"x": 2, "y": 3}]"#, "")),
        ("$.payload.a", Action::Mask, text.replace("1.50", r#""***""#)),
        ("$.payload.list[*].x", Action::Drop, text.replace(r#"{"x": 1}"#, "{}").replace(r#""x": 2, "#, "")),
        ("$.payload.list[*]", Action::Drop, text.replace(r#"[{"x": 1}, {"x": 2, "y": 3}]"#, "[null,null]")),
        ("$.payload.ip", Action::TruncateIp, text.replace(".77", ".0")),
        ("$.payload.email", Action::TruncateIp, text.replace(r#""a\u0040b.c""#, r#""***""#)),
        ("$.payload.nobody.a", Action::Drop, text.to_owned()),
        ("$.payload.a.b", Action::Drop, text.to_owned()),
    ] {
        let got = payload(vec![rule(path, action.clone(), None)], text);
        let value = |text: &str| serde_json::from_str::<Value>(text).unwrap();
        assert_eq!(value(&got), value(&expected), "{path} {action:?}");
        assert_eq!(got.contains("1.50"), expected.contains("1.50"), "numbers keep their digits: {got}");
    }
}

#[test]
fn a_hash_is_the_same_for_what_is_equal_and_another_with_another_salt() {
    let hashed = |text: &str, salt: &str| payload(vec![rule("$.payload.e", Action::hash(salt), None)], text);
    assert_eq!(hashed(r#"{"e":"a@b"}"#, "s"), hashed(r#"{"e":"a\u0040b"}"#, "s"));
    assert_ne!(hashed(r#"{"e":"a@b"}"#, "s"), hashed(r#"{"e":"a@b"}"#, "t"));
    assert_eq!(hashed(r#"{"e":null}"#, "s"), r#"{"e":null}"#);
    assert_eq!(hashed(r#"{"e":"a@b"}"#, "s").len(), r#"{"e":""}"#.len() + 64);
}

#[test]
fn an_ipv6_address_keeps_its_first_48_bits_and_one_that_holds_ipv4_its_first_three_bytes() {
    let truncated = |ip: &str| {
        let text = json!({"ip": ip}).to_string();
        payload(vec![rule("$.payload.ip", Action::TruncateIp, None)], &text)
    };
    assert_eq!(truncated("2001:db8:1:2:3:4:5:6"), r#"{"ip":"2001:db8:1::"}"#);
    assert_eq!(truncated("::ffff:203.0.113.77"), r#"{"ip":"203.0.113.0"}"#);
}

#[test]
fn key_and_row_before_lose_what_the_payload_loses_and_no_buffer_keeps_it() {
    let text = r#"{"id":1,"card":"4111"}"#;
    let chunk = applied(vec![rule("$.payload.card", Action::Drop, None)], &[[text, text, text, ""]; 3]);
    for event in chunk.events() {
        for part in [event.key(), event.before(), event.payload()] {
            assert_eq!(part, br#"{"id":1}"#);
        }
    }
    assert!(!String::from_utf8_lossy(&chunk.buf).contains("4111"));
}

#[test]
fn rules_are_for_the_schemas_that_they_name_and_below_contexts_for_those_of_entities() {
    let rules = || {
        vec![
            rule("$.payload.e", Action::Mask, Some("com.other/*")),
            rule("$.contexts[*].data.e", Action::Mask, Some("com.acme/user/*")),
        ]
    };
    let contexts = r#"[{"schema":"iglu:com.acme/user/jsonschema/1-0-0","data":{"e":1}},{"schema":"com.acme/page/1-0-0","data":{"e":1}}]"#;
    let chunk = applied(rules(), &[["", "", r#"{"e":1}"#, contexts]]);
    assert_eq!(chunk.event(0).payload(), br#"{"e":1}"#);
    let expected = contexts.replacen(r#"{"e":1}"#, r#"{"e":"***"}"#, 1);
    assert_eq!(chunk.event(0).contexts(), expected.as_bytes());
}

#[test]
fn a_key_that_is_there_twice_or_escaped_hides_nothing() {
    let got = payload(
        vec![rule("$.payload.card", Action::Drop, None)],
        r#"{"card":1,"c\u0061rd":2,"x":3,"card":4}"#,
    );
    assert_eq!(got, r#"{"x":3}"#);
}

#[test]
fn what_cannot_be_walked_through_is_left_out_and_the_event_is_invalid() {
    let chunk = applied(
        vec![rule("$.payload.card", Action::Drop, None)],
        &[["", "", r#"{"a":1}"#, ""], ["", "", r#"{"card":"4111"#, ""]],
    );
    assert_eq!(chunk.event(0).payload(), br#"{"a":1}"#);
    assert!(chunk.event(1).payload().is_empty());
    assert_eq!(chunk.refused[0].0, 1);
}

#[test]
fn what_comes_out_of_a_journal_is_left_as_it_is() {
    let mut one = chunk(&[["", "", r#"{"card":1}"#, ""]]);
    one.judged = Some(vec![Verdict::Valid]);
    Privacy { rules: vec![rule("$.payload.card", Action::Drop, None)] }.apply(&mut one);
    assert_eq!(one.event(0).payload(), br#"{"card":1}"#);
}

proptest! {
    #[test]
    fn a_rule_that_matches_nothing_changes_no_value(numbers in prop::collection::vec(any::<i64>(), 0..5), text in ".{0,20}") {
        let value = json!({"list": numbers, "text": text, "deep": {"text": [text]}});
        let rules = vec![rule("$.payload.deep.nobody", Action::Drop, None), rule("$.payload.list[*].x", Action::Drop, None)];
        let got = payload(rules, &value.to_string());
        prop_assert_eq!(serde_json::from_str::<Value>(&got).unwrap(), value);
    }

    #[test]
    fn no_text_makes_it_fail_otherwise_than_by_leaving_it_out(text in "[{}\\[\\]\",:a1 \\\\]{0,16}") {
        applied(vec![rule("$.payload.a", Action::Drop, None)], &[["", "", &text, ""]]);
    }
}
