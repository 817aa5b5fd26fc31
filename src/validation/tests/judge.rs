use std::time::Duration;

use forebay_api::{Chunk, Draft, Invalid, Mark, Op, Report, Row, Span, StreamId, Subject, Verdict};
use globset::Glob;
use prometheus_client::metrics::counter::Counter;
use serde_json::json;

use super::*;
use crate::telemetry::SchemaFigures;

const ORDER: &str = "com.acme/order/1-0-0";

fn store() -> Arc<Scripted> {
    Scripted::with(&[
        (
            ORDER,
            json!({"type": "object", "required": ["id", "total"], "properties": {
                "id": {"type": "integer"},
                "total": {"minimum": 0},
                "pay": {"oneOf": [{"required": ["card"]}, {"required": ["cash"]}]},
            }}),
        ),
        ("com.acme/user/1-0-0", json!({"type": "object", "required": ["name"]})),
    ])
}

fn judge(store: &Arc<Scripted>, rules: Rules) -> Judge {
    let cache = SchemaCache::new(store.chain(), CacheLimits::default(), SchemaFigures::default());
    Judge {
        source: "web".into(),
        schemas: Arc::new(cache),
        rules: Arc::new(rules),
        invalid: Counter::default(),
    }
}

/// One event a row: op, subject, payload, contexts, unchanged.
fn chunk(rows: &[(Op, &Subject, &str, &str, &str)]) -> Chunk {
    let mut draft = Draft::default();
    for (at, (op, subject, payload, contexts, unchanged)) in rows.iter().enumerate() {
        let subject = draft.subject(&Arc::new(Subject::clone(subject)));
        let mut span = |text: &str| {
            let start = draft.buf.len();
            draft.buf.extend_from_slice(text.as_bytes());
            draft.since(start)
        };
        let (payload, contexts, unchanged) = (span(payload), span(contexts), span(unchanged));
        let mark = Mark { major: (1, at as u64 + 1), minor: 0, part: 0 };
        let none = Span::default();
        draft.push(Row {
            mark,
            time: 0,
            xid: 0,
            subject,
            op: *op,
            id: none,
            key: none,
            before: none,
            payload,
            unchanged,
            contexts,
            extra: none,
        });
    }
    draft.finish(&Arc::new(StreamId { source: "web".into(), epoch: 1 }), 0, false)
}

fn event(key: &str) -> Subject {
    let key: SchemaKey = key.parse().unwrap();
    Subject::new((key.vendor(), key.name(), key.version()), (None, None, None), String::new())
}

fn table(name: &str) -> Subject {
    let full = format!("public.{name}");
    let place = (Some("shop"), Some("public"), Some(name));
    Subject::new(("com.acme", &full, "1-0-3"), place, String::new())
}

async fn verdict(judge: &Judge, subject: &Subject, payload: &str, contexts: &str) -> Option<Box<Invalid>> {
    let mut chunk = chunk(&[(Op::Track, subject, payload, contexts, "")]);
    match judge.judge(&mut chunk, &Report::default()).await.pop() {
        Some(Verdict::Invalid(why)) => Some(why),
        _ => None,
    }
}

