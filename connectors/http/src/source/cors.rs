//! Which pages of other origins may read answers.

use http::header::{
    ACCESS_CONTROL_ALLOW_CREDENTIALS, ACCESS_CONTROL_ALLOW_HEADERS, ACCESS_CONTROL_ALLOW_METHODS,
    ACCESS_CONTROL_ALLOW_ORIGIN, ACCESS_CONTROL_MAX_AGE, ORIGIN, VARY,
};
use http::{HeaderMap, HeaderValue, StatusCode};

use super::Answer;
use super::hosts::Hosts;

/// What trackers ask for, and the token of an input.
const ALLOWED_HEADERS: HeaderValue = HeaderValue::from_static("Content-Type, SP-Anonymous, Authorization");
const ALLOWED_METHODS: HeaderValue = HeaderValue::from_static("GET, HEAD, POST, OPTIONS");

/// The rule for other origins.
#[derive(Debug)]
pub(super) struct CorsRule {
    /// Who is allowed.
    pub origins: Hosts,
    /// How long a preflight holds, in seconds.
    pub max_age: u64,
}

impl CorsRule {
    /// Lets the page that asked read the answer and send its cookies along, if its origin is allowed. The origin itself is
    /// named, never `*`, with which browsers send no cookies.
    pub(super) fn allow(&self, request: &HeaderMap, answer: &mut Answer) {
        answer.headers.push((VARY, HeaderValue::from_static("Origin")));
        let Some(origin) = request.get(ORIGIN) else { return };
        if origin.to_str().is_ok_and(|text| self.origins.has_origin(text)) {
            answer.headers.push((ACCESS_CONTROL_ALLOW_ORIGIN, origin.clone()));
            answer.headers.push((ACCESS_CONTROL_ALLOW_CREDENTIALS, HeaderValue::from_static("true")));
        }
    }

    /// What a browser's preflight is answered, but for what [`CorsRule::allow`] adds.
    pub(super) fn preflight(&self) -> Answer {
        let headers = vec![
            (ACCESS_CONTROL_ALLOW_HEADERS, ALLOWED_HEADERS),
            (ACCESS_CONTROL_ALLOW_METHODS, ALLOWED_METHODS),
            (ACCESS_CONTROL_MAX_AGE, HeaderValue::from(self.max_age)),
        ];
        Answer { status: StatusCode::OK, headers, body: bytes::Bytes::new() }
    }
}
