//! How a receiver's statuses and the errors on the way to it are judged.

use std::error::Error;
use std::fmt;
use std::time::Duration;

use forebay_api::{Blame, Fault};
use reqwest::StatusCode;

/// What every fault tells as attempted.
pub(crate) const WRITING: &str = "sending to the receiver";

/// What a receiver said: its status and the beginning of what stood in the body.
#[derive(Clone, Debug)]
pub(crate) struct Said {
    /// The status.
    pub(crate) status: StatusCode,
    /// What stood in the body, one line; empty where there was none.
    pub(crate) text: String,
}

impl fmt::Display for Said {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "status {}", self.status)?;
        if self.text.is_empty() { Ok(()) } else { write!(f, ": `{}`", self.text) }
    }
}

impl Error for Said {}

/// Why a receiver did not take a request, where that is for what the request holds.
#[derive(Debug)]
pub(crate) enum Refusal {
    /// It takes no request of this size.
    TooLarge(Said),
    /// It does not like a record.
    Content(Said),
}

/// What follows from a status.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Judgement {
    /// The receiver has taken the request.
    Accepted,
    /// It takes no request of this size.
    TooLarge,
    /// It does not like what the request holds.
    Content,
    /// Another attempt may succeed.
    Retry,
    /// Somebody must act.
    Act(&'static str),
}

/// Judges a status. What is not known is fatal.
pub(crate) fn judge(status: StatusCode) -> Judgement {
    use Judgement::{Accepted, Act, Content, Retry, TooLarge};
    match status.as_u16() {
        207 => {
            Act("let the receiver answer 2xx only when it has taken all of a request, or set `body: single`")
        }
        200..=299 => Accepted,
        300..=399 => Act("set `url` to where the receiver redirects to: redirects are not followed"),
        413 => TooLarge,
        400 | 422 => Content,
        // 409: a request with the same `Idempotency-Key` is still being worked on.
        408 | 409 | 425 | 429 | 500..=599 => Retry,
        401 => Act("correct `auth` or the header that names us to the receiver"),
        403 => Act("let the receiver allow us to send, or correct `auth`"),
        404 | 410 => Act("correct `url`: nothing is there"),
        405 => Act("set `method` to what the receiver takes: `POST` or `PUT`"),
        415 => Act("set `body`, `format` and `compression` to what the receiver takes"),
        _ => Act("see what the receiver says, and correct the configuration"),
    }
}

/// The fault of a status that is no refusal of what the request holds. `after` is what the receiver asked for.
pub(crate) fn of_status(said: Said, judgement: Judgement, after: Option<Duration>) -> Fault {
    match judgement {
        Judgement::Retry => {
            Fault::Retryable { doing: WRITING.to_owned(), after, remedy: None, source: Box::new(said) }
        }
        Judgement::Act(remedy) => Fault::fatal(WRITING, Blame::Configuration, said).with_remedy(remedy),
        Judgement::Accepted | Judgement::TooLarge | Judgement::Content => {
            unreachable!("{judgement:?} is no fault")
        }
    }
}

/// The fault of a request that has no answer.
pub(crate) fn of_transport(error: reqwest::Error) -> Fault {
    // Its query may hold a token.
    let error = error.without_url();
    if let Some(tls) = cause::<rustls::Error>(&error) {
        return match tls_remedy(tls) {
            Some(remedy) => Fault::fatal(WRITING, Blame::Configuration, error).with_remedy(remedy),
            None => Fault::retryable(WRITING, error),
        };
    }
    if error.is_builder() {
        return Fault::fatal(WRITING, Blame::Defect, error);
    }
    // The way there and back: refused, reset, timed out, cut off in the middle of an answer.
    let on_the_way = error.is_connect()
        || error.is_timeout()
        || error.is_request()
        || error.is_body()
        || error.is_decode();
    if on_the_way { Fault::retryable(WRITING, error) } else { Fault::fatal(WRITING, Blame::Defect, error) }
}

/// What to do about a handshake that failed; `None` where another attempt may succeed.
fn tls_remedy(error: &rustls::Error) -> Option<&'static str> {
    use rustls::{CertificateError as Certificate, Error as Tls};
    Some(match error {
        Tls::InvalidCertificate(Certificate::UnknownIssuer) => {
            "set `tls.ca` to the certificate of the authority that signed the receiver's"
        }
        Tls::InvalidCertificate(
            Certificate::NotValidForName | Certificate::NotValidForNameContext { .. },
        ) => "name the receiver in `url` as its certificate does",
        Tls::InvalidCertificate(_) => "renew the receiver's certificate",
        Tls::AlertReceived(_) => {
            "see what the receiver asks for: it may want a certificate of ours (`tls.cert`, `tls.key`)"
        }
        Tls::InvalidMessage(_) => "see whether the receiver speaks `https` on this port",
        _ => return None,
    })
}

/// The first cause of a type.
fn cause<E: Error + 'static>(error: &dyn Error) -> Option<&E> {
    let mut next = error.source();
    while let Some(error) = next {
        if let Some(found) = error.downcast_ref() {
            return Some(found);
        }
        // An I/O error holds what it is about without calling it a cause.
        let held = error.downcast_ref::<std::io::Error>().and_then(std::io::Error::get_ref);
        next = held.map(|held| held as &(dyn Error + 'static)).or_else(|| error.source());
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    fn judged(status: u16) -> Judgement {
        judge(StatusCode::from_u16(status).unwrap())
    }

    #[test]
    fn every_status_is_judged_and_what_is_not_known_is_fatal() {
        for status in [200, 201, 202, 204, 226] {
            assert_eq!(judged(status), Judgement::Accepted, "{status}");
        }
        for status in [408, 409, 425, 429, 500, 502, 503, 504, 529] {
            assert_eq!(judged(status), Judgement::Retry, "{status}");
        }
        for status in
            [100, 207, 301, 302, 304, 307, 308, 401, 402, 403, 404, 405, 410, 415, 418, 451, 600, 999]
        {
            assert!(matches!(judged(status), Judgement::Act(_)), "{status}");
        }
        assert_eq!(judged(413), Judgement::TooLarge);
        assert_eq!([judged(400), judged(422)], [Judgement::Content; 2]);
    }
}
