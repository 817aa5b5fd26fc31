//! The cookie that tells visitors apart, and the one that says not to.

use bytes::Bytes;
use forebay_api::Mistake;
use globset::{Glob, GlobMatcher};
use http::header::{HeaderValue, LOCATION, ORIGIN, SET_COOKIE};
use http::{HeaderMap, Method, StatusCode};

use super::config::{Cookie, DoNotTrackCookie, SameSite};
use super::visit::{Visit, cookies};
use crate::source::hosts::host_of;
use crate::source::plan::mistake;
use crate::source::{Answer, fresh};

/// Who takes no cookies.
const NOBODY: &str = "00000000-0000-4000-a000-000000000000";
/// The parameter by which a request is known that was asked to come again.
const BOUNCED: &str = "n3pc";

/// How the cookie is set.
#[derive(Debug)]
pub(super) struct CookieRule {
    name: String,
    domains: Vec<String>,
    fallback: Option<String>,
    /// What follows the domain.
    attributes: String,
    /// The same for a cookie that shall go.
    expired: String,
    bounce: bool,
}

/// What is done about the cookie of one request.
#[derive(Debug, Default)]
pub(super) struct Decided {
    /// Who the visitor is.
    pub id: Option<String>,
    /// `Set-Cookie`.
    pub set: Option<HeaderValue>,
    /// The answer, where the browser shall come again first; nothing is stored then.
    pub bounce: Option<Answer>,
}

impl CookieRule {
    /// Validates.
    pub(super) fn new(config: &Cookie) -> Result<CookieRule, Mistake> {
        let at = |key: &str| format!("/snowplow/cookie/{key}");
        let token = |text: &str| {
            let allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"_-.".contains(&byte);
            !text.is_empty() && text.bytes().all(allowed)
        };
        if !token(&config.name) {
            let help = "take letters, digits, `_`, `-` and `.`";
            return Err(mistake(
                &at("name"),
                format!("`{}` is no name of a cookie", config.name),
                Some(help),
            ));
        }
        for domain in config.domains.iter().chain(&config.fallback_domain) {
            if !token(domain) || domain.starts_with('.') {
                return Err(mistake(
                    &at("domains"),
                    format!("`{domain}` is no domain"),
                    Some("write `example.com`"),
                ));
            }
        }
        if config.same_site == SameSite::None && !config.secure {
            let help = "set `secure: true`, or another `same_site`";
            let message = "browsers refuse a cookie with `same_site: none` that is not `secure`";
            return Err(mistake(&at("secure"), message.to_owned(), Some(help)));
        }
        let same_site = match config.same_site {
            SameSite::None => "None",
            SameSite::Lax => "Lax",
            SameSite::Strict => "Strict",
        };
        let (secure, http_only) =
            (config.secure.then_some("; Secure"), config.http_only.then_some("; HttpOnly"));
        let attributes = |age: u64| {
            let flags = [secure.unwrap_or_default(), http_only.unwrap_or_default()].concat();
            format!("; Path=/; Max-Age={age}; SameSite={same_site}{flags}")
        };
        Ok(CookieRule {
            name: config.name.clone(),
            domains: config.domains.iter().map(|domain| domain.to_ascii_lowercase()).collect(),
            fallback: config.fallback_domain.clone(),
            attributes: attributes(config.expires.as_duration().as_secs()),
            expired: attributes(0),
            bounce: config.bounce,
        })
    }

    /// Decides for one request. Only a UUID is taken over: nothing that a sender wrote is written into a header.
    pub(super) fn decide(&self, visit: &Visit<'_>) -> Decided {
        let headers = visit.request.headers;
        let came = cookies(headers, &self.name).next();
        if visit.anonymous {
            let set = came.and_then(|_| self.header("", &self.expired, headers));
            return Decided { set, ..Decided::default() };
        }
        let known = visit.parameter("nuid").or(came).and_then(fresh::canonical_uuid);
        let is_get = matches!(*visit.request.method, Method::GET | Method::HEAD);
        if let Some(id) = known {
            let set = self.header(&id, &self.attributes, headers);
            return Decided { id: Some(id), set, bounce: None };
        }
        if self.bounce && is_get && visit.parameter(BOUNCED).is_some() {
            return Decided { id: Some(NOBODY.to_owned()), ..Decided::default() };
        }
        let id = fresh::uuid();
        let set = self.header(&id, &self.attributes, headers);
        let bounce = (self.bounce && is_get).then(|| bounce(visit, set.clone())).flatten();
        Decided { id: Some(id), set, bounce }
    }

    fn header(&self, value: &str, attributes: &str, headers: &HeaderMap) -> Option<HeaderValue> {
        let domain = self.domain(headers).map(|domain| format!("; Domain={domain}")).unwrap_or_default();
        HeaderValue::try_from(format!("{}={value}{domain}{attributes}", self.name)).ok()
    }

    /// The first domain that the page's host is, or is below; else the fallback.
    fn domain(&self, headers: &HeaderMap) -> Option<&str> {
        let origins = headers.get_all(ORIGIN).iter().filter_map(|origin| origin.to_str().ok());
        let hosts: Vec<String> = origins
            .flat_map(|origins| origins.split(' '))
            .filter_map(|origin| origin.split_once("://"))
            .map(|(_, authority)| host_of(authority).to_ascii_lowercase())
            .collect();
        let fits = |domain: &&String| {
            let below = format!(".{domain}");
            hosts.iter().any(|host| host == *domain || host.ends_with(&below))
        };
        self.domains.iter().find(fits).or(self.fallback.as_ref()).map(String::as_str)
    }
}

/// The same request once more, marked.
fn bounce(visit: &Visit<'_>, set: Option<HeaderValue>) -> Option<Answer> {
    let request = visit.request;
    let separator = if request.query.is_empty() { "" } else { "&" };
    let again = format!("{}?{}{separator}{BOUNCED}=true", request.path, request.query);
    let headers = vec![(LOCATION, HeaderValue::try_from(again).ok()?), (SET_COOKIE, set?)];
    Some(Answer { status: StatusCode::FOUND, headers, body: Bytes::new() })
}

/// The cookie that says that nothing shall be stored.
#[derive(Debug)]
pub(super) struct DoNotTrack {
    name: String,
    value: GlobMatcher,
}

impl DoNotTrack {
    /// Validates.
    pub(super) fn new(config: &DoNotTrackCookie) -> Result<DoNotTrack, Mistake> {
        let value = Glob::new(&config.value).map_err(|error| {
            mistake("/snowplow/do_not_track/value", format!("`{}`: {error}", config.value), None)
        })?;
        Ok(DoNotTrack { name: config.name.clone(), value: value.compile_matcher() })
    }

    /// Whether the visitor said so.
    pub(super) fn is_wanted(&self, headers: &HeaderMap) -> bool {
        cookies(headers, &self.name).any(|value| self.value.is_match(value))
    }
}
