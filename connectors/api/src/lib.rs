//! The contract between Forebay's core and its connectors.
//!
//! A **source** reads a database or a listener and pushes [`Chunk`]s of events into its [`Outlet`]; a
//! **destination** is handed [`Delivery`]s of [`Record`]s and settles each as it becomes durable. Everything
//! between the two (validation, encoding, queues, retries, dead letters, checkpoints) is the core's.
//!
//! ```text
//!  Source ──send(Chunk, Position)──▶ Outlet ══▶ core ══▶ Delivery ──deliver──▶ Destination
//!     ▲                                                      │
//!     └──────────── Committed ◀── checkpoint ◀── ledger ◀── accept / reject
//! ```
//!
//! Reading order: [`mark`] (where an event stands), [`chunk`] (how events travel), [`outlet`] and [`claim`]
//! (what a send owes), [`source`], [`snapshot`], [`delivery`] and [`destination`], [`fault`] (how errors are judged),
//! [`registry`] (how a connector is found by its configuration). `docs/connectors.md` is the guide.
//!
//! Deliberately absent: a runtime, retries, timers, files. They belong to the core; a connector that brings its
//! own breaks the promises that the core makes for all of them.

pub mod batch;
pub mod budget;
pub mod chunk;
pub mod claim;
pub mod delivery;
pub mod destination;
pub mod fault;
pub mod in_turn;
pub mod journal;
pub mod json;
pub mod mark;
pub mod outlet;
pub mod registry;
pub mod report;
pub mod routes;
pub mod schema;
pub mod schema_key;
pub mod schema_store;
pub mod snapshot;
pub mod source;
pub mod step;
pub mod template;
#[cfg(feature = "testing")]
pub mod testing;
pub mod units;
pub mod verdict;

pub use batch::{Batch, Encoded, Record};
pub use budget::{Budget, Permit};
pub use chunk::{Chunk, Draft, Event, Op, Row, Span, Subject};
pub use claim::{Claim, Ticket};
pub use delivery::{Delivery, Part, Piece, Progress, Rejection, Settled};
pub use destination::Destination;
pub use fault::{Blame, Fault};
pub use in_turn::InTurn;
pub use journal::{
    Journal, JournalConnector, JournalSetting, JournalStatus, ReaderSetting, ReaderStatus, Since, Start,
};
pub use mark::{Mark, Position, StreamId};
pub use outlet::{Closed, Committed, Inlet, Outlet};
pub use registry::{
    DestinationConnector, DestinationSetting, Finding, Initial, Mistake, Registry, SourceConnector,
    SourceSetting,
};
pub use report::{Measure, Report};
pub use routes::Routes;
pub use schema::{KeptSchema, SchemaChange, SchemaVersion, Schemas};
pub use schema_key::{NotASchemaKey, SchemaKey};
pub use schema_store::{
    MAX_SCHEMA_BYTES, SchemaStore, SchemaStoreConnector, SchemaStoreEntry, SchemaStoreSetting,
};
pub use snapshot::{
    Activity, ChunkRead, Division, Range, ReadOutcome, SnapshotMode, SnapshotPlan, SnapshotReader, Snapshots,
    Table, TableCopy,
};
pub use source::{Source, SourceContext};
pub use verdict::{Invalid, InvalidDetail, Verdict};
