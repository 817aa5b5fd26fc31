//! How errors of a consumer are judged, where that differs from a producer's.

use forebay_api::{Blame, Fault};
use rdkafka::error::KafkaError as LibraryError;
use rdkafka::types::RDKafkaErrorCode as Code;

use crate::fault::{self, Judgement, KafkaError, code, judge};

/// Whether the client goes on by itself: brokers that are away, a coordinator that moves.
pub(crate) fn passes(code: Code) -> bool {
    let of_topics = matches!(
        code,
        Code::UnknownTopic
            | Code::UnknownPartition
            | Code::UnknownTopicOrPartition
            | Code::UnknownTopicId
            | Code::Fatal
    );
    !of_topics && judge(code) == Judgement::Retry
}

/// The fault that an error of this code is.
pub(crate) fn judged(doing: impl Into<String>, code: Code, said: Option<String>) -> Fault {
    let cause = KafkaError { code, said };
    match code {
        // Another member has our place, or the group has moved on: the next run joins it again.
        Code::IllegalGeneration
        | Code::UnknownMemberId
        | Code::RebalanceInProgress
        | Code::PollExceeded
        | Code::NoOffset
        | Code::AssignmentLost => Fault::retryable(doing, cause),
        Code::InvalidSessionTimeout => Fault::fatal(doing, Blame::Configuration, cause)
            .with_remedy("set `session.timeout.ms` in `options` to what the brokers allow"),
        Code::FencedInstanceId => Fault::fatal(doing, Blame::Configuration, cause)
            .with_remedy("give each daemon a `group.instance.id` of its own, or none"),
        Code::InconsistentGroupProtocol => Fault::fatal(doing, Blame::Configuration, cause)
            .with_remedy("set `group` to one in which only Forebay reads"),
        Code::GroupAuthorizationFailed => Fault::fatal(doing, Blame::Outside, cause).with_remedy(
            "allow the user to read the group: `kafka-acls.sh --add --consumer --topic … --group …`",
        ),
        Code::TopicAuthorizationFailed => Fault::fatal(doing, Blame::Outside, cause).with_remedy(
            "allow the user to read the topic: `kafka-acls.sh --add --consumer --topic … --group …`",
        ),
        _ => fault::fault(doing, code, cause.said),
    }
}

/// The fault that an error of librdkafka is.
pub(crate) fn of(doing: impl Into<String>, error: &LibraryError) -> Fault {
    judged(doing, code(error), None)
}

/// A position that we did not write.
pub(crate) fn position(error: String) -> Fault {
    Fault::fatal("reading the stored position of a Kafka source", Blame::Outside, error).with_remedy(
        "see `forebay checkpoint show`; `forebay checkpoint reset` begins with what the consumer group says",
    )
}

/// A topic that is not there.
pub(crate) fn missing(topic: &str) -> Fault {
    let doing = format!("looking up topic `{topic}`");
    Fault::fatal(doing, Blame::Configuration, "it does not exist").with_remedy(format!(
        "create it with `kafka-topics.sh --bootstrap-server … --create --topic {topic}`, or correct `topics`"
    ))
}
