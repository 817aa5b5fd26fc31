//! Forebay: one small daemon that turns the changes of a database into self-describing JSON events and delivers each
//! of them to every place that needs it, without losing one.
//!
//! ```text
//!    river                        forebay                               turbines
//!  ┌──────────┐   ┌────────────────────────────────────────────────┐   ┌───────────┐
//!  │          │   │ source ─outlet▶ stage ────queue▶ lane ─deliver─├─▶ │ Kafka     │
//!  │ Postgres ├─▶ │   ▲    (bytes)  (encode  └─queue▶ lane ────────├─▶ │ Postgres  │
//!  │          │   │   │              once)         │               │   │ files     │
//!  └──────────┘   │   └─committed─ checkpoint ◀─ ledger            │   └───────────┘
//!                 └────────────────────────────────────────────────┘
//! ```
//! Every arrow to the right is a bounded channel; acknowledgements run back to the left.
//!
//! # The ten stops of one event
//!
//! 1. The **reader** of the PostgreSQL source takes its bytes off the wire (`forebay_postgres::source`).
//! 2. The decoder writes its parts as JSON into a [`Chunk`](forebay_api::Chunk), with its mark.
//! 3. The [`Outlet`](forebay_api::Outlet) waits until there is memory for the chunk, and makes a claim.
//! 4. The [`stage`] judges it by its schema ([`validation`]), encodes the chunk once for each format that is wanted ([`mod@format`]) …
//! 5. … opens the send in the [`ledger`], and queues it for every lane whose [`filter`] lets it pass.
//! 6. A [`lane`] joins what is queued into a [`Delivery`](forebay_api::Delivery).
//! 7. The destination writes it and accepts each record as it becomes durable (`forebay_kafka`, …).
//! 8. The lane settles the send in the ledger: by acceptance, or by a stored dead letter ([`dead_letters`]).
//! 9. When everything before it is settled too, the position leaves the ledger and is stored ([`checkpoint`]).
//! 10. The stored position is published, and the source confirms it upstream.
//!
//! With a journal (`forebay_journal`, `forebay_kafka`) that happens twice: from the source into the journal, a destination
//! of its pipeline, and from there, a source of another pipeline for each destination. [`daemon`] plans pipelines from the
//! configuration; nothing in between knows of journals.
//!
//! A row that was there before the stream takes the same way: [`snapshot`] decides which tables are copied and keeps how
//! far each is, the source reads them by chunks (`forebay_postgres::source`, `snapshot`) and gives each chunk its place
//! in the stream, at the first stop.
//!
//! # Words
//!
//! **Event**: one thing that happened, as a source read it. **Record**: an event after the stage; what destinations
//! write. **Chunk**: events that a source sends together. **Mark**: where an event stands in its stream, the same
//! whenever it is read again. **Position**: where a source can resume, opaque to all others. **Claim**: what the
//! pipeline owes the source for a send. **Delivery**: one destination's progress through some records. **Lane**: one
//! source's records on their way into one destination. **Ledger**: which sends are settled, hence how far the
//! checkpoint may move. **Fault**: an error that has been judged, retryable or fatal. **Generation**: one run of a
//! source and all that hangs on it.
//!
//! # Reading order
//!
//! [`ledger`] (pure, the heart) · [`stage`] · [`validation`] · [`lane`] · [`dead_letters`] · [`pipeline`] (wires them) · [`supervise`] · [`checkpoint`] ·
//! [`snapshot`] · [`schemas`] · [`state`] (what else is kept) · [`daemon`] (from a configuration to running pipelines) · [`admin`] · [`config`] · [`cli`].

pub mod admin;
pub mod checkpoint;
pub mod cli;
pub mod config;
pub mod connectors;
pub mod daemon;
pub mod dead_letters;
#[cfg(feature = "demo")]
pub mod demo;
pub mod filter;
pub mod format;
pub mod lane;
pub mod ledger;
#[cfg(all(test, feature = "postgres", feature = "kafka", feature = "file"))]
mod manual;
pub mod pipeline;
pub mod privacy;
pub mod schemas;
pub mod shutdown;
pub mod snapshot;
pub mod stage;
pub mod state;
pub mod supervise;
pub mod telemetry;
pub mod validation;
