//! How librdkafka's errors are judged: the one `match` that decides what becomes of a record and of the daemon.

use std::fmt;

use forebay_api::{Blame, Fault};
use rdkafka::error::KafkaError as LibraryError;
use rdkafka::types::RDKafkaErrorCode as Code;

/// What follows from an error.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Judgement {
    /// The broker takes no batch of this size.
    TooLarge,
    /// The broker refuses the record for its content.
    Refused,
    /// Another attempt may succeed.
    Retry,
    /// Somebody must act.
    Act(Blame, &'static str),
}

/// Judges an error by its code. What is not known is nobody's fault but ours, and fatal.
pub(crate) fn judge(code: Code) -> Judgement {
    use Blame::{Configuration, Defect, Outside};
    use Judgement::{Act, Refused, Retry, TooLarge};
    match code {
        Code::MessageSizeTooLarge | Code::MessageBatchTooLarge | Code::InvalidMessageSize => TooLarge,
        Code::InvalidRecord | Code::BadMessage => Refused,

        // The way to a broker.
        Code::BrokerTransportFailure
        | Code::AllBrokersDown
        | Code::Resolve
        | Code::NetworkException
        | Code::OperationTimedOut
        | Code::MessageTimedOut
        | Code::TimedOutQueue
        | Code::RequestTimedOut
        | Code::WaitCache
        | Code::BrokerNotAvailable
        | Code::UnknownBroker
        | Code::RebootstrapRequired => Retry,
        // A cluster that is busy with itself.
        Code::LeaderNotAvailable
        | Code::NotLeaderForPartition
        | Code::ReplicaNotAvailable
        | Code::FencedLeaderEpoch
        | Code::UnknownLeaderEpoch
        | Code::NotEnoughReplicas
        | Code::NotEnoughReplicasAfterAppend
        | Code::ISRInsufficient
        | Code::NotController
        | Code::StaleControllerEpoch
        | Code::CoordinatorLoadInProgress
        | Code::CoordinatorNotAvailable
        | Code::ThrottlingQuotaExceeded
        | Code::KafkaStorageError
        | Code::InvalidMessage /* a checksum that did not arrive as it was sent */ => Retry,
        // A client that has ended: the next one begins where it failed.
        Code::PurgeQueue
        | Code::PurgeInflight
        | Code::Retry
        | Code::Fatal
        | Code::GaplessGuarantee
        | Code::Inconsistent
        | Code::InvalidDifferentRecord
        | Code::OutOfOrderSequenceNumber
        | Code::DuplicateSequenceNumber
        | Code::UnknownProducerId
        | Code::InvalidProducerIdMapping
        | Code::InvalidProducerEpoch => Retry,
        // A transaction that did not come to its end: the next client finds out what is written, and whether another
        // daemon writes now.
        Code::Fenced
        | Code::ProducerFenced
        | Code::ConcurrentTransactions
        | Code::InvalidTransactionalState
        | Code::TransactionCoordinatorFenced
        | Code::NotCoordinator => Retry,
        Code::InvalidTransactionTimeout => Act(
            Configuration,
            "set `transaction.timeout.ms` in `options` to at most the brokers' `transaction.max.timeout.ms`",
        ),
        // A topic that was there: the look-up before the next attempt says whether it is really gone.
        Code::UnknownTopic | Code::UnknownPartition | Code::UnknownTopicOrPartition | Code::UnknownTopicId => Retry,

        Code::Authentication | Code::SaslAuthenticationFailed => {
            Act(Configuration, "correct `sasl.mechanism`, `sasl.username` and `sasl.password`")
        }
        Code::UnsupportedSASLMechanism | Code::IllegalSASLState => {
            Act(Configuration, "set `sasl.mechanism` to one that the brokers have enabled")
        }
        Code::SSL => Act(
            Configuration,
            "set `tls.ca` to the certificate of the authority that signed the brokers' and name the brokers as their \
             certificates do",
        ),
        Code::TopicAuthorizationFailed => {
            Act(Outside, "allow the user to describe and write the topic: `kafka-acls.sh --add --producer --topic …`")
        }
        Code::ClusterAuthorizationFailed => {
            Act(Outside, "allow the user what it was attempting: `kafka-acls.sh --add --cluster --operation …`")
        }
        Code::TransactionalIdAuthorizationFailed => Act(
            Outside,
            "allow the user to write under its transactional ids, which begin with `transactions.id_prefix`: \
             `kafka-acls.sh --add --operation Write --operation Describe --transactional-id … \
             --resource-pattern-type prefixed`",
        ),
        Code::PolicyViolation => Act(Outside, "ask whoever set the cluster's policy"),
        Code::InvalidTopic => Act(Configuration, "set `topic` so that it makes names that Kafka accepts"),
        Code::InvalidReplicationFactor => {
            Act(Configuration, "set `create_topics.replication` to at most the number of brokers")
        }
        Code::InvalidPartitions => Act(Configuration, "set `create_topics.partitions` to what the cluster allows"),
        Code::UnsupportedCompressionType => Act(Configuration, "set `compression` to what the topic accepts"),
        Code::InvalidTimestamp => Act(Outside, "set the clock of this machine and of the brokers"),
        Code::UnsupportedVersion | Code::UnsupportedFeature | Code::UnsupportedForMessageFormat => {
            Act(Outside, "use Kafka 0.11 or later, which has idempotent producers")
        }
        Code::InvalidRequiredAcks => Act(Outside, "let the brokers accept `acks=all`"),
        Code::CriticalSystemResource => Act(Outside, "give the process more threads, memory or open files"),
        _ => Act(Defect, "report this error, which Forebay does not know"),
    }
}

