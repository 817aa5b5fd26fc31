//! Pixels: `GET /pixel`, or `/pixel/<schema>`, for pages and mails that can load a picture and nothing else.
//!
//! The payload is an object of the query's parameters, each a string, or an array of strings where it is there several
//! times; or it is what `hbp` holds, JSON in base64. `rto` asks for a redirect instead of the picture, and leads to the
//! hosts alone that the operator allows. A parameter that is no part of the payload is in an entity of schema
//! `io.forebay/surroundings/1-0-0`.

use forebay_api::Invalid;
use http::header::{CACHE_CONTROL, HeaderValue, LOCATION};
use http::{Method, StatusCode};
use schemars::JsonSchema;
use serde::Deserialize;

use super::entities::{Entities, key};
use super::mount::Mount;
use super::object::Object;
use super::own_schemas::{ARBITRARY, SURROUNDINGS};
use super::redirect::Target;
use super::text::{decode_base64, decode_form, decode_path, raw_pairs, short};
use super::unreadable::{Keep, because, refuse};
use super::{Answer, Gathered, Request, Tracked, event_id, form, json};

/// The parameter with a payload: JSON in base64.
const PAYLOAD: &str = "hbp";

/// The parameter with the address of a redirect.
const REDIRECT: &str = "rto";

/// The keys of `pixel`.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
#[schemars(rename = "PixelSettings")]
pub struct Settings {
    /// Where the picture is: here, or below it by the key of the schema that the payload obeys, as in
    /// `/pixel/com.acme/open/1-0-0`.
    pub path: Mount,
}

impl Default for Settings {
    fn default() -> Settings {
        Settings { path: Mount::known("/pixel") }
    }
}

impl Settings {
    /// Whether a request for `path` is for this input.
    pub fn takes(&self, path: &str) -> bool {
        self.path.below(path).is_some()
    }
}

/// Reads a request into an event. `may_lead_to` says whether a redirect may lead to a host, which is in lowercase.
pub fn read(
    request: &Request<'_>,
    settings: &Settings,
    may_lead_to: &dyn Fn(&str) -> bool,
    gathered: &mut Gathered,
) -> Answer {
    if !matches!(*request.method, Method::GET | Method::HEAD) {
        return Answer::refused(StatusCode::METHOD_NOT_ALLOWED, "load the picture with GET");
    }
    let redirect = redirect(request.query, may_lead_to);
    let below = settings.path.below(request.path).unwrap_or_default();
    let wrong = redirect.as_ref().and_then(|redirect| redirect.as_ref().err()).cloned();
    if let Err(why) = read_query(request, below, wrong, gathered) {
        refuse(request, request.body, Keep { query: true, ..Keep::default() }, why, gathered);
    }
    match redirect {
        None => Answer::gif(),
        Some(Ok(target)) => {
            let mut answer = Answer::text(StatusCode::FOUND, "");
            answer.headers.push((LOCATION, target.location));
            answer
                .headers
                .push((CACHE_CONTROL, HeaderValue::from_static("no-cache, no-store, must-revalidate")));
            answer
        }
        Some(Err(_)) => Answer::refused(StatusCode::FORBIDDEN, "the redirect is not allowed"),
    }
}

/// Where the answer leads; `None`: nobody asked for a redirect.
fn redirect(query: &str, may_lead_to: &dyn Fn(&str) -> bool) -> Option<Result<Target, Invalid>> {
    let named = |(name, value)| (decode_form(name).is_ok_and(|name| name == REDIRECT)).then_some(value);
    let mut values = raw_pairs(query).filter_map(named);
    let value = values.next()?;
    let refused = |message: String| because("redirect_refused", message);
    if values.next().is_some() {
        return Some(Err(refused(format!("`{REDIRECT}` is there twice"))));
    }
    let target = decode_form(value).map_err(|error| error.to_string()).and_then(|address| {
        Target::parse(&address).map_err(|error| format!("`{}` is no target: {error}", short(&address)))
    });
    Some(match target {
        Ok(target) if may_lead_to(&target.host) => Ok(target),
        Ok(target) => Err(Invalid {
            resolution: Some("add it to the hosts that redirects may lead to".to_owned()),
            ..refused(format!("no redirect may lead to `{}`", target.host))
        }),
        Err(message) => Err(refused(format!("`{REDIRECT}`: {message}"))),
    })
}

/// Adds the event of the query, an invalid one where `wrong` says why.
fn read_query(
    request: &Request<'_>,
    below: &str,
    wrong: Option<Invalid>,
    gathered: &mut Gathered,
) -> Result<(), Invalid> {
    let named = match below {
        "" => None,
        encoded => {
            let text = decode_path(encoded).map_err(|error| {
                because("invalid_schema_key", format!("the path cannot be decoded: {error}"))
            })?;
            Some(key(&text)?)
        }
    };
    let (payload, surroundings) = parts(request.query)?;
    let mut entities = Entities::default();
    if !surroundings.is_empty() {
        entities.push(SURROUNDINGS, &surroundings.finish());
    }
    let id = event_id::fresh(request.received);
    let event = Tracked {
        schema: named.as_ref().unwrap_or(&ARBITRARY),
        id: &id,
        time: request.received,
        payload: &payload,
        contexts: &entities.finish(),
    };
    match wrong {
        None => gathered.event(&event),
        Some(why) => gathered.refuse(&event, why),
    }
    Ok(())
}

/// The payload, and what is beside it.
fn parts(query: &str) -> Result<(Vec<u8>, Object), Invalid> {
    let (mut encoded, mut plain, mut beside) = (None, Vec::new(), Vec::new());
    for whole in query.split('&').filter(|part| !part.is_empty()) {
        let (name, value) = whole.split_once('=').unwrap_or((whole, ""));
        let decoded = decode_form(name).map_err(|error| {
            because("invalid_encoding", format!("a name in the query cannot be decoded: {error}"))
        })?;
        match &*decoded {
            PAYLOAD if encoded.is_some() => {
                return Err(because("invalid_envelope", format!("`{PAYLOAD}` is there twice")));
            }
            PAYLOAD => encoded = Some(value),
            REDIRECT => beside.push(whole),
            _ => plain.push(whole),
        }
    }
    let Some(encoded) = encoded else {
        return Ok((form::object(&plain.join("&"))?.finish(), form::object(&beside.join("&"))?));
    };
    let wrong = |kind: &str, message: String| because(kind, format!("`{PAYLOAD}`: {message}"));
    // A `+` is of the alphabet of base64 here, and no space.
    let text = decode_path(encoded).map_err(|error| wrong("invalid_encoding", error.to_string()))?;
    let bytes = decode_base64(&text).map_err(|error| wrong("invalid_encoding", error.to_string()))?;
    let value = json::text(&bytes).and_then(json::value);
    let value = value.and_then(|value| json::check(value).map(|()| value));
    let payload = value.map_err(|why| wrong(&why.kind, why.message))?.get().as_bytes().to_vec();
    plain.extend(beside);
    Ok((payload, form::object(&plain.join("&"))?))
}

#[cfg(test)]
mod tests;
