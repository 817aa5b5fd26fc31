//! Registries on the web: what a server says is taken by its status, not for what it looks like.

use std::sync::{Arc, Mutex};

use axum::Router;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode, Uri, header};
use axum::response::{IntoResponse, Response};
use forebay_api::{SchemaKey, SchemaStore, SchemaStoreConnector, SchemaStoreSetting};
use forebay_schemas::{HttpStore, IgluStore};
use serde_json::{Value, json};

/// What the server answers next, and what it was asked.
#[derive(Default)]
struct Script {
    answer: Mutex<(u16, String)>,
    asked: Mutex<Vec<(String, HeaderMap)>>,
}

async fn answer(State(script): State<Arc<Script>>, uri: Uri, headers: HeaderMap) -> Response {
    script.asked.lock().unwrap().push((uri.path().to_owned(), headers));
    let (status, body) = script.answer.lock().unwrap().clone();
    let headers = [(header::CONTENT_TYPE, "application/json"), (header::LOCATION, "/elsewhere")];
    (StatusCode::from_u16(status).unwrap(), headers, body).into_response()
}

async fn server() -> (Arc<Script>, String) {
    let script = Arc::new(Script::default());
    let router = Router::new().fallback(answer).with_state(script.clone());
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    tokio::spawn(async move { axum::serve(listener, router).await });
    (script, url)
}

fn built<C: SchemaStoreConnector>(config: Value) -> Arc<dyn SchemaStore> {
    let setting = SchemaStoreSetting { name: "web-1".to_owned(), data_dir: std::env::temp_dir() };
    match C::build(serde_json::from_value(config).unwrap(), &setting) {
        Ok(store) => store,
        Err(mistakes) => panic!("{mistakes:?}"),
    }
}

#[tokio::test]
async fn only_200_with_an_object_is_a_schema_and_only_404_says_that_there_is_none() {
    let (script, url) = server().await;
    let store =
        built::<HttpStore>(json!({"url": format!("{url}/base"), "headers": {"authorization": "Bearer t"}}));
    let key: SchemaKey = "com.acme/order/1-0-0".parse().unwrap();
    let schema = r#"{"type": "object"}"#;
    let error = r#"{"status": 500, "message": "looks like JSON"}"#;
    for (status, body, outcome) in [
        (200, schema, "found"),
        (404, error, "none"),
        (410, schema, "none"),
        (500, error, "fault"),
        (502, "<html>", "fault"),
        (403, error, "fault"),
        (302, schema, "fault"),
        (204, "", "fault"),
        (200, "<html>please log in</html>", "fault"),
        (200, "[1]", "fault"),
        (200, "", "fault"),
    ] {
        *script.answer.lock().unwrap() = (status, body.to_owned());
        let said = match store.fetch(&key).await {
            Ok(Some(text)) => {
                assert_eq!(text, schema);
                "found"
            }
            Ok(None) => "none",
            Err(_) => "fault",
        };
        assert_eq!(said, outcome, "{status} {body}");
    }
    *script.answer.lock().unwrap() = (200, format!("{{\"a\": \"{}\"}}", "x".repeat(2 << 20)));
    assert!(store.fetch(&key).await.unwrap_err().to_string().contains("longer than"));
    let asked = script.asked.lock().unwrap();
    assert!(asked.iter().all(|(path, _)| path == "/base/com.acme/order/1-0-0"), "no redirect is followed");
    assert_eq!(asked[0].1["authorization"], "Bearer t");
}

#[tokio::test]
async fn an_iglu_server_is_asked_by_its_paths_with_the_key() {
    let (script, url) = server().await;
    *script.answer.lock().unwrap() = (200, "{}".to_owned());
    let store = built::<IgluStore>(
        json!({"url": format!("{url}/api"), "apikey": "7c9b2f0e-0000-0000-0000-000000000000"}),
    );
    assert!(store.fetch(&"com.acme/order/1-0-0".parse().unwrap()).await.unwrap().is_some());
    assert!(
        store.fetch(&"com.acme/order/v1.0".parse().unwrap()).await.unwrap().is_none(),
        "it has no such names"
    );
    let asked = script.asked.lock().unwrap();
    assert_eq!(asked.len(), 1);
    assert_eq!(asked[0].0, "/api/schemas/com.acme/order/jsonschema/1-0-0");
    assert_eq!(asked[0].1["apikey"], "7c9b2f0e-0000-0000-0000-000000000000");
}

#[tokio::test]
async fn nobody_there_is_a_fault() {
    let store = built::<HttpStore>(json!({"url": "http://127.0.0.1:1"}));
    assert!(store.fetch(&"com.acme/order/1-0-0".parse().unwrap()).await.unwrap_err().is_retryable());
}
