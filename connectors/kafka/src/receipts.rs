//! Receipts: what librdkafka reports of the messages of one delivery.
//!
//! Invariant: a message counts as written only when librdkafka said so. A failure is known to the delivery's line before
//! anybody can find all messages reported, so nothing that stands behind it in the line is queued any more.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use rdkafka::types::RDKafkaErrorCode as Code;
use tokio::sync::Notify;

/// What has been reported of the messages of one delivery.
#[derive(Debug)]
pub(crate) struct Receipts {
    /// Messages not yet reported, and one more while they are still being queued.
    open: AtomicUsize,
    failures: Mutex<Vec<(usize, Code)>>,
    /// What the delivery's line knows of failures.
    line_failed: Arc<AtomicBool>,
    all: Notify,
}

impl Receipts {
    /// Of a delivery that is about to be queued; its first failure is told to `line_failed`.
    pub(crate) fn new(line_failed: Arc<AtomicBool>) -> Arc<Receipts> {
        let (open, failures, all) = (AtomicUsize::new(1), Mutex::default(), Notify::new());
        Arc::new(Receipts { open, failures, line_failed, all })
    }

    /// The receipt of one message of record `index`.
    pub(crate) fn receipt(self: &Arc<Receipts>, index: usize) -> Box<Receipt> {
        self.open.fetch_add(1, Ordering::Relaxed);
        Box::new(Receipt { receipts: self.clone(), index, outcome: Err(Code::PurgeInflight) })
    }

    /// All messages are queued: nothing but their reports is awaited now.
    pub(crate) fn complete(&self) {
        self.one_less();
    }

    /// Waits until every message is reported. For one waiter.
    pub(crate) async fn all_reported(&self) {
        self.all.notified().await;
    }

    /// The records that could not be written, by their number, each with the reason.
    pub(crate) fn failures(&self) -> Vec<(usize, Code)> {
        let mut failures = std::mem::take(&mut *self.failures.lock().unwrap_or_else(PoisonError::into_inner));
        failures.sort_by_key(|(index, _)| *index);
        failures
    }

    fn one_less(&self) {
        if self.open.fetch_sub(1, Ordering::AcqRel) == 1 {
            self.all.notify_one();
        }
    }
}

/// Travels with a message through librdkafka and comes back with its report. Dropped without one, it counts as a
/// failure: absence of an acknowledgement is not one.
#[derive(Debug)]
pub(crate) struct Receipt {
    receipts: Arc<Receipts>,
    index: usize,
    outcome: Result<(), Code>,
}

impl Receipt {
    /// The message was not sent; whoever tried to is told in another way.
    pub(crate) fn withdraw(self) {
        self.report(Ok(()));
    }

    /// librdkafka said what became of the message.
    pub(crate) fn report(mut self, outcome: Result<(), Code>) {
        self.outcome = outcome;
    }
}

impl Drop for Receipt {
    fn drop(&mut self) {
        if let Err(code) = self.outcome {
            self.receipts.line_failed.store(true, Ordering::Release);
            self.receipts.failures.lock().unwrap_or_else(PoisonError::into_inner).push((self.index, code));
        }
        self.receipts.one_less();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_message_without_a_report_counts_as_failed() {
        let line_failed = Arc::new(AtomicBool::new(false));
        let receipts = Receipts::new(line_failed.clone());
        let (written, lost, failed) = (receipts.receipt(0), receipts.receipt(1), receipts.receipt(2));
        receipts.complete();
        failed.report(Err(Code::MessageTimedOut));
        written.report(Ok(()));
        assert!(line_failed.load(Ordering::Acquire), "the line knows before all is reported");
        drop(lost);
        receipts.all_reported().await;
        assert_eq!(receipts.failures(), [(1, Code::PurgeInflight), (2, Code::MessageTimedOut)]);
    }
}
