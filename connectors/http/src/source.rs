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
mod commit;
pub mod config;
mod connection;
mod cors;
mod fresh;
pub mod gathered;
pub mod hosts;
mod limiter;
mod listener;
mod networks;
mod plan;
pub mod request;
mod router;
mod run;
mod server;
pub mod snowplow;
mod subjects;
pub mod text;
mod tls;
mod unreadable;

pub use answer::Answer;
pub use gathered::{Gathered, Tracked};
pub use request::Request;
pub use run::HttpSource;
