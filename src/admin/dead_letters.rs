//! `POST /dead_letters`: what an operator does with letters while the daemon runs. They are looked at in their files.

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
use crate::dead_letters::{DeadLetters, ReplayProgress, Selection};
use crate::snapshot::Refusal;

/// Some thousand ids.
const BODY_BYTES: usize = 1 << 20;

/// What is asked for: `{"destination": "lake", "command": {"replay": {"reason": "too_large"}}}`.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Request {
    /// Whose letters.
    pub destination: String,
    /// What to do.
    pub command: Command,
}

/// What can be done.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum Command {
    /// Begin to deliver letters again; answered by the progress.
    Replay(Selection),
    /// How far the last replay is.
    Progress,
    /// Give letters up; answered by how many there were.
    Drop(Selection),
}

/// What was done.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Done {
    /// A replay has begun, or this is how far it is.
    Replay(ReplayProgress),
    /// So many letters are given up.
    Dropped(u64),
}

/// The route.
pub(super) fn routes() -> Router<Arc<Status>> {
    Router::new().route("/dead_letters", post(command)).layer(DefaultBodyLimit::max(BODY_BYTES))
}

async fn command(
    ConnectInfo(peer): ConnectInfo<SocketAddr>,
    State(status): State<Arc<Status>>,
    headers: HeaderMap,
    body: Bytes,
) -> Response {
    let request: Request = match admit(peer, &headers, &body, "forebay dlq") {
        Ok(request) => request,
        Err(answer) => return answer,
    };
    let named = |letters: &&Arc<DeadLetters>| **letters.destination() == *request.destination;
    let all = status.dead_letters();
    let Some(letters) = all.iter().find(named) else {
        return refused(StatusCode::NOT_FOUND, &unknown(&status, &request.destination));
    };
    match perform(&status, letters, request.command).await {
        Ok(done) => axum_json(&json!(done)),
        Err(refusal) => refused(StatusCode::CONFLICT, &refusal),
    }
}

async fn perform(status: &Status, letters: &Arc<DeadLetters>, command: Command) -> Result<Done, Refusal> {
    match command {
        Command::Replay(selection) => {
            let name = &**letters.destination();
            let sources = status.sources();
            let fed = sources.iter().filter(|source| source.lanes().any(|lane| lane.name == name));
            let sources: Vec<String> = fed.map(|source| source.name.clone()).collect();
            letters.begin_replay(selection, Some(&sources)).await.map(Done::Replay)
        }
        Command::Progress => letters.replay_progress().map(Done::Replay).ok_or_else(|| {
            Refusal::not_now(
                "nothing was replayed since the daemon started",
                "begin with `forebay dlq replay`",
            )
        }),
        Command::Drop(selection) => {
            letters.drop_selected(selection).await.map(Done::Dropped).map_err(|fault| {
                Refusal::not_now(fault.to_string(), fault.remedy().unwrap_or("say it again").to_owned())
            })
        }
    }
}

fn unknown(status: &Status, destination: &str) -> Refusal {
    let all = status.dead_letters();
    let names = all.iter().map(|letters| format!("`{}`", letters.destination()));
    Refusal::wrong(
        format!("the daemon has no destination `{destination}`"),
        format!(
            "name one of {}; letters of one that is not configured any more can be dropped while no daemon runs",
            names.collect::<Vec<_>>().join(", ")
        ),
    )
}
