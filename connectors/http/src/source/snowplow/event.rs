//! One event: its parameters become its payload, its entities, or the reasons why it is invalid.

use std::borrow::Cow;
use std::fmt;
use std::sync::LazyLock;

use forebay_api::{Invalid, InvalidDetail, SchemaKey, json};
use serde::Deserialize;
use serde::de::{Deserializer, MapAccess, Visitor};
use serde_json::value::RawValue;

use super::convert::{self, Members};
use super::entities::{Text, described, either, is_shallow, opened, push_entity};
use super::parameters::{Group, Kind, PARAMETERS};
use super::values::Values;
use super::visit::Visit;
use crate::source::text::short;
use crate::source::{Gathered, Tracked, fresh};

/// How many reasons one event gives for being invalid; the rest is like these.
const MAX_DETAILS: usize = 16;

/// The entity that goes with every event.
pub(super) const ENTITY: &str = "io.forebay/snowplow/1-0-0";
/// An event that nobody can tell the kind of.
pub(super) const UNKNOWN: &str = "io.forebay/snowplow_unknown/1-0-0";
/// What a redirect is.
pub(super) const REDIRECT: &str = "com.snowplowanalytics.snowplow/uri_redirect/1-0-0";

/// The kinds of events: the value of `e`, the schema, and what of the parameters is their payload.
pub(super) const KINDS: [(&str, &str, &[Group]); 6] = [
    ("pv", "io.forebay/page_view/1-0-0", &[Group::Page]),
    ("pp", "io.forebay/page_ping/1-0-0", &[Group::Page, Group::Ping]),
    ("se", "io.forebay/structured_event/1-0-0", &[Group::Structured]),
    ("tr", "io.forebay/transaction/1-0-0", &[Group::Transaction]),
    ("ti", "io.forebay/transaction_item/1-0-0", &[Group::Item]),
    ("ad", "io.forebay/ad_impression/1-0-0", &[Group::Ad]),
];
/// The value of `e` of an event that brings its own schema.
const SELF_DESCRIBING: &str = "ue";

/// Where the parameters of an event were.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Origin<'r> {
    /// In the query alone.
    Query,
    /// In an item of a batch, which is this, and in the query.
    Item(&'r str),
}

/// A parameter of an item: its text, or why it has none.
pub(super) type Pair<'v> = (Cow<'v, str>, Result<Cow<'v, str>, String>);

/// Takes an item of a batch apart.
pub(super) fn pairs(item: &str) -> Result<Vec<Pair<'_>>, String> {
    let Item(raw) =
        serde_json::from_str(item).map_err(|error| format!("it is not an object of parameters: {error}"))?;
    Ok(raw.into_iter().map(|(name, value)| (name.0, text_of(value.get()))).collect())
}

/// The members of an object, values not looked into.
struct Item<'a>(Vec<(Text<'a>, &'a RawValue)>);

impl<'de: 'a, 'a> Deserialize<'de> for Item<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Item<'a>, D::Error> {
        struct Members;
        impl<'de> Visitor<'de> for Members {
            type Value = Vec<(Text<'de>, &'de RawValue)>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
                let mut members = Vec::with_capacity(32);
                while let Some(member) = map.next_entry()? {
                    members.push(member);
                }
                Ok(members)
            }
        }
        deserializer.deserialize_map(Members).map(Item)
    }
}

/// The text of a parameter. Trackers send strings; a number is taken by its digits, anything else is an error.
fn text_of(raw: &str) -> Result<Cow<'_, str>, String> {
    match raw.as_bytes() {
        [b'"', inside @ .., b'"'] if !inside.contains(&b'\\') => Ok(Cow::Borrowed(&raw[1..raw.len() - 1])),
        [b'"', ..] => {
            serde_json::from_str(raw).map(Cow::Owned).map_err(|error| format!("it is not text: {error}"))
        }
        [b'-' | b'0'..=b'9', ..] => Ok(Cow::Borrowed(raw)),
        _ => Err(format!("`{}` is not a string", short(raw))),
    }
}

