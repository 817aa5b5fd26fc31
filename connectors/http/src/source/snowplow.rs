//! The Snowplow tracker protocol: what any Snowplow tracker sends, as events.
//!
//! `/i` and `/ice.png` take one event in their query; `/{vendor}/{version}` the same, or a batch in a POST body; `/r/…`
//! redirects and remembers it; the Iglu webhook takes any self-describing data. An event that is wrong in one parameter is
//! an invalid event that says which, beside its neighbours; nothing of it becomes a default.
//!
//! What an event says of itself (the page that was viewed, the data of a self-describing event) is its payload; what goes
//! with every event (application, user, device, tracker) is its first entity, `io.forebay/snowplow/1-0-0`.
//!
//! Reading order: `parameters` (the table of the protocol), `values` (the parameters of one event), `convert` (text to
//! JSON), `event` (one event), `entities` (self-describing JSON), `visit` (what one request says of all its events),
//! `cookie`, `redirect`, `iglu`; `schemas` prints what the table means as JSON Schemas.

mod config;
mod convert;
mod cookie;
mod entities;
mod event;
mod iglu;
mod parameters;
mod redirect;
mod schemas;
#[cfg(test)]
mod tests;
mod url;
mod values;
mod visit;

use std::collections::BTreeMap;

use forebay_api::Mistake;
use http::Method;
use http::header::SET_COOKIE;
use serde_json::value::RawValue;

pub use self::config::SnowplowConfig;
pub use self::schemas::schemas;

use self::cookie::{CookieRule, DoNotTrack};
use self::entities::SelfDescribing;
use self::event::Origin;
use self::visit::Visit;
use super::config::ClientAddress;
use super::hosts::Hosts;
use super::plan::mistake;
use super::router::Shared;
use super::{Answer, Gathered, Request, unreadable};

/// Where trackers send to.
const TRACKER_PATH: &str = "/com.snowplowanalytics.snowplow/tp2";
/// Where the Iglu webhook is.
const IGLU_PATH: &str = "/com.snowplowanalytics.iglu/v1";
/// What redirects begin with.
const REDIRECT_PATH: &str = "/r/";
/// The most events of one request. Each takes memory that its few bytes do not tell of.
const MAX_EVENTS: usize = 10_000;
/// The most bytes that a request may say of all its events, times the events.
const MAX_REPEATED: usize = 16 << 20;
/// The vendor and the name of the schema of a batch.
const BATCH: (&str, &str) = ("com.snowplowanalytics.snowplow", "payload_data");

/// The configuration of this input, validated.
#[derive(Debug)]
pub struct Settings {
    /// Paths that stand for others.
    paths: BTreeMap<String, String>,
    cookie: Option<CookieRule>,
    do_not_track: Option<DoNotTrack>,
    redirects: Hosts,
    client_address: ClientAddress,
}

impl Settings {
    /// Validates; all mistakes at once.
    pub fn new(config: &SnowplowConfig, shared: &Shared) -> Result<Settings, Vec<Mistake>> {
        let mut mistakes = Vec::new();
        for (from, to) in &config.paths {
            let known = |path: &str| is_vendor_path(path) || path == "/i" || path == "/ice.png";
            if !from.starts_with('/') || from.len() < 2 || !known(to) {
                let message = format!("`{from}` cannot stand for `{to}`");
                let help =
                    format!("write a path of your own and one of this input, such as `{TRACKER_PATH}`");
                mistakes.push(mistake(
                    &format!("/snowplow/paths/{}", from.replace('~', "~0").replace('/', "~1")),
                    message,
                    Some(&help),
                ));
            }
        }
        let mut take = |made: Result<Option<CookieRule>, Mistake>| {
            made.unwrap_or_else(|wrong| {
                mistakes.push(wrong);
                None
            })
        };
        let cookie = take(config.cookie.as_ref().map(CookieRule::new).transpose());
        let do_not_track = config.do_not_track.as_ref().map(DoNotTrack::new).transpose();
        let do_not_track = do_not_track.unwrap_or_else(|wrong| {
            mistakes.push(wrong);
            None
        });
        if !mistakes.is_empty() {
            return Err(mistakes);
        }
        Ok(Settings {
            paths: config.paths.clone(),
            cookie,
            do_not_track,
            redirects: shared.redirects.clone(),
            client_address: shared.client_address,
        })
    }

    /// Whether a path is of this input.
    pub fn takes(&self, path: &str) -> bool {
        let path = self.mapped(path);
        path == "/i"
            || path == "/ice.png"
            || is_vendor_path(path)
            || (path.starts_with(REDIRECT_PATH) && !self.redirects.is_empty())
    }

