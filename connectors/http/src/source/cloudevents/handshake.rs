//! The handshake with which a sender asks whether it may send (CloudEvents HTTP webhook, section 4).

use http::StatusCode;
use http::header::{ALLOW, HeaderName, HeaderValue};

use super::Settings;
use crate::source::{Answer, Request};

const REQUEST_ORIGIN: &str = "webhook-request-origin";
const ALLOWED_ORIGIN: HeaderName = HeaderName::from_static("webhook-allowed-origin");
const ALLOWED_RATE: HeaderName = HeaderName::from_static("webhook-allowed-rate");

/// Answers `OPTIONS`. Consent is given by headers alone; without them the answer means no.
pub(super) fn answer(request: &Request<'_>, settings: &Settings) -> Answer {
    let mut answer = Answer::text(StatusCode::OK, "");
    answer.headers.push((ALLOW, HeaderValue::from_static("OPTIONS, POST")));
    let origin = request.headers.get(REQUEST_ORIGIN);
    if let Some(origin) = origin.filter(|origin| is_allowed(origin.as_bytes(), &settings.allowed_origins)) {
        let rate = settings.allowed_rate.map_or(HeaderValue::from_static("*"), |rate| rate.get().into());
        answer.headers.push((ALLOWED_ORIGIN, origin.clone()));
        answer.headers.push((ALLOWED_RATE, rate));
    }
    answer
}

fn is_allowed(origin: &[u8], allowed: &[String]) -> bool {
    let origin = origin.to_ascii_lowercase();
    !origin.is_empty()
        && allowed.iter().map(|rule| rule.to_ascii_lowercase()).any(|rule| match rule.strip_prefix('*') {
            Some("") => true,
            Some(domain) => {
                domain.starts_with('.') && origin.len() > domain.len() && origin.ends_with(domain.as_bytes())
            }
            None => origin == rule.as_bytes(),
        })
}
