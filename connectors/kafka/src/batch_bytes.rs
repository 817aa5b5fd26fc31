//! How large a batch of several records may be for all that is known of the brokers.

use std::sync::atomic::{AtomicUsize, Ordering};

/// By how much batches shrink when a broker calls one too large that may have held several records.
const SHRINK: usize = 4;

/// The size of batches in bytes: as configured, and smaller where a broker asked for that. See the module.
#[derive(Debug)]
pub(crate) struct BatchBytes(AtomicUsize);

impl BatchBytes {
    /// As configured.
    pub(crate) fn new(bytes: usize) -> BatchBytes {
        BatchBytes(AtomicUsize::new(bytes))
    }

    /// For the next client.
    pub(crate) fn get(&self) -> usize {
        self.0.load(Ordering::Relaxed)
    }

    /// Whether a record of `record` bytes that was called too large stood alone in a batch of at most `batch` bytes. If
    /// it may have had company, the next client makes smaller batches, until the one that is too large stands alone.
    pub(crate) fn was_alone(&self, record: usize, batch: usize) -> bool {
        let alone = record > batch;
        if !alone {
            let smaller = (batch / SHRINK).max(1);
            if self.0.fetch_min(smaller, Ordering::Relaxed) > smaller {
                tracing::warn!(
                    batch_bytes = smaller,
                    "a broker refuses our batches as too large; making smaller ones"
                );
            }
        }
        alone
    }
}
