//! `POST /orders`: what an operator has the daemon do with its pipelines: `forebay reload`, `replay`, `journal forget`.

use std::net::SocketAddr;
use std::sync::Arc;

use axum::Router;
use axum::body::Bytes;
use axum::extract::{ConnectInfo, DefaultBodyLimit, State};
use axum::http::{HeaderMap, StatusCode};
use axum::response::Response;
use axum::routing::post;

use super::command::{admit, refused};
use super::{Status, axum_json};
use crate::daemon::order::Order;

/// The longest list of keys that somebody writes is shorter.
const BODY_BYTES: usize = 1 << 20;

/// The route.
pub(super) fn routes() -> Router<Arc<Status>> {
    Router::new().route("/orders", post(order)).layer(DefaultBodyLimit::max(BODY_BYTES))
}

async fn order(
    ConnectInfo(peer): ConnectInfo<SocketAddr>,
    State(status): State<Arc<Status>>,
    headers: HeaderMap,
    body: Bytes,
) -> Response {
    let order: Order = match admit(peer, &headers, &body, "forebay reload") {
        Ok(order) => order,
        Err(answer) => return answer,
    };
    match status.orders.give(order).await {
        Ok(done) => axum_json(&done),
        Err(refusal) if refusal.wrong => refused(StatusCode::UNPROCESSABLE_ENTITY, &refusal),
        Err(refusal) => refused(StatusCode::CONFLICT, &refusal),
    }
}
