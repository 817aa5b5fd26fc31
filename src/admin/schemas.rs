//! `GET /s/<vendor>/<name>/<version>`: the JSON Schema that an event names, and `GET /s`: which there are.
//!
//! What is served is what is stored, so a schema can be had for as long as `data_dir` is kept, also of tables that are
//! gone.

use std::sync::Arc;

use axum::Router;
use axum::extract::{Path, State};
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use forebay_api::{Fault, Schemas};
use serde_json::json;
use tracing::warn;

use super::{Status, axum_json};
use crate::schemas::{ENVELOPE, ENVELOPE_KEY};

/// The routes.
pub(super) fn routes() -> Router<Arc<Status>> {
    Router::new().route("/s", get(list)).route("/s/{vendor}/{name}/{version}", get(one))
}

async fn list(State(status): State<Arc<Status>>) -> Response {
    let (vendor, name, version) = ENVELOPE_KEY;
    let mut schemas = vec![entry(None, vendor, name, version)];
    for source in status.sources().iter() {
        let kept = match source.schemas.all().await {
            Ok(kept) => kept,
            Err(fault) => return failed(&fault),
        };
        for (vendor, name, versions) in &kept {
            let of_source =
                versions.iter().map(|kept| (Some(source.name.as_str()), kept.version.to_string()));
            schemas.extend(of_source.map(|(source, version)| entry(source, vendor, name, &version)));
        }
    }
    axum_json(&json!({"schemas": schemas}))
}

async fn one(
    State(status): State<Arc<Status>>,
    Path((vendor, name, version)): Path<(String, String, String)>,
) -> Response {
    if (vendor.as_str(), name.as_str(), version.as_str()) == ENVELOPE_KEY {
        return schema(ENVELOPE.to_owned());
    }
    for source in status.sources().iter() {
        let kept = match source.schemas.versions(&vendor, &name).await {
            Ok(kept) => kept,
            Err(fault) => return failed(&fault),
        };
        if let Some(found) = kept.into_iter().find(|kept| kept.version.to_string() == version) {
            return schema(found.schema);
        }
    }
    let said = format!("there is no schema `{vendor}/{name}/{version}`; `/s` lists those there are\n");
    (StatusCode::NOT_FOUND, said).into_response()
}

fn entry(source: Option<&str>, vendor: &str, name: &str, version: &str) -> serde_json::Value {
    let path = format!("/s/{}/{}/{version}", segment(vendor), segment(name));
    json!({"schema": format!("{vendor}/{name}/{version}"), "path": path, "source": source})
}

/// A part of a path: names of tables may hold anything.
fn segment(name: &str) -> String {
    name.bytes().fold(String::new(), |path, byte| match byte {
        b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => {
            path + char::from(byte).encode_utf8(&mut [0; 4])
        }
        _ => path + &format!("%{byte:02X}"),
    })
}

fn schema(text: String) -> Response {
    ([(header::CONTENT_TYPE, "application/schema+json")], text).into_response()
}

fn failed(fault: &Fault) -> Response {
    warn!(error = %fault, remedy = fault.remedy(), "schemas could not be read");
    (StatusCode::INTERNAL_SERVER_ERROR, format!("{fault}\n")).into_response()
}

#[cfg(test)]
mod tests {
    use forebay_api::{KeptSchema, SchemaVersion};
    use serde_json::Value;

    use super::super::tests::healthy;
    use super::*;

    async fn body(response: Response) -> (u16, String, Value) {
        let code = response.status().as_u16();
        let kind = response.headers()[header::CONTENT_TYPE].to_str().unwrap().to_owned();
        let body = axum::body::to_bytes(response.into_body(), 1 << 20).await.unwrap();
        (code, kind, serde_json::from_slice(&body).unwrap_or(Value::Null))
    }

    #[tokio::test]
    async fn every_schema_that_is_kept_is_listed_and_served_under_the_path_that_is_listed() {
        let status = Arc::new(healthy(1));
        let name = "public.a/b é";
        let kept = |version: &str| KeptSchema {
            version: version.parse().unwrap(),
            shape: String::new(),
            schema: json!({"title": version}).to_string(),
            announced: true,
        };
        let versions = [kept("1-0-0"), kept("1-0-1")];
        assert_eq!(versions[0].version, SchemaVersion::FIRST);
        status.sources()[0].schemas.keep("com.acme", name, &versions).await.unwrap();
        let (_, _, listed) = body(list(State(status.clone())).await).await;
        let paths: Vec<&str> =
            listed["schemas"].as_array().unwrap().iter().map(|one| one["path"].as_str().unwrap()).collect();
        let of_table = "/s/com.acme/public.a%2Fb%20%C3%A9/1-0-";
        assert_eq!(paths, ["/s/forebay/envelope/1-0-0", &format!("{of_table}0"), &format!("{of_table}1")]);
        assert_eq!(listed["schemas"][2]["source"], "shop");
        let ask = async |vendor: &str, name: &str, version: &str| {
            let path = Path((vendor.to_owned(), name.to_owned(), version.to_owned()));
            body(one(State(status.clone()), path).await).await
        };
        let (code, kind, found) = ask("com.acme", name, "1-0-1").await;
        assert_eq!((code, kind.as_str(), &found["title"]), (200, "application/schema+json", &json!("1-0-1")));
        assert_eq!(ask("com.acme", name, "2-0-0").await.0, 404);
        let (vendor, name, version) = ENVELOPE_KEY;
        let (_, _, envelope) = ask(vendor, name, version).await;
        assert_eq!(envelope["$id"], format!("urn:{vendor}:{name}:{version}"));
    }
}
