//! The Iglu webhook: any data whose schema is named, in the query or by itself.

use forebay_api::SchemaKey;
use http::Method;
use serde_json::value::RawValue;

use super::convert::Members;
use super::entities::{described, is_shallow, push_entity};
use super::event::ENTITY;
use super::visit::Visit;
use super::{too_many, too_many_text};
use crate::source::text::pairs;
use crate::source::{Gathered, Tracked, fresh, unreadable};

/// The parameter that names the schema.
const SCHEMA: &str = "schema";

/// Gathers the events of a request: `?schema=…` with a JSON body (an object, or an array of them), a form body, or more
/// parameters; without it, a body of self-describing JSON, one or an array.
pub(super) fn read(visit: &Visit<'_>, gathered: &mut Gathered) {
    let before = gathered.len();
    if let Err((kind, why)) = events(visit, gathered) {
        debug_assert_eq!(gathered.len(), before, "a request is refused as a whole, or not");
        unreadable::refuse_whole(visit.request, kind, why, gathered);
    }
}

type Refusal = (&'static str, String);

fn events(visit: &Visit<'_>, gathered: &mut Gathered) -> Result<(), Refusal> {
    let query = visit.query.as_ref().map_err(|error| ("invalid_query", error.to_string()))?;
    let named = visit.parameter(SCHEMA);
    let schema = named.map(str::parse::<SchemaKey>).transpose();
    let schema = schema.map_err(|error| ("invalid_schema_key", format!("`schema`: {error}")))?;
    let body = std::str::from_utf8(visit.request.body);
    let body = body.map_err(|error| ("invalid_body", format!("the body is not UTF-8: {error}")))?;
    let mut described_events = Vec::new();
    match (&schema, *visit.request.method == Method::POST && !body.is_empty()) {
        (None, false) => return Err(("schema_missing", "`schema` is missing".to_owned())),
        (Some(schema), false) => {
            let data = query.iter().filter(|(name, _)| name != SCHEMA);
            described_events.push((schema.clone(), object(data.map(|(name, text)| (&**name, &**text)))));
        }
        (Some(schema), true) if is_form(visit) => {
            let form: Result<Vec<_>, _> = pairs(body).collect();
            let form = form.map_err(|error| ("invalid_body", error.to_string()))?;
            described_events
                .push((schema.clone(), object(form.iter().map(|(name, text)| (&**name, &**text)))));
        }
        (schema, true) => {
            let all = one_or_more(body)?;
            if too_many(all.len(), visit) {
                return Err(("too_many_events", too_many_text(all.len())));
            }
            for data in all {
                let event = match schema {
                    Some(schema) if is_shallow(data.get()) => Ok((schema.clone(), data.get())),
                    Some(_) => Err("the data is nested too deep".to_owned()),
                    None => described(data.get()),
                };
                let (schema, data) = event.map_err(|why| ("invalid_body", why))?;
                described_events.push((schema, data.as_bytes().to_vec()));
            }
        }
    }
    let contexts = contexts(visit);
    for (schema, payload) in &described_events {
        let (id, time) = (fresh::uuid(), visit.request.received);
        gathered.event(&Tracked { schema, id: &id, time, payload, contexts: &contexts });
    }
    Ok(())
}

fn is_form(visit: &Visit<'_>) -> bool {
    let kind = visit.request.headers.get(http::header::CONTENT_TYPE).and_then(|kind| kind.to_str().ok());
    kind.is_some_and(|kind| kind.trim().to_ascii_lowercase().starts_with("application/x-www-form-urlencoded"))
}

/// The items of an array that is not empty, or the one value that there is.
fn one_or_more(body: &str) -> Result<Vec<&RawValue>, Refusal> {
    let refused = |error: serde_json::Error| ("invalid_body", format!("the body is not JSON: {error}"));
    let whole: &RawValue = serde_json::from_str(body).map_err(refused)?;
    if !whole.get().starts_with('[') {
        return Ok(vec![whole]);
    }
    let items: Vec<&RawValue> = serde_json::from_str(whole.get()).map_err(refused)?;
    if items.is_empty() { Err(("empty_body", "the array is empty".to_owned())) } else { Ok(items) }
}

fn object<'p>(pairs: impl Iterator<Item = (&'p str, &'p str)>) -> Vec<u8> {
    let mut members = Members::default();
    // The last of a name counts, as where forms are read elsewhere.
    let mut last = std::collections::BTreeMap::new();
    pairs.for_each(|(name, text)| {
        last.insert(name, text);
    });
    last.into_iter().for_each(|(name, text)| members.text(name, text));
    members.finish()
}

/// What the request says of its sender.
fn contexts(visit: &Visit<'_>) -> Vec<u8> {
    let mut members = Members::default();
    if let Some(id) = &visit.network_id {
        members.text("network_userid", id);
    }
    if let Some(address) = visit.address(None) {
        members.text("user_ipaddress", &address.to_string());
    }
    if let Some(agent) = &visit.agent {
        members.text("useragent", agent);
    }
    let mut entities = vec![b'['];
    push_entity(&mut entities, ENTITY, &members.finish());
    entities.push(b']');
    entities
}
