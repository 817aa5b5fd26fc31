//! Validation: is an event what the schema that it names says?
//!
//! ```text
//!  chunk ─▶ judge ─at hand?─▶ cache ─fetch─▶ chain ─▶ file │ iglu │ http │ s3 │ … │ embedded
//!             │                  ▲ compiled     │ bytes
//!  verdicts ◀─┘                  └──── schema ◀─┘  (meta-schema, references within the registry)
//! ```
//! The `judge` is synchronous while all schemas are at hand; the `cache` keeps them compiled; the `chain` is the
//! registry; `schema` makes a validator of what a store answers; `document` parses an event once, in place, and
//! keeps every digit of its numbers.

mod cache;
mod chain;
mod document;
mod embedded;
mod failure;
mod judge;
mod node;
mod number;
mod schema;
mod stores;
#[cfg(test)]
mod tests;

pub use cache::{CacheLimits, Entry, SchemaCache};
pub use chain::{Chain, Link};
pub use judge::{Contract, Judge, Rules, Unknown, WAITS};
pub use schema::{Loaded, Schema};
pub use stores::{build_chain, build_store};
