//! `/r/…?u=…`: a link that is remembered and followed.

use bytes::Bytes;
use http::header::{CACHE_CONTROL, HeaderValue, LOCATION, SET_COOKIE};
use http::{Method, StatusCode};

use super::Settings;
use super::event::{self, Origin};
use super::url::Parts;
use super::visit::Visit;
use crate::source::hosts::Hosts;
use crate::source::{Answer, Gathered};

/// The parameter with the address.
const TARGET: &str = "u";

/// Redirects where that is allowed, and gathers the event.
pub(super) fn read(visit: &mut Visit<'_>, settings: &Settings, gathered: &mut Gathered) -> Answer {
    if *visit.request.method == Method::POST {
        return Answer::refused(StatusCode::METHOD_NOT_ALLOWED, "a redirect is a GET");
    }
    let Some(target) = visit.parameter(TARGET).map(str::to_owned) else {
        return Answer::refused(StatusCode::BAD_REQUEST, "`u`, the address to redirect to, is missing");
    };
    let Some(location) = allowed(&target, &settings.redirects) else {
        return Answer::refused(StatusCode::FORBIDDEN, "this address is not one to redirect to");
    };
    let no_store = HeaderValue::from_static("no-cache, no-store, must-revalidate");
    let headers = vec![(LOCATION, location), (CACHE_CONTROL, no_store)];
    let mut answer = Answer { status: StatusCode::FOUND, headers, body: Bytes::new() };
    if settings.do_not_track.as_ref().is_some_and(|rule| rule.is_wanted(visit.request.headers)) {
        return answer;
    }
    if let Some(rule) = &settings.cookie {
        // Nobody is sent elsewhere first who follows a link.
        let decided = rule.decide(visit);
        visit.network_id = decided.id;
        answer.headers.extend(decided.set.map(|cookie| (SET_COOKIE, cookie)));
    }
    if let Ok(query) = &mut visit.query {
        query.retain(|(name, _)| name != TARGET);
    }
    visit.redirect = Some(target);
    event::read(&[], Origin::Query, visit, gathered);
    answer
}

/// The header that leads there. What browsers read otherwise than we do (`\`, user names, control characters) is not
/// followed.
fn allowed(target: &str, hosts: &Hosts) -> Option<HeaderValue> {
    let strange = |byte: u8| byte.is_ascii_control() || matches!(byte, b'\\' | b'@' | b' ');
    let parts = Parts::of(target).ok()?;
    let authority_end = target.find("://")? + 3;
    let authority = target[authority_end..].split(['/', '?', '#']).next().unwrap_or_default();
    let is_http =
        parts.scheme.is_some_and(|scheme| ["http", "https"].contains(&scheme.to_ascii_lowercase().as_str()));
    let is_plain = !authority.bytes().any(strange) && !target.bytes().any(|byte| byte == b'\\');
    if !is_http || !is_plain || !hosts.has(parts.host?) {
        return None;
    }
    let mut location = String::with_capacity(target.len());
    for byte in target.bytes() {
        match byte {
            0x21..=0x7e => location.push(char::from(byte)),
            other => location.push_str(&format!("%{other:02X}")),
        }
    }
    HeaderValue::try_from(location).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_hosts_that_are_allowed_are_led_to() {
        let hosts = Hosts::parse(&["*.acme.com".into(), "a.org".into()]).unwrap();
        for (target, location) in [
            ("https://www.acme.com/x?y=z#f", "https://www.acme.com/x?y=z#f"),
            ("http://A.org", "http://A.org"),
            ("https://a.org/ü b", "https://a.org/%C3%BC%20b"),
        ] {
            assert_eq!(allowed(target, &hosts).unwrap(), location);
        }
        for target in [
            "https://evil.com",
            "https://evilacme.com",
            "//a.org",
            "/x",
            "javascript://a.org/%0aalert(1)",
            "https:a.org",
            "https://a.org@evil.com",
            "https://evil.com\\@a.org",
            "https://evil.com\\.acme.com/",
            "https://evil.com?.acme.com",
            "https://evil.com#.acme.com",
            "https://a.org\r\nX: y",
            "https://",
            "data:text/html,x",
            "https://a.org.evil.com",
        ] {
            assert_eq!(allowed(target, &hosts), None, "{target}");
        }
    }
}
