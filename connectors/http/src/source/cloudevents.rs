//! CloudEvents 1.0 over HTTP: `POST /cloudevents` in all three content modes, told apart by the `Content-Type`.
//!
//! The data becomes the payload, the attributes and extensions an entity of schema `io.forebay/cloudevent/1-0-0`.
//! `dataschema` names the schema; it is never fetched. An event that cannot be read becomes an invalid one beside its
//! neighbours. The references are the CloudEvents HTTP protocol binding, JSON format and HTTP webhook, all 1.0.2.

mod attributes;
mod data;
mod handshake;

use std::borrow::Cow;
use std::num::NonZeroU32;

use forebay_api::Invalid;
use http::{Method, StatusCode};
use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::value::RawValue;

use self::attributes::{Attributes, Scalar};
use self::data::Data;
use super::entities::Entities;
use super::json::Members;
use super::media_type::MediaType;
use super::mount::Mount;
use super::own_schemas::{ARBITRARY, CLOUDEVENT};
use super::secret::Secret;
use super::text::{decode_header, short};
use super::unreadable::{Keep, because, refuse};
use super::{Answer, Gathered, Request, Tracked, event_id, json};

/// What the headers of attributes begin with, in binary mode.
const PREFIX: &str = "ce-";

/// The keys of `cloudevents`.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
#[schemars(rename = "CloudEventsSettings")]
pub struct Settings {
    /// Where events are sent.
    pub path: Mount,
    /// Tokens, one of which a sender must show: `Authorization: Bearer …`. None by default, and then nobody is asked.
    pub tokens: Vec<Secret>,
    /// Which systems may send, as they name themselves in the handshake (`WebHook-Request-Origin`): exact names,
    /// `*.example.com` for all below one, `*` for all.
    pub allowed_origins: Vec<String>,
    /// How many requests a minute the handshake permits. Absent: any number. It is told to the sender, not enforced.
    pub allowed_rate: Option<NonZeroU32>,
}

impl Default for Settings {
    fn default() -> Settings {
        let allowed_origins = vec!["*".to_owned()];
        Settings {
            path: Mount::known("/cloudevents"),
            tokens: Vec::new(),
            allowed_origins,
            allowed_rate: None,
        }
    }
}

impl Settings {
    /// Whether a request for `path` is for this input.
    pub fn takes(&self, path: &str) -> bool {
        path == self.path.as_str()
    }
}

/// Reads a request into events.
pub fn read(request: &Request<'_>, settings: &Settings, gathered: &mut Gathered) -> Answer {
    match *request.method {
        Method::OPTIONS => return handshake::answer(request, settings),
        Method::POST => {}
        _ => return Answer::refused(StatusCode::METHOD_NOT_ALLOWED, "send events with POST"),
    }
    let media = MediaType::of(request.headers);
    let outcome = match media.as_ref().map(MediaType::as_str) {
        Some("application/cloudevents+json") => read_structured(request, gathered),
        Some("application/cloudevents-batch+json") => read_batch(request, gathered),
        Some(other) if other.starts_with("application/cloudevents") => {
            let message = format!("`{}` is a format of CloudEvents that is not read here", short(other));
            let resolution = Some("send `application/cloudevents+json`".to_owned());
            Err(Invalid { resolution, ..because("unsupported_content_type", message) })
        }
        _ => read_binary(request, media.as_ref(), gathered),
    };
    if let Err(why) = outcome {
        refuse(request, request.body, Keep { headers: PREFIX, ..Keep::default() }, why, gathered);
    }
    Answer::ok()
}

fn read_structured(request: &Request<'_>, gathered: &mut Gathered) -> Result<(), Invalid> {
    read_object(request, json::value(json::text(request.body)?)?, gathered)
}

/// An empty batch is a batch, and no event.
fn read_batch(request: &Request<'_>, gathered: &mut Gathered) -> Result<(), Invalid> {
    let text = json::text(request.body)?;
    if !text.trim_ascii_start().starts_with('[') {
        let message = format!("a batch is an array of events, this is {}", json::kind(json::value(text)?));
        return Err(because("invalid_envelope", message));
    }
    for item in json::items(text)? {
        if let Err(why) = read_object(request, item, gathered) {
            refuse(request, item.get().as_bytes(), Keep::default(), why, gathered);
        }
    }
    Ok(())
}

