//! The contract of a snapshot, the copy of what is there before changes are followed.
//!
//! The core decides what is copied and when, keeps how far each table is, and tells it ([`Snapshots`]); the source
//! divides a table into [`Range`]s and reads them chunk by chunk ([`SnapshotReader`]). A chunk takes its place in the
//! source's stream, so that marks ascend and changes made meanwhile win; how, is the source's own affair.
//!
//! Invariants: what remains of a range is stored only after the chunk before it is durable in every required
//! destination; a chunk that is read again, after a crash, brings the same rows under the same ids, or what became of
//! them. The progress is stored apart from the position: a chunk that is repeated harms nobody, and an old position
//! only repeats changes whose successors follow.

use std::sync::Arc;

use async_trait::async_trait;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use tokio::sync::watch;

use crate::claim::Ticket;
use crate::fault::Fault;

/// Whether what is already there is copied first.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
#[schemars(inline)]
pub enum SnapshotMode {
    /// Everything at the first start, and later each table that is added. Then the changes.
    #[default]
    Initial,
    /// Nothing: only changes from now on.
    Never,
    /// What is there, with the changes made meanwhile; then the daemon has nothing left to do.
    Only,
    /// As `initial`; and everything anew when changes were lost, because the slot or the log that held them is gone.
    WhenNeeded,
}

/// A table or collection that could be copied.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Table {
    /// As events and the configuration call it: `public.orders`.
    pub name: String,
    /// Tells it from another one that had this name before or has it later: that one was not copied.
    pub incarnation: String,
    /// How many rows it has, as far as the server knows without counting.
    pub estimated_rows: Option<u64>,
}

/// One table's copy that is under way.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TableCopy {
    /// The table's name.
    pub table: String,
    /// Which copy of it, from 1 on: part of the ids of its rows, so that a second copy is not taken for repeats.
    pub number: u32,
    /// Only the rows for which this holds, in the server's own language.
    pub filter: Option<String>,
}

/// A stretch of a table that is left to copy. Text of the source's own making, opaque to the core, which stores it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Range(pub String);

/// A table, made ready to be copied.
#[derive(Clone, Debug, Default)]
pub struct Division {
    /// Stretches that may be read side by side; together they are the table.
    pub ranges: Vec<Range>,
    /// One that is read after all others are durable: what has moved meanwhile and might have been missed.
    pub last: Option<Range>,
    /// How many rows there are, more or less.
    pub estimated_rows: Option<u64>,
}

/// One chunk that was read and sent.
#[derive(Debug)]
pub struct ChunkRead {
    /// What is left of the range; `None`: nothing.
    pub rest: Option<Range>,
    /// How many rows were sent.
    pub rows: u64,
    /// How many bytes of JSON they are.
    pub bytes: u64,
    /// Resolve when the rows are durable wherever they must be.
    pub tickets: Vec<Ticket>,
}

/// What a table's copy came to in the source's hands.
#[derive(Debug)]
pub enum ReadOutcome {
    /// A chunk was read and sent.
    Chunk(ChunkRead),
    /// The table was changed such that what was stored of its copy means nothing any more; it is divided anew.
    Divide,
    /// The table is gone, or is not read any more; its copy ends.
    Gone,
}

/// The source's side of a snapshot.
#[async_trait]
pub trait SnapshotReader: Send + Sync {
    /// Makes a table ready. `None`: it is gone.
    async fn divide(&self, copy: &TableCopy) -> Result<Option<Division>, Fault>;

    /// Reads the next chunk of a range and sends it in its place in the stream. Called for several ranges at once,
    /// for one range never twice at a time. Cancel-safe: nothing is durable that is not also repeatable.
    async fn read(&self, copy: &TableCopy, range: &Range) -> Result<ReadOutcome, Fault>;

    /// Told what comes, so that what is needed only meanwhile can be begun and given up. No [`SnapshotReader::read`] runs
    /// but while it is [`Activity::Copying`].
    async fn turn(&self, to: Activity) -> Result<(), Fault>;
}

/// What a source's snapshots are at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Activity {
    /// Chunks are read.
    Copying,
    /// Something is left to copy, and nothing of it is read for now: it is paused.
    Paused,
    /// Nothing is left to copy, and that is stored.
    Over,
}

/// What a source wants of [`Snapshots::run`].
#[derive(Clone, Debug)]
pub struct SnapshotPlan {
    /// What the configuration says.
    pub mode: SnapshotMode,
    /// How many chunks are read at the same time.
    pub parallel: usize,
    /// What the marks and ids of the copy belong to. Progress that was stored under another identity is of no use.
    pub identity: String,
    /// Nothing of the stream is stored yet, so that everything that is there is older than what will be read.
    pub first_start: bool,
    /// Changes were lost and the mode says that everything is copied anew.
    pub anew: bool,
}

/// The core's side of a snapshot: which tables are copied, when, and how far they are.
#[async_trait]
pub trait Snapshots: Send + Sync {
    /// Copies what has to be copied, stores the progress, obeys the operator's commands. Runs beside the stream until
    /// it is dropped; returns only by a fault, or with mode `only` when everything is copied and durable.
    ///
    /// `tables` are those that the stream brings changes of; a new value brings in tables that were added.
    async fn run(
        &self,
        plan: SnapshotPlan,
        tables: watch::Receiver<Vec<Table>>,
        reader: Arc<dyn SnapshotReader>,
    ) -> Result<(), Fault>;
}
