//! Brings records of letters to a destination, outside of any queue: under a stream of their own, with marks that count
//! up from what the destination holds of it, so that it neither strikes them off nor mistakes them for newer events.

use std::sync::Arc;
use std::time::Duration;

use forebay_api::{Batch, Delivery, Destination, Fault, Mark, Progress, StreamId, delivery, step};

use crate::lane::{BatchLimits, Retry};

/// How records of letters are delivered.
#[derive(Clone)]
pub struct Courier {
    /// Where to.
    pub destination: Arc<dyn Destination>,
    /// How much goes into one delivery.
    pub batch: BatchLimits,
    /// How long an attempt may take, where it can be taken back.
    pub timeout: Duration,
    /// When to try again.
    pub retry: Retry,
}

impl Courier {
    /// One attempt at `count` records, of which `make` gives the one of a number under a mark: how it ended, and how far
    /// each is. Each record is a chunk of its own, because each has its own time of receipt.
    pub(super) async fn attempt(
        &self,
        stream: &Arc<StreamId>,
        count: usize,
        make: impl Fn(usize, Mark) -> Result<Batch, Fault>,
    ) -> Result<(Result<(), Fault>, Progress), Fault> {
        let opening = async {
            self.destination.open().await?;
            // Daemons that share a source share this stream too, and each writes it now and then.
            self.destination.take_over(stream).await
        };
        let opening = tokio::time::timeout(self.timeout, opening).await;
        let held = match opening.unwrap_or_else(|_| Err(self.too_slow("opening the destination"))) {
            Ok(held) => held.unwrap_or(Mark::MIN),
            Err(fault) => return Ok((Err(fault), Progress::new(count))),
        };
        let mut parts = Vec::with_capacity(count);
        for (index, above) in (0..count).zip(1..) {
            let mark = Mark { major: (held.major.0, held.major.1 + above), minor: 0, part: 0 };
            let batch = Arc::new(make(index, mark)?);
            parts.push(delivery::Part { batch, rows: Arc::new([0]), range: 0..1 });
        }
        let (delivery, back) = Delivery::new(parts.into(), 0, Progress::new(count));
        let result = if self.destination.interruptible() {
            let attempt = tokio::time::timeout(self.timeout, self.destination.deliver(delivery)).await;
            attempt.unwrap_or_else(|_| Err(self.too_slow("delivering dead letters")))
        } else {
            self.destination.deliver(delivery).await
        };
        let progress = back.await.expect("a delivery gives back what it settled when it is dropped");
        step!("dead-letter-delivered");
        Ok((result, progress))
    }

    fn too_slow(&self, doing: &str) -> Fault {
        Fault::retryable(doing, format!("no answer within {:?}", self.timeout))
    }
}