#[tokio::test]
async fn every_failure_is_told_with_its_path_and_keyword_those_inside_of_alternatives_too() {
    let judge = judge(&store(), Rules::default());
    let order = event(ORDER);
    assert_eq!(verdict(&judge, &order, r#"{"id": 1, "total": 5}"#, "").await, None);
    let why = verdict(&judge, &order, r#"{"id": "1", "total": -1, "pay": {}}"#, "").await.unwrap();
    assert_eq!(why.kind, "invalid_payload");
    assert!(why.message.contains("`com.acme/order/1-0-0`") && why.resolution.is_some(), "{why:?}");
    let told: Vec<(&str, &str)> =
        why.details.iter().map(|detail| (detail.path.as_str(), detail.keyword.as_str())).collect();
    for expected in [
        ("/id", "/properties/id/type"),
        ("/total", "/properties/total/minimum"),
        ("/pay", "/properties/pay/oneOf"),
        ("/pay", "/properties/pay/oneOf/0/required"),
        ("/pay", "/properties/pay/oneOf/1/required"),
    ] {
        assert!(told.contains(&expected), "{expected:?}: {told:?}");
    }
    assert!(why.details.iter().all(|detail| !detail.message.contains("-1")), "no values: {why:?}");
}

#[tokio::test]
async fn an_entity_that_is_invalid_makes_the_event_invalid_and_is_named() {
    let judge = judge(&store(), Rules::default());
    let order = event(ORDER);
    let payload = r#"{"id": 1, "total": 5}"#;
    let contexts = |second: &str| {
        format!(r#"[{{"schema": "iglu:com.acme/user/jsonschema/1-0-0", "data": {{"name": "n"}}}}, {second}]"#)
    };
    let good = contexts(r#"{"schema": "com.acme/user/1-0-0", "data": {"name": "n"}}"#);
    assert_eq!(verdict(&judge, &order, payload, &good).await, None);
    for (second, kind, path) in [
        (r#"{"schema": "com.acme/user/1-0-0", "data": {}}"#, "invalid_context", "/contexts/1/data"),
        (r#"{"schema": "com.acme/nobody/1-0-0", "data": {}}"#, "schema_not_found", "/contexts/1/schema"),
        (r#"{"schema": "../../etc/passwd", "data": {}}"#, "schema_not_found", "/contexts/1/schema"),
        (r#"{"data": {}}"#, "invalid_context", "/contexts/1"),
        (r#"7"#, "invalid_context", "/contexts/1"),
    ] {
        let why = verdict(&judge, &order, payload, &contexts(second)).await.unwrap();
        assert_eq!((why.kind.as_str(), why.details[0].path.as_str()), (kind, path), "{why:?}");
        assert!(why.message.contains("entity 1"), "{why:?}");
    }
    let why = verdict(&judge, &order, payload, r#"{"a": 1}"#).await.unwrap();
    assert_eq!(why.kind, "invalid_context");
}

#[tokio::test]
async fn an_unknown_schema_is_invalid_or_passes_as_configured_and_arbitrary_ones_are_not_validated() {
    let store = store();
    let unknown = event("com.acme/unknown/1-0-0");
    let why = verdict(&judge(&store, Rules::default()), &unknown, "{}", "").await.unwrap();
    assert_eq!(why.kind, "schema_not_found");
    let lenient = Rules { unknown: Unknown::Pass, ..Rules::default() };
    assert_eq!(verdict(&judge(&store, lenient), &unknown, "{}", "").await, None);
    let before = store.fetches();
    let arbitrary = event("io.forebay/arbitrary/1-0-0");
    assert_eq!(verdict(&judge(&store, Rules::default()), &arbitrary, "not even JSON", "").await, None);
    assert_eq!(store.fetches(), before);
    store.keep("com.acme/broken/1-0-0", r#"{"type": 7}"#);
    let why =
        verdict(&judge(&store, Rules::default()), &event("com.acme/broken/1-0-0"), "{}", "").await.unwrap();
    assert_eq!(why.kind, "invalid_schema");
}

#[tokio::test]
async fn a_payload_that_readers_would_not_agree_on_is_invalid() {
    let judge = judge(&store(), Rules::default());
    let why = verdict(&judge, &event(ORDER), r#"{"id": 1, "total": 1, "id": 2}"#, "").await.unwrap();
    assert!(why.message.contains("`id`"), "{why:?}");
}

#[tokio::test]
async fn rows_of_tables_are_judged_by_a_contract_only() {
    let store = store();
    let bad = r#"{"id": 1, "total": -5}"#;
    let rows = |chunk: &mut Chunk| chunk.rows.len();
    let (orders, other) = (table("orders"), table("other"));
    let make = || {
        chunk(&[
            (Op::Insert, &orders, bad, "", ""),
            (Op::Insert, &orders, r#"{"id": 1, "total": 5}"#, "", ""),
            (Op::Update, &orders, r#"{"id": 1}"#, "", r#"["total"]"#),
            (Op::Update, &orders, r#"{"id": 1}"#, "", ""),
            (Op::Delete, &orders, "", "", ""),
            (Op::Schema, &orders, "{}", "", ""),
            (Op::Insert, &other, bad, "", ""),
        ])
    };
    let mut plain = make();
    assert_eq!(rows(&mut plain), 7);
    let none = judge(&store, Rules::default()).judge(&mut plain, &Report::default()).await;
    assert!(none.is_empty() && store.fetches() == 0, "without a contract nobody is asked");
    let contract = |sources: &[&str]| Rules {
        unknown: Unknown::Invalid,
        contracts: vec![Contract {
            sources: sources.iter().map(|name| (*name).to_owned()).collect(),
            tables: vec![Glob::new("public.ord*").unwrap().compile_matcher()],
            schema: Some(key(ORDER)),
        }],
    };
    let verdicts = judge(&store, contract(&["web"])).judge(&mut make(), &Report::default()).await;
    let valid: Vec<bool> = verdicts.iter().map(Verdict::is_valid).collect();
    assert_eq!(valid, [false, true, true, false, true, true, true]);
    let verdicts = judge(&store, contract(&["shop"])).judge(&mut make(), &Report::default()).await;
    assert!(verdicts.is_empty(), "it is another source's");
}

#[tokio::test]
async fn what_was_judged_or_refused_before_keeps_its_verdict() {
    let judge = judge(&store(), Rules::default());
    let order = event(ORDER);
    let bad = r#"{"total": -5}"#;
    let refusal = || failure::plain("invalid_payload", "no JSON".to_owned(), "send JSON");
    let mut one = chunk(&[(Op::Track, &order, bad, "", ""), (Op::Track, &order, "", "", "")]);
    one.refused = vec![(1, refusal())];
    let verdicts = judge.judge(&mut one, &Report::default()).await;
    assert_eq!(verdicts[1], Verdict::Invalid(refusal()));
    assert!(!verdicts[0].is_valid());
    let mut journalled = chunk(&[(Op::Track, &order, bad, "", "")]);
    journalled.judged = Some(Vec::new());
    assert!(judge.judge(&mut journalled, &Report::default()).await.is_empty());
}

#[tokio::test(start_paused = true)]
async fn events_of_a_schema_that_was_never_seen_wait_while_the_registry_is_down_and_say_so() {
    let store = store();
    store.set_down(true);
    let judge = judge(&store, Rules::default());
    let report = Report::default();
    let waiting = {
        let (judge, report) = (judge.clone(), report.clone());
        tokio::spawn(async move {
            let mut chunk = chunk(&[(Op::Track, &event(ORDER), r#"{"id": 1, "total": 1}"#, "", "")]);
            judge.judge(&mut chunk, &report).await
        })
    };
    tokio::time::sleep(Duration::from_secs(600)).await;
    assert!(!waiting.is_finished());
    assert!(report.details()[WAITS].contains(ORDER), "{:?}", report.details());
    assert!(report.idle() < Report::MUST_TURN_WITHIN, "{:?}", report.idle());
    store.set_down(false);
    assert!(waiting.await.unwrap().is_empty(), "good events stay good");
    assert!(!report.details().contains_key(WAITS));
}

#[tokio::test]
async fn an_event_with_more_mistakes_than_can_be_told_is_told_in_bounds() {
    let store = store();
    store.keep("com.acme/list/1-0-0", r#"{"items": {"type": "string"}}"#);
    let judge = judge(&store, Rules::default());
    let numbers = |count: usize| format!("[{}0]", "0,".repeat(count));
    let list = event("com.acme/list/1-0-0");
    let why = verdict(&judge, &list, &numbers(1000), "").await.unwrap();
    assert_eq!(why.details.len(), failure::MAX_DETAILS);
    assert!(why.message.ends_with("(and 1000 more)"), "{}", why.message);
    let why = verdict(&judge, &list, &numbers(100_000), "").await.unwrap();
    assert_eq!(why.details.len(), 2, "{why:?}");
}
