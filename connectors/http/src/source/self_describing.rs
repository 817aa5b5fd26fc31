//! Self-describing JSON: `POST /self-describing` with one object or an array of them, each of which says what schema its
//! data obeys.
//!
//! Nothing that came is dropped: members of an object that the settings give no meaning go into an entity of schema
//! `io.forebay/surroundings/1-0-0`. An object that cannot be read becomes an invalid event beside its neighbours.

mod properties;

use forebay_api::Invalid;
use http::{Method, StatusCode};
use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::value::RawValue;

pub use self::properties::Properties;
use super::entities::{Entities, key};
use super::mount::Mount;
use super::own_schemas::SURROUNDINGS;
use super::secret::Secret;
use super::unreadable::{Keep, because, refuse};
use super::{Answer, Gathered, Request, Tracked, event_id, json};

/// The keys of `self_describing`.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
#[schemars(rename = "SelfDescribingSettings")]
pub struct Settings {
    /// Where events are sent.
    pub path: Mount,
    /// Tokens, one of which a sender must show: `Authorization: Bearer …`. None by default, and then nobody is asked.
    pub tokens: Vec<Secret>,
    /// What the members of an object are called.
    pub properties: Properties,
}

impl Default for Settings {
    fn default() -> Settings {
        Settings {
            path: Mount::known("/self-describing"),
            tokens: Vec::new(),
            properties: Properties::default(),
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
    if request.method != Method::POST {
        return Answer::refused(StatusCode::METHOD_NOT_ALLOWED, "send events with POST");
    }
    let items = match json::text(request.body).and_then(json::items) {
        Ok(items) if items.is_empty() => Err(because("empty_body", "the array has no items")),
        other => other,
    };
    match items {
        Ok(items) => items.into_iter().for_each(|item| {
            if let Err(why) = read_item(request, settings, item, gathered) {
                refuse(request, item.get().as_bytes(), Keep::default(), why, gathered);
            }
        }),
        Err(why) => refuse(request, request.body, Keep::default(), why, gathered),
    }
    Answer::ok()
}

/// Adds the event of one object; an error where it is none that names its schema.
fn read_item(
    request: &Request<'_>,
    settings: &Settings,
    item: &RawValue,
    gathered: &mut Gathered,
) -> Result<(), Invalid> {
    json::check(item)?;
    let parts = settings.properties.find(item)?;
    let schema = json::string(parts.schema).ok_or_else(|| {
        let name = settings.properties.schema();
        because("invalid_envelope", format!("`{name}` is {}, not a string", json::kind(parts.schema)))
    })?;
    let schema = key(&schema)?;
    let mut entities = Entities::default();
    let contexts = parts.contexts.map_or(Ok(()), |contexts| entities.read(contexts));
    if !parts.rest.is_empty() {
        entities.push(SURROUNDINGS, &parts.rest.finish());
    }
    let id = event_id::fresh(request.received);
    let event = Tracked {
        schema: &schema,
        id: &id,
        time: request.received,
        payload: parts.data.get().as_bytes(),
        contexts: &entities.finish(),
    };
    match contexts {
        Ok(()) => gathered.event(&event),
        Err(why) => gathered.refuse(&event, why),
    }
    Ok(())
}

#[cfg(test)]
mod tests;
