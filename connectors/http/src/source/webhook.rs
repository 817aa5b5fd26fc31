//! Webhooks: `POST /webhook`, or `/webhook/<schema>` for a sender whose data obeys a schema. JSON objects, arrays of
//! them, forms and text.
//!
//! Events without a schema have `io.forebay/arbitrary/1-0-0`, which anything obeys. A request whose signature is wrong
//! makes no event at all, because nobody knows whose it is; every other one does, an invalid one where it cannot be read.

mod challenge;
pub mod signature;

use std::collections::BTreeMap;

use forebay_api::{Invalid, SchemaKey};
use http::{Method, StatusCode};
use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::value::RawValue;

pub use self::challenge::Challenge;
pub use self::signature::Signature;
use super::entities::{Entities, key};
use super::form;
use super::header_text::HeaderText;
use super::media_type::MediaType;
use super::mount::Mount;
use super::object::Object;
use super::own_schemas::{ARBITRARY, HEADERS};
use super::secret::Secret;
use super::unreadable::{Keep, because, refuse, write_header};
use super::{Answer, Gathered, Request, Tracked, event_id, json, text};

/// The keys of `webhook`.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
#[schemars(rename = "WebhookSettings")]
pub struct Settings {
    /// Where events are sent: here, or below it by the key of the schema that they obey, as in
    /// `/webhook/com.acme/order/1-0-0`.
    pub path: Mount,
    /// Tokens, one of which a sender must show: `Authorization: Bearer …`. None by default, and then nobody is asked.
    pub tokens: Vec<Secret>,
    /// How every request must be signed. Absent: not at all.
    pub signature: Option<Signature>,
    /// How requests for the schemas of some vendors (`com.github`) must be signed instead.
    pub signatures: BTreeMap<String, Signature>,
    /// How a sender asks whether it has the right address, before it sends.
    pub challenge: Option<Challenge>,
    /// Headers to keep beside each event, such as `x-github-event`. Credentials never are.
    pub headers: Vec<HeaderText>,
    /// The header with the sender's id for what it sends, the same when it is sent again, such as `x-github-delivery`.
    /// Absent, or where a request has none: a new id is made each time.
    pub id_header: Option<HeaderText>,
}

impl Default for Settings {
    fn default() -> Settings {
        Settings {
            path: Mount::known("/webhook"),
            tokens: Vec::new(),
            signature: None,
            signatures: BTreeMap::new(),
            challenge: None,
            headers: Vec::new(),
            id_header: None,
        }
    }
}

impl Settings {
    /// Whether a request for `path` is for this input.
    pub fn takes(&self, path: &str) -> bool {
        self.path.below(path).is_some()
    }
}

/// Reads a request into events.
pub fn read(request: &Request<'_>, settings: &Settings, gathered: &mut Gathered) -> Answer {
    let below = settings.path.below(request.path).unwrap_or_default();
    let schema = match below {
        "" => Ok(None),
        encoded => text::decode_path(encoded)
            .map_err(|error| because("invalid_schema_key", format!("the path cannot be decoded: {error}")))
            .and_then(|text| key(&text).map(Some)),
    };
    if let Some(answer) = settings.challenge.as_ref().and_then(|challenge| challenge.before(request)) {
        return answer;
    }
    if request.method != Method::POST {
        return Answer::refused(StatusCode::METHOD_NOT_ALLOWED, "send events with POST");
    }
    let vendor = schema.as_ref().ok().and_then(Option::as_ref).map(SchemaKey::vendor);
    let own = vendor.and_then(|vendor| settings.signatures.get(vendor));
    if let Some(signature) = own.or(settings.signature.as_ref())
        && let Err(wrong) = signature.check(request)
    {
        return Answer::refused(StatusCode::UNAUTHORIZED, wrong.as_str());
    }
    if let Some(answer) = settings.challenge.as_ref().and_then(|challenge| challenge.inside(request)) {
        return answer;
    }
    match schema {
        Ok(schema) => read_body(request, settings, schema.as_ref().unwrap_or(&ARBITRARY), gathered),
        Err(why) => refuse(request, request.body, Keep::default(), why, gathered),
    }
    Answer::ok()
}

/// Adds what the body holds.
fn read_body(request: &Request<'_>, settings: &Settings, schema: &SchemaKey, gathered: &mut Gathered) {
    let headers = kept_headers(request, settings);
    let given = settings.id_header.as_ref().and_then(|name| request.headers.get(name.as_name()));
    let given = given.map(|value| String::from_utf8_lossy(value.as_bytes()));
    let add = |at: usize, payload: &[u8], gathered: &mut Gathered| {
        let id = match &given {
            None => event_id::fresh(request.received),
            Some(given) => event_id::stable(&[request.path, given, &at.to_string()]),
        };
        gathered.event(&Tracked { schema, id: &id, time: request.received, payload, contexts: &headers });
    };
    match Payloads::of(request) {
        Ok(Payloads::Made(payload)) => add(0, &payload, gathered),
        Ok(Payloads::Items(items)) => {
            for (at, item) in items.into_iter().enumerate() {
                match check(item) {
                    Ok(()) => add(at, item.get().as_bytes(), gathered),
                    Err(why) => refuse(request, item.get().as_bytes(), Keep::default(), why, gathered),
                }
            }
        }
        Err(why) => refuse(request, request.body, Keep::default(), why, gathered),
    }
}

fn check(item: &RawValue) -> Result<(), Invalid> {
    match json::is_null(item) {
        true => Err(because("invalid_envelope", "`null` holds no event")),
        false => json::check(item),
    }
}

/// What a body holds.
enum Payloads<'p> {
    /// The items of an array, or the one value that there is.
    Items(Vec<&'p RawValue>),
    /// JSON that was made of a form or of text.
    Made(Vec<u8>),
}

impl<'p> Payloads<'p> {
    /// By its content type. Without one it is JSON; what is neither JSON nor a form is text.
    fn of(request: &Request<'p>) -> Result<Payloads<'p>, Invalid> {
        let text = json::text(request.body)?;
        match MediaType::of(request.headers) {
            Some(media) if media.is_form() => form::object(text).map(Object::finish).map(Payloads::Made),
            Some(media) if !media.is_json() => {
                let mut payload = Vec::with_capacity(text.len() + 2);
                forebay_api::json::write_string(text, &mut payload);
                Ok(Payloads::Made(payload))
            }
            _ => match json::items(text)? {
                items if items.is_empty() => Err(because("empty_body", "the array has no items")),
                items => Ok(Payloads::Items(items)),
            },
        }
    }
}

/// The entity with the headers that the settings keep, as a JSON array; empty where there are none.
fn kept_headers(request: &Request<'_>, settings: &Settings) -> Vec<u8> {
    let mut object = Object::default();
    for name in &settings.headers {
        let mut values = request.headers.get_all(name.as_name()).iter().peekable();
        if values.peek().is_none() {
            continue;
        }
        let mut array = Vec::new();
        for value in values {
            array.push(if array.is_empty() { b'[' } else { b',' });
            write_header(value.as_bytes(), &mut array);
        }
        array.push(b']');
        object.push(name.as_name().as_str(), &array);
    }
    let mut entities = Entities::default();
    if !object.is_empty() {
        entities.push(HEADERS, &object.finish());
    }
    entities.finish()
}

#[cfg(test)]
mod tests;
