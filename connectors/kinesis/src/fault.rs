//! How errors of the service are judged: the one `match` that decides what becomes of a record and of the daemon.

use std::error::Error;
use std::fmt;

use aws_credential_types::provider::error::CredentialsError;
use aws_sdk_kinesis::config::http::HttpResponse;
use aws_sdk_kinesis::error::{ProvideErrorMetadata, SdkError};
use aws_sdk_kinesis::types::PutRecordsResultEntry;
use aws_smithy_types::retry::ErrorKind;
use forebay_api::{Blame, Fault};

/// What every fault tells as attempted.
pub(crate) const WRITING: &str = "writing to Kinesis";

/// What follows from an error of the service.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Judgement {
    /// Another attempt may succeed.
    Retry,
    /// Another attempt may succeed with credentials that are read anew.
    Renew,
    /// Somebody must act.
    Act(Blame, &'static str),
}

/// What the service said: a code and words.
#[derive(Debug)]
pub(crate) struct ServiceError {
    code: String,
    message: String,
}

impl fmt::Display for ServiceError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.message.is_empty() {
            write!(f, "{}", self.code)
        } else {
            write!(f, "{}: {}", self.code, self.message)
        }
    }
}

impl Error for ServiceError {}

/// A fault, and whether credentials must be read anew before the next attempt.
#[derive(Debug)]
pub(crate) struct Failed {
    /// The fault.
    pub(crate) fault: Fault,
    /// Whether a new client is needed.
    pub(crate) renew: bool,
}

/// Judges a code of the service, of a call or of one record. What is not known is fatal.
pub(crate) fn judge(code: &str) -> Judgement {
    use Blame::{Configuration, Outside};
    use Judgement::{Act, Renew, Retry};
    match code {
        // A shard's or the account's limits.
        "ProvisionedThroughputExceededException"
        | "ThrottlingException"
        | "Throttling"
        | "RequestLimitExceeded"
        | "LimitExceededException"
        | "KMSThrottlingException" => Retry,
        // The service is not well, or the stream is being changed.
        "InternalFailure"
        | "InternalFailureException"
        | "InternalServerError"
        | "ServiceUnavailable"
        | "ServiceUnavailableException"
        | "RequestTimeout"
        | "RequestTimeoutException"
        | "ResourceInUseException" => Retry,
        "ExpiredToken" | "ExpiredTokenException" => Renew,

        "ResourceNotFoundException" => Act(
            Configuration,
            "create the stream, or correct `stream` and `region` (`aws kinesis list-streams` lists what is there)",
        ),
        "UnrecognizedClientException"
        | "InvalidClientTokenId"
        | "InvalidSignatureException"
        | "SignatureDoesNotMatch"
        | "IncompleteSignature"
        | "MissingAuthenticationToken"
        | "MissingAuthenticationTokenException"
        | "OptInRequired" => {
            Act(Configuration, "correct the credentials: `aws sts get-caller-identity` says whose they are")
        }
        "RequestExpired" | "RequestInTheFuture" | "RequestTimeTooSkewed" => {
            Act(Outside, "set the clock of this machine")
        }
        "AccessDenied" | "AccessDeniedException" | "NotAuthorized" => Act(
            Outside,
            "allow the identity `kinesis:PutRecords` on the stream, and `kms:GenerateDataKey` on its key",
        ),
        "KMSAccessDeniedException"
        | "KMSDisabledException"
        | "KMSInvalidStateException"
        | "KMSNotFoundException"
        | "KMSOptInRequired" => Act(
            Outside,
            "let the identity use the key that the stream is encrypted with, and see whether it is enabled",
        ),
        "ValidationException" | "InvalidArgumentException" => {
            Act(Configuration, "see what it says; `max_record` must not be more than what the stream takes")
        }
        _ => Act(Blame::Defect, "see what it says, and report it"),
    }
}

