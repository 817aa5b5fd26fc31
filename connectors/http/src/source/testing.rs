//! What the tests of all inputs need: a request made of its parts, and what became of it.

use std::cell::RefCell;
use std::collections::HashMap;
use std::sync::Arc;

use forebay_api::{Invalid, StreamId};
use http::{HeaderMap, HeaderName, HeaderValue, Method};
use jsonschema::Validator;
use proptest::prelude::*;
use serde_json::Value;

use super::{Answer, Gathered, Request, own_schemas};

/// When every request of the tests came.
pub(super) const RECEIVED: i64 = 1_795_372_440_123_456;

/// What an input made of one event.
#[derive(Debug)]
pub(super) struct Told {
    pub(super) schema: String,
    pub(super) id: String,
    pub(super) time: i64,
    /// The very bytes.
    pub(super) raw: String,
    pub(super) payload: Value,
    pub(super) contexts: Vec<Value>,
    /// Why it is invalid.
    pub(super) why: Option<Invalid>,
}

impl Told {
    /// The kind of why it is invalid; empty where it is not.
    pub(super) fn kind(&self) -> &str {
        self.why.as_ref().map_or("", |why| &why.kind)
    }

    /// Why it is invalid, for a person.
    pub(super) fn message(&self) -> &str {
        self.why.as_ref().map_or("", |why| &why.message)
    }

    /// The data of the entity of one schema.
    pub(super) fn entity(&self, schema: &str) -> Option<&Value> {
        self.contexts.iter().find(|entity| entity["schema"] == schema).map(|entity| &entity["data"])
    }
}

/// Headers by name and value.
pub(super) fn headers(pairs: &[(&str, &str)]) -> HeaderMap {
    let mut headers = HeaderMap::new();
    for (name, value) in pairs {
        let value = HeaderValue::from_bytes(value.as_bytes()).unwrap();
        headers.append(HeaderName::from_bytes(name.as_bytes()).unwrap(), value);
    }
    headers
}

/// Runs an input over a request; `target` is a path and perhaps a query.
pub(super) fn run(
    read: impl Fn(&Request<'_>, &mut Gathered) -> Answer,
    method: Method,
    target: &str,
    header: &[(&str, &str)],
    body: &[u8],
) -> (Answer, Vec<Told>) {
    let (path, query) = target.split_once('?').unwrap_or((target, ""));
    let headers = headers(header);
    let request =
        Request { method: &method, path, query, headers: &headers, body, received: RECEIVED, client: None };
    let mut gathered = Gathered::new("web".into(), "test");
    let answer = read(&request, &mut gathered);
    (answer, told(gathered))
}

/// What was gathered. Payloads and contexts must be JSON that any parser reads.
pub(super) fn told(gathered: Gathered) -> Vec<Told> {
    let stream = Arc::new(StreamId { source: "web".into(), epoch: 1 });
    let chunk = gathered.finish(&stream, RECEIVED, 0);
    let mut refused = chunk.refused.iter().peekable();
    let tell = |(row, event): (usize, forebay_api::Event<'_>)| {
        let why = refused.next_if(|(at, _)| *at as usize == row).map(|(_, why)| (**why).clone());
        let raw = String::from_utf8(event.payload().to_vec()).unwrap();
        let contexts = match event.contexts() {
            b"" => Vec::new(),
            json => serde_json::from_slice(json).unwrap(),
        };
        Told {
            schema: event.subject().schema_key(),
            id: event.id(),
            time: event.row().time,
            // A number beyond f64 is JSON, and no `Value`.
            payload: serde_json::from_str(if raw.is_empty() { "null" } else { &raw }).unwrap_or(Value::Null),
            raw,
            contexts,
            why,
        }
    };
    let told: Vec<Told> = chunk.events().enumerate().map(tell).collect();
    told.iter().for_each(obeys_own_schemas);
    told
}

/// Panics where an event or an entity names a schema of ours and does not obey it.
fn obeys_own_schemas(told: &Told) {
    thread_local! {
        static VALIDATORS: RefCell<HashMap<String, Option<Validator>>> = RefCell::default();
    }
    let entities = told.contexts.iter().map(|entity| (entity["schema"].as_str().unwrap(), &entity["data"]));
    for (schema, data) in entities.chain([(&*told.schema, &told.payload)]) {
        VALIDATORS.with_borrow_mut(|known| {
            let validator = known.entry(schema.to_owned()).or_insert_with(|| {
                let text = serde_json::from_str(&own_schemas::text(schema)?).unwrap();
                Some(jsonschema::draft202012::new(&text).unwrap())
            });
            if let Some(Err(error)) = validator.as_ref().map(|validator| validator.validate(data)) {
                panic!("{schema} refuses {data}: {error}");
            }
        });
    }
}

/// Any JSON, as text: numbers of any size, nested, with escapes, with names twice.
pub(super) fn any_json() -> impl Strategy<Value = String> {
    let leaf = prop_oneof![
        Just("null".to_owned()),
        Just("true".to_owned()),
        "-?(0|[1-9][0-9]{0,30})(\\.[0-9]{1,20})?([eE][+-]?[0-9]{1,4})?",
        any::<String>().prop_map(|text| serde_json::to_string(&text).unwrap()),
        r#""(\\u[0-9a-f]{4}|\\n|[a-z])*""#,
    ];
    leaf.prop_recursive(4, 24, 6, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..8).prop_map(|items| format!("[{}]", items.join(","))),
            prop::collection::vec((name(), inner), 0..8).prop_map(|members| {
                let members: Vec<String> =
                    members.iter().map(|(name, value)| format!("{name}:{value}")).collect();
                format!("{{{}}}", members.join(" , "))
            }),
        ]
    })
}

/// Names that inputs look for, and others.
fn name() -> impl Strategy<Value = String> {
    prop_oneof![
        r#""(schema|data|payload|contexts|id|source|type|specversion|time|dataschema|data_base64)""#,
        r#""[a-z]{0,3}""#,
    ]
}