    fn mapped<'p>(&'p self, path: &'p str) -> &'p str {
        self.paths.get(path).map_or(path, String::as_str)
    }
}

/// `/{vendor}/{version}`, the vendor a domain in reverse.
fn is_vendor_path(path: &str) -> bool {
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-' | b'.');
    let Some((vendor, version)) = path.strip_prefix('/').and_then(|path| path.split_once('/')) else {
        return false;
    };
    let is_vendor = vendor.contains('.') && vendor.split('.').all(|part| !part.is_empty());
    is_vendor
        && !version.is_empty()
        && path.bytes().all(|byte| byte == b'/' || allowed(byte))
        && !version.contains('/')
}

/// Makes events of a request.
pub fn read(request: &Request<'_>, settings: &Settings, gathered: &mut Gathered) -> Answer {
    let path = settings.mapped(request.path);
    let mut visit = Visit::new(request, settings.client_address);
    if path.starts_with(REDIRECT_PATH) && !settings.redirects.is_empty() {
        return redirect::read(&mut visit, settings, gathered);
    }
    let mut answer = if *request.method == Method::POST { Answer::ok() } else { Answer::gif() };
    if settings.do_not_track.as_ref().is_some_and(|rule| rule.is_wanted(request.headers)) {
        return answer;
    }
    if let Some(rule) = &settings.cookie {
        let decided = rule.decide(&visit);
        if let Some(bounce) = decided.bounce {
            return bounce;
        }
        visit.network_id = decided.id;
        answer.headers.extend(decided.set.map(|cookie| (SET_COOKIE, cookie)));
    }
    if path == IGLU_PATH {
        iglu::read(&visit, gathered);
    } else if *request.method == Method::POST && (!request.body.is_empty() || request.query.is_empty()) {
        batch(&visit, gathered);
    } else {
        event::read(&[], Origin::Query, &visit, gathered);
    }
    answer
}

/// The events of a POST body. One that cannot be taken apart is one invalid event.
fn batch(visit: &Visit<'_>, gathered: &mut Gathered) {
    let request = visit.request;
    let (kind, why) = match items(request.body) {
        Ok(items) if items.is_empty() => ("empty_batch", "`data` of the batch is empty".to_owned()),
        Ok(items) if too_many(items.len(), visit) => ("too_many_events", too_many_text(items.len())),
        Ok(items) if visit.is_wrong() => {
            ("invalid_query", format!("the query of {} events is wrong", items.len()))
        }
        Ok(items) => {
            for item in items {
                match event::pairs(item.get()) {
                    Ok(pairs) => event::read(&pairs, Origin::Item(item.get()), visit, gathered),
                    Err(why) => event::refuse_item(item.get(), &why, visit, gathered),
                }
            }
            return;
        }
        Err(_) if request.body.is_empty() => {
            ("empty_body", "the body is empty, and so is the query".to_owned())
        }
        Err(why) => ("invalid_batch", why),
    };
    unreadable::refuse_whole(request, kind, why, gathered);
}

/// Whether so many events, each with what the request says of all, are more than is kept of one request.
fn too_many(events: usize, visit: &Visit<'_>) -> bool {
    let repeated = visit.request.query.len() + visit.agent.as_ref().map_or(0, |agent| agent.len());
    events > MAX_EVENTS || events > 1 && events.saturating_mul(repeated) > MAX_REPEATED
}

fn too_many_text(events: usize) -> String {
    format!(
        "{events} events are more than one request may have, which are {MAX_EVENTS}, and fewer with a long query or user agent"
    )
}

/// The items of a batch, not looked into.
fn items(body: &[u8]) -> Result<Vec<&RawValue>, String> {
    let text = std::str::from_utf8(body).map_err(|error| format!("the body is not UTF-8: {error}"))?;
    let batch: SelfDescribing<'_> =
        serde_json::from_str(text).map_err(|error| format!("the body is not a batch of events: {error}"))?;
    let key = batch.key()?;
    if (key.vendor(), key.name()) != BATCH || !key.version().starts_with("1-0-") {
        return Err(format!(
            "the body is of schema `{key}`, and not a batch, `iglu:{}/{}/jsonschema/1-0-*`",
            BATCH.0, BATCH.1
        ));
    }
    serde_json::from_str(batch.data.get())
        .map_err(|error| format!("`data` of the batch is not an array: {error}"))
}