/// The fault of a call.
pub(crate) fn of_call<E>(doing: &str, error: SdkError<E, HttpResponse>) -> Failed
where
    E: ProvideErrorMetadata + Error + Send + Sync + 'static,
{
    if let SdkError::ServiceError(of_service) = &error {
        let status = of_service.raw().status();
        let meta = of_service.err().meta();
        if let Some(code) = meta.code() {
            return said(doing, code, meta.message().unwrap_or_default());
        }
        // Not the service but something before it.
        let text = format!("status {} without a code", status.as_u16());
        return kept(if status.is_server_error() || matches!(status.as_u16(), 408 | 429) {
            Fault::retryable(doing, text)
        } else {
            Fault::fatal(doing, Blame::Configuration, text).with_remedy("see whether `endpoint` is Kinesis")
        });
    }
    // Credentials are looked for before anything is sent.
    if let Some(credentials) = cause::<CredentialsError>(&error) {
        return kept(of_credentials(credentials));
    }
    // The way there and back: refused, reset, timed out; an answer that breaks off, or that somebody else gave.
    let on_the_way = match &error {
        SdkError::TimeoutError(_) => true,
        SdkError::DispatchFailure(way) => {
            // A connection that ends before the answer is of the last kind.
            let transient = way.as_connector_error().and_then(|error| error.as_other());
            way.is_io() || way.is_timeout() || transient == Some(ErrorKind::TransientError)
        }
        SdkError::ResponseError(answer) => !answer.raw().status().is_client_error(),
        _ => false,
    };
    kept(if on_the_way {
        Fault::retryable(doing, error)
    } else {
        Fault::fatal(doing, Blame::Configuration, error)
            .with_remedy("see what it says; `forebay check` tries it again")
    })
}

/// The fault of a record that the service did not write, from what it said of it.
pub(crate) fn of_record(entry: &PutRecordsResultEntry) -> Failed {
    said(WRITING, entry.error_code().unwrap_or_default(), entry.error_message().unwrap_or_default())
}

fn said(doing: &str, code: &str, message: &str) -> Failed {
    let error = ServiceError { code: code.to_owned(), message: message.to_owned() };
    match judge(code) {
        Judgement::Retry => kept(Fault::retryable(doing, error)),
        Judgement::Renew => Failed { fault: Fault::retryable(doing, error), renew: true },
        Judgement::Act(blame, remedy) => kept(Fault::fatal(doing, blame, error).with_remedy(remedy)),
    }
}

fn kept(fault: Fault) -> Failed {
    Failed { fault, renew: false }
}

fn of_credentials(error: &CredentialsError) -> Fault {
    let doing = "finding credentials of AWS";
    // What is borrowed cannot be kept, so its words are.
    let text = chain(error);
    match error {
        CredentialsError::ProviderTimedOut(_) | CredentialsError::ProviderError(_) => Fault::retryable(doing, text)
            .with_remedy("see what it says; where a session has ended, log in again: `aws sso login`"),
        CredentialsError::CredentialsNotLoaded(_) => Fault::fatal(doing, Blame::Configuration, text).with_remedy(
            "set `profile`, or `AWS_ACCESS_KEY_ID` and `AWS_SECRET_ACCESS_KEY`, or give the machine or container a role",
        ),
        _ => Fault::fatal(doing, Blame::Configuration, text)
            .with_remedy("correct what `~/.aws` and the environment say of credentials"),
    }
}

/// The first cause of a type.
fn cause<E: Error + 'static>(error: &dyn Error) -> Option<&E> {
    let mut next = error.source();
    while let Some(error) = next {
        if let Some(found) = error.downcast_ref() {
            return Some(found);
        }
        next = error.source();
    }
    None
}

/// An error and its causes, outermost first.
fn chain(error: &(dyn Error + 'static)) -> String {
    let causes = std::iter::successors(Some(error), |error| (*error).source());
    causes.map(ToString::to_string).collect::<Vec<_>>().join(": ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn limits_are_waited_for_and_what_is_not_known_is_fatal() {
        for code in ["ProvisionedThroughputExceededException", "InternalFailure", "ThrottlingException"] {
            assert_eq!(judge(code), Judgement::Retry, "{code}");
        }
        assert_eq!(judge("ExpiredTokenException"), Judgement::Renew);
        for code in ["ResourceNotFoundException", "AccessDeniedException", "", "SomethingNew"] {
            assert!(matches!(judge(code), Judgement::Act(..)), "{code}");
        }
    }
}
