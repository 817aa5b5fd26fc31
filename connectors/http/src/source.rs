//! The collector. One request is read whole, one input makes events of it, and the answer leaves when they are durable.
//!
//! ```text
//!  listener ─▶ connection ─▶ server ─▶ router ─▶ input ─▶ Gathered ─▶ committer ═▶ Outlet
//!                               ▲                                         │
//!                               └──────────── durable, or not ◀── Ticket ─┘
//! ```
//! What trackers do decides the answers: 2xx is success, 400, 401, 403, 410 and 422 are never sent again, all else is.
//! So a bad event gets 200 and is an invalid event, and 503 is for what cannot be stored now.
//!
//! Invariants: no answer of success leaves before the pipeline has said that all events of its request are durable. Each
//! request becomes events, valid or not, or gets an answer that says what is wrong with it. Nothing here is without a
//! limit: connections, heads, bodies, what they inflate to, what waits, and how long.
//!
//! Reading order: `config`, `plan` (the configuration, validated), `listener`, `connection`, `activity` (too slow, idle),
//! `server` (one request), `body`, `router`, [`request`], the inputs (`snowplow`), [`gathered`], `commit`.

mod activity;
pub mod answer;
mod body;
pub mod cloudevents;
mod commit;
pub mod config;
mod connection;
mod cors;
pub mod enrich;
pub mod entities;
pub mod event_id;
pub mod form;
mod fresh;
pub mod gathered;
pub mod header_text;
pub mod hosts;
pub mod json;
mod limiter;
mod listener;
pub mod media_type;
pub mod mount;
mod networks;
pub mod object;
pub mod own_schemas;
pub mod pixel;
mod plan;
pub mod redirect;
pub mod request;
#[cfg(test)]
mod rig;
mod router;
mod run;
pub mod secret;
pub mod self_describing;
mod server;
pub mod snowplow;
mod subjects;
#[cfg(test)]
mod testing;
pub mod text;
mod tls;
pub mod unreadable;
pub mod webhook;

pub use answer::Answer;
pub use gathered::{Gathered, Tracked};
pub use request::Request;
pub use run::HttpSource;
