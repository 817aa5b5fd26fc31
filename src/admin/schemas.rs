//! `GET /s/<vendor>/<name>/<version>`: the JSON Schema that an event names, and `GET /s`: which there are. `POST /schemas`
//! has the daemon forget what it has fetched from the registry.
//!
//! Of generated schemas what is served is what is stored, so a schema can be had for as long as `data_dir` is kept, also of
//! tables that are gone. All others come from the registry as its stores keep them; a key that is none is refused before
//! any store sees it.

use std::net::SocketAddr;
use std::sync::Arc;

use axum::Router;
use axum::body::Bytes;
use axum::extract::{ConnectInfo, Path, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use forebay_api::{Fault, SchemaKey, Schemas};
use serde::{Deserialize, Serialize};
use serde_json::json;
use tracing::{info, warn};

use super::command::{admit, refused};
use super::{Status, axum_json};
use crate::schemas::{DEAD_LETTER, DEAD_LETTER_KEY, ENVELOPE, ENVELOPE_KEY};
use crate::snapshot::Refusal;
use crate::validation::Loaded;

/// Schemas of the registry that are listed at most.
const MAX_LISTED: usize = 1000;

/// The schemas that we wrote.
const OWN: [((&str, &str, &str), &str); 2] = [(ENVELOPE_KEY, ENVELOPE), (DEAD_LETTER_KEY, DEAD_LETTER)];

/// The routes.
pub(super) fn routes() -> Router<Arc<Status>> {
    // A name with slashes is one of the registry's.
    Router::new()
        .route("/s", get(list))
        .route("/s/{vendor}/{name}/{version}", get(one))
        .route("/s/{a}/{b}/{c}/{d}", get(of_registry))
        .route("/s/{a}/{b}/{c}/{d}/{e}", get(of_registry))
        .route("/s/{a}/{b}/{c}/{d}/{e}/{f}", get(of_registry))
        .route("/schemas", post(command))
}

/// What is asked of the registry.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum Command {
    /// Forget this key, or all; what is needed is fetched again.
    Purge(Option<String>),
}

async fn command(
    ConnectInfo(peer): ConnectInfo<SocketAddr>,
    State(status): State<Arc<Status>>,
    headers: HeaderMap,
    body: Bytes,
) -> Response {
    let Command::Purge(key) = match admit(peer, &headers, &body, "forebay schema purge") {
        Ok(command) => command,
        Err(answer) => return answer,
    };
    let key = match key.map(|key| key.parse::<SchemaKey>()).transpose() {
        Ok(key) => key,
        Err(error) => {
            let refusal = Refusal::wrong(error.to_string(), "name a schema by its key");
            return refused(StatusCode::UNPROCESSABLE_ENTITY, &refusal);
        }
    };
    let purged = status.registry.purge(key.as_ref().map(SchemaKey::as_str));
    info!(purged, schema = key.map(|key| key.to_string()), "schemas are fetched again when they are needed");
    axum_json(&json!({"purged": purged}))
}

async fn of_registry(State(status): State<Arc<Status>>, Path(parts): Path<Vec<String>>) -> Response {
    registered(&status, &parts.join("/")).await
}

/// A schema from the registry.
async fn registered(status: &Status, key: &str) -> Response {
    let key = match key.parse::<SchemaKey>() {
        Ok(key) => key,
        Err(error) => {
            return (StatusCode::NOT_FOUND, format!("{error}; `/s` lists those there are\n")).into_response();
        }
    };
    let found = match status.registry.get(&key).await {
        Ok(found) => found,
        Err(fault) => {
            warn!(schema = %key, error = %fault, remedy = fault.remedy(), "a schema could not be fetched");
            return (StatusCode::SERVICE_UNAVAILABLE, format!("{fault}\n")).into_response();
        }
    };
    match &found.loaded {
        Loaded::Schema(found) => schema(found.text.clone()),
        Loaded::NotThere => {
            let said = format!("there is no schema `{key}`; `/s` lists those there are\n");
            (StatusCode::NOT_FOUND, said).into_response()
        }
        Loaded::Broken(why) => {
            let said = format!("what the registry has under `{key}` is no schema: {why}\n");
            (StatusCode::BAD_GATEWAY, said).into_response()
        }
    }
}

async fn list(State(status): State<Arc<Status>>) -> Response {
    let own = OWN.map(|((vendor, name, version), _)| entry(None, vendor, name, version));
    let mut schemas = own.to_vec();
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
    // Those that are listed twice are served from their source.
    match status.registry.chain().list(MAX_LISTED).await {
        Ok(keys) => {
            schemas.extend(keys.iter().map(|key| entry(None, key.vendor(), key.name(), key.version())))
        }
        Err(fault) => return failed(&fault),
    }
    axum_json(&json!({"schemas": schemas}))
}

async fn one(
    State(status): State<Arc<Status>>,
    Path((vendor, name, version)): Path<(String, String, String)>,
) -> Response {
    let asked = (vendor.as_str(), name.as_str(), version.as_str());
    if let Some((_, text)) = OWN.into_iter().find(|(key, _)| *key == asked) {
        return schema(text.to_owned());
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
    registered(&status, &format!("{vendor}/{name}/{version}")).await
}

fn entry(source: Option<&str>, vendor: &str, name: &str, version: &str) -> serde_json::Value {
    let name_in_path = match source {
        Some(_) => segment(name),
        None => name.to_owned(),
    };
    let path = format!("/s/{}/{name_in_path}/{version}", segment(vendor));
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

fn schema(text: impl Into<axum::body::Body>) -> Response {
    ([(header::CONTENT_TYPE, "application/schema+json")], text.into()).into_response()
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
        let own = ["/s/forebay/envelope/1-0-0", "/s/forebay/dead_letter/1-0-0"];
        assert_eq!(paths[..4], [own[0], own[1], &format!("{of_table}0"), &format!("{of_table}1")]);
        assert!(paths.contains(&"/s/io.forebay/arbitrary/1-0-0"), "{paths:?}");
        assert_eq!(listed["schemas"][3]["source"], "shop");
        let ask = async |vendor: &str, name: &str, version: &str| {
            let path = Path((vendor.to_owned(), name.to_owned(), version.to_owned()));
            body(one(State(status.clone()), path).await).await
        };
        let (code, kind, found) = ask("com.acme", name, "1-0-1").await;
        assert_eq!((code, kind.as_str(), &found["title"]), (200, "application/schema+json", &json!("1-0-1")));
        assert_eq!(ask("com.acme", name, "2-0-0").await.0, 404);
        assert_eq!(ask("..", "..", "1-0-0").await.0, 404);
        assert_eq!(ask("io.forebay", "arbitrary", "1-0-0").await.0, 200);
        let (vendor, name, version) = ENVELOPE_KEY;
        let (_, _, envelope) = ask(vendor, name, version).await;
        assert_eq!(envelope["$id"], format!("urn:{vendor}:{name}:{version}"));
    }
}
