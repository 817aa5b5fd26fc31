//! `POST /snapshot`: what an operator commands, from `forebay snapshot` or from a script.
//!
//! A condition is SQL that the source's role runs, so only who is on the daemon's machine may command: see `command`.

use std::net::SocketAddr;
use std::sync::Arc;

use axum::Router;
use axum::body::Bytes;
use axum::extract::{ConnectInfo, DefaultBodyLimit, State};
use axum::http::{HeaderMap, StatusCode};
use axum::response::Response;
use axum::routing::post;
use serde::{Deserialize, Serialize};
use serde_json::json;

use super::command::{admit, refused};
use super::{Status, axum_json};
use crate::snapshot::{Command, Refusal, SnapshotDesk};

/// The longest filter that somebody writes is shorter.
const BODY_BYTES: usize = 64 << 10;

/// What is asked for: `{"source": "shop", "command": {"start": {"table": "public.orders"}}}`.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Request {
    /// Whose tables; may be left out where there is one source.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub source: Option<String>,
    /// What to do.
    pub command: Command,
}

/// What was done.
#[derive(Debug, Serialize, Deserialize)]
pub struct Done {
    /// A sentence.
    pub done: String,
}

/// The route.
pub(super) fn routes() -> Router<Arc<Status>> {
    Router::new().route("/snapshot", post(command)).layer(DefaultBodyLimit::max(BODY_BYTES))
}

async fn command(
    ConnectInfo(peer): ConnectInfo<SocketAddr>,
    State(status): State<Arc<Status>>,
    headers: HeaderMap,
    body: Bytes,
) -> Response {
    let request: Request = match admit(peer, &headers, &body, "forebay snapshot") {
        Ok(request) => request,
        Err(answer) => return answer,
    };
    let desk = match desk(&status, request.source.as_deref()) {
        Ok(desk) => desk,
        Err(refusal) => return refused(StatusCode::NOT_FOUND, &refusal),
    };
    match desk.command(request.command).await {
        Ok(done) => axum_json(&json!(Done { done })),
        Err(refusal) if refusal.wrong => refused(StatusCode::UNPROCESSABLE_ENTITY, &refusal),
        Err(refusal) => refused(StatusCode::CONFLICT, &refusal),
    }
}

fn desk(status: &Status, source: Option<&str>) -> Result<Arc<SnapshotDesk>, Refusal> {
    let sources = status.sources();
    let known = || sources.iter().map(|source| format!("`{}`", source.name)).collect::<Vec<_>>().join(", ");
    match (source, &*sources) {
        (None, [only]) => Ok(only.snapshots.clone()),
        (None, _) => Err(Refusal::wrong(
            "there are several sources",
            format!("name one of {} with `--source`", known()),
        )),
        (Some(name), _) => {
            let source = sources.iter().find(|source| source.name == name);
            let error =
                || Refusal::wrong(format!("there is no source `{name}`"), format!("name one of {}", known()));
            source.map(|source| source.snapshots.clone()).ok_or_else(error)
        }
    }
}

#[cfg(test)]
mod tests {
    use axum::http::{HeaderValue, header};
    use serde_json::Value;

    use super::super::tests::healthy;
    use super::*;

    async fn posted(status: Status, headers: &[(header::HeaderName, &str)], body: &str) -> (u16, Value) {
        posted_from("[::ffff:127.0.0.1]:5", status, headers, body).await
    }

    async fn posted_from(
        peer: &str,
        status: Status,
        headers: &[(header::HeaderName, &str)],
        body: &str,
    ) -> (u16, Value) {
        let headers: HeaderMap = headers
            .iter()
            .map(|(name, value)| (name.clone(), HeaderValue::from_str(value).unwrap()))
            .collect();
        let (peer, body) = (ConnectInfo(peer.parse().unwrap()), Bytes::copy_from_slice(body.as_bytes()));
        let response = command(peer, State(Arc::new(status)), headers, body).await;
        let code = response.status().as_u16();
        let body = axum::body::to_bytes(response.into_body(), BODY_BYTES).await.unwrap();
        (code, serde_json::from_slice(&body).unwrap())
    }

    const JSON: (header::HeaderName, &str) = (header::CONTENT_TYPE, "application/json; charset=utf-8");
    const PAUSE: &str = r#"{"source":"shop","command":{"pause":{}}}"#;

    #[tokio::test]
    async fn commands_are_taken_from_this_machine_only() {
        for peer in ["10.0.0.7:5", "[2001:db8::1]:5", "[::ffff:10.0.0.7]:5"] {
            let (code, said) = posted_from(peer, healthy(1), &[JSON], PAUSE).await;
            assert_eq!((code, &said["wrong"]), (403, &json!(false)), "{said}");
        }
        assert_eq!(posted_from("[::1]:5", healthy(1), &[JSON], PAUSE).await.0, 409);
    }

    #[tokio::test]
    async fn a_page_in_a_browser_is_refused_whatever_it_sends() {
        let origin = (header::ORIGIN, "http://127.0.0.1:9080");
        assert_eq!(posted(healthy(1), &[JSON, origin], PAUSE).await.0, 403);
        for form in ["text/plain", "application/x-www-form-urlencoded", "text/plain; application/json"] {
            assert_eq!(posted(healthy(1), &[(header::CONTENT_TYPE, form)], PAUSE).await.0, 415);
        }
        assert_eq!(posted(healthy(1), &[], PAUSE).await.0, 415);
    }

    #[tokio::test]
    async fn what_is_no_command_or_is_of_no_source_is_refused_with_what_to_do() {
        for body in ["", "{}", r#"{"command":{"destroy":{}}}"#, r#"{"command":{"pause":{"tabel":"a"}}}"#] {
            let (code, said) = posted(healthy(1), &[JSON], body).await;
            assert_eq!((code, &said["wrong"]), (400, &json!(true)), "{body}");
        }
        let (code, said) = posted(healthy(1), &[JSON], r#"{"source":"x","command":{"pause":{}}}"#).await;
        assert_eq!((code, said["remedy"].as_str()), (404, Some("name one of `shop`")));
        assert_eq!(posted(healthy(2), &[JSON], r#"{"command":{"pause":{}}}"#).await.0, 404);
        // the one source is meant, and is not being read
        let (code, said) = posted(healthy(1), &[JSON], r#"{"command":{"pause":{}}}"#).await;
        assert_eq!((code, &said["wrong"]), (409, &json!(false)));
    }

    #[tokio::test]
    async fn what_the_command_line_sends_is_understood_on_the_way_there_and_back() {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let authority = listener.local_addr().unwrap().to_string();
        let end = tokio_util::sync::CancellationToken::new();
        let serving = tokio::spawn(crate::admin::serve(listener, Arc::new(healthy(1)), end.clone()));
        let filter = Some("name = 'é'".to_owned());
        let command = Command::Start { table: "public.*".to_owned(), filter };
        let request = serde_json::to_string(&Request { source: Some("shop".to_owned()), command }).unwrap();
        let (code, body) = crate::admin::ask::post(&authority, "/snapshot", &request).await.unwrap();
        let refusal: Refusal = serde_json::from_str(&body).unwrap();
        assert_eq!((code, refusal.wrong), (409, false), "{refusal:?}");
        let long = request.replace('é', &"é".repeat(BODY_BYTES));
        assert_eq!(crate::admin::ask::post(&authority, "/snapshot", &long).await.unwrap().0, 413);
        let (code, _) = crate::admin::ask::get(&authority, "/s/forebay/envelope/1-0-0").await.unwrap();
        assert_eq!(code, 200);
        end.cancel();
        serving.await.unwrap();
    }
}
