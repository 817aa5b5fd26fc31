//! The contract of a destination.

use std::num::NonZeroUsize;

use async_trait::async_trait;

use crate::delivery::Delivery;
use crate::fault::Fault;
use crate::mark::{Mark, StreamId};

/// Writes records where they belong. Built once and shared by the lanes of all sources, so what it keeps for a
/// stream it keys by [`StreamId`].
///
/// What the core relies on:
/// - a record is accepted only when it is durable by the destination's own definition, which its documentation
///   states;
/// - records of one partition key become visible in the order they were delivered, and what was handed over
///   earlier never lands behind what is handed over later;
/// - it does not retry on its own: it returns the fault, and the lane retries what is still open;
/// - dead letters are replayed under streams of their own, of the same source, whose marks count up from what it says it
///   holds of them; their records bear the ids of the streams that they came from;
/// - it may be dropped at any await unless [`Destination::interruptible`] says otherwise.
#[async_trait]
pub trait Destination: Send + Sync + 'static {
    /// Connects and makes sure that it can write. Called until it succeeds before the first delivery, and again
    /// after a delivery failed with a fault. Must be cheap when all is well.
    async fn open(&self) -> Result<(), Fault> {
        Ok(())
    }

    /// The highest mark of a stream that is stored together with the data. The lane (not each connector) strikes
    /// off what is not above it, at the start of a generation and after every failed attempt. The first call for a
    /// stream may also take over its writing from a daemon that wrote it before.
    async fn held(&self, stream: &StreamId) -> Result<Option<Mark>, Fault> {
        let _ = stream;
        Ok(None)
    }

    /// Like [`Destination::held`], for a stream that moves between daemons: it is ours now, whoever had it before, and be
    /// it that we had it, lost it and have it again. The first call for such a stream in each generation. That somebody
    /// else has taken it over since is a retryable fault then, for our source will hear of it.
    async fn take_over(&self, stream: &StreamId) -> Result<Option<Mark>, Fault> {
        self.held(stream).await
    }

    /// Writes every record still open, settling each as it becomes durable. On a fault, what was settled counts
    /// and the rest is delivered again. Returning `Ok` with records still open is treated as a retryable fault.
    async fn deliver(&self, delivery: Delivery) -> Result<(), Fault>;

    /// Called once, when nothing will be delivered any more: close files, leave groups.
    async fn close(&self) -> Result<(), Fault> {
        Ok(())
    }

    /// How many deliveries may run at once. More than 1 only where the client keeps their order even when one of
    /// them fails; the lane then delivers all later ones again after a failed one.
    fn max_in_flight(&self) -> NonZeroUsize {
        NonZeroUsize::MIN
    }

    /// Whether a running `deliver` may be dropped when it takes longer than the lane's timeout. `false` where what
    /// was handed over stays in a client's queue (Kafka): a second attempt would land behind later records. The
    /// lane then only warns.
    fn interruptible(&self) -> bool {
        true
    }
}
