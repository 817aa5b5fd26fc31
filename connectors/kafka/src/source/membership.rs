//! What librdkafka calls back on a consumer. A rebalance is only noted here: the session acts on it when it is its turn,
//! and until then the group waits.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use rdkafka::TopicPartitionList;
use rdkafka::client::ClientContext;
use rdkafka::config::RDKafkaLogLevel;
use rdkafka::consumer::{BaseConsumer, Consumer, ConsumerContext};
use rdkafka::error::KafkaError as LibraryError;
use rdkafka::types::{RDKafkaErrorCode as Code, RDKafkaRespErr};

use crate::context::Context;
use crate::fault::code;

/// What the group did with our partitions.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Rebalance {
    /// These are ours once we take them.
    Assigned(Vec<(String, i32)>),
    /// All are to be given back; it waits until they are.
    Revoked,
    /// All are somebody else's already.
    Lost,
    /// The group could not be joined.
    Failed(Code),
}

/// See the module.
#[derive(Default)]
pub(crate) struct Membership {
    /// Trouble with brokers, and librdkafka's own lines.
    pub(crate) context: Context,
    rebalances: Mutex<VecDeque<Rebalance>>,
    /// Whether the consumer is being closed: then partitions are given back at once.
    closing: AtomicBool,
}

impl Membership {
    /// The next rebalance that nobody has acted on.
    pub(crate) fn next_rebalance(&self) -> Option<Rebalance> {
        lock(&self.rebalances).pop_front()
    }

    /// Whether there is one.
    pub(crate) fn has_rebalance(&self) -> bool {
        !lock(&self.rebalances).is_empty()
    }

    /// From now on partitions are given back at once.
    pub(crate) fn close(&self) {
        self.closing.store(true, Ordering::Release);
    }

    fn note(&self, rebalance: Rebalance) {
        lock(&self.rebalances).push_back(rebalance);
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // Every change is one assignment, so what a panic leaves is sound.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl ClientContext for Membership {
    fn log(&self, level: RDKafkaLogLevel, facility: &str, line: &str) {
        self.context.log(level, facility, line);
    }

    fn error(&self, error: LibraryError, reason: &str) {
        // These concern one partition or the group; whoever polls gets them as results.
        let of_brokers = matches!(
            code(&error),
            Code::AllBrokersDown
                | Code::BrokerTransportFailure
                | Code::Resolve
                | Code::Authentication
                | Code::SSL
                | Code::OperationTimedOut
                | Code::NetworkException
        );
        if of_brokers {
            self.context.error(error, reason);
        }
    }

    fn stats_raw(&self, _: &[u8]) {}
}

impl ConsumerContext for Membership {
    fn rebalance(
        &self,
        consumer: &BaseConsumer<Self>,
        error: RDKafkaRespErr,
        partitions: &mut TopicPartitionList,
    ) {
        if self.closing.load(Ordering::Acquire) {
            if let Err(error) = consumer.unassign() {
                tracing::debug!(%error, "giving partitions back while closing failed");
            }
            return;
        }
        match error {
            RDKafkaRespErr::RD_KAFKA_RESP_ERR__ASSIGN_PARTITIONS => {
                let all = partitions.elements();
                let given = all.iter().map(|given| (given.topic().to_owned(), given.partition()));
                self.note(Rebalance::Assigned(given.collect()));
            }
            RDKafkaRespErr::RD_KAFKA_RESP_ERR__REVOKE_PARTITIONS if consumer.assignment_lost() => {
                self.note(Rebalance::Lost);
            }
            RDKafkaRespErr::RD_KAFKA_RESP_ERR__REVOKE_PARTITIONS => self.note(Rebalance::Revoked),
            other => self.note(Rebalance::Failed(other.into())),
        }
    }
}
