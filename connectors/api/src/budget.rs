//! Memory bounded in bytes: a [`Budget`] is taken before data enters a pipeline and given back when the last
//! lane that owes it has settled it.
//!
//! Invariant: `used` is the sum of all live permits. It passes `limit` only by [`Permit::add`] (what encoding
//! adds is a debt that holds back the next `take`) and by one value that is larger than the whole budget, which
//! waits until the pipeline is empty and passes alone.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use tokio::sync::{Mutex, Notify};

/// A number of bytes that may be in memory at once. Cheap to clone; clones share the count.
#[derive(Clone, Debug)]
pub struct Budget(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    limit: AtomicUsize,
    used: AtomicUsize,
    /// Held by the one taker that is next in line, so that a large one is not starved by small ones.
    line: Mutex<()>,
    freed: Notify,
}

impl Budget {
    /// A budget of `limit` bytes.
    pub fn new(limit: usize) -> Budget {
        Budget(Arc::new(Shared {
            limit: AtomicUsize::new(limit),
            used: AtomicUsize::new(0),
            line: Mutex::new(()),
            freed: Notify::new(),
        }))
    }

    /// Waits in line until `bytes` fit, or until nothing else is held. Cancel-safe: nothing is taken before it
    /// returns.
    pub async fn take(&self, bytes: usize) -> Permit {
        let _next = self.0.line.lock().await;
        loop {
            // Only the head of the line waits here, so one stored notification is enough.
            let freed = self.0.freed.notified();
            if let Some(permit) = self.take_now(bytes) {
                return permit;
            }
            freed.await;
        }
    }

    /// Takes `bytes` if they fit at once and nobody is in line; else `None`. For best-effort queues, which drop
    /// instead of waiting.
    pub fn try_take(&self, bytes: usize) -> Option<Permit> {
        let _next = self.0.line.try_lock().ok()?;
        self.take_now(bytes)
    }

    fn take_now(&self, bytes: usize) -> Option<Permit> {
        let limit = self.limit();
        let fits = |used: usize| (used == 0 || used + bytes <= limit).then_some(used + bytes);
        self.0.used.fetch_update(Ordering::AcqRel, Ordering::Acquire, fits).ok()?;
        Some(Permit { budget: self.0.clone(), bytes })
    }

    /// How much is held now.
    pub fn used(&self) -> usize {
        self.0.used.load(Ordering::Acquire)
    }

    /// How much may be held.
    pub fn limit(&self) -> usize {
        self.0.limit.load(Ordering::Acquire)
    }

    /// Allows another number of bytes from now on: what is held beyond it is a debt.
    pub fn set_limit(&self, limit: usize) {
        self.0.limit.store(limit, Ordering::Release);
        self.0.freed.notify_one();
    }
}

/// Bytes taken from a budget; dropping it gives them back.
#[derive(Debug)]
pub struct Permit {
    budget: Arc<Shared>,
    bytes: usize,
}

impl Permit {
    /// Takes `bytes` more without waiting: a debt, which the next [`Budget::take`] waits for.
    pub fn add(&mut self, bytes: usize) {
        self.budget.used.fetch_add(bytes, Ordering::AcqRel);
        self.bytes += bytes;
    }

    /// Gives back all but `bytes`.
    pub fn keep(&mut self, bytes: usize) {
        let surplus = self.bytes.saturating_sub(bytes);
        self.bytes -= surplus;
        self.budget.used.fetch_sub(surplus, Ordering::AcqRel);
        self.budget.freed.notify_one();
    }

    /// How much it holds.
    pub fn bytes(&self) -> usize {
        self.bytes
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        self.budget.used.fetch_sub(self.bytes, Ordering::AcqRel);
        self.budget.freed.notify_one();
    }
}

#[cfg(test)]
mod tests {
    use futures::FutureExt;

    use super::*;

    #[tokio::test]
    async fn a_value_larger_than_the_budget_passes_alone() {
        let budget = Budget::new(100);
        let small = budget.take(1).await;
        let mut large = std::pin::pin!(budget.take(1000));
        assert!(large.as_mut().now_or_never().is_none());
        drop(small);
        let large = large.await;
        assert!(budget.try_take(1).is_none());
        drop(large);
        assert_eq!(budget.used(), 0);
    }

    #[tokio::test]
    async fn a_debt_holds_back_the_next_take() {
        let budget = Budget::new(100);
        let mut permit = budget.take(60).await;
        permit.add(60);
        let mut next = std::pin::pin!(budget.take(1));
        assert!(next.as_mut().now_or_never().is_none());
        drop(permit);
        next.await;
    }

    #[tokio::test]
    async fn a_limit_that_rises_lets_the_next_in() {
        let budget = Budget::new(100);
        let _held = budget.take(80).await;
        let mut next = std::pin::pin!(budget.take(50));
        assert!(next.as_mut().now_or_never().is_none());
        budget.set_limit(130);
        next.await;
    }

    #[tokio::test]
    async fn small_takers_do_not_overtake_a_large_one() {
        let budget = Budget::new(100);
        let held = budget.take(50).await;
        let mut large = std::pin::pin!(budget.take(80));
        assert!(large.as_mut().now_or_never().is_none());
        let mut small = std::pin::pin!(budget.take(10));
        assert!(small.as_mut().now_or_never().is_none());
        assert!(budget.try_take(10).is_none());
        drop(held);
        let large = large.await;
        assert_eq!(large.bytes(), 80);
        small.await;
    }
}