/// An item that is not even an object of parameters.
pub(super) fn refuse_item(item: &str, why: &str, visit: &Visit<'_>, gathered: &mut Gathered) {
    let reading = Reading { details: Vec::new(), at: String::new() };
    let invalid = Invalid {
        kind: "invalid_event".to_owned(),
        message: why.to_owned(),
        resolution: None,
        details: reading.details,
    };
    let event = Refused { schema: &SCHEMAS.unknown, id: &fresh::uuid(), time: visit.request.received };
    event.put(Origin::Item(item), visit, invalid, gathered);
}

/// Reads one event. `pairs` are those of its item; those of the query win.
pub(super) fn read(pairs: &[Pair<'_>], origin: Origin<'_>, visit: &Visit<'_>, gathered: &mut Gathered) {
    let mut reading = Reading::of(origin, visit);
    let values = reading.values(pairs, visit);
    let id = reading.id(&values);
    let time = reading.time(&values, visit);
    let body = reading.body(&values, visit);
    let contexts = reading.contexts(&values, visit, &body);
    match (body, reading.details.is_empty()) {
        (Some(body), true) => {
            let (schema, payload) = (body.schema(), body.payload());
            gathered.event(&Tracked { schema, id: &id, time, payload, contexts: &contexts });
        }
        (body, _) => {
            let schema = body.as_ref().map_or(&SCHEMAS.unknown, Body::schema);
            let first = &reading.details[0];
            let message = match reading.details.len() {
                1 => first.message.clone(),
                more => format!("{}; and {} more", first.message, more - 1),
            };
            let kind = "invalid_event".to_owned();
            let invalid = Invalid { kind, message, resolution: None, details: reading.details };
            Refused { schema, id: &id, time }.put(origin, visit, invalid, gathered);
        }
    }
}

/// What an event is, and what it says.
struct Body {
    schema: Schema,
    payload: Vec<u8>,
    /// What of the parameters is in it.
    groups: &'static [Group],
}

enum Schema {
    Known(&'static SchemaKey),
    Own(SchemaKey),
}

impl Body {
    fn schema(&self) -> &SchemaKey {
        match &self.schema {
            Schema::Known(key) => key,
            Schema::Own(key) => key,
        }
    }

    fn payload(&self) -> &[u8] {
        &self.payload
    }
}

/// The schemas of the protocol's own events.
static SCHEMAS: LazyLock<Schemas> = LazyLock::new(|| {
    let key = |text: &str| text.parse().expect("it is a key");
    Schemas { kinds: KINDS.map(|(_, schema, _)| key(schema)), unknown: key(UNKNOWN), redirect: key(REDIRECT) }
});

struct Schemas {
    kinds: [SchemaKey; KINDS.len()],
    unknown: SchemaKey,
    redirect: SchemaKey,
}

/// What is wrong with an event, as far as it was read.
struct Reading {
    details: Vec<InvalidDetail>,
    /// Where the parameters are in the payload of an event that is refused.
    at: String,
}

impl Reading {
    fn of(origin: Origin<'_>, visit: &Visit<'_>) -> Reading {
        let at = match origin {
            Origin::Query => "/query",
            Origin::Item(_) if visit.request.query.is_empty() => "",
            Origin::Item(_) => "/event",
        };
        Reading { details: Vec::new(), at: at.to_owned() }
    }

    /// `keyword` is a word for what a parameter should be.
    fn wrong(&mut self, name: &str, keyword: &str, why: String) {
        if self.details.len() < MAX_DETAILS {
            let name = short(name);
            // In a query there is no place that could be pointed at.
            let path = match self.at.as_str() {
                "/query" => self.at.clone(),
                at => format!("{at}/{}", name.replace('~', "~0").replace('/', "~1")),
            };
            let message = format!("`{name}`: {why}");
            self.details.push(InvalidDetail { path, keyword: format!("/{keyword}"), message });
        }
    }

    fn values<'v>(&mut self, pairs: &'v [Pair<'_>], visit: &'v Visit<'_>) -> Values<'v> {
        let mut values = Values::new();
        for (name, text) in pairs {
            match text {
                Ok(text) => {
                    if values.set(Cow::Borrowed(name), Cow::Borrowed(text)).is_some() {
                        self.wrong(name, "unique", "it is given twice".to_owned());
                    }
                }
                Err(why) => self.wrong(name, "type", why.clone()),
            }
        }
        match &visit.query {
            Ok(query) => {
                for (name, text) in query {
                    values.set(Cow::Borrowed(name), Cow::Borrowed(text));
                }
                for name in &visit.repeated {
                    self.wrong(name, "unique", "it is given twice".to_owned());
                }
            }
            Err(error) => self.wrong("query", "encoding", error.to_string()),
        }
        values
    }

    fn id(&mut self, values: &Values<'_>) -> String {
        let Some(given) = values.get("eid") else { return fresh::uuid() };
        fresh::canonical_uuid(given).unwrap_or_else(|| {
            self.wrong("eid", "format", format!("`{}` is not a UUID", short(given)));
            fresh::uuid()
        })
    }

    /// When it happened: the tracker's word for it; else when it came, less what it waited in the tracker, whose clock may
    /// be wrong but not its differences.
    fn time(&mut self, values: &Values<'_>, visit: &Visit<'_>) -> i64 {
        // What is wrong with them is said where they are written.
        let of = |name: &str| values.get(name).and_then(|text| convert::time(text).ok());
        let received = visit.request.received;
        match (of("ttm"), of("dtm"), of("stm")) {
            (Some(happened), _, _) => happened,
            (None, Some(created), Some(sent)) if created < sent => received - (sent - created),
            _ => received,
        }
    }

    fn body(&mut self, values: &Values<'_>, visit: &Visit<'_>) -> Option<Body> {
        let kind = match (values.get("e"), &visit.redirect) {
            (None, Some(uri)) => return Some(redirected(uri)),
            (None, None) => {
                self.wrong("e", "required", "it is missing, and says what kind of event this is".to_owned());
                return None;
            }
            (Some(kind), _) => kind,
        };
        let encoded = ["ue_px", "ue_pr"].map(|name| (name, values.get(name)));
        if kind == SELF_DESCRIBING {
            return self.own(encoded);
        }
        if let Some((name, _)) = encoded.iter().find(|(_, given)| given.is_some()) {
            self.wrong(name, "unexpected", format!("only an event with `e={SELF_DESCRIBING}` has it"));
        }
        let Some(at) = KINDS.iter().position(|(word, _, _)| *word == kind) else {
            let known: Vec<&str> = KINDS.iter().map(|(word, _, _)| *word).chain([SELF_DESCRIBING]).collect();
            self.wrong("e", "enum", format!("`{}` is not one of {}", short(kind), known.join(", ")));
            return None;
        };
        let groups = KINDS[at].2;
        let mut members = Members::default();
        self.fields(values, |group| groups.contains(&group), &mut members);
        Some(Body { schema: Schema::Known(&SCHEMAS.kinds[at]), payload: members.finish(), groups })
    }

    /// The data of a self-describing event.
    fn own(&mut self, [encoded, plain]: [(&str, Option<&str>); 2]) -> Option<Body> {
        let name = if encoded.1.is_some() { encoded.0 } else { plain.0 };
        let json = match either(encoded, plain) {
            Ok(Some(json)) => json,
            Ok(None) => {
                self.wrong(encoded.0, "required", "it is missing, and so is `ue_pr`".to_owned());
                return None;
            }
            Err(why) => {
                self.wrong(name, "encoding", why);
                return None;
            }
        };
        let read = opened(&json, "unstruct_event").and_then(|inner| described(inner.get()));
        match read {
            Ok((schema, data)) => {
                Some(Body { schema: Schema::Own(schema), payload: data.into(), groups: &[] })
            }
            Err(why) => {
                self.wrong(name, "self_describing", why);
                None
            }
        }
    }

    /// All entities: that of the protocol first, then the tracker's.
    fn contexts(&mut self, values: &Values<'_>, visit: &Visit<'_>, body: &Option<Body>) -> Vec<u8> {
        let mut entities = vec![b'['];
        let groups = body.as_ref().map_or(&[][..], |body| body.groups);
        let entity = self.entity(values, visit, groups);
        push_entity(&mut entities, ENTITY, &entity);
        if let (Some(uri), Some(_)) = (&visit.redirect, values.get("e")) {
            push_entity(&mut entities, REDIRECT, &redirected(uri).payload);
        }
        let encoded = ["cx", "co"].map(|name| (name, values.get(name)));
        let name = if encoded[0].1.is_some() { "cx" } else { "co" };
        match either(encoded[0], encoded[1]) {
            Ok(None) => {}
            Ok(Some(json)) => {
                if let Err(why) = self.attached(name, &json, &mut entities) {
                    self.wrong(name, "self_describing", why);
                }
            }
            Err(why) => self.wrong(name, "encoding", why),
        }
        entities.push(b']');
        entities
    }

    /// The entities that a tracker attached. The error is of all of them; that of one is noted with its index.
    fn attached(&mut self, name: &str, json: &str, entities: &mut Vec<u8>) -> Result<(), String> {
        let inner = opened(json, "contexts")?;
        let all: Vec<&RawValue> = serde_json::from_str(inner.get()).map_err(|error| error.to_string())?;
        for (at, entity) in all.into_iter().enumerate() {
            match described(entity.get()) {
                Ok((schema, data)) => push_entity(entities, schema.as_str(), data.as_bytes()),
                Err(why) => self.wrong(name, "self_describing", format!("entity {at}: {why}")),
            }
        }
        Ok(())
    }

    /// The entity of what goes with every event.
    fn entity(&mut self, values: &Values<'_>, visit: &Visit<'_>, but: &[Group]) -> Vec<u8> {
        let mut members = Members::default();
        self.fields(values, |group| !but.contains(&group), &mut members);
        let network_id = values.get("tnuid").or(values.get("nuid")).or(visit.network_id.as_deref());
        if let Some(id) = network_id {
            members.text("network_userid", id);
        }
        let told = values.get("ip").and_then(|text| {
            let told = convert::address(text);
            told.map_err(|why| self.wrong("ip", "format", why)).ok()
        });
        if let Some(address) = visit.address(told) {
            members.text("user_ipaddress", &address.to_string());
        }
        if let Some(agent) = values.get("ua").or(visit.agent.as_deref()) {
            members.text("useragent", agent);
        }
        if !values.other.is_empty() {
            let mut other = Members::default();
            values.other.iter().for_each(|(name, text)| other.text(name, text));
            members.key("other");
            members.json.extend_from_slice(&other.finish());
        }
        members.finish()
    }

    fn fields(&mut self, values: &Values<'_>, wanted: impl Fn(Group) -> bool, members: &mut Members) {
        for (at, parameter) in PARAMETERS.iter().enumerate() {
            if parameter.kind == Kind::Special || !wanted(parameter.group) {
                continue;
            }
            let Some(text) = values.at(at) else { continue };
            if let Err(why) = convert::write(parameter, text, members) {
                self.wrong(parameter.name, parameter.kind.word(), why);
            }
        }
    }
}

/// The event, or the entity, of a redirect.
fn redirected(uri: &str) -> Body {
    let mut members = Members::default();
    members.text("uri", uri);
    Body { schema: Schema::Known(&SCHEMAS.redirect), payload: members.finish(), groups: &[] }
}

/// An event that is invalid.
struct Refused<'e> {
    schema: &'e SchemaKey,
    id: &'e str,
    time: i64,
}

impl Refused<'_> {
    /// Its payload is what came: the item itself; beside a query both; else the query.
    fn put(&self, origin: Origin<'_>, visit: &Visit<'_>, why: Invalid, gathered: &mut Gathered) {
        let query = visit.request.query;
        let mut payload = Vec::new();
        match origin {
            Origin::Item(item) if query.is_empty() => original(item, &mut payload),
            Origin::Item(item) => {
                payload.extend_from_slice(b"{\"query\":");
                json::write_string(query, &mut payload);
                payload.extend_from_slice(b",\"event\":");
                original(item, &mut payload);
                payload.push(b'}');
            }
            Origin::Query => {
                payload.extend_from_slice(b"{\"query\":");
                json::write_string(query, &mut payload);
                payload.push(b'}');
            }
        }
        let (schema, id, time) = (self.schema, self.id, self.time);
        gathered.refuse(&Tracked { schema, id, time, payload: &payload, contexts: b"" }, why);
    }
}

/// JSON as it came; as a string, where what reads it later could not.
fn original(item: &str, out: &mut Vec<u8>) {
    if is_shallow(item) {
        out.extend_from_slice(item.as_bytes());
    } else {
        json::write_string(item, out);
    }
}