/// Adds the event of one JSON object.
fn read_object(request: &Request<'_>, object: &RawValue, gathered: &mut Gathered) -> Result<(), Invalid> {
    json::check(object)?;
    let mut attributes = Attributes::default();
    let (mut data, mut encoded) = (None, None);
    for (name, value) in Members::of("the event", object)?.0 {
        match &*name {
            "data" => data = Some(value),
            "data_base64" if json::is_null(value) => {}
            "data_base64" => encoded = Some(value),
            // An attribute that is null is one that is not set.
            _ if json::is_null(value) => {}
            _ => attributes.set(name, Scalar::of_json(value)?)?,
        }
    }
    let media = attributes.get("datacontenttype").map(MediaType::parse);
    let data = match (data, encoded) {
        (Some(_), Some(_)) => {
            return Err(because("invalid_envelope", "it has both `data` and `data_base64`"));
        }
        (Some(data), None) => Data::json(data.get()),
        (None, Some(encoded)) => {
            let text = json::string(encoded).ok_or_else(|| {
                because("invalid_envelope", format!("`data_base64` is {}, not a string", json::kind(encoded)))
            })?;
            Data::of_base64(&text, media.as_ref())
        }
        (None, None) => Data::json(""),
    };
    add(request, &attributes, data, gathered)
}

/// Adds the event whose attributes are headers and whose data is the body.
fn read_binary(
    request: &Request<'_>,
    media: Option<&MediaType>,
    gathered: &mut Gathered,
) -> Result<(), Invalid> {
    let mut attributes = Attributes::default();
    for name in request.headers.keys() {
        let Some(attribute) = name.as_str().strip_prefix(PREFIX) else { continue };
        if attribute == "datacontenttype" {
            let message = "`datacontenttype` is the header `content-type`, not `ce-datacontenttype`";
            return Err(because("invalid_envelope", message));
        }
        let mut values = request.headers.get_all(name).iter();
        let (Some(value), None) = (values.next(), values.next()) else {
            return Err(because("invalid_envelope", format!("the header `{name}` is there twice")));
        };
        let value = header_text(value.as_bytes()).map_err(|error| {
            because("invalid_encoding", format!("the header `{name}` cannot be decoded: {error}"))
        })?;
        attributes.set(Cow::Borrowed(attribute), Scalar::Text(value))?;
    }
    if attributes.is_empty() {
        let message =
            "there are neither headers with attributes (`ce-id`, …) nor a content type of CloudEvents";
        let resolution = Some("send `content-type: application/cloudevents+json`".to_owned());
        return Err(Invalid { resolution, ..because("unsupported_content_type", message) });
    }
    if let Some(content_type) = request.headers.get(http::header::CONTENT_TYPE) {
        let text = String::from_utf8_lossy(content_type.as_bytes());
        attributes.set(Cow::Borrowed("datacontenttype"), Scalar::Text(text))?;
    }
    add(request, &attributes, Data::of_bytes(request.body, media), gathered)
}

/// A header's value without quotes around it and decoded once.
fn header_text(value: &[u8]) -> Result<Cow<'_, str>, Cow<'static, str>> {
    let text = str::from_utf8(value).map_err(|_| "it is not UTF-8")?;
    let decoded = match text.strip_prefix('"').and_then(|rest| rest.strip_suffix('"')) {
        None => decode_header(text),
        Some(quoted) => {
            let mut plain = String::with_capacity(quoted.len());
            let mut rest = quoted.chars();
            while let Some(char) = rest.next() {
                // A backslash stands before what is meant literally.
                plain.extend(if char == '\\' { rest.next() } else { Some(char) });
            }
            decode_header(&plain).map(|text| Cow::Owned(text.into_owned()))
        }
    };
    decoded.map_err(|error| error.to_string().into())
}

/// Adds an event, once its attributes are what they must be. Its id is the same whenever it is sent.
fn add(
    request: &Request<'_>,
    attributes: &Attributes<'_>,
    data: Data<'_>,
    gathered: &mut Gathered,
) -> Result<(), Invalid> {
    let known = attributes.check()?;
    let mut entities = Entities::default();
    entities.push(CLOUDEVENT, &attributes.to_json(data.is_base64));
    let id = event_id::stable(&[known.source, known.id]);
    let (schema, wrong) = match known.schema {
        None => (None, None),
        Some(Ok(schema)) => (Some(schema), None),
        // The attributes keep what it says.
        Some(Err(why)) => (None, Some(why)),
    };
    let event = Tracked {
        schema: schema.as_ref().unwrap_or(&ARBITRARY),
        id: &id,
        time: known.time.unwrap_or(request.received),
        payload: &data.payload,
        contexts: &entities.finish(),
    };
    match wrong.or(data.why) {
        None => gathered.event(&event),
        Some(why) => gathered.refuse(&event, why),
    }
    Ok(())
}

#[cfg(test)]
mod tests;