/// The fault that an error is, when it concerns more than one record. `said`: what librdkafka said beside the code.
pub(crate) fn fault(doing: impl Into<String>, code: Code, said: Option<String>) -> Fault {
    let cause = KafkaError { code, said };
    match judge(code) {
        Judgement::Retry => Fault::retryable(doing, cause),
        Judgement::Act(blame, remedy) => Fault::fatal(doing, blame, cause).with_remedy(remedy),
        // A size or a content that is refused outside of any record (a request of ours) is a mistake of ours.
        Judgement::TooLarge | Judgement::Refused => Fault::fatal(doing, Blame::Defect, cause),
    }
}

/// The fault of a record that was not written because its client ended.
pub(crate) fn ended(doing: impl Into<String>, end: KafkaError) -> Fault {
    match judge(end.code) {
        // The size or content of another record is no fault of this one.
        Judgement::TooLarge | Judgement::Refused => Fault::retryable(doing, end),
        _ => fault(doing, end.code, end.said),
    }
}

/// The code of an error that carries one; otherwise one that is judged unknown.
pub(crate) fn code(error: &LibraryError) -> Code {
    error.rdkafka_error_code().unwrap_or(Code::Unknown)
}

/// librdkafka's error with what it said about it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct KafkaError {
    /// What decides.
    pub(crate) code: Code,
    /// What helps a person.
    pub(crate) said: Option<String>,
}

impl KafkaError {
    /// Whether a broker was reached and would not have us, or we not it.
    pub(crate) fn is_refusal(&self) -> bool {
        matches!(self.code, Code::Authentication | Code::SSL)
    }
}

impl fmt::Display for KafkaError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.said {
            Some(said) => f.write_str(said),
            None => write!(f, "{}", self.code),
        }
    }
}

impl std::error::Error for KafkaError {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_that_nobody_knows_is_fatal() {
        for code in [Code::Unknown, Code::Fail, Code::InvalidArgument, Code::State, Code::InvalidRequest] {
            assert!(matches!(judge(code), Judgement::Act(Blame::Defect, _)), "{code}");
        }
    }

    #[test]
    fn a_broker_that_is_away_is_tried_again_and_a_wrong_password_is_not() {
        assert!(fault("writing", Code::AllBrokersDown, None).is_retryable());
        let wrong = fault("connecting", Code::Authentication, Some("invalid credentials".to_owned()));
        assert!(!wrong.is_retryable());
        assert_eq!(wrong.to_string(), "connecting: invalid credentials");
        assert!(wrong.remedy().is_some_and(|remedy| remedy.contains("sasl.password")));
    }
}
