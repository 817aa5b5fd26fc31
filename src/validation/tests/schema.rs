use serde_json::json;

use super::super::document::Document;
use super::super::node::Node;
use super::super::schema::load;
use super::*;

async fn loaded(store: &Arc<Scripted>, name: &str) -> Loaded {
    load(&store.chain(), &key(name)).await.unwrap()
}

async fn broken(schema: &str) -> String {
    let store = Scripted::with(&[]);
    store.keep("com.acme/a/1-0-0", schema);
    match loaded(&store, "com.acme/a/1-0-0").await {
        Loaded::Broken(why) => why.to_string(),
        other => panic!("{schema}: {other:?}"),
    }
}

/// Whether a schema of the store allows a text.
async fn allows(store: &Arc<Scripted>, name: &str, text: &str) -> bool {
    let Loaded::Schema(schema) = loaded(store, name).await else {
        panic!("{name}: {:?}", loaded(store, name).await)
    };
    let mut document = Document::default();
    document.read(text.as_bytes()).unwrap();
    schema.validator.is_valid(Node::root(&document.items))
}

#[tokio::test]
async fn every_draft_has_its_own_meaning() {
    let cases = [
        // exclusiveMinimum is a boolean in draft 4
        (
            "http://json-schema.org/draft-04/schema#",
            json!({"minimum": 0, "exclusiveMinimum": true}),
            "1",
            "0",
        ),
        ("http://json-schema.org/draft-06/schema#", json!({"exclusiveMinimum": 0}), "1", "0"),
        (
            "http://json-schema.org/draft-07/schema#",
            json!({"if": {"minimum": 5}, "then": {"maximum": 9}}),
            "7",
            "10",
        ),
        (
            "https://json-schema.org/draft/2019-09/schema",
            json!({"dependentRequired": {"a": ["b"]}}),
            r#"{"b": 1}"#,
            r#"{"a": 1}"#,
        ),
        (
            "https://json-schema.org/draft/2020-12/schema",
            json!({"prefixItems": [{"type": "string"}], "items": false}),
            r#"["a"]"#,
            r#"["a", 1]"#,
        ),
    ];
    for (draft, mut schema, valid, invalid) in cases {
        schema["$schema"] = draft.into();
        schema["type"] = json!(["integer", "object", "array"]);
        let store = Scripted::with(&[("com.acme/a/1-0-0", schema)]);
        assert!(allows(&store, "com.acme/a/1-0-0", valid).await, "{draft}");
        assert!(!allows(&store, "com.acme/a/1-0-0", invalid).await, "{draft}");
    }
    // draft 4 decides by how a number is written, later drafts by what it means
    for (draft, whole_float) in [
        ("http://json-schema.org/draft-04/schema#", false),
        ("http://json-schema.org/draft-07/schema#", true),
    ] {
        let store = Scripted::with(&[("com.acme/a/1-0-0", json!({"$schema": draft, "type": "integer"}))]);
        assert_eq!(allows(&store, "com.acme/a/1-0-0", "1.0").await, whole_float, "{draft}");
    }
}

#[tokio::test]
async fn numbers_beyond_a_float_are_judged_by_their_digits() {
    let store = Scripted::with(&[
        ("com.acme/int/1-0-0", json!({"type": "integer"})),
        ("com.acme/small/1-0-0", json!({"maximum": 100})),
        ("com.acme/even/1-0-0", json!({"multipleOf": 2})),
        ("com.acme/cents/1-0-0", json!({"multipleOf": 0.01})),
        ("com.acme/max/1-0-0", json!({"maximum": 9007199254740993_i64})),
    ]);
    let big = format!("1{}", "0".repeat(400));
    assert!(allows(&store, "com.acme/int/1-0-0", &big).await);
    assert!(allows(&store, "com.acme/int/1-0-0", "1e400").await);
    assert!(!allows(&store, "com.acme/int/1-0-0", "1e-400").await);
    assert!(!allows(&store, "com.acme/small/1-0-0", &big).await);
    assert!(allows(&store, "com.acme/small/1-0-0", &format!("-{big}")).await);
    assert!(allows(&store, "com.acme/even/1-0-0", "12345678901234567890124").await);
    assert!(!allows(&store, "com.acme/even/1-0-0", "12345678901234567890123").await);
    assert!(allows(&store, "com.acme/cents/1-0-0", "19.99").await);
    // one apart, and the same as floats
    assert!(allows(&store, "com.acme/max/1-0-0", "9007199254740993").await);
    assert!(!allows(&store, "com.acme/max/1-0-0", "9007199254740994").await);
}

