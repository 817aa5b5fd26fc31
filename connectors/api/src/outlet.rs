//! Where a source pushes: [`Outlet`] waits for memory and room, [`Committed`] tells what is stored.
//!
//! Outlet, ledger, queues and one run of the source form a *generation*. When the run ends, the generation is
//! drained or aborted, and a new one begins with a new outlet: nothing crosses, so positions never go back.

use tokio::sync::{mpsc, oneshot, watch};
use tokio_util::sync::CancellationToken;

use crate::budget::Budget;
use crate::chunk::Chunk;
use crate::claim::{Claim, Ticket};
use crate::mark::Position;

/// How many sends may wait between a source and the stage. Bytes are bounded by the budget; this only keeps the
/// source from running far ahead of the stage with tiny chunks.
const SLOTS: usize = 64;

/// The pipeline takes nothing more: the generation ends, or the source was told to stop while it waited.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the pipeline is closed")]
pub struct Closed;

/// A source's way into its pipeline. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Outlet {
    budget: Budget,
    chunks: mpsc::Sender<(Chunk, Claim)>,
    stop: CancellationToken,
}

/// The pipeline's end of an [`Outlet`].
#[derive(Debug)]
pub struct Inlet(mpsc::Receiver<(Chunk, Claim)>);

impl Outlet {
    /// An outlet and its other end. `stop` is the generation's: it ends a wait for memory.
    pub fn new(budget: Budget, stop: CancellationToken) -> (Outlet, Inlet) {
        let (chunks, receiver) = mpsc::channel(SLOTS);
        (Outlet { budget, chunks, stop }, Inlet(receiver))
    }

    /// Waits for byte budget, then for a slot, or until stop. `Some(position)`: everything before it is in this or
    /// an earlier send (later events may be too: they come again with the same marks). An empty chunk with a
    /// position is a heartbeat; it keeps its place behind everything sent before it.
    ///
    /// Marks ascend from send to send, whoever sends: the pipeline refuses a chunk that does not, for a destination
    /// that keeps marks would take it for one that it has. And the latest position counts whole, so a source with
    /// several cursors has one owner of positions, which puts them together.
    pub async fn send(&self, chunk: Chunk, position: Option<Position>) -> Result<(), Closed> {
        self.push(chunk, position, None).await
    }

    /// The same, with a future that says when the events are durable: an HTTP source answers from it.
    pub async fn send_ticketed(&self, chunk: Chunk, position: Option<Position>) -> Result<Ticket, Closed> {
        let (sender, receiver) = oneshot::channel();
        self.push(chunk, position, Some(sender)).await?;
        Ok(Ticket(receiver))
    }

    async fn push(
        &self,
        chunk: Chunk,
        position: Option<Position>,
        ticket: Option<oneshot::Sender<()>>,
    ) -> Result<(), Closed> {
        let bytes = chunk.weight().max(MIN_WEIGHT);
        let permit = tokio::select! {
            biased;
            permit = self.budget.take(bytes) => permit,
            () = self.stop.cancelled() => return Err(Closed),
            () = self.chunks.closed() => return Err(Closed),
        };
        let claim = Claim::new(position, permit, ticket);
        self.chunks.send((chunk, claim)).await.map_err(|_| Closed)
    }
}

/// What a send costs at least, however small: the queue entries and bookkeeping it brings. It bounds the number
/// of sends in a pipeline by its budget.
pub const MIN_WEIGHT: usize = 1024;

impl Inlet {
    /// The next send; `None` when every outlet is gone and all they sent has been taken.
    pub async fn receive(&mut self) -> Option<(Chunk, Claim)> {
        self.0.recv().await
    }
}

/// The latest position that is stored in the checkpoint. Whatever a source confirms upstream, it confirms this,
/// never more.
#[derive(Clone, Debug)]
pub struct Committed(watch::Receiver<Option<Position>>);

impl Committed {
    /// The core publishes through the sender, after it has stored.
    pub fn new(receiver: watch::Receiver<Option<Position>>) -> Committed {
        Committed(receiver)
    }

    /// What is stored now; `None` before the first save of this generation.
    pub fn latest(&self) -> Option<Position> {
        self.0.borrow().clone()
    }

    /// Waits until something newer is stored than this value has seen. `Closed` when the generation ended.
    pub async fn changed(&mut self) -> Result<Option<Position>, Closed> {
        self.0.changed().await.map_err(|_| Closed)?;
        Ok(self.0.borrow_and_update().clone())
    }
}
