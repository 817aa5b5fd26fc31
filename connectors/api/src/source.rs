//! The contract of a source.

use std::sync::Arc;

use async_trait::async_trait;
use tokio_util::sync::CancellationToken;

use crate::fault::Fault;
use crate::mark::Position;
use crate::outlet::{Committed, Outlet};
use crate::report::Report;
use crate::schema::Schemas;
use crate::snapshot::Snapshots;

/// Reads a database, a log or a listener and pushes what it reads.
///
/// What the core relies on:
/// - an event that is read again has the same stream, mark and id;
/// - marks never fall within a stream, but for repeats from the resume position on; a row of a snapshot that is read
///   again keeps its id and takes a later mark, the place of its new chunk in the stream;
/// - nothing is confirmed upstream that [`Committed`] has not shown;
/// - `run` returns soon after `stop` fires, having sent what it had decoded; the core drains it then.
#[async_trait]
pub trait Source: Send + 'static {
    /// Reads until `context.stop` fires or there is nothing left. Owns its loop, so that it can answer keep-alives
    /// and move its health while [`Outlet::send`] is held back. Called again, with a new context, after a
    /// retryable fault, once the generation before has ended.
    async fn run(&mut self, context: SourceContext) -> Result<(), Fault>;

    /// Whether its streams move between daemons, as the partitions of a consumer group do: then each generation takes
    /// their writing over from whoever had it ([`crate::Destination::take_over`]).
    fn is_shared(&self) -> bool {
        false
    }
}

/// What one run of a source gets. All of it belongs to one generation.
pub struct SourceContext {
    /// Where to resume; `None` when nothing was ever stored.
    pub resume: Option<Position>,
    /// Where to push.
    pub outlet: Outlet,
    /// What is stored, hence what may be confirmed upstream.
    pub committed: Committed,
    /// Fires when the source shall stop reading; what it sent is then drained.
    pub stop: CancellationToken,
    /// For the source to fire before it returns a fault: what it has sent belongs to another reader by now and must not
    /// be delivered here any more. The generation is then aborted instead of drained.
    pub abort: CancellationToken,
    /// Where it tells its health and figures.
    pub report: Report,
    /// What is copied, and how far it is.
    pub snapshots: Arc<dyn Snapshots>,
    /// The schemas that were generated for its tables.
    pub schemas: Arc<dyn Schemas>,
}