#[tokio::test]
async fn references_lead_to_other_schemas_of_the_registry_in_a_circle_too() {
    let store = Scripted::with(&[
        ("com.acme/a/1-0-0", json!({"properties": {"b": {"$ref": "com.acme/b/1-0-0"}}})),
        (
            "com.acme/b/1-0-0",
            json!({"$defs": {"n": {"type": "integer"}}, "properties": {
                "a": {"$ref": "iglu:com.acme/a/jsonschema/1-0-0"},
                "n": {"$ref": "#/$defs/n"},
            }}),
        ),
        ("com.acme/c/1-0-0", json!({"$ref": "com.acme/b/1-0-0#/$defs/n"})),
    ]);
    assert!(allows(&store, "com.acme/a/1-0-0", r#"{"b": {"a": {"b": {"n": 1}}}}"#).await);
    assert!(!allows(&store, "com.acme/a/1-0-0", r#"{"b": {"a": {"b": {"n": "1"}}}}"#).await);
    assert!(!allows(&store, "com.acme/c/1-0-0", "1.5").await);
}

#[tokio::test]
async fn an_address_is_an_error_that_says_so_and_is_never_fetched() {
    for address in ["http://169.254.169.254/latest", "https://acme.com/s.json", "file:///etc/passwd"] {
        let why = broken(&json!({"$ref": address}).to_string()).await;
        assert!(why.contains(address) && why.contains("never fetched"), "{why}");
    }
    let why = broken(r#"{"$id": "https://acme.com/a.json", "properties": {"b": {"$ref": "b.json"}}}"#).await;
    assert!(why.contains("https://acme.com/b.json"), "{why}");
    let why = broken(r#"{"$ref": "com.acme/gone/1-0-0"}"#).await;
    assert!(why.contains("`com.acme/gone/1-0-0`, which is not in the registry"), "{why}");
}

#[tokio::test]
async fn references_without_end_are_refused() {
    let store = Scripted::with(&[]);
    for n in 1..200 {
        let next = json!({"$ref": format!("com.acme/a/{}-0-0", n + 1)});
        store.keep(&format!("com.acme/a/{n}-0-0"), &next.to_string());
    }
    let Loaded::Broken(why) = loaded(&store, "com.acme/a/1-0-0").await else { panic!("it has an end") };
    assert!(why.contains("refers to too much"), "{why}");
    assert!(store.fetches() < 30, "{}", store.fetches());
}

#[tokio::test]
async fn what_is_no_schema_never_becomes_one() {
    for (text, says) in [
        ("<html></html>", "not JSON"),
        ("[1]", "not an object"),
        ("true", "not an object"),
        (r#"{"status": 404, "message": "Schema not found"}"#, "none of the keywords"),
        (r#"{"type": "strnig"}"#, "meta-schema does not allow it at `/type`"),
        (r#"{"$schema": "https://acme.com/own-meta-schema", "type": "string"}"#, "meta-schema"),
        (r#"{"type": "string", "pattern": "("}"#, ""),
        (
            r#"{"self": {"vendor": "com.acme", "name": "b", "format": "jsonschema", "version": "1-0-0"}, "type": "object"}"#,
            "it says of itself that it is `com.acme/b/1-0-0`",
        ),
    ] {
        let why = broken(text).await;
        assert!(why.contains(says), "{text}: {why}");
    }
}

#[tokio::test]
async fn an_iglu_schema_is_read_as_draft_4() {
    let schema = json!({
        "$schema": "http://iglucentral.com/schemas/com.snowplowanalytics.self-desc/schema/jsonschema/1-0-0#",
        "self": {"vendor": "com.acme", "name": "a", "format": "jsonschema", "version": "1-0-0"},
        "type": "object", "properties": {"n": {"type": "number", "minimum": 0, "exclusiveMinimum": true}},
        "additionalProperties": false,
    });
    let store = Scripted::with(&[("com.acme/a/1-0-0", schema)]);
    assert!(allows(&store, "com.acme/a/1-0-0", r#"{"n": 1}"#).await);
    assert!(!allows(&store, "com.acme/a/1-0-0", r#"{"n": 0}"#).await);
}

#[test]
fn the_deepest_document_is_judged_by_a_schema_that_refers_to_itself_on_a_small_stack() {
    let node = json!({"type": "array", "items": {"allOf": [{"anyOf": [{"$ref": "#"}, {"type": "null"}]}]}});
    let run = move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let store = Scripted::with(&[("com.acme/a/1-0-0", node)]);
            let deepest = document::MAX_DEPTH;
            let text = "[".repeat(deepest) + &"]".repeat(deepest);
            assert!(allows(&store, "com.acme/a/1-0-0", &text).await);
        });
    };
    // that of tokio's workers
    std::thread::Builder::new().stack_size(2 << 20).spawn(run).unwrap().join().unwrap();
}
