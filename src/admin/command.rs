//! What every command to the admin server must satisfy, and how one is refused.
//!
//! The admin server has no password: so commands are taken from this machine only (in a container, from inside of it),
//! wherever the server listens. And a page in a browser on this machine must not reach it: a browser names itself by
//! `Origin` whenever it posts, and asks first before it posts JSON. Both are refused, also where the page's own name leads
//! to this address.

use std::net::SocketAddr;

use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde::de::DeserializeOwned;
use serde_json::json;

use super::axum_json;
use crate::snapshot::Refusal;

/// The command in a request, if it may be given; `instead` is what to run on the daemon's machine.
#[expect(clippy::result_large_err, reason = "an answer is returned once a command")]
pub(super) fn admit<C: DeserializeOwned>(
    peer: SocketAddr,
    headers: &HeaderMap,
    body: &[u8],
    instead: &str,
) -> Result<C, Response> {
    if !peer.ip().to_canonical().is_loopback() {
        let refusal = Refusal::not_now(
            format!(
                "commands are taken from the daemon's own machine, and this one comes from {}",
                peer.ip()
            ),
            format!("run `{instead}` there; in a container by `docker exec` or `kubectl exec`"),
        );
        return Err(refused(StatusCode::FORBIDDEN, &refusal));
    }
    if headers.contains_key(header::ORIGIN) {
        let refusal = Refusal::wrong("a page in a browser commands nothing here", format!("use `{instead}`"));
        return Err(refused(StatusCode::FORBIDDEN, &refusal));
    }
    if !is_json(headers) {
        let refusal = Refusal::wrong("the content is not `application/json`", format!("use `{instead}`"));
        return Err(refused(StatusCode::UNSUPPORTED_MEDIA_TYPE, &refusal));
    }
    serde_json::from_slice(body).map_err(|error| {
        let refusal = Refusal::wrong(
            format!("it is no command: {error}"),
            "let the `forebay` that asks have the version of the daemon",
        );
        refused(StatusCode::BAD_REQUEST, &refusal)
    })
}

fn is_json(headers: &HeaderMap) -> bool {
    let content = headers.get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok());
    let media = content.and_then(|content| content.split(';').next());
    media.is_some_and(|media| media.trim().eq_ignore_ascii_case("application/json"))
}

/// The answer to a command that is not obeyed.
pub(super) fn refused(status: StatusCode, refusal: &Refusal) -> Response {
    (status, axum_json(&json!(refusal))).into_response()
}
